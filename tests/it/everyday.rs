//! What one does around runs: lists them, follows one, hands their numbers to other programs.

use crate::support::run;
use run::{Place, assert_fails, stderr, stdout};
use serde_json::Value;
use std::path::Path;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn nothing_asked_for_is_answered_by_five_lines_that_begin_somewhere() {
    let place = Place::new();
    let output = place.rhn("");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.lines().count() == 5 && text.contains("rhn train") && text.contains("rhn help"), "{text}");
}

#[test]
fn runs_are_listed_with_what_they_are_doing() {
    let place = Place::new();
    place.train("--out all/done");
    place.train("--out all/deep/er/halted --max-steps 3");
    place.train("--out all/held --max-steps 4");
    let held = rhn::storage::Lock::acquire(&place.path("all/held")).unwrap();
    std::fs::create_dir_all(place.path("all/model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(place.path("all/done").join(name), place.path("all/model").join(name)).unwrap();
    }
    place.write("all/odd/metrics.jsonl", "{\"event\":\"epoch\",\"epoch\":\"one\"}\n");
    let found = rows(&stdout(&place.rhn("runs all --json")));
    let states: Vec<(&str, &str)> =
        found.iter().map(|row| (row["name"].as_str().unwrap(), row["state"].as_str().unwrap())).collect();
    let wanted = [
        ("deep/er/halted", "stopped"),
        ("done", "finished"),
        ("held", "running"),
        ("model", "model"),
        ("odd", "unreadable"),
    ];
    assert_eq!(states, wanted);
    let result = place.json("all/done/result.json");
    assert_eq!(found[1]["test"], result["bits_per_char"]);
    assert_eq!((&found[1]["epochs"], &found[1]["epochs_asked"]), (&3.into(), &3.into()));
    let bytes = |name: &str| std::fs::metadata(place.path("all/model").join(name)).unwrap().len();
    assert_eq!(found[3]["bytes"], bytes("config.json") + bytes("model.safetensors"));
    drop(held);
    let table = stdout(&place.rhn("runs all"));
    assert!(table.contains("| held") && table.contains("odd: ") && !table.contains("running"), "{table}");
    assert!(stdout(&place.rhn("runs all/model/..//deep")).contains("er/halted"));
    std::fs::create_dir(place.path("empty")).unwrap();
    assert!(stdout(&place.rhn("runs empty")).starts_with("no runs in empty"));
    place.fails("runs nowhere", 1, &["nowhere", "no such directory", "rhn train begins a run"]);
    assert_eq!(stdout(&place.rhn("runs")), "no runs in checkpoints; rhn train begins one\n");
    assert_eq!(stdout(&place.rhn("runs --json")), "");
}

#[test]
fn a_run_is_followed_to_its_end() {
    let place = Place::new();
    let mut training = place.start("--out run --set train.epochs=30");
    while place.events("run", "start").is_empty() {
        assert!(training.try_wait().unwrap().is_none(), "the run ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = place.rhn("watch run --every 0.1s");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(training.wait().unwrap().success());
    let text = stdout(&output);
    let epochs = text.lines().filter(|line| line.starts_with("epoch ")).count();
    assert_eq!(epochs, 30, "{text}");
    assert!(text.lines().last().unwrap().starts_with("finished after "), "{text}");
    place.train("--out other --max-steps 3");
    assert!(stdout(&place.rhn("watch other")).ends_with("stopped; rhn train other --resume goes on\n"));
    place.fails("watch nowhere", 4, &["nowhere", "metrics.jsonl: is missing"]);
}

/// The numbers in a file of TensorBoard's: tag, step and value, read as its own readers do but for the checksums.
fn scalars(file: &Path) -> Vec<(String, u64, f32)> {
    let bytes = std::fs::read(file).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let event = &bytes[at + 12..at + 12 + length];
        at += length + 16;
        if event[9] == 0x1a {
            assert_eq!(&event[11..], b"brain.Event:2");
            continue;
        }
        assert_eq!(event[9], 0x10); // the step
        let mut step = 0;
        let mut next = 10;
        for shift in (0..).step_by(7) {
            step |= u64::from(event[next] & 0x7f) << shift;
            next += 1;
            if event[next - 1] < 0x80 {
                break;
            }
        }
        assert_eq!(event[next], 0x2a); // the summary, shorter than 16,384 bytes
        next += if event[next + 1] < 0x80 { 2 } else { 3 };
        while next < event.len() {
            assert_eq!(event[next], 0x0a);
            let end = next + 2 + usize::from(event[next + 1]);
            let tag_end = next + 4 + usize::from(event[next + 3]);
            let tag = String::from_utf8(event[next + 4..tag_end].to_vec()).unwrap();
            found.push((tag, step, f32::from_le_bytes(event[end - 4..end].try_into().unwrap())));
            next = end;
        }
    }
    found
}

#[test]
fn tensorboard_gets_the_numbers_of_the_metrics_also_of_a_resumed_run() {
    let place = Place::new();
    place.train("--out run --tensorboard --max-steps 7");
    place.train("--out run --resume"); // goes on with the file that is there
    let found = scalars(&place.path("run/events.out.tfevents.rhn"));
    let steps: Vec<u64> = found.iter().map(|(_, step, _)| *step).collect();
    assert!(steps.is_sorted());
    let of = |tag: &str| -> Vec<(u64, f32)> {
        found.iter().filter(|(found, ..)| found == tag).map(|(_, step, value)| (*step, *value)).collect()
    };
    let wanted = |kind: &str, key: &str| -> Vec<(u64, f32)> {
        let events = place.events("run", kind);
        events.iter().map(|e| (e["step"].as_u64().unwrap(), e[key].as_f64().unwrap() as f32)).collect()
    };
    assert_eq!(of("train/nats_per_token"), wanted("step", "train_nats_per_token"));
    assert_eq!(of("valid/perplexity"), wanted("epoch", "valid_perplexity"));
    assert_eq!(of("test/nats_per_token"), wanted("result", "nats_per_token"));
    assert_eq!(of("epoch/epoch").iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    place.train("--out plain");
    assert!(!place.path("plain/events.out.tfevents.rhn").exists());
    assert_eq!(place.fingerprint("plain"), place.fingerprint("run"));
}

#[test]
fn runs_compare_as_csv_too() {
    let place = Place::new();
    place.train("--out a");
    place.train("--out b,c --set train.seed=2 --max-steps 3");
    let output = place.command("compare a --csv").arg("b,c").output().unwrap();
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("run,measure,parameters,epochs,") && lines[0].contains("train.seed"));
    let best = place.json("a/result.json")["bits_per_char"].to_string();
    assert!(lines[1].starts_with("a,bits per character,") && lines[1].contains(&best), "{text}");
    assert!(lines[2].starts_with("\"b,c\",") && lines[2].contains(",false,"), "{text}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_run_that_has_saved_nothing_is_said_to_be_one() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    std::fs::create_dir(place.path("killed")).unwrap();
    let events = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    place.write("killed/metrics.jsonl", format!("{}\n", events.lines().next().unwrap()));
    assert!(stdout(&place.rhn("watch killed")).ends_with("\nstopped before it had saved anything\n"));
    place.fails("train killed --resume", 2, &["killed: a run that has saved nothing yet", "--out killed"]);
    let held = rhn::storage::Lock::acquire(&place.path("killed")).unwrap();
    place.fails("train killed --resume", 6, &["killed"]);
    drop(held);
    place.train("--out killed --resume --max-steps 3");
    assert!(place.path("killed/state").is_dir());
}

#[cfg(unix)]
#[test]
fn a_directory_whose_name_is_not_unicode_is_shown_as_it_can_be() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    place.train("--out run --max-steps 3");
    let name = std::ffi::OsStr::from_bytes(b"c\xe9");
    if std::fs::rename(place.path("run"), place.path(".").join(name)).is_err() {
        return println!("skipped: this file system wants names in Unicode");
    }
    let output = place.command("inspect --json").arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["directory"], "c\u{fffd}");
}

#[test]
fn the_tokens_that_are_counted_are_those_that_a_model_reads() {
    let place = Place::new();
    place.write("words.txt", "a rose is a rose is a rose\n".repeat(90) + "the mill by the river\n");
    let report = place.json_of("data inspect words.txt --unit word --json");
    let counted: Vec<u64> =
        report["splits"].as_array().unwrap().iter().map(|split| split["tokens"].as_u64().unwrap()).collect();
    assert!(report["splits"][2]["oov_tokens"].as_u64().unwrap() > 0, "{report}");
    // a, rose, is and the line end; in the test the, mill, by, river as well, which the vocabulary lacks.
    assert_eq!([0, 2].map(|split| report["splits"][split]["types"].as_u64()), [Some(4), Some(8)]);
    place.write("crlf.txt", "hello\r\n".repeat(60));
    let crlf = place.json_of("data inspect crlf.txt --unit char --json");
    assert_eq!((&crlf["splits"][0]["longest_line"], &crlf["splits"][0]["types"]), (&5.into(), &5.into()));
    place.write("marked.txt", format!("\u{feff}{}", "hello\n".repeat(60)));
    let marked = place.json_of("data inspect marked.txt --unit char --json");
    assert_eq!([&marked["splits"][0]["longest_line"], &marked["splits"][0]["bytes"]], [&5, &324]);
    for (name, text) in [("train", "abc abc\n"), ("valid", "ab\tc\u{c}d\n"), ("test", "abc\n")] {
        place.write(&format!("blanks/{name}.txt"), text);
    }
    for unit in ["char", "byte"] {
        let blanks = place.json_of(&format!("data inspect blanks --unit {unit} --json"));
        assert_eq!(blanks["splits"][1]["types"], 7, "{unit}"); // a, b, c, the line end; a tab, a form feed and d are unknown
    }
    for (name, text) in [("train", "abcabc"), ("valid", "a\r\nb\nc\n"), ("test", "abc")] {
        place.write(&format!("ends/{name}.txt"), text);
    }
    let ends = ["char", "byte"].map(|unit| place.json_of(&format!("data inspect ends --unit {unit} --json")));
    assert_eq!(ends.each_ref().map(|ends| ends["splits"][1]["types"].as_u64()), [Some(4), Some(5)]);
    let words = place.json_of("data inspect words.txt --unit byte --json");
    assert_eq!(words["splits"][0]["chars"], words["splits"][0]["bytes"]);
    let settings = "--set corpus.unit=word --set corpus.split=[90.0,5.0,5.0]";
    let said = place.train(&format!("--corpus words.txt {settings} --out words --max-steps 1"));
    let [train, valid, test] = counted[..] else { panic!("{report}") };
    let wanted = format!("{train} training tokens, {valid} for validation, {test} for test");
    assert!(said.contains(&wanted), "{said}\nwanted {wanted}");
    place.write("odd.dat", [0xffu8, 0xc0, b'a', b'b'].repeat(60));
    let odd = place.json_of("data inspect odd.dat --unit byte --json");
    assert!(odd["splits"][0].get("chars").is_none() && odd["splits"][0]["bytes"] == 216, "{odd}");
}

/// The training state has the recipe too: before the first validation it alone has, and it is what the published one is
/// held to.
#[test]
fn a_run_is_resumed_by_its_directory_whatever_became_of_its_published_recipe() {
    let place = Place::new();
    place.train("--out whole");
    place.train("--out run --max-steps 3 --set train.patience=9");
    for name in ["config.json", "manifest.json", "model.safetensors", "tokenizer.json", "recipe.toml"] {
        std::fs::remove_file(place.path("run").join(name)).unwrap();
    }
    let output = place.rhn("train run --resume --max-steps 20");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let recipe = place.path("run/recipe.toml");
    let damaged = std::fs::read_to_string(&recipe).unwrap().replace("patience = 9", "patience = 1");
    std::fs::write(&recipe, &damaged).unwrap();
    let output = place.rhn("train run --resume --set train.patience=0");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("run/recipe.toml: is damaged") && said.contains("read from run/state/step-"),
        "{said}"
    );
    let published = std::fs::read_to_string(&recipe).unwrap();
    assert!(published.contains("patience = 0"), "{published}");
    let weights = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(weights("run") == weights("whole"), "resumed to other weights");
    // Without a state the published one is all there is.
    std::fs::remove_dir_all(place.path("run/state")).unwrap();
    std::fs::write(&recipe, damaged).unwrap();
    place.fails("train run --out other", 4, &["run/recipe.toml: is damaged"]);
    std::fs::remove_file(&recipe).unwrap();
    place.fails("train run --resume", 4, &["run/recipe.toml: is missing"]);
}

