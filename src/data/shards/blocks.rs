//! A file of numbers in blocks, each with a digest, so that damage is found where it is read.
//!
//! Numbers are little-endian, of two bytes or four. The digests are kept by whoever wrote the file.

use crate::digest::sha256_bytes;
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Numbers of a block.
pub(super) const BLOCK: usize = 32_768;

/// What is known of a file of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockIndex {
    /// Bytes of a number: 2 or 4.
    pub(super) width: usize,
    /// Numbers.
    pub(super) length: u64,
    /// The first eight bytes of each block's SHA-256, in hexadecimal digits.
    digests: Vec<String>,
}

impl BlockIndex {
    fn bytes(&self) -> u64 {
        self.length * self.width as u64
    }
}

/// A file of numbers that is being written aside.
pub(super) struct BlockWriter {
    file: Aside,
    held: Vec<u8>,
    index: BlockIndex,
}

impl BlockWriter {
    /// An empty file, which will be at `path` once it is whole; its numbers have `width` bytes.
    pub(super) fn create(path: &Path, width: usize) -> Result<Self> {
        let held = Vec::with_capacity(BLOCK * width);
        let index = BlockIndex { width, length: 0, digests: Vec::new() };
        Ok(Self { file: Aside::create(path)?, held, index })
    }

    /// Adds a number, which must fit.
    pub(super) fn push(&mut self, number: u32) -> Result<()> {
        self.held.extend_from_slice(&number.to_le_bytes()[..self.index.width]);
        self.index.length += 1;
        if self.held.len() == BLOCK * self.index.width { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        self.index.digests.push(digest(&self.held));
        self.file.append(&self.held)?;
        self.held.clear();
        Ok(())
    }

    /// The file gets its name.
    pub(super) fn finish(mut self) -> Result<BlockIndex> {
        if !self.held.is_empty() {
            self.write()?;
        }
        self.file.commit()?;
        Ok(self.index)
    }
}

fn digest(block: &[u8]) -> String {
    sha256_bytes(block)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of numbers to read from.
#[derive(Debug)]
pub(super) struct BlockFile {
    path: PathBuf,
    index: BlockIndex,
}

impl BlockFile {
    /// The file at `path`, if it is as long as `index` says.
    pub(super) fn open(path: PathBuf, index: BlockIndex) -> Option<Self> {
        let blocks = index.length.div_ceil(BLOCK as u64);
        let sound = matches!(index.width, 2 | 4) && index.digests.len() as u64 == blocks;
        let long = std::fs::metadata(&path).is_ok_and(|file| file.len() == index.bytes());
        (sound && long).then_some(Self { path, index })
    }

    /// Numbers in the file.
    pub(super) fn len(&self) -> usize {
        self.index.length as usize
    }

    /// The numbers of block `block`.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub(super) fn block(&self, block: usize) -> Result<Vec<u32>> {
        let Self { path, index } = self;
        let start = block * BLOCK;
        let count = BLOCK.min(self.len() - start);
        let mut bytes = vec![0; count * index.width];
        // Opened for each block: shards may be more than files that a process may hold.
        let mut file = File::open(path).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start((start * index.width) as u64)).map_err(Error::io(path))?;
        file.read_exact(&mut bytes).map_err(Error::io(path))?;
        if digest(&bytes) != index.digests[block] {
            let what = format!(
                "is damaged: numbers {start} to {} are not those that were written; delete the file, and its shard is \
                 encoded again",
                start + count
            );
            return Err(Error::data(path, what));
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
        Ok(match index.width {
            2 => {
                bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
            }
            width => bytes.chunks_exact(width).map(number).collect(),
        })
    }

    /// The numbers from `start` to `end`.
    pub(super) fn range(&self, start: usize, end: usize) -> Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(end - start);
        let mut at = start;
        while at < end {
            let block = self.block(at / BLOCK)?;
            let within = at % BLOCK;
            let taken = (block.len() - within).min(end - at);
            numbers.extend_from_slice(&block[within..within + taken]);
            at += taken;
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(width: usize, numbers: &[u32]) -> (tempfile::TempDir, PathBuf, BlockIndex) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.ids");
        let mut writer = BlockWriter::create(&path, width).unwrap();
        numbers.iter().for_each(|&number| writer.push(number).unwrap());
        let index = writer.finish().unwrap();
        (folder, path, index)
    }

    #[test]
    fn numbers_come_back_from_any_place() {
        for width in [2, 4] {
            let most = if width == 2 { 0xffff } else { u32::MAX };
            let numbers: Vec<u32> =
                (0..2 * BLOCK as u32 + 7).map(|at| at.wrapping_mul(2_654_435_761) & most).collect();
            let (_folder, path, index) = written(width, &numbers);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), (width * numbers.len()) as u64);
            let file = BlockFile::open(path, index).unwrap();
            for (start, end) in
                [(0, numbers.len()), (BLOCK - 3, BLOCK + 3), (5, 5), (2 * BLOCK, numbers.len())]
            {
                assert_eq!(file.range(start, end).unwrap(), numbers[start..end]);
            }
        }
    }

    #[test]
    fn a_file_of_another_length_is_not_opened_and_a_changed_byte_is_found() {
        let (_folder, path, index) = written(2, &[1, 2, 3]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = BlockFile::open(path.clone(), index.clone()).unwrap().block(0).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("shard.ids: is damaged: numbers 0 to 3"), "{error}");
        std::fs::write(&path, &bytes[..5]).unwrap();
        assert!(BlockFile::open(path, index).is_none());
    }

    #[test]
    fn no_number_is_a_file_too() {
        let (_folder, path, index) = written(4, &[]);
        assert!(BlockFile::open(path, index).unwrap().range(0, 0).unwrap().is_empty());
    }
}
