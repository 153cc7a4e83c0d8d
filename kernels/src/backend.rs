//! Which code computes an operation.

use candle_core::{DType, Tensor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The kernels for the CPU.
    Cpu,
    /// The kernels for a GPU.
    Cuda,
    /// Plain tensor operations: there are no kernels for the element type or the device.
    Plain,
}

impl Backend {
    /// What computes operations on `tensor`.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        match tensor.dtype() {
            DType::F32 | DType::F64 if tensor.device().is_cpu() => Self::Cpu,
            DType::F32 | DType::F64 if tensor.device().is_cuda() => Self::Cuda,
            _ => Self::Plain,
        }
    }
}
