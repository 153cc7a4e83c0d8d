//! A kill at any moment of a publication, and a reader beside a writer.

use super::{copy, listing, published, published_directory};
use crate::support::checkpoint_files::files;
use rhn::checkpoint;
use rhn::storage::MANIFEST;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Every state of the directory that a kill during the second publication can leave, oldest first, and whether
/// the new version counts in it.
fn interrupted() -> Vec<(String, TempDir, bool)> {
    let second = published_directory(2.0); // the files of the new version
    let names: Vec<&str> = files(2.0).iter().map(|(name, _)| *name).chain([MANIFEST]).collect();
    let mut stages = Vec::new();
    let mut stage = |case: String, newer: bool, build: &dyn Fn(&Path)| {
        let out = published_directory(1.0);
        build(out.path());
        stages.push((case, out, newer));
    };
    for written in 0..=names.len() {
        stage(format!("{written} files written"), false, &|out| {
            let aside = out.join(".publish.tmp");
            fs::create_dir(&aside).unwrap();
            for name in &names[..written] {
                fs::copy(second.path().join(name), aside.join(name)).unwrap();
            }
            if written > 0 {
                let last = aside.join(names[written - 1]);
                let half = fs::read(&last).unwrap().len() as u64 / 2;
                fs::File::options().write(true).open(last).unwrap().set_len(half).unwrap();
            }
        });
    }
    for moved in 0..=names.len() {
        stage(format!("{moved} files moved"), true, &|out| {
            let pending = out.join(".pending");
            copy(second.path(), &pending);
            for name in &names[..moved] {
                fs::rename(pending.join(name), out.join(name)).unwrap();
            }
        });
    }
    stages
}

#[test]
fn a_kill_at_any_stage_of_publishing_leaves_the_old_or_the_new_version() {
    for (case, out, newer) in interrupted() {
        let wanted = if newer { 2.0 } else { 1.0 };
        let before = listing(out.path());
        assert_eq!(published(out.path()).expect(&case), wanted, "{case}");
        assert_eq!(listing(out.path()), before, "{case}: a reader repairs nothing");
        checkpoint::recover(out.path()).unwrap();
        assert_eq!(published(out.path()).expect(&case), wanted, "{case}, recovered");
        assert!(!out.path().join(".pending").exists() && !out.path().join(".publish.tmp").exists(), "{case}");
    }
}

#[test]
fn the_next_publication_after_a_kill_succeeds() {
    for (case, out, _) in interrupted() {
        checkpoint::publish(out.path(), &files(3.0)).unwrap();
        assert_eq!(published(out.path()).expect(&case), 3.0, "{case}");
    }
}

#[test]
fn a_reader_beside_a_writer_always_sees_one_whole_version() {
    let out = published_directory(0.0);
    let path = out.path().to_path_buf();
    let writer = std::thread::spawn(move || {
        for version in 1..=40 {
            checkpoint::publish(&path, &files(version as f32)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let mut last = 0.0;
    while !writer.is_finished() {
        let now = published(out.path()).unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    writer.join().unwrap();
    assert_eq!(published(out.path()).unwrap(), 40.0);
}
