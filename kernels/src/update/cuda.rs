//! Whether a step may change anything, decided on the GPU and obeyed there: nothing is read until somebody asks.
//!
//! A step whose loss, gradient or update is not finite changes nothing. So many of them may be passed over; the next
//! one halts all that comes after it, so that weights, moments and states stay as they were before.

use crate::cuda::launch::{blocks, cover, launch, room, size, tensor, with_elements};
use crate::update::guard::{AdamRule, JudgeRule, Judged, Record};
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{CudaDevice, DType, Device, Result, Tensor, Var};
use std::cell::RefCell;

/// Elements of a tensor that one block sums; `PIECE` of update.cu.
const PIECE: usize = 16384;
/// As control.cuh numbers them.
const UPDATES: usize = 2;
const ALLOWED: usize = 3;
const RECORDS: usize = 7;

/// What steps may change and what they did, in the GPU's memory.
pub struct Control {
    device: CudaDevice,
    values: RefCell<CudaSlice<f64>>,
    dtype: DType,
    /// How many steps are recorded before somebody must ask.
    room: usize,
}

/// The kernels of an element type.
trait Kernels: CudaDType + DeviceRepr {
    const SQUARES: &'static str;
    const JUDGE: &'static str;
    const SGD: &'static str;
    const ADAM: &'static str;
    const CARRY: &'static str;
    /// The largest number that is finite.
    const LIMIT: f64;
}

impl Kernels for f32 {
    const SQUARES: &'static str = "squares_f32";
    const JUDGE: &'static str = "judge_f32";
    const SGD: &'static str = "sgd_f32";
    const ADAM: &'static str = "adam_f32";
    const CARRY: &'static str = "carry_f32";
    const LIMIT: f64 = f32::MAX as f64;
}

impl Kernels for f64 {
    const SQUARES: &'static str = "squares_f64";
    const JUDGE: &'static str = "judge_f64";
    const SGD: &'static str = "sgd_f64";
    const ADAM: &'static str = "adam_f64";
    const CARRY: &'static str = "carry_f64";
    const LIMIT: f64 = f64::MAX;
}

/// Calls a method for the element type.
macro_rules! by_type {
    ($self:expr, $method:ident($($argument:expr),*)) => {
        match $self.dtype {
            DType::F64 => $self.$method::<f64>($($argument),*),
            _ => $self.$method::<f32>($($argument),*),
        }
    };
}

