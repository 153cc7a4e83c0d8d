//! Tiny runs of `rhn train` in a directory of their own, and what they leave there.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PLAY: &str = "To be , or not to be :\nthat is the question\n";

/// Characters, a small RHN, three epochs of a few dozen steps.
pub(crate) const RECIPE: &str = r#"
[corpus]
name = "corpus.txt"
unit = "char"
split = [80, 10, 10]

[model.embedding]
kind = "word"

[model.core]
kind = "rhn"
layers = 1
hidden_size = 8
recurrence_depth = 2
transform_bias = -2.0

[model.output]
tied = false

[train]
epochs = 3
batch_size = 2
bptt_steps = 5
optimizer = "adam"
learning_rate = 0.01
max_grad_norm = 5.0
init_scale = 0.1
dropout = { input = 0.1, hidden = 0.1, output = 0.1 }
"#;

/// Times and speeds, which no two runs share.
const CLOCKED: [&str; 3] = ["seconds", "seconds_total", "tokens_per_second"];

/// A directory with `tiny.toml` and `corpus.txt`; commands run in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("tiny.toml", RECIPE);
        place.write("corpus.txt", PLAY.repeat(12));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// `rhn ARGS…` with this directory as the current one; a space parts arguments.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_rhn"));
        command.args(args.split_whitespace());
        command
    }

    /// Another program in this directory.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(self.0.path()).env_remove("RHN_DATA");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `rhn train tiny.toml ARGS…`, under way.
    pub(crate) fn start(&self, args: &str) -> Child {
        self.command(&format!("train tiny.toml {args}")).spawn().unwrap()
    }

    pub(crate) fn rhn(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// The command with the directory `from` as the current one; it succeeds.
    #[track_caller]
    pub(crate) fn rhn_from(&self, from: &str, args: &str) -> Output {
        let output = self.command(args).current_dir(self.path(from)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        output
    }

    /// The JSON that `rhn ARGS…` prints.
    #[track_caller]
    pub(crate) fn json_of(&self, args: &str) -> Value {
        let output = self.rhn(args);
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args}: {}", stdout(&output)))
    }

    /// The command, with this on its standard input.
    pub(crate) fn rhn_reading(&self, args: &str, input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input); // it may have ended already
        child.wait_with_output().unwrap()
    }

    /// The commands that read a run's events take this finished one.
    #[track_caller]
    pub(crate) fn assert_is_read(&self, out: &str) {
        for args in [format!("compare {out}"), format!("watch {out}"), format!("plot {out} --out {out}.svg")]
        {
            let output = self.rhn(&args);
            assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        }
        assert_eq!(self.json_of(&format!("compare {out} --json"))["runs"][0]["finished"], true);
    }

    /// Trains and succeeds; the standard error.
    #[track_caller]
    pub(crate) fn train(&self, args: &str) -> String {
        let output = self.rhn(&format!("train tiny.toml {args}"));
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        stderr(&output)
    }

    /// A sweep with this head counts as many parameters beforehand as the run `out` has.
    #[track_caller]
    pub(crate) fn assert_counted_before(&self, head: &str, out: &str) {
        self.write("counted.toml", head);
        let output = self.rhn("sweep counted.toml --dry-run");
        let wanted = format!(" {} | ", self.events(out, "start")[0]["parameters"]);
        let table = stdout(&output).replace(',', "");
        assert!(table.contains(&wanted), "no {wanted} in {table}{}", stderr(&output));
    }

    /// `rhn train ARGS --dry-run` tells what the run would take, counts `units`, and writes nothing.
    #[track_caller]
    pub(crate) fn dry_run(&self, args: &str, units: &str) {
        let listing = || fs::read_dir(self.path("")).unwrap().count();
        let before = listing();
        let output = self.rhn(&format!("train {args} --dry-run"));
        let text = stdout(&output);
        let speed = format!(" {units}/s on ");
        let parts =
            ["parameters  ", "training data  ", "steps an epoch", &speed, "peak memory", "the whole run"];
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text}{}", stderr(&output));
        }
        assert_eq!(listing(), before);
    }

    /// The command fails with this exit code and one error that holds each of these parts.
    #[track_caller]
    pub(crate) fn fails(&self, args: &str, code: i32, parts: &[&str]) {
        assert_fails(&self.rhn(args), code, parts);
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// The events of a kind, or all of them for `""`.
    pub(crate) fn events(&self, out: &str, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let events = whole.map(|line| serde_json::from_str(line).unwrap());
        events.filter(|event: &Value| kind.is_empty() || event["event"] == kind).collect()
    }

    /// The step of the last step event, read without parsing what came before it; 0 without one.
    pub(crate) fn last_step(&self, out: &str) -> u64 {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap_or_default();
        let mut whole = text.split_inclusive('\n').rev().filter(|line| line.ends_with('\n'));
        let last = whole.find(|line| line.contains(r#""event":"step""#));
        last.map_or(0, |line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
    }

    /// The newest training state.
    pub(crate) fn newest(&self, out: &str) -> PathBuf {
        states(&self.path(out)).pop().expect("a training state")
    }

    /// Everything that must be the same in two runs that did the same.
    pub(crate) fn fingerprint(&self, out: &str) -> Vec<(&'static str, String)> {
        let state = self.newest(out);
        let result = self.path(out).join("result.json");
        let epochs: Vec<Value> = self.events(out, "epoch").into_iter().map(without_clock).collect();
        let mut position: Value = read_json(&state.join("state.json"));
        position = without_clock(position);
        let mut all = vec![
            ("published weights", sha256(&self.path(out).join("model.safetensors"))),
            ("last weights", sha256(&state.join("model.safetensors"))),
            ("last moments and carried state", sha256(&state.join("optimizer.safetensors"))),
            ("position", position.to_string()),
            ("epochs", serde_json::to_string(&epochs).unwrap()),
        ];
        if result.exists() {
            all.push(("result", without_clock(read_json(&result)).to_string()));
        }
        all
    }
}

/// The directories of the training states, oldest first.
pub(crate) fn states(out: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(out.join("state")) else { return Vec::new() };
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("step-");
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(named).collect();
    all.sort();
    all
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn without_clock(mut value: Value) -> Value {
    let table = value.as_object_mut().unwrap();
    CLOCKED.iter().for_each(|key| drop(table.remove(*key)));
    value
}

fn sha256(path: &Path) -> String {
    format!("{:x?}", Sha256::digest(fs::read(path).unwrap()).as_slice())
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains("error: ") && !message.contains("panicked"), "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?} in {message}"));
}

/// Waits until something is so: for a minute and more, counted in looks, not by the clock, since a process that was
/// stopped for a while has not waited.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("waited in vain until {what}");
}

/// Sends a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}
