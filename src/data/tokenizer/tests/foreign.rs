//! Tokenizers of other programs, and files that are none.

use super::{build, cut, decode, ids, pieces};
use crate::config::Unit;
use crate::data::text::Text;
use crate::data::tokenizer::Tokenizer;
use std::path::Path;

#[test]
fn a_tokenizer_of_another_program_loads_through_its_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let foreign = r###"{"version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
        "strategy": "LongestFirst", "stride": 0}, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "play": 1, "##ing": 2, "##s": 3}}}"###;
    std::fs::write(&path, foreign).unwrap();
    let tokenizer = Tokenizer::load(&path).unwrap();
    let encoded = tokenizer.encode(&Text::from("Playing plays x")).unwrap();
    assert_eq!(encoded.tokens.to_vec(), [1, 2, 1, 3, 0]); // never truncated
    assert_eq!((encoded.unseen, tokenizer.unknown_id()), (1, Some(0)));
    let found = cut(&tokenizer, "Playing plays x");
    assert_eq!(
        found,
        pieces(&[("play", "Play"), ("##ing", "ing"), ("play", "play"), ("##s", "s"), ("[UNK]", "x")])
    );
    assert_eq!(decode(&tokenizer, &[1, 2, 1, 3]), "playing plays");
}

#[test]
fn a_broken_tokenizer_is_an_error_that_names_the_file_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let good = build(Unit::Bpe, false, "the cat the cat").to_json();
    let model = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"model":{"type":"#;
    let broken = [
        "".to_owned(),
        "{}".to_owned(),
        "[[[[".to_owned(),
        good[..good.len() / 2].to_owned(),
        format!(r#"{model}"BPE","vocab":{{"a":0}},"merges":[["a","b"]]}}}}"#),
        format!(r#"{model}"BPE","vocab":{{"a":4294967295}},"merges":[]}}}}"#),
        format!(r#"{model}"BPE","vocab":{{}},"merges":[]}}}}"#),
        format!(
            r#"{model}"BPE","continuing_subword_prefix":"@@","vocab":{{"a":0,"é":1,"aé":2}},"merges":["a é"]}}}}"#
        ),
        format!(r#"{model}"Unigram","vocab":[],"unk_id":7}}}}"#),
        format!(r#"{model}"Unigram","vocab":[["",0.0]],"unk_id":0}}}}"#),
        format!(r#"{model}"WordLevel","vocab":{{"a":-1}},"unk_token":"a"}}}}"#),
        "[".repeat(100_000),
    ];
    for text in broken {
        std::fs::write(&path, &text).unwrap();
        match Tokenizer::load(&path) {
            Err(error) => {
                assert_eq!(error.exit_code(), 4);
                assert!(error.to_string().contains("tokenizer.json"), "{error}");
            }
            Ok(tokenizer) => drop(tokenizer.encode(&Text::from("aé b"))), // odd, yet usable without a panic
        }
    }
    let missing = Tokenizer::load(&folder.path().join("none.json")).unwrap_err().to_string();
    assert!(missing.contains("none.json"), "{missing}");
}

#[test]
fn two_types_of_one_id_are_refused() {
    let text = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":1,"b":0,"ab":1},"merges":[]}}"#;
    let message = Tokenizer::parse(Path::new("tokenizer.json"), text.as_bytes()).unwrap_err().to_string();
    assert!(message.contains("two entries have the id 1"), "{message}");
}

#[test]
fn a_tokenizer_larger_than_any_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::File::create(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    let message = Tokenizer::load(&path).unwrap_err().to_string();
    assert!(message.contains("larger than 256 MiB"), "{message}");
}

/// A tokenizer of the library as other programs write it, with what differs from one that is plain.
fn foreign(changes: &[(&str, serde_json::Value)]) -> Tokenizer {
    let mut file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": null,
    });
    changes.iter().for_each(|(key, value)| file[*key] = value.clone());
    Tokenizer::parse(Path::new("tokenizer.json"), file.to_string().as_bytes()).unwrap()
}

#[test]
fn what_cuts_by_chance_is_turned_off() {
    let vocabulary = serde_json::json!({"a": 0, "b": 1, "ab": 2});
    let model = serde_json::json!({"type": "BPE", "dropout": 0.9, "vocab": vocabulary, "merges": ["a b"]});
    let tokenizer = foreign(&[("model", model)]);
    assert_eq!(ids(&tokenizer, &"ab".repeat(50)), [2; 50]);
    assert!(tokenizer.to_json().contains("\"dropout\": null"));
}

#[test]
fn the_unknown_token_of_unigrams_is_the_one_that_their_file_says() {
    let vocabulary = serde_json::json!([["a", -1.0], ["<?>", -9.0], ["b", -1.0]]);
    let tokenizer =
        foreign(&[("model", serde_json::json!({"type": "Unigram", "unk_id": 1, "vocab": vocabulary}))]);
    assert_eq!((tokenizer.unknown_id(), ids(&tokenizer, "axb")), (Some(1), vec![0, 1, 2]));
    assert_eq!(tokenizer.encode(&Text::from("axb")).unwrap().unseen, 1);
}

#[test]
fn a_mark_in_the_middle_of_a_text_is_a_symbol_of_it() {
    let tokenizer = build(Unit::Bpe, false, "the mill");
    let whole = Text::from("\u{feff}\u{feff}a\u{feff}");
    assert_eq!(decode(&tokenizer, &tokenizer.encode(&whole).unwrap().tokens.to_vec()), "\u{feff}a\u{feff}");
    let part = tokenizer.encode(&whole.slice(3..7)).unwrap();
    assert_eq!(decode(&tokenizer, &part.tokens.to_vec()), "\u{feff}a");
}

#[test]
fn a_mark_that_is_composed_with_its_letter_is_a_part_of_the_token() {
    let vocabulary = serde_json::json!({"<?>": 0, "Café": 1, "the": 2, "é": 3});
    let model = serde_json::json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "<?>"});
    let changes = [
        ("model", model),
        ("normalizer", serde_json::json!({"type": "NFC"})),
        ("pre_tokenizer", serde_json::json!({"type": "WhitespaceSplit"})),
    ];
    let tokenizer = foreign(&changes);
    let text = "Cafe\u{301} the e\u{301}";
    let wanted = [("Café", "Cafe\u{301}"), ("the", "the"), ("é", "e\u{301}")];
    assert_eq!(cut(&tokenizer, text), pieces(&wanted));
    let encoded = tokenizer.encode_measured(&Text::from(text)).unwrap();
    let words: u32 = (0..3).map(|at| encoded.extents.get(at).words).sum();
    assert_eq!((encoded.unseen, words), (0, 3));
    assert!(tokenizer.changes(&Text::from(text)) && !tokenizer.changes(&Text::from("Café")));
}
