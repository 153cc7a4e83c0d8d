//! The root mean squares of a model's gradients, kept beside its weights: they take a pass over the training text.

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::model::specs;
use crate::storage::aside::Aside;
use crate::storage::{MODEL, STATISTICS, load_weights, read, save_tensors, save_tensors_of, tensors};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Under which the file names the weights that it belongs to.
const WEIGHTS: &str = "weights_sha256";

/// Under which the file has the SHA-256 of its own numbers.
const NUMBERS: &str = "numbers_sha256";

impl Checkpoint {
    /// Where its gradient statistics lie, or would.
    pub fn statistics_path(&self) -> PathBuf {
        self.directory.join(STATISTICS)
    }

    /// The root mean square of each trained weight's gradient, by name; `None` where none were kept.
    ///
    /// # Errors
    /// If the file is damaged, or belongs to other weights.
    pub fn read_statistics(&self, dtype: DType, device: &Device) -> Result<Option<BTreeMap<String, Tensor>>> {
        let path = self.statistics_path();
        if !read::exists(&path)? {
            return Ok(None);
        }
        let bytes = read::unverified(&path)?;
        let damaged = |what: &str| {
            let what = format!("{what}; remove the file, and the gradient statistics are gathered anew");
            Err(Error::checkpoint(&path, what))
        };
        let Ok(found) = tensors::metadata(&path, &bytes, WEIGHTS) else {
            return damaged("is damaged: it has no header of a safetensors file");
        };
        let found = found.unwrap_or_else(|| "not named".into());
        let wanted = self.weights_sha256();
        if found != wanted {
            let what = format!(
                "holds the gradient statistics of other weights: their SHA-256 is {found}, that of {MODEL} beside it \
                 is {wanted}; remove the file, and it is made anew"
            );
            return Err(Error::checkpoint(&path, what));
        }
        match tensors::metadata(&path, &bytes, NUMBERS)? {
            None => return damaged("does not say what its numbers' SHA-256 is, as older programs wrote it"),
            Some(wanted) if wanted != tensors::numbers_sha256(&bytes) => {
                return damaged("is damaged: its numbers' SHA-256 is not the one that it names");
            }
            Some(_) => {}
        }
        let mut expected = specs(&self.config)?;
        expected.retain(|_, spec| spec.trained());
        load_weights(&path, &bytes, &expected, dtype.into(), device).map(Some)
    }

    /// Keeps gradient statistics; a file that is there is replaced when the new one is whole.
    pub fn write_statistics(&self, statistics: &BTreeMap<String, Tensor>) -> Result<()> {
        let weights = self.weights_sha256();
        let numbers = tensors::numbers_sha256(&save_tensors(statistics)?);
        let bytes = save_tensors_of(statistics, [(WEIGHTS, &*weights), (NUMBERS, &*numbers)])?;
        Aside::write(&self.statistics_path(), &bytes)
    }
}
