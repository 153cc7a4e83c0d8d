//! A product with weights, by the kernels of [`crate::cpu`] or a GPU's library, and its gradient.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod nats;
mod stored;

pub use stored::Stored;

use crate::backend::Backend;
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::cpu::real::{self, by_float};
use crate::error::Result;
use crate::gradients::{hand_over, hand_over_product, takes_product};
use crate::linear::cpu::Dense;
use crate::precision::Precision;
use crate::softmax::{check_targets, nats_of_products};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp2, D, DType, Layout, Result as CandleResult, Shape, Tensor, WithDType,
};
use std::sync::Arc;

/// `xs W`: `(…, input)` to `(…, output)`, of any dimensions before the last.
///
/// On the CPU that is one operation: a reshape of candle's before it and one behind it would each copy a gradient.
pub fn linear(xs: &Tensor, weight: &Tensor, stored: Stored, precision: Precision) -> Result<Tensor> {
    let backend = Backend::of(xs);
    if backend != Backend::Cpu && xs.rank() != 2 {
        let (shape, input) = rows_of(xs.shape())?;
        let products = linear(&xs.reshape(((), input))?, weight, stored, precision)?;
        return Ok(products.reshape(with_last(shape, products.dim(1)?))?);
    }
    if backend == Backend::Plain {
        return Ok(match stored {
            Stored::ByInput => xs.matmul(weight)?,
            Stored::ByOutput => xs.matmul(&weight.t()?)?,
        });
    }
    Ok(xs.contiguous()?.apply_op2(&weight.contiguous()?, Linear { stored, precision })?)
}

/// The dimensions of `shape` before the last, and the last.
fn rows_of(shape: &Shape) -> CandleResult<(&[usize], usize)> {
    match shape.dims() {
        [rows @ .., last] => Ok((rows, *last)),
        [] => candle_core::bail!("a number has no rows"),
    }
}

/// `rows` with one more dimension.
fn with_last(rows: &[usize], last: usize) -> Shape {
    Shape::from([rows, &[last]].concat())
}

/// A weight that does not change while this exists, laid out for its kernel.
pub struct Prepared {
    packed: Packed,
    output: usize,
}

enum Packed {
    F32(Arc<dyn Dense<f32>>),
    F64(Arc<dyn Dense<f64>>),
    /// Elsewhere than on the CPU: as it was.
    Plain {
        weight: Tensor,
        stored: Stored,
        precision: Precision,
    },
}

impl Prepared {
    /// Packs `weight`, which is as `stored` says.
    pub fn new(weight: &Tensor, stored: Stored, precision: Precision) -> Result<Self> {
        let (first, second) = weight.dims2()?;
        let output = if stored == Stored::ByInput { second } else { first };
        let weight = weight.contiguous()?.detach();
        let packed = match (weight.device().is_cpu(), weight.dtype()) {
            (true, DType::F32) => Packed::F32(pack(&weight, stored, precision.rounds())?),
            (true, DType::F64) => Packed::F64(pack(&weight, stored, false)?),
            _ => Packed::Plain { weight, stored, precision },
        };
        Ok(Self { packed, output })
    }

    /// `xs W`: `(…, input)` to `(…, output)`; its history is not followed.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (shape, _) = rows_of(xs.shape())?;
        let rows = shape.iter().product::<usize>();
        let xs = xs.contiguous()?;
        macro_rules! run {
            ($dense:expr) => {{
                let mut out = vec![Default::default(); rows * self.output];
                real::with_elements([&xs], |[xs]| $dense.multiply(xs, rows, &mut out))?;
                Ok(Tensor::from_vec(out, with_last(shape, self.output), xs.device())?)
            }};
        }
        match &self.packed {
            Packed::F32(dense) => run!(dense),
            Packed::F64(dense) => run!(dense),
            Packed::Plain { weight, stored, precision } => linear(&xs, weight, *stored, *precision),
        }
    }

    /// `−ln softmax(xs W + bias)[target]` of each row, `(rows)`, of `xs` `(rows, input)`, `bias` `(output)` and `targets`, `(rows)` of
    /// u32, each below the number of outputs. No history is followed; on the CPU no logits are kept.
    pub fn nats(&self, xs: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
        if matches!(self.packed, Packed::Plain { .. }) {
            return nats_of_products(&self.forward(xs)?, bias, targets);
        }
        let (rows, _) = xs.dims2()?;
        let targets = targets.to_vec1::<u32>()?;
        check_targets(&targets, rows, self.output)?;
        let xs = xs.contiguous()?;
        macro_rules! run {
            ($dense:expr) => {{
                let mut nats = vec![Default::default(); rows];
                real::with_elements([&xs, bias], |[xs, bias]| $dense.nats(xs, bias, &targets, &mut nats))?;
                Ok(Tensor::from_vec(nats, rows, xs.device())?)
            }};
        }
        match &self.packed {
            Packed::F32(dense) => run!(dense),
            Packed::F64(dense) => run!(dense),
            Packed::Plain { .. } => unreachable!("handled above"),
        }
    }

    /// The weight for one row after another; `None` but on the CPU in single precision.
    pub fn rows(&self) -> Option<Rows> {
        match &self.packed {
            Packed::F32(dense) => Some(Rows { dense: dense.clone(), out: vec![0.0; self.output] }),
            _ => None,
        }
    }
}

