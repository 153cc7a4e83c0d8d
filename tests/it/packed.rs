//! A run in parts: carried elsewhere, it is the same to the bit and goes on.

use crate::support::run::{Place, stderr, stdout};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything below a directory but its lock.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().unwrap() != "lock" {
                found.insert(path.strip_prefix(directory).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn parts(place: &Place, prefix: &str) -> Vec<PathBuf> {
    let named = |number: usize| place.path(&format!("{prefix}.zip.{number:03}"));
    (1..).map(named).take_while(|path| path.exists()).collect()
}

#[test]
fn a_run_in_parts_is_the_same_elsewhere_and_goes_on() {
    let place = Place::new();
    place.train("--out whole");
    place.train("--out runs/stopped --max-steps 40");
    let output = place.rhn("run pack runs/stopped/ --part-size 5kB");
    assert_eq!(output.status.code(), Some(0));
    let made = parts(&place, "runs/stopped");
    assert!(made.len() > 3 && made.iter().all(|part| fs::metadata(part).unwrap().len() <= 5000));
    assert!(stdout(&output).starts_with(&format!("{} part(s)", made.len())), "{}", stdout(&output));
    place.rhn("run pack runs/stopped --part-size 5kB --out again");
    let bytes = |paths: Vec<PathBuf>| paths.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    assert_eq!(bytes(made), bytes(parts(&place, "again")), "equal runs give equal parts");
    for (index, given) in
        ["runs/stopped.zip.001", "runs/stopped.zip.sha256", "runs/stopped.zip.002 runs/stopped.zip.001"]
            .iter()
            .enumerate()
    {
        let output = place.rhn(&format!("run unpack {given} --out elsewhere/{index}"));
        assert_eq!(output.status.code(), Some(0), "{given}");
        assert_eq!(files(&place.path(&format!("elsewhere/{index}"))), files(&place.path("runs/stopped")));
    }
    fs::remove_file(place.path("runs/stopped.zip.sha256")).unwrap();
    assert_eq!(place.rhn("run unpack runs/stopped.zip.001 --out without-list").status.code(), Some(0));
    place.train("--out elsewhere/0 --resume");
    assert_eq!(place.fingerprint("elsewhere/0"), place.fingerprint("whole"));
}

/// A colleague's run, or one on a medium that cannot be written.
#[cfg(unix)]
#[test]
fn a_run_that_may_only_be_read_is_packed_too() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.train("--out run --max-steps 40");
    let allow = |name: &str, mode: u32| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    allow("run/lock", 0o444);
    allow("run", 0o555);
    if fs::write(place.path("run/written"), "").is_ok() {
        eprintln!("skipped: this user may write where nobody may");
        return;
    }
    assert_eq!(place.rhn("run pack run --part-size 5kB --out packed").status.code(), Some(0));
    place.rhn("run unpack packed.zip.001 --out again");
    assert_eq!(files(&place.path("again")), files(&place.path("run")));
    allow("run", 0o755);
}

#[test]
fn parts_that_are_damaged_or_missing_are_refused_by_name_and_nothing_is_left() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    place.rhn("run pack run --part-size 4kB");
    let all = parts(&place, "run");
    let list = place.path("run.zip.sha256");
    let hashes = fs::read(&list).unwrap();
    let unpack = "run unpack run.zip.001 --out out";
    for part in &all {
        let name = part.file_name().unwrap().to_str().unwrap();
        let good = fs::read(part).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        fs::write(part, &bad).unwrap();
        place.fails(unpack, 4, &[name, "SHA-256", "damaged"]);
        fs::remove_file(&list).unwrap(); // the archive knows its own files: a bit that is in none of them does not count
        if place.rhn(unpack).status.code() == Some(0) {
            assert_eq!(files(&place.path("out")), files(&place.path("run")));
            fs::remove_dir_all(place.path("out")).unwrap();
        } else {
            place.fails(unpack, 4, &["run.zip.001"]);
        }
        fs::write(&list, &hashes).unwrap();
        fs::remove_file(part).unwrap();
        place.fails("run unpack run.zip.sha256 --out out", 4, &[name, "is missing"]);
        fs::write(part, &good).unwrap();
        assert!(!place.path("out").exists());
    }
    let last = all.last().unwrap();
    fs::remove_file(&list).unwrap();
    fs::remove_file(last).unwrap();
    place.fails(unpack, 4, &["run.zip.001", "is the last part there?"]);
    let left = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_str().unwrap().ends_with(".part")));
}