#[test]
fn a_result_of_other_weights_is_not_shown() {
    let place = Place::new();
    place.train("--out run --set train.epochs=1");
    assert!(stdout(&place.rhn("inspect run")).contains("\nresult      test perplexity "));
    place.train("--out run --resume --set train.epochs=3 --max-steps 30");
    let shown = stdout(&place.rhn("inspect run"));
    assert!(!shown.contains("\nresult "), "{shown}");
    std::fs::create_dir(place.path("here")).unwrap();
    let export = place.command("export ../run --to onnx .").current_dir(place.path("here")).output().unwrap();
    assert_fails(&export, 2, &[".: is where you are"]);
    place.train("--out untested --set train.epochs=1 --set corpus.split=[90,10,0]");
    let shown = stdout(&place.rhn("inspect untested"));
    assert!(shown.contains("\nresult      finished; the corpus has no test split"), "{shown}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_printed_is_said_to_be_one() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    place.write("text.txt", "to be\n");
    for args in ["eval run --json", "score run text.txt", "--help", "train --help", "--version"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = place.command(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("standard output: No space left"), "{}", stderr(&output));
    }
    place.write("odd.dat", [0xee, b'a']);
    place.fails("sample run --prompt-file odd.dat", 3, &["odd.dat", "UTF-8"]);
}

#[test]
fn settings_that_do_nothing_and_threads_that_wait_for_a_core_are_said() {
    let place = Place::new();
    let more = std::thread::available_parallelism().unwrap().get() + 1;
    let said = place.train(&format!("--out run --max-steps 1 --set corpus.min_count=3 --threads {more}"));
    assert!(said.contains("corpus.min_count does nothing here: it is for a vocabulary by word"), "{said}");
    assert!(said.contains(&format!("--threads {more} on ")), "{said}");
    let said =
        place.train("--out words --max-steps 1 --set corpus.unit=word --set corpus.min_count=2 --threads 1");
    assert!(!said.contains("does nothing") && !said.contains("--threads"), "{said}");
    let said = place.train(
        "--out tuned --init-from words --max-steps 1 --set corpus.unit=word --set corpus.vocab_size=5",
    );
    assert!(said.contains("corpus.vocab_size does nothing here"), "{said}");
    place.write("new.txt", crate::support::run::PLAY.replace("question", "answer").repeat(12));
    let said = place.train(
        "--out grown --corpus new.txt --init-from words --grow-vocab --max-steps 1 --set corpus.unit=word --set corpus.min_count=2",
    );
    assert!(!said.contains("does nothing"), "{said}");
    let said = place.train(
        "--out keys --max-steps 1 --set train.optimizer=sgd --set train.beta1=0.5 --set train.epsilon=1e-7 \
         --set train.max_rollbacks=2 --set train.max_skipped_steps=3 --set train.dropout.between=0.5 \
         --set train.dropout.separate_gate_masks=true --set train.dropout.hidden=0",
    );
    for key in [
        "beta1",
        "epsilon",
        "max_rollbacks",
        "max_skipped_steps",
        "dropout.between",
        "dropout.separate_gate_masks",
    ] {
        assert!(said.contains(&format!("train.{key} does nothing here")), "{key}: {said}");
    }
    let said = place.train(
        "--out read --max-steps 1 --set train.optimizer=adam --set train.beta1=0.5 --set train.epsilon=1e-7 \
         --set train.on_divergence=rollback --set train.max_rollbacks=2 --on-non-finite skip \
         --set train.max_skipped_steps=3 --set train.dropout.between=0.5 --set model.core.layers=2 \
         --set train.dropout.separate_gate_masks=true --set train.dropout.hidden=0.1",
    );
    assert!(!said.contains("does nothing"), "{said}");
    place.fails(
        "train tiny.toml --out none --set epochs=3",
        2,
        &["--set epochs=3: did you mean train.epochs?"],
    );
    place.fails("train tiny.toml --out none --set bogus=3", 2, &["unknown field `bogus`"]);
    let fraternal =
        "train tiny.toml --out none --set train.fraternal.kappa=0.1 --set train.dropout={between=0.5}";
    place.fails(fraternal, 2, &["train.dropout drops none"]);
    let said = place.train("--out one --max-steps 1 --set corpus.shuffle=1 --set corpus.split=[70,20,10]");
    assert!(said.contains("corpus.shuffle does nothing here: corpus.txt is one text"), "{said}");
    assert!(!said.contains("corpus.split does nothing"), "{said}");
    let nothing = place.command("neighbours words").arg("").output().unwrap();
    run::assert_fails(&nothing, 2, &["an empty word has no neighbours"]);
}