/// One row after another, on shared weights; nothing is allocated for a row.
pub struct Rows {
    dense: Arc<dyn Dense<f32>>,
    out: Vec<f32>,
}

impl Rows {
    /// `xs W`: `(input)` to `(output)`.
    pub fn multiply(&mut self, xs: &[f32]) -> &[f32] {
        self.dense.multiply(xs, 1, &mut self.out);
        &self.out
    }
}

fn pack<T: Computed>(weight: &Tensor, stored: Stored, bf16: bool) -> CandleResult<Arc<dyn Dense<T>>> {
    let (first, second) = weight.dims2()?;
    real::with_elements([weight], |[weight]| {
        let (input, output) = if stored == Stored::ByInput { (first, second) } else { (second, first) };
        cpu::pack(stored.view(weight, input, output), bf16)
    })
}

struct Linear {
    stored: Stored,
    precision: Precision,
}

impl Linear {
    /// `grad Wᵀ`, in the shape of `xs`.
    fn input_grad<T: Computed>(&self, xs: &Tensor, weight: &Tensor, grad: &Tensor) -> CandleResult<Tensor> {
        let (shape, input) = rows_of(xs.shape())?;
        let rows = shape.iter().product();
        let output = grad.dim(D::Minus1)?;
        let mut out = vec![T::zero(); rows * input];
        real::with_elements([weight, grad], |[weight, grad]: [&[T]; 2]| {
            let a = View::new(grad, rows, output);
            let b = self.stored.view(weight, input, output).t();
            product(Target::new(&mut out, rows, input), a, b, false, self.precision.rounds());
        })?;
        Tensor::from_vec(out, xs.shape(), grad.device())
    }

    /// `xsᵀ grad`, as the weight is stored, not multiplied out.
    fn weight_product(&self, xs: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 2]> {
        let [xs, grad] = [xs, grad].map(|tensor| {
            let (_, width) = rows_of(tensor.shape())?;
            tensor.detach().contiguous()?.reshape((1, (), width))
        });
        let (xs, grad) = (xs?, grad?);
        Ok(if self.stored == Stored::ByInput { [xs, grad] } else { [grad, xs] })
    }