#[test]
fn what_cannot_be_packed_or_unpacked_is_refused() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    place.write("empty/nothing.txt", "");
    place.write("text.zip.001", "no archive");
    place.write("stray.zip.002", "of another run");
    place.rhn("run pack run --part-size 1MB");
    for (command, code, parts) in [
        ("run pack nowhere --part-size 1MB", 4, &["nowhere", "is no run"] as &[&str]),
        ("run pack empty --part-size 1MB", 4, &["empty", "is no run"]),
        ("run pack run --part-size 1MB", 2, &["run.zip.001", "is there already"]),
        ("run pack run --part-size 9", 2, &["--part-size", "at least 1kB"]),
        ("run unpack run.zip.001 --out empty", 2, &["empty", "is there already"]),
        ("run unpack corpus.txt --out new", 2, &["corpus.txt", "NAME.zip.001"]),
        ("run unpack run.zip.001 text.zip.001 --out new", 2, &["two runs"]),
        ("run unpack run.zip.99999999999999 --out new", 4, &["run.zip.99999999999999", "which lists 1"]),
        ("run pack run --part-size 1kB --out stray", 2, &["stray.zip.002", "is there already"]),
        ("run unpack other.zip.001 --out new", 4, &["other.zip.001", "is missing"]),
        ("run unpack text.zip.001 --out new", 4, &["text.zip.001", "no whole archive"]),
    ] {
        place.fails(command, code, parts);
    }
    let output = place.rhn("run pack run --part-size 1MB --out /dev/null/x");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    assert!(!place.path("new").exists());
    assert_eq!(fs::read_to_string(place.path("stray.zip.002")).unwrap(), "of another run");
    // A part may be as large as it likes.
    let whole = format!("run pack run --part-size {} --out whole", 1u64 << 60);
    assert!(place.rhn(&whole).status.success());
    assert!(place.rhn("run unpack whole.zip.001 --out unpacked").status.success());
    assert_eq!(files(&place.path("unpacked")), files(&place.path("run")));
    // What is damaged is not carried on.
    let model = place.path("run/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&model, bytes).unwrap();
    place.fails("run pack run --part-size 1MB --out damaged", 4, &["model.safetensors", "SHA-256"]);
    assert!(!place.path("damaged.zip.001").exists());
}

/// Archives that were not made by this program.
#[test]
fn names_that_lead_elsewhere_are_refused() {
    use std::io::Write;
    let place = Place::new();
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"
    let archive = |files: &[&str], contents: &str| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in files {
            zip.start_file(*name, options).unwrap();
            zip.write_all(b"abc").unwrap();
        }
        zip.start_file("pack.json", options).unwrap();
        zip.write_all(contents.as_bytes()).unwrap();
        place.write("bad.zip.001", zip.finish().unwrap().into_inner());
    };
    let entry = |name: &str, size: u64| format!(r#"{{"name":"{name}","size":{size},"sha256":"{hash}"}}"#);
    let listing = |entries: &str| format!(r#"{{"format":1,"files":[{entries}]}}"#);
    for name in ["../escaped", "/tmp/escaped", "a/../../b", "lock", "", "c:x"] {
        archive(&[name], &listing(&entry(name, 3)));
        place.fails("run unpack bad.zip.001 --out out", 4, &["names a file"]);
    }
    for (files, contents, part) in [
        (&["a", "b"] as &[&str], listing(&entry("a", 3)), "does not list"),
        (&["a"], listing(&format!("{},{}", entry("a", 3), entry("a", 3))), "names a file"),
        (&["a"], listing(&format!("{},{}", entry("a", 3), entry("b", 3))), "cannot be read"),
        (&["a"], listing(&entry("a", 4)), "has 3 bytes"),
        (&["a"], listing(&entry("a", 18_446_744_073_709_551_615)), "has 3 bytes"),
        (&["a"], r#"{"format":2,"files":[]}"#.into(), "newer version"),
        (&["a"], "[]".into(), "pack.json"),
    ] {
        archive(files, &contents);
        place.fails("run unpack bad.zip.001 --out out", 4, &[part]);
    }
    assert!(!place.path("out").exists() && !place.path("escaped").exists());
    archive(&["a"], &listing(&entry("a", 3)));
    assert_eq!(place.rhn("run unpack bad.zip.001 --out out").status.code(), Some(0));
    assert_eq!(fs::read(place.path("out/a")).unwrap(), b"abc");
}
