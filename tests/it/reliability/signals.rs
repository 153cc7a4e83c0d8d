//! Signals, two processes and hung-up terminals in every phase of a run.

use super::{SHORT, assert_same, assert_tidy};
use crate::support::run::{PLAY, Place, signal, stderr, stdout, wait_until};
use rhn_kernels::rng::Rng;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

const SIGNALS: [(&str, i32); 3] = [("INT", 2), ("TERM", 15), ("HUP", 1)];

/// Ended by the signal itself, before there was anything to save, or with its code after all was saved.
fn ended_by(status: ExitStatus, number: i32) -> bool {
    status.signal() == Some(number) || status.code() == Some(128 + number)
}

/// The signals that a process started by this one does not ignore: of a job in a shell's background, SIGINT is.
fn not_ignored() -> impl Iterator<Item = (&'static str, i32)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    SIGNALS.into_iter().filter(move |(name, number)| {
        let is_ignored = ignored >> (number - 1) & 1 == 1;
        if is_ignored {
            eprintln!("skipped: SIG{name} is ignored here, and so by what is started");
        }
        !is_ignored
    })
}

fn send_and_wait(mut child: Child, name: &str) -> ExitStatus {
    signal(&child, name);
    child.wait().unwrap()
}

/// Stops the run by signals at random times until it comes to its end; how often it was stopped.
fn stop_until_done(place: &Place, out: &str, draw: &mut Rng, longest: Duration) -> usize {
    for stops in 0.. {
        let mut child = place.start(&format!("--out {out} {SHORT} --resume"));
        std::thread::sleep(longest.mul_f64(draw.uniform()));
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return stops;
        }
        let (name, number) = SIGNALS[stops % 3];
        let status = send_and_wait(child, name);
        if status.code() == Some(0) {
            return stops; // it was at its end
        }
        assert!(ended_by(status, number), "{name}: {status:?}");
    }
    unreachable!("some attempt ends")
}

#[test]
fn runs_stopped_by_signals_at_random_times_end_with_the_same_bits() {
    let place = Place::new();
    let start = Instant::now();
    place.train(&format!("--out whole {SHORT}"));
    let longest = start.elapsed().mul_f64(1.1);
    for run in 0..3 {
        let out = format!("run-{run}");
        stop_until_done(&place, &out, &mut Rng::keyed(run, "signals", 0), longest);
        assert_same(&place, "whole", &out);
        assert_tidy(&place, &out);
    }
}

#[test]
fn a_terminal_that_is_hung_up_stops_a_run_saved() {
    let place = Place::new();
    let child = place.start("--out run --set train.epochs=1000000");
    wait_until("an epoch is done", || !place.events("run", "epoch").is_empty());
    signal(&child, "HUP");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(129), "{}", stderr(&output));
    assert!(stdout(&output).contains("saved in run"));
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_nothing_is_lost() {
    let place = Place::new();
    place.write("large.txt", PLAY.repeat(2000));
    // A step takes seconds.
    let settings = "--corpus large.txt --set train.batch_size=64 --set train.bptt_steps=60 \
        --set model.core.hidden_size=512 --set model.core.recurrence_depth=10 --set train.epochs=1";
    place.train(&format!("--out run {settings} --max-steps 0"));
    let mut child = place.start(&format!("--out run {settings} --resume"));
    wait_until("it goes on", || !place.events("run", "resume").is_empty());
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the step's end");
    let start = Instant::now();
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_millis(700));
    assert_eq!(output.status.code(), Some(130));
    assert!(!stdout(&output).contains("saved"));
    place.train(&format!("--out run {settings} --resume --max-steps 0"));
}

#[test]
fn a_signal_while_a_text_is_cut_ends_the_process_and_leaves_no_directory() {
    let place = Place::new();
    place.write("large.txt", PLAY.repeat(700_000));
    for (name, number) in not_ignored() {
        let child = place.start("--out run --corpus large.txt --set corpus.unit=word");
        std::thread::sleep(Duration::from_millis(150));
        let status = send_and_wait(child, name);
        assert_eq!(status.signal(), Some(number), "{status:?}");
        assert!(!place.path("run").exists());
    }
}

#[test]
#[cfg(feature = "hub")]
fn a_signal_while_a_text_is_fetched_ends_the_process_and_leaves_nothing() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, number) in not_ignored() {
        let mut command =
            place.command("train tiny.toml --out run --corpus hf://datasets/owner/name/text.txt");
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let child = command.env("HF_ENDPOINT", endpoint).env("HF_HOME", place.path("home")).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap(); // and no answer
        let status = send_and_wait(child, name);
        assert_eq!(status.signal(), Some(number), "{status:?}");
        assert!(!place.path("run").exists() && !place.path("home").exists());
    }
}

#[test]
fn a_directory_is_free_again_as_soon_as_its_holder_is_dead() {
    let place = Place::new();
    let settings = "--out run --set train.epochs=1000000";
    let mut child = place.start(settings);
    wait_until("an epoch is done", || !place.events("run", "epoch").is_empty());
    let holder = std::fs::read_to_string(place.path("run/lock")).unwrap();
    assert!(holder.starts_with(&format!("process {}, started ", child.id())), "{holder}");
    child.kill().unwrap();
    child.wait().unwrap();
    let steps = 31 + place.events("run", "epoch").len();
    place.train(&format!("{settings} --resume --max-steps {steps}"));
}

/// Two processes at once on one directory: one of them is told to keep out.
fn two_at_once(times: usize) {
    let place = Place::new();
    for time in 0..times {
        let out = format!("run-{time}");
        let mut both =
            [0, 1].map(|_| place.start(&format!("--out {out} --resume --set train.epochs=1000000")));
        let mut ended = None;
        wait_until("one of them has ended", || {
            ended = both.iter_mut().position(|child| child.try_wait().unwrap().is_some());
            ended.is_some()
        });
        let [mut first, second] = both;
        let (mut winner, loser) = if ended == Some(1) {
            (first, second)
        } else {
            (second, {
                first.wait().unwrap();
                first
            })
        };
        let output = loser.wait_with_output().unwrap();
        crate::support::run::assert_fails(&output, 6, &["in use by process"]);
        winner.kill().unwrap();
        winner.wait().unwrap();
        std::fs::remove_dir_all(place.path(&out)).unwrap();
    }
}

#[test]
fn of_two_processes_on_one_directory_one_is_told_to_keep_out() {
    two_at_once(5);
}

#[test]
#[ignore = "long: two hundred times"]
fn of_two_processes_on_one_directory_one_is_told_to_keep_out_two_hundred_times() {
    two_at_once(200);
}
