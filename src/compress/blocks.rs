//! CRC-32 of the text, block by block, so that what decodes wrongly is found where it begins.

use super::coder::damaged;
use crate::error::Result;
use flate2::Crc;

/// Bytes of a block; a row's last one is shorter.
pub(super) const BLOCK: usize = 64 << 10;

/// The CRC-32 (IEEE 802.3, as in gzip) of these bytes.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The CRC-32 of each block of each part.
pub(super) fn checks(parts: &[&[u8]]) -> Vec<u32> {
    parts.iter().flat_map(|part| part.chunks(BLOCK)).map(crc32).collect()
}

/// The checks of a text that grows to a known length.
pub(super) struct BlockCheck<'a> {
    expected: &'a [u32],
    length: usize,
    checked: usize,
}

impl<'a> BlockCheck<'a> {
    pub(super) fn new(expected: &'a [u32], length: usize) -> Self {
        Self { expected, length, checked: 0 }
    }

    /// Checks every block that `text` has completed since the last call. Fails if one is not what was compressed.
    pub(super) fn check(&mut self, text: &[u8]) -> Result<()> {
        let begin = self.checked * BLOCK;
        let end = (begin + BLOCK).min(self.length);
        if begin >= self.length || text.len() < end {
            return Ok(());
        }
        let found = crc32(&text[begin..end]);
        let wanted = self.expected[self.checked];
        if found != wanted {
            return Err(damaged(format!(
                "does not decode: bytes {begin} to {end} of a row have the CRC-32 {found:08x}, wanted {wanted:08x}; \
                 the file is damaged, or this build of rhn computes other numbers than the one that wrote it"
            )));
        }
        self.checked += 1;
        self.check(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_the_nine_digits_is_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_wrong_byte_is_found_when_its_block_is_complete() {
        let mut text = vec![7u8; 2 * BLOCK + 5];
        let expected = checks(&[&text]);
        assert_eq!(expected.len(), 3);
        let mut check = BlockCheck::new(&expected, text.len());
        assert!(
            [0, BLOCK - 1, BLOCK, 2 * BLOCK, text.len()].iter().all(|&end| check.check(&text[..end]).is_ok())
        );
        text[BLOCK + 9] = 8;
        let mut check = BlockCheck::new(&expected, text.len());
        assert!(check.check(&text[..2 * BLOCK - 1]).is_ok());
        let message = check.check(&text).unwrap_err().to_string();
        assert!(message.contains("bytes 65536 to 131072"), "{message}");
    }
}
