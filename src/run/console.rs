//! What a person sees of a run: a line that moves, a row an epoch.

use crate::config::Unit;
use crate::console::Line;
use crate::error::Result;
use crate::events::{Divergence, Epoch, Event};
use crate::readable::{duration, grouped, or_dash, perplexity};
use crate::train::recorder::{Progress, Recorder, Training};
use std::f64::consts::LN_2;

/// The weight of the latest window in the loss that the moving line shows.
const SMOOTHING: f64 = 0.03;

/// What a run's rows are about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    /// Text in these units.
    Text(Unit),
    Images,
    /// Labelled sentences.
    Labels,
    /// N-best lists of text in these units.
    Lists(Unit),
    /// Sentences as items, in these units.
    Sentences(Unit),
}

impl Shown {
    /// What [`crate::train::task::Data`] counts, in the plural.
    pub(crate) fn units_of_data(self) -> &'static str {
        match self {
            Self::Lists(_) => "words of references",
            other => other.units(),
        }
    }

    /// What steps count, in the plural.
    pub(crate) fn units(self) -> &'static str {
        match self {
            Shown::Images => "images",
            Shown::Lists(_) => "tokens of references",
            Shown::Text(unit) | Shown::Sentences(unit) => match unit {
                Unit::Word => "words",
                Unit::Char => "chars",
                Unit::Byte => "bytes",
                Unit::Bpe => "tokens",
            },
            Shown::Labels => "sentences",
        }
    }
}

/// Shows a run on standard output and standard error.
pub(crate) struct Console {
    shown: Shown,
    line: Line,
    smoothed: Option<f64>,
    steps_per_epoch: u64,
}

impl Console {
    pub(crate) fn new(shown: Shown) -> Self {
        Self { shown, line: Line::new(), smoothed: None, steps_per_epoch: 0 }
    }

    /// The teacher on what was trained on, below a row of a run that has one.
    fn teacher(&mut self, row: &Epoch) {
        let Some(nats) = row.teacher_nats_per_token else { return };
        let is_worse = row.train_nats_per_token.is_some_and(|own| nats > own);
        let warning = match is_worse {
            true => "; worse than the student: is it of other text, or cut into other tokens?",
            false => "",
        };
        self.line.print(&format!("{:>5}  {nats:>10.4}  {}{warning}", "teach", quality(nats, self.shown)));
    }

    /// The parts of a sentence VAE's bound, below a row.
    fn latent(&mut self, row: &Epoch) {
        let (Some(reconstruction), Some(kl)) = (row.valid_reconstruction_nats, row.valid_kl_nats) else {
            return;
        };
        let weight = row.kl_weight.map_or(String::new(), |weight| format!("; weight of the KL {weight:.3}"));
        self.line.print(&format!(
            "{:>5}  {:.3} nats a sentence: reconstruction {reconstruction:.3} and KL {kl:.3}{weight}",
            "",
            reconstruction + kl
        ));
    }

    fn training(&mut self, training: &Training) {
        let shown = self.shown;
        let nats = self.smoothed.map_or(training.nats, |old| old + SMOOTHING * (training.nats - old));
        self.smoothed = Some(nats);
        let head = format!("epoch {}/{}", training.epoch, training.epochs);
        self.line.show(&head, training.window, training.windows, || {
            format!(
                "{nats:.3} nats  {}  {} {}/s  {} left in epoch, {} in run",
                if training.loss == "exact" {
                    quality(nats, shown)
                } else {
                    format!("{} loss", training.loss)
                },
                grouped(training.tokens_per_second.round() as u64),
                shown.units(),
                duration(training.epoch_left),
                duration(training.run_left),
            )
        });
    }
}

impl Recorder for Console {
    fn record(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Start(start) | Event::Resume(start) => {
                self.steps_per_epoch = start.steps_per_epoch;
                self.line.print(&head(self.shown));
            }
            Event::Evaluation(row) => {
                // Where windows are drawn, this is about the epochs, and never another one's.
                let epochs = row.step as f64 / self.steps_per_epoch.max(1) as f64;
                let epochs = epochs.clamp(row.epoch.saturating_sub(1) as f64, row.epoch as f64);
                self.line.print(&line(&format!("{epochs:.2}"), row, self.shown));
                self.teacher(row);
                self.latent(row);
            }
            Event::Epoch(row) => {
                self.line.print(&line(&row.epoch.to_string(), row, self.shown));
                self.teacher(row);
                self.latent(row);
            }
            Event::Skip(skip) => {
                let step = skip.step;
                let skipped = skip.skipped_steps;
                self.line.report(&format!("step {step}: skipped, {skipped} so far: {}", skip.reason));
            }
            Event::Divergence(Divergence { step, reason, action, .. }) => {
                let done = match action.as_str() {
                    "rollback" => "back to the best weights, at half the rate",
                    _ => "going on, as train.on_divergence says",
                };
                // The error that ends a run says the same.
                if action != "stop" {
                    self.line.report(&format!("step {step}: {reason}; {done}"));
                }
            }
            Event::Step(_) | Event::Stop(_) | Event::Result(_) => {}
        }
        Ok(())
    }

    fn show(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Training(training) => self.training(training),
            &Progress::Evaluating(what, done, all) => {
                let message = || format!("{} of {} tokens", grouped(done), grouped(all));
                self.line.show(what, done, all, message);
            }
            Progress::Sample(text) => {
                let indented: Vec<String> =
                    text.trim_end().lines().map(|line| format!("      | {line}")).collect();
                self.line.print(&indented.join("\n"));
            }
            Progress::Warning(text) => self.line.report(&format!("warning: {text}")),
            Progress::Over => self.line.clear(),
        }
    }
}