    /// `xsᵀ grad`, as the weight is stored.
    fn weight_grad<T: Computed>(&self, xs: &Tensor, grad: &Tensor) -> CandleResult<Tensor> {
        let (shape, input) = rows_of(xs.shape())?;
        let rows = shape.iter().product();
        let output = grad.dim(D::Minus1)?;
        let mut out = vec![T::zero(); input * output];
        real::with_elements([xs, grad], |[xs, grad]: [&[T]; 2]| {
            let xs = View::new(xs, rows, input);
            self.stored.weight_grad(
                &mut out,
                xs,
                View::new(grad, rows, output),
                false,
                self.precision.rounds(),
            );
        })?;
        let shape = if self.stored == Stored::ByInput { (input, output) } else { (output, input) };
        Tensor::from_vec(out, shape, grad.device())
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (shape, input) = rows_of(xs_layout.shape())?;
        let rows = shape.iter().product();
        let (first, second) = weight_layout.shape().dims2()?;
        let (wanted, output) = if self.stored == Stored::ByInput { (first, second) } else { (second, first) };
        if wanted != input {
            candle_core::bail!("rows of {input} values do not fit a weight for {wanted}");
        }
        let storage = by_float!(xs.dtype(), T => {
            let weight = self.stored.view(real::elements::<T>(weight, weight_layout)?, input, output);
            let xs = View::new(real::elements(xs, xs_layout)?, rows, input);
            let mut out = vec![T::default(); rows * output];
            product(Target::new(&mut out, rows, output), xs, weight, false, self.precision.rounds());
            T::to_cpu_storage_owned(out)
        });
        Ok((storage, with_last(shape, output)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        xs_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        self.forward_on_gpu((xs, xs_layout), (weight, weight_layout))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        #[cfg(feature = "cuda")]
        if grad.device().is_cuda() {
            let [of_xs, of_weight] = self.grads_on_gpu(xs, weight, &grad)?;
            return Ok((handed(xs, of_xs)?, handed(weight, of_weight)?));
        }
        let xs_grad = || by_float!(xs.dtype(), T => self.input_grad::<T>(xs, weight, &grad));
        let weight_grad = || by_float!(xs.dtype(), T => self.weight_grad::<T>(xs, &grad));
        let of_xs = xs.track_op().then(xs_grad).transpose()?;
        if !self.precision.rounds() && takes_product(weight, rows_of(xs.shape())?.0.iter().product()) {
            let [left, right] = self.weight_product(xs, &grad)?;
            hand_over_product(weight, left, right)?;
            return Ok((handed(xs, of_xs)?, None));
        }
        let of_weight = weight.track_op().then(weight_grad).transpose()?;
        Ok((handed(xs, of_xs)?, handed(weight, of_weight)?))
    }
}

fn handed(operand: &Tensor, gradient: Option<Tensor>) -> CandleResult<Option<Tensor>> {
    match gradient {
        Some(gradient) => hand_over(operand, gradient),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Precision, Prepared, Stored, linear};
    use candle_core::{Device, Tensor, Var};

    fn counted(rows: usize, columns: usize, scale: f64) -> Var {
        let values: Vec<f64> = (0..rows * columns).map(|i| scale * ((i * 7 % 11) as f64 - 5.0)).collect();
        Var::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn value_and_gradients_are_those_of_a_matrix_product() {
        for stored in [Stored::ByInput, Stored::ByOutput] {
            let rows = 3;
            let input = 5;
            let output = 4;
            let xs = counted(rows, input, 0.5);
            let by_input = stored == Stored::ByInput;
            let weight = if by_input { counted(input, output, 0.25) } else { counted(output, input, 0.25) };
            let targets = counted(rows, output, 1.0);
            let run = |out: Tensor| {
                let grads = (&out * targets.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
                let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                [flat(&out), flat(grads.get(&xs).unwrap()), flat(grads.get(&weight).unwrap())]
            };
            let plain = if by_input { weight.as_tensor().clone() } else { weight.t().unwrap() };
            assert_eq!(
                run(linear(&xs, &weight, stored, Precision::F64).unwrap()),
                run(xs.matmul(&plain).unwrap())
            );
        }
    }

    #[test]
    fn dimensions_before_the_last_are_kept() {
        let xs = counted(6, 5, 0.5);
        for stored in [Stored::ByInput, Stored::ByOutput] {
            let by_input = stored == Stored::ByInput;
            let weight = if by_input { counted(5, 4, 0.25) } else { counted(4, 5, 0.25) };
            let run = |shape: &[usize]| {
                let xs = Var::from_tensor(&xs.reshape(shape).unwrap()).unwrap();
                let found = linear(&xs, &weight, stored, Precision::F64).unwrap();
                let prepared = Prepared::new(&weight, stored, Precision::F64).unwrap().forward(&xs).unwrap();
                assert_eq!(
                    [found.dims(), prepared.dims()],
                    [&[&shape[..shape.len() - 1], &[4]].concat()[..]; 2]
                );
                let grads = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let of_xs = grads.get(&xs).unwrap();
                assert_eq!(of_xs.dims(), shape);
                [&found, &prepared, of_xs, grads.get(&weight).unwrap()]
                    .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap())
            };
            let wanted = run(&[6, 5]);
            assert_eq!(run(&[2, 3, 5]), wanted);
            assert_eq!(run(&[3, 1, 2, 5]), wanted);
        }
    }

    #[test]
    fn a_prepared_weight_gives_the_same_products() {
        for stored in [Stored::ByInput, Stored::ByOutput] {
            for (rows, input, output) in [(1, 5, 37), (7, 33, 4), (20, 830, 50)] {
                let xs = counted(rows, input, 0.5);
                let by_input = stored == Stored::ByInput;
                let weight =
                    if by_input { counted(input, output, 0.25) } else { counted(output, input, 0.25) };
                let flat = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let wanted = flat(linear(&xs, &weight, stored, Precision::F64).unwrap());
                let prepared = Prepared::new(&weight, stored, Precision::F64).unwrap();
                assert_eq!(flat(prepared.forward(&xs).unwrap()), wanted); // sums of quarters are exact
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_an_error() {
        assert!(linear(&counted(2, 3, 1.0), &counted(4, 2, 1.0), Stored::ByInput, Precision::F64).is_err());
    }
}