impl Control {
    /// For weights of type `dtype` on `device`, with memory for `room` steps' records; `None` if it is no GPU.
    pub fn on(device: &Device, dtype: DType, room: usize) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let values = RefCell::new(device.alloc_zeros::<f64>(RECORDS + 3 * room)?);
        Ok(Some(Self { device: device.clone(), values, dtype, room }))
    }

    /// How many steps are recorded before somebody must ask.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Sets how many updates were made before, and how many steps may yet be passed over.
    pub fn set(&self, updates: u64, allowed: u64) -> Result<()> {
        let mut values = self.device.clone_dtoh(&*self.values.borrow())?;
        values[UPDATES] = updates as f64;
        values[ALLOWED] = allowed as f64;
        self.device.memcpy_htod(&values, &mut *self.values.borrow_mut())
    }

    /// The updates so far, and the first `count` records; waits for the steps that made them.
    pub fn read(&self, count: usize) -> Result<(u64, Vec<Record>)> {
        let values = self.device.clone_dtoh(&*self.values.borrow())?;
        let records = values[RECORDS..].chunks_exact(3).take(count);
        let record = |of: &[f64]| Record { nats: of[0], grad_norm: of[1], judged: Judged::of(of[2]) };
        Ok((values[UPDATES] as u64, records.map(record).collect()))
    }

    /// Judges a step by its `nats` and the gradients beside their parameters, and enters it as record `index`.
    pub fn judge(
        &self,
        nats: &Tensor,
        pairs: &[(&Tensor, &Var)],
        rule: &JudgeRule,
        index: usize,
    ) -> Result<()> {
        by_type!(self, judge_in(nats, pairs, rule, index))
    }

    fn judge_in<T: Kernels>(
        &self,
        nats: &Tensor,
        pairs: &[(&Tensor, &Var)],
        rule: &JudgeRule,
        index: usize,
    ) -> Result<()> {
        let device = &self.device;
        let of = |(_, var): &(&Tensor, &Var)| var.elem_count().div_ceil(PIECE);
        let pieces: usize = pairs.iter().map(of).sum();
        let (mut sums, mut done) = (room::<f64>(device, pieces)?, 0);
        for pair @ (grad, var) in pairs {
            let (count, next) = (var.elem_count(), done + of(pair));
            with_elements::<T, _>(&grad.contiguous()?, |grad| {
                with_elements::<T, _>(var, |parameter| {
                    let (config, count) = (blocks(of(pair), 256), size(count)?);
                    let mut sums = sums.slice_mut(done..next);
                    let decay = &rule.decay;
                    launch!(device, "update", T::SQUARES, config, grad, parameter, decay, &count, &mut sums)
                })
            })?;
            done = next;
        }
        with_elements::<T, _>(&nats.flatten_all()?.contiguous()?, |nats| {
            let (rows, pieces, index) = (size(nats.len())?, size(pieces)?, size(index)?);
            let (mut values, adam) = (self.values.borrow_mut(), u32::from(rule.adam));
            let JudgeRule { rate, max_norm, beta1, beta2, .. } = rule;
            let values = &mut *values;
            launch!(
                device,
                "update",
                T::JUDGE,
                blocks(1, 256),
                nats,
                &rows,
                &sums,
                &pieces,
                values,
                &index,
                rate,
                max_norm,
                beta1,
                beta2,
                &adam,
                &T::LIMIT
            )
        })
    }

    /// θ ← θ − rate · (scale · (g + decay · θ)), if the step is applied.
    pub fn sgd(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()> {
        by_type!(self, sgd_in(parameter, grad, rate, decay))
    }

    fn sgd_in<T: Kernels>(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()> {
        let (device, values, count) = (&self.device, self.values.borrow(), parameter.elem_count());
        with_elements::<T, _>(&grad.contiguous()?, |grad| {
            with_elements::<T, _>(parameter, |parameter| {
                let (config, values, count) = (cover(count), &*values, size(count)?);
                launch!(device, "update", T::SGD, config, parameter, grad, values, &rate, &decay, &count)
            })
        })
    }

    /// One step of Adam or AdamW on a parameter and its moments `(2, …)`, if the step is applied.
    pub fn adam(&self, parameter: &Var, moments: &Var, grad: &Tensor, rule: &AdamRule) -> Result<()> {
        by_type!(self, adam_in(parameter, moments, grad, rule))
    }

    fn adam_in<T: Kernels>(
        &self,
        parameter: &Var,
        moments: &Var,
        grad: &Tensor,
        rule: &AdamRule,
    ) -> Result<()> {
        let (device, values, count) = (&self.device, self.values.borrow(), parameter.elem_count());
        let AdamRule { rate, beta1, beta2, epsilon, decay, decoupled } = rule;
        with_elements::<T, _>(&grad.contiguous()?, |grad| {
            with_elements::<T, _>(moments, |moments| {
                with_elements::<T, _>(parameter, |parameter| {
                    let (config, values, count) = (cover(count), &*values, size(count)?);
                    launch!(
                        device,
                        "update",
                        T::ADAM,
                        config,
                        parameter,
                        moments,
                        grad,
                        values,
                        rate,
                        beta1,
                        beta2,
                        epsilon,
                        decay,
                        decoupled,
                        &count
                    )
                })
            })
        })
    }

    /// `after` if the step was applied, else `before`; in memory of its own.
    pub fn carry(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        by_type!(self, carry_in(after, before))
    }

    fn carry_in<T: Kernels>(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        let (device, values, count) = (&self.device, self.values.borrow(), after.elem_count());
        let mut out = room::<T>(device, count)?;
        with_elements::<T, _>(&after.contiguous()?, |after| {
            with_elements::<T, _>(&before.contiguous()?, |before| {
                let (values, count32) = (&*values, size(count)?);
                launch!(device, "update", T::CARRY, cover(count), after, before, values, &count32, &mut out)
            })
        })?;
        Ok(tensor(out, after.shape(), device))
    }
}
