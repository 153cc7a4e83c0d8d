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

/// A place with tiny runs of every unit, each on `learn.txt`.
pub(crate) fn trained(units: &[&str]) -> Place {
    let place = Place::new();
    place.write("learn.txt", "the old mill holds a lamp .\nthe new one a river .\n".repeat(30));
    for unit in units {
        let more = if *unit == "bpe" { "--set corpus.vocab_size=270" } else { "" };
        place.train(&format!("--corpus learn.txt --set corpus.unit={unit} {more} --out {unit} {TINY}"));
    }
    place
}

#[track_caller]
pub(crate) fn rows(place: &Place, args: &str) -> Vec<Value> {
    let output = place.rhn(args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    stdout(&output).lines().map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[test]
fn a_context_is_read_and_not_scored() {
    let place = trained(&["char", "word", "bpe"]);
    place.write("begin.txt", "the old");
    place.write("rest.txt", " mill holds a lamp .\n");
    place.write("whole.txt", "the old mill holds a lamp .\n");
    for unit in ["char", "word", "bpe"] {
        let rest = rows(&place, &format!("score {unit} rest.txt --context begin.txt --json --precision f64"));
        let whole = rows(&place, &format!("score {unit} whole.txt --json --precision f64"));
        let nats = |rows: &[Value]| -> Vec<f64> {
            rows.iter()
                .filter(|row| row["event"].is_null())
                .map(|row| row["surprisal"].as_f64().unwrap())
                .collect()
        };
        let rest = nats(&rest);
        let whole = nats(&whole);
        let same = whole[whole.len() - rest.len()..].iter().zip(&rest).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(same && rest.len() < whole.len(), "{unit}: {rest:?} {whole:?}");
    }
    place.fails("score char - --context -", 2, &["standard input", "twice"]);
}

#[test]
fn a_text_that_the_run_was_not_trained_on_is_read_whole() {
    let place = trained(&["char"]);
    place.write("one.txt", "the old mill .\n");
    let evaluate = |args: &str| rows(&place, &format!("eval char {args} --json")).pop().unwrap();
    let one = evaluate("--corpus one.txt");
    assert_eq!((&one["tokens"], &one["split"]), (&14.into(), &"all".into()));
    let own = evaluate("");
    assert_eq!(
        (own["split"].as_str(), &own["tokens"]),
        (Some("test"), &evaluate("--corpus learn.txt")["tokens"])
    );
    assert_eq!(evaluate("--corpus learn.txt --split all")["tokens"], 30 * 50 - 1);
    let two = evaluate("--file one.txt --file learn.txt");
    assert_eq!((&two["tokens"], two["corpus"].as_str()), (&(14 + 30 * 50 - 1).into(), Some("2 files")));
    for (name, text) in [("a.txt", "the old\n"), ("b.txt", "a lamp .\n"), ("empty.txt", "")] {
        place.write(&format!("folder/{name}"), text);
    }
    let documents = rows(&place, "eval char --corpus folder --per document --json");
    let tokens: Vec<_> = documents.iter().map(|row| row["tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [7, 8, 15]); // each from its own start, and their sum
    // The line end before a text that begins with nothing is not of the text: a penalty does not look at it.
    let sample = |more: &str| {
        rows(&place, &format!("sample char --tokens 1 --samples 60 --temperature 9 {more} --json"))
    };
    assert_eq!(sample("--repetition-penalty 50"), sample(""));
    assert_ne!(sample("--prompt the --repetition-penalty 50"), sample("--prompt the"));
    let own = place.rhn("eval char --per document");
    assert!(
        stderr(&own).contains("is read as one text; --file takes its documents one by one"),
        "{}",
        stderr(&own)
    );
}

#[test]
fn another_text_under_the_corpuss_name_is_refused_and_the_own_one_is_found_above_the_run() {
    let place = trained(&["char"]);
    let own = stdout(&place.rhn("eval char"));
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let mut there = place.command("eval ../char");
    let found = there.current_dir(place.path("elsewhere")).output().unwrap();
    let perplexity = |table: &str| table.lines().nth(1).map(str::to_owned);
    assert_eq!(perplexity(&stdout(&found)), perplexity(&own), "{}", stderr(&found));
    place.write("learn.txt", "another text\n".repeat(90));
    place.fails("eval char", 3, &["learn.txt", "another text than the run's", "--file"]);
    let output = place.rhn("eval char --mc 2 --file learn.txt");
    assert!(stderr(&output).contains("--mc: the run was trained without dropout of values"), "{output:?}");
}

#[test]
fn what_the_vocabulary_lacks_has_a_row_with_its_own_spelling() {
    let place = trained(&["word"]);
    place.train(&format!("--corpus learn.txt --set corpus.unknown=false --out closed {TINY}"));
    place.write("text.txt", "the zebra “old”\n");
    let words = rows(&place, "score word text.txt --json");
    assert_eq!(
        (&words[1]["token"], &words[1]["text"], &words[1]["unknown"]),
        (&"<unk>".into(), &"zebra".into(), &true.into())
    );
    let chars = rows(&place, "score closed text.txt --json");
    let marks: Vec<_> = chars.iter().filter(|row| row["text"] == "“" || row["text"] == "”").collect();
    assert_eq!(marks.len(), 2);
    assert!(
        marks.iter().all(|row| row["surprisal"].is_null() && row["id"].is_null() && row["unknown"] == true)
    );
    assert_eq!((&marks[1]["start"], &marks[1]["end"]), (&14.into(), &15.into()));
    place.write("none.txt", "“”");
    let lines = rows(&place, "score closed none.txt --per line --json");
    assert_eq!((&lines[0]["surprisal"], &lines[0]["unknown"]), (&Value::Null, &2.into())); // not a sum of nothing
}

#[test]
fn line_ends_of_windows_cost_what_others_cost_or_are_noted() {
    let place = trained(&["char", "word", "byte", "bpe"]);
    place.write("lf.txt", "the old mill .\nholds a lamp .\n");
    place.write("crlf.txt", "the old mill .\r\nholds a lamp .\r\n");
    for unit in ["char", "word", "bpe"] {
        let total = |file: &str| {
            rows(&place, &format!("score {unit} {file} --json")).pop().unwrap()["surprisal"].clone()
        };
        assert_eq!(total("lf.txt"), total("crlf.txt"), "{unit}");
    }
    assert!(stderr(&place.rhn("score byte crlf.txt")).contains("2 line ends of crlf.txt are CR LF"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_path_that_is_no_utf8_is_a_path() {
    use std::os::unix::ffi::OsStrExt;
    let place = trained(&["char"]);
    let odd = place.path("x").with_file_name(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::rename(place.path("char"), &odd).unwrap();
    let run = |command: &str| {
        let mut asked = place.command(command);
        asked.arg(&odd).arg("--threads").arg("1").output().unwrap()
    };
    for command in ["eval", "sample --tokens 3"] {
        assert_eq!(run(command).status.code(), Some(0), "{command}: {}", stderr(&run(command)));
    }
    let refused = run("train tiny.toml --corpus");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("is not UTF-8"), "{}", stderr(&refused));
}

#[test]
fn a_corpus_is_counted_by_a_given_tokenizer_as_it_is_evaluated() {
    let place = trained(&["bpe"]);
    for (split, lines) in [("train", 20), ("valid", 5), ("test", 3)] {
        let text = "the mill\n    and the lamp\n\n    a river .\n".repeat(lines);
        place.write(&format!("poem/{split}.txt"), text);
    }
    let counted = rows(&place, "data inspect poem --tokenizer bpe --json").pop().unwrap();
    for split in ["train", "valid", "test"] {
        let evaluated =
            rows(&place, &format!("eval bpe --corpus poem --split {split} --json")).pop().unwrap();
        let found = counted["splits"].as_array().unwrap().iter().find(|row| row["split"] == split).unwrap();
        assert_eq!(found["tokens"].as_u64().unwrap(), evaluated["tokens"].as_u64().unwrap() + 1, "{split}");
    }
}
