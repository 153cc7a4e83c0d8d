//! The draws of one sample: from logits to a token, time after time.

use super::distribution::{self, Candidate};
use super::{Drawn, SampleSettings};
use crate::error::{Error, Result};
use rhn_kernels::rng::Rng;
use std::collections::VecDeque;

/// Draws tokens, and remembers the latest for the repetition penalty.
pub(crate) struct Draws {
    settings: SampleSettings,
    candidates: Vec<Candidate>,
    recent: VecDeque<u32>,
    /// Tokens still to come that are no part of the text.
    unwritten: usize,
    rng: Rng,
}

impl Draws {
    /// Those of sample number `index`.
    pub(crate) fn new(settings: SampleSettings, index: u64) -> Self {
        let rng = Rng::keyed(settings.seed, "sample", index);
        let unwritten = settings.unwritten;
        Self { settings, candidates: Vec::new(), recent: VecDeque::new(), unwritten, rng }
    }

    /// Those of sample number `index`, which begins with the same text.
    pub(crate) fn fork(&self, index: u64) -> Self {
        let begun = Self::new(self.settings.clone(), index);
        Self { recent: self.recent.clone(), unwritten: self.unwritten, ..begun }
    }

    /// The text goes on with `token`.
    pub(crate) fn remember(&mut self, token: u32) {
        if self.unwritten > 0 {
            self.unwritten -= 1;
            return;
        }
        if self.recent.len() >= self.settings.repetition_window {
            self.recent.pop_front();
        }
        if self.settings.repetition_window > 0 {
            self.recent.push_back(token);
        }
    }

    /// A token from the distribution that `logits`, `(vocabulary)`, become by the filters. It is not remembered yet.
    pub(crate) fn draw(&mut self, logits: &[f64]) -> Drawn {
        let recent = self.recent.iter().copied();
        self.settings.filters.apply(logits, recent, self.settings.forbidden, &mut self.candidates);
        let id = distribution::draw(&self.candidates, self.rng.uniform());
        Drawn { id, nats: distribution::nats(logits, id) }
    }

    /// Fails if a logit is not finite.
    pub(crate) fn check(&self, logits: &[f64]) -> Result<()> {
        match logits.iter().find(|logit| !logit.is_finite()) {
            None => Ok(()),
            Some(logit) => Err(Error::NotFinite {
                step: self.recent.len() as u64,
                what: format!("the model gives a logit of {logit} while sampling; its weights are unusable"),
            }),
        }
    }
}
