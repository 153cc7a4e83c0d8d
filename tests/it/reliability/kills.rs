//! A run killed at random times and resumed until it is done ends with the bits of one that was left alone.

use super::{SHORT, assert_same, assert_tidy};
use crate::support::run::Place;
use rhn_kernels::rng::Rng;
use std::time::{Duration, Instant};

/// Kills the run at random times until one attempt comes to its end; how often it was killed.
fn kill_until_done(place: &Place, out: &str, draw: &mut Rng, longest: Duration) -> usize {
    for kills in 0.. {
        let mut child = place.start(&format!("--out {out} {SHORT} --resume"));
        let end = Instant::now() + longest.mul_f64(draw.uniform());
        while Instant::now() < end {
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return kills;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    unreachable!("some attempt ends")
}

fn ends_the_same(runs: u64) {
    let place = Place::new();
    let start = Instant::now();
    place.train(&format!("--out whole {SHORT}"));
    let mut longest = start.elapsed().mul_f64(1.1);
    let (mut killed, mut attempts, mut kills) = (0, 0, 0);
    while killed < runs {
        let out = format!("run-{attempts}");
        let before_the_end = kill_until_done(&place, &out, &mut Rng::keyed(attempts, "kills", 0), longest);
        assert_same(&place, "whole", &out);
        assert_tidy(&place, &out);
        std::fs::remove_dir_all(place.path(&out)).unwrap();
        attempts += 1;
        kills += before_the_end;
        match before_the_end {
            0 => longest = longest.mul_f64(0.9), // the machine is faster now; that run does not count
            _ => killed += 1,
        }
    }
    println!("{killed} runs with {kills} kills, {} without", attempts - killed);
}

#[test]
fn five_runs_killed_at_random_times_end_with_the_same_bits() {
    ends_the_same(5);
}

#[test]
#[ignore = "long: a thousand runs"]
fn a_thousand_runs_killed_at_random_times_end_with_the_same_bits() {
    ends_the_same(1000);
}
