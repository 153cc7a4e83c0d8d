//! Cuts one text into training, validation and test parts, in order.

use super::text::Text;
use crate::config::Unit;
use crate::error::{Error, Result};
use crate::readable::too_few;

/// Where a boundary may fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Exactly where the percentages say, or a few bytes before, so that no character is cut.
    Char,
    /// At the line end nearest to that byte; if none is near, as `Char`.
    Line,
    /// As `Line`, but if no line end is near, at the next white space: no word is cut.
    Word,
}

impl Cut {
    /// For a text that is cut into `unit`s, where words must stay whole and `otherwise` nothing need.
    pub(super) fn for_unit(unit: Unit, otherwise: Self) -> Self {
        if unit == Unit::Word { Self::Word } else { otherwise }
    }
}

/// Refuses percentages that no text can be cut by.
///
/// # Errors
/// If one is negative or not finite, none is left for training, or the sum is not 100.
pub fn validate(split: [f64; 3]) -> Result<()> {
    let sum: f64 = split.iter().sum();
    let numbers = split.iter().all(|part| part.is_finite() && *part >= 0.0);
    if numbers && split[0] > 0.0 && (sum - 100.0).abs() < 1e-6 {
        return Ok(());
    }
    let what =
        "wanted three percentages for training, validation and test that sum to 100, the first above 0";
    Err(Error::config(format!("corpus.split is {split:?}: {what}")))
}

/// Cuts by percentages of bytes.
///
/// # Errors
/// If the percentages are wrong, or the text is too short for them.
pub fn by_percent(text: &Text, split: [f64; 3], cut: Cut) -> Result<[Text; 3]> {
    validate(split)?;
    let length = text.len();
    let offset = |percent: f64| ((length as f64 * percent / 100.0) as usize).min(length);
    let reach = match cut {
        Cut::Char => 0.0,
        // Half of the smallest part: no part can vanish, and none changes much.
        Cut::Line | Cut::Word => split.into_iter().filter(|&part| part > 0.0).fold(100.0, f64::min) / 2.0,
    };
    let boundary = |percent: f64| match percent >= 100.0 - 1e-9 {
        true => length,
        false => near(text.bytes(), offset(percent), offset(reach), cut),
    };
    let first = boundary(split[0]);
    let second = if split[1] > 0.0 { boundary(split[0] + split[1]).max(first) } else { first };
    // Bytes that are no text may have no blank at which they could be cut.
    parts(text, [first, second], split).map_err(|error| match (cut, text.as_str()) {
        (Cut::Word, Err(no_text)) => no_text,
        _ => error,
    })
}

/// Cuts into parts of so many bytes, which must be the whole text: for bytes exactly there, for words at the next white
/// space, else no more than inside a character.
///
/// # Errors
/// If the sizes are not those of the text.
pub fn by_bytes(text: &Text, sizes: [usize; 3], unit: Unit) -> Result<[Text; 3]> {
    let wanted: usize = sizes.iter().sum();
    if wanted != text.len() {
        return Err(Error::data(&text.source, format!("is {} bytes, wanted {wanted}", text.len())));
    }
    let offset = |at: usize| match unit {
        Unit::Byte => at,
        Unit::Word => next_blank(text.bytes(), at),
        Unit::Char | Unit::Bpe => char_boundary(text.bytes(), at),
    };
    parts(text, [offset(sizes[0]), offset(sizes[0] + sizes[1])], sizes.map(|size| size as f64))
}

fn parts(text: &Text, [first, second]: [usize; 2], wanted: [f64; 3]) -> Result<[Text; 3]> {
    let parts = [0..first, first..second, second..text.len()];
    let names = ["training", "validation", "test"];
    for ((part, name), wanted) in parts.iter().zip(names).zip(wanted) {
        if wanted > 0.0 && part.is_empty() {
            let what = format!("{} to be split: nothing is left for {name}", too_few(text.len(), "byte"));
            return Err(Error::data(&text.source, what));
        }
    }
    Ok(parts.map(|part| text.slice(part)))
}

/// The offset after the line feed that is nearest to `at` and less than `reach` away, else a character's first byte.
fn near(bytes: &[u8], at: usize, reach: usize, cut: Cut) -> usize {
    let window = at.saturating_sub(reach)..(at + reach).min(bytes.len());
    let ends = bytes[window.clone()].iter().zip(window.start + 1..).filter(|&(&byte, _)| byte == b'\n');
    let nearest = ends.map(|(_, end)| end).min_by_key(|end| end.abs_diff(at));
    nearest.unwrap_or_else(|| match cut {
        Cut::Word => next_blank(bytes, at),
        Cut::Char | Cut::Line => char_boundary(bytes, at),
    })
}

/// The white space of ASCII at `at` or after it; where there is none as far as the text goes, the last before it, and in a text
/// without any the end: a word is not cut.
fn next_blank(bytes: &[u8], at: usize) -> usize {
    let rest = bytes[at..].iter().position(u8::is_ascii_whitespace).map(|blank| at + blank);
    rest.or_else(|| bytes[..at].iter().rposition(u8::is_ascii_whitespace)).unwrap_or(bytes.len())
}

