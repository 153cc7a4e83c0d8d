//! Sums of tensors where they are, as ranks with NCCL make them.

use super::super::group::Group;
use super::super::world::{Numbers, Sum, TensorSum, World};
use super::course;
use crate::error::Result;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::sync::Arc;

/// Ranks that add up tensors as ranks with NCCL do, on the CPU.
struct OfTensors(Arc<dyn World>);

impl World for OfTensors {
    fn size(&self) -> usize {
        self.0.size()
    }

    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn begin_sum(&self, numbers: Numbers) -> Result<Sum> {
        self.0.begin_sum(numbers)
    }

    fn adds_up_on(&self, device: &Device) -> bool {
        device.is_cpu()
    }

    /// Changes the tensor itself, which nothing else may use.
    fn begin_tensor_sum(&self, numbers: Tensor) -> Result<TensorSum> {
        assert!(numbers.is_contiguous() && numbers.rank() == 1);
        let Numbers::F64(sum) = self.0.begin_sum(Numbers::F64(numbers.to_vec1()?))?.wait()? else {
            unreachable!("sums have the type of their numbers")
        };
        let sum = Tensor::from_vec(sum, numbers.shape(), numbers.device())?;
        numbers.slice_set(&sum, 0, 0)?;
        Ok(Box::new(move || Ok(numbers)))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.0.gather(bytes)
    }

    fn any(&self, flags: u8) -> Result<u8> {
        self.0.any(flags)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[test]
fn sums_of_tensors_where_they_are_have_the_bits_of_those_in_the_hosts_memory() {
    let adaptive = "model.output={kind='adaptive',cutoffs=[8,30],div_value=2.0}";
    let sampled =
        ["train.loss={kind='sampled',samples=12}", "train.optimizer=adagrad", "model.output.by_word=true"];
    for settings in
        [&["train.dropout={input=0.2,output=0.3}"][..], &[adaptive, "train.optimizer=adam"], &sampled]
    {
        let run = |wrap: fn(Arc<dyn World>) -> Arc<dyn World>| {
            Group::run_shared(3, |world| course(settings, Precision::F64, wrap(world)))
        };
        assert_eq!(run(|world| world), run(|world| Arc::new(OfTensors(world))), "{settings:?}");
    }
}
