//! What commands print: notes and progress on the standard error, so that the standard output is the result alone.

pub(super) use crate::console::note;

use super::args::DeviceArgs;
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Recipe, TaskKind, Unit};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::predict::Loaded;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// A bar on the standard error where that is a terminal, nothing elsewhere.
pub(super) struct Meter(ProgressBar);

impl Meter {
    /// Counts tokens.
    pub(super) fn new(what: &str) -> Self {
        Self::with_template(what, "{msg} {wide_bar} {human_pos}/{human_len} tokens, {per_sec}, {eta} left")
    }

    /// Of bytes, with how many a second.
    pub(super) fn of_bytes(what: &str) -> Self {
        Self::with_template(what, "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
    }

    fn with_template(what: &str, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style).with_message(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// Shows that `done` of `total` are done.
    pub(super) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Prints something without tearing the bar.
    pub(super) fn beside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Opens the checkpoint `argument` on `device`; notes if its files could not be verified.
pub(super) fn load(argument: &Path, device: &DeviceArgs) -> Result<Loaded> {
    load_checkpoint(open_checkpoint(argument)?, device)
}

/// Opens the checkpoint `argument`, of any kind; notes if its files could not be verified.
pub(super) fn open_checkpoint(argument: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(&checkpoint::resolve(argument)?)?;
    if !checkpoint.verified {
        note(&format!("{}: no manifest; the files could not be verified", argument.display()));
    }
    Ok(checkpoint)
}

/// The model and the vocabulary of an open checkpoint, on `device`.
pub(super) fn load_checkpoint(checkpoint: Checkpoint, device: &DeviceArgs) -> Result<Loaded> {
    let (device, precision) = device.open()?;
    Loaded::new(checkpoint, precision, &device)
}

/// Writes `value` as one line of JSON. Fails if `out` cannot be written.
///
/// Characters that some programs end lines at are escaped: Python's `splitlines` would cut a row in two.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    let mut json = serde_json::to_string(value)?;
    if json.contains(LINE_ENDS) {
        // Outside of strings JSON has no such characters.
        for end in LINE_ENDS {
            json = json.replace(end, &format!("\\u{:04x}", u32::from(end)));
        }
    }
    out.write_all(json.as_bytes())?;
    out.write_all(b"\n")
}

/// Says of a text's loss that it is more than guessing costs, `uniform`, and what may be the reason.
pub(super) fn note_if_worse_than_guessing(nats: Option<f64>, uniform: f64) {
    if let Some(nats) = nats.filter(|nats| *nats > uniform) {
        note(&format!(
            "{nats:.4} nats a token are more than a uniform guess costs, {uniform:.4}. If it was less in validation, the model may \
             not get away from the zero state that a text begins with: train.state_reset = 0.01 makes that a part of training"
        ));
    }
}

/// How symbols that the vocabulary lacks are treated.
#[derive(Clone, Copy)]
pub(super) enum Treatment {
    Unknown,
    LeftOut,
    /// The model reads any string.
    Spelled,
}

impl Treatment {
    /// How they are treated where the model reads its vocabulary's words alone.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        if tokenizer.unknown_id().is_some() { Self::Unknown } else { Self::LeftOut }
    }

    /// How they are treated in a text that is read word by word, by a model that reads any string or only its vocabulary's words.
    pub(super) fn in_text(tokenizer: &Tokenizer, reads_any_string: bool) -> Self {
        if reads_any_string { Self::Spelled } else { Self::of(tokenizer) }
    }
}

/// Prints how many symbols the vocabulary lacks, if any.
pub(super) fn note_unseen(unseen: u64, what: &str, treatment: Treatment) {
    let treatment = match treatment {
        Treatment::Unknown => "read as <unk>",
        Treatment::LeftOut => "left out",
        Treatment::Spelled => "predicted as <unk>, and read as spelled",
    };
    match unseen {
        0 => {}
        1 => note(&format!("1 symbol of {what} is not in the vocabulary; {treatment}")),
        _ => note(&format!("{unseen} symbols of {what} are not in the vocabulary; {treatment}")),
    }
}

/// Says that line ends of CR LF are other tokens than LF, where the vocabulary makes that difference.
pub(super) fn note_crlf(count: usize, what: &str, tokenizer: &Tokenizer) {
    if count > 0 && !tokenizer.reads_crlf_as_lf() {
        let reader =
            if tokenizer.unit() == Unit::Byte { "bytes are read" } else { "this vocabulary reads them" };
        note(&format!(
            "{count} line ends of {what} are CR LF; {reader} as they are, so the text is not that of LF"
        ));
    }
}

/// Refuses a run that has no text of its own because it learned last from n-best lists; `advice` is what to do.
pub(super) fn refuse_lists(recipe: &Recipe, advice: &str) -> Result<()> {
    if recipe.task.kind != TaskKind::Rescore {
        return Ok(());
    }
    Err(Error::config(format!(
        "the checkpoint learned last from n-best lists, {}, which `rhn rescore` reads; {advice}",
        recipe.corpus.name
    )))
}

#[cfg(test)]
mod tests {
    use super::json_line;

    #[test]
    fn a_row_of_json_is_one_line_to_every_program() {
        let mut out = Vec::new();
        json_line(&mut out, &["a\u{2028}b\u{85}\u{2029}\n"]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[\"a\\u2028b\\u0085\\u2029\\n\"]\n");
    }
}
