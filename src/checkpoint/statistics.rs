//! The root mean squares of a model's gradients, kept beside its weights: they take a pass over the training text.

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::model::specs;
use crate::storage::aside::Aside;
use crate::storage::{MODEL, STATISTICS, load_weights, read, save_tensors_of, tensors};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Under which the file names the weights that it belongs to.
const WEIGHTS: &str = "weights_sha256";

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
        let found = tensors::metadata(&path, &bytes, WEIGHTS)?.unwrap_or_else(|| "not named".into());
        let wanted = self.weights_sha256();
        if found != wanted {
            let what = format!(
                "holds the gradient statistics of other weights: their SHA-256 is {found}, that of {MODEL} beside it \
                 is {wanted}; remove the file, and it is made anew"
            );
            return Err(Error::checkpoint(&path, what));
        }
        let mut expected = specs(&self.config)?;
        expected.retain(|_, spec| spec.trained());
        load_weights(&path, &bytes, &expected, dtype.into(), device).map(Some)
    }

    /// Keeps gradient statistics; a file that is there is replaced when the new one is whole.
    pub fn write_statistics(&self, statistics: &BTreeMap<String, Tensor>) -> Result<()> {
        let bytes = save_tensors_of(statistics, WEIGHTS, &self.weights_sha256())?;
        Aside::write(&self.statistics_path(), &bytes)
    }
}
