//! Steps whose loss, gradient or update is not finite: the end of the run, or counted and passed over.

use super::Trainer;
use crate::config::train::OnNonFinite;
use crate::error::{Error, Result};
use serde_json::json;

impl Trainer<'_> {
    /// Passes over a step that changed nothing because a number was not finite, if the recipe allows one more.
    pub(super) fn skip(&mut self, step: u64, what: String) -> Result<()> {
        let config = &self.session.recipe.train;
        let skipped = self.position.skipped_steps;
        match config.on_non_finite {
            OnNonFinite::Stop => return Err(Error::NotFinite { step, what }),
            OnNonFinite::Skip if skipped >= config.max_skipped_steps => {
                let what = format!("{what}; {skipped} steps were skipped before, train.max_skipped_steps");
                return Err(Error::NotFinite { step, what });
            }
            OnNonFinite::Skip => {}
        }
        let position = &mut self.position;
        position.window += 1;
        position.step += 1;
        position.skipped_steps += 1;
        let (epoch, skipped) = (position.epoch + 1, position.skipped_steps);
        let event =
            json!({"event": "skip", "step": step, "epoch": epoch, "skipped_steps": skipped, "reason": what});
        self.metrics.append(&event)?;
        self.line.tell(&format!("step {step}: skipped, {skipped} so far: {what}"));
        Ok(())
    }
}
