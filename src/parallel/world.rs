//! The processes that train one model together, each of which is a rank.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// The ranks of a command, seen from one of them. All ranks ask for the same things in the same order.
pub trait World: Send + Sync {
    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Which of them this is, counted from 0. Rank 0 writes and prints.
    fn rank(&self) -> usize;

    /// Begins to add `numbers` up over the ranks, of which each gives as many. The same sums in the same order have the
    /// same bits on every rank, and each time.
    fn begin_sum(&self, numbers: Numbers) -> Result<Sum>;

    /// Whether tensors on `device` are added up where they are; else their numbers go through [`World::begin_sum`].
    fn adds_up_on(&self, _device: &Device) -> bool {
        false
    }

    /// As [`World::begin_sum`], of a contiguous tensor that nothing else uses, where [`World::adds_up_on`] says so.
    fn begin_tensor_sum(&self, _numbers: Tensor) -> Result<TensorSum> {
        Err(Error::other_rank("these ranks add up no tensors"))
    }

    /// What each rank gives, in the order of the ranks.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Which of the bits of `flags` are set on any rank.
    fn any(&self, flags: u8) -> Result<u8>;

    /// Ends the connection once all ranks are here. A process that ends without takes the others with it.
    fn close(&self) -> Result<()>;
}

/// Gives the tensor of a sum that was begun, for operations that come later on its device.
pub type TensorSum = Box<dyn FnOnce() -> Result<Tensor> + Send>;

/// Numbers that are added up.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// A sum that was begun.
pub enum Sum {
    /// It is there.
    Known(Numbers),
    /// It comes from the thread that communicates with the other ranks, which waits in another way while someone waits for it.
    Coming(Receiver<Numbers>, Arc<AtomicBool>),
}

impl Sum {
    /// Waits for it.
    ///
    /// # Errors
    /// If the ranks are no longer connected.
    pub fn wait(self) -> Result<Numbers> {
        match self {
            Self::Known(numbers) => Ok(numbers),
            Self::Coming(receiver, is_awaited) => wait(&receiver, &is_awaited),
        }
    }
}

/// Waits for an answer, and lets `is_awaited` say so meanwhile.
pub(super) fn wait<T>(receiver: &Receiver<T>, is_awaited: &AtomicBool) -> Result<T> {
    is_awaited.store(true, Ordering::Relaxed);
    let answer = receiver.recv();
    is_awaited.store(false, Ordering::Relaxed);
    answer.map_err(|_| disconnected())
}

/// The error of a rank whose thread for communication has ended.
pub(super) fn disconnected() -> Error {
    Error::other_rank("the connection to the other ranks has ended")
}

/// `own` if it is no error on any rank; else the own error, or one that says that another rank has one.
pub fn agree<T>(world: &dyn World, own: Result<T>) -> Result<T> {
    match world.any(own.is_err().into())? {
        0 => own,
        _ => {
            let error = own.err().unwrap_or_else(|| Error::other_rank("another rank failed; it says why"));
            Err(with_common_code(world, error)?)
        }
    }
}

/// `error`, and if that only says that another rank failed, or what a rank before this one says too, as the error of another
/// rank with the exit code of the first that has an error of its own. All ranks must come here.
pub fn with_common_code(world: &dyn World, error: Error) -> Result<Error> {
    let own = match &error {
        Error::OtherRank { code, .. } => vec![code.unwrap_or(0)],
        own => [&[own.exit_code()], own.to_string().as_bytes()].concat(),
    };
    let errors = world.gather(own)?;
    let common = errors.iter().map(|error| error[0]).find(|code| *code != 0);
    let (before, own) = (&errors[..world.rank()], &errors[world.rank()]);
    Ok(match error {
        Error::OtherRank { what, code } => Error::OtherRank { what, code: common.or(code) },
        same if before.contains(own) => Error::OtherRank { what: same.to_string(), code: Some(own[0]) },
        other => other,
    })
}

/// One process alone.
#[derive(Clone, Copy, Debug)]
pub struct Solo;

impl World for Solo {
    fn size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn begin_sum(&self, numbers: Numbers) -> Result<Sum> {
        Ok(Sum::Known(numbers))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }

    fn any(&self, flags: u8) -> Result<u8> {
        Ok(flags)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
