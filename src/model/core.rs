//! From a core's settings to its layers: the one place that knows every kind of cell.

use super::builder::Builder;
use super::cell::TrainedCell;
use super::lstm::Lstm;
use super::rhn::Rhn;
use crate::config::{CoreConfig, ModelConfig};
use crate::error::Result;

/// The stacked layers that `config` asks for; layer k's weights are under `core.<k>`.
pub(super) fn build(config: &ModelConfig, builder: &Builder<'_>) -> Result<Vec<Box<dyn TrainedCell>>> {
    let core = &config.spec.core;
    let layer = |k: usize| -> Result<Box<dyn TrainedCell>> {
        let input_size = if k == 0 { config.embedding_size() } else { core.hidden_size() };
        let name = format!("core.{k}");
        Ok(match core {
            CoreConfig::Rhn(rhn) => Box::new(Rhn::build(rhn, input_size, &name, builder)?),
            CoreConfig::Lstm(lstm) => Box::new(Lstm::build(lstm, input_size, &name, builder)?),
        })
    };
    (0..core.layers()).map(layer).collect()
}
