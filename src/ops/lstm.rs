//! The LSTM recurrence over a whole window, as Kim et al. (2016) use it: no peepholes, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x + (h ⊙ m) R + b)      g = tanh(x + (h ⊙ m) R + b)
//! c = f c + i g                             h = o tanh(c)
//! ```

use super::cpu::dispatch::{Computed, WithKernel};
use super::cpu::kernel::Kernel;
use super::cpu::lstm::{Inputs, Outputs, Packed, Record, Sizes, forward};
use super::cpu::lstm_back::{Grads, backward};
#[cfg(feature = "cuda")]
use super::cuda::lstm as cuda;
use super::hidden_mask::HiddenMask;
use super::precision::Precision;
use super::real::{self, Real};
use super::reference;
use super::steps::StepByStep;
use crate::error::Result;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result as CandleResult, Shape, Tensor};
use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
    let op = Lstm { state: [h?, c?], mask, records, precision, cell: cell.clone(), tape: Mutex::new(None) };
    let outputs = projected.contiguous()?.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?;
    let cell = cell.get().expect("the operation has run").clone();
    Ok((outputs, cell))
}

/// Whether the operation computes this tensor's window.
fn has_kernel(projected: &Tensor) -> bool {
    match projected.dtype() {
        DType::F32 => projected.device().is_cpu() || projected.device().is_cuda(),
        DType::F64 => projected.device().is_cpu(),
        _ => false,
    }
}

/// Recurrent weights that do not change while this exists, laid out for their kernel.
pub struct Prepared {
    packed: Packs,
    recurrent: Tensor,
    bias: Tensor,
    precision: Precision,
}

enum Packs {
    F32(Box<dyn Recurrence<f32>>),
    F64(Box<dyn Recurrence<f64>>),
    /// Elsewhere than on the CPU.
    None,
}

impl Prepared {
    /// Packs the weights; shapes as in [`lstm`].
    pub fn new(recurrent: &Tensor, bias: &Tensor, precision: Precision) -> Result<Self> {
        let (hidden, _) = recurrent.dims2()?;
        let (recurrent, bias) = (recurrent.contiguous()?.detach(), bias.contiguous()?.detach());
        macro_rules! pack {
            ($kind:ident, $t:ty) => {
                Packs::$kind(real::with_elements::<$t, _>(&recurrent, |recurrent| {
                    Ok(<$t>::with_kernel(precision.rounds(), Pack { recurrent, hidden }))
                })?)
            };
        }
        let packed = match (recurrent.device().is_cpu(), recurrent.dtype()) {
            (true, DType::F32) => pack!(F32, f32),
            (true, DType::F64) => pack!(F64, f64),
            _ => Packs::None,
        };
        Ok(Self { packed, recurrent, bias, precision })
    }

    /// As [`lstm`]; the history is not followed.
    pub fn forward(
        &self,
        projected: &Tensor,
        state: [&Tensor; 2],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Tensor)> {
        match &self.packed {
            Packs::F32(packed) => self.run(&**packed, projected, state, mask),
            Packs::F64(packed) => self.run(&**packed, projected, state, mask),
            Packs::None => {
                lstm(&projected.detach(), &self.recurrent, &self.bias, state, mask, self.precision)
            }
        }
    }

    fn run<T: Computed>(
        &self,
        packed: &dyn Recurrence<T>,
        projected: &Tensor,
        state: [&Tensor; 2],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Tensor)> {
        let ((time, batch, _), (hidden, _)) = (projected.dims3()?, self.recurrent.dims2()?);
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
        let (h, c, mask) = (values(state[0])?, values(state[1])?, mask.shared().map(values).transpose()?);
        let (projected, sizes) = (projected.contiguous()?, Sizes { time, batch, hidden });
        let (mut outputs, mut cell) = sizes.zeros::<T>();
        real::with_elements::<T, _>(&projected, |projected| {
            real::with_elements::<T, _>(&self.bias, |bias| {
                let inputs = Inputs { projected, bias, state: [&h, &c], mask: mask.as_deref(), sizes };
                packed.run(&inputs, Outputs { hidden: &mut outputs, cell: &mut cell });
                Ok(())
            })
        })?;
        let device = projected.device();
        let cell = Tensor::from_vec(cell, (batch, hidden), device)?;
        Ok((Tensor::from_vec(outputs, (time, batch, hidden), device)?, cell))
    }

