//! What is measured: the bounds against −ln p by quadrature, and the figures of a model that can be known.

use super::{config, drawn};
use crate::gradcheck::values;
use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::config::{CorpusConfig, Unit};
use rhn::data::items::Items;
use rhn::data::{Text, Tokenizer};
use rhn::eval::Evaluation;
use rhn::eval::latent::{LatentSettings, evaluate};
use rhn::eval::refine::{Covariance, Refinement};
use rhn::model::latent::Gaussian;
use rhn::model::{Noise, Parameters, SentenceVae};
use rhn::sample::sentences::{SentenceWriter, prior};
use serde_json::{Value, json};

const TEXT: &str = "the cat sat\na dog sat on the cat\nsat the dog\n";

fn tokenizer() -> Tokenizer {
    let text = Text::new(TEXT.into(), "text");
    Tokenizer::build(&CorpusConfig::new("text", Unit::Word), &text).unwrap()
}

fn items(tokenizer: &Tokenizer, text: &str) -> Items {
    let encoded = tokenizer.encode(&Text::new(text.into(), "text")).unwrap();
    Items::of(&encoded.tokens, tokenizer.line_end_id().unwrap(), None)
}

/// What `build` makes of a model of the text's words with a vector of `size`, whose first weights are in ± `scale`.
fn built<M>(
    tokenizer: &Tokenizer,
    size: usize,
    scale: f64,
    build: impl Fn(&ModelConfig, &Parameters) -> rhn::error::Result<M>,
) -> M {
    built_with(tokenizer, json!({"size": size, "inject": "both"}), scale, build)
}

/// The same with the latent vector that `latent` describes.
fn built_with<M>(
    tokenizer: &Tokenizer,
    latent: Value,
    scale: f64,
    build: impl Fn(&ModelConfig, &Parameters) -> rhn::error::Result<M>,
) -> M {
    let core = json!({"kind": "lstm", "layers": 1, "hidden_size": 6});
    let config = config(tokenizer.vocab_size(), core, latent);
    build(&config, &drawn(&config, scale)).unwrap()
}

fn model(tokenizer: &Tokenizer, size: usize, scale: f64) -> SentenceVae {
    built(tokenizer, size, scale, |config, parameters| {
        SentenceVae::new(config, parameters, DType::F64, &Device::Cpu)?.freeze()
    })
}

/// The model of [`model`] through which its input's gradients go.
fn with_gradients(tokenizer: &Tokenizer, size: usize, scale: f64) -> SentenceVae {
    built(tokenizer, size, scale, |config, parameters| {
        SentenceVae::with_fixed_weights(config, parameters, DType::F64, &Device::Cpu)
    })
}

fn measured(writer: &SentenceWriter<'_>, items: &Items, samples: usize) -> Evaluation {
    let settings = LatentSettings { samples, rebuilds: true, ..LatentSettings::default() };
    evaluate(writer, ["text", "all"], items, settings, &mut |_, _| Ok(())).unwrap()
}

