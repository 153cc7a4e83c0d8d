//! Steps may be told of late, as a GPU tells of them: the run is the same, bit for bit, wherever it is stopped.

#[path = "support/shrunk.rs"]
mod shrunk;

use candle_core::{DType, Device};
use rhn::data::{Places, registry::Registry};
use rhn::train::saved::Resumed;
use rhn::train::session::Session;
use rhn::train::signals::Signals;
use rhn::train::stop::Limits;
use rhn::train::trainer::Trainer;
use serde_json::Value;
use shrunk::shrunk;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Of a piece of Shakespeare, two epochs of 22 windows.
fn session(place: &Path) -> Session {
    let play = include_str!("../data/tiny-shakespeare.txt");
    let corpus = place.join("corpus.txt");
    fs::write(&corpus, &play[..12_000]).unwrap();
    let name = format!("corpus.name={}", corpus.display());
    let sizes = ["train.batch_size=8", "train.bptt_steps=60", "train.epochs=2", "train.learning_rate=0.003"];
    let recipe = shrunk("text", 16, &[&[name.as_str()], &sizes[..]].concat());
    let places = Places::only(Path::new("."), Registry::built_in());
    Session::prepare(recipe, &places, None, DType::F32, &Device::Cpu).unwrap()
}

/// Trains into `out` until `max_steps`, from where it was left; steps are told of by `at_once`.
fn train(session: &Session, out: &Path, at_once: usize, max_steps: Option<u64>) {
    fs::create_dir_all(out).unwrap();
    let resumed = Resumed::find(out, |_| ()).unwrap();
    let mut stepper = session.stepper(None).unwrap();
    stepper.ledger.tell_every(at_once);
    let limits = Limits { max_steps, time: None };
    let signals = Signals::listen().unwrap();
    Trainer::new(session, stepper, out, resumed.as_ref(), signals, limits).unwrap().run().unwrap();
}

/// The newest state's tensors as bytes; its position and the run's events, what the clock says apart.
fn left(out: &Path) -> (BTreeMap<&'static str, Vec<u8>>, Value, Vec<Value>) {
    let states = fs::read_dir(out.join("state")).unwrap().map(|entry| entry.unwrap().path());
    let newest = states.max().unwrap();
    let files = ["model.safetensors", "optimizer.safetensors"];
    let tensors = files.map(|name| (name, fs::read(newest.join(name)).unwrap()));
    let timeless = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        for key in ["seconds", "tokens_per_second", "time"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value
    };
    let position = timeless(&fs::read_to_string(newest.join("state.json")).unwrap());
    let events = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let told = |event: &Value| ["step", "epoch"].contains(&event["event"].as_str().unwrap());
    (tensors.into(), position, events.lines().map(timeless).filter(told).collect())
}

#[test]
fn a_run_that_is_told_of_late_is_the_same_wherever_it_stops() {
    let place = tempfile::tempdir().unwrap();
    let session = session(place.path());
    let steps = session.total_steps();
    assert!(steps > 2 * 16, "{steps} steps are told of at once");
    let out = |name: &str| place.path().join(name);
    train(&session, &out("at once"), 1, None);
    let wanted = left(&out("at once"));
    assert_eq!(wanted.1["step"], steps);
    train(&session, &out("late"), 16, None);
    assert_eq!(left(&out("late")), wanted);
    for stop in [16, steps / 2 + 5] {
        let out = out(&format!("stopped at {stop}"));
        train(&session, &out, 16, Some(stop));
        assert_eq!(left(&out).1["step"], stop);
        train(&session, &out, 16, None);
        assert_eq!(left(&out), wanted, "stopped at {stop}");
    }
}
