//! The root mean squares of a model's gradients, kept beside its weights: they take a pass over the training text.

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::model::specs;
use crate::storage::aside::Aside;
use crate::storage::{STATISTICS, load_weights, read, save_tensors, save_tensors_of, tensors};
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Under which the file names the weights that it belongs to.
const WEIGHTS: &str = "weights_sha256";

/// Under which the file has the SHA-256 of its own numbers.
const NUMBERS: &str = "numbers_sha256";

/// Under which the file names the precision in which they were gathered.
const PRECISION: &str = "precision";

/// What was kept of a model's gradients.
pub enum Statistics {
    /// The root mean square of each trained weight's gradient, by name.
    Kept(BTreeMap<String, Tensor>),
    /// Nothing.
    Missing,
    /// What does not fit, in words: the weights have changed since, or another precision is asked for.
    Outdated(String),
}

impl Checkpoint {
    /// Where its gradient statistics lie, or would.
    pub fn statistics_path(&self) -> PathBuf {
        self.directory.join(STATISTICS)
    }

    /// Its gradient statistics, gathered in `precision`.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn read_statistics(&self, precision: Precision, device: &Device) -> Result<Statistics> {
        let path = self.statistics_path();
        if !read::exists(&path)? {
            return Ok(Statistics::Missing);
        }
        let bytes = read::unverified(&path)?;
        let damaged = |what: &str| {
            let what = format!("{what}; remove the file, and the gradient statistics are gathered anew");
            Err(Error::checkpoint(&path, what))
        };
        let Ok(found) = tensors::metadata(&path, &bytes, WEIGHTS) else {
            return damaged("is damaged: it has no header of a safetensors file");
        };
        if found.as_ref() != Some(&self.weights_sha256()) {
            return Ok(Statistics::Outdated("other weights than these".into()));
        }
        let gathered_in = tensors::metadata(&path, &bytes, PRECISION)?;
        let gathered_in = gathered_in.unwrap_or_else(|| Precision::F32.as_str().into()); // as older programs mostly did
        if gathered_in != precision.as_str() {
            return Ok(Statistics::Outdated(format!("precision {gathered_in}")));
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
        load_weights(&path, &bytes, &expected, precision.dtype().into(), device).map(Statistics::Kept)
    }

    /// Keeps gradient statistics that were gathered in `precision`; a file that is there is replaced when the new one is whole.
    pub fn write_statistics(
        &self,
        statistics: &BTreeMap<String, Tensor>,
        precision: Precision,
    ) -> Result<()> {
        let weights = self.weights_sha256();
        let numbers = tensors::numbers_sha256(&save_tensors(statistics)?);
        let bytes = save_tensors_of(
            statistics,
            [(WEIGHTS, &*weights), (NUMBERS, &*numbers), (PRECISION, precision.as_str())],
        )?;
        Aside::write(&self.statistics_path(), &bytes)
    }
}
