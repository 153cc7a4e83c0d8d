//! What a highway layer (Srivastava et al., 2015) does with its products, in one pass forward and one back.
//!
//! ```text
//! t = sigmoid(z_t + b_t + shift)      t ReLU(z_h + b_h) + (1 − t) y
//! ```

mod cpu;
pub mod reference;

use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::{self, Operation};
use crate::error::Result;
use crate::highway::cpu::{Backward, Forward, Inputs};
use candle_core::{Result as CandleResult, Shape, Tensor};

/// A highway layer's values from its products: `(rows, size)`.
///
/// - `products`: `(rows, 2 size)` and `bias`: `(2 size)`, of H, then of T; `shift` is added to T's
/// - `ys`: `(rows, size)`, what is carried
pub fn highway(products: &Tensor, bias: &Tensor, ys: &Tensor, shift: f64) -> Result<Tensor> {
    if Backend::of(products) == Backend::Cpu {
        return Ok(operation::apply(Highway { shift }, [products, bias, ys])?);
    }
    reference::highway(products, bias, ys, shift)
}

struct Highway {
    shift: f64,
}

impl Highway {
    fn inputs<'a, T: Computed>(&self, [products, bias, ys]: [&'a [T]; 3]) -> Inputs<'a, T> {
        Inputs { products, bias, ys, shift: T::from_f64(self.shift) }
    }
}

impl Operation for Highway {
    const NAME: &'static str = "highway";

    fn forward<T: Computed>(
        &self,
        operands: [&[T]; 3],
        shapes: [&Shape; 3],
    ) -> CandleResult<(Vec<T>, Shape)> {
        let values = T::with_kernel(false, Forward(self.inputs(operands)));
        Ok((values, shapes[2].clone()))
    }

    fn backward<T: Computed>(&self, operands: [&[T]; 3], _out: &[T], grad: &[T]) -> [Vec<T>; 3] {
        T::with_kernel(false, Backward { inputs: self.inputs(operands), grad })
    }
}
