//! The command line from outside: results, exit codes and messages, on checkpoints made on the spot.

use candle_core::{DType, Device, Tensor};
use clap::CommandFactory;
use rhn::checkpoint::publish;
use rhn::config::ModelConfig;
use rhn::config::Resolved;
use rhn::data::{Text, Tokenizer};
use rhn::model::Parameters;
use rhn::storage::{load_tensors, save_tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const PLAY: &str = "To be , or not to be :\nthat is the question\n";

/// Characters of the play, `<unk>` included: line feed, space, `,:Tabehinoqrstu`.
const CHARACTERS: f64 = 18.0;

/// A checkpoint in a directory of its own, beside the corpus that it was "trained" on.
pub(crate) struct Run {
    directory: TempDir,
}

impl Run {
    /// A small network for `unit`s of 40 plays; at `scale` 0 it finds every type equally likely.
    pub(crate) fn new(unit: &str, scale: f64) -> Self {
        let run = Self { directory: tempfile::tempdir().unwrap() };
        let corpus = run.path("corpus.txt");
        std::fs::write(&corpus, PLAY.repeat(40)).unwrap();
        let settings = [
            format!("corpus.name={}", corpus.display()),
            format!("corpus.unit={unit}"),
            match unit {
                "bpe" => "corpus.vocab_size=270".into(),
                _ => "corpus.unknown=true".to_string(),
            },
            "model.core.hidden_size=8".into(),
            "train.batch_size=2".into(),
            "train.bptt_steps=5".into(),
        ];
        let recipe = Resolved::new("shakespeare", &settings).unwrap().recipe;
        let tokenizer = Tokenizer::build(&recipe.corpus, &Text::from(PLAY)).unwrap();
        let config = ModelConfig::new(recipe.model.clone(), tokenizer.vocab_size());
        let parameters =
            Parameters::draw(&config, BTreeMap::new(), 1, scale, DType::F32, &Device::Cpu).unwrap();
        run.publish(&[
            (rhn::storage::CONFIG, serde_json::to_vec(&config).unwrap()),
            (rhn::storage::MODEL, save_tensors(&parameters.tensors()).unwrap()),
            (rhn::storage::TOKENIZER, tokenizer.to_json().into_bytes()),
            (rhn::storage::RECIPE, recipe.to_toml().into_bytes()),
        ]);
        run
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn checkpoint(&self) -> String {
        self.path("run").display().to_string()
    }

    fn publish(&self, files: &[(&str, Vec<u8>)]) {
        publish(&self.path("run"), files).unwrap();
    }

    /// `rhn COMMAND CHECKPOINT ARGS…` on the CPU.
    pub(crate) fn rhn(&self, command: &str, args: &[&str]) -> Output {
        let checkpoint = self.checkpoint();
        rhn(&[&[command, checkpoint.as_str()], args].concat(), "")
    }

    fn json(&self, command: &str, args: &[&str]) -> Value {
        let output = self.rhn(command, &[args, &["--json"]].concat());
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhn"));
    command
        .args(args)
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn rhn(args: &[&str], input: &str) -> Output {
    let mut child = command(args).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have ended already
    child.wait_with_output().unwrap()
}

/// What a successful command printed.
fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command failed with `code`, one line of error that holds each of `parts`, and no result.
#[track_caller]
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains("error: ") && !message.contains("panicked"), "{message}");
    assert!(output.stdout.is_empty());
    parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?} in {message}"));
}

#[test]
fn help_is_what_it_was() {
    let commands = rhn::command::Cli::command();
    let names: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
    check_snapshot("rhn", &stdout(&rhn(&["--help"], "")));
    for name in names.into_iter().filter(|name| *name != "help") {
        check_snapshot(&format!("rhn-{name}"), &stdout(&rhn(&[name, "--help"], "")));
    }
    let study = commands.find_subcommand("study").unwrap();
    for name in study.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help") {
        check_snapshot(&format!("rhn-study-{name}"), &stdout(&rhn(&["study", name, "--help"], "")));
    }
}

