//! One text, one tokenization: whatever reads a text has the same tokens, and every figure is over the text whose
//! probability was computed.

use crate::support::run::{Place, stderr, stdout};
use rhn::config::{CorpusConfig, Unit};
use rhn::data::{Piece, Text, TextStream, Tokenizer};
use rhn_kernels::rng::Rng;
use serde_json::{Value, json};
use std::path::Path;

fn config(unit: Unit, unknown: bool) -> CorpusConfig {
    let vocab_size = if unit == Unit::Bpe { 300 } else { 0 };
    CorpusConfig { unknown, vocab_size, ..CorpusConfig::new("x", unit) }
}

/// Tokenizers as other programs write them, each with what makes it different.
fn foreign() -> Vec<(&'static str, Value)> {
    let alphabet: Vec<char> = ('!'..='~').chain(['▁', 'é', '\n', ' ']).collect();
    let unigrams: Vec<Value> =
        [json!(["<unk>", 0.0])].into_iter().chain(alphabet.iter().map(|char| json!([char, -3.0]))).collect();
    let mut pairs: serde_json::Map<String, Value> = serde_json::Map::new();
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('\u{100}'..='\u{143}');
    bytes.zip(0..).for_each(|(char, id)| drop(pairs.insert(char.to_string(), json!(id))));
    let next = pairs.len();
    ["Ġt", "he", "Ġthe"]
        .iter()
        .zip(next..)
        .for_each(|(pair, id)| drop(pairs.insert((*pair).into(), json!(id))));
    let merges = json!(["Ġ t", "h e", "Ġt he"]);
    let bpe = json!({"type": "BPE", "vocab": pairs, "merges": merges, "dropout": 0.5});
    let level = |space: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": regex});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let pieces = json!({"[UNK]": 0, "the": 1, "##s": 2, "mill": 3, "old": 4, "##d": 5, "a": 6, "##b": 7});
    let file = |normalizer: Value, pre: Value, post: Value, decoder: Value, model: &Value| {
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
               "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model})
    };
    vec![
        ("byte level", file(Value::Null, level(false, true), level(false, true), level(true, true), &bpe)),
        ("with a prefix space", file(Value::Null, level(true, true), Value::Null, level(true, true), &bpe)),
        ("without a pattern", file(Value::Null, level(false, false), Value::Null, level(true, true), &bpe)),
        (
            "lower case",
            file(json!({"type": "Lowercase"}), level(false, true), Value::Null, level(true, true), &bpe),
        ),
        (
            "unigrams",
            file(
                json!({"type": "NFKC"}),
                metaspace.clone(),
                Value::Null,
                metaspace,
                &json!({"type": "Unigram", "unk_id": 0, "vocab": unigrams}),
            ),
        ),
        (
            "word pieces",
            file(
                json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true}),
                json!({"type": "BertPreTokenizer"}),
                Value::Null,
                json!({"type": "WordPiece", "prefix": "##", "cleanup": false}),
                &json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                        "max_input_chars_per_word": 100, "vocab": pieces}),
            ),
        ),
    ]
}

/// A text of what is nasty, drawn from `seed`.
fn nasty(seed: u64) -> String {
    let parts = [
        "the", "old", "mill", "a", "x", " ", "  ", "\n", "\r\n", "\r", "\n\n", "\t", "\u{feff}", "é",
        "e\u{301}", "<unk>", "<eos>", "东京", "🎭", "\u{a0}", "\u{3000}", "\u{85}", "\"", "\\", "'s", "7",
        ".", "\0", "İ", "ﬁ",
    ];
    let mut rng = Rng::keyed(seed, "nasty", 0);
    let length = 1 + (rng.uniform() * 40.0) as usize;
    (0..length).map(|_| parts[(rng.uniform() * parts.len() as f64) as usize]).collect()
}

fn tokenizers(train: &str) -> Vec<(String, Tokenizer)> {
    let own = [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe].into_iter().flat_map(|unit| {
        [true, false].map(|unknown| {
            let built = Tokenizer::build(&config(unit, unknown), &Text::from(train)).unwrap();
            (format!("{unit:?}, unknown {unknown}"), built)
        })
    });
    let others = foreign().into_iter().map(|(name, file)| {
        let parsed = Tokenizer::parse(Path::new(name), file.to_string().as_bytes());
        (name.to_owned(), parsed.unwrap_or_else(|error| panic!("{name}: {error}")))
    });
    own.chain(others).collect()
}

