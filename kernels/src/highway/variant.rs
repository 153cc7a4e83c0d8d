//! The forms of a highway layer that Greff et al. (2017, arXiv 1612.07771) compare: which gates a layer has, and what
//! they weigh.

/// What a layer makes of its candidate H and of its input y; see [`mod@crate::highway`] for the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `y + T ⊙ (H − y)`, of Srivastava et al. (2015).
    Coupled,
    /// `H ⊙ T + y ⊙ C`
    Full,
    /// `H + y ⊙ C`
    CarryOnly,
    /// `H ⊙ T + y`
    TransformOnly,
    /// `H + y`
    Residual,
    /// `H`
    Plain,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 6] =
        [Self::Coupled, Self::Full, Self::CarryOnly, Self::TransformOnly, Self::Residual, Self::Plain];

    /// Columns of the products in units of the layer's size: H, then T, then C, those that there are.
    pub fn columns(self) -> usize {
        1 + self.gate_signs().len()
    }

    /// For each gate, in the order of the columns, the sign with which the transform bias is added to it: a gate that
    /// carries starts open where one that transforms starts shut.
    pub(crate) fn gate_signs(self) -> &'static [f64] {
        match self {
            Self::Coupled | Self::TransformOnly => &[1.0],
            Self::Full => &[1.0, -1.0],
            Self::CarryOnly => &[-1.0],
            Self::Residual | Self::Plain => &[],
        }
    }
}
