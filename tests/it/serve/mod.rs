//! `rhn serve` from outside, over TCP: answers, errors, streams, hostile clients, signals.

mod completions;
mod endpoints;
mod hostile;
mod life;
mod server;

use crate::cli::Run;
use serde_json::Value;
use server::Server;

/// A small network for `unit`s, and a server of it; `args` follow the checkpoint.
fn served(unit: &str, args: &[&str]) -> (Run, Server) {
    let run = Run::new(unit, 0.5);
    let checkpoint = run.checkpoint();
    let server = Server::start(&[&[checkpoint.as_str()], args].concat());
    (run, server)
}

/// What a command that prints lines of JSON printed.
fn lines(run: &Run, command: &str, args: &[&str]) -> Vec<Value> {
    let output = run.rhn(command, &[args, &["--json", "--threads", "2"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