    /// The same for one step after another at batch 1, where the CPU computes in single precision; from the state
    /// zero.
    pub fn steps(&self) -> Result<Option<Steps<'_>>> {
        let Packs::F32(packed) = &self.packed else { return Ok(None) };
        let bias = self.bias.to_vec1()?;
        let zeros = || vec![0.0; bias.len() / 4];
        let state = [zeros(), zeros()];
        Ok(Some(Steps { packed: &**packed, next: state.clone(), state, bias }))
    }
}

/// One step after another at batch 1; nothing is allocated for a step.
pub struct Steps<'a> {
    packed: &'a dyn Recurrence<f32>,
    bias: Vec<f32>,
    /// h and c.
    state: [Vec<f32>; 2],
    next: [Vec<f32>; 2],
}

impl StepByStep for Steps<'_> {
    fn step(&mut self, projected: &[f32]) {
        let ([h, c], [hidden, cell]) = (&self.state, &mut self.next);
        let sizes = Sizes { time: 1, batch: 1, hidden: h.len() };
        let inputs = Inputs { projected, bias: &self.bias, state: [h, c], mask: None, sizes };
        self.packed.run(&inputs, Outputs { hidden, cell });
        std::mem::swap(&mut self.state, &mut self.next);
    }

    fn state(&self) -> &[Vec<f32>] {
        &self.state
    }

    fn state_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}

/// Packed weights of some kernel.
trait Recurrence<T: Real>: Send + Sync {
    fn run(&self, inputs: &Inputs<'_, T>, outputs: Outputs<'_, T>);
}

impl<K: Kernel> Recurrence<K::Element> for Packed<K> {
    fn run(&self, inputs: &Inputs<'_, K::Element>, outputs: Outputs<'_, K::Element>) {
        forward(self, inputs, false, outputs);
    }
}

struct Pack<'a, T> {
    recurrent: &'a [T],
    hidden: usize,
}

impl<T: Real> WithKernel<T> for Pack<'_, T> {
    type Output = Box<dyn Recurrence<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        Box::new(Packed::<K>::new(self.recurrent, self.hidden))
    }
}

/// The candle operation; what its backward pass needs stays inside it.
struct Lstm {
    state: [Tensor; 2],
    mask: Option<Tensor>,
    records: bool,
    precision: Precision,
    /// c after the last step: an operation returns one tensor.
    cell: Arc<OnceLock<Tensor>>,
    /// A [`Record`] of the element type, or what a GPU keeps.
    tape: Mutex<Option<Box<dyn Any + Send>>>,
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
        let tape = record.map(|record| Box::new(record) as Box<dyn Any + Send>);
        self.keep(tape);
        Ok(T::to_cpu_storage_owned(hidden))
    }

    fn keep(&self, tape: Option<Box<dyn Any + Send>>) {
        *self.tape.lock().unwrap_or_else(PoisonError::into_inner) = tape;
    }

    /// What the forward pass kept.
    fn kept<R: 'static>(&self) -> CandleResult<Box<R>> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner).take();
        let record = tape.and_then(|tape| tape.downcast::<R>().ok());
        record.ok_or_else(|| candle_core::Error::Msg("the recurrence's tape was used before".into()))
    }

    fn backward<T: Computed>(&self, recurrent: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 3]> {
        let record = self.kept::<Record<T>>()?;
        let (time, batch, hidden) = grad.dims3()?;
        let grads = real::with_elements::<T, _>(recurrent, |recurrent| {
            real::with_elements::<T, _>(grad, |grad| {
                let work = Backward { record: *record, recurrent, grad };
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
        self.keep(self.records.then(|| Box::new(tape) as Box<dyn Any + Send>));
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
            DType::F32 if grad.device().is_cuda() => cuda::backward(*self.kept()?, &grad)?,
            DType::F64 => self.backward::<f64>(recurrent, &grad)?,
            _ => self.backward::<f32>(recurrent, &grad)?,
        };
        let [projected, recurrent, bias] = grads.map(Some);
        Ok((projected, recurrent, bias))
    }
}
