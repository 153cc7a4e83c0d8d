//! What a highway layer (Srivastava et al., 2015) does with its products, in one pass forward and one back.
//!
//! ```text
//! H = ReLU(z_h + b_h)      T = sigmoid(z_t + b_t + t)      C = sigmoid(z_c + b_c − t)
//! ```
//!
//! t is the transform bias, a constant beside the trained biases. A [`Variant`] says which of T and C a layer has and
//! how they mix H with the layer's input.

mod cpu;
pub mod reference;
mod variant;

pub use variant::Variant;

use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::{self, Operation};
use crate::error::Result;
use crate::highway::cpu::{Backward, Forward, Inputs};
use candle_core::{Result as CandleResult, Shape, Tensor};

/// A highway layer's values from its products: `(rows, size)`.
///
/// - `products`: `(rows, columns · size)` and `bias`: `(columns · size)`, of H, then of T, then of C, as far as
///   `variant` has them ([`Variant::columns`])
/// - `ys`: `(rows, size)`, the layer's input
/// - `transform_bias` is added to T's products and taken from C's
pub fn highway(
    variant: Variant,
    products: &Tensor,
    bias: &Tensor,
    ys: &Tensor,
    transform_bias: f64,
) -> Result<Tensor> {
    if Backend::of(products) == Backend::Cpu {
        return Ok(operation::apply(Highway { variant, transform_bias }, [products, bias, ys])?);
    }
    reference::highway(variant, products, bias, ys, transform_bias)
}

struct Highway {
    variant: Variant,
    transform_bias: f64,
}

impl Highway {
    fn inputs<'a, T: Computed>(&self, [products, bias, ys]: [&'a [T]; 3]) -> Inputs<'a, T> {
        let transform_bias = T::from_f64(self.transform_bias);
        Inputs { variant: self.variant, products, bias, ys, transform_bias }
    }
}

impl Operation for Highway {
    const NAME: &'static str = "highway";

    fn forward<T: Computed>(
        &self,
        operands: [&[T]; 3],
        shapes: [&Shape; 3],
    ) -> CandleResult<(Vec<T>, Shape)> {
        let (rows, size) = shapes[2].dims2()?;
        let width = self.variant.columns() * size;
        if shapes[0].dims() != [rows, width] || shapes[1].dims() != [width] {
            candle_core::bail!(
                "products of {:?} with a bias of {:?} do not fit a {:?} layer of {rows} rows of {size}",
                shapes[0],
                shapes[1],
                self.variant
            );
        }
        let values = T::with_kernel(false, Forward(self.inputs(operands)));
        Ok((values, shapes[2].clone()))
    }

    fn backward<T: Computed>(&self, operands: [&[T]; 3], _out: &[T], grad: &[T]) -> [Vec<T>; 3] {
        T::with_kernel(false, Backward { inputs: self.inputs(operands), grad })
    }
}
