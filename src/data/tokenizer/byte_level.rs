//! Bytes as printable characters, the way GPT-2's byte-level vocabularies write them, and as people read them.

/// The character that stands for a byte in a byte-level vocabulary.
pub(super) fn to_char(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte) - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).expect("every code above is below the surrogates")
}

/// The byte that a character of a byte-level vocabulary stands for.
pub(super) fn to_byte(char: char) -> Option<u8> {
    match char as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes that a byte-level entry stands for; none if it has other characters.
pub(super) fn to_bytes(word: &str) -> Option<Vec<u8>> {
    word.chars().map(to_byte).collect()
}

/// The bytes as text; those that are no UTF-8 look like `<0xE9>`.
pub(super) fn display(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("<0x{byte:02X}>")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{display, to_byte, to_char};
    use std::collections::BTreeSet;

    #[test]
    fn every_byte_has_a_character_of_its_own_and_comes_back() {
        let chars: BTreeSet<char> = (0..=255).map(to_char).collect();
        assert_eq!(chars.len(), 256);
        assert!((0..=255).all(|byte| to_byte(to_char(byte)) == Some(byte)));
        assert_eq!((to_char(b'a'), to_char(b' '), to_char(b'\n')), ('a', 'Ġ', 'Ċ')); // as in GPT-2's vocabulary
        assert_eq!(to_byte('€'), None);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_spelled_out() {
        assert_eq!(display("é".as_bytes()), "é");
        assert_eq!(display(b"a\xe9b"), "a<0xE9>b");
    }
}
