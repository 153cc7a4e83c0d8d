//! `rhn train` from outside: what it leaves, what it says, and what it refuses.

use crate::support::run;
use rhn::config::Resolved;
use rhn::data::DataDirectories;
use rhn::error::Error;
use rhn::task::language::{Language, NextToken};
use rhn::train::task::Task;
use run::{PLAY, Place, assert_fails, states, stderr, stdout, wait_until, without_clock};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

const PUBLISHED: [&str; 7] = [
    "config.json",
    "manifest.json",
    "metrics.jsonl",
    "model.safetensors",
    "recipe.toml",
    "result.json",
    "tokenizer.json",
];

#[test]
fn a_run_leaves_the_files_that_others_rely_on_and_every_command_reads_them() {
    let place = Place::new();
    let output = place.rhn("train tiny.toml");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let out = "checkpoints/tiny"; // unless --out says otherwise
    let mut names: Vec<String> = fs::read_dir(place.path(out))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let wanted = [&PUBLISHED[..1], &["lock"], &PUBLISHED[1..6], &["state"], &PUBLISHED[6..]].concat();
    assert_eq!(names, wanted);
    let result = place.json(&format!("{out}/result.json"));
    let evaluated = place.rhn(&format!("eval {out} --json"));
    let evaluated = without_clock(serde_json::from_slice(&evaluated.stdout).unwrap());
    for (key, value) in evaluated.as_object().unwrap() {
        assert_eq!(*value, result[key], "{key}");
    }
    for key in ["best_epoch", "valid_perplexity", "parameters", "seconds_total"] {
        assert!(result[key].is_number(), "{key} in {result}");
    }
    let valid = place.rhn(&format!("eval {out} --json --split valid --protocol batched"));
    let valid: Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(valid["nats_per_token"], result["valid_nats_per_token"]);
    for command in ["score", "sample", "inspect"] {
        let output = place.rhn_reading(&format!("{command} {out}"), b"to be\n");
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
}

#[test]
fn the_standard_output_is_rows_samples_and_the_test_result() {
    let place = Place::new();
    let output = place.rhn("train tiny.toml --out run");
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("      |")).collect();
    assert!(lines[0].starts_with("epoch  train nats  valid nats   bits/char"), "{text}");
    assert_eq!(lines.len(), 1 + 3 + 3, "{text}");
    assert!(lines[4].starts_with("test: ") && lines[6] == "try: rhn sample run", "{text}");
    assert!(text.lines().any(|line| line.starts_with("      |")), "a sample: {text}");
    let notes = stderr(&output);
    assert!(notes.starts_with("corpus.txt: ") && notes.contains(" parameters, "), "{notes}");
    // No bar where there is no terminal, but a line from time to time if the machine is slow.
    let others = notes.lines().filter(|line| !line.starts_with("epoch "));
    assert_eq!(others.count(), 2, "{notes}");
}

#[test]
fn every_epoch_has_its_row_of_numbers() {
    let place = Place::new();
    place.train("--out run");
    let kinds: Vec<String> =
        place.events("run", "").iter().map(|event| event["event"].as_str().unwrap().to_string()).collect();
    assert_eq!(kinds, ["start", "epoch", "epoch", "step", "epoch", "result"]);
    let keys = [
        "step",
        "tokens",
        "train_nats_per_token",
        "valid_nats_per_token",
        "valid_perplexity",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "seconds",
    ];
    for event in place.events("run", "epoch") {
        keys.iter().for_each(|key| assert!(event[key].is_number(), "{key} in {event}"));
    }
}

#[test]
fn every_unit_and_every_kind_of_corpus_can_be_trained_on() {
    let place = Place::new();
    for (split, plays) in [("train", 12), ("valid", 4), ("test", 2)] {
        place.write(&format!("splits/{split}.txt"), PLAY.repeat(plays));
    }
    for unit in ["word", "char", "byte", "bpe --set corpus.vocab_size=262"] {
        let out = unit[..4].trim();
        place.train(&format!("--out {out} --corpus splits --set train.epochs=1 --set corpus.unit={unit}"));
        let output = place.rhn(&format!("eval {out} --json"));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["perplexity"], place.json(&format!("{out}/result.json"))["perplexity"]);
    }
}

