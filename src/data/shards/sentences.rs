//! The sentences of encoded shards, in blocks that no shard's end lies in.

use super::EncodedShards;
use super::blocks::BLOCK;
use crate::data::sentences::{SentenceSource, cut, lengths};
use crate::error::Result;

/// The sentences of a split's shards.
pub(super) struct ShardSentences {
    shards: EncodedShards,
    blocks: Vec<Block>,
}

/// Some sentences of a shard.
struct Block {
    shard: usize,
    /// The first sentence, and the one after the last.
    sentences: [usize; 2],
    /// Where their tokens begin and end in the shard.
    tokens: [usize; 2],
}

impl ShardSentences {
    /// Blocks of at most `most` sentences. Fails if a shard's list of ends cannot be read.
    pub(super) fn new(shards: EncodedShards, most: usize) -> Result<Self> {
        let mut blocks = Vec::new();
        for (shard, cached) in shards.shards.iter().enumerate() {
            let mut ends = Vec::with_capacity(cached.ends.len());
            for block in 0..cached.ends.len().div_ceil(BLOCK) {
                ends.extend(cached.ends.block(block)?);
            }
            let mut first = 0;
            let mut begin = 0;
            for last in cut(ends.iter().map(|&end| end as usize), most) {
                let end = ends[last - 1] as usize;
                blocks.push(Block { shard, sentences: [first, last], tokens: [begin, end] });
                first = last;
                begin = end;
            }
        }
        Ok(Self { shards, blocks })
    }
}

impl SentenceSource for ShardSentences {
    fn blocks(&self) -> Vec<usize> {
        self.blocks.iter().map(|&Block { sentences: [first, last], .. }| last - first).collect()
    }

    fn lengths(&self, block: usize) -> Result<Vec<u32>> {
        let &Block { shard, sentences: [first, last], tokens: [begin, _] } = &self.blocks[block];
        let ends = self.shards.shards[shard].ends.range(first, last)?;
        Ok(lengths(begin, ends.into_iter().map(|end| end as usize)))
    }

    fn tokens(&self, block: usize) -> Result<Vec<u32>> {
        let &Block { shard, tokens: [begin, end], .. } = &self.blocks[block];
        self.shards.shards[shard].ids.range(begin, end)
    }
}
