//! `rhn eval --tune`: the search for settings on the validation split, a row a trial.

use super::super::output::{Meter, note};
use super::adapt::flags;
use crate::console;
use crate::data::{Chosen, DataDirectories, SplitName, Tokenizer, TrainedOn};
use crate::error::{Error, Result};
use crate::eval::adapt::{Adaptation, Free, Predictor, SearchText, Trial, tune};
use crate::readable::perplexity;
use crate::signals::Signals;

/// Tokens that are predicted in each trial.
const TOKENS: usize = 30_000;

/// The best settings; trials are printed on the standard output, with `json` on the standard error.
pub(super) fn search(
    predictor: &mut dyn Predictor,
    asked: &Adaptation,
    free: Free,
    (run, directories): (TrainedOn<'_>, &DataDirectories),
    tokenizer: &Tokenizer,
    json: bool,
    signals: &Signals,
) -> Result<Adaptation> {
    let valid = Chosen::of_run(run, Some(SplitName::Valid), directories).map_err(|error| {
        Error::data(&run.config.name, format!("--tune needs the validation split to search on: {error}"))
    })?;
    let tokens = tokenizer.encode(&valid.text)?.tokens;
    let text = SearchText { name: &valid.corpus, tokens: &tokens, most: TOKENS };
    let print = if json { console::report } else { console::print };
    print("perplexity  setting");
    let meter = Meter::new("searching");
    let mut report = |trial: &Trial| {
        let row = format!("{:>10}  {}", perplexity(trial.nats_per_token, 4), flags(&trial.adaptation));
        meter.beside(|| print(&row));
    };
    let progress = &mut |done, total| {
        meter.set(done, total);
        signals.check()
    };
    let best = tune(predictor, text, asked, free, &mut report, progress)?;
    let tokens = best.tuned_tokens.unwrap_or_default();
    let of = if best.cache.is_some() { "best with a cache" } else { "best" };
    note(&format!("{of} of the first {tokens} tokens of the validation split: {}", flags(&best)));
    Ok(best)
}
