//! Corpora that are larger than memory: shards in a cache on disk, sentences packed into batch rows.

mod cache;
mod resets;

use crate::support::run::{Place, assert_fails, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Output;

const WORDS: [&str; 9] = ["the", "old", "mill", "river", "sleeps", "by", "a", "new", "bridge"];

/// Lines of 0 to 11 words, number `first` and those after it, and their tokens: a line end each.
fn lines(first: usize, count: usize) -> (String, usize) {
    let mut text = String::new();
    let mut tokens = 0;
    for line in first..first + count {
        let length = line * 7 % 12;
        let words: Vec<&str> =
            (0..length).map(|word| WORDS[(line * line + 3 * word + word * word) % 9]).collect();
        text += &format!("{}\n", words.join(" "));
        tokens += length + 1;
    }
    (text, tokens)
}

/// Text packed by gzip.
fn gzip(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

/// Text in frames of zstd that hold it as it is: magic, one byte of size, a raw block that is the last.
fn zstd(text: &str) -> Vec<u8> {
    let frame = |part: &[u8]| {
        let block = ((part.len() as u32) << 3 | 1).to_le_bytes();
        [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, part.len() as u8], &block[..3], part].concat()
    };
    text.as_bytes().chunks(200).flat_map(frame).collect()
}

/// A directory with `shards/`: three shards for training, one for each other split; and `whole/`, the same text in three
/// files.
fn place() -> Place {
    let place = Place::new();
    let train = [lines(0, 50).0, lines(50, 41).0, lines(91, 30).0];
    let [valid, test] = [lines(200, 14).0, lines(300, 17).0];
    for (name, text) in ["a", "b", "c"].iter().zip(&train) {
        place.write(&format!("shards/train/{name}.txt"), text);
    }
    place.write("shards/valid/v.txt", &valid);
    place.write("shards/test/t.txt", &test);
    place.write("whole/train.txt", train.concat());
    place.write("whole/valid.txt", valid);
    place.write("whole/test.txt", test);
    place
}

const SETTINGS: &str = "--set corpus.unit=word --set corpus.cache=cache --set train.epochs=2 --set train.bptt_steps=6 \
    --set train.batch_size=3";

fn weights(place: &Place, out: &str) -> Vec<u8> {
    fs::read(place.path(out).join("model.safetensors")).unwrap()
}

/// What `rhn data inspect ARGS…` prints; what it keeps stays in the directory.
fn inspect(place: &Place, args: &str) -> Output {
    let mut command = place.command(&format!("data inspect {args} --unit word"));
    command.env("XDG_CACHE_HOME", place.path("home")).output().unwrap()
}

/// The report of `rhn data inspect`.
fn report(place: &Place, args: &str) -> Value {
    let output = inspect(place, &format!("{args} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
}

/// The files of the cache that end so.
fn cached(place: &Place, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(place.path("cache")).unwrap() {
        let files = fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path());
        found.extend(files.filter(|path| path.to_str().unwrap().ends_with(ending)));
    }
    found.sort();
    found
}

#[test]
fn shards_train_to_the_bits_of_the_same_text_in_memory() {
    let place = place();
    for sentences in ["running", "carry", "reset"] {
        let settings = format!("{SETTINGS} --set corpus.sentences={sentences}");
        place.train(&format!("--corpus whole --out {sentences}-whole {settings}"));
        place.train(&format!("--corpus shards --out {sentences}-shards {settings}"));
        let [whole, shards] =
            ["whole", "shards"].map(|of| place.json(&format!("{sentences}-{of}/result.json")));
        let same = ["tokens", "sentences", "oov_tokens"];
        let of_one_order = ["nats_per_token", "bits_per_char", "perplexity_words"]; // blocks end with shards: another order
        for key in same.iter().chain(of_one_order.iter().filter(|_| sentences == "running")) {
            assert_eq!(whole[key], shards[key], "{sentences} {key}");
        }
        if sentences == "running" {
            assert_eq!(weights(&place, "running-whole"), weights(&place, "running-shards"));
        }
        let evaluated = place.json_of(&format!("eval {sentences}-shards --json"));
        assert_eq!(evaluated["nats_per_token"], shards["nats_per_token"]);
        let in_memory = place.json_of(&format!("eval {sentences}-whole --json"));
        assert_eq!(in_memory["nats_per_token"], whole["nats_per_token"]);
        let valid =
            place.json_of(&format!("eval {sentences}-shards --json --split valid --protocol batched"));
        assert_eq!(valid["nats_per_token"], shards["valid_nats_per_token"]);
    }
    // What the vocabulary lacks is counted in batches too, whether the text is in memory or not.
    let unknown = ["whole", "shards"].map(|of| {
        let few = "--set corpus.vocab_size=5 --set corpus.sentences=reset --max-steps 1";
        place.train(&format!("--corpus {of} --out few-{of} {SETTINGS} {few}"));
        let counted = |protocol: &str| {
            let found = place.json_of(&format!("eval few-{of} --json --split valid --protocol {protocol}"));
            found["oov_tokens"].as_u64().unwrap()
        };
        assert_eq!(counted("batched"), counted("stream"));
        counted("batched")
    });
    assert!(unknown[0] > 0 && unknown[0] == unknown[1], "{unknown:?}");
}

#[test]
fn one_block_of_sentences_is_the_same_on_disk_and_in_memory() {
    let place = place();
    place.write("one/train/a.txt", fs::read(place.path("whole/train.txt")).unwrap());
    for split in ["valid", "test"] {
        place.write(
            &format!("one/{split}/t.txt"),
            fs::read(place.path(&format!("whole/{split}.txt"))).unwrap(),
        );
    }
    for sentences in ["carry", "reset"] {
        let settings =
            format!("{SETTINGS} --set corpus.sentences={sentences} --set corpus.shuffle_sentences=20");
        place.train(&format!("--corpus whole --out {sentences}-whole {settings}"));
        place.train(&format!("--corpus one --out {sentences}-one {settings}"));
        assert_eq!(
            weights(&place, &format!("{sentences}-whole")),
            weights(&place, &format!("{sentences}-one"))
        );
    }
}

#[test]
fn every_token_of_a_sentence_is_predicted_with_its_end() {
    let place = place();
    let settings = format!("{SETTINGS} --set corpus.sentences=reset");
    place.train(&format!("--corpus shards --out run {settings}"));
    let result = place.json("run/result.json");
    let (_, tokens) = lines(300, 17);
    assert_eq!((&result["tokens"], &result["sentences"]), (&Value::from(tokens), &Value::from("reset")));
    place.train(&format!("--corpus shards --out running {SETTINGS}"));
    let running = place.json("running/result.json");
    assert_eq!((&running["tokens"], running.get("sentences")), (&Value::from(tokens - 1), None));
}

#[test]
fn a_run_on_shards_resumes_exactly_from_any_window() {
    let place = place();
    for settings in [
        "--set corpus.sentences=running",
        "--set corpus.sentences=carry --set corpus.shuffle_sentences=9 --set train.carry_state=true",
        "--set corpus.sentences=reset --set corpus.shuffle_sentences=9",
        "--set corpus.sentences=reset --set train.window=variable --set train.fraternal.kappa=0.1",
    ] {
        let settings = format!(
            "--corpus shards {SETTINGS} {settings} --set train.dropout={{input=0.2,hidden=0.2,output=0.2}}"
        );
        let name = settings.len();
        place.train(&format!("--out whole-{name} {settings}"));
        let steps = place.events(&format!("whole-{name}"), "start")[0]["steps_per_epoch"].as_u64().unwrap();
        for stop in [steps / 3, steps, steps + steps / 2] {
            place.train(&format!("--out pieces-{name} {settings} --resume --max-steps {stop}"));
        }
        place.train(&format!("--out pieces-{name} {settings} --resume"));
        let [whole, pieces] = ["whole", "pieces"].map(|out| place.fingerprint(&format!("{out}-{name}")));
        for (one, other) in whole.into_iter().zip(pieces) {
            assert_eq!(one, other, "{settings}");
        }
    }
}

#[test]
fn a_run_finds_its_own_shards_and_what_it_was_told_at_its_first_start() {
    let place = place();
    let settings = format!("--corpus shards {SETTINGS}");
    place.train(&format!("--out teacher {settings} --set train.epochs=1"));
    let taught = format!("{settings} --set train.loss.kind=distill --out runs/run");
    place.train(&format!("{taught} --init-from teacher --max-steps 5"));
    place.train(&format!("{taught} --resume --max-steps 9"));
    // Beside the run, where another directory of this name lies in the current one.
    fs::rename(place.path("shards"), place.path("runs/shards")).unwrap();
    place.write("far/shards/train/a.txt", lines(0, 30).0);
    place.write("far/shards/valid/v.txt", lines(30, 20).0);
    place.rhn_from("far", "train ../runs/run --resume --set train.loss.teacher=../teacher");
    place.rhn_from("far", "eval ../runs/run");
}

#[test]
fn packed_shards_are_the_text_in_them() {
    let place = place();
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| fs::read_to_string(place.path(&format!("shards/train/{name}.txt"))).unwrap());
    let plain = report(&place, "shards");
    for name in ["a", "b", "c"] {
        fs::remove_file(place.path(&format!("shards/train/{name}.txt"))).unwrap();
    }
    place.write("shards/train/a.txt.gz", gzip(&a));
    place.write("shards/train/b.txt.zst", zstd(&b));
    place.write("shards/train/c.txt", &c);
    assert_eq!(report(&place, "shards"), plain);
    place.write("shards/train/c.txt.gz", c);
    assert_fails(&inspect(&place, "shards"), 3, &["c.txt.gz: cannot be read"]);
}

#[test]
fn lines_of_every_kind_are_counted_as_the_text_reader_has_them() {
    let place = Place::new();
    place.write("odd/train/1.txt", "a b\r\n\r\n  \nc"); // 3 + 1 + 1 + 2 tokens; the last line gets its end
    place.write("odd/train/2.txt", "");
    place.write("odd/train/3.txt", "\u{feff}a d\n");
    place.write("odd/dev/1.txt", "a zebra\n");
    let report = report(&place, "odd");
    let split = |split: usize, key: &str| report["splits"][split][key].as_u64().unwrap();
    assert_eq!(
        ["shards", "tokens", "lines", "longest_sentence", "oov_tokens"].map(|key| split(0, key)),
        [3, 10, 5, 3, 0]
    );
    assert_eq!(
        ["shards", "tokens", "lines", "longest_sentence", "oov_tokens"].map(|key| split(1, key)),
        [1, 3, 1, 3, 1] // the zebra is read as <unk>
    );
    assert_eq!([split(0, "bytes"), split(1, "bytes")], [16, 8]); // with that end, without the byte order mark
    assert_eq!((split(2, "shards"), report["splits"][2]["longest_sentence"].is_null()), (0, true));
    assert_eq!(report["vocab_size"], 6); // a b c d <eos> <unk>
    let pieces = place.json_of("data inspect odd --unit bpe --json"); // which may hold a line's end and more
    assert!(pieces["splits"][0]["longest_sentence"].is_null(), "{pieces}");
    let table = stdout(&inspect(&place, "odd"));
    assert!(
        table.starts_with("odd: shards; a vocabulary of 6 by word") && table.contains("sentences"),
        "{table}"
    );
}

#[test]
fn a_run_over_characters_that_are_not_all_known_is_shown_in_nats() {
    let place = place();
    let text = fs::read_to_string(place.path("shards/valid/v.txt")).unwrap();
    place.write("shards/valid/v.txt", format!("{text}(a zebra)\n"));
    place.train(
        "--corpus shards --out run --set corpus.unit=char --set corpus.cache=cache --set train.epochs=1",
    );
    let watched = stdout(&place.rhn("watch run"));
    assert!(watched.contains("nats per token") && !watched.contains('–'), "{watched}");
    assert_eq!(place.rhn("plot run --out run.svg").status.code(), Some(0));
}

#[test]
fn the_benchmark_s_names_are_known_and_a_list_of_words_is_taken() {
    let place = Place::new();
    let training = "lm/training-monolingual.tokenized.shuffled/news.en";
    let held_out = "lm/heldout-monolingual.tokenized.shuffled/news.en.heldout";
    place.write(&format!("{training}-00001-of-00100"), lines(0, 60).0);
    place.write(&format!("{training}-00002-of-00100.gz"), gzip(&lines(60, 60).0));
    for shard in 0..3 {
        place.write(&format!("{held_out}-0000{shard}-of-00050"), lines(300 + 20 * shard, 20).0);
    }
    place.write("words.txt", "<S> 120\n</S> 120\nthe 90\nmill 80\n<UNK> 60\nold 3\n");
    let adaptive =
        "--set model.output={kind=\"adaptive\",cutoffs=[2,4],div_value=2} --set model.output.tied=false";
    place.train(&format!(
        "--corpus lm --out run {SETTINGS} --set corpus.vocabulary=words.txt --set corpus.sentences=carry {adaptive}"
    ));
    let start = &place.events("run", "start")[0];
    assert_eq!(start["vocab_size"], 5);
    assert_eq!(start["train_tokens"], lines(0, 120).1);
    let result = place.json("run/result.json");
    assert_eq!(result["tokens"], lines(300, 20).1); // the test is shard 00000
    assert_eq!(place.json_of("eval run --split valid --json")["tokens"], lines(320, 20).1);
    fs::remove_file(place.path(&format!("{held_out}-00001-of-00050"))).unwrap();
    assert_fails(&inspect(&place, "lm"), 3, &["has no news.en.heldout-00001-of-00050"]);
}

#[test]
fn what_cannot_be_read_in_parts_is_refused_with_what_to_do() {
    let place = place();
    place.train(&format!("--corpus shards --out run {SETTINGS}"));
    place.fails(
        "eval run --mc 2",
        2,
        &["--mc, --dynamic, --cache and --tune", "this corpus is one of shards"],
    );
    place.fails("eval run --cache 10", 2, &["this corpus is one of shards"]);
    place.fails("eval run --split all", 2, &["--split all is for a text"]);
    place.fails(
        "train tiny.toml --set corpus.storage=disk --out x",
        2,
        &["\"corpus.txt\"", "want a directory"],
    );
    place.fails(
        "train tiny.toml --corpus shards --set corpus.unit=bpe --set corpus.vocab_size=300 --set corpus.cache=cache \
         --set corpus.sentences=reset --out x",
        2,
        &["corpus.sentences = \"reset\" needs lines", "unit bpe"],
    );
    place.fails(
        "train tiny.toml --corpus shards --init-from run --grow-vocab --set corpus.cache=cache --out x",
        2,
        &["--grow-vocab reads the training text whole"],
    );
    assert!(!place.path("x").exists());
    place.fails("study lesion run", 3, &["shards: is a corpus of shards", "give one of its files"]);
    place.write("shards/test/t.txt", "another test\n");
    place.fails("eval run", 3, &["is another corpus than the run's"]);
    place.train(&format!("--corpus shards --out tuned {SETTINGS} --init-from run"));
}

#[test]
fn names_say_the_split_and_patterns_where_they_do_not() {
    let place = place();
    for (from, to) in
        [("train/a", "en-train-1"), ("train/b", "en-train-2"), ("valid/v", "en-valid"), ("train/c", "more")]
    {
        place.write(&format!("flat/{to}.txt"), fs::read(place.path(&format!("shards/{from}.txt"))).unwrap());
    }
    let by_names = report(&place, "flat --shards");
    assert_eq!([0, 1, 2].map(|split| by_names["splits"][split]["shards"].as_u64().unwrap()), [2, 1, 0]);
    place.train(&format!("--corpus flat --out names {SETTINGS} --set corpus.storage=disk"));
    let train = |out: &str| place.events(out, "start")[0]["train_tokens"].as_u64().unwrap();
    assert_eq!(train("names"), lines(0, 91).1 as u64);
    let shards = "corpus.shards={train=[\"*train*\",\"more.txt\"],valid=[\"en-v????.txt\"]}";
    place.train(&format!("--corpus flat --out patterns {SETTINGS} --set {shards}"));
    assert_eq!(train("patterns"), lines(0, 121).1 as u64);
    assert_eq!(place.json("patterns/result.json")["tokens"], Value::Null);
    place.fails("eval patterns", 3, &["has no shards for test"]);
    assert_eq!(place.json_of("eval patterns --split valid --json")["tokens"], lines(200, 14).1 - 1);
    for valid in ["en-valid*", "../flat/en-valid.txt"] {
        place.fails(
            &format!(
                "train tiny.toml --corpus flat --out none {SETTINGS} --set corpus.shards={{train=[\"*.txt\"],valid=[\"{valid}\"]}}"
            ),
            3,
            &["en-valid.txt", "is in corpus.shards.train and in corpus.shards.valid"],
        );
    }
}

/// What is no file would be waited for without an end.
#[test]
fn a_pipe_among_shards_is_none_of_them() {
    let place = place();
    let pipe = place.path("shards/train/pipe.txt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(report(&place, "shards")["splits"][0]["shards"], 3);
}

#[test]
fn a_dry_run_tells_what_a_run_on_shards_takes() {
    let place = place();
    let output = place
        .rhn(&format!("train tiny.toml --corpus shards {SETTINGS} --set corpus.sentences=reset --dry-run"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("peak memory"), "{}", stdout(&output));
    assert!(!place.path("checkpoints").exists());
}
