//! The tokens of encoded shards as one row, read in blocks of which a few are held.

use super::EncodedShards;
use super::blocks::BLOCK;
use crate::data::tokens::TokenSource;
use crate::error::Result;
use std::cell::RefCell;
use std::collections::HashMap;

/// The tokens of a split's shards, one after another.
#[derive(Debug)]
pub(crate) struct ShardTokens {
    shards: EncodedShards,
    /// Where each shard begins in the row, and where the last ends.
    begins: Vec<usize>,
    held: RefCell<Held>,
}

/// The blocks that were read last.
#[derive(Debug)]
struct Held {
    blocks: HashMap<(usize, usize), (u64, Vec<u32>)>,
    most: usize,
    reads: u64,
}

impl ShardTokens {
    /// The tokens of `shards`, of which `rows` places are read side by side.
    pub(super) fn new(shards: EncodedShards, rows: usize) -> Self {
        let mut begins = vec![0];
        for shard in shards.shards.iter() {
            begins.push(begins[begins.len() - 1] + shard.ids.len());
        }
        let held = Held { blocks: HashMap::new(), most: rows + 2, reads: 0 };
        Self { shards, begins, held: RefCell::new(held) }
    }

    /// How often each token is there.
    pub(crate) fn counts(&self, vocab_size: usize) -> Result<Vec<u64>> {
        let mut counts = vec![0; vocab_size];
        for shard in self.shards.shards.iter() {
            for block in 0..shard.ids.len().div_ceil(BLOCK) {
                shard.ids.block(block)?.iter().for_each(|&id| counts[id as usize] += 1);
            }
        }
        Ok(counts)
    }
}

impl TokenSource for ShardTokens {
    fn len(&self) -> usize {
        self.begins[self.begins.len() - 1]
    }

    fn copy_to(&self, start: usize, out: &mut [u32]) -> Result<()> {
        let mut held = self.held.borrow_mut();
        let mut filled = 0;
        while filled < out.len() {
            let at = start + filled;
            let shard = self.begins.partition_point(|&begin| begin <= at) - 1; // of several that begin here, the last
            let within = at - self.begins[shard];
            let block = held.block(&self.shards, shard, within / BLOCK)?;
            let from = &block[within % BLOCK..];
            let count = from.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&from[..count]);
            filled += count;
        }
        Ok(())
    }
}

impl Held {
    fn block(&mut self, shards: &EncodedShards, shard: usize, block: usize) -> Result<&[u32]> {
        self.reads += 1;
        let reads = self.reads;
        let key = (shard, block);
        if !self.blocks.contains_key(&key) {
            let read = shards.shards[shard].ids.block(block)?;
            if self.blocks.len() >= self.most {
                let oldest = self.blocks.iter().min_by_key(|(_, (read, _))| *read).map(|(&key, _)| key);
                oldest.map(|key| self.blocks.remove(&key));
            }
            self.blocks.insert(key, (reads, read));
        }
        let (read, numbers) = self.blocks.get_mut(&key).expect("it was read if it was not there");
        *read = reads;
        Ok(numbers)
    }
}
