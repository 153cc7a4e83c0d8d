//! The file's header: `docs/compression.md` has it as a table. Every number is checked before anything is made of it.

use super::MOST_ROWS;
use super::blocks::{BLOCK, crc32};
use super::frequencies;
use super::step::NUMBERS;
use crate::checkpoint::Checkpoint;
use crate::digest::sha256_bytes;
use crate::error::{Error, Result};

const MAGIC: [u8; 4] = *b"RHNC";

/// The format that this program writes, and the newest that it reads.
const FORMAT: u16 = 1;

/// Names of the files of [`ModelDigest::parts`].
const PARTS: [&str; 3] = ["configuration", "tokenizer", "weights"];

/// Which model it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelDigest {
    /// The SHA-256 of the SHA-256 of each of the files, one after another.
    whole: [u8; 32],
    /// The first four bytes of the SHA-256 of each file, to tell which one differs.
    parts: [[u8; 4]; 3],
}

impl ModelDigest {
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let digests = checkpoint.files().map(sha256_bytes);
        let first = |digest: [u8; 32]| [digest[0], digest[1], digest[2], digest[3]];
        Self { whole: sha256_bytes(&digests.concat()), parts: digests.map(first) }
    }
}

/// What a file says of itself before the coded text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    digest: ModelDigest,
    /// Frequencies sum to 2 to this power.
    pub(super) precision: u32,
    /// What the model reads before a row's first token.
    pub(super) first_token: u32,
    /// Bytes of each row.
    lengths: Vec<u32>,
    /// The CRC-32 of each row's blocks.
    checks: Vec<u32>,
}

/// What the header says of a row.
pub(super) struct RowHeader<'a> {
    /// Bytes of its text.
    pub(super) length: usize,
    /// The CRC-32 of each block of it.
    pub(super) checks: &'a [u32],
}

impl Header {
    /// Of a text that is cut into rows of these lengths. Fails if a row is longer than a file can say.
    pub(super) fn new(
        digest: ModelDigest,
        vocabulary: usize,
        first_token: u32,
        lengths: Vec<usize>,
        checks: Vec<u32>,
    ) -> Result<Self> {
        let lengths = lengths.into_iter().map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>();
        let too_long = |_| Error::config("a row of the text has 4 GiB or more: ask for more --rows");
        let precision = frequencies::precision(vocabulary);
        Ok(Self { digest, precision, first_token, lengths: lengths.map_err(too_long)?, checks })
    }

    /// Bytes of the whole text.
    pub(super) fn text_length(&self) -> u64 {
        self.lengths.iter().copied().map(u64::from).sum()
    }

    /// The rows in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = RowHeader<'_>> {
        let mut checks = self.checks.as_slice();
        self.lengths.iter().map(move |&length| {
            let (own, rest) = checks.split_at((length as usize).div_ceil(BLOCK));
            checks = rest;
            RowHeader { length: length as usize, checks: own }
        })
    }

    /// The whole file.
    pub(super) fn write(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(FORMAT.to_le_bytes());
        out.extend(NUMBERS.to_le_bytes());
        out.extend(self.digest.whole);
        out.extend(self.digest.parts.as_flattened());
        out.push(self.precision as u8);
        out.extend(self.first_token.to_le_bytes());
        out.extend((self.lengths.len() as u32).to_le_bytes());
        out.extend(self.lengths.iter().chain(&self.checks).flat_map(|number| number.to_le_bytes()));
        out.extend((payload.len() as u64).to_le_bytes());
        out.extend(crc32(payload).to_le_bytes());
        out.extend(crc32(&out).to_le_bytes());
        out.extend(payload);
        out
    }

    /// The header and the coded text of a file; says what is wrong with it.
    pub(super) fn read(file: &[u8]) -> std::result::Result<(Self, &[u8]), String> {
        let mut reader = Reader { rest: file };
        if reader.take(MAGIC.len()).ok() != Some(&MAGIC) {
            return Err("is no file that `rhn compress` wrote".into());
        }
        let format = reader.u16()?;
        let numbers = reader.u16()?;
        if format != FORMAT {
            return Err(format!("has format {format}, this program reads {FORMAT}; {UPDATE}"));
        }
        let digest = ModelDigest {
            whole: reader.array()?,
            parts: [reader.array()?, reader.array()?, reader.array()?],
        };
        let [precision] = reader.array()?;
        let first_token = reader.u32()?;
        let count = reader.u32()? as usize;
        if count > MOST_ROWS {
            return Err(format!("is damaged: it has {count} rows, at most {MOST_ROWS} are read"));
        }
        let lengths = reader.numbers(count)?;
        let blocks = lengths.iter().map(|&length| (length as usize).div_ceil(BLOCK)).sum();
        let checks = reader.numbers(blocks)?;
        let payload_length = reader.u64()?;
        let payload_check = reader.u32()?;
        let header = &file[..file.len() - reader.rest.len()];
        if reader.u32()? != crc32(header) {
            return Err("is damaged: its header does not have the CRC-32 that it says".into());
        }
        if numbers != NUMBERS {
            return Err(format!(
                "was compressed in numbers of definition {numbers}, this program computes in definition {NUMBERS}; {UPDATE}"
            ));
        }
        let payload = reader.rest;
        if payload.len() as u64 != payload_length {
            let found = payload.len();
            return Err(format!(
                "is truncated or too long: {found} bytes of coded text, wanted {payload_length}"
            ));
        }
        if crc32(payload) != payload_check {
            return Err("is damaged: its coded text does not have the CRC-32 that it says".into());
        }
        let precision = u32::from(precision);
        Ok((Self { digest, precision, first_token, lengths, checks }, payload))
    }

    /// Refuses another model than the one that the text was compressed with; says what differs.
    pub(super) fn check_model(
        &self,
        found: &ModelDigest,
        vocabulary: usize,
    ) -> std::result::Result<(), String> {
        if self.digest != *found {
            let differs = |index: &usize| self.digest.parts[*index] != found.parts[*index];
            let names: Vec<&str> = (0..PARTS.len()).filter(differs).map(|index| PARTS[index]).collect();
            let verb = if names.len() == 1 && names[0] != "weights" { "differs" } else { "differ" };
            return Err(format!("its {} {verb}", names.join(", its ")));
        }
        let precision = frequencies::precision(vocabulary);
        if self.precision != precision || self.first_token as usize >= vocabulary {
            return Err(format!(
                "frequencies of {} bits and first token {}, wanted {precision} and one below {vocabulary}",
                self.precision, self.first_token
            ));
        }
        Ok(())
    }
}

