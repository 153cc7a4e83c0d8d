//! Every unit: ids, counts, and the way back.

mod foreign;

use super::{Piece, Tokenizer};
use crate::config::{CorpusConfig, Unit};
use crate::data::text::Text;

fn config(unit: Unit, unknown: bool) -> CorpusConfig {
    CorpusConfig { unknown, ..CorpusConfig::new("text", unit) }
}

fn build(unit: Unit, unknown: bool, text: &str) -> Tokenizer {
    Tokenizer::build(&config(unit, unknown), &Text::from(text)).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(&Text::from(text)).unwrap().tokens.to_vec()
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
    text.push_str(&decoder.finish());
    text
}

#[test]
fn words_go_by_count_then_by_first_occurrence() {
    let tokenizer = build(Unit::Word, true, "b a\nc a\n");
    assert_eq!(tokenizer.words(), ["a", "<eos>", "b", "c", "<unk>"]); // 2, 2, 1, 1
    assert_eq!((tokenizer.unknown_id(), tokenizer.line_end_id()), (Some(4), Some(1)));
}

#[test]
fn every_line_ends_with_eos_even_an_empty_or_unfinished_one() {
    let tokenizer = build(Unit::Word, false, "a b\n\n a");
    let tokens: Vec<&str> = ids(&tokenizer, "a b\n\n a").into_iter().map(|id| tokenizer.token(id)).collect();
    assert_eq!(tokens, ["a", "b", "<eos>", "<eos>", "a", "<eos>"]);
    assert_eq!(ids(&tokenizer, "a\r\nb\r\n"), ids(&tokenizer, "\u{feff}a\nb")); // CR is whitespace
}

#[test]
fn an_unk_of_the_text_itself_is_the_unknown_type() {
    let tokenizer = build(Unit::Word, true, "<unk> a\n");
    assert_eq!(tokenizer.vocab_size(), 3);
    let encoded = tokenizer.encode(&Text::from("<unk> b\n")).unwrap();
    assert_eq!((encoded.tokens.get(0), encoded.tokens.get(1)), (0, 0));
    assert_eq!(encoded.unseen, 1); // b; the text's own <unk> was seen
}

#[test]
fn rare_words_are_cut_by_count_and_by_size_but_eos_and_unk_stay() {
    let text = Text::from("a a a b b c\n");
    let settings = CorpusConfig { min_count: 2, ..config(Unit::Word, true) };
    let words = |settings| Tokenizer::build(&settings, &text).unwrap().words().to_vec();
    assert_eq!(words(settings.clone()), ["a", "b", "<eos>", "<unk>"]);
    assert_eq!(words(CorpusConfig { vocab_size: 3, ..settings }), ["a", "<eos>", "<unk>"]);
}

#[test]
fn chars_and_bytes_go_by_code_and_unk_is_last() {
    let chars = build(Unit::Char, true, "éba\n");
    assert_eq!(chars.words(), ["\n", "a", "b", "é", "<unk>"]);
    let bytes = build(Unit::Byte, true, "éba\n");
    assert_eq!(bytes.words(), ["\n", "a", "b", "<0xA9>", "<0xC3>", "<unk>"]);
    assert_eq!(ids(&bytes, "é"), [4, 3]);
    assert_eq!((chars.line_end_id(), bytes.line_end_id()), (Some(0), Some(0)));
}

#[test]
fn unseen_symbols_become_unk_or_are_left_out_and_are_counted() {
    for unit in [Unit::Word, Unit::Char, Unit::Byte] {
        for (unknown, length) in [(true, 5), (false, 3)] {
            let tokenizer = build(unit, unknown, "a b\n");
            let text = if unit == Unit::Word { "a x b y\n" } else { "axby " };
            let encoded = tokenizer.encode(&Text::from(text)).unwrap();
            assert_eq!((encoded.tokens.len(), encoded.unseen), (length, 2), "{unit:?} {unknown}");
        }
    }
}

#[test]
fn carriage_returns_before_line_feeds_are_dropped_from_chars_and_kept_in_bytes() {
    let chars = build(Unit::Char, false, "a\r\nb\rc");
    assert_eq!(chars.words(), ["\n", "\r", "a", "b", "c"]); // the CR without LF is a character
    let encoded = chars.encode(&Text::from("a\r\nb")).unwrap();
    assert_eq!((encoded.tokens.len(), encoded.chars, encoded.bytes), (3, 4, 4)); // measured as read
    assert_eq!(ids(&build(Unit::Byte, false, "a\r\n"), "a\r\n").len(), 3);
}

#[test]
fn a_byte_order_mark_is_no_symbol_but_three_bytes() {
    let marked = "\u{feff}ab";
    for (unit, tokens) in [(Unit::Char, 2), (Unit::Word, 2), (Unit::Bpe, 2), (Unit::Byte, 5)] {
        let encoded = build(unit, false, marked).encode(&Text::from(marked)).unwrap();
        assert_eq!(encoded.tokens.len(), tokens, "{unit:?}");
        assert_eq!(encoded.bytes, if unit == Unit::Byte { 5 } else { 2 }, "{unit:?}");
    }
}

