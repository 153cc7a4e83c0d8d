//! The recurrent core. To add a kind: its file here with its settings, and three lines below (`mod`, a variant of
//! [`CoreConfig`], its line in `settings`).

pub(in crate::model) mod encoder;
mod feed_forward;
mod gru;
mod hlstm;
mod lstm;
mod mogrifier;
pub(crate) mod pieces;
mod projected;
mod recurrent;
mod rhn;
mod settings;
mod stack;
pub mod state;
mod step_weights;

pub use feed_forward::{Activation, FeedForwardConfig, Mixing, SharedGates};
pub use gru::GruConfig;
pub use hlstm::{HlstmConfig, Peephole, Variant};
pub use lstm::LstmConfig;
pub use mogrifier::MogrifierConfig;
pub use rhn::{RhnConfig, RhnSharedGates};

use super::layers::Core;
use super::noise::{Noise, masked};
use crate::error::Result;
use candle_core::Tensor;
use pieces::Pieces;
use rhn_kernels::profile::{self, Part};
use serde::{Deserialize, Serialize};
use settings::CoreSettings;
use state::State;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

/// What carries the state from token to token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CoreConfig {
    /// Recurrent highway network (Zilly et al., 2017).
    Rhn(RhnConfig),
    /// Long short-term memory.
    Lstm(LstmConfig),
    /// Gated recurrent unit.
    Gru(GruConfig),
    /// A stack of highway or plain layers without a state, for images.
    FeedForward(FeedForwardConfig),
    /// Highway LSTM (Zhang et al., 2016) and its relatives.
    Hlstm(HlstmConfig),
}

impl CoreConfig {
    pub(super) fn settings(&self) -> &dyn CoreSettings {
        match self {
            Self::Rhn(core) => core,
            Self::Lstm(core) => core,
            Self::Gru(core) => core,
            Self::FeedForward(core) => core,
            Self::Hlstm(core) => core,
        }
    }

    /// This core with the sizes of `trained`, if its weights are those of `trained` and some more, with which training
    /// can go on: an LSTM gets a highway layer inside.
    pub(crate) fn grown_from(&self, trained: &Self) -> Option<Self> {
        match (self, trained) {
            (Self::Hlstm(own), Self::Lstm(lstm))
                if own.variant == Variant::Kurata
                    && lstm.mogrifier.is_none()
                    && lstm.projection.is_none() =>
            {
                let layers = lstm.layers;
                let hidden_size = lstm.hidden_size;
                Some(Self::Hlstm(HlstmConfig { layers, hidden_size, ..own.clone() }))
            }
            _ => None,
        }
    }

    /// Which columns of the weight `name` compute gates, an empty range if none do; `None` where this kind of core does not
    /// tell them apart.
    pub(crate) fn gate_columns(&self, name: &str) -> Option<Range<usize>> {
        let of_layer = name.strip_prefix("core.").and_then(|rest| rest.split_once('.'));
        of_layer.map_or(Some(0..0), |(_, name)| self.settings().gate_columns(name))
    }

    /// Units of the state that the output layer sees.
    pub fn hidden_size(&self) -> usize {
        self.settings().hidden_size()
    }

    /// Whether a layer takes the cell of the one below through a gate.
    pub fn has_depth_gates(&self) -> bool {
        (0..self.layers()).any(|layer| self.settings().depth_gate(layer).is_some())
    }

    /// Whether there are weights that the state is multiplied by.
    pub fn has_recurrent_weights(&self) -> bool {
        !self.settings().recurrent_weights().is_empty()
    }

    /// Whether the masks of its state can be different ones for H and T.
    pub(crate) fn has_separate_gate_masks(&self) -> bool {
        self.settings().has_separate_gate_masks()
    }

    /// Stacked layers.
    pub fn layers(&self) -> usize {
        self.settings().layers()
    }
}

impl Display for CoreConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.settings().describe())
    }
}

/// The core between the masks around it: from embedded tokens, `(time, batch, size)`, to the input of the output layer,
/// `(time, batch, hidden)`. With `pieces` each sentence begins with the zero state.
pub(super) fn forward(
    core: &dyn Core,
    embedded: Tensor,
    pieces: Option<&Pieces>,
    state: &State,
    noise: &Noise,
) -> Result<(Tensor, State)> {
    let (ys, state) = unmasked(core, embedded, pieces, state, noise)?;
    Ok((masked(ys, noise.output.as_ref())?, state))
}

/// As [`forward`], before the mask of the output layer's input.
pub(super) fn unmasked(
    core: &dyn Core,
    embedded: Tensor,
    pieces: Option<&Pieces>,
    state: &State,
    noise: &Noise,
) -> Result<(Tensor, State)> {
    let embedded = masked(embedded, noise.word.as_ref())?;
    let xs = profile::mark(embedded, Part::RecurrenceForward, Part::EmbeddingBackward)?;
    let (ys, state) = match pieces {
        None => core.forward(&xs, state, noise)?,
        Some(pieces) => pieces::forward(core, &xs, pieces, state, noise)?,
    };
    Ok((profile::mark(ys, Part::OutputForward, Part::RecurrenceBackward)?, state))
}
