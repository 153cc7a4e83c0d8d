//! The adaptations on the tiny model: what must not change anything changes no bit.

use super::*;
use crate::config::Unit;
use crate::data::Encoded;
use crate::eval::perplexity::{stream, stream_at};
use crate::model::FrozenModel;
use crate::predict::{STREAM_STEPS, WindowReader, tiny};

fn split(text: &Encoded) -> Split<'_> {
    Split { corpus: "tiny", split: "test", unit: Unit::Char, text }
}

fn cached(model: &FrozenModel, text: &Encoded, cache: CacheSettings) -> Evaluation {
    let adaptation = Adaptation { cache: Some(cache), ..Adaptation::default() };
    let mut reader = WindowReader::new(model, 1).unwrap();
    adapted(&mut reader, &split(text), &adaptation, &mut |_, _| Ok(())).unwrap()
}

#[test]
fn a_cache_without_a_share_is_the_stream_to_the_bit() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(STREAM_STEPS + 50));
    let model = tiny::drawn(vocab_size, 1.0);
    let wanted = stream(&model, &split(&text), &mut |_, _| Ok(())).unwrap();
    let found = cached(&model, &text, CacheSettings { window: 20, theta: 0.5, lambda: 0.0 });
    assert_eq!((found.nats_per_token, found.tokens), (wanted.nats_per_token, wanted.tokens));
    assert_eq!((found.protocol.as_str(), wanted.protocol.as_str()), ("cache", "stream"));
}

#[test]
fn a_cache_of_equal_weights_counts_words() {
    // a a b: with θ = 0 the cache gives a the share 1, then b the share 0
    let (text, _) = tiny::encoded(Unit::Char, "aabb");
    let model = tiny::constant(&[0.5, 0.5]);
    let found = cached(&model, &text, CacheSettings { window: 9, theta: 0.0, lambda: 0.5 });
    let shares = [0.5, 0.5 * 0.5, 0.5 * 0.5 + 0.5 * 0.5]; // a without a history; b after a; b after a and b
    let wanted = shares.map(|p: f64| -p.ln()).iter().sum::<f64>() / 3.0;
    assert!((found.nats_per_token - wanted).abs() < 1e-12, "{} {wanted}", found.nats_per_token);
}

#[test]
fn a_temperature_of_1_is_none_and_any_other_divides_the_logits() {
    let (text, _) = tiny::encoded(Unit::Char, "aab");
    let model = tiny::constant(&[0.8, 0.2]);
    let none = stream(&model, &split(&text), &mut |_, _| Ok(())).unwrap();
    let one = stream_at(&model, &split(&text), 1.0, &mut |_, _| Ok(())).unwrap();
    assert_eq!((one.nats_per_token, &one.adaptation), (none.nats_per_token, &none.adaptation));
    let two = stream_at(&model, &split(&text), 2.0, &mut |_, _| Ok(())).unwrap();
    let [a, b] = [0.8f64.sqrt(), 0.2f64.sqrt()]; // (ln p) / 2
    let wanted = (2.0 * (a + b).ln() - a.ln() - b.ln()) / 2.0;
    assert!((two.nats_per_token - wanted).abs() < 1e-12, "{} {wanted}", two.nats_per_token);
    assert_eq!(two.adaptation.temperature, Some(2.0));
}

#[test]
fn numbers_that_mean_nothing_are_refused_by_the_flags_name() {
    let cache = |window, theta, lambda| Some(CacheSettings { window, theta, lambda });
    for (temperature, cache, wanted) in [
        (Some(0.0), None, "--temperature is 0"),
        (Some(f64::NAN), None, "--temperature is NaN"),
        (None, cache(0, 1.0, 0.1), "--cache is 0"),
        (None, cache(5, -1.0, 0.1), "--cache-theta is -1"),
        (None, cache(5, 1.0, 1.0), "--cache-lambda is 1,"),
        (None, cache(5, 1.0, -0.1), "--cache-lambda is -0.1"),
    ] {
        let message = Adaptation { temperature, cache }.validate().unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
}
