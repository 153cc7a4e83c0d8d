//! A long row of token ids in the smallest integer that holds the vocabulary.

use super::tokenizer::Encoded;
use crate::error::Result;
use std::sync::Arc;

/// A row of tokens that can be read from any place.
pub(crate) trait TokenSource {
    /// How many tokens there are.
    fn len(&self) -> usize;

    /// Fills `out` with the ids from `start` on; there must be enough of them.
    ///
    /// # Errors
    /// If they cannot be read.
    fn copy_to(&self, start: usize, out: &mut [u32]) -> Result<()>;
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_to(&self, start: usize, out: &mut [u32]) -> Result<()> {
        (**self).copy_to(start, out)
    }
}

impl TokenSource for Encoded {
    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn copy_to(&self, start: usize, out: &mut [u32]) -> Result<()> {
        self.tokens.copy_to(start, out);
        Ok(())
    }
}

impl TokenSource for Tokens {
    fn len(&self) -> usize {
        self.len()
    }

    fn copy_to(&self, start: usize, out: &mut [u32]) -> Result<()> {
        self.copy_to(start, out);
        Ok(())
    }
}

/// Token ids, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// For a vocabulary of at most 256.
    U8(Vec<u8>),
    /// For a vocabulary of at most 65,536.
    U16(Vec<u16>),
    /// For any vocabulary.
    U32(Vec<u32>),
}

/// `$body` with the ids of `$tokens`, whatever integer they are in.
macro_rules! with_ids {
    ($tokens:expr, $ids:ident => $body:expr) => {
        match $tokens {
            Tokens::U8($ids) => $body,
            Tokens::U16($ids) => $body,
            Tokens::U32($ids) => $body,
        }
    };
}

impl Tokens {
    /// An empty row for a vocabulary of `vocab_size`, with capacity for `capacity` tokens.
    pub fn with_capacity(vocab_size: usize, capacity: usize) -> Self {
        match vocab_size {
            0..=0x100 => Self::U8(Vec::with_capacity(capacity)),
            0x101..=0x1_0000 => Self::U16(Vec::with_capacity(capacity)),
            _ => Self::U32(Vec::with_capacity(capacity)),
        }
    }

    /// Appends a token; its id must be below the vocabulary's size.
    #[inline]
    pub fn push(&mut self, id: u32) {
        with_ids!(self, ids => ids.push(id as _));
        debug_assert_eq!(self.get(self.len() - 1), id, "the id is outside the vocabulary");
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        with_ids!(self, ids => ids.len())
    }

    /// Drops all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        with_ids!(self, ids => ids.truncate(count));
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id at `index`, which must be below `len()`.
    #[inline]
    pub fn get(&self, index: usize) -> u32 {
        with_ids!(self, ids => wide(ids[index]))
    }

    /// Fills `out` with the ids from `start` on; there must be enough of them.
    pub fn copy_to(&self, start: usize, out: &mut [u32]) {
        let end = start + out.len();
        with_ids!(self, ids => widen(&ids[start..end], out))
    }

    /// The ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The ids, in order, each in 32 bits.
    pub fn to_vec(&self) -> Vec<u32> {
        self.iter().collect()
    }
}

fn wide(id: impl Into<u32>) -> u32 {
    id.into()
}

fn widen<T: Copy + Into<u32>>(from: &[T], to: &mut [u32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from.into();
    }
}

#[cfg(test)]
mod tests {
    use super::Tokens;

    #[test]
    fn the_smallest_integer_that_holds_the_vocabulary_is_taken() {
        for (size, bytes) in [(2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)] {
            let mut tokens = Tokens::with_capacity(size, 1);
            tokens.push(size as u32 - 1);
            let memory = with_ids!(&tokens, ids => size_of_val(ids.as_slice()));
            assert_eq!((tokens.get(0), memory), (size as u32 - 1, bytes), "a vocabulary of {size}");
        }
    }

    #[test]
    fn a_window_is_copied_as_it_stands() {
        for size in [10, 1000, 100_000] {
            let mut tokens = Tokens::with_capacity(size, 10);
            (0..10).for_each(|id| tokens.push(id));
            let mut window = [0; 4];
            tokens.copy_to(3, &mut window);
            assert_eq!(window, [3, 4, 5, 6]);
            assert_eq!(tokens.to_vec(), (0..10).collect::<Vec<_>>());
        }
    }
}
