//! The cache of encoded shards: what is whole in it is used, what is not is found.

use super::{SETTINGS, cached, lines, place};
use crate::support::run::Place;
use rhn::digest::sha256;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn dry_run(place: &Place, settings: &str) -> String {
    let output =
        place.rhn(&format!("train tiny.toml --corpus shards {SETTINGS} {settings} --dry-run --threads 1"));
    crate::support::run::stderr(&output)
}

#[test]
fn what_is_encoded_is_used_again_and_a_changed_shard_is_encoded_again() {
    let place = place();
    dry_run(&place, "");
    let ids = cached(&place, ".ids");
    assert_eq!(ids.len(), 5, "{ids:?}");
    let before: Vec<_> = ids.iter().map(|path| modified(path)).collect();
    dry_run(&place, "");
    assert_eq!(ids.iter().map(|path| modified(path)).collect::<Vec<_>>(), before);
    // Words that are known already: the vocabulary stays as it is, so that the other shards do too.
    place.write("shards/valid/v.txt", lines(200, 20).0);
    dry_run(&place, "");
    let changed = ids.iter().zip(before).filter(|(path, before)| modified(path) != *before);
    let changed: Vec<_> = changed.map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert!(changed.len() == 1 && changed[0].starts_with("v.txt-"), "{changed:?}");
}

#[test]
fn an_encoding_that_ended_early_goes_on_at_the_next_shard() {
    let place = place();
    let good = fs::read(place.path("shards/train/b.txt")).unwrap();
    let words = lines(0, 200).0; // a vocabulary of its own, so that nothing is counted before
    place.write("words.txt", "the 9\nold 8\nmill 7\nriver 6\n");
    let settings = "--set corpus.vocabulary=words.txt";
    place.write("shards/train/b.txt", [words.as_bytes(), b"ab\xffc\n"].concat());
    let message = dry_run(&place, settings);
    let line = 201;
    let offset = words.len() + 2;
    assert!(
        message.contains(&format!("train/b.txt: invalid UTF-8: byte 0xff at offset {offset}, line {line}")),
        "{message}"
    );
    let done = cached(&place, ".json");
    assert!(done.len() == 1 && done[0].to_str().unwrap().contains("/a.txt-"), "{done:?}");
    let before = modified(&done[0]);
    let folder = done[0].parent().unwrap();
    let c = place.path("shards/train/c.txt").canonicalize().unwrap();
    let digest = sha256(c.to_str().unwrap().as_bytes());
    let left = folder.join(format!(".c.txt-{}.ids.4000000.part", &digest[..8])); // of a process that was killed
    fs::write(&left, b"half").unwrap();
    assert!(
        cached(&place, ".part").len() == 1,
        "the failed encoding left something: {:?}",
        cached(&place, ".part")
    );
    place.write("shards/train/b.txt", good);
    dry_run(&place, settings);
    assert_eq!((cached(&place, ".json").len(), modified(&done[0])), (5, before));
    assert!(!left.exists());
}

#[test]
fn damage_is_found_where_it_is_read() {
    let place = place();
    let train = |out: &str| place.rhn(&format!("train tiny.toml --corpus shards --out {out} {SETTINGS}"));
    let weights = |out: &str| fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(train("first").status.success());
    let ids_of = |shard: &str| {
        let is_its = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(shard);
        cached(&place, ".ids").into_iter().find(is_its).unwrap()
    };
    // The steps before it are not lost, in training or in a validation: whole again, it goes on to the same end.
    for (shard, out) in [("b.txt-", "second"), ("v.txt-", "of-validation")] {
        let ids = ids_of(shard);
        let whole = fs::read(&ids).unwrap();
        let mut changed = whole.clone();
        changed[100] ^= 1;
        fs::write(&ids, &changed).unwrap();
        let said = [shard, ".ids: is damaged", "delete the file"];
        crate::support::run::assert_fails(&train(out), 3, &said);
        fs::write(&ids, &whole).unwrap();
        assert!(place.newest(out).exists(), "the state before what failed");
        assert!(train(&format!("{out} --resume")).status.success());
        assert_eq!(weights("first"), weights(out));
    }
    let ids = ids_of("b.txt-");
    let whole = fs::read(&ids).unwrap();
    fs::remove_file(&ids).unwrap();
    let third = train("third");
    assert!(
        crate::support::run::stderr(&third).contains("is damaged or missing; its shard is encoded again")
    );
    assert_eq!(fs::read(&ids).unwrap(), whole);
    fs::write(&ids, &whole[..whole.len() - 2]).unwrap();
    assert!(train("fourth").status.success());
    assert_eq!((weights("first"), weights("first")), (weights("third"), weights("fourth")));
    let record = ids.with_extension("json");
    fs::write(&record, "{").unwrap();
    assert!(train("fifth").status.success());
    assert_eq!(weights("first"), weights("fifth"));
}

#[test]
fn a_vocabulary_is_counted_once_and_one_that_is_damaged_again() {
    let place = place();
    dry_run(&place, "");
    let vocabularies = || -> Vec<_> {
        let files = fs::read_dir(place.path("cache/vocabularies")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    };
    let [one] = &vocabularies()[..] else { panic!("{:?}", vocabularies()) };
    let before = (modified(one), fs::read(one).unwrap());
    dry_run(&place, "");
    assert_eq!((modified(one), fs::read(one).unwrap()), before);
    fs::write(one, b"{}").unwrap();
    dry_run(&place, "");
    assert_eq!((vocabularies().len(), fs::read(one).unwrap()), (1, before.1));
}