#[test]
fn whatever_reads_a_text_has_the_same_tokens() {
    let train = "the old mill the old mill a x the 's . 7\n".repeat(4);
    for (name, tokenizer) in tokenizers(&train) {
        let again = Tokenizer::parse(Path::new("again"), tokenizer.to_json().as_bytes()).unwrap();
        let library = tokenizers::Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).unwrap();
        for seed in 0..150 {
            let text = nasty(seed);
            let source = Text::from(text.as_str());
            let wanted = tokenizer.encode(&source).unwrap();
            let ids = wanted.tokens.to_vec();
            let measured = tokenizer.encode_measured(&source).unwrap();
            assert_eq!(measured.tokens.to_vec(), ids, "{name}: {text:?}");
            assert_eq!(
                (measured.unseen, measured.extents.len()),
                (wanted.unseen, ids.len()),
                "{name}: {text:?}"
            );
            let counted: u64 = (0..ids.len()).map(|at| u64::from(measured.extents.get(at).bytes)).sum();
            assert!(counted <= text.len() as u64, "{name}: {text:?}");
            // What Python's library does with the file; without an unknown token it refuses unseen words.
            if tokenizer.unit() != Unit::Word || tokenizer.unknown_id().is_some() {
                let encoding = library.encode(text.as_str(), false).unwrap();
                assert_eq!(encoding.get_ids(), ids, "{name}, the library: {text:?}");
            }
            assert_eq!(again.encode(&source).unwrap().tokens.to_vec(), ids, "{name}, saved: {text:?}");
            let mut stream = TextStream::new(Path::new("text"), text.as_bytes());
            let mut parts = Vec::new();
            while let Some(part) = stream.next_part(&tokenizer).unwrap() {
                tokenizer.cut(&part, |piece| parts.extend(piece.id)).unwrap();
            }
            assert_eq!(parts, ids, "{name}, in parts: {text:?}");
            places_are_in_order(&name, &tokenizer, &source);
        }
    }
}

/// Each stretch lies in the text and begins no earlier than the one before; tokens that know their bytes have just these.
fn places_are_in_order(name: &str, tokenizer: &Tokenizer, text: &Text) {
    let mut start = 0;
    tokenizer
        .cut(text, |Piece { id, known, span }| {
            assert!(start <= span.start && span.start <= span.end, "{name}: {span:?} after {start}");
            assert!(span.end <= text.len(), "{name}: {span:?}");
            assert!(id.is_some() || !known, "{name}");
            start = span.start;
        })
        .unwrap();
}

const TINY: &str = "--threads 1 --set model.core.hidden_size=4 --set model.core.recurrence_depth=1 \
                    --set train.epochs=1 --max-steps 2 --set train.batch_size=2 --set train.bptt_steps=4 \
                    --set train.dropout={input=0}";