/// −ln ∫ p(x | z) p(z) dz of each sentence, by the trapezoidal rule over 16 standard deviations.
fn exact_nats(model: &SentenceVae, items: &Items, line_end: u32) -> f64 {
    const POINTS: usize = 1601;
    let z: Vec<f64> = (0..POINTS).map(|point| 0.01 * (point as f64 - 800.0)).collect();
    let weight = |z: f64| 0.01 * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    let z_all = Tensor::from_slice(&z, (POINTS, 1), &Device::Cpu).unwrap();
    // ln p(z) by the standard Gaussian in place of a posterior, at the z that is the drawn number itself.
    let zeros = z_all.zeros_like().unwrap();
    let standard = Gaussian::diagonal(zeros.clone(), zeros);
    let ratios = values(&model.log_prior_ratio(&standard, &z_all).unwrap());
    let densities: Vec<f64> = z.iter().zip(ratios).map(|(&z, ratio)| weight(z) * ratio.exp()).collect();
    assert!((densities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let of_sentence = |index: u32| {
        let batch = items.batch(&vec![index; POINTS], line_end, &Device::Cpu).unwrap();
        let nats = model.nats(&batch.inputs, &batch.targets, &z_all, &Noise::none()).unwrap().sum(0).unwrap();
        let mass = values(&nats).into_iter().zip(&densities).map(|(nats, density)| density * (-nats).exp());
        -mass.sum::<f64>().ln()
    };
    (0..items.len() as u32).map(of_sentence).sum::<f64>() / items.len() as f64
}

#[test]
fn both_bounds_are_above_the_exact_nats_and_the_weighted_one_comes_to_them() {
    let tokenizer = tokenizer();
    let items = items(&tokenizer, TEXT);
    let model = model(&tokenizer, 1, 1.0);
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let exact = exact_nats(&model, &items, tokenizer.line_end_id().unwrap());
    let found = measured(&writer, &items, 1000).latent.unwrap();
    assert!(found.elbo_nats > exact + 0.25, "{} and {exact}", found.elbo_nats);
    let weighted = found.iw_nats.unwrap();
    assert!((weighted - exact).abs() < 0.11, "{weighted} and {exact}"); // five standard deviations
    assert!((found.reconstruction_nats + found.kl_nats - found.elbo_nats).abs() < 1e-12);
    // With a few samples the mean over many draws lies between the two.
    let few = |seed: u64| {
        let settings = LatentSettings { samples: 2, seed, ..LatentSettings::default() };
        let found = evaluate(&writer, ["text", "all"], &items, settings, &mut |_, _| Ok(())).unwrap();
        found.latent.unwrap().iw_nats.unwrap()
    };
    let mean = (0..100).map(few).sum::<f64>() / 100.0;
    assert!(exact < mean && mean < found.elbo_nats, "{exact} < {mean} < {}", found.elbo_nats);
}

/// A prior of two Gaussians at −0.8 and 0.7, of which the second is three times as likely.
fn with_two_gaussians(parameters: &Parameters) {
    let means: (&str, &[f64]) = ("latent.prior.mean", &[-0.8, 0.7]);
    let shares: [f64; 2] = [0.0, 3f64.ln()];
    set(parameters, &[means, ("latent.prior.logits", &shares), ("latent.prior.log_variance", &[-1.0, -0.5])]);
}

#[test]
fn bounds_with_a_mixture_for_a_prior_are_above_the_exact_nats_too() {
    let tokenizer = tokenizer();
    let items = items(&tokenizer, TEXT);
    let latent = json!({"size": 1, "inject": "both", "prior_components": 2});
    let model = built_with(&tokenizer, latent.clone(), 1.0, |config, parameters| {
        with_two_gaussians(parameters);
        SentenceVae::new(config, parameters, DType::F64, &Device::Cpu)?.freeze()
    });
    let free = built_with(&tokenizer, latent, 1.0, |config, parameters| {
        with_two_gaussians(parameters);
        SentenceVae::with_fixed_weights(config, parameters, DType::F64, &Device::Cpu)
    });
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let exact = exact_nats(&model, &items, tokenizer.line_end_id().unwrap());
    let refinement =
        Some(Refinement { model: &free, steps: 200, rate: 0.1, covariance: Covariance::Diagonal });
    let settings = LatentSettings { samples: 2000, refinement, ..LatentSettings::default() };
    let found = evaluate(&writer, ["text", "all"], &items, settings, &mut |_, _| Ok(())).unwrap();
    let found = found.latent.unwrap();
    let [encoder, weighted] = [found.encoder_elbo_nats.unwrap(), found.iw_nats.unwrap()];
    assert!((weighted - exact).abs() < 0.02, "{weighted} and {exact}");
    let gap = found.elbo_nats - exact;
    assert!(gap > -0.01 && gap < 0.3 * (encoder - exact), "{gap} of {}", encoder - exact);
    assert_eq!(found.prior_components, Some(2));
    // Drawn vectors have the mixture's mean and its mean square.
    let z = values(&prior(&model, 5, 20_000).unwrap());
    let mean = z.iter().sum::<f64>() / z.len() as f64;
    let square = z.iter().map(|z| z * z).sum::<f64>() / z.len() as f64;
    let wanted = 0.25 * (0.64 + (-1f64).exp()) + 0.75 * (0.49 + (-0.5f64).exp());
    assert!((mean - 0.325).abs() < 0.04 && (square - wanted).abs() < 0.05, "{mean}, {square} and {wanted}");
    assert_eq!(values(&prior(&model, 5, 3).unwrap()), z[..3]);
}

/// Sets weights of a model by their names.
fn set(parameters: &Parameters, given: &[(&str, &[f64])]) {
    for (name, values) in given {
        let (_, var) = parameters.trained().find(|(known, _)| known == name).unwrap();
        var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

fn measured_with(latent: Value, given: &[(&str, &[f64])], seed: u64) -> rhn::error::Result<Evaluation> {
    let tokenizer = tokenizer();
    let model = built_with(&tokenizer, latent, 1.0, |config, parameters| {
        set(parameters, given);
        SentenceVae::new(config, parameters, DType::F64, &Device::Cpu)?.freeze()
    });
    let settings = LatentSettings { seed, ..LatentSettings::default() };
    let items = items(&tokenizer, TEXT);
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    evaluate(&writer, ["text", "all"], &items, settings, &mut |_, _| Ok(()))
}

#[test]
fn the_kl_from_a_prior_of_one_gaussian_is_exact() {
    let latent = json!({"size": 2, "prior_components": 1});
    let far: [(&str, &[f64]); 2] =
        [("latent.prior.mean", &[3.0, -2.0]), ("latent.prior.log_variance", &[1.5, -1.0])];
    let kl = |seed| measured_with(latent.clone(), &far, seed).unwrap().latent.unwrap().kl_nats;
    assert!(kl(1) > 2.0 && (kl(1) - kl(2)).abs() < 1e-12, "{} and {}", kl(1), kl(2));
}

/// Where a posterior has a variance of e^20 the KL is 24,000 nats, and what is drawn of it misses by a hundred times that.
#[test]
fn a_kl_that_cannot_be_drawn_is_no_figure() {
    let latent = json!({"size": 1, "prior_components": 2});
    let wide: [(&str, &[f64]); 4] = [
        ("latent.log_variance.bias", &[20.0]),
        ("latent.prior.logits", &[99f64.ln(), 0.0]),
        ("latent.prior.mean", &[0.0, 0.0]),
        ("latent.prior.log_variance", &[0.0, 1e4f64.ln()]),
    ];
    let found = (1..20).map(|seed| measured_with(latent.clone(), &wide, seed));
    let (figures, errors): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
    let bounds = figures.into_iter().map(|found| found.unwrap().latent.unwrap().elbo_nats);
    assert!(bounds.into_iter().all(|bound| bound > -1.0));
    assert!(!errors.is_empty());
    for error in errors {
        let error = error.unwrap_err();
        assert!(error.to_string().contains("no text has less than 0"), "{error}");
        assert_eq!(error.exit_code(), 5);
    }
}

#[test]
fn fitted_posteriors_give_a_bound_between_the_encoders_and_the_exact_nats() {
    let tokenizer = tokenizer();
    let items = items(&tokenizer, TEXT);
    let [model, free] = [model(&tokenizer, 1, 1.0), with_gradients(&tokenizer, 1, 1.0)];
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let exact = exact_nats(&model, &items, tokenizer.line_end_id().unwrap());
    let fitted = |items: &Items, steps: usize, samples: usize| {
        let covariance = Covariance::Diagonal;
        let refinement = Some(Refinement { model: &free, steps, rate: 0.1, covariance });
        let settings = LatentSettings { samples, refinement, ..LatentSettings::default() };
        evaluate(&writer, ["text", "all"], items, settings, &mut |_, _| Ok(())).unwrap()
    };
    let found = fitted(&items, 200, 1000);
    assert_eq!(found.protocol, "elbo+refined");
    let latent = found.latent.unwrap();
    let plain = measured(&writer, &items, 1000).latent.unwrap();
    let encoder = latent.encoder_elbo_nats.unwrap();
    assert!((encoder - plain.elbo_nats).abs() < 1e-12, "{encoder} and {}", plain.elbo_nats);
    let gap = latent.elbo_nats - exact;
    assert!(gap > -0.01 && gap < 0.2 * (encoder - exact), "{gap} of {}", encoder - exact);
    // The second sentence is fitted alike, whatever the first one is: longer, or shorter and of other words.
    let kl = |text: &str, count: f64| {
        count * fitted(&self::items(&tokenizer, text), 20, 1).latent.unwrap().kl_nats
    };
    let second = |first: &str| kl(&format!("{first}the cat sat\n"), 2.0) - kl(first, 1.0);
    let [beside_longer, beside_shorter] = ["a dog sat on the cat\n", "dog\n"].map(second);
    assert!((beside_longer - beside_shorter).abs() < 1e-12, "{beside_longer} and {beside_shorter}");
}

/// There are three numbers, which no line of points covers: −ln p is what many weighted samples come to.
#[test]
fn full_covariances_give_a_bound_below_that_of_variances_alone_and_above_the_exact_nats() {
    let tokenizer = tokenizer();
    let items = items(&tokenizer, TEXT);
    let [model, free] = [model(&tokenizer, 3, 1.6), with_gradients(&tokenizer, 3, 1.6)];
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let fitted = |covariance: Covariance| {
        let refinement = Some(Refinement { model: &free, steps: 600, rate: 0.05, covariance });
        let settings = LatentSettings { samples: 2000, refinement, ..LatentSettings::default() };
        evaluate(&writer, ["text", "all"], &items, settings, &mut |_, _| Ok(())).unwrap()
    };
    let [diagonal, full] = [Covariance::Diagonal, Covariance::Full].map(fitted);
    assert_eq!([&*diagonal.protocol, &*full.protocol], ["elbo+refined", "elbo+refined-full"]);
    let [diagonal, full] = [diagonal, full].map(|found| found.latent.unwrap());
    let exact = full.iw_nats.unwrap();
    let gaps = [&diagonal, &full].map(|found| found.elbo_nats - exact);
    assert!(gaps[1] > 0.0 && gaps[1] < 0.93 * gaps[0], "{gaps:?} over {exact}");
    assert!((diagonal.iw_nats.unwrap() - exact).abs() < 0.02, "{:?} and {exact}", diagonal.iw_nats);
}

#[test]
fn perplexities_are_over_the_words_with_their_ends_and_without() {
    let tokenizer = tokenizer();
    let items = items(&tokenizer, TEXT);
    let model = model(&tokenizer, 2, 0.5);
    let found = measured(&SentenceWriter::new(&model, &tokenizer).unwrap(), &items, 1);
    let latent = found.latent.clone().unwrap();
    assert_eq!((found.tokens, found.words, latent.sentence_count), (15, 12, 3));
    let all = 3.0 * latent.elbo_nats;
    assert!((found.perplexity.unwrap() - (all / 15.0).exp()).abs() < 1e-9);
    assert!((latent.perplexity_no_eos - (all / 12.0).exp()).abs() < 1e-9);
    assert!(latent.iw_nats.is_none());
}

#[test]
fn a_sentence_is_measured_the_same_whatever_stands_beside_it() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer, 2, 0.8);
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let alone = measured(&writer, &items(&tokenizer, "the cat sat\n"), 3).latent.unwrap();
    let first = measured(&writer, &items(&tokenizer, "the cat sat\nthe cat sat\n"), 3).latent.unwrap();
    assert!((alone.kl_nats - first.kl_nats).abs() < 1e-12);
    // Their KLs sum up, though the shorter one is padded beside the longer.
    let longer = items(&tokenizer, "the cat sat\na dog sat on the cat\n");
    let both = measured(&writer, &longer, 3).latent.unwrap();
    let moved = items(&tokenizer, "a dog sat on the cat\n");
    let second = measured(&writer, &moved, 3).latent.unwrap();
    assert!((2.0 * both.kl_nats - alone.kl_nats - second.kl_nats).abs() < 1e-12);
}

#[test]
fn a_beam_of_one_is_greedy_and_a_wider_one_finds_no_less_likely_sentence() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer, 2, 1.2);
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap();
    let z = prior(&model, 5, 8).unwrap();
    let greedy = writer.greedy(&z, 12).unwrap();
    for (row, greedy) in greedy.iter().enumerate() {
        let z = z.narrow(0, row, 1).unwrap();
        let one = writer.beam(&z, 1, 12).unwrap();
        assert_eq!(&one.ids, greedy);
        let wide = writer.beam(&z, 40, 12).unwrap();
        assert!(wide.nats <= one.nats + 1e-12, "{} and {}", wide.nats, one.nats);
        assert!((wide.nats - sentence_nats(&model, &wide.ids, &z)).abs() < 1e-9);
    }
}

