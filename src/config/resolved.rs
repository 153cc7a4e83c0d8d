//! A recipe with everything set, and where each of its values comes from: a built-in recipe or a file, what it extends, and
//! settings from outside.

use super::recipe::BUILT_IN;
use super::tables::{
    from_table, leaves, lies_under, lookup, merge, nearest, parse_setting, parse_table, set,
};
use super::{ModelSpec, Recipe};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// A recipe, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe's name: a built-in one's, or the file's without its ending.
    pub name: String,
    /// The recipe with everything set.
    pub recipe: Recipe,
    /// For each dotted key that was given: by whom. The others have their default.
    origins: BTreeMap<String, String>,
}

/// The origin of a value that was given outside of any recipe.
const GIVEN: &str = "--set";

/// Refuses a key without its table, if the recipe has one of its name in a table.
fn check_place(recipe: &Table, key: &str, setting: &str) -> Result<()> {
    let all = Value::Table(recipe.clone());
    let ending = format!(".{key}");
    let places =
        leaves("", &all).into_iter().map(|(place, _)| place).filter(|place| place.ends_with(&ending));
    match places.collect::<Vec<_>>() {
        places if key.contains('.') || places.is_empty() || recipe.contains_key(key) => Ok(()),
        places => Err(Error::config(format!("--set {setting}: did you mean {}?", places.join(" or ")))),
    }
}

impl Resolved {
    /// The built-in recipe `name`, or the file of that path, with `key=value` settings on top.
    pub fn new(name: &str, settings: &[String]) -> Result<Self> {
        let resolved = Self::unchecked(name, settings, None)?;
        resolved.recipe.validate()?;
        Ok(resolved)
    }

    /// The same before its parts are held against each other, because [`Resolved::take`] is to change some of them. A setting
    /// of a `kind` that sweeps the recipe's keys of another kind away brings those of `lent`, where it has that kind.
    pub fn unchecked(name: &str, settings: &[String], lent: Option<&ModelSpec>) -> Result<Self> {
        let lent = lent.map(|spec| Table::try_from(spec).expect("a model's settings are a table"));
        let lent =
            lent.map_or_else(Table::new, |spec| Table::from_iter([("model".into(), Value::Table(spec))]));
        let mut origins = BTreeMap::new();
        let (short, mut table) = load(name, &mut origins, 0)?;
        for setting in settings {
            let (key, value) = parse_setting(setting)?;
            check_place(&table, key, setting)?;
            if let Some(of_kind) = of_kind(&lent, key, &value)
                && lookup(&table, key) != Some(&value)
            {
                let (place, _) = key.rsplit_once('.').expect("a kind lies in a table");
                set(&mut table, place, of_kind.clone(), setting)?;
            }
            set(&mut table, key, value.clone(), setting)?;
            note(&mut origins, key, &value, GIVEN);
        }
        let source = match settings {
            [] => name.to_string(),
            _ => format!("{name} with --set {}", settings.join(" --set ")),
        };
        origins.retain(|key, _| lookup(&table, key).is_some()); // not of what a new kind has swept away
        let recipe: Recipe = from_table(table, &source)?;
        Ok(Self { name: short, recipe, origins })
    }

    /// Whether a value comes from the user: from a setting, or from a file that is not built in.
    pub fn is_set(&self, key: &str) -> bool {
        let is_built_in = |origin: &String| {
            let name = origin.strip_prefix("recipe ");
            name.is_some_and(|name| BUILT_IN.iter().any(|(known, _)| *known == name))
        };
        self.origins.get(key).is_some_and(|origin| !is_built_in(origin))
    }