/// What each unit and protocol says of a text agrees with the rows of `score`, and with the text itself.
#[test]
fn every_command_agrees_on_nats_and_on_what_they_are_divided_by() {
    let place = Place::new();
    place.write("learn.txt", "the old mill holds a lamp .\nthe new one a river .\n".repeat(30));
    let texts = [
        ("plain", "the old mill .\nholds a lamp .\n"),
        ("crlf", "the old mill .\r\nholds  a lamp .\r\n"),
        ("unknown", "the zebra holds <unk> é .\n\nriver"),
        ("marks", "\u{feff}the \u{feff}old\u{a0}mill\n\tlamp \"a\" .\n"),
    ];
    texts.iter().for_each(|(name, text)| place.write(&format!("{name}.txt"), text));
    for unit in ["char", "word", "byte", "bpe"] {
        let more = if unit == "bpe" { "--set corpus.vocab_size=270" } else { "" };
        place.train(&format!("--corpus learn.txt --set corpus.unit={unit} {more} --out {unit} {TINY}"));
        for (name, text) in texts {
            let json = |args: &str| -> Value {
                let output = place.rhn(args);
                assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
                serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap()
            };
            let at = format!("{unit}, {name}");
            let eval = json(&format!("eval {unit} --file {name}.txt --json --precision f64"));
            let rows =
                stdout(&place.rhn(&format!("score {unit} {name}.txt --json --precision f64 --base e")));
            let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
            let (total, rows) = rows.split_last().unwrap();
            let tokens: Vec<&Value> = rows.iter().filter(|row| !row["id"].is_null()).collect();
            let nats = |rows: &[&Value]| rows.iter().filter_map(|row| row["surprisal"].as_f64()).sum::<f64>();
            let predicted = &tokens[1..];
            assert_eq!(eval["tokens"], predicted.len(), "{at}");
            if !text.starts_with('\u{feff}') {
                // After a line end, which is all the context that `score` gives, `eval` finds the same.
                place.write("after.txt", format!("\n{text}"));
                for protocol in ["--protocol stream", "--mc 2"] {
                    let after =
                        json(&format!("eval {unit} --file after.txt {protocol} --json --precision f64"));
                    let found = after["nats_per_token"].as_f64().unwrap() * tokens.len() as f64;
                    assert_eq!(after["tokens"], tokens.len(), "{at}");
                    assert!((found - nats(&tokens)).abs() < 1e-6, "{at}, {protocol}: {found}");
                }
            }
            assert!((total["surprisal"].as_f64().unwrap() - nats(&tokens)).abs() < 1e-9, "{at}");
            for per in ["word", "line", "document"] {
                let sum =
                    json(&format!("score {unit} {name}.txt --per {per} --json --precision f64 --base e"));
                assert_eq!(sum["tokens"], tokens.len(), "{at}, {per}");
                assert!((sum["surprisal"].as_f64().unwrap() - nats(&tokens)).abs() < 1e-9, "{at}, {per}");
            }
            let sums: f64 =
                ["leading", "trailing"].map(|boundary| words(&place, unit, name, boundary)).iter().sum();
            assert!((sums - 2.0 * nats(&tokens)).abs() < 1e-4, "{at}"); // of six decimals a row
            spelled_as_the_text(&at, text, rows);
            figures_of(&at, text, unit, &eval, predicted);
        }
    }
}

fn words(place: &Place, unit: &str, name: &str, boundary: &str) -> f64 {
    let table =
        stdout(&place.rhn(&format!(
            "score {unit} {name}.txt --per word --boundary {boundary} --precision f64 --base e"
        )));
    table.lines().skip(1).filter_map(|row| row.split('\t').nth(3)?.parse::<f64>().ok()).sum()
}

/// Each row's place is where its spelling is.
fn spelled_as_the_text(at: &str, text: &str, rows: &[Value]) {
    for row in rows {
        let number = |name: &str| row[name].as_u64().unwrap() as usize;
        let (start, end) = (number("start_byte"), number("end_byte"));
        if text.is_char_boundary(start) && text.is_char_boundary(end) {
            assert_eq!(row["text"], text[start..end], "{at}");
            let characters = (text[..start].chars().count(), text[..end].chars().count());
            assert_eq!((number("start"), number("end")), characters, "{at}");
        }
    }
}

/// Bits over characters and bytes, by an independent reading of the text that was predicted.
fn figures_of(at: &str, text: &str, unit: &str, eval: &Value, predicted: &[&Value]) {
    let bits = eval["bits_per_token"].as_f64().unwrap() * predicted.len() as f64;
    let hidden = predicted.iter().any(|row| row["unknown"] == true);
    if hidden {
        assert!(eval["bits_per_char"].is_null() && eval["bits_per_char_absent"].is_string(), "{at}: {eval}");
        return;
    }
    let start = predicted[0]["start_byte"].as_u64().unwrap() as usize;
    let rest = match unit {
        "byte" => text[start..].to_owned(),
        "word" => {
            let lines: Vec<_> = text
                .split_inclusive('\n')
                .map(|line| {
                    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
                    if line.ends_with('\n') { words + "\n" } else { words }
                })
                .collect();
            let first = text.split_whitespace().next().unwrap();
            lines.concat()[first.len()..].to_owned()
        }
        _ => text[start..].replace("\r\n", "\n"),
    };
    let close = |name: &str, divisor: usize| {
        let found = eval[name].as_f64().unwrap_or(f64::NAN);
        assert!((found - bits / divisor as f64).abs() < 1e-9, "{at}: {name} {found}, of {divisor}: {eval}");
    };
    close("bits_per_char", rest.chars().count());
    close("bits_per_byte", rest.len());
}
