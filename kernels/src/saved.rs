//! What an operation keeps of its forward pass for its backward pass.

use candle_core::{Error, Result};
use std::any::Any;
use std::sync::{Mutex, PoisonError};

/// What a forward pass keeps, to be taken once: a record of the element type, or what a GPU keeps.
#[derive(Default)]
pub(crate) struct SavedForBackward(Mutex<Option<Box<dyn Any + Send>>>);

impl SavedForBackward {
    pub(crate) fn keep<R: Send + 'static>(&self, record: Option<R>) {
        let kept = record.map(|record| Box::new(record) as Box<dyn Any + Send>);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// Fails if nothing of this type is kept: the backward pass ran before.
    pub(crate) fn take<R: 'static>(&self) -> Result<R> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let record = kept.and_then(|kept| kept.downcast::<R>().ok());
        record
            .map(|record| *record)
            .ok_or_else(|| Error::Msg("an operation's backward pass ran before".into()))
    }
}
