//! The file format of TensorBoard: records with checksums (TFRecord), each an `Event` of TensorFlow's protocol buffers.
//!
//! ```text
//! record    length (u64), masked CRC-32C of the length (u32), data, masked CRC-32C of the data (u32); little-endian
//! Event     1: wall_time (double)   2: step (int64)   3: file_version (string)   5: summary (Summary)
//! Summary   1: value (Value, repeated)                Value   1: tag (string)   2: simple_value (float)
//! ```

/// What every file begins with.
const VERSION: &[u8] = b"brain.Event:2";

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const DOUBLE: u64 = 1;
const BYTES: u64 = 2;
const FLOAT: u64 = 5;

/// Numbers of one step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalars {
    /// Seconds since 1970.
    pub(super) wall_time: f64,
    pub(super) step: u64,
    pub(super) values: Vec<(String, f32)>,
}

/// The first record of a file.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    let mut event = double(1, wall_time);
    event.extend(bytes(3, VERSION));
    framed(&event)
}

impl Scalars {
    /// As a record.
    pub(super) fn record(&self) -> Vec<u8> {
        let value = |(tag, number): &(String, f32)| {
            let mut value = bytes(1, tag.as_bytes());
            value.extend(key(2, FLOAT));
            value.extend(number.to_le_bytes());
            bytes(1, &value)
        };
        let summary: Vec<u8> = self.values.iter().flat_map(value).collect();
        let mut event = double(1, self.wall_time);
        event.extend(key(2, VARINT));
        event.extend(varint(self.step));
        event.extend(bytes(5, &summary));
        framed(&event)
    }
}

/// The scalars in a file's records, up to the first that is damaged or cut short.
pub(super) fn read(file: &[u8]) -> Vec<Scalars> {
    let mut rest = file;
    std::iter::from_fn(|| next_record(&mut rest)).filter_map(parse_event).collect()
}

fn next_record<'a>(file: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (head, rest) = file.split_at_checked(12)?;
    let (length, sum) = head.split_at(8);
    let size = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (data, rest) = rest.split_at_checked(size)?;
    let (data_sum, rest) = rest.split_at_checked(4)?;
    if masked_crc(length).to_le_bytes() != sum || masked_crc(data).to_le_bytes() != data_sum {
        return None;
    }
    *file = rest;
    Some(data)
}

fn parse_event(event: &[u8]) -> Option<Scalars> {
    let mut scalars = Scalars { wall_time: 0.0, step: 0, values: Vec::new() };
    for (field, content) in Fields(event) {
        match (field, content) {
            (1, Content::Eight(value)) => scalars.wall_time = f64::from_le_bytes(value),
            (2, Content::Number(step)) => scalars.step = step,
            (5, Content::Bytes(summary)) => scalars.values.extend(parse_summary(summary)),
            _ => {}
        }
    }
    (!scalars.values.is_empty()).then_some(scalars)
}

fn parse_summary(summary: &[u8]) -> Vec<(String, f32)> {
    let value = |content: Content<'_>| {
        let Content::Bytes(value) = content else { return None };
        let mut tag = String::new();
        let mut number = None;
        for (field, content) in Fields(value) {
            match (field, content) {
                (1, Content::Bytes(text)) => tag = String::from_utf8_lossy(text).into_owned(),
                (2, Content::Four(value)) => number = Some(f32::from_le_bytes(value)),
                _ => {}
            }
        }
        Some((tag, number?))
    };
    Fields(summary).filter(|(field, _)| *field == 1).filter_map(|(_, content)| value(content)).collect()
}

enum Content<'a> {
    Number(u64),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    Four([u8; 4]),
}

/// The fields of a message, up to the first that is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Content<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let content = match key % 8 {
            VARINT => Content::Number(self.varint()?),
            DOUBLE => Content::Eight(self.take(8)?.try_into().ok()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            FLOAT => Content::Four(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key / 8, content))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

fn key(field: u64, kind: u64) -> Vec<u8> {
    varint(8 * field + kind)
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [key(field, DOUBLE), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [key(field, BYTES), varint(content.len() as u64), content.to_vec()].concat()
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let sums = [masked_crc(&length), masked_crc(data)].map(u32::to_le_bytes);
    [&length[..], &sums[0], data, &sums[1]].concat()
}

/// The checksum that TensorFlow keeps beside what it sums up: rotated and moved, so that a sum of sums is another.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC, bit by bit: records are a few dozen bytes.
fn crc32c(data: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for &byte in data {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283); // the check value of CRC-32/ISCSI
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa); // RFC 3720, B.4
    }

    #[test]
    fn a_record_has_the_bytes_that_tensorflow_writes() {
        let scalars = Scalars { wall_time: 1.0, step: 300, values: vec![("a".into(), 0.5)] };
        let event = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..],
            &[0x10, 0xac, 0x02],
            &[0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0, 0x3f],
        ]
        .concat();
        assert_eq!(scalars.record()[12..12 + event.len()], event);
    }

    #[test]
    fn what_was_written_is_read_until_something_is_damaged() {
        let first = Scalars { wall_time: 2.5, step: 1, values: vec![("x".into(), 1.0), ("y".into(), -2.0)] };
        let second = Scalars { wall_time: 3.5, step: u64::MAX, values: vec![("größe".into(), f32::NAN)] };
        let file = [version(2.0), first.record(), second.record()].concat();
        let found = read(&file);
        assert_eq!((found.len(), &found[0], found[1].step), (2, &first, u64::MAX));
        assert!(found[1].values[0].1.is_nan());
        for length in 0..file.len() {
            assert!(read(&file[..length]).len() < 2);
        }
        let mut damaged = file;
        let end = damaged.len() - 6;
        damaged[end] ^= 1;
        assert_eq!(read(&damaged), [first]);
    }
}
