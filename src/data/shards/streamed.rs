//! The texts of shards, cut and measured part by part, for an evaluation that holds no more than a part.

use super::Shard;
use super::reader::ShardReader;
use crate::data::tokenizer::{Encoded, Tokenizer};
use crate::error::Result;

/// The parts of a split's shards, one after another.
pub(crate) struct MeasuredParts<'a> {
    shards: std::slice::Iter<'a, Shard>,
    tokenizer: &'a Tokenizer,
    reader: Option<(&'a Shard, ShardReader)>,
}

impl<'a> MeasuredParts<'a> {
    pub(super) fn new(shards: &'a [Shard], tokenizer: &'a Tokenizer) -> Self {
        Self { shards: shards.iter(), tokenizer, reader: None }
    }

    fn next_part(&mut self) -> Result<Option<Encoded>> {
        loop {
            if self.reader.is_none() {
                let Some(shard) = self.shards.next() else { return Ok(None) };
                shard.check_unchanged()?;
                self.reader = Some((shard, ShardReader::open(&shard.path)?));
            }
            let Some((shard, reader)) = &mut self.reader else { continue };
            match reader.next(Some(self.tokenizer))? {
                Some(part) => return self.tokenizer.encode_measured(&part).map(Some),
                None => {
                    shard.check_unchanged()?;
                    self.reader = None;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Resolved;
    use crate::data::Text;

    #[test]
    fn a_shard_that_was_changed_since_it_was_opened_is_refused_before_and_after_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.txt");
        let lines = "to be or not\n".repeat(200_000); // of several parts
        std::fs::write(&path, &lines).unwrap();
        let shards = [Shard::open(&path).unwrap()];
        let config = Resolved::new("text", &["corpus.unit=word".into()]).unwrap().recipe.corpus;
        let tokenizer = Tokenizer::build(&config, &Text::new(lines.clone().into_bytes(), &path)).unwrap();
        let whole: Result<Vec<Encoded>> = MeasuredParts::new(&shards, &tokenizer).collect();
        assert!(whole.unwrap().len() > 1);
        let refused = |result: Result<Vec<Encoded>>| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("shard.txt: was changed while it was in use"), "{message}");
        };
        let mut parts = MeasuredParts::new(&shards, &tokenizer);
        parts.next().unwrap().unwrap();
        std::fs::write(&path, &lines[..lines.len() - 13]).unwrap();
        refused(parts.collect());
        refused(MeasuredParts::new(&shards, &tokenizer).collect());
    }
}
