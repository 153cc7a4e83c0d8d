//! What the settings of every kind of core offer.

use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Core;
use candle_core::Shape;
use std::ops::Range;
use std::sync::Arc;

/// How many layers there are unless the settings say more.
pub(super) fn one_layer() -> usize {
    1
}

/// The settings of a kind of core.
pub(in crate::model) trait CoreSettings {
    /// Stacked layers.
    fn layers(&self) -> usize;

    /// Units of the state that the output layer sees.
    fn hidden_size(&self) -> usize;

    /// Units of the widest part of the state.
    fn widest(&self) -> usize {
        self.hidden_size()
    }

    /// Sublayers a time step.
    fn depth(&self) -> usize {
        1
    }

    /// Whether H and T can have separate masks on the hidden state.
    fn has_separate_gate_masks(&self) -> bool {
        false
    }

    /// The recurrent weights of a layer, by their names after `core.<k>.`: what a layer multiplies its state by.
    fn recurrent_weights(&self) -> Vec<(&'static str, Shape)> {
        Vec::new()
    }

    /// Units of the gate through which layer `layer` takes the lower layer's cell, if it has one.
    fn depth_gate(&self, _layer: usize) -> Option<usize> {
        None
    }

    /// Which columns of a layer's tensor compute gates, by what its name says after `core.<k>.`; `None` where the kind does
    /// not tell them apart.
    fn gate_columns(&self, _name: &str) -> Option<Range<usize>> {
        None
    }

    /// Refuses settings that no core of this kind can have.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// The core in a few words, for people.
    fn describe(&self) -> String;

    /// The core, for inputs of `input_size`; layer k's weights are under `core.<k>`.
    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>>;
}
