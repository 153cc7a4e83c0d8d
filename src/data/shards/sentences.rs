//! The sentences of encoded shards, in blocks that no shard's end lies in.

use super::EncodedShards;
use super::blocks::BLOCK;
use crate::data::sentences::{Cutter, SentenceSource, lengths};
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
            let mut cutter = Cutter::new(most);
            let mut first = [0, 0];
            let mut take = |last: [usize; 2]| {
                blocks.push(Block { shard, sentences: [first[0], last[0]], tokens: [first[1], last[1]] });
                first = last;
            };
            for block in 0..cached.ends.len().div_ceil(BLOCK) {
                let ends = cached.ends.block(block)?;
                ends.into_iter().filter_map(|end| cutter.add(end as usize)).for_each(&mut take);
            }
            cutter.end().into_iter().for_each(take);
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
