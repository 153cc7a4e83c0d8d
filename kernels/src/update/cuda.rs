//! The [`DeviceGuard`] of a CUDA GPU: the decision stays in its memory until the host asks for the records.

use crate::cpu::real::by_float;
use crate::cuda::launch::{blocks, cover, kernels, launch, size, tensor, uninitialized, with_elements};
use crate::update::element::PIECE;
use crate::update::guard::{Check, DeviceAdam, DeviceGuard, Record, Status};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, DType, Result, Tensor, Var};
use std::cell::RefCell;

/// Where `guard.cuh` keeps the updates so far, the steps that may be skipped, and the first record.
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

kernels!(SQUARES = "squares", CHECK = "check", SGD = "sgd", ADAM = "adam", CHOOSE = "choose");

impl CudaGuard {
    pub(super) fn new(device: &CudaDevice, dtype: DType, capacity: usize) -> Result<Self> {
        let values = RefCell::new(device.alloc_zeros::<f64>(RECORDS + 3 * capacity)?);
        Ok(Self { device: device.clone(), values, dtype, capacity })
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
        let device = &self.device;
        let of = |(_, var): &(&Tensor, &Var)| var.elem_count().div_ceil(PIECE);
        let pieces: usize = pairs.iter().map(of).sum();
        let mut sums = uninitialized::<f64>(device, pieces)?;
        let mut done = 0;
        let limit = if self.dtype == DType::F64 { f64::MAX } else { f32::MAX.into() };
        let adam = u32::from(check.squares);
        let Check { rate, max_norm, beta1, beta2, decay, .. } = check;
        by_float!(self.dtype, T => {
            for pair @ (grad, var) in pairs {
                let next = done + of(pair);
                with_elements::<T, _, _>([&grad.contiguous()?, var], |[grad, parameter]| {
                    let mut sums = sums.slice_mut(done..next);
                    launch!(device, "update", T::SQUARES, blocks(of(pair), 256);
                        grad, parameter, decay, &size(var.elem_count())?, &mut sums)
                })?;
                done = next;
            }
            with_elements::<T, _, _>([&nats.flatten_all()?.contiguous()?], |[nats]| {
                let rows = size(nats.len())?;
                launch!(device, "update", T::CHECK, blocks(1, 256);
                    nats, &rows, &sums, &size(pieces)?, &mut *self.values.borrow_mut(), &size(index)?,
                    rate, max_norm, beta1, beta2, &adam, &limit)
            })
        })
    }

    fn read(&self, count: usize) -> Result<(u64, Vec<Record>)> {
        let values = self.device.clone_dtoh(&*self.values.borrow())?;
        let records = values[RECORDS..].chunks_exact(3).take(count);
        let record = |of: &[f64]| Record { nats: of[0], grad_norm: of[1], status: Status::of(of[2]) };
        Ok((values[UPDATES] as u64, records.map(record).collect()))
    }

    fn sgd(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()> {
        let count = parameter.elem_count();
        by_float!(self.dtype, T => {
            with_elements::<T, _, _>([parameter, &grad.contiguous()?], |[parameter, grad]| {
                launch!(&self.device, "update", T::SGD, cover(count);
                    parameter, grad, &*self.values.borrow(), &rate, &decay, &size(count)?)
            })
        })
    }

    fn adam(&self, parameter: &Var, moments: &Var, grad: &Tensor, step: &DeviceAdam) -> Result<()> {
        let count = parameter.elem_count();
        let DeviceAdam { rate, beta1, beta2, epsilon, decay, decoupled, left_out } = step;
        let left_out = *left_out as f64;
        by_float!(self.dtype, T => {
            let grad = grad.contiguous()?;
            with_elements::<T, _, _>([parameter, moments, &grad], |[parameter, moments, grad]| {
                launch!(&self.device, "update", T::ADAM, cover(count);
                    parameter, moments, grad, &*self.values.borrow(),
                    rate, beta1, beta2, epsilon, decay, decoupled, &left_out, &size(count)?)
            })
        })
    }

    fn choose(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        let device = &self.device;
        let count = after.elem_count();
        by_float!(self.dtype, T => {
            let mut out = uninitialized::<T>(device, count)?;
            with_elements::<T, _, _>([&after.contiguous()?, &before.contiguous()?], |[after, before]| {
                launch!(device, "update", T::CHOOSE, cover(count);
                    after, before, &*self.values.borrow(), &size(count)?, &mut out)
            })?;
            Ok(tensor(out, after.shape(), device))
        })
    }
}
