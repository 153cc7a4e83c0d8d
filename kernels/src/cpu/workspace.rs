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
    let fits = |buffer: &Box<dyn Any + Send>| {
        let values = buffer.downcast_ref::<Vec<T>>()?;
        (len <= values.len() && values.len() / 2 <= len).then_some(values.len())
    };
    let mut idle = idle();
    let best = idle.iter().enumerate().filter_map(|(at, buffer)| Some((fits(buffer)?, at))).min();
    let found = best.and_then(|(_, at)| idle.swap_remove(at).downcast::<Vec<T>>().ok());
    drop(idle);
    Buffer { values: Some(found.unwrap_or_else(|| Box::new(vec![T::default(); len]))), len }
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
}
