//! Floating-point operations of a model's products, counted from its sizes; a multiplication and an addition are two.
//!
//! Products are all but a few per cent of the work, and what a machine's peak is measured by.

use crate::config::ModelConfig;
use crate::config::train::LossConfig;
use crate::error::Result;
use crate::model;
use crate::model::output::OutputKind;

/// The operations of a training step on so many tokens, of which so many are distinct: each product has two in the
/// backward pass, one for either factor's gradient. `None` where they do not follow from the model's sizes: of sampled words, of
/// teachers, which are other models, and of an output that computes its words. Fails if there is no such model.
pub(crate) fn of_step(
    config: &ModelConfig,
    loss: &LossConfig,
    tokens: f64,
    distinct: f64,
) -> Result<Option<f64>> {
    if loss.is_sampled() || loss.distill().is_some() || config.spec.output.kind == OutputKind::CharCnn {
        return Ok(None);
    }
    let cost = model::cost(config)?;
    let per_token = (2 * cost.per_token) as f64;
    let per_distinct = (2 * cost.per_distinct) as f64;
    Ok(Some(3.0 * (per_token * tokens + per_distinct * distinct)))
}

#[cfg(test)]
mod tests {
    use super::of_step;
    use crate::config::train::LossConfig;
    use crate::config::{ModelConfig, Resolved};
    use crate::model::cost;
    use crate::model::spelling::SpellingSize;

    fn model(recipe: &str, vocab_size: usize) -> ModelConfig {
        ModelConfig::new(Resolved::new(recipe, &[]).unwrap().recipe.model, vocab_size)
    }

    #[test]
    fn a_tied_rhn_has_its_input_its_sublayers_and_its_output() {
        let model = model("ptb-rhn", 10_000);
        let cost = cost(&model).unwrap();
        // input 830 × 1660 = 1,377,800; ten sublayers of the same; output 830 × 10,000
        assert_eq!((cost.per_token, cost.per_distinct), (11 * 1_377_800 + 8_300_000, 0));
        let exact = LossConfig::default();
        assert_eq!(of_step(&model, &exact, 700.0, 360.0).unwrap(), Some(3.0 * 700.0 * 46_911_600.0));
        let sampled = LossConfig::Sampled { samples: 64 };
        assert_eq!(of_step(&model, &sampled, 700.0, 360.0).unwrap(), None);
    }

    #[test]
    fn an_untied_rhn_has_an_input_of_the_vocabularys_size_where_that_is_smaller() {
        let cost = cost(&model("enwik8-rhn", 205)).unwrap();
        // input 205 × 3000, ten sublayers of 1500 × 3000, output 1500 × 205
        assert_eq!(cost.per_token, 615_000 + 45_000_000 + 307_500);
    }

    #[test]
    fn a_char_cnn_is_counted_by_different_words() {
        let mut model = model("ptb-char-cnn-small", 10_000);
        model.set_spelling(SpellingSize { alphabet_size: 51, word_length: 21 });
        // filters of width w at 22 − w positions: 15 Σ w (22 − w) 25 w for w = 1 ..= 6
        let convolutions: u64 = (1..=6).map(|w| 15 * w * (22 - w) * 25 * w).sum();
        assert_eq!(convolutions, 15 * 25 * (21 + 80 + 171 + 288 + 425 + 576));
        let cost = cost(&model).unwrap();
        assert_eq!(cost.per_distinct, convolutions + 525 * 1050);
        // LSTM layers with inputs of 525 and 300, output 300 × 10,000
        assert_eq!(cost.per_token, (525 + 300) * 1200 + (300 + 300) * 1200 + 3_000_000);
        let step = of_step(&model, &LossConfig::default(), 700.0, 360.0).unwrap();
        assert_eq!(step, Some(3.0 * (700.0 * 9_420_000.0 + 360.0 * 2_273_250.0)));
    }
}
