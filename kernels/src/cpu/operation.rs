//! Operations on three tensors that the CPU computes in f32 or f64, with a backward pass of their own.

use crate::cpu::instruction_set::Computed;
use crate::cpu::real::{by_float, elements, with_elements};
use crate::gradients::{hand_over, hand_over_product, takes_product};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// An operation on the elements of three contiguous tensors.
pub(crate) trait Operation: Send + Sync {
    /// The name in messages.
    const NAME: &'static str;

    /// The result and its shape.
    fn forward<T: Computed>(&self, operands: [&[T]; 3], shapes: [&Shape; 3]) -> Result<(Vec<T>, Shape)>;

    /// The operands' gradients, from the operands, the result `out` and its gradient.
    fn backward<T: Computed>(&self, operands: [&[T]; 3], out: &[T], grad: &[T]) -> [Vec<T>; 3];

    /// Rows over which the second operand's gradient is a product of two matrices, if [`Operation::backward_in_parts`] can
    /// give it as that.
    fn inner(&self) -> Option<usize> {
        None
    }

    /// As [`Operation::backward`]; of the second operand the factors, `(inner, rows)` and `(inner, columns)`. Only where
    /// there is an [`Operation::inner`].
    fn backward_in_parts<T: Computed>(
        &self,
        _operands: [&[T]; 3],
        _out: &[T],
        _grad: &[T],
    ) -> ([Vec<T>; 2], [Vec<T>; 2]) {
        unreachable!("{} has no gradient in parts", Self::NAME)
    }
}

/// Applies `operation` to tensors of f32 or f64 on the CPU.
pub(crate) fn apply(operation: impl Operation + 'static, [a, b, c]: [&Tensor; 3]) -> Result<Tensor> {
    a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Candle(operation))
}

/// The operation as candle takes it.
struct Candle<O>(O);

impl<O: Operation> Candle<O> {
    fn grads<T: Computed>(&self, tensors: [&Tensor; 5]) -> Result<[Option<Tensor>; 3]> {
        if let Some(inner) = self.0.inner().filter(|&inner| takes_product(tensors[1], inner)) {
            return self.grads_in_parts::<T>(tensors, inner);
        }
        let grads =
            with_elements(tensors, |[a, b, c, out, grad]| self.0.backward::<T>([a, b, c], out, grad))?;
        let mut given = [const { None }; 3];
        for ((given, grad), operand) in given.iter_mut().zip(grads).zip(tensors) {
            *given = hand_over(operand, Tensor::from_vec(grad, operand.shape(), operand.device())?)?;
        }
        Ok(given)
    }

    fn grads_in_parts<T: Computed>(
        &self,
        tensors: [&Tensor; 5],
        inner: usize,
    ) -> Result<[Option<Tensor>; 3]> {
        let [a, b, c, ..] = tensors;
        let ([of_a, of_c], factors) = with_elements(tensors, |[a, b, c, out, grad]| {
            self.0.backward_in_parts::<T>([a, b, c], out, grad)
        })?;
        let factor = |values: Vec<T>| {
            let columns = values.len() / inner.max(1);
            Tensor::from_vec(values, (1, inner, columns), b.device())
        };
        let [left, right] = factors.map(factor);
        hand_over_product(b, left?, right?)?;
        Ok([
            hand_over(a, Tensor::from_vec(of_a, a.shape(), a.device())?)?,
            None,
            hand_over(c, Tensor::from_vec(of_c, c.shape(), c.device())?)?,
        ])
    }
}

impl<O: Operation> CustomOp3 for Candle<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shapes = [a_layout.shape(), b_layout.shape(), c_layout.shape()];
        by_float!(a.dtype(), T => {
            let operands = [elements::<T>(a, a_layout)?, elements(b, b_layout)?, elements(c, c_layout)?];
            let (values, shape) = self.0.forward(operands, shapes)?;
            Ok((candle_core::WithDType::to_cpu_storage_owned(values), shape))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [a, b, c] = by_float!(grad.dtype(), T => self.grads::<T>([a, b, c, out, &grad])?);
        Ok((a, b, c))
    }
}