#[test]
fn nul_is_a_symbol_like_any_other() {
    for unit in [Unit::Char, Unit::Byte, Unit::Bpe] {
        let tokenizer = build(unit, false, "a\0b");
        assert_eq!(decode(&tokenizer, &ids(&tokenizer, "b\0a")), "b\0a", "{unit:?}");
    }
}

/// The tokens of `text` with the bytes that became each, and what was left out.
fn cut(tokenizer: &Tokenizer, text: &str) -> Vec<(Option<String>, String)> {
    let mut pieces = Vec::new();
    let source = Text::from(text);
    let spell = |span: std::ops::Range<usize>| String::from_utf8_lossy(&source.bytes()[span]).into_owned();
    let take = |piece: Piece| {
        pieces.push((piece.id.map(|id| tokenizer.token(id).to_owned()), spell(piece.span)));
    };
    tokenizer.cut(&source, take).unwrap();
    pieces
}

fn pieces(wanted: &[(&str, &str)]) -> Vec<(Option<String>, String)> {
    let token = |token: &str| (!token.is_empty()).then(|| token.to_owned());
    wanted.iter().map(|&(name, text)| (token(name), text.to_owned())).collect()
}

#[test]
fn each_token_knows_the_bytes_that_became_it() {
    let of = |unit, unknown, text: &str| cut(&build(unit, unknown, "é b\n"), text);
    assert_eq!(
        of(Unit::Word, true, " éb  b\r\nb"),
        pieces(&[("<unk>", "éb"), ("b", "b"), ("<eos>", "\r\n"), ("b", "b"), ("<eos>", "")])
    );
    assert_eq!(of(Unit::Char, false, "\u{feff}xé\r\n"), pieces(&[("", "x"), ("é", "é"), ("\n", "\r\n")]));
    assert_eq!(
        of(Unit::Bpe, false, "\u{feff}b\r\n b"),
        pieces(&[("b", "b"), ("\n", "\r\n"), (" ", " "), ("b", "b")])
    );
    let bytes = of(Unit::Byte, false, "é");
    assert_eq!(
        bytes.iter().map(|piece| piece.0.as_deref()).collect::<Vec<_>>(),
        [Some("<0xC3>"), Some("<0xA9>")]
    );
}

#[test]
fn extents_are_of_what_is_predicted_and_no_more() {
    let of = |unit, unknown, text: &str| {
        let encoded = build(unit, unknown, "é b\n").encode_measured(&Text::from(text)).unwrap();
        let all = (0..encoded.tokens.len()).map(|index| encoded.extents.get(index));
        let seen = all.clone().filter(|extent| !extent.hidden);
        let sums = seen.fold((0, 0, 0), |sum, extent| {
            (sum.0 + extent.bytes, sum.1 + extent.chars, sum.2 + extent.words)
        });
        (sums, all.filter(|extent| extent.hidden).count(), encoded.unseen)
    };
    for unit in [Unit::Word, Unit::Char, Unit::Bpe] {
        assert_eq!(of(unit, false, "é b\r\nb\n"), ((7, 6, 3), 0, 0), "{unit:?}"); // CR costs nothing
    }
    assert_eq!(of(Unit::Byte, false, "é b\nb"), ((6, 5, 3), 0, 0));
    assert_eq!(of(Unit::Char, false, "éxb"), ((3, 2, 1), 0, 1)); // left out
    assert_eq!(of(Unit::Char, true, "éxb"), ((3, 2, 1), 1, 1)); // hidden
    assert_eq!(of(Unit::Word, true, " é   xyz b \n"), ((5, 4, 2), 1, 1)); // one blank before b
}

#[test]
fn text_comes_back_from_its_ids() {
    let text = "To be, or not to be: é – 東京 🎭\nthat is\tthe question\n";
    for unit in [Unit::Char, Unit::Byte, Unit::Bpe] {
        let tokenizer = build(unit, true, text);
        assert_eq!(decode(&tokenizer, &ids(&tokenizer, text)), text, "{unit:?}");
    }
    let words = build(Unit::Word, true, text);
    assert_eq!(decode(&words, &ids(&words, text)), text.replace('\t', " "));
}

