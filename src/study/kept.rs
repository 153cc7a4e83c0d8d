//! Evaluations that `rhn eval --keep` left in a run's directory: by other protocols than training's own, in columns of their
//! own.

use crate::checkpoint::Checkpoint;
use crate::console::note;
use crate::error::{Error, Result};
use crate::storage::EVALUATIONS;
use crate::storage::disk::Growing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What `rhn compare` needs of a kept line.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kept {
    split: String,
    protocol: String,
    /// Of the softmax, if it was another than 1.
    temperature: Option<f64>,
    pub nats_per_token: Option<f64>,
    pub bits_per_char: Option<f64>,
    /// Of the weights that were evaluated.
    weights_sha256: String,
    /// All that the line has beside.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// What the names of the settings of a protocol begin with: how many states a cache holds, at what rate weights go on learning, how
/// many passes or vectors are drawn, and in how many steps posteriors are fitted.
const SETTINGS: [&str; 7] = ["cache", "dynamic_", "segment", "mc_passes", "mc_seed", "samples", "refine_"];

/// Adds an evaluation of `checkpoint` to its directory.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn keep(checkpoint: &Checkpoint, evaluation: &impl Serialize) -> Result<()> {
    let path = checkpoint.directory.join(EVALUATIONS);
    let mut line = serde_json::to_value(evaluation).map_err(|error| Error::io(&path)(error.into()))?;
    line["weights_sha256"] = checkpoint.weights_sha256().into();
    // What a write that was cut off left must not swallow this line.
    let torn = std::fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|&byte| byte != b'\n'));
    let mut file = Growing::open(&path)?;
    file.append(format!("{}{line}\n", if torn { "\n" } else { "" }).as_bytes())?;
    file.sync()
}

/// The latest evaluation by each protocol and temperature, of the test split of the run's corpus and of the weights that are in
/// `directory` now; lines that are no evaluation are passed over with a note. No other corpus's are kept.
pub(crate) fn read(directory: &Path) -> BTreeMap<String, Kept> {
    let Ok(text) = std::fs::read_to_string(directory.join(EVALUATIONS)) else { return BTreeMap::new() };
    let Ok(checkpoint) = Checkpoint::open(directory) else { return BTreeMap::new() };
    let weights = checkpoint.weights_sha256();
    let kept = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let value = serde_json::from_str::<Value>(line).and_then(Kept::deserialize);
        let path = directory.join(EVALUATIONS);
        value
            .inspect_err(|_| {
                note(&format!("{}: line {number} is no evaluation; passed over", path.display()))
            })
            .ok()
    });
    let fits = |kept: &Kept| kept.split == "test" && kept.weights_sha256 == weights;
    kept.filter(fits).map(|kept| (kept.column(), kept)).collect()
}

impl Kept {
    /// The settings of its protocol by their names in JSON.
    pub(crate) fn settings(&self) -> BTreeMap<String, Value> {
        let is_setting = |name: &str| SETTINGS.iter().any(|setting| name.starts_with(setting));
        let settings = self.others.iter().filter(|(name, _)| is_setting(name));
        settings.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The protocol with the temperature, if there is one: figures of two temperatures do not compare.
    fn column(&self) -> String {
        match self.temperature {
            Some(temperature) => format!("{}, temperature {temperature}", self.protocol),
            None => self.protocol.clone(),
        }
    }
}
