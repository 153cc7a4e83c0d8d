//! The filters of a convolution over letters, as the kernel and its oracle take them.

use candle_core::Tensor;

/// The filters of one width.
pub struct Filters {
    /// Letters that a filter sees at a time.
    pub width: usize,
    /// `(width · char size, filters)`.
    pub weight: Tensor,
    /// `(filters)`.
    pub bias: Tensor,
}