#[test]
fn a_decoder_gives_whole_characters_only() {
    let tokenizer = build(Unit::Byte, false, "é🎭a");
    let mut decoder = tokenizer.decoder();
    let parts: Vec<String> = ids(&tokenizer, "é🎭").into_iter().map(|id| decoder.push(id)).collect();
    assert_eq!(parts, ["", "é", "", "", "", "🎭"]);
    let broken = ids(&tokenizer, "🎭");
    assert_eq!(decoder.push(broken[0]), "");
    assert_eq!(decoder.push(ids(&tokenizer, "a")[0]), "\u{fffd}a"); // what began can no longer be completed
    assert_eq!(decoder.push(broken[0]), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!((decoder.push(10_000), decoder.finish()), (String::new(), String::new()));
}

#[test]
fn byte_pairs_are_trained_alike_each_time_and_longer_than_a_byte() {
    let text = "the cat and the dog and the bird\n".repeat(20);
    let settings = CorpusConfig { vocab_size: 270, ..config(Unit::Bpe, true) };
    let train = || Tokenizer::build(&settings, &Text::from(text.as_str())).unwrap();
    let tokenizer = train();
    assert_eq!(tokenizer.to_json(), train().to_json());
    assert_eq!(tokenizer.vocab_size(), 270);
    assert!(tokenizer.words().contains(&" the".to_owned()), "{:?}", tokenizer.words());
    assert_eq!(tokenizer.line_end_id(), Some(ids(&tokenizer, "\n")[0]));
    assert_eq!(decode(&tokenizer, &ids(&tokenizer, "zebra é\n")), "zebra é\n"); // no text is outside
}

#[test]
fn too_few_byte_pairs_are_refused() {
    let settings = CorpusConfig { vocab_size: 100, ..config(Unit::Bpe, true) };
    let message = Tokenizer::build(&settings, &Text::from("text")).unwrap_err().to_string();
    assert!(message.contains("vocab_size is 100"), "{message}");
}

#[test]
fn a_text_cut_in_pieces_has_the_tokens_of_the_whole() {
    let line = "A line, with  spaces \n\n \n and tabs\t\nИ ещё строка\n";
    let tokenizer = build(Unit::Bpe, false, line);
    let long = line.repeat((3 << 20) / line.len()); // three pieces
    let once = ids(&tokenizer, line.repeat(2).as_str());
    let twice = ids(&tokenizer, line.repeat(3).as_str());
    let period = &twice[once.len()..]; // what one more line adds, once the text has begun
    let whole = ids(&tokenizer, &long);
    assert_eq!(whole.len(), once.len() + (long.len() / line.len() - 2) * period.len());
    assert_eq!(decode(&tokenizer, &whole), long);
}

#[test]
fn pieces_part_a_text_where_any_of_its_words_end() {
    let line = "eins  zwei,\u{a0}\u{a0}drei \n\n東京。\n 'tis\u{3000} \t7 7\r\nи ещё\n"; // every kind of space
    let tokenizer = build(Unit::Bpe, false, line);
    let long = line.repeat(40);
    let whole = tokenizer.encode(&Text::from(long.as_str())).unwrap().tokens.to_vec();
    let mut joined = Vec::new();
    for piece in super::stretches::pieces(&long, 1) {
        let encoded = tokenizer.encode(&Text::from(piece)).unwrap();
        joined.extend(encoded.tokens.to_vec());
    }
    assert_eq!(joined, whole);
}

#[test]
fn pairs_are_counted_over_parts_of_long_words() {
    let parts =
        |text: &str| super::stretches::without_long_words(text).map(str::to_owned).collect::<Vec<_>>();
    let line = "short words, and 東京 as well\n".repeat(100);
    assert_eq!(parts(&line), std::slice::from_ref(&line));
    let long = "東".repeat(1000); // three bytes each: 341 of them fit
    let text = format!("a {long} b {long}");
    let found = parts(&text);
    assert_eq!(found.concat(), text);
    assert_eq!(found.len(), 1 + 2 * 2);
    assert!(found.iter().all(|part| part.split(' ').all(|word| word.len() <= 1024)), "{found:?}");
}

#[test]
fn a_stretch_that_no_memory_is_made_for_is_refused_with_its_place() {
    let text = format!("short words first\n{}", "x".repeat((8 << 20) + 1));
    let text = Text::new(text.into_bytes(), "some/dna.txt");
    let message = Tokenizer::build(&config(Unit::Bpe, false), &text).unwrap_err().to_string();
    for part in ["some/dna.txt", "8388610 bytes from offset 17 on", "unit = \"byte\""] {
        assert!(message.contains(part), "{message}");
    }
    let tokenizer = build(Unit::Bpe, false, "text");
    assert_eq!(tokenizer.encode(&text).unwrap_err().exit_code(), 3);
}

#[test]
fn what_was_saved_loads_to_the_same_unit_and_ids() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let text = "the cat <unk> é\n\nsat\r\n";
    for unit in [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe] {
        for unknown in [true, false] {
            let tokenizer = build(unit, unknown, text);
            std::fs::write(&path, tokenizer.to_json()).unwrap();
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded.unit(), unit);
            assert_eq!(loaded.words(), tokenizer.words());
            assert_eq!(loaded.unknown_id(), tokenizer.unknown_id());
            assert_eq!(ids(&loaded, "cat dog\nté\0"), ids(&tokenizer, "cat dog\nté\0"));
            assert_eq!(loaded.to_json(), tokenizer.to_json());
        }
    }
}

#[test]
fn a_given_tokenizer_must_cut_by_the_unit_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, build(Unit::Byte, false, "text").to_json()).unwrap();
    let given = |unit| CorpusConfig { tokenizer: Some(path.clone()), ..config(unit, false) };
    assert_eq!(Tokenizer::build(&given(Unit::Byte), &Text::from("other")).unwrap().vocab_size(), 3);
    let message = Tokenizer::build(&given(Unit::Bpe), &Text::from("text")).unwrap_err().to_string();
    assert!(message.contains("by byte") && message.contains("bpe"), "{message}");
}
