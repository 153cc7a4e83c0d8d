//! The adaptations on the tiny model: what must not change anything changes no bit.

use super::*;
use crate::config::Unit;
use crate::data::Encoded;
use crate::eval::monte_carlo::{MonteCarloSettings, monte_carlo};
use crate::eval::perplexity::{stream, stream_at};
use crate::model::dropout::DropoutConfig;
use crate::model::{FrozenModel, LanguageModel, Noise};
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
    let cases = [
        (Some(0.0), None, "--temperature is 0"),
        (Some(f64::NAN), None, "--temperature is NaN"),
        (None, cache(0, 1.0, 0.1), "--cache is 0"),
        (None, cache(5, -1.0, 0.1), "--cache-theta is -1"),
        (None, cache(5, 1.0, 1.0), "--cache-lambda is 1,"),
        (None, cache(5, 1.0, -0.1), "--cache-lambda is -0.1"),
    ];
    for (temperature, cache, wanted) in cases {
        let adaptation = Adaptation { temperature, cache, ..Adaptation::default() };
        let message = adaptation.validate().unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    let usual = DynamicSettings::default();
    for (dynamic, wanted) in [
        (DynamicSettings { rate: -1.0, ..usual }, "--dynamic-rate is -1"),
        (DynamicSettings { decay: f64::INFINITY, ..usual }, "--dynamic-decay is inf"),
        (DynamicSettings { epsilon: 0.0, ..usual }, "--dynamic-epsilon is 0"),
        (DynamicSettings { segment: 0, ..usual }, "--segment is 0"),
    ] {
        let adaptation = Adaptation { dynamic: Some(dynamic), ..Adaptation::default() };
        let message = adaptation.validate().unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
}

/// The tiny model on weights that learn, with m = 0.1 everywhere.
fn learning(vocab_size: usize, settings: DynamicSettings) -> DynamicModel {
    let (config, parameters) = tiny::parameters(vocab_size, 1.0);
    let rms = |(name, tensor): (&str, &candle_core::Var)| {
        (name.to_string(), (tensor.zeros_like().unwrap() + 0.1).unwrap())
    };
    let statistics = parameters.trained().map(rms).collect();
    DynamicModel::new(&config, parameters, &statistics, settings, DType::F64.into(), &Device::Cpu).unwrap()
}

fn adapt(predictor: &mut dyn Predictor, text: &Encoded, adaptation: &Adaptation) -> Evaluation {
    adapted(predictor, &split(text), adaptation, &mut |_, _| Ok(())).unwrap()
}

#[test]
fn weights_that_do_not_move_are_the_stream_in_segments() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(83));
    let settings = DynamicSettings { rate: 0.0, decay: 0.0, segment: 7, ..DynamicSettings::default() };
    let dynamic = Some(settings);
    let found =
        adapt(&mut learning(vocab_size, settings), &text, &Adaptation { dynamic, ..Adaptation::default() });
    let mut reader = WindowReader::new(&tiny::drawn(vocab_size, 1.0), 1).unwrap();
    let batches = split(&text).stream(7).unwrap();
    let wanted =
        evaluate(&mut reader, &split(&text), "stream", &batches, &Device::Cpu, &mut |_, _| Ok(())).unwrap();
    // Weights that are trained sum up a softmax in another order than those that are laid out for evaluation.
    assert!((found.nats_per_token - wanted.nats_per_token).abs() < 1e-14);
    assert_eq!(found.protocol, "dynamic");
}

#[test]
fn the_loss_of_a_segment_is_counted_before_it_is_learned_from_and_texts_begin_anew() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &"abc".repeat(30));
    let model = tiny::drawn(vocab_size, 1.0);
    let stream = stream(&model, &split(&text), &mut |_, _| Ok(())).unwrap().nats_per_token;
    let run = |segment| {
        let settings = DynamicSettings { rate: 0.01, segment, ..DynamicSettings::default() };
        let adaptation = Adaptation { dynamic: Some(settings), ..Adaptation::default() };
        let mut dynamic = learning(vocab_size, settings);
        let found = [0; 2].map(|_| adapt(&mut dynamic, &text, &adaptation).nats_per_token);
        assert_eq!(found[0], found[1], "the weights of the first text are gone");
        found[0]
    };
    let one_segment = run(89); // the only update comes after the last token
    assert!((one_segment - stream).abs() < 1e-12);
    assert!(run(5) < stream - 0.2, "{} is no better than {stream}", run(5)); // a text that repeats is learned
}

