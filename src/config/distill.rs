//! `[train.loss] kind = "distill"` of a recipe: a student learns from the distributions of trained models.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Up to so many words a teacher's whole distribution is learned from, unless `top_k` says otherwise.
const WHOLE: usize = 20_000;

/// Of a larger vocabulary: the most probable words, and the others as one class.
const MOST_PROBABLE: usize = 128;

/// What a student learns from beside the text (Hinton et al., 2015; Kim and Rush, 2016, at each word).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// The teacher's checkpoint, a directory or `hf://owner/name[@revision]`, or a list of several; that of `--init-from`
    /// unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherNames>,
    /// What each of several teachers' probabilities count in their mean, whatever they sum to; all the same unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// The share of the teacher in the loss, 0 to 1; the rest is the text's.
    #[serde(default = "four_fifths")]
    pub alpha: f64,
    /// What the logits of teacher and student are divided by in the teacher's part of the loss.
    #[serde(default = "one")]
    pub temperature: f64,
    /// How many of the teacher's most probable words are told apart, all others being one class; 0 is all words. Unless
    /// given, all words of a vocabulary of up to 20,000, else 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Passes of a teacher with its own dropout, whose probabilities are averaged; 0 is one pass without dropout.
    #[serde(default)]
    pub teacher_mc: usize,
}

/// One checkpoint, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "wanted a checkpoint's name, or a list of names")]
pub enum TeacherNames {
    /// One.
    One(String),
    /// Several, whose probabilities are averaged.
    Several(Vec<String>),
}

defaults! {
    four_fifths: f64 = 0.8;
    one: f64 = 1.0;
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            teacher: None,
            weights: Vec::new(),
            alpha: four_fifths(),
            temperature: one(),
            top_k: None,
            teacher_mc: 0,
        }
    }
}

/// The highest temperature: logits of single precision divided by more are all alike.
const HOTTEST: f64 = 1000.0;

impl DistillConfig {
    /// The checkpoints, as the recipe names them; none if it leaves that to `--init-from`.
    pub fn teachers(&self) -> &[String] {
        match &self.teacher {
            None => &[],
            Some(TeacherNames::One(name)) => std::slice::from_ref(name),
            Some(TeacherNames::Several(names)) => names,
        }
    }

    /// How many words of a vocabulary are told apart; `None` for all of them.
    pub fn told_apart(&self, vocabulary: usize) -> Option<usize> {
        let usual = if vocabulary <= WHOLE { 0 } else { MOST_PROBABLE };
        Some(self.top_k.unwrap_or(usual)).filter(|&count| count > 0 && count < vocabulary)
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { weights, alpha, temperature, .. } = self;
        let count = self.teachers().len();
        let is_positive = |value: &f64| *value > 0.0 && value.is_finite();
        let what = if self.teacher.is_some() && count == 0 {
            "train.loss.teacher is an empty list, wanted at least one checkpoint".into()
        } else if !(0.0..=1.0).contains(alpha) {
            format!("train.loss.alpha is {alpha}, wanted a share of 0 to 1")
        } else if !(is_positive(temperature) && *temperature <= HOTTEST) {
            format!("train.loss.temperature is {temperature}, wanted a number above 0, at most {HOTTEST}")
        } else if !weights.is_empty() && weights.len() != count.max(1) {
            format!("train.loss.weights has {} numbers for {} teachers", weights.len(), count.max(1))
        } else if let Some(weight) = weights.iter().find(|weight| !is_positive(weight)) {
            format!("train.loss.weights has {weight}, wanted numbers above 0")
        } else if !weights.iter().sum::<f64>().is_finite() {
            format!("train.loss.weights {weights:?} have no finite sum")
        } else {
            return Ok(());
        };
        Err(Error::config(what))
    }
}

#[cfg(test)]
mod tests {
    use super::DistillConfig;

    #[test]
    fn a_large_vocabulary_is_told_apart_in_part_unless_the_recipe_says_otherwise() {
        let of = |top_k| DistillConfig { top_k, ..DistillConfig::default() };
        assert_eq!([10_000, 20_000, 20_001].map(|size| of(None).told_apart(size)), [None, None, Some(128)]);
        assert_eq!(of(Some(0)).told_apart(800_000), None);
        assert_eq!([4, 5, 6].map(|size| of(Some(5)).told_apart(size)), [None, None, Some(5)]);
    }
}
