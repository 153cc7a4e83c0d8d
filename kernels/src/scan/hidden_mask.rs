//! Dropout of the recurrent state, as the recurrence and its reference take it.

use candle_core::Tensor;

/// Dropout of the state inside the recurrent products: `(batch, hidden)`, inverted, one draw a window.
#[derive(Clone, Debug, Default)]
pub enum HiddenMask {
    /// Nothing is dropped.
    #[default]
    None,
    /// H and T see the same masked state.
    Shared(Tensor),
    /// H and T each have a mask, as in the authors' Torch7 version.
    Separate {
        /// The mask of H's products.
        h: Tensor,
        /// The mask of T's products.
        t: Tensor,
    },
}

impl HiddenMask {
    /// Whether each gate has a mask of its own, which only the reference takes.
    pub(crate) fn is_separate(&self) -> bool {
        matches!(self, Self::Separate { .. })
    }

    /// The mask of all products, or of H's where each gate has its own.
    pub(crate) fn shared(&self) -> Option<&Tensor> {
        match self {
            Self::None => None,
            Self::Shared(mask) | Self::Separate { h: mask, .. } => Some(mask),
        }
    }
}
