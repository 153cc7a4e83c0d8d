//! The [`DeviceGuard`] of a CUDA GPU: the decision stays in its memory until the host asks for the records.

use crate::cuda::launch::{blocks, cover, launch, room, size, tensor, with_elements};
use crate::update::guard::{Check, DeviceAdam, DeviceGuard, Record, Status};
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{CudaDevice, DType, Result, Tensor, Var};
use std::cell::RefCell;

/// Elements of a tensor that one block sums; `PIECE` of update.cu.
const PIECE: usize = 16384;
/// As guard.cuh numbers them.
const UPDATES: usize = 2;
const ALLOWED: usize = 3;
const RECORDS: usize = 7;

/// What steps may change and what they did, in the GPU's memory.
pub(super) struct CudaGuard {
    device: CudaDevice,
    values: RefCell<CudaSlice<f64>>,
    dtype: DType,
    capacity: usize,
}

/// The kernels of an element type.
trait Kernels: CudaDType + DeviceRepr {
    const SQUARES: &'static str;
    const CHECK: &'static str;
    const SGD: &'static str;
    const ADAM: &'static str;
    const CHOOSE: &'static str;
    /// The largest number that is finite.
    const LIMIT: f64;
}

impl Kernels for f32 {
    const SQUARES: &'static str = "squares_f32";
    const CHECK: &'static str = "check_f32";
    const SGD: &'static str = "sgd_f32";
    const ADAM: &'static str = "adam_f32";
    const CHOOSE: &'static str = "choose_f32";
    const LIMIT: f64 = f32::MAX as f64;
}

impl Kernels for f64 {
    const SQUARES: &'static str = "squares_f64";
    const CHECK: &'static str = "check_f64";
    const SGD: &'static str = "sgd_f64";
    const ADAM: &'static str = "adam_f64";
    const CHOOSE: &'static str = "choose_f64";
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

impl CudaGuard {
    pub(super) fn new(device: &CudaDevice, dtype: DType, capacity: usize) -> Result<Self> {
        let values = RefCell::new(device.alloc_zeros::<f64>(RECORDS + 3 * capacity)?);
        Ok(Self { device: device.clone(), values, dtype, capacity })
    }

    fn check_in<T: Kernels>(
        &self,
        nats: &Tensor,
        pairs: &[(&Tensor, &Var)],
        check: &Check,
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
                    let decay = &check.decay;
                    launch!(device, "update", T::SQUARES, config, grad, parameter, decay, &count, &mut sums)
                })
            })?;
            done = next;
        }
        with_elements::<T, _>(&nats.flatten_all()?.contiguous()?, |nats| {
            let (rows, pieces, index) = (size(nats.len())?, size(pieces)?, size(index)?);
            let (mut values, adam) = (self.values.borrow_mut(), u32::from(check.squares));
            let Check { rate, max_norm, beta1, beta2, .. } = check;
            let values = &mut *values;
            launch!(
                device,
                "update",
                T::CHECK,
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

    fn sgd_in<T: Kernels>(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()> {
        let (device, values, count) = (&self.device, self.values.borrow(), parameter.elem_count());
        with_elements::<T, _>(&grad.contiguous()?, |grad| {
            with_elements::<T, _>(parameter, |parameter| {
                let (config, values, count) = (cover(count), &*values, size(count)?);
                launch!(device, "update", T::SGD, config, parameter, grad, values, &rate, &decay, &count)
            })
        })
    }

    fn adam_in<T: Kernels>(
        &self,
        parameter: &Var,
        moments: &Var,
        grad: &Tensor,
        step: &DeviceAdam,
    ) -> Result<()> {
        let (device, values, count) = (&self.device, self.values.borrow(), parameter.elem_count());
        let DeviceAdam { rate, beta1, beta2, epsilon, decay, decoupled } = step;
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

    fn choose_in<T: Kernels>(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        let (device, values, count) = (&self.device, self.values.borrow(), after.elem_count());
        let mut out = room::<T>(device, count)?;
        with_elements::<T, _>(&after.contiguous()?, |after| {
            with_elements::<T, _>(&before.contiguous()?, |before| {
                let (values, count32) = (&*values, size(count)?);
                launch!(device, "update", T::CHOOSE, cover(count), after, before, values, &count32, &mut out)
            })
        })?;
        Ok(tensor(out, after.shape(), device))
    }
}

impl DeviceGuard for CudaGuard {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn begin(&self, updates: u64, may_skip: u64) -> Result<()> {
        let mut values = self.device.clone_dtoh(&*self.values.borrow())?;
        values[UPDATES] = updates as f64;
        values[ALLOWED] = may_skip as f64;
        self.device.memcpy_htod(&values, &mut *self.values.borrow_mut())
    }

    fn check(&self, nats: &Tensor, pairs: &[(&Tensor, &Var)], check: &Check, index: usize) -> Result<()> {
        by_type!(self, check_in(nats, pairs, check, index))
    }

    fn read(&self, count: usize) -> Result<(u64, Vec<Record>)> {
        let values = self.device.clone_dtoh(&*self.values.borrow())?;
        let records = values[RECORDS..].chunks_exact(3).take(count);
        let record = |of: &[f64]| Record { nats: of[0], grad_norm: of[1], status: Status::of(of[2]) };
        Ok((values[UPDATES] as u64, records.map(record).collect()))
    }

    fn sgd(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()> {
        by_type!(self, sgd_in(parameter, grad, rate, decay))
    }

    fn adam(&self, parameter: &Var, moments: &Var, grad: &Tensor, step: &DeviceAdam) -> Result<()> {
        by_type!(self, adam_in(parameter, moments, grad, step))
    }

    fn choose(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        by_type!(self, choose_in(after, before))
    }
}