#[test]
fn passes_without_dropout_read_with_the_weights_that_learn() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(40));
    let settings = DynamicSettings { rate: 0.05, segment: 5, ..DynamicSettings::default() };
    let cache = CacheSettings { window: 10, theta: 0.5, lambda: 0.2 };
    for cache in [None, Some(cache)] {
        let adaptation = Adaptation { dynamic: Some(settings), cache, ..Adaptation::default() };
        let mut model = learning(vocab_size, settings);
        let wanted = adapt(&mut model, &text, &adaptation);
        let frozen = tiny::drawn(vocab_size, 1.0);
        let passes = MonteCarloSettings { passes: 20, seed: 1 };
        let averaged = |dropout: &DropoutConfig, model: &mut DynamicModel| {
            let progress = &mut |_, _| Ok(());
            let found =
                monte_carlo(&frozen, model, &split(&text), dropout, passes, &adaptation, progress).unwrap();
            found.evaluation
        };
        let found = averaged(&DropoutConfig::default(), &mut model);
        assert!((found.nats_per_token - wanted.nats_per_token).abs() < 1e-10);
        let masked = averaged(&DropoutConfig { output: 0.5, ..DropoutConfig::default() }, &mut model);
        assert_ne!(masked.nats_per_token, found.nats_per_token);
        let protocol = if cache.is_some() { "mc+dynamic+cache" } else { "mc+dynamic" };
        assert_eq!(masked.protocol, protocol);
    }
}

#[test]
fn a_group_that_learns_alone_leaves_every_other_number() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &"aab".repeat(30));
    let gates = |name: &str, column: usize| name.starts_with("core.") && column >= 6; // of H, then of T
    let learns = |update, name: &str, column| match update {
        UpdateGroup::All => true,
        UpdateGroup::Gates => gates(name, column),
        UpdateGroup::GateBiases => name == "core.0.bias" && gates(name, column),
        UpdateGroup::OutputBias => name == "output.bias",
    };
    for update in [UpdateGroup::All, UpdateGroup::Gates, UpdateGroup::GateBiases, UpdateGroup::OutputBias] {
        let settings = DynamicSettings { rate: 0.01, update, ..DynamicSettings::default() };
        let adaptation = Adaptation { dynamic: Some(settings), ..Adaptation::default() };
        let mut dynamic = learning(vocab_size, settings);
        let before = dynamic.weights().unwrap();
        adapt(&mut dynamic, &text, &adaptation);
        let mut moved = 0;
        for (name, after) in dynamic.weights().unwrap() {
            let width = after.dims().last().copied().unwrap();
            let values =
                |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let pairs = values(&before[&name]).into_iter().zip(values(&after)).enumerate();
            for (at, _) in pairs.filter(|(_, (before, after))| before != after) {
                assert!(learns(update, &name, at % width), "{update:?}: {name} at {at}");
                moved += 1;
            }
        }
        assert!(moved > 0, "{update:?}");
    }
}

#[test]
fn statistics_are_the_root_mean_square_of_the_segments_gradients() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(11)); // one row, two segments of five
    let (config, parameters) = tiny::parameters(vocab_size, 1.0);
    let found = statistics::gather(
        &config,
        &parameters,
        ("tiny", &text.tokens),
        DType::F64.into(),
        &Device::Cpu,
        &mut |_, _| Ok(()),
    );
    let found = found.unwrap();
    let model = LanguageModel::new(&config, &parameters, DType::F64, &Device::Cpu).unwrap();
    let batches = crate::data::batch::Batches::batched("tiny", 11, 1, 5).unwrap();
    let mut state = model.zero_state(1).unwrap();
    let mut gradients = Vec::new();
    for window in 0..2 {
        let (inputs, targets) = batches.window(&text.tokens, window, &Device::Cpu).unwrap();
        let (nats, after) = model.nats(&inputs, &targets, &state, &Noise::none()).unwrap();
        gradients.push(parameters.gradients(&(nats.sum_all().unwrap() / 5.0).unwrap()).unwrap());
        state = after.detach();
    }
    for (index, (name, _)) in parameters.trained().enumerate() {
        let squares = (gradients[0][index].sqr().unwrap() + gradients[1][index].sqr().unwrap()).unwrap();
        let wanted = (squares / 2.0).unwrap().sqrt().unwrap();
        let far = (&found[name] - wanted).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(far.to_scalar::<f64>().unwrap() < 1e-15, "{name}");
    }
}