/// The names of the columns.
fn head(shown: Shown) -> String {
    let quality = match shown {
        Shown::Text(Unit::Char) => "bits/char",
        Shown::Text(Unit::Byte) => "bits/byte",
        Shown::Text(Unit::Word | Unit::Bpe) | Shown::Sentences(_) => "perplexity",
        Shown::Images => "accuracy %",
        Shown::Labels => "F1 %",
        Shown::Lists(_) => "errors %",
    };
    let speed = match shown {
        Shown::Images => "images/s",
        Shown::Labels => "sent./s",
        Shown::Text(_) | Shown::Lists(_) | Shown::Sentences(_) => "tokens/s",
    };
    format!(
        "{:>5}  {:>10}  {:>10}  {quality:>10}  {:>9}  {:>9}  {:>9}  {:>8}",
        "epoch", "train nats", "valid nats", "rate", "grad norm", speed, "time"
    )
}

/// The row of an epoch, or within one after so many `epochs`; the best so far has a star.
fn line(epochs: &str, row: &Epoch, shown: Shown) -> String {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let valid_nats = number(row.valid_nats_per_token);
    let quality = match shown {
        Shown::Text(Unit::Char) => or_dash(row.valid_bits_per_char, 3),
        Shown::Text(Unit::Byte) => or_dash(row.valid_bits_per_byte, 3),
        Shown::Text(Unit::Word | Unit::Bpe) | Shown::Sentences(_) => perplexity(valid_nats, 3),
        Shown::Images => or_dash(row.valid_accuracy.map(|share| 100.0 * share), 2),
        Shown::Labels => or_dash(row.valid_f1.map(|share| 100.0 * share), 2),
        Shown::Lists(_) => or_dash(row.valid_word_error_rate.map(|share| 100.0 * share), 2),
    };
    let nats = |nats: Option<f64>| match (shown, nats) {
        (Shown::Images, Some(nats)) if nats < 0.1 => format!("{nats:.2e}"), // it falls by orders of magnitude
        _ => or_dash(nats, 4),
    };
    format!(
        "{:>5}  {:>10}  {:>10}  {quality:>10}  {:>9.2e}  {:>9}  {:>9}  {:>8}{}",
        epochs,
        nats(row.train_nats_per_token),
        nats(row.valid_nats_per_token),
        number(row.learning_rate),
        or_dash(row.grad_norm, 2),
        row.tokens_per_second.map_or_else(|| "–".into(), |speed| grouped(speed.round() as u64)),
        duration(number(row.seconds)),
        if row.best { " *" } else { "" }
    )
}

fn quality(nats: f64, shown: Shown) -> String {
    match shown {
        Shown::Text(Unit::Char) | Shown::Lists(Unit::Char) => format!("{:.3} bits/char", nats / LN_2),
        Shown::Text(Unit::Byte) | Shown::Lists(Unit::Byte) => format!("{:.3} bits/byte", nats / LN_2),
        Shown::Images => format!("{:.2e} nats", nats),
        Shown::Labels => "a sentence".into(),
        Shown::Text(Unit::Word | Unit::Bpe) | Shown::Lists(Unit::Word | Unit::Bpe) => {
            format!("perplexity {}", perplexity(nats, 1))
        }
        Shown::Sentences(_) => "of the weighed loss".into(), // no perplexity while the KL counts in part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_dash_for_what_was_not_measured() {
        let row = Epoch {
            valid_nats_per_token: Some(1.5),
            valid_bits_per_char: Some(2.25),
            learning_rate: Some(0.125),
            seconds: Some(3.0),
            ..Epoch::default()
        };
        let cells = line("1", &row, Shown::Text(Unit::Char));
        let cells: Vec<&str> = cells.split_whitespace().collect();
        assert_eq!(cells, ["1", "–", "1.5000", "2.250", "1.25e-1", "–", "–", "3s"]);
    }
}