#[test]
fn the_standard_input_is_a_corpus() {
    let place = Place::new();
    let input = PLAY.repeat(12);
    let output = place.rhn_reading("train tiny.toml --corpus - --out piped", input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    place.train("--out read");
    let model = |out: &str| fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(model("piped") == model("read"));
    assert_fails(
        &place.rhn_reading("train tiny.toml --corpus - --out none", b""),
        3,
        &["standard input", "empty"],
    );
}

#[test]
fn a_run_can_begin_with_the_weights_and_words_of_another() {
    let place = Place::new();
    place.train("--out first");
    // The same characters and one that the first never saw.
    place.write("other.txt", format!("{}Zoë\n", PLAY.repeat(12)));
    place.train("--out second --init-from first --corpus other.txt --max-steps 0");
    for name in ["model.safetensors", "tokenizer.json"] {
        let file = |out: &str| fs::read(place.path(out).join(name)).unwrap();
        assert!(file("first") == file("second"), "{name}");
    }
    place.fails("train tiny.toml --out third --init-from nothing", 4, &["nothing", "does not exist"]);
    let other = "train tiny.toml --out third --init-from first --set";
    place.fails(&format!("{other} model.core.hidden_size=9"), 4, &["first", "is another model"]);
    place.fails(&format!("{other} corpus.unit=word"), 2, &["cuts by char", "corpus.unit says word"]);
    assert!(!place.path("third").exists());
}

#[test]
fn a_dry_run_tells_what_it_will_take_and_writes_nothing() {
    Place::new().dry_run("tiny.toml", "tokens");
}

#[test]
fn a_time_limit_saves_and_stops() {
    let place = Place::new();
    let output = place.rhn("train tiny.toml --out run --set train.epochs=1000000 --time-limit 0.2s");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("stopped by --time-limit; saved in run, --resume goes on"));
    assert!(!states(&place.path("run")).is_empty());
    place.fails("train tiny.toml --time-limit soon", 2, &["soon"]);
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let place = Place::new();
    // A rate so small that single precision does not see it: the first epoch stays the best.
    place.train("--out run --set train.epochs=50 --set train.patience=2 --set train.learning_rate=1e-30");
    assert_eq!(place.events("run", "epoch").len(), 3);
    assert_eq!(place.json("run/result.json")["best_epoch"], 1);
}

