//! Buffers that kernels fill and give back: a training step takes the same ones each time, so none is cleared twice.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is not in use at the moment, each a `Vec` of some type.
static IDLE: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());

/// `len` values left over from earlier work; they go back when this is dropped.
pub(in super::super) struct Buffer<T: Copy + Default + Send + 'static> {
    values: Vec<T>,
    len: usize,
}

/// A buffer whose contents are arbitrary values of an earlier use.
pub(in super::super) fn take<T: Copy + Default + Send + 'static>(len: usize) -> Buffer<T> {
    let fits = |buffer: &Box<dyn Any + Send>| {
        let values = buffer.downcast_ref::<Vec<T>>()?;
        (len <= values.len() && values.len() / 2 <= len).then_some(values.len())
    };
    let mut idle = idle();
    let best = idle.iter().enumerate().filter_map(|(at, buffer)| Some((fits(buffer)?, at))).min();
    let found = best.and_then(|(_, at)| idle.swap_remove(at).downcast::<Vec<T>>().ok());
    drop(idle);
    Buffer { values: found.map_or_else(|| vec![T::default(); len], |values| *values), len }
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
        if !self.values.is_empty() {
            idle().push(Box::new(std::mem::take(&mut self.values)));
        }
    }
}

impl<T: Copy + Default + Send + 'static> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T: Copy + Default + Send + 'static> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
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
}
