//! Odd texts: a defined result, or an error that names file and offset; memory within bounds.

use crate::support::run::{PLAY, Place, assert_fails, stderr};
use rhn::config::{CorpusConfig, Unit};
use rhn::data::{Text, Tokenizer};
use serde_json::Value;
use std::fs::File;
use std::io::Write;

fn config(unit: Unit) -> CorpusConfig {
    let vocab_size = if unit == Unit::Bpe { 300 } else { 0 };
    CorpusConfig { unknown: false, vocab_size, ..CorpusConfig::new("", unit) }
}

/// Cut by its own vocabulary and put together again; and the number of tokens.
fn there_and_back(unit: Unit, text: &str) -> (String, usize) {
    let text = Text::from(text);
    let tokenizer = Tokenizer::build(&config(unit), &text).unwrap();
    let encoded = tokenizer.encode(&text).unwrap();
    assert_eq!(encoded.unseen, 0);
    let mut decoder = tokenizer.decoder();
    let mut back: String = encoded.tokens.iter().map(|id| decoder.push(id)).collect();
    back.push_str(&decoder.finish());
    (back, encoded.tokens.len())
}

#[test]
fn odd_characters_are_characters_like_any_other() {
    for text in [
        "a\0b\0\0\n\0",                       // NUL
        "\u{301}\u{302}x\u{301}\n\u{20d0}",   // combining marks without a letter to combine with
        "שלום עולם\nمرحبا بالعالم\u{202e}\n", // from right to left
        "👩\u{200d}👩\u{200d}👧 🇩🇪\n",        // one picture of several characters
        "\r \r\r \u{85}\u{2028}\u{b}\u{c}\n", // line ends of others
        "\u{fffd}\u{fffe}\u{10ffff}\u{e000}", // at the edges of Unicode
    ] {
        assert_eq!(there_and_back(Unit::Char, text), (text.to_string(), text.chars().count()), "{text:?}");
        assert_eq!(there_and_back(Unit::Byte, text), (text.to_string(), text.len()), "{text:?}");
        assert_eq!(there_and_back(Unit::Bpe, text).0, text);
        let words: Vec<&str> =
            text.split_terminator('\n').flat_map(|l| l.split_whitespace().chain(["\n"])).collect();
        assert_eq!(there_and_back(Unit::Word, text).1, words.len(), "{text:?}");
    }
}

#[test]
fn line_ends_of_windows_are_line_ends_and_a_mark_at_the_start_is_none_of_the_text() {
    assert_eq!(there_and_back(Unit::Char, "\u{feff}a\r\nb\r").0, "a\nb\r");
    assert_eq!(there_and_back(Unit::Word, "\u{feff}a b\r\nc\r\n").0, "a b\nc\n");
    assert_eq!(there_and_back(Unit::Byte, "\u{feff}a\r\n").0, "\u{feff}a\r\n");
    assert_eq!(there_and_back(Unit::Bpe, "\u{feff}a\r\n\r\n").0, "a\n\n");
}

/// A byte that is no UTF-8 at `at`, among two-byte characters so that buffers end inside of one.
fn broken(at: usize, line: usize) -> Vec<u8> {
    let mut text = "é".repeat(at / 2 + 40_000).into_bytes();
    let ends = (line..text.len()).step_by(line).filter(|end| end % 2 == 0);
    ends.for_each(|end| text[end..end + 2].copy_from_slice(b"\n\n"));
    text[at] = 0xff;
    text
}

#[test]
fn a_byte_that_is_no_utf8_is_named_by_its_offset_wherever_a_buffer_ends() {
    let place = Place::new();
    place.train("--out run --max-steps 1");
    for at in [0, 1, 4095, 4096, 8190, 8191, 8192, 8193, 65_535, 65_536] {
        for line in [1000, usize::MAX / 4] {
            place.write("broken.txt", broken(at, line));
            // An even place is a character's first byte, an odd one its second: then the first is at fault.
            let named = [format!("offset {}", at - at % 2), "broken.txt".into(), "line ".into()];
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            assert_fails(&place.rhn("data inspect broken.txt --unit char"), 3, &named);
            if line == 1000 || at < 9000 {
                assert_fails(&place.rhn("score run broken.txt --per line"), 3, &named);
            }
        }
    }
}

/// `rhn ARGS…` with at most so much address space.
#[cfg(target_os = "linux")]
fn within(place: &Place, mebibytes: u64, args: &str) -> Value {
    let kibibytes = mebibytes << 10;
    let script =
        format!("ulimit -v {kibibytes}; RAYON_NUM_THREADS=1 exec {} {args}", env!("CARGO_BIN_EXE_rhn"));
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    serde_json::from_slice(output.stdout.split(|&byte| byte == b'\n').next().unwrap()).unwrap()
}

/// One line of `length` bytes without an end: `abc abc abc …`.
fn write_long_line(place: &Place, length: usize) {
    let mut file = File::create(place.path("long.txt")).unwrap();
    let piece = b"abc ".repeat(1 << 18);
    (0..length / piece.len()).for_each(|_| file.write_all(&piece).unwrap());
}

#[cfg(target_os = "linux")]
fn inspects_a_line_of(mebibytes: u64, unit: &str, room: u64) {
    let place = Place::new();
    write_long_line(&place, (mebibytes as usize) << 20);
    let report = within(&place, room, &format!("data inspect long.txt --unit {unit} --json"));
    let tokens: u64 =
        report["splits"].as_array().unwrap().iter().map(|split| split["tokens"].as_u64().unwrap()).sum();
    let bytes = mebibytes << 20;
    // Each split ends its line, and may begin and end with a part of a word, which is left out if it is unseen.
    let by_words = bytes / 4 - 4..=bytes / 4 + 7;
    let wanted = if unit == "char" || unit == "byte" { bytes..=bytes } else { by_words };
    assert!(wanted.contains(&tokens), "{tokens} {unit} tokens");
}

#[test]
#[cfg(target_os = "linux")]
fn a_line_of_eight_mebibytes_is_cut_within_bounds_of_memory() {
    for (unit, room) in [("char", 200), ("byte", 200), ("word", 200), ("bpe", 400)] {
        inspects_a_line_of(8, unit, room);
    }
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "long: a gibibyte in one line"]
fn a_line_of_a_gibibyte_is_cut_within_bounds_of_memory() {
    for (unit, room) in [("char", 3000), ("byte", 3000), ("word", 3000), ("bpe", 3000)] {
        inspects_a_line_of(1024, unit, room);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_line_is_scored_within_bounds_of_memory() {
    let place = Place::new();
    place.train("--out run --max-steps 1");
    write_long_line(&place, 1 << 20);
    let row = within(&place, 400, "score run long.txt --per line --json --threads 1");
    assert_eq!(row["tokens"], 1 << 20);
    assert!(row["mean"].as_f64().unwrap() > 0.0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_million_different_words_are_a_vocabulary_within_bounds_of_memory() {
    let place = Place::new();
    let mut text = String::with_capacity(9 << 20);
    (0..1_000_000)
        .for_each(|word| text.push_str(&format!("w{word}{}", if word % 10 == 9 { '\n' } else { ' ' })));
    place.write("words/train.txt", text);
    place.write("words/valid.txt", PLAY);
    let report = within(&place, 1200, "data inspect words --unit word --json");
    assert_eq!(report["vocab_size"], 1_000_002); // <eos> and <unk> among them
    assert_eq!(report["splits"][0]["tokens"], 1_100_000);
}
