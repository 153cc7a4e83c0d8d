//! What a run tells: its events in `metrics.jsonl`, a row and a sample an epoch, and at its end `result.json`.

use super::Trainer;
use crate::checkpoint::Checkpoint;
use crate::config::Unit;
use crate::error::{Error, Result};
use crate::eval::{self, Evaluation};
use crate::model::LanguageModel;
use crate::sample::text::Prompt;
use crate::sample::{self, SampleSettings, Sampler};
use crate::train::progress::{Moment, Row};
use crate::train::saved;
use serde_json::json;

/// Tokens of the model's own text after each epoch.
const SAMPLE_TOKENS: usize = 240;

impl Trainer<'_> {
    pub(super) fn announce(&mut self) -> Result<()> {
        let session = self.session;
        self.metrics.append(&json!({
            "event": if self.has_state { "resume" } else { "start" },
            "step": self.position.step,
            "corpus": session.corpus,
            "corpus_sha256": session.corpus_sha256,
            "parameters": self.stepper.parameters.count(),
            "vocab_size": session.model.vocab_size,
            "train_tokens": session.train.tokens.len(),
            "steps_per_epoch": self.windows(),
            "recipe": session.recipe,
            "precision": session.precision.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
        }))?;
        self.line.print(&Row::head(self.unit()));
        Ok(())
    }

    pub(super) fn moment(&self, nats: f64) -> Moment {
        let (position, train) = (&self.position, &self.session.recipe.train);
        let window_seconds = (train.batch_size * train.bptt_steps) as f64 / self.trained.rate();
        let epoch_left = (self.windows() - position.window) as f64 * window_seconds;
        let epochs_left = (train.epochs - position.epoch - 1) as f64;
        let run_left = epoch_left
            + self.valid_seconds
            + epochs_left * (self.windows() as f64 * window_seconds + self.valid_seconds);
        Moment {
            epoch: position.epoch + 1,
            epochs: train.epochs,
            window: position.window,
            windows: self.windows(),
            nats,
            tokens_per_second: self.trained.rate(),
            epoch_left,
            run_left,
        }
    }

    pub(super) fn report_epoch(&mut self, valid: &Evaluation, best: bool) -> Result<()> {
        let (position, sums) = (&self.position, &self.position.epoch_sums);
        let rate = self.rate.at(position.epoch, position.step.saturating_sub(1));
        let row = Row {
            epoch: position.epoch + 1,
            train_nats: sums.nats / sums.tokens.max(1) as f64, // all may have been skipped
            valid,
            rate,
            grad_norm: sums.grad_norms / sums.steps.max(1) as f64,
            tokens_per_second: self.trained.rate(),
            seconds: self.seconds(),
            best,
        };
        self.metrics.append(&json!({
            "event": "epoch",
            "epoch": row.epoch,
            "step": position.step,
            "tokens": position.tokens,
            "train_nats_per_token": row.train_nats,
            "valid_nats_per_token": valid.nats_per_token,
            "valid_perplexity": valid.perplexity,
            "valid_bits_per_char": valid.bits_per_char,
            "learning_rate": row.rate,
            "grad_norm": row.grad_norm,
            "tokens_per_second": row.tokens_per_second,
            "seconds": row.seconds,
            "skipped_steps": position.skipped_steps,
            "best": best,
        }))?;
        self.line.print(&row.line(self.unit()));
        self.show_sample()
    }

    /// A little of the model's own text, for units whose text is short enough to look at.
    fn show_sample(&self) -> Result<()> {
        if matches!(self.unit(), Unit::Char | Unit::Byte) {
            let model = self.stepper.model.freeze()?;
            let tokenizer = &self.session.tokenizer;
            let prompt = Prompt::new(tokenizer, "")?;
            let settings = SampleSettings { forbidden: tokenizer.unknown_id(), ..SampleSettings::default() };
            let sampler = Sampler::new(&model, settings, prompt.context(), self.position.epoch)?;
            let text = match sample::text::text(sampler, tokenizer, &prompt, SAMPLE_TOKENS) {
                Err(Error::NotFinite { .. }) => return Ok(()), // a symbol that training never chose; no loss
                text => text?,
            };
            let indented: Vec<String> =
                text.trim_end().lines().map(|line| format!("      | {line}")).collect();
            self.line.print(&indented.join("\n"));
        }
        Ok(())
    }

    /// The `result.json` of a run that had come to its end before this process began.
    pub fn finished(&self) -> Option<serde_json::Value> {
        let result = saved::read_result(&self.out)?;
        (self.is_over() && result["steps"] == self.position.step).then_some(result)
    }

    /// The test split by the published protocol, with the best weights; `result.json`.
    pub fn result(&mut self) -> Result<serde_json::Value> {
        let session = self.session;
        let mut result = match &session.test {
            None => json!({"corpus": session.corpus, "split": null}),
            Some(test) => {
                let best = session.parameters_of(&Checkpoint::open(&self.out)?)?;
                let model = LanguageModel::new(&session.model, &best, session.precision, &session.device)?;
                let model = model.freeze()?;
                let (line, signals) = (&mut self.line, &self.signals);
                let progress = &mut |done, all| {
                    line.evaluating("testing", done, all);
                    signals.check()
                };
                json!(eval::stream(&model, &session.split("test", test), progress)?)
            }
        };
        self.line.clear();
        if let Some(best) = &self.position.best {
            result["best_epoch"] = json!(best.epoch);
            result["valid_nats_per_token"] = json!(best.valid_nats_per_token);
            result["valid_perplexity"] = json!(best.valid_nats_per_token.exp());
        }
        result["steps"] = json!(self.position.step);
        result["skipped_steps"] = json!(self.position.skipped_steps);
        result["parameters"] = json!(self.stepper.parameters.count());
        result["seconds_total"] = json!(self.seconds());
        let mut event = result.clone();
        event["event"] = json!("result");
        event["step"] = json!(self.position.step);
        self.metrics.drop_result(self.position.step)?;
        self.metrics.append(&event)?;
        self.metrics.sync()?;
        saved::write_result(&self.out, &result)?; // last: it says that the run is done
        Ok(result)
    }
}