/// Compares with `tests/snapshots/NAME.txt`; `UPDATE_SNAPSHOTS=1` rewrites it.
fn check_snapshot(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is out of date; UPDATE_SNAPSHOTS=1 rewrites it. Now:\n{found}",
        path.display()
    );
}

#[test]
fn eval_prints_the_fields_that_scripts_rely_on() {
    let found = Run::new("char", 0.0).json("eval", &[]);
    let fields = [
        "bits_per_byte",
        "bits_per_char",
        "bits_per_token",
        "bytes",
        "chars",
        "corpus",
        "nats_per_token",
        "oov_tokens",
        "perplexity",
        "perplexity_known",
        "perplexity_words",
        "protocol",
        "seconds",
        "split",
        "tokens",
        "tokens_per_second",
        "words",
    ];
    let names: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
    assert_eq!((found["split"].as_str(), found["protocol"].as_str()), (Some("test"), Some("stream")));
    assert!((found["perplexity"].as_f64().unwrap() - CHARACTERS).abs() < 1e-4, "{found}");
}

#[test]
fn eval_reads_another_text_and_counts_what_it_does_not_know() {
    let run = Run::new("word", 0.1);
    let other = run.path("other");
    std::fs::create_dir(&other).unwrap();
    for split in ["train", "valid", "test"] {
        std::fs::write(other.join(format!("{split}.txt")), "to be zyx\nor not\n").unwrap();
    }
    let output = run.rhn("eval", &["--corpus", other.to_str().unwrap(), "--split", "valid", "--json"]);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&found["oov_tokens"], &found["tokens"]), (&1.into(), &6.into()));
    assert!(stderr(&output).contains("1 symbol of the valid split is not in the vocabulary"));
}

#[test]
fn every_protocol_of_a_model_that_knows_nothing_agrees() {
    let run = Run::new("byte", 0.0);
    let stream = run.json("eval", &["--precision", "f64"])["perplexity"].as_f64().unwrap();
    for args in [&["--protocol", "batched"] as &[&str], &["--mc", "3"], &["--mc", "3", "--seed", "5"]] {
        let other = run.json("eval", args)["perplexity"].as_f64().unwrap();
        assert!((stream - other).abs() < 1e-4, "{args:?}: {other} is not {stream}");
    }
    assert_eq!(run.json("eval", &["--mc", "3"])["mc_passes"], 3);
    // The setting is the same for each of several texts.
    let texts = ["one.txt", "two.txt"].map(|name| run.path(name).display().to_string());
    texts.iter().for_each(|path| std::fs::write(path, "To be or not\n").unwrap());
    let both = run.json("eval", &["--mc", "3", "--file", &texts[0], "--file", &texts[1]]);
    assert_eq!(both["mc_passes"], 3, "{both}");
    let table = stdout(&run.rhn("eval", &["--mc", "3", "--file", &texts[0], "--file", &texts[1]]));
    assert!(table.contains("3 over each of 2 texts, 0 of them rejected"), "{table}");
}

#[test]
fn samples_are_the_same_for_the_same_seed_and_differ_otherwise() {
    let run = Run::new("char", 0.5);
    let sample =
        |args: &[&str]| stdout(&run.rhn("sample", &[&["--tokens", "60", "--prompt", "To "], args].concat()));
    let first = sample(&[]);
    assert!(first.starts_with("To ") && first.ends_with('\n'));
    assert_eq!(first, sample(&["--seed", "1", "--threads", "1"]));
    assert_ne!(first, sample(&["--seed", "2"]));
    let several = sample(&["--samples", "2"]);
    assert!(several.starts_with(&format!("--- sample 1 ---\n{first}--- sample 2 ---\nTo ")), "{several}");
}

