//! Buffers that kernels fill and give back: a training step takes the same ones each time, so none is cleared twice.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is not in use, each a `Vec` of some type.
static IDLE: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());

/// `len` values left over from earlier work; they go back when this is dropped.
pub(crate) struct Buffer<T: Copy + Default + Send + 'static> {
    /// Boxed as it lies in `IDLE`, so that taking and giving back allocate nothing; `None` if there are no values.
    #[expect(clippy::box_collection, reason = "the box goes to and fro")]
    values: Option<Box<Vec<T>>>,
    len: usize,
}

/// A buffer whose contents are arbitrary values of an earlier use.
pub(crate) fn take<T: Copy + Default + Send + 'static>(len: usize) -> Buffer<T> {
    if len == 0 {
        return Buffer { values: None, len };
    }
    let values = take_idle(len);
    Buffer { values: Some(values.unwrap_or_else(|| Box::new(vec![T::default(); len]))), len }
}

/// Bytes from which on it is worth while to do without a second buffer: smaller ones are as well allocated anew.
const LARGE: usize = 16 << 20;

/// `len` arbitrary values, which do not come back: for what outlives the work. A large result takes the place of what was only
/// needed on the way to it.
pub(crate) fn take_for_good<T: Copy + Default + Send + 'static>(len: usize) -> Vec<T> {
    let idle = if len * size_of::<T>() >= LARGE { take_idle::<T>(len) } else { None };
    match idle {
        None => vec![T::default(); len],
        Some(mut values) => {
            values.truncate(len);
            *values
        }
    }
}

/// The smallest of the buffers that are not in use which has `len` values, and not more than twice as many.
#[expect(clippy::box_collection, reason = "the box goes to and fro")]
fn take_idle<T: Copy + Default + Send + 'static>(len: usize) -> Option<Box<Vec<T>>> {
    let fits = |buffer: &Box<dyn Any + Send>| {
        let values = buffer.downcast_ref::<Vec<T>>()?;
        (len <= values.len() && values.len() / 2 <= len).then_some(values.len())
    };
    let mut idle = idle();
    let best = idle.iter().enumerate().filter_map(|(at, buffer)| Some((fits(buffer)?, at))).min();
    best.and_then(|(_, at)| idle.swap_remove(at).downcast::<Vec<T>>().ok())
}

/// Frees all buffers that are not in use.
pub fn clear() {
    idle().clear();
}

fn idle() -> MutexGuard<'static, Vec<Box<dyn Any + Send>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Copy + Default + Send + 'static> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(values) = self.values.take() {
            idle().push(values);
        }
    }
}

impl<T: Copy + Default + Send + 'static> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.values.as_ref().map_or(&[], |values| &values[..self.len])
    }
}

impl<T: Copy + Default + Send + 'static> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.values.as_mut().map_or(&mut [], |values| &mut values[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::take;

    /// A type of its own, so that no other test takes its buffers.
    #[derive(Clone, Copy, Default, PartialEq, Debug)]
    struct Token(u8);

    #[test]
    fn a_buffer_comes_back_where_it_fits_and_not_where_it_is_far_too_large() {
        take::<Token>(100)[0] = Token(7);
        assert_eq!(take::<Token>(10)[0], Token(0)); // a new one
        let again = take::<Token>(90);
        assert_eq!((again[0], again.len()), (Token(7), 90));
        assert_eq!(take::<Token>(100)[0], Token(0)); // the first is in use
    }

    #[test]
    fn what_is_taken_for_good_does_not_come_back() {
        #[derive(Clone, Copy, Default, PartialEq, Debug)]
        struct Other(u8);
        for (len, first) in [(100, Other(0)), (super::LARGE + 100, Other(7))] {
            take::<Other>(len)[0] = Other(7);
            let kept = super::take_for_good::<Other>(len - 10);
            assert_eq!((kept[0], kept.len()), (first, len - 10));
        }
        assert_eq!(take::<Other>(super::LARGE + 100)[0], Other(0));
        assert!(super::take_for_good::<Other>(0).is_empty());
    }
}
