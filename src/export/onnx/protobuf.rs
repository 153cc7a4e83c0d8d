//! The wire format of Protocol Buffers, as much of it as an ONNX file needs: numbers, bytes, messages.
//!
//! A field is its number and the kind of its value in one varint, then the value; bytes and messages have their length
//! before them. A varint has seven bits a byte, the lowest first, and the highest bit set in every byte but the last.

/// Fields of one message, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    /// A whole number.
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    /// Bytes.
    pub(super) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Text.
    pub(super) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// A message inside this one.
    pub(super) fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// As many messages as there are, under one number.
    pub(super) fn messages<'a>(self, field: u64, values: impl IntoIterator<Item = &'a Self>) -> Self {
        values.into_iter().fold(self, |message, value| message.message(field, value))
    }

    /// Whole numbers, each as a field of its own, which every reader takes.
    pub(super) fn numbers(self, field: u64, values: impl IntoIterator<Item = u64>) -> Self {
        values.into_iter().fold(self, |message, value| message.number(field, value))
    }

    /// The message as a file has it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    fn bytes(message: Message) -> Vec<u8> {
        message.into_bytes()
    }

    #[test]
    fn the_examples_of_the_specification_come_out() {
        assert_eq!(bytes(Message::default().number(1, 150)), [0x08, 0x96, 0x01]);
        let text = [b"\x12\x07".as_slice(), b"testing"].concat();
        assert_eq!(bytes(Message::default().text(2, "testing")), text);
        let inner = Message::default().number(1, 150);
        assert_eq!(bytes(Message::default().message(3, &inner)), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn numbers_take_one_byte_for_seven_bits_and_ten_at_most() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            assert_eq!(bytes(Message::default().number(1, value)).len(), 1 + length, "{value}");
        }
        let largest = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(bytes(Message::default().number(1, u64::MAX)), largest);
    }

    #[test]
    fn a_field_above_fifteen_has_a_key_of_two_bytes() {
        assert_eq!(bytes(Message::default().number(20, 1)), [0xa0, 0x01, 0x01]);
    }

    #[test]
    fn several_values_are_several_fields() {
        assert_eq!(bytes(Message::default().numbers(1, [3, 300])), [0x08, 3, 0x08, 0xac, 0x02]);
        let one = Message::default();
        let other = Message::default().number(1, 1);
        assert_eq!(bytes(Message::default().messages(5, [&one, &other])), [0x2a, 0, 0x2a, 2, 0x08, 1]);
    }
}
