//! Memory does not grow with the number of steps.

use crate::support::run::{Place, wait_until};

/// Resident memory of a process, in kB.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Memory after 500 steps and after `steps`, of which epochs, validations and saves are a part.
fn grows_by_at_most_two_percent(steps: u64) {
    let place = Place::new();
    let mut child = place.start("--out run --set train.epochs=1000000 --threads 1");
    drop(child.stdout.take()); // rows and samples would fill the pipe
    drop(child.stderr.take());
    let after = |steps: u64| {
        wait_until(&format!("{steps} steps are done"), || place.last_step("run") >= steps);
        resident(child.id())
    };
    let (early, late) = (after(500), after(steps));
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{early} kB after 500 steps, {late} kB after {steps}");
    assert!(late <= 1.02 * early, "{early} kB after 500 steps, {late} kB after {steps}");
}

#[test]
fn memory_stays_over_a_thousand_steps() {
    grows_by_at_most_two_percent(1500);
}

#[test]
#[ignore = "long: ten thousand steps"]
fn memory_stays_over_ten_thousand_steps() {
    grows_by_at_most_two_percent(10_000);
}