#[test]
fn the_advice_after_a_finished_run_fits_the_run_and_works() {
    let place = Place::new();
    place.train("--out run --set train.epochs=1");
    let message = place.train("--out run --resume --set train.epochs=1");
    assert!(message.contains("the run was finished before; more train.epochs let it go on\n"), "{message}");
    place.train("--out run --resume --set train.epochs=2");

    let patience = "--set train.epochs=50 --set train.learning_rate=1e-30 --set train.patience";
    place.train(&format!("--out patient {patience}=1"));
    let message = place.train(&format!("--out patient --resume {patience}=1"));
    let wanted =
        "the run was finished before: train.patience = 1 ended it after epoch 2 of 50; a larger one, or 0";
    assert!(message.contains(wanted), "{message}");
    place.train(&format!("--out patient --resume {patience}=2"));
    assert_eq!(place.events("patient", "epoch").len(), 3);

    let cosine =
        "--set train.epochs=1 --set train.patience=5 --set train.schedule={kind=\"cosine\",warmup_steps=2}";
    place.train(&format!("--out bound {cosine}"));
    let message = place.train(&format!("--out bound --resume {cosine}"));
    let wanted =
        "its rate is at the cosine's end; rhn train bound --init-from bound --out DIR begins another";
    assert!(message.contains(wanted) && !message.contains("patience"), "{message}");
    let output = place.rhn("train bound --init-from bound --out again");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_split_without_validation_is_refused_by_what_it_lacks() {
    let place = Place::new();
    for split in ["[100,0,0]", "[90,0,10]"] {
        let train = format!("train tiny.toml --out run --set corpus.split={split}");
        place.fails(&train, 2, &["corpus.split is [", "no validation split", "--set corpus.split=[90,5,5]"]);
    }
    place.fails(
        "train text --corpus corpus.txt --out run --set corpus.split=[100,0,0]",
        2,
        &["no validation split"],
    );
    assert!(!place.path("run").exists());
}

#[test]
#[cfg(unix)]
fn the_last_line_of_a_training_can_be_given_to_a_shell() {
    let place = Place::new();
    let mut command = place.command("train tiny.toml --set train.epochs=1 --out");
    let output = command.arg("it's my run; v2").output().unwrap();
    let text = stdout(&output);
    let line = text.lines().last().unwrap().strip_prefix("try: rhn ").unwrap();
    assert_eq!(line, r"sample 'it'\''s my run; v2'");
    let script = format!("{} {line} --tokens 3", env!("CARGO_BIN_EXE_rhn"));
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn the_best_epoch_is_what_is_published_and_tested() {
    let place = Place::new();
    // The rate grows by a factor of a thousand an epoch.
    let settings = "--set train.optimizer=sgd --set train.learning_rate=0.1 --set train.max_grad_norm=0.1 \
        --set train.schedule={kind=\"decay-per-epoch\",factor=1e-3,constant_epochs=1}";
    place.train(&format!("--out run {settings}"));
    let result = place.json("run/result.json");
    let epochs = place.events("run", "epoch");
    let nats = |event: &Value| event["valid_nats_per_token"].as_f64().unwrap();
    let best = epochs.iter().min_by(|a, b| nats(a).total_cmp(&nats(b))).unwrap();
    assert!(result["best_epoch"] == best["epoch"] && result["best_epoch"] != 3, "{result}");
    let valid = place.rhn("eval run --json --split valid --protocol batched");
    let valid: Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(valid["nats_per_token"], best["valid_nats_per_token"]);
}

#[test]
fn a_text_that_cannot_be_trained_on_is_refused_and_leaves_no_directory() {
    let place = Place::new();
    place.write("empty.txt", "");
    place.write("one.txt", "a");
    place.write("short.txt", "to be\nor not\nto be\n");
    place.write("latin1.txt", [PLAY.repeat(12).as_bytes(), b"caf\xe9\n"].concat());
    place.write("half/valid.txt", PLAY);
    for (corpus, parts) in [
        ("empty.txt", &["empty.txt", "is empty"] as &[&str]),
        ("one.txt", &["one.txt", "too few"]),
        ("short.txt", &["short.txt", "tokens are too few", "make batch_size or bptt_steps smaller"]),
        ("latin1.txt", &["latin1.txt", "invalid UTF-8", "0xe9", "line 25"]),
        ("half", &["half", "has no training split", "train.txt"]),
        ("no-such-corpus", &["no-such-corpus"]),
    ] {
        place.fails(&format!("train tiny.toml --out run --corpus {corpus}"), 3, parts);
        assert!(!place.path("run").exists(), "{corpus}");
    }
    let long = "--corpus corpus.txt --set train.bptt_steps=20";
    place.fails(
        &format!("train tiny.toml --out run {long} --set corpus.split=[94,3,3]"),
        3,
        &["validation split"],
    );
    place.train("--out run --corpus latin1.txt --set corpus.unit=byte");
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_are_read() {
    let place = Place::new();
    place.write("windows.txt", format!("\u{feff}{}", PLAY.replace('\n', "\r\n").repeat(12)));
    place.write("splits/train.txt", fs::read(place.path("windows.txt")).unwrap());
    place.write("plain/train.txt", PLAY.repeat(12));
    for name in ["splits/valid.txt", "plain/valid.txt"] {
        place.write(name, PLAY.repeat(2));
    }
    for unit in ["word", "char"] {
        let weights = ["splits", "plain"].map(|corpus| {
            let out = format!("{corpus}-{unit}");
            place.train(&format!(
                "--out {out} --corpus {corpus} --set corpus.unit={unit} --set train.epochs=1"
            ));
            fs::read(place.path(&out).join("model.safetensors")).unwrap()
        });
        assert!(weights[0] == weights[1], "{unit}");
    }
    place.train("--out windows --corpus windows.txt --set train.epochs=1");
}

#[test]
fn a_corpus_without_a_test_split_is_trained_on_and_the_result_says_so() {
    let place = Place::new();
    place.write("splits/train.txt", PLAY.repeat(10));
    place.write("splits/valid.txt", PLAY.repeat(2));
    let message = place.train("--out run --corpus splits");
    assert!(message.contains("note: the corpus has no test split"), "{message}");
    let result = place.json("run/result.json");
    assert!(result["split"].is_null() && result["perplexity"].is_null(), "{result}");
    assert!(result["valid_perplexity"].as_f64().unwrap() > 1.0, "{result}");
    place.write("splits/test.txt", "T"); // one symbol, nothing to predict: known before the first step
    assert!(place.train("--out other --corpus splits").contains("note: the corpus has no test split"));
}

#[test]
fn symbols_that_the_training_split_lacks_are_counted() {
    let place = Place::new();
    place.write("splits/train.txt", PLAY.repeat(10));
    place.write("splits/valid.txt", format!("{PLAY}☃☃☃{PLAY}"));
    place.write("splits/test.txt", format!("{PLAY}☃"));
    let message = place.train("--out run --corpus splits");
    assert!(message.contains("3 symbols of the validation split are not in the vocabulary"), "{message}");
    assert!(
        message.contains("1 symbol of the test split is not in the vocabulary; read as <unk>"),
        "{message}"
    );
    assert_eq!(place.json("run/result.json")["oov_tokens"], 1);
}

#[test]
fn a_recipe_or_setting_that_makes_no_sense_is_refused() {
    let place = Place::new();
    place.write("wrong.toml", run::RECIPE.replace("epochs = 3", "epoch = 3"));
    place.write("broken.toml", "[train\n");
    place.write("endless.toml", "extends = \"endless.toml\"\n");
    for (args, parts) in [
        ("wrong.toml", &["wrong.toml", "epoch", "Did you mean epochs?"] as &[&str]),
        ("broken.toml", &["broken.toml", "line 1"]),
        ("endless.toml", &["extend one another"]),
        ("absent.toml", &["absent.toml"]),
        ("shakespere", &["no recipe is named shakespere", "Did you mean shakespeare?"]),
        ("tiny.toml --set train.epochs", &["--set train.epochs: wanted key=value"]),
        ("tiny.toml --set =3", &["--set =3"]),
        ("tiny.toml --set train..epochs=3", &["--set train..epochs=3"]),
        ("tiny.toml --set train.epochs=three", &["train.epochs", "three"]),
        ("tiny.toml --set train.epochs=-1", &["train.epochs"]),
        (
            "tiny.toml --set train.optimizer=adma",
            &["train.optimizer: unknown variant `adma`", "Did you mean adam?"],
        ),
        ("tiny.toml --set train.epochs.more=1", &["epochs is 3, it has no keys"]),
        ("tiny.toml --set model.core.hidden_size=0", &["hidden"]),
        ("tiny.toml --set train.dropout.hidden=1", &["dropout rate"]),
        ("tiny.toml --set train.schedule={kind=\"cosine\",final_fraction=nan}", &["final_fraction"]),
        ("tiny.toml --set extends=shakespeare", &["--set extends=shakespeare"]),
    ] {
        place.fails(&format!("train {args} --out run"), 2, parts);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.fails("train tiny.toml --out corpus.txt", 2, &["--out corpus.txt", "is a file"]);
    place.fails("train tiny.toml --out corpus.txt/run", 1, &["corpus.txt/run"]);
    place.fails("train tiny.toml --out /proc/run", 1, &["/proc/run"]);
}

#[test]
fn a_run_that_is_there_is_not_trained_over() {
    let place = Place::new();
    place.train("--out run --max-steps 2");
    let before = fs::read(place.path("run/model.safetensors")).unwrap();
    place.fails("train tiny.toml --out run", 2, &["a run is there already", "--resume", "--out"]);
    for name in ["recipe.toml", "tokenizer.json", "result.json", "metrics.jsonl"] {
        place.write(&format!("mine/{name}"), "# notes\n");
        place.fails("train tiny.toml --out mine", 2, &[name, "would replace it", "--out"]);
        assert_eq!(std::fs::read_to_string(place.path("mine").join(name)).unwrap(), "# notes\n");
        std::fs::remove_file(place.path("mine").join(name)).unwrap();
    }
    place.fails("train tiny.toml --out run --resume --init-from run", 2, &["--init-from"]);
    assert!(before == fs::read(place.path("run/model.safetensors")).unwrap());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_publishes_nothing() {
    let place = Place::new();
    let diverge = "train tiny.toml --out run --set train.optimizer=sgd --set train.max_grad_norm=0";
    let args = format!("{diverge} --set train.learning_rate=1e38");
    place.fails(&args, 5, &["error: step ", "the update was not applied", "learning_rate"]);
    // The steps before it are kept, and no other run takes their place.
    assert!(!place.path("run/model.safetensors").exists() && states(&place.path("run")).len() == 1);
    place.fails(&format!("{diverge} --set train.learning_rate=0.1"), 2, &["a run is there already (state)"]);
}

#[test]
fn an_update_that_would_overflow_is_not_applied() {
    let place = Place::new();
    // 1e300 is no single precision: the first update would make weights infinite.
    let args = "train tiny.toml --out run --set train.optimizer=sgd --set train.max_grad_norm=0 \
        --set train.learning_rate=1e300 --max-steps 1";
    place.fails(args, 5, &["step 1: the update of ", "not finite; the update was not applied"]);
    assert!(!place.path("run/model.safetensors").exists() && states(&place.path("run")).is_empty());
    let gentler = args.replace("1e300", "0.1"); // which may begin where there was no step
    assert_eq!(place.rhn(&gentler).status.code(), Some(0));
}

#[test]
fn a_step_that_fails_leaves_the_weights_as_they_were() {
    let place = Place::new();
    let settings = [
        format!("corpus.name={}", place.path("corpus.txt").display()),
        "train.optimizer=sgd".into(),
        "train.max_grad_norm=0".into(),
    ];
    let recipe = Resolved::new(place.path("tiny.toml").to_str().unwrap(), &settings).unwrap().recipe;
    let (device, dtype) = (candle_core::Device::Cpu, candle_core::DType::F32);
    let language =
        Language::prepare(recipe, &DataDirectories::new(None).unwrap(), None, dtype, &device).unwrap();
    let mut stepper = language.stepper(None).unwrap();
    let weights = |stepper: &rhn::train::step::Stepper<NextToken>| {
        rhn::storage::save_tensors(&stepper.parameters.tensors()).unwrap()
    };
    let window = language.batch(0, 0).unwrap();
    for step in 0..20 {
        let before = weights(&stepper);
        match stepper.step(&window, step, 1e38) {
            Ok(_) => assert!(before != weights(&stepper)),
            Err(Error::NotFinite { step: failed, .. }) => {
                assert_eq!(failed, step + 1);
                assert!(before == weights(&stepper));
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("such a rate ends no run");
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_does_not_end_the_run() {
    let place = Place::new();
    let mut child = place.start("--out run");
    drop(child.stdout.take()); // `rhn train | head`
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(place.path("run/result.json").exists());
    let mut child =
        place.command("train tiny.toml --out run --resume").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn what_a_killed_run_published_can_be_read_while_it_is_resumed() {
    let place = Place::new();
    let mut child = place.start("--out run --set train.epochs=1000000");
    wait_until("something is published", || place.path("run/manifest.json").exists());
    for command in ["eval run", "sample run --tokens 3", "inspect run"] {
        let output = place.rhn(command); // another best epoch may be published meanwhile
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.rhn("eval run").status.code(), Some(0));
}