/// −ln p of a sentence and its end given z.
fn sentence_nats(model: &SentenceVae, ids: &[u32], z: &Tensor) -> f64 {
    let line_end = tokenizer().line_end_id().unwrap();
    let inputs = [&[line_end], ids].concat();
    let targets = [ids, &[line_end]].concat();
    let column = |ids: Vec<u32>| Tensor::from_vec(ids.clone(), (ids.len(), 1), &Device::Cpu).unwrap();
    let nats = model.nats(&column(inputs), &column(targets), z, &Noise::none()).unwrap();
    values(&nats).iter().sum()
}

#[test]
fn gaps_are_filled_by_the_likeliest_words_and_the_others_stay() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer, 2, 1.2);
    let unknown = tokenizer.unknown_id();
    let writer = SentenceWriter::new(&model, &tokenizer).unwrap().without(unknown);
    let (ids, _) = writer.words("the cat sat").unwrap();
    let places = [Some(ids[0]), None, Some(ids[2])];
    let filled = writer.fill(&places, tokenizer.vocab_size()).unwrap();
    assert_eq!((filled.ids.len(), filled.ids[0], filled.ids[2]), (3, ids[0], ids[2]));
    // The sentence came to rest: given the vector of what was found, no other word is likelier.
    let z = writer.posterior(&filled.ids).unwrap().mean;
    let allowed = (0..tokenizer.vocab_size() as u32)
        .filter(|&id| Some(id) != unknown && Some(id) != tokenizer.line_end_id());
    let likeliest = allowed.map(|id| sentence_nats(&model, &[ids[0], id, ids[2]], &z));
    assert!((filled.nats - likeliest.fold(f64::INFINITY, f64::min)).abs() < 1e-9);
}
