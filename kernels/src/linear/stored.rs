//! How a weight lies in memory.

use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `(input, output)`.
    ByInput,
    /// `(output, input)`, as an embedding that is used for the output layer too.
    ByOutput,
}

impl Stored {
    /// A weight as `(input, output)`.
    pub(crate) fn view<T>(self, weight: &[T], input: usize, output: usize) -> View<'_, T> {
        match self {
            Self::ByInput => View::new(weight, input, output),
            Self::ByOutput => View::new(weight, output, input).t(),
        }
    }

    /// `xsᵀ grad` as the weight is stored, written to `out` or added to it.
    pub(crate) fn weight_grad<T: Computed>(
        self,
        out: &mut [T],
        xs: View<'_, T>,
        grad: View<'_, T>,
        accumulate: bool,
        bf16: bool,
    ) {
        let (a, b) = if self == Self::ByInput { (xs.t(), grad) } else { (grad.t(), xs) };
        product(Target::new(out, a.rows, b.columns), a, b, accumulate, bf16);
    }
}
