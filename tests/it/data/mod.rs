//! Corpora from names, paths and the network; what is wrong with one is said clearly.

#[cfg(feature = "hub")]
mod network;

use rhn::config::{CorpusConfig, Unit};
use rhn::data::corpus::take_file;
use rhn::data::inspect::CorpusReport;
use rhn::data::registry::Registry;
use rhn::data::{Corpus, DataDirectories, Text, Tokenizer};
use rhn::digest::sha256;
use rhn::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn config(name: impl AsRef<Path>, unit: Unit) -> CorpusConfig {
    CorpusConfig { unknown: false, ..CorpusConfig::new(name.as_ref().display().to_string(), unit) }
}

fn report(config: &CorpusConfig, directories: &DataDirectories) -> CorpusReport {
    let corpus = Corpus::open(config, directories).unwrap();
    CorpusReport::new(&corpus, &Tokenizer::build(config, &corpus.train).unwrap()).unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

fn nowhere() -> DataDirectories {
    DataDirectories::only(Path::new("no such directory"), Registry::built_in())
}

fn open(path: impl AsRef<Path>) -> Result<Corpus, Error> {
    Corpus::open(&config(path, Unit::Char), &nowhere())
}

#[track_caller]
fn refused(result: Result<Corpus, Error>, parts: &[&str]) {
    let error = result.map(|corpus| corpus.name).expect_err("this should be refused");
    assert_eq!(error.exit_code(), 3, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

/// Penn Treebank is not ours to ship: what needs it is skipped where it is absent.
fn ptb() -> Option<DataDirectories> {
    let near = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let folder = std::env::var_os("RHN_TEST_DATA").map_or_else(|| near.into(), PathBuf::from);
    if folder.join("ptb/ptb.train.txt").is_file() {
        return Some(DataDirectories::only(&folder, Registry::built_in()));
    }
    eprintln!("skipped: no ptb/ptb.train.txt in {} (set RHN_TEST_DATA)", folder.display());
    None
}

/// Nothing may be left of a transfer that failed.
fn assert_nothing_kept(store: &TempDir) {
    let kept: Vec<_> = std::fs::read_dir(store.path().join("mini")).into_iter().flatten().flatten().collect();
    assert!(kept.is_empty(), "{kept:?}");
}

// Names

#[test]
fn shakespeare_is_built_in_and_cut_at_exact_bytes() {
    let corpus = open("shakespeare").unwrap();
    let sizes = corpus.splits().map(|(_, text)| text.len());
    assert_eq!(sizes, [1_003_854, 55_770, 55_770]); // 90 and 95 % of 1,115,394, rounded down
    assert_eq!(corpus.sha256, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed");
    let tokenizer = Tokenizer::build(&config("shakespeare", Unit::Char), &corpus.train).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    let split = [90.0, 10.0, 0.0];
    let halves = CorpusConfig { split, ..config("shakespeare", Unit::Char) };
    assert_eq!(Corpus::open(&halves, &nowhere()).unwrap().valid.len(), 111_540);
}

#[test]
fn ptb_has_the_published_words() {
    let Some(directories) = ptb() else { return };
    let config = config("ptb", Unit::Word);
    let report = report(&config, &directories);
    assert_eq!(report.vocab_size, 10_000);
    let tokens: Vec<usize> = report.splits.iter().map(|split| split.tokens).collect();
    assert_eq!(tokens, [929_589, 73_760, 82_430]);
    let entry = directories.registry.get("ptb").unwrap();
    assert_eq!((entry.types, entry.tokens.map(Vec::from)), (Some(10_000), Some(tokens)));
    assert!(report.splits.iter().all(|split| split.oov_tokens == 0));
    assert_eq!(report.splits[0].lines, 42_068);
}

#[test]
fn ptb_characters_are_made_from_the_words() {
    let Some(directories) = ptb() else { return };
    let config = config("ptb-char", Unit::Char);
    let report = report(&config, &directories);
    assert_eq!(report.vocab_size, 50);
    let tokens: Vec<usize> = report.splits.iter().map(|split| split.tokens).collect();
    assert_eq!(tokens, [5_017_482, 393_042, 442_423]);
    let entry = directories.registry.get("ptb-char").unwrap();
    assert_eq!((entry.types, entry.tokens.map(Vec::from)), (Some(50), Some(tokens)));
}

#[test]
fn an_unknown_name_lists_the_names_and_the_nearest() {
    refused(open("enwik"), &["enwik", "did you mean enwik8?", "shakespeare, ptb, ptb-char, enwik8, text8"]);
    refused(open("/no/such/file.txt"), &["/no/such/file.txt", "no such file"]);
}

#[test]
fn a_known_name_goes_before_a_path() {
    // The working directory of tests is the package, which has no file of this name; the name wins anyway.
    assert_eq!(open("shakespeare").unwrap().name, "shakespeare");
}

// Copies on this machine

#[test]
fn a_truncated_copy_is_refused_with_both_sizes() {
    let folder = folder(&[("enwik8", b"<mediawiki")]);
    let directories = DataDirectories::only(folder.path(), Registry::built_in());
    let result = Corpus::open(&config("enwik8", Unit::Byte), &directories);
    refused(result, &[folder.path().to_str().unwrap(), "is 10 bytes", "wanted 100000000"]);
}

fn registry(text: &[u8], archive: Option<&[u8]>, url: &str) -> Registry {
    let archive = archive.map_or_else(String::new, |zip| {
        let (bytes, sha256) = (zip.len(), sha256(zip));
        format!(
            "archive = {{ name = \"mini.zip\", member = \"mini\", bytes = {bytes}, sha256 = \"{sha256}\", urls = [\"{url}\"] }}"
        )
    });
    let (bytes, sha256) = (text.len(), sha256(text));
    let toml = format!(
        "[[corpus]]\nname = \"mini\"\nabout = \"a test\"\nlicence = \"none\"\nunit = \"byte\"\n\
         split_bytes = [{}, 5, 5]\n[[corpus.files]]\nnames = [\"mini\", \"text\"]\nbytes = {bytes}\n\
         sha256 = \"{sha256}\"\nurls = [\"{url}\"]\n{archive}\n",
        bytes - 10
    );
    Registry::parse(&toml).unwrap()
}

const MINI: &[u8] = b"a small corpus of \xff bytes, for tests\n";

fn mini(directories: &DataDirectories) -> Result<Corpus, Error> {
    Corpus::open(&config("mini", Unit::Byte), directories)
}

fn zipped(content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("mini", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_copy_is_found_in_its_folder_or_flat_under_each_usual_name() {
    let zip = zipped(MINI);
    for name in ["mini/mini", "mini", "mini/text", "text", "mini/mini.zip", "mini.zip"] {
        let content = if name.ends_with("zip") { &zip } else { MINI };
        let folder = folder(&[(name, content)]);
        let corpus = mini(&DataDirectories::only(folder.path(), registry(MINI, Some(&zip), "none"))).unwrap();
        let sizes = corpus.splits().map(|(_, text)| text.len());
        assert_eq!(sizes, [MINI.len() - 10, 5, 5], "{name}");
    }
}

#[test]
fn a_directory_given_goes_first_and_a_plain_name_elsewhere_belongs_to_nobody() {
    let (given, usual) = (folder(&[]), folder(&[("text", b"something else"), ("mini/mini", MINI)]));
    let usual_directories = vec![usual.path().to_path_buf()];
    let directories = DataDirectories {
        usual: usual_directories,
        ..DataDirectories::only(given.path(), registry(MINI, None, "none"))
    };
    assert!(mini(&directories).is_ok()); // usual/text is ignored, usual/mini/mini is taken
    std::fs::write(given.path().join("text"), b"something else").unwrap();
    refused(mini(&directories), &["text", "is 14 bytes"]);
}

#[test]
fn a_copy_with_other_content_is_refused_with_both_hashes() {
    let mut other = MINI.to_vec();
    other[3] ^= 1;
    let folder = folder(&[("mini", &other)]);
    let directories = DataDirectories::only(folder.path(), registry(MINI, None, "none"));
    refused(mini(&directories), &["mini", &sha256(&other), &sha256(MINI)]);
}

#[test]
fn an_archive_that_unpacks_to_more_than_declared_is_refused() {
    let zip = zipped(&vec![b'x'; 5_000_000]);
    let folder = folder(&[("mini.zip", &zip)]);
    refused(
        mini(&DataDirectories::only(folder.path(), registry(MINI, Some(&zip), "none"))),
        &["mini.zip", "more than"],
    );
}

#[test]
fn of_an_archive_only_the_member_that_was_asked_for_is_looked_at() {
    let options = zip::write::SimpleFileOptions::default();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in ["../evil", "/evil", "a/../../evil", "C:\\evil", "mini"] {
        zip.start_file(name, options).unwrap();
        zip.write_all(if name == "mini" { MINI } else { b"evil" }).unwrap();
    }
    zip.add_symlink("link", "/etc/passwd", options).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let parent = folder(&[("inner/mini.zip", &zip)]);
    let directories = DataDirectories::only(&parent.path().join("inner"), registry(MINI, Some(&zip), "none"));
    assert_eq!(mini(&directories).unwrap().sha256, sha256(MINI));
    let names = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(parent.path()), ["inner"]);
    assert_eq!(names(&parent.path().join("inner")), ["mini.zip"]);
}

#[test]
fn an_archive_whose_member_is_a_link_is_refused() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.add_symlink("mini", "/etc/passwd", zip::write::SimpleFileOptions::default()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let folder = folder(&[("mini.zip", &zip)]);
    let directories = DataDirectories::only(folder.path(), registry(MINI, Some(&zip), "none"));
    refused(mini(&directories), &["mini.zip", "11 of 37 bytes"]);
}

#[test]
fn a_copy_of_ones_own_is_taken_into_the_store() {
    let zip = zipped(MINI);
    let own = folder(&[("a/text", MINI), ("b/mini.zip", &zip), ("c/other.bin", MINI), ("d/text", b"wrong")]);
    let registry = registry(MINI, Some(&zip), "none");
    let entry = &registry.entries()[0];
    let take = |from: &str, store: &Path| {
        take_file(
            entry,
            &entry.files[0],
            &own.path().join(from),
            &DataDirectories::only(store, registry.clone()),
        )
    };
    for from in ["a", "a/text", "b", "b/mini.zip", "c/other.bin"] {
        let store = tempfile::tempdir().unwrap();
        let path = take(from, store.path()).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), MINI, "{from}");
        assert!(mini(&DataDirectories::only(store.path(), registry.clone())).is_ok());
    }
    let store = tempfile::tempdir().unwrap();
    for (from, part) in [("c", "has no mini or text"), ("d", "is 5 bytes"), ("none", "has no mini")] {
        let message = take(from, store.path()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    assert_nothing_kept(&store);
}

// Own text

#[test]
fn a_file_is_cut_at_line_ends() {
    let folder = folder(&[("own.txt", "0123456\n".repeat(100).as_bytes())]);
    let corpus = open(folder.path().join("own.txt")).unwrap();
    let sizes = corpus.splits().map(|(_, text)| text.len());
    assert_eq!(sizes, [720, 40, 40]);
    assert!(corpus.splits().iter().all(|(_, text)| text.bytes().ends_with(b"\n")));
}

#[test]
fn a_directory_has_its_splits_by_name() {
    for [train, valid, test] in [
        ["train.txt", "valid.txt", "test.txt"],
        ["my.train.txt", "my.validation.txt", "my.test.txt"],
        ["wiki.train.tokens", "dev.txt", "wiki.test.tokens"],
        ["wiki.train.raw", "val.txt", "wiki.test.raw"],
    ] {
        let folder = folder(&[(train, b"aaa\n"), (valid, b"bb\n"), (test, b"c\n"), ("notes.txt", b"")]);
        let corpus = open(folder.path()).unwrap();
        let sizes = corpus.splits().map(|(_, text)| text.len());
        assert_eq!(sizes, [4, 3, 2]);
    }
}

#[test]
fn a_language_of_botha_and_blunsom_has_the_splits_that_kim_et_al_read() {
    for within in ["", "1m-mono"] {
        let folder = folder(&[("notes.txt", b"no part of it\n")]);
        let inner = folder.path().join(within);
        std::fs::create_dir_all(&inner).unwrap();
        for (name, text) in [("train.in", "aaa\n"), ("test.in", "bb\n"), ("finaltest.in", "c\n")] {
            std::fs::write(inner.join(name), text).unwrap();
        }
        let corpus = open(folder.path()).unwrap();
        let texts = corpus.splits().map(|(_, text)| text.as_str().unwrap().to_string());
        assert_eq!(texts, ["aaa\n", "bb\n", "c\n"], "{within}");
        std::fs::remove_file(folder.path().join("notes.txt")).unwrap();
        std::fs::remove_file(inner.join("finaltest.in")).unwrap();
        let message = open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("has train.in and test.in and no finaltest.in"), "{message}");
    }
}

#[test]
fn a_directory_without_a_test_split_has_an_empty_one() {
    let folder = folder(&[("train.txt", b"aaa\n"), ("valid.txt", b"bb\n")]);
    assert!(open(folder.path()).unwrap().test.is_empty());
}

#[test]
fn a_directory_of_documents_is_one_text_in_the_order_of_their_names() {
    let marked = "\u{feff}b b b b\n";
    let books = folder(&[
        ("b.txt", marked.as_bytes()),
        ("a.txt", b"a a a a a a a\n"),
        ("c.raw", b"c c\n"),
        (".d.txt", b"d"),
    ]);
    let parts = |config: &CorpusConfig| {
        let corpus = Corpus::open(config, &nowhere()).unwrap();
        corpus.splits().map(|(_, text)| text.as_str().unwrap().to_owned())
    };
    let config = CorpusConfig { split: [60.0, 30.0, 10.0], ..config(books.path(), Unit::Char) };
    assert_eq!(parts(&config), ["a a a a a a a\n\n", "b b b b\n\n", "c c\n"]); // cut between documents
    let config = CorpusConfig { boundary: "<doc>".into(), ..config };
    assert_eq!(parts(&config).concat(), "a a a a a a a\n<doc>b b b b\n<doc>c c\n");
    let orders: Vec<String> =
        (0..6).map(|seed| parts(&CorpusConfig { shuffle: Some(seed), ..config.clone() }).concat()).collect();
    assert!(orders.iter().any(|order| *order != orders[0]));
    assert!(orders.iter().all(|order| order.len() == orders[0].len()));
}

#[test]
fn markdown_is_a_document_where_there_are_no_others() {
    let pages = folder(&[("b.md", b"b b b b\n"), ("a.markdown", b"a a a a a a a\n"), ("notes.pdf", b"%")]);
    let config = CorpusConfig { split: [60.0, 30.0, 10.0], ..config(pages.path(), Unit::Char) };
    let whole = |config: &CorpusConfig| {
        let corpus = Corpus::open(config, &nowhere()).unwrap();
        corpus.splits().map(|(_, text)| text.as_str().unwrap().to_owned()).concat()
    };
    assert_eq!(whole(&config), "a a a a a a a\n\nb b b b\n");
    std::fs::write(pages.path().join("c.txt"), "c c c c c c c c\n").unwrap();
    assert_eq!(whole(&config), "c c c c c c c c\n");
}

#[test]
fn a_link_to_nothing_is_no_missing_split() {
    let folder = folder(&[("train.txt", b"aaa\n"), ("valid.txt", b"bb\n")]);
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", folder.path().join("test.txt")).unwrap();
    #[cfg(unix)]
    refused(open(folder.path()), &["test.txt", "link to nowhere"]);
}

#[test]
fn a_directory_without_a_needed_split_is_refused() {
    let books = folder(&[("a.pdf", b"a"), ("b.pdf", b"b")]);
    refused(open(books.path()), &["no training split", "a.pdf, b.pdf", "train.txt"]);
    let half = folder(&[("train.txt", b"a")]);
    refused(open(half.path()), &["no validation split", "valid.txt"]);
    let twice = folder(&[("train.txt", b"a"), ("x.train.txt", b"a"), ("valid.txt", b"b")]);
    refused(open(twice.path()), &["both", "train.txt", "x.train.txt"]);
    refused(open(folder(&[]).path()), &["no file"]);
}

#[test]
fn empty_files_are_refused_by_name() {
    let folder = folder(&[("empty.txt", b""), ("splits/train.txt", b""), ("splits/valid.txt", b"b")]);
    refused(open(folder.path().join("empty.txt")), &["empty.txt", "is empty"]);
    refused(open(folder.path().join("splits")), &["train.txt", "is empty"]);
}

#[test]
fn one_symbol_is_too_little_to_be_split() {
    let folder = folder(&[("one.txt", b"a")]);
    refused(open(folder.path().join("one.txt")), &["one.txt", "too few"]);
}

#[test]
fn invalid_utf8_is_an_error_for_words_chars_and_pairs_but_not_for_bytes() {
    let mut text = "good line\n".repeat(10).into_bytes();
    text[53] = 0xff;
    let folder = folder(&[("bad.txt", &text)]);
    let path = folder.path().join("bad.txt");
    let corpus = open(&path).unwrap();
    for unit in [Unit::Word, Unit::Char, Unit::Bpe] {
        let error = Tokenizer::build(&config(&path, unit), &corpus.train).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.exit_code(), 3);
        assert!(message.contains("bad.txt") && message.contains("offset 53, line 6"), "{message}");
    }
    let bytes = Tokenizer::build(&config(&path, Unit::Byte), &corpus.train).unwrap();
    assert_eq!(bytes.encode(&corpus.train).unwrap().tokens.len(), 90);
}

#[test]
fn a_split_that_makes_no_whole_is_a_configuration_error() {
    let split = [90.0, 5.0, 4.0];
    let wrong = CorpusConfig { split, ..config("shakespeare", Unit::Char) };
    assert_eq!(Corpus::open(&wrong, &nowhere()).unwrap_err().exit_code(), 2);
}

#[test]
fn the_list_in_the_program_is_complete() {
    let registry = Registry::built_in();
    let names: Vec<_> = registry.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["shakespeare", "ptb", "ptb-char", "enwik8", "text8", "mnist"]);
    for file in registry.entries().iter().flat_map(|entry| &entry.files) {
        let archive = file.archive.as_ref();
        let hashes = [Some(&file.sha256), archive.map(|archive| &archive.sha256)];
        assert!(hashes.into_iter().flatten().all(|hash| hash.len() == 64));
        let urls = archive.map_or(&file.urls, |archive| &archive.urls);
        assert!(urls.len() >= 2 && urls.iter().all(|url| url.starts_with("http")));
    }
}

#[test]
fn a_list_with_a_path_for_a_name_is_refused() {
    let toml = "[[corpus]]\nname = \"x\"\nabout = \"\"\nlicence = \"\"\nunit = \"byte\"\n\
                [[corpus.files]]\nnames = [\"../x\"]\nbytes = 1\nsha256 = \"\"\n";
    assert!(Registry::parse(toml).unwrap_err().to_string().contains("../x"));
}

/// For `tests/reference/tokenizers_check.py`: `RHN_SAMPLES=DIR cargo test --test it -- --ignored writes_samples`.
#[test]
#[ignore = "run by hand, then tests/reference/tokenizers_check.py"]
fn writes_samples_for_the_python_library() {
    let Some(out) = std::env::var_os("RHN_SAMPLES").map(PathBuf::from) else { return };
    let odd = "\u{feff}odd\r\n\r\n  two  spaces \t\u{a0}\u{2003}x\u{85}y\u{2028}z <unk> a<eos>b <eos>\r lone\n\n\n\0é東京🎭 it's 12.5%\n \n last";
    let shakespeare = open("shakespeare").unwrap();
    let mut cases = vec![
        ("shakespeare", shakespeare.train.clone(), vec![shakespeare.valid]),
        ("odd", Text::from(odd), vec![]),
    ];
    if let Some(directories) = ptb() {
        let ptb = Corpus::open(&config("ptb", Unit::Word), &directories).unwrap();
        cases.push(("ptb", ptb.train, vec![ptb.valid]));
    }
    let extra =
        [odd, "", "\n", "a", " ", "a\n", "a\r\n", "\r", "\n\n", "Ünseen ψ words\nhere", "<unk>", "\u{feff}"];
    for (name, train, mut texts) in cases {
        texts.extend(extra.map(Text::from));
        for unit in [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe] {
            for unknown in [true, false] {
                let config = CorpusConfig { unknown, ..config(name, unit) };
                let tokenizer = Tokenizer::build(&config, &train).unwrap();
                let case = out.join(format!("{name}-{unit:?}-{unknown}"));
                std::fs::create_dir_all(&case).unwrap();
                std::fs::write(case.join("tokenizer.json"), tokenizer.to_json()).unwrap();
                for (index, text) in texts.iter().enumerate() {
                    let ids = tokenizer.encode(text).unwrap().tokens.to_vec();
                    std::fs::write(case.join(format!("{index}.txt")), text.bytes()).unwrap();
                    std::fs::write(case.join(format!("{index}.json")), format!("{ids:?}")).unwrap();
                }
            }
        }
    }
}
