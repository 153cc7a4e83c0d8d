//! What a highway layer (Srivastava et al., 2015) does with its products, in one pass forward and one back.
//!
//! ```text
//! t = sigmoid(z_t + b_t + shift)      t ReLU(z_h + b_h) + (1 − t) y
//! ```

mod cpu;
pub mod reference;

use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::real;
use crate::error::Result;
use crate::highway::cpu::{Backward, Forward, Grads, Inputs};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor};

/// A highway layer's values from its products: `(rows, size)`.
///
/// - `products`: `(rows, 2 size)` and `bias`: `(2 size)`, of H, then of T; `shift` is added to T's
/// - `ys`: `(rows, size)`, what is carried
pub fn highway(products: &Tensor, bias: &Tensor, ys: &Tensor, shift: f64) -> Result<Tensor> {
    if Backend::of(products) == Backend::Cpu {
        let op = Highway { shift };
        return Ok(products.contiguous()?.apply_op3(&bias.contiguous()?, &ys.contiguous()?, op)?);
    }
    reference::highway(products, bias, ys, shift)
}

/// The candle operation.
struct Highway {
    shift: f64,
}

impl Highway {
    fn backward<T: Computed>(&self, [products, bias, ys, grad]: [&Tensor; 4]) -> CandleResult<[Tensor; 3]> {
        let bias_values = bias.to_vec1::<T>()?;
        let grads = real::with_elements::<T, _>(products, |products| {
            real::with_elements::<T, _>(ys, |ys| {
                real::with_elements::<T, _>(grad, |grad| {
                    let inputs = Inputs { products, bias: &bias_values, ys, shift: T::from_f64(self.shift) };
                    Ok(T::with_kernel(false, Backward { inputs, grad }))
                })
            })
        })?;
        let Grads { products: z, bias: b, ys: y } = grads;
        let device = products.device();
        Ok([
            Tensor::from_vec(z, products.shape(), device)?,
            Tensor::from_vec(b, bias.shape(), device)?,
            Tensor::from_vec(y, ys.shape(), device)?,
        ])
    }
}

impl CustomOp3 for Highway {
    fn name(&self) -> &'static str {
        "highway"
    }

    fn cpu_fwd(
        &self,
        products: &CpuStorage,
        products_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        ys: &CpuStorage,
        ys_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        macro_rules! run {
            ($kind:ident, $t:ty) => {{
                let products = real::elements::<$t>(products, products_layout)?;
                let bias = real::elements(bias, bias_layout)?;
                let ys = real::elements(ys, ys_layout)?;
                let inputs = Inputs { products, bias, ys, shift: self.shift as $t };
                CpuStorage::$kind(<$t>::with_kernel(false, Forward(inputs)))
            }};
        }
        let values = match products {
            CpuStorage::F64(_) => run!(F64, f64),
            _ => run!(F32, f32),
        };
        Ok((values, ys_layout.shape().clone()))
    }

    fn bwd(
        &self,
        products: &Tensor,
        bias: &Tensor,
        ys: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [products, bias, ys] = match products.dtype() {
            DType::F64 => self.backward::<f64>([products, bias, ys, &grad])?,
            _ => self.backward::<f32>([products, bias, ys, &grad])?,
        };
        Ok((Some(products), Some(bias), Some(ys)))
    }
}