const UPDATE: &str = "another version of rhn wrote it";

/// Takes numbers off the start of a file.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> std::result::Result<&'a [u8], String> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or("is truncated: it ends within its header")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many as were asked for"))
    }

    fn u16(&mut self) -> std::result::Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> std::result::Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> std::result::Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// So many numbers, which are allocated only if the file has them.
    fn numbers(&mut self, count: usize) -> std::result::Result<Vec<u32>, String> {
        let (numbers, _) = self.take(count.saturating_mul(4))?.as_chunks::<4>();
        Ok(numbers.iter().copied().map(u32::from_le_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let digest = ModelDigest { whole: [7; 32], parts: [[1; 4], [2; 4], [3; 4]] };
        let lengths = vec![3, BLOCK + 1];
        Header::new(digest, 256, 9, lengths, vec![11, 12, 13]).unwrap()
    }

    /// The file of a header, with its own CRC-32 made right again after a change.
    fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = header().write(b"coded");
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let end = file.len() - b"coded".len() - 4;
        let check = crc32(&file[..end]);
        file[end..end + 4].copy_from_slice(&check.to_le_bytes());
        file
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let file = header().write(b"coded");
        assert_eq!(Header::read(&file).unwrap(), (header(), b"coded".as_slice()));
        assert_eq!(file.len(), 77 + 4 * (2 + 3) + 5); // as documented: rows, blocks, the coded text
        assert_eq!(header().text_length(), BLOCK as u64 + 4);
        let rows: Vec<_> = header().rows().map(|row| (row.length, row.checks.to_vec())).collect();
        assert_eq!(rows, [(3, vec![11]), (BLOCK + 1, vec![12, 13])]);
    }

    #[test]
    fn every_changed_byte_and_every_shorter_file_is_refused() {
        let file = header().write(b"coded");
        for at in 0..file.len() {
            assert!(Header::read(&file[..at]).is_err());
            for flip in [1, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= flip;
                assert!(Header::read(&file).is_err(), "byte {at}");
            }
        }
        assert!(Header::read(&[file, vec![0]].concat()).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let most = (MOST_ROWS as u32 + 1).to_le_bytes();
        let huge = u32::MAX.to_le_bytes();
        for (file, part) in [
            (b"PK\x03\x04 and so on".to_vec(), "is no file that `rhn compress` wrote"),
            (b"RHN".to_vec(), "is no file that `rhn compress` wrote"),
            (changed(4, &[2, 0]), "has format 2, this program reads 1"),
            (changed(6, &[9, 0]), "numbers of definition 9"),
            (changed(57, &most), "1025 rows"),
            (changed(57, &huge), "4294967295 rows"),
            (changed(61, &huge), "ends within its header"),
            (changed(0, b"RHNC")[..90].to_vec(), "ends within its header"),
            (header().write(b"coded")[..100].to_vec(), "3 bytes of coded text, wanted 5"),
        ] {
            let message = Header::read(&file).unwrap_err();
            assert!(message.contains(part), "{message}, wanted {part}");
        }
    }

    #[test]
    fn another_model_is_told_by_the_file_that_differs() {
        let header = header();
        assert_eq!(header.check_model(&header.digest, 256), Ok(()));
        let digest = |parts| ModelDigest { whole: [8; 32], parts };
        for (parts, what) in [
            ([[1; 4], [2; 4], [9; 4]], "its weights differ"),
            ([[1; 4], [9; 4], [3; 4]], "its tokenizer differs"),
            ([[9; 4], [9; 4], [3; 4]], "its configuration, its tokenizer differ"),
        ] {
            assert_eq!(header.check_model(&digest(parts), 256), Err(what.into()));
        }
        assert!(header.check_model(&header.digest, 9).is_err()); // the first token is none of it
        assert!(header.check_model(&header.digest, 1 << 20).is_err());
    }
}
