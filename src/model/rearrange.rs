//! A trained model whose layers of one stage are left out, exchanged, put in another order or applied again.
//!
//! Nothing is trained. A layer that is left out carries what it receives to the next one: of a highway layer that is T
//! = 0 (C = 1 where it has that gate), of a residual one F = 0, to the last bit. It is taken out of the weights: by
//! its bias a gate is exactly 0 only where the sigmoid is rounded to that.

use super::builder::missing;
use super::config::ModelConfig;
use super::core::CoreConfig;
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

type Tensors = BTreeMap<String, Tensor>;

/// Successive layers of one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageId {
    /// The highway layers of an embedding that reads characters: this many.
    Embedding {
        /// How many.
        layers: usize,
    },
    /// The sublayers of a time step in a layer of a recurrent highway network.
    TimeStep {
        /// Which of the stacked layers, from 0.
        layer: usize,
        /// How many sublayers, the recurrence depth.
        depth: usize,
        /// How many layers are stacked.
        of: usize,
    },
    /// The layers of a feed-forward core: this many.
    FeedForward {
        /// How many.
        layers: usize,
    },
}

/// The stages that a model has.
pub fn stages(config: &ModelConfig) -> Vec<StageId> {
    let mut stages = Vec::new();
    let highways = config.spec.embedding.highways();
    if let Some(highways) = highways.filter(|highways| highways.layers > 0) {
        stages.push(StageId::Embedding { layers: highways.layers });
    }
    if let CoreConfig::Rhn(core) = &config.spec.core {
        let depth = core.recurrence_depth;
        stages.extend((0..core.layers).map(|layer| StageId::TimeStep { layer, depth, of: core.layers }));
    }
    if let CoreConfig::FeedForward(core) = &config.spec.core {
        stages.push(StageId::FeedForward { layers: core.layers });
    }
    stages
}

impl StageId {
    /// What to call it.
    pub fn name(self) -> String {
        match self {
            Self::Embedding { .. } => "highway layers over characters".into(),
            Self::TimeStep { of: 1, .. } => "sublayers of a time step".into(),
            Self::TimeStep { layer, .. } => format!("sublayers of a time step, layer {}", layer + 1),
            Self::FeedForward { .. } => "layers after the first".into(),
        }
    }

    /// How many layers it has.
    pub fn layers(self) -> usize {
        match self {
            Self::Embedding { layers } | Self::FeedForward { layers } => layers,
            Self::TimeStep { depth, .. } => depth,
        }
    }

    /// The layers that can change places: all but a time step's first, which alone reads the input.
    pub fn exchangeable(self) -> Range<usize> {
        match self {
            Self::Embedding { layers } | Self::FeedForward { layers } => 0..layers,
            Self::TimeStep { depth, .. } => 1..depth,
        }
    }

    /// The model in which the stage's layers are those that `order` lists, counted from 0 in the trained model; one that
    /// is not listed is left out, one that is listed twice is applied twice. Fails if a layer that reads the input would
    /// come after another, or `order` lists a layer that there is not.
    pub fn rearranged(
        self,
        config: &ModelConfig,
        tensors: &Tensors,
        order: &[usize],
    ) -> Result<(ModelConfig, Tensors)> {
        if let Some(unknown) = order.iter().find(|&&layer| layer >= self.layers()) {
            return Err(Error::config(format!("layer {} of {}", unknown + 1, self.layers())));
        }
        let mut config = config.clone();
        let mut tensors = tensors.clone();
        match self {
            Self::Embedding { layers } => {
                config.spec.embedding.settings_mut().set_highway_layers(order.len());
                rename(&mut tensors, layers, order);
            }
            Self::TimeStep { layer, depth, .. } => {
                if order.iter().skip(1).any(|&sublayer| sublayer == 0 && depth > 1) {
                    return Err(Error::config("the first sublayer reads the input and cannot come later"));
                }
                reorder(&mut tensors, &format!("core.{layer}"), order)?;
            }
            Self::FeedForward { .. } => {
                if let CoreConfig::FeedForward(core) = &mut config.spec.core {
                    core.layers = order.len();
                }
                let ids: Vec<u32> = order.iter().map(|&layer| layer as u32).collect();
                for name in ["core.weight", "core.bias"] {
                    let trained = tensors.get(name).ok_or_else(|| missing(name))?;
                    let ids = Tensor::new(&ids[..], trained.device())?;
                    tensors.insert(name.into(), trained.index_select(&ids, 0)?);
                }
            }
        }
        Ok((config, tensors))
    }
}

/// Gives the highway layers' tensors the names that they have in the new order.
fn rename(tensors: &mut Tensors, layers: usize, order: &[usize]) {
    let prefix = |index: usize| format!("embedding.highway.{index}.");
    let of_layer = |index: usize| {
        let prefix = prefix(index);
        let named = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
        named.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect::<Vec<_>>()
    };
    let trained: Vec<_> = (0..layers).map(of_layer).collect();
    tensors.retain(|name, _| !name.starts_with("embedding.highway."));
    for (index, &from) in order.iter().enumerate() {
        let named =
            trained[from].iter().map(|(name, tensor)| (format!("{}{name}", prefix(index)), tensor.clone()));
        tensors.extend(named);
    }
}

/// Takes the sublayers' weights in the new order. Without the first of them the input has no weights, nor has what gates input
/// and state before it, so that the gates are 1; without any, one that keeps the state at zero stands for none, since a time
/// step has at least one.
fn reorder(tensors: &mut Tensors, layer: &str, order: &[usize]) -> Result<()> {
    let ids: Vec<u32> = order.iter().map(|&sublayer| sublayer as u32).collect();
    for part in ["recurrent.weight", "bias"] {
        let name = format!("{layer}.{part}");
        let trained = tensors.get(&name).ok_or_else(|| missing(&name))?;
        let taken = match ids.is_empty() {
            true => trained.narrow(0, 0, 1)?.zeros_like()?,
            false => trained.index_select(&Tensor::new(&ids[..], trained.device())?, 0)?,
        };
        tensors.insert(name, taken);
    }
    if order.first() != Some(&0) {
        let input = format!("{layer}.input.weight");
        let gates = format!("{layer}.mogrifier.");
        if !tensors.contains_key(&input) {
            return Err(missing(&input));
        }
        for (name, tensor) in tensors.iter_mut() {
            if *name == input || name.starts_with(&gates) {
                *tensor = tensor.zeros_like()?;
            }
        }
    }
    Ok(())
}
