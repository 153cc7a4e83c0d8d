//! The loss of a step: its gradient by differences, and what is random in it.

use super::{config, drawn, objective};
use crate::gradcheck::{check_by_differences, values};
use candle_core::{DType, Device, Tensor};
use rhn::config::LatentTraining;
use rhn::data::items::{Items, SentenceBatch};
use rhn::model::{EncoderNoise, Noise, State};
use rhn::parallel::rows::Rows;
use rhn::task::vae::Elbo;
use rhn::train::objective::Objective;
use serde_json::{Value, json};

/// Three sentences of different lengths; 0 ends them, and 1 is `<unk>`.
fn batch() -> SentenceBatch {
    let items = Items::from_sentences([&[2, 3, 4, 2][..], &[5, 5], &[4]]);
    items.batch(&[0, 1, 2], 0, &Device::Cpu).unwrap()
}

fn training(value: Value) -> LatentTraining {
    serde_json::from_value(value).unwrap()
}

fn check_gradient(core: Value, latent: Value, dropout: Value, training: LatentTraining) {
    let config = config(6, core, latent);
    let parameters = drawn(&config, 0.6);
    let elbo = objective(&config, &parameters, dropout, training, DType::F64);
    let batch = batch();
    let noise = elbo.noise(&batch, 4).unwrap();
    let loss = || elbo.loss(&batch, &State(Vec::new()), &noise).unwrap().objective;
    let gradients = parameters.gradients(&loss()).unwrap();
    for ((name, var), gradient) in parameters.trained().zip(&gradients) {
        let gradient = values(gradient);
        assert!(gradient.iter().any(|&value| value != 0.0), "{name} has no part in the loss");
        check_by_differences(name, var, &gradient, || values(&loss())[0]);
    }
}

#[test]
fn the_loss_has_the_gradient_of_central_differences() {
    let kept = json!({"schedule": {"kind": "linear-epochs", "from": 0.2, "epochs": 1}, "word_keep": 0.7});
    let lstm = json!({"kind": "lstm", "layers": 1, "hidden_size": 2});
    let masks = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3});
    check_gradient(lstm, json!({"size": 1, "inject": "both"}), masks, training(kept));
    let rhn =
        json!({"kind": "rhn", "hidden_size": 2, "recurrence_depth": 2, "layers": 1, "transform_bias": -0.5});
    let free = json!({"schedule": {"kind": "constant", "weight": 0.4}, "free_bits": 0.05});
    check_gradient(rhn, json!({"size": 1, "highway_layers": 1, "inject": "init"}), json!({}), training(free));
    let gru = json!({"kind": "gru", "layers": 1, "hidden_size": 2});
    let latent = json!({"size": 1, "highway_layers": 1, "inject": "input", "bidirectional": true});
    let per_step = json!({"kind": "per-step", "input": 0.3, "output": 0.3});
    check_gradient(gru.clone(), latent.clone(), per_step, LatentTraining::default());
    let dropped = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3, "recurrent_weights": 0.3});
    check_gradient(gru, latent, json!({}), training(json!({"encoder_dropout": dropped})));
}

#[test]
fn after_its_epochs_no_bits_are_free() {
    let core = json!({"kind": "gru", "layers": 1, "hidden_size": 4});
    let config = config(6, core, json!({"size": 3}));
    let parameters = drawn(&config, 0.1);
    let loss = |latent: Value, step: u64| {
        let elbo = objective(&config, &parameters, json!({}), training(latent), DType::F64);
        let noise = elbo.noise(&batch(), step).unwrap();
        values(&elbo.loss(&batch(), &State(Vec::new()), &noise).unwrap().objective)[0]
    };
    // The KL of each number is far below 2 at first, so that with 2 free nats for each of three numbers it is 6 a sentence.
    let free =
        json!({"schedule": {"kind": "constant", "weight": 1.0}, "free_bits": 2.0, "free_bits_epochs": 2});
    let bound = json!({"schedule": {"kind": "constant", "weight": 1.0}});
    assert!(loss(free.clone(), 19) > loss(bound.clone(), 19) + 5.0); // an epoch has ten steps
    assert_eq!(loss(free, 20), loss(bound, 20));
}

