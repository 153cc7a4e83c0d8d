//! Where a training step spends its time: each part of the work marks its beginning, and during [`listen`] the time
//! until the next mark on this thread belongs to it.
//!
//! At other times a mark costs a look at a variable of the thread, a few times a step.

use crate::backend::Backend;
use crate::cpu::real::{self, by_float};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, WithDType};
use serde::Serialize;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A part of a training step. A step's time is the sum over its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Drawing the window's dropout masks.
    Masks,
    /// From tokens to vectors, by a table or by characters.
    EmbeddingForward,
    /// The recurrent layers, with their input's products and the masks between them.
    RecurrenceForward,
    /// The output's products and the loss.
    OutputForward,
    /// The gradients of the loss, of the output's weights and of what enters it.
    OutputBackward,
    /// The gradients of the recurrent layers.
    RecurrenceBackward,
    /// The gradients of the vectors, to which those of a tied output are added.
    EmbeddingBackward,
    /// The gradient's norm and the update.
    Optimizer,
    /// Everything else.
    Rest,
}

impl Part {
    /// In the order of a step.
    pub const ALL: [Self; 9] = [
        Self::Masks,
        Self::EmbeddingForward,
        Self::RecurrenceForward,
        Self::OutputForward,
        Self::OutputBackward,
        Self::RecurrenceBackward,
        Self::EmbeddingBackward,
        Self::Optimizer,
        Self::Rest,
    ];

    /// The name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masks => "masks",
            Self::EmbeddingForward => "embedding, forward",
            Self::RecurrenceForward => "recurrence, forward",
            Self::OutputForward => "output, forward",
            Self::OutputBackward => "output, backward",
            Self::RecurrenceBackward => "recurrence, backward",
            Self::EmbeddingBackward => "embedding, backward",
            Self::Optimizer => "optimizer",
            Self::Rest => "rest",
        }
    }
}

/// The time of each part, in the order of [`Part::ALL`].
pub type Spent = [Duration; Part::ALL.len()];

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

struct Listener {
    part: Part,
    since: Instant,
    spent: Spent,
}

/// The time that `work` spends in each part on this thread.
pub fn listen<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    LISTENER.set(Some(Listener { part: Part::Rest, since: Instant::now(), spent: Spent::default() }));
    let done = work();
    enter(Part::Rest);
    let spent = LISTENER.take().map_or(Spent::default(), |listener| listener.spent);
    (done, spent)
}

/// From here on the time belongs to `part`.
pub fn enter(part: Part) {
    LISTENER.with_borrow_mut(|listener| {
        if let Some(Listener { part: current, since, spent }) = listener {
            let now = Instant::now();
            spent[*current as usize] += now - *since;
            *since = now;
            *current = part;
        }
    });
}

/// The time until the guard is dropped belongs to `part`, what follows to [`Part::Rest`].
#[must_use = "the part ends where this is dropped"]
pub fn within(part: Part) -> Within {
    enter(part);
    Within
}

/// Ends a part where it is dropped.
pub struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        enter(Part::Rest);
    }
}

/// `tensor` as it is, marked as the end of one part and the beginning of another: what follows it belongs to `forward`,
/// and in the backward pass what comes behind it to `backward`.
pub fn mark(tensor: Tensor, forward: Part, backward: Part) -> Result<Tensor> {
    enter(forward);
    let listening = LISTENER.with_borrow(Option::is_some);
    if !(listening && Backend::of(&tensor) == Backend::Cpu && tensor.track_op()) {
        return Ok(tensor);
    }
    Ok(tensor.contiguous()?.apply_op1(Mark(backward))?)
}

/// The identity, whose backward pass enters a part.
struct Mark(Part);

impl CustomOp1 for Mark {
    fn name(&self) -> &'static str {
        "mark"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let same = by_float!(storage.dtype(), T => {
            T::to_cpu_storage_owned(real::elements(storage, layout)?.to_vec())
        });
        Ok((same, layout.shape().clone()))
    }

    fn bwd(&self, _tensor: &Tensor, _same: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        enter(self.0);
        Ok(Some(grad.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, enter, listen, mark, within};
    use candle_core::{Device, Var};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    const NAP: Duration = Duration::from_millis(20);

    #[test]
    fn each_part_gets_the_time_until_the_next_begins() {
        let start = Instant::now();
        let ((), spent) = listen(|| {
            sleep(NAP);
            enter(Part::RecurrenceForward);
            sleep(NAP);
            let timed = within(Part::Optimizer);
            sleep(NAP);
            drop(timed);
            sleep(NAP);
        });
        let of = |part: Part| spent[part as usize];
        assert!(
            of(Part::RecurrenceForward) >= NAP && of(Part::Optimizer) >= NAP && of(Part::Rest) >= 2 * NAP
        );
        assert_eq!(of(Part::Masks), Duration::ZERO);
        assert!(spent.iter().sum::<Duration>() <= start.elapsed());
    }

    #[test]
    fn the_parts_are_listed_in_the_order_of_their_numbers() {
        assert!(Part::ALL.iter().enumerate().all(|(i, &part)| part as usize == i));
    }

    #[test]
    fn a_mark_changes_neither_values_nor_gradients_and_times_what_is_behind_it() {
        let x = Var::new(&[2.0f64, 3.0], &Device::Cpu).unwrap();
        let (grad, spent) = listen(|| {
            let y = mark(x.sqr().unwrap(), Part::OutputForward, Part::EmbeddingBackward).unwrap();
            assert_eq!(y.to_vec1::<f64>().unwrap(), [4.0, 9.0]);
            y.backward().unwrap().remove(&x).unwrap()
        });
        assert_eq!(grad.to_vec1::<f64>().unwrap(), [4.0, 6.0]);
        assert!(spent[Part::OutputForward as usize] > Duration::ZERO);
        assert!(spent[Part::EmbeddingBackward as usize] > Duration::ZERO);
    }

    #[test]
    fn a_mark_that_is_not_listened_to_is_not_there() {
        let x = Var::new(&[2.0f32], &Device::Cpu).unwrap();
        let y = mark(x.as_tensor().clone(), Part::Rest, Part::Rest).unwrap();
        assert_eq!(x.id(), y.id());
    }
}
