//! Which of the settings that were given a run has no use for.

use super::Request;
use crate::config::{Resolved, TaskKind, Unit};
use crate::console::note;
use crate::data::Layout;
use crate::error::Result;

impl Request {
    /// Says which settings were given where the corpus, the vocabulary that it is read with, the core or the optimizer has no use
    /// for them.
    pub(super) fn note_unread(&self, resolved: &Resolved) -> Result<()> {
        for (key, what) in resolved.recipe.unread() {
            if resolved.is_given(key) {
                note(&format!("{key} does nothing here: it is for {what}"));
            }
        }
        let corpus = &resolved.recipe.corpus;
        if matches!(resolved.recipe.task.kind, TaskKind::Language | TaskKind::Vae) {
            let given: Vec<&str> = Layout::KEYS.into_iter().filter(|key| resolved.is_given(key)).collect();
            if !given.is_empty() {
                let layout = Layout::of(corpus, &self.directories)?;
                for key in given.into_iter().filter(|key| !layout.reads(key)) {
                    note(&format!("{key} does nothing here: {} {}", corpus.name, layout.describe()));
                }
            }
        }
        let is_made = corpus.tokenizer.is_none() && (self.init_from.is_none() || self.grow_vocab);
        let is_counted = is_made && corpus.vocabulary.is_none();
        for (key, units, is_read) in [
            ("corpus.min_count", &[Unit::Word][..], is_counted),
            ("corpus.vocab_size", &[Unit::Word, Unit::Bpe], is_made),
        ] {
            if resolved.is_given(key) && !(is_read && units.contains(&corpus.unit)) {
                let names: Vec<&str> = units.iter().map(|unit| unit.as_str()).collect();
                let names = names.join(" or ");
                note(&format!(
                    "{key} does nothing here: it is for a vocabulary by {names} that is made from the text"
                ));
            }
        }
        Ok(())
    }
}