#[test]
fn json_samples_have_prompt_text_tokens_and_nats() {
    let run = Run::new("char", 0.0);
    let output =
        stdout(&run.rhn("sample", &["--tokens", "10", "--samples", "3", "--prompt", "be", "--json"]));
    let rows: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!(
            (&row["sample"], &row["prompt"], &row["tokens"]),
            (&number.into(), &"be".into(), &10.into())
        );
        assert_eq!(row["text"].as_str().unwrap().chars().count(), 10);
        assert!(row["nats"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn an_unseen_symbol_in_a_prompt_is_counted_and_sampling_goes_on() {
    let output = Run::new("char", 0.5).rhn("sample", &["--prompt", "To ☃", "--tokens", "5"]);
    assert!(stdout(&output).starts_with("To ☃"));
    assert!(stderr(&output).contains("1 symbol of the prompt is not in the vocabulary; read as <unk>"));
}

#[test]
fn settings_that_cannot_be_sampled_with_are_refused() {
    let run = Run::new("char", 0.5);
    for (flag, value) in
        [("--temperature", "-1"), ("--temperature", "NaN"), ("--top-p", "0"), ("--min-p", "2")]
    {
        assert_fails(&run.rhn("sample", &[flag, value]), 2, &[&flag[2..], "wanted"]);
    }
}

#[test]
fn a_score_is_a_table_of_the_tokens_and_sums_to_the_line() {
    let run = Run::new("word", 0.5);
    let text = run.path("text.txt");
    std::fs::write(&text, "to be\nor nothing").unwrap();
    let args = |per| vec![text.to_str().unwrap().to_string(), "--per".to_string(), per];
    let score = |per: &str| {
        let args = args(per.to_string());
        stdout(&run.rhn("score", &args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let tokens: Vec<Vec<String>> =
        score("token").lines().map(|row| row.split('\t').map(str::to_string).collect()).collect();
    let names: Vec<String> = tokens.iter().map(|row| row[..3].join(" ")).collect();
    let wanted = ["line position token", "1 1 to", "1 2 be", "1 3 <eos>", "2 1 or", "2 2 <unk>", "2 3 <eos>"];
    assert_eq!(names, wanted);
    let sum: f64 = tokens[1..4].iter().map(|row| row[3].parse::<f64>().unwrap()).sum();
    let lines = score("line");
    let first: Vec<&str> = lines.lines().nth(1).unwrap().split('\t').collect();
    assert_eq!((&first[..3], first[5]), (&["1", "3", "0"] as &[&str], "to be"));
    assert!((first[3].parse::<f64>().unwrap() - sum).abs() < 1e-5);
    assert!((first[4].parse::<f64>().unwrap() - sum / 3.0).abs() < 1e-5);
}

#[test]
fn a_score_of_the_standard_input_can_be_in_any_base() {
    let run = Run::new("char", 0.0);
    let checkpoint = run.checkpoint();
    for (base, wanted) in [("2", CHARACTERS.log2()), ("e", CHARACTERS.ln()), ("10", CHARACTERS.log10())] {
        let output = rhn(&["score", &checkpoint, "-", "--base", base, "--json"], "to\n");
        let rows: Vec<Value> =
            stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((rows.len(), &rows[2]["token"], &rows[3]["event"]), (4, &"\n".into(), &"total".into()));
        assert!(
            rows[..3].iter().all(|row| (row["surprisal"].as_f64().unwrap() - wanted).abs() < 1e-5),
            "{rows:?}"
        );
    }
}

#[test]
fn an_empty_text_has_no_rows() {
    let run = Run::new("char", 0.0);
    assert_eq!(
        stdout(&rhn(&["score", &run.checkpoint()], "")),
        "line\tposition\ttoken\tsurprisal\tstart\tend\ttext\n"
    );
}

#[test]
fn invalid_utf8_is_refused_with_its_place() {
    let run = Run::new("char", 0.0);
    let text = run.path("text.txt");
    std::fs::write(&text, b"to be\nor \xff not\n").unwrap();
    let output = run.rhn("score", &[text.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("offset 9, line 2"), "{}", stderr(&output));
    assert_fails(&run.rhn("score", &["no-such-file"]), 3, &["no-such-file"]);
}

#[test]
fn inspect_tells_what_the_checkpoint_is() {
    let run = Run::new("char", 0.5);
    let found = run.json("inspect", &[]);
    assert_eq!((&found["verified"], &found["unit"]), (&true.into(), &"char".into()));
    // V·H + H·V + V, first sublayer 2[(H + H)·H + H], three more of 2(H² + H), H = 8
    let types = found["config"]["vocab_size"].as_u64().unwrap();
    assert_eq!(found["parameters"], 2 * 8 * types + types + 2 * (16 * 8 + 8) + 3 * 2 * (64 + 8));
    assert_eq!(found["files"].as_array().unwrap().len(), 4);
    let text = stdout(&run.rhn("inspect", &[]));
    for part in ["verified", "recurrent highway network", "depth 4", "core.0.recurrent.weight", "4 × 8 × 16"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_checkpoint_that_is_not_whole_is_refused_by_every_command() {
    let run = Run::new("char", 0.5);
    let model = run.path("run").join(rhn::storage::MODEL);
    let whole = std::fs::read(&model).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], &[]] {
        std::fs::write(&model, damaged).unwrap();
        for command in ["eval", "sample", "score", "inspect"] {
            assert_fails(&run.rhn(command, &[]), 4, &[rhn::storage::MODEL]);
        }
    }
    std::fs::remove_dir_all(run.path("run")).unwrap();
    assert_fails(&run.rhn("eval", &[]), 4, &["does not exist"]);
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let run = Run::new("char", 0.5);
    let file = |name: &str| std::fs::read(run.path("run").join(name)).unwrap();
    let mut tensors = load_tensors(Path::new("model"), &file(rhn::storage::MODEL), &Device::Cpu).unwrap();
    let bias = tensors.get_mut("output.bias").unwrap();
    *bias = Tensor::full(f32::NAN, bias.dims(), &Device::Cpu).unwrap();
    let others = [rhn::storage::CONFIG, rhn::storage::TOKENIZER, rhn::storage::RECIPE];
    let mut files: Vec<(&str, Vec<u8>)> = others.iter().map(|name| (*name, file(name))).collect();
    files.push((rhn::storage::MODEL, save_tensors(&tensors).unwrap()));
    run.publish(&files);
    for command in ["eval", "sample", "score"] {
        assert_fails(&run.rhn(command, &[]), 4, &["output.bias"]);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let run = Run::new("char", 0.5);
    let checkpoint = run.checkpoint();
    let mut child = command(&["sample", &checkpoint, "--tokens", "1000000"]).spawn().unwrap();
    let mut some = [0; 20];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap(); // and the pipe is closed
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(141), ""));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_that_this_build_cannot_use_is_refused_with_advice() {
    assert_fails(&Run::new("char", 0.5).rhn("eval", &["--device", "cuda"]), 2, &["--features cuda"]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in
        [&["fly"] as &[&str], &["eval"], &["eval", "x", "--device", "gpu"], &["score", "x", "--base", "3"]]
    {
        assert_fails(&rhn(args, ""), 2, &[]);
    }
}

#[test]
fn the_model_that_comes_with_the_program_knows_its_shakespeare() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/shakespeare");
    let drawn = |seed| {
        let args = ["sample", shipped, "--prompt", "ROMEO:", "--tokens", "200", "--seed", seed];
        stdout(&rhn(&args, ""))
    };
    assert!(drawn("1").starts_with("ROMEO:") && drawn("1") == drawn("1") && drawn("1") != drawn("2"));
    let line = "To be, or not to be, that is the question:\n";
    let rows = stdout(&rhn(&["score", shipped, "--per", "line", "--json"], line));
    let score: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let bits = score["mean"].as_f64().unwrap();
    assert!((bits - 1.719).abs() < 0.002, "{bits} bits a character"); // it was trained on the play
    let result = std::fs::read_to_string(Path::new(shipped).join(rhn::storage::RESULT)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap()["tokens"], 55_769);
}