    /// Whether a value was given outside of any recipe, as `key=value`.
    pub fn is_given(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin == GIVEN)
    }

    /// What the user has set under `keys`, tables or single values, otherwise than `other` has it: the key, the value
    /// in `other`, and the one here.
    pub fn conflicts(&self, keys: &[&str], other: &Recipe) -> Vec<[String; 3]> {
        let theirs = other.leaves();
        let own = self.recipe.leaves().into_iter();
        own.filter(|(key, _)| keys.iter().any(|table| lies_under(key, table)) && self.is_set(key))
            .filter(|(key, value)| theirs.get(key) != Some(value))
            .map(|(key, value)| {
                let there = theirs.get(&key).cloned().unwrap_or_else(|| "unset".into());
                [key, there, value]
            })
            .collect()
    }

    /// Takes what `other` has under `keys` in place of the values here.
    ///
    /// # Errors
    /// If the result is no recipe that can be trained.
    pub fn take(&mut self, keys: &[&str], other: &Recipe) -> Result<()> {
        let mut table = Table::try_from(&self.recipe).expect("a recipe is a table");
        let theirs = Table::try_from(other).expect("a recipe is a table");
        for key in keys {
            if let Some(value) = lookup(&theirs, key) {
                set(&mut table, key, value.clone(), key)?;
            }
        }
        self.recipe = from_table(table, &self.name)?;
        self.recipe.validate()
    }

    /// The whole configuration as it would run, as TOML; each value with its origin.
    pub fn describe(&self) -> String {
        let table = Table::try_from(&self.recipe).expect("a recipe is a table");
        let mut lines = vec![format!("# {}", self.name)];
        for (section, value) in &table {
            lines.push(format!("\n[{section}]"));
            for (key, value) in leaves("", value) {
                let origin = self.origins.get(&format!("{section}.{key}")).map_or("default", String::as_str);
                lines.push(format!("{:40} # {origin}", format!("{key} = {value}")));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// The table of a recipe, merged over the one that it extends.
fn load(name: &str, origins: &mut BTreeMap<String, String>, depth: usize) -> Result<(String, Table)> {
    const LONGEST_CHAIN: usize = 8;
    if depth > LONGEST_CHAIN {
        return Err(Error::config(format!(
            "{name}: recipes extend one another more than {LONGEST_CHAIN} times"
        )));
    }
    let (short, text, path) = find(name)?;
    let mut table = parse_table(&text, Path::new(&path))?;
    let base = match table.remove("extends") {
        None => None,
        Some(Value::String(base)) => Some(load(&base, origins, depth + 1)?.1),
        Some(other) => {
            return Err(Error::config(format!("{path}: extends is {other}, wanted a recipe's name")));
        }
    };
    note(origins, "", &Value::Table(table.clone()), &path);
    Ok(match base {
        None => (short, table),
        Some(mut base) => {
            merge(&mut base, table);
            (short, base)
        }
    })
}

/// A recipe's short name, its text, and how to call it in messages.
fn find(name: &str) -> Result<(String, String, String)> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok(((*name).into(), (*text).into(), format!("recipe {name}")));
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|ending| ending == "toml") || path.is_file() {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::config(format!("{name}: {error}")))?;
        let short =
            path.file_stem().map_or_else(|| name.to_string(), |stem| stem.to_string_lossy().into_owned());
        return Ok((short, text, name.into()));
    }
    let known = BUILT_IN.iter().map(|(known, _)| *known);
    let nearest =
        nearest(name, known.clone()).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
    let all: Vec<_> = known.collect();
    Err(Error::config(format!(
        "no recipe is named {name}.{nearest} There are {}, or a file that ends in .toml",
        all.join(", ")
    )))
}

/// The table of `lent` in which `key` lies, if `key` is its `kind` and this is `value`.
fn of_kind<'a>(lent: &'a Table, key: &str, value: &Value) -> Option<&'a Value> {
    let place = key.strip_suffix(".kind")?;
    lookup(lent, place).filter(|table| table.get("kind") == Some(value))
}

/// Records for every leaf under `key` that `origin` gave it.
fn note(origins: &mut BTreeMap<String, String>, key: &str, value: &Value, origin: &str) {
    origins.extend(leaves(key, value).into_iter().map(|(key, _)| (key, origin.to_string())));
}
