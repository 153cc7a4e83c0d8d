//! The filters of a convolution over characters, as the kernel and its reference take them.

use candle_core::Tensor;

/// The filters of one width.
pub struct Filters {
    /// Characters that a filter sees at a time.
    pub width: usize,
    /// `(width · char size, filters)`.
    pub weight: Tensor,
    /// `(filters)`.
    pub bias: Tensor,
}
