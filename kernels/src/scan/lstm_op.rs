//! The LSTM recurrence over a whole window, as Kim et al. (2016) use it: no peepholes, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x + (h ⊙ m) R + b)      g = tanh(x + (h ⊙ m) R + b)
//! c = f c + i g                             h = o tanh(c)
//! ```

pub use crate::scan::lstm_prepared::Prepared;

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real};
use crate::cpu::tile::Kernel;
use crate::error::Result;
use crate::precision::Precision;
use crate::scan::hidden_mask::HiddenMask;
use crate::scan::lstm_cpu::{Inputs, Outputs, Packed, Record, Sizes, forward};
use crate::scan::lstm_cpu_backward::{Grads, backward};
#[cfg(feature = "cuda")]
use crate::scan::lstm_cuda as cuda;
use crate::scan::reference;
use crate::scan::tape::{Tape, has_kernel};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result as CandleResult, Shape, Tensor};
use std::sync::{Arc, OnceLock};

/// h after every time step, `(time, batch, hidden)`, and c after the last, `(batch, hidden)`.
///
/// - `projected`: `(time, batch, 4 hidden)`, the input's products with the weights of i, o, f and g
/// - `recurrent`: `(hidden, 4 hidden)`, columns of i, o, f and g; `bias`: `(4 hidden)`
/// - `state`: h and c, `(batch, hidden)` each; their history is not followed, as truncated back-propagation wants it,
///   nor is that of the c that is returned
/// - `mask`: one for all gates; of separate ones the first counts
///
/// On the CPU, and in single precision on a GPU, kernels with a backward pass of their own do the work; elsewhere
/// [`reference::lstm`] does, in full precision.
pub fn lstm(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: [&Tensor; 2],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Tensor)> {
    if !has_kernel(projected) {
        return reference::lstm(projected, recurrent, bias, state, mask);
    }
    let [h, c] = state.map(|part| part.detach().contiguous());
    let mask = mask.shared().map(Tensor::contiguous).transpose()?;
    let records = projected.track_op() || recurrent.track_op() || bias.track_op();
    let cell = Arc::new(OnceLock::new());
    let op = Lstm { state: [h?, c?], mask, records, precision, cell: cell.clone(), tape: Tape::default() };
    let outputs = projected.contiguous()?.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?;
    let cell = cell.get().expect("the operation has run").clone();
    Ok((outputs, cell))
}

/// The candle operation; what its backward pass needs stays inside it.
struct Lstm {
    state: [Tensor; 2],
    mask: Option<Tensor>,
    records: bool,
    precision: Precision,
    /// c after the last step: an operation returns one tensor.
    cell: Arc<OnceLock<Tensor>>,
    tape: Tape,
}

/// The forward pass on whatever kernel is chosen.
struct Forward<'a, T> {
    recurrent: &'a [T],
    inputs: Inputs<'a, T>,
    records: bool,
    outputs: Outputs<'a, T>,
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Option<Record<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let weights = Packed::<K>::new(self.recurrent, self.inputs.sizes.hidden);
        forward(&weights, &self.inputs, self.records, self.outputs)
    }
}

/// The backward pass on whatever kernel is chosen.
struct Backward<'a, T: Real> {
    record: Record<T>,
    recurrent: &'a [T],
    grad: &'a [T],
}

impl<T: Computed> WithKernel<T> for Backward<'_, T> {
    type Output = Grads<T>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        backward::<K>(self.record, self.recurrent, self.grad)
    }
}

impl Lstm {
    fn forward<T: Computed>(
        &self,
        projected: &[T],
        recurrent: &[T],
        bias: &[T],
        sizes: Sizes,
    ) -> CandleResult<CpuStorage> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
        let [h, c] = self.state.each_ref().map(values);
        let (h, c, mask) = (h?, c?, self.mask.as_ref().map(values).transpose()?);
        let inputs = Inputs { projected, bias, state: [&h, &c], mask: mask.as_deref(), sizes };
        let (mut hidden, mut cell) = sizes.zeros::<T>();
        let outputs = Outputs { hidden: &mut hidden, cell: &mut cell };
        let work = Forward { recurrent, inputs, records: self.records, outputs };
        let record = T::with_kernel(self.precision.rounds(), work);
        let cell = Tensor::from_vec(cell, (sizes.batch, sizes.hidden), &Device::Cpu)?;
        self.cell.set(cell).expect("the operation runs once");
        self.tape.keep(record);
        Ok(T::to_cpu_storage_owned(hidden))
    }

    fn backward<T: Computed>(&self, recurrent: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 3]> {
        let record = self.tape.take::<Record<T>>()?;
        let (time, batch, hidden) = grad.dims3()?;
        let grads = real::with_elements::<T, _>(recurrent, |recurrent| {
            real::with_elements::<T, _>(grad, |grad| {
                let work = Backward { record, recurrent, grad };
                Ok(T::with_kernel(self.precision.rounds(), work))
            })
        })?;
        let device = grad.device();
        Ok([
            Tensor::from_vec(grads.projected, (time, batch, 4 * hidden), device)?,
            Tensor::from_vec(grads.recurrent, (hidden, 4 * hidden), device)?,
            Tensor::from_vec(grads.bias, 4 * hidden, device)?,
        ])
    }
}

impl CustomOp3 for Lstm {
    fn name(&self) -> &'static str {
        "lstm-recurrence"
    }

    fn cpu_fwd(
        &self,
        projected: &CpuStorage,
        projected_layout: &Layout,
        recurrent: &CpuStorage,
        recurrent_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (time, batch, _) = projected_layout.shape().dims3()?;
        let (hidden, _) = recurrent_layout.shape().dims2()?;
        let sizes = Sizes { time, batch, hidden };
        macro_rules! run {
            ($t:ty) => {
                self.forward::<$t>(
                    real::elements(projected, projected_layout)?,
                    real::elements(recurrent, recurrent_layout)?,
                    real::elements(bias, bias_layout)?,
                    sizes,
                )?
            };
        }
        let outputs = match projected {
            CpuStorage::F64(_) => run!(f64),
            _ => run!(f32),
        };
        Ok((outputs, (time, batch, hidden).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        projected: &CudaStorage,
        projected_layout: &Layout,
        recurrent: &CudaStorage,
        recurrent_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        let (time, batch, _) = projected_layout.shape().dims3()?;
        let (hidden, _) = recurrent_layout.shape().dims2()?;
        let sizes = cuda::Sizes { time, batch, depth: 1, hidden, gates: 4 };
        let parts = [(projected, projected_layout), (recurrent, recurrent_layout), (bias, bias_layout)];
        let (outputs, cell, tape) =
            cuda::forward(parts, &self.state, self.mask.as_ref(), sizes, self.precision)?;
        self.cell.set(cell).expect("the operation runs once");
        self.tape.keep(self.records.then_some(tape));
        Ok((outputs, (time, batch, hidden).into()))
    }

    fn bwd(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        _bias: &Tensor,
        _outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grads = match projected.dtype() {
            #[cfg(feature = "cuda")]
            DType::F32 if grad.device().is_cuda() => cuda::backward(self.tape.take()?, &grad)?,
            DType::F64 => self.backward::<f64>(recurrent, &grad)?,
            _ => self.backward::<f32>(recurrent, &grad)?,
        };
        let [projected, recurrent, bias] = grads.map(Some);
        Ok((projected, recurrent, bias))
    }
}
