//! The mean of the weights over the steps, by which a run is measured and published.

use crate::support::run::Place;
use candle_core::{DType, Device, Tensor};
use rhn::storage::{MODEL, load_tensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn weights(directory: &Path) -> BTreeMap<String, Tensor> {
    let path = directory.join(MODEL);
    load_tensors(&path, &fs::read(&path).unwrap(), &Device::Cpu).unwrap()
}

/// The largest difference of two models.
fn difference(one: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>) -> f64 {
    assert!(one.keys().eq(other.keys()));
    let differences = one.iter().map(|(name, tensor)| {
        let far = (tensor - &other[name]).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        far.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
    });
    differences.fold(0.0, |most, far| if far <= most { most } else { far })
}

#[test]
fn what_is_published_is_the_mean_of_the_weights_after_every_step() {
    const STEPS: usize = 5;
    let place = Place::new();
    for steps in 1..=STEPS {
        place.train(&format!("--out own-{steps} --max-steps {steps} --precision f64"));
    }
    place.train(&format!("--out mean --max-steps {STEPS} --precision f64 --set train.averaging.kind=ema"));
    let own = |steps| weights(&place.newest(&format!("own-{steps}")));
    let last = own(STEPS);
    let mean = |name: &String| {
        let sum = (1..STEPS).map(own).fold(last[name].clone(), |sum, own| (sum + &own[name]).unwrap());
        (sum / STEPS as f64).unwrap()
    };
    let means = last.keys().map(|name| (name.clone(), mean(name))).collect();
    let published = weights(&place.path("mean"));
    assert!(difference(&published, &means) < 1e-15, "{}", difference(&published, &means));
    assert!(difference(&published, &last) > 1e-6);
    assert_eq!(
        difference(&weights(&place.newest("mean")), &last),
        0.0,
        "training goes on from its own weights"
    );
}

#[test]
fn an_exponential_mean_forgets_what_was_long_ago() {
    let place = Place::new();
    let settings = "--max-steps 4 --precision f64";
    place.train(&format!("--out mean {settings} --set train.averaging={{kind=\"ema\",decay=0.5}}"));
    for steps in 1..=4 {
        place.train(&format!("--out own-{steps} --max-steps {steps} --precision f64"));
    }
    let published = weights(&place.path("mean"));
    let own: Vec<_> = (1..=4).map(|steps| weights(&place.newest(&format!("own-{steps}")))).collect();
    // With a decay of ½ the second step's share is ½ already, and each later one's too.
    let shares = [0.125, 0.125, 0.25, 0.5];
    let mean = |name: &String| {
        let parts = own.iter().zip(shares).map(|(own, share)| (&own[name] * share).unwrap());
        parts.reduce(|sum, part| (sum + part).unwrap()).unwrap()
    };
    let means = published.keys().map(|name| (name.clone(), mean(name))).collect();
    assert!(difference(&published, &means) < 1e-15);
}

#[test]
fn a_triggered_mean_begins_when_the_loss_no_longer_falls_and_is_what_is_measured() {
    let place = Place::new();
    // Far too high a rate, so that validation losses go up and down.
    let settings = "--set train.optimizer=sgd --set train.learning_rate=8 --set train.epochs=6 \
        --set train.on_divergence=warn --set train.averaging={kind=\"nt-asgd\",non_monotone=1}";
    place.train(&format!("--out run {settings}"));
    let epochs = place.events("run", "epoch");
    let losses: Vec<f64> =
        epochs.iter().map(|epoch| epoch["valid_nats_per_token"].as_f64().unwrap()).collect();
    let averaged: Vec<u64> =
        epochs.iter().map(|epoch| epoch["averaged_steps"].as_u64().unwrap_or(0)).collect();
    let per_epoch = place.events("run", "start")[0]["steps_per_epoch"].as_u64().unwrap();
    let is_trigger =
        |epoch: usize| losses[..epoch.saturating_sub(1)].iter().any(|&before| before < losses[epoch]);
    let trigger = (0..losses.len()).find(|&epoch| is_trigger(epoch)).expect("losses that rise");
    for (epoch, &steps) in averaged.iter().enumerate() {
        let wanted = epoch.saturating_sub(trigger) as u64 * per_epoch;
        assert_eq!(steps, wanted, "epoch {epoch} of {losses:?}, begun after {trigger}");
    }
    assert!(averaged.last().is_some_and(|&steps| steps > 0), "{losses:?}");
}

#[test]
fn fine_tuning_averages_from_the_first_step_and_ends_when_the_loss_of_the_mean_no_longer_falls() {
    let place = Place::new();
    place.train("--out first --set train.epochs=2 --set train.averaging.kind=ema");
    let settings = "--init-from first --set train.optimizer=sgd --set train.learning_rate=8 --set train.epochs=60 \
        --set train.on_divergence=warn --set train.averaging={kind=\"nt-asgd\",non_monotone=2,from_start=true}";
    place.train(&format!("--out run {settings}"));
    let epochs = place.events("run", "epoch");
    let number = |epoch: &serde_json::Value, key: &str| epoch[key].as_f64().unwrap();
    assert!(epochs.iter().all(|epoch| epoch["averaged_steps"] == epoch["step"]));
    let losses: Vec<f64> = epochs.iter().map(|epoch| number(epoch, "valid_nats_per_token")).collect();
    let is_trigger =
        |epoch: usize| losses[..epoch.saturating_sub(2)].iter().any(|&before| before < losses[epoch]);
    let triggers: Vec<usize> = (0..losses.len()).filter(|&epoch| is_trigger(epoch)).collect();
    assert_eq!(triggers, [losses.len() - 1], "{losses:?}");
    assert!(losses.len() < 60, "{losses:?}");
    let message = place.train(
        "--out run --resume --set train.optimizer=sgd --set train.learning_rate=8 \
        --set train.epochs=60 --set train.on_divergence=warn \
        --set train.averaging={kind=\"nt-asgd\",non_monotone=2,from_start=true}",
    );
    assert!(message.contains("the loss of the mean of the weights no longer fell"), "{message}");
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let place = Place::new();
    for (value, part) in [
        ("{kind=\"ema\",decay=1.0}", "averaging.decay is 1"),
        ("{kind=\"ema\",decay=0}", "averaging.decay is 0"),
        ("{kind=\"swa\"}", "unknown variant"),
        ("{kind=\"ema\",non_monotone=3}", "non_monotone"),
    ] {
        place.fails(&format!("train tiny.toml --out run --set train.averaging={value}"), 2, &[part]);
    }
}