#[test]
fn the_encoder_drops_by_its_own_rates_in_training_alone() {
    let core = json!({"kind": "gru", "layers": 1, "hidden_size": 8});
    let config = config(6, core, json!({"size": 4, "bidirectional": true}));
    let parameters = drawn(&config, 0.5);
    let rates = json!({"word": 0.5, "input": 0.5, "hidden": 0.5, "output": 0.5});
    let of = |decoder: &Value, encoder: &Value| {
        let latent = training(json!({"encoder_dropout": encoder}));
        objective(&config, &parameters, decoder.clone(), latent, DType::F64)
    };
    let batch = batch();
    let words = batch.words().unwrap();
    let mean = |elbo: &Elbo, step: u64| {
        let noise = elbo.noise(&batch, step).unwrap().encoder_masks;
        values(&elbo.model.posterior(&words, &batch.lengths, &noise).unwrap().mean)
    };
    let none = json!({});
    let undropped = of(&rates, &none);
    let plain =
        values(&undropped.model.posterior(&words, &batch.lengths, &EncoderNoise::default()).unwrap().mean);
    assert_eq!(mean(&undropped, 1), plain, "the decoder's rates are not the encoder's");
    let dropped = of(&none, &rates);
    assert_ne!(mean(&dropped, 1), plain);
    assert_ne!(mean(&dropped, 1), mean(&dropped, 2));
    assert_eq!(mean(&dropped, 1), mean(&dropped, 1));
    for rate in ["word", "input", "hidden", "output"] {
        assert_ne!(mean(&of(&none, &json!({rate: 0.5})), 1), plain, "{rate}");
    }
    // Each core has masks of its own: the decoder's, the encoder's two.
    let noise = of(&rates, &rates).noise(&batch, 1).unwrap();
    let input = |noise: &Noise| values(noise.input[0].as_ref().unwrap());
    let [forward, backward] = &noise.encoder_masks.each;
    assert!(input(&noise.masks) != input(forward) && input(forward) != input(backward));
    assert!(
        backward.word.is_none() && of(&rates, &none).noise(&batch, 1).unwrap().encoder_masks.pooled.is_none()
    );
    // A rank has the masks of its rows.
    let rows = Rows { first: 1, count: 2, of: 3 };
    let whole = input(forward);
    let (_, own) = of(&rates, &rates).rows(&batch, noise, rows).unwrap();
    assert_eq!(input(&own.encoder_masks.each[0]), whole[whole.len() / 3..]);
    assert_eq!(own.encoder_masks.pooled.unwrap().dims(), [2, 16]);
}

#[test]
fn each_step_hides_other_words_from_the_decoder_and_never_the_first_line_end() {
    let core = json!({"kind": "gru", "layers": 1, "hidden_size": 3});
    let config = config(6, core, json!({"size": 2}));
    let parameters = drawn(&config, 0.5);
    let of = |keep: f64| {
        objective(&config, &parameters, json!({}), training(json!({"word_keep": keep})), DType::F64)
    };
    let long: Vec<u32> = (0..200).map(|word| 2 + word % 4).collect();
    let batch = Items::from_sentences([long.as_slice()]).batch(&[0], 0, &Device::Cpu).unwrap();
    let column = |inputs: &Tensor| inputs.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let read = |keep: f64, step: u64| column(&of(keep).noise(&batch, step).unwrap().inputs);
    let whole = column(&batch.inputs);
    assert_eq!(read(1.0, 3), whole);
    let first = read(0.7, 3);
    let kept = first.iter().zip(&whole).filter(|(read, given)| read == given).count();
    assert!(first.iter().zip(&whole).all(|(read, given)| read == given || *read == 1));
    assert_eq!(first[0], 0);
    assert!((108..=172).contains(&(kept - 1)), "{kept} of 200 words are read"); // 140, five standard deviations
    assert_eq!(first, read(0.7, 3));
    assert_ne!(first, read(0.7, 4));
    let none = read(0.0, 3);
    assert!(none[0] == 0 && none[1..].iter().all(|&word| word == 1));
}

#[test]
fn the_noise_of_a_step_is_normal_and_its_own() {
    let core = json!({"kind": "gru", "layers": 1, "hidden_size": 3});
    let config = config(6, core, json!({"size": 500}));
    let parameters = drawn(&config, 0.5);
    let elbo = objective(&config, &parameters, json!({}), LatentTraining::default(), DType::F64);
    let epsilon = |step: u64| values(&elbo.noise(&batch(), step).unwrap().epsilon);
    let first = epsilon(1);
    assert_eq!(first.len(), 3 * 500);
    let variance = first.iter().map(|value| value * value).sum::<f64>() / 1500.0;
    assert!((variance - 1.0).abs() < 0.19, "{variance}"); // five standard deviations
    assert_eq!(first, epsilon(1));
    assert_ne!(first, epsilon(2));
}

#[test]
fn the_variance_is_near_one_at_the_first_step() {
    let core = json!({"kind": "lstm", "layers": 1, "hidden_size": 8});
    let config = config(6, core, json!({"size": 4}));
    let elbo = objective(&config, &drawn(&config, 0.1), json!({}), LatentTraining::default(), DType::F64);
    let batch = batch();
    let none = EncoderNoise::default();
    let posterior = elbo.model.posterior(&batch.words().unwrap(), &batch.lengths, &none).unwrap();
    assert!(values(&posterior.log_variance).iter().all(|value| value.abs() < 0.01));
    assert!(values(&elbo.model.divergence(&posterior).unwrap()).iter().sum::<f64>() < 0.3);
}
