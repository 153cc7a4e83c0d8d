//! What the program is made of: licences, banned crates and sources, by the lists of `deny.toml`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Crates that the program may be built from, its own apart: one more is a decision.
const MOST_CRATES: usize = 253;

/// What a program prints, or its complaint.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What cargo knows of the workspace's crates. It wants those of the benchmarks too, which building the tests does not
/// download: they are fetched where they are missing. None, with a message, where that cannot be.
fn metadata() -> Option<Value> {
    let compiler = output("rustc", &["-vV"]).unwrap();
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let args = ["metadata", "--format-version=1", "--locked", "--filter-platform", host];
    let offline = || output(env!("CARGO"), &[&args[..], &["--offline"]].concat());
    match offline().or_else(|_| output(env!("CARGO"), &args)) {
        Ok(json) => Some(serde_json::from_str(&json).unwrap()),
        Err(complaint) => {
            eprintln!("skipped: the benchmarks' crates are not here and cannot be fetched: {complaint}");
            None
        }
    }
}

/// The crates that a build of this machine is made of, those of tests alone apart. None as [`metadata`].
fn crates() -> Option<Vec<Value>> {
    let metadata = metadata()?;
    let list = |value: &Value| value.as_array().unwrap().clone();
    let (nodes, packages) = (list(&metadata["resolve"]["nodes"]), list(&metadata["packages"]));
    let root = metadata["resolve"]["root"].clone();
    let (mut reached, mut next) = (BTreeSet::from([root.to_string()]), vec![root.clone()]);
    while let Some(id) = next.pop() {
        let node = nodes.iter().find(|node| node["id"] == id).unwrap();
        for dependency in list(&node["deps"]) {
            let for_tests = list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev");
            if !for_tests && reached.insert(dependency["pkg"].to_string()) {
                next.push(dependency["pkg"].clone());
            }
        }
    }
    let mut crates = packages;
    // Those of this workspace have no source.
    crates.retain(|package| !package["source"].is_null() && reached.contains(&package["id"].to_string()));
    Some(crates)
}

fn lists() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Whether an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be met by the `allowed` licences.
fn is_met(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words, allowed)
}

type Words<'a, 'b> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'b>>;

fn any(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

/// A licence with an exception is not the licence.
fn one(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => {
            let met = any(words, allowed);
            met & words.next_if_eq(&")").is_some()
        }
        Some(licence) => {
            let plain = words.next_if_eq(&"WITH").is_none_or(|_| words.next().is_none());
            plain && allowed.contains(&licence)
        }
        None => false,
    }
}

#[test]
fn an_expression_of_licences_is_understood() {
    let met = |expression| is_met(expression, &["MIT", "ISC"]);
    for expression in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(GPL-3.0 OR MIT) AND ISC"] {
        assert!(met(expression), "{expression}");
    }
    for expression in
        ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH x-exception", "", "(MIT", "Apache-2.0 OR (MIT AND GPL-3.0)"]
    {
        assert!(!met(expression), "{expression}");
    }
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_comes_from_the_registry() {
    let lists = lists();
    let allowed: Vec<&str> =
        lists["licenses"]["allow"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    let exceptions = lists["licenses"]["exceptions"].as_array().unwrap();
    for package in crates().into_iter().flatten() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        let own = exceptions.iter().filter(|exception| exception["crate"].as_str() == name.as_str());
        let own = own.flat_map(|exception| exception["allow"].as_array().unwrap());
        let allowed: Vec<&str> = own.filter_map(toml::Value::as_str).chain(allowed.iter().copied()).collect();
        assert!(is_met(licence, &allowed), "{name}: {licence:?}");
        let source = package["source"].as_str().unwrap_or_default();
        assert!(source.starts_with("registry+"), "{name} from {source:?}");
    }
}

#[test]
fn no_crate_is_banned_and_there_are_no_more_than_the_features_need() {
    let lists = lists();
    let Some(crates) = crates() else { return };
    for banned in lists["bans"]["deny"].as_array().unwrap() {
        let name = banned["name"].as_str().unwrap();
        assert!(crates.iter().all(|package| package["name"] != name), "{name} is banned");
    }
    assert!(crates.len() <= MOST_CRATES, "{} crates, at most {MOST_CRATES} are meant", crates.len());
}