/// The first byte of the character at `at`. What is no UTF-8 is cut where it is.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    let begins = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (at.saturating_sub(3)..=at).rev().find(begins).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::{Cut, by_bytes, by_percent};
    use crate::config::Unit;
    use crate::data::text::Text;

    fn lengths(parts: [Text; 3]) -> [usize; 3] {
        parts.map(|part| part.len())
    }

    #[test]
    fn percentages_are_of_bytes() {
        let text = Text::from("x".repeat(1000).as_str());
        assert_eq!(lengths(by_percent(&text, [90.0, 5.0, 5.0], Cut::Char).unwrap()), [900, 50, 50]);
        assert_eq!(lengths(by_percent(&text, [90.0, 0.0, 10.0], Cut::Char).unwrap()), [900, 0, 100]);
        assert_eq!(lengths(by_percent(&text, [100.0, 0.0, 0.0], Cut::Line).unwrap()), [1000, 0, 0]);
    }

    #[test]
    fn bytes_without_a_place_to_cut_are_refused_for_what_they_are() {
        let error = |bytes: Vec<u8>| {
            let text = Text::new(bytes, "file");
            by_percent(&text, [90.0, 5.0, 5.0], Cut::Word).unwrap_err().to_string()
        };
        assert!(error(vec![0xff; 3000]).contains("UTF-8"), "{}", error(vec![0xff; 3000]));
        assert!(error(vec![b'x'; 3000]).contains("too few to be split"));
    }

    #[test]
    fn no_character_is_cut() {
        let text = Text::from("é".repeat(101).as_str()); // 202 bytes; 90 % end inside the 91st character
        let parts = by_percent(&text, [90.0, 5.0, 5.0], Cut::Char).unwrap();
        assert!(parts.iter().all(|part| part.as_str().is_ok()));
        assert_eq!(lengths(parts), [180, 10, 12]);
    }

    #[test]
    fn a_file_is_cut_at_the_line_end_next_to_the_boundary() {
        let text = Text::from("0123456\n".repeat(100).as_str()); // 800 bytes; boundaries 720 and 760
        assert_eq!(lengths(by_percent(&text, [90.0, 5.0, 5.0], Cut::Line).unwrap()), [720, 40, 40]);
        let text = Text::from("012345\n".repeat(100).as_str()); // 700 bytes: 630 is a line's end, 665 too
        assert_eq!(lengths(by_percent(&text, [90.5, 4.5, 5.0], Cut::Line).unwrap()), [630, 35, 35]);
    }

    #[test]
    fn a_text_without_near_line_ends_is_cut_between_characters() {
        let text = Text::from("é".repeat(101).as_str());
        assert_eq!(lengths(by_percent(&text, [90.0, 5.0, 5.0], Cut::Line).unwrap()), [180, 10, 12]);
    }

    #[test]
    fn fixed_sizes_are_exact_for_bytes_and_kind_to_characters() {
        let text = Text::from("aé");
        assert_eq!(lengths(by_bytes(&text, [2, 1, 0], Unit::Byte).unwrap()), [2, 1, 0]);
        assert_eq!(lengths(by_bytes(&text, [2, 1, 0], Unit::Char).unwrap()), [1, 2, 0]);
        assert!(by_bytes(&text, [2, 2, 0], Unit::Byte).is_err());
    }

    #[test]
    fn no_word_is_cut_where_tokens_are_words() {
        let text = Text::from("mill river ".repeat(100).as_str()); // 1,100 bytes; 990 and 1,045 are within words
        assert_eq!(lengths(by_percent(&text, [90.1, 4.9, 5.0], Cut::Word).unwrap()), [994, 55, 51]);
        assert_eq!(lengths(by_bytes(&text, [2, 1000, 98], Unit::Word).unwrap()), [4, 1001, 95]);
        // Nothing but a word as far as the text goes: the cut is before it, and there is none in a word alone.
        let long = Text::from(format!("{}{}", "ab ".repeat(30), "x".repeat(200)).as_str());
        assert_eq!(lengths(by_percent(&long, [60.0, 0.0, 40.0], Cut::Word).unwrap()), [89, 0, 201]);
        let message = by_percent(&Text::from("abcde"), [50.0, 50.0, 0.0], Cut::Word).unwrap_err().to_string();
        assert!(message.contains("nothing is left for validation"), "{message}");
        let lines = Text::from("ab cd\n".repeat(100).as_str());
        assert_eq!(lengths(by_percent(&lines, [90.0, 5.0, 5.0], Cut::Word).unwrap()), [540, 30, 30]);
    }

    #[test]
    fn a_text_too_short_for_its_parts_is_refused() {
        let message = by_percent(&Text::from("ab"), [90.0, 5.0, 5.0], Cut::Line).unwrap_err().to_string();
        assert!(message.contains("2 bytes are too few") && message.contains("validation"), "{message}");
    }

    #[test]
    fn percentages_that_make_no_whole_are_refused() {
        for split in [[90.0, 5.0, 4.0], [0.0, 50.0, 50.0], [110.0, -5.0, -5.0], [f64::NAN, 5.0, 5.0]] {
            let message = by_percent(&Text::from("text"), split, Cut::Char).unwrap_err().to_string();
            assert!(message.contains("corpus.split"), "{message}");
        }
    }
}