/// The tiny model on weights that learn searches everything that is free; the trials and the best of them.
fn search(asked: &Adaptation, free: Free) -> (Vec<Trial>, Adaptation) {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(120));
    let mut predictor: Box<dyn Predictor> = match asked.dynamic {
        Some(settings) => Box::new(learning(vocab_size, settings)),
        None => Box::new(WindowReader::new(&tiny::drawn(vocab_size, 1.0), 1).unwrap()),
    };
    let mut trials = Vec::new();
    let mut report = |trial: &Trial| trials.push(trial.clone());
    let search = SearchText { name: "tiny", tokens: &text.tokens, most: 90 };
    let best = tune(&mut *predictor, search, asked, free, &mut report, &mut |_, _| Ok(())).unwrap();
    (trials, best)
}

#[test]
fn every_trial_of_a_search_is_what_an_evaluation_with_its_settings_gives() {
    let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(120));
    let mut head = text.clone();
    head.tokens.truncate(91);
    head.extents = {
        let tokenizer = tiny::tokenizer(Unit::Char, &tiny::characters(120));
        let characters: String = tiny::characters(120).chars().take(91).collect();
        tokenizer.encode_measured(&crate::data::Text::from(characters.as_str())).unwrap().extents
    };
    let settings = DynamicSettings { segment: 10, ..DynamicSettings::default() };
    let asked =
        Adaptation { dynamic: Some(settings), cache: Some(CacheSettings::new(30)), ..Adaptation::default() };
    let all = Free { temperature: true, rate: true, decay: true, theta: true, lambda: true };
    let (trials, best) = search(&asked, all);
    assert_eq!(trials.len(), 6 + 3 + 14 + 60);
    let mut dynamic = learning(vocab_size, settings);
    for trial in trials.iter().step_by(7).chain(&trials[..9]) {
        let found = adapt(&mut dynamic, &head, &trial.adaptation).nats_per_token;
        assert!((found - trial.nats_per_token).abs() < 1e-12, "{trial:?}: {found}");
    }
    let least = trials[23..].iter().map(|trial| trial.nats_per_token).fold(f64::INFINITY, f64::min);
    let found = adapt(&mut dynamic, &head, &best).nats_per_token;
    assert!((found - least).abs() < 1e-12, "{best:?}: {found} is not {least}");
    assert_eq!((best.tuned_tokens, best.dynamic.unwrap().segment), (Some(90), 10));
}

#[test]
fn what_is_given_is_not_searched() {
    let none = Free { temperature: false, rate: false, decay: false, theta: false, lambda: false };
    let settings = DynamicSettings { rate: 1e-3, decay: 0.1, ..DynamicSettings::default() };
    let cache = Some(CacheSettings { window: 9, theta: 0.3, lambda: 0.4 });
    let asked = Adaptation { dynamic: Some(settings), cache, ..Adaptation::default() };
    let (trials, best) = search(&asked, Free { decay: true, ..none });
    let rates = trials.iter().map(|trial| trial.adaptation.dynamic.unwrap().rate);
    assert!(rates.eq([1e-3; 4]) && best.cache == cache, "{best:?}");
    let (trials, best) = search(&asked, Free { lambda: true, ..none });
    assert_eq!((trials.len(), best.dynamic, best.cache.unwrap().theta), (7, Some(settings), 0.3));
    let asked = Adaptation { cache, ..Adaptation::default() };
    let (trials, best) = search(&asked, Free { temperature: true, ..none });
    assert_eq!((trials.len(), best.cache), (15, cache));
}
