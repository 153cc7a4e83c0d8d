//! The texts of shards, cut and measured part by part, for an evaluation that holds no more than a part.

use super::Shard;
use super::reader::ShardReader;
use crate::data::tokenizer::{Encoded, Tokenizer};
use crate::error::Result;

/// The parts of a split's shards, one after another.
pub(crate) struct MeasuredParts<'a> {
    shards: std::slice::Iter<'a, Shard>,
    tokenizer: &'a Tokenizer,
    reader: Option<ShardReader>,
}

impl<'a> MeasuredParts<'a> {
    pub(super) fn new(shards: &'a [Shard], tokenizer: &'a Tokenizer) -> Self {
        Self { shards: shards.iter(), tokenizer, reader: None }
    }

    fn next_part(&mut self) -> Result<Option<Encoded>> {
        loop {
            if self.reader.is_none() {
                let Some(shard) = self.shards.next() else { return Ok(None) };
                self.reader = Some(ShardReader::open(&shard.path)?);
            }
            let part = self.reader.as_mut().map(|reader| reader.next(Some(self.tokenizer)));
            match part.transpose()?.flatten() {
                Some(part) => return self.tokenizer.encode_measured(&part).map(Some),
                None => self.reader = None,
            }
        }
    }
}

impl Iterator for MeasuredParts<'_> {
    type Item = Result<Encoded>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_part().transpose()
    }
}
