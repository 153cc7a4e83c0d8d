//! Texts that are not English, from training to scores: letters beyond ASCII, scripts without blanks, characters that are one
//! Unicode scalar value or two.

use crate::support::run::{Place, stderr, stdout};
use serde_json::Value;
use std::path::Path;

const LANGUAGES: [&str; 8] = ["cs", "de", "el", "fi", "ja", "ru", "tr", "zh"];

/// Words by two LSTMs over their bytes, so that any word of any script has a vector.
const BY_BYTES: &str = "--set corpus.unit=word --set model.embedding={kind=\"char-lstm\",characters=\"bytes\",char_size=3,\
    char_hidden=4,word_size=5,max_word_length=40}";

/// A place with the text of each language, and all of them together.
fn place() -> Place {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages");
    let mut all = String::new();
    for language in LANGUAGES {
        let text = std::fs::read_to_string(folder.join(format!("{language}.txt"))).unwrap();
        place.write(&format!("{language}.txt"), &text);
        all += &text;
    }
    place.write("corpus.txt", all);
    place
}

/// The rows of `rhn score ARGS… --json`, without the total.
#[track_caller]
fn rows(place: &Place, args: &str) -> Vec<Value> {
    let output = place.rhn(&format!("score {args} --json"));
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    let rows = stdout(&output).lines().map(|row| serde_json::from_str(row).unwrap()).collect::<Vec<Value>>();
    rows.into_iter().filter(|row| row.get("event").is_none()).collect()
}

/// Each row's text is what its places in scalar values and in bytes cut out of the file.
#[track_caller]
fn assert_places(rows: &[Value], text: &str) {
    let place = |row: &Value, name: &str| row[name].as_u64().unwrap() as usize;
    for row in rows {
        let own = row["text"].as_str().unwrap();
        let scalars = text.chars().skip(place(row, "start")).take(place(row, "end") - place(row, "start"));
        let bytes = &text.as_bytes()[place(row, "start_byte")..place(row, "end_byte")];
        if let Ok(within) = std::str::from_utf8(bytes) {
            assert_eq!(scalars.collect::<String>(), within, "{row}");
            assert_eq!(own, within, "{row}");
        }
    }
    let ends: Vec<usize> = rows.iter().map(|row| place(row, "end_byte")).collect();
    assert_eq!(ends.last(), Some(&text.len()));
    assert!(ends.is_sorted());
}

#[test]
fn every_language_is_read_and_scored_in_place_by_words_characters_and_bytes() {
    let place = place();
    for (name, settings) in
        [("word", BY_BYTES), ("char", "--set corpus.unit=char"), ("byte", "--set corpus.unit=byte")]
    {
        place.train(&format!("--out {name} --max-steps 3 {settings} --set corpus.unknown=true"));
        let evaluated = place.json_of(&format!("eval {name} --split train --json"));
        assert!(evaluated["nats_per_token"].as_f64().unwrap().is_finite(), "{evaluated}");
        for language in LANGUAGES {
            let text = std::fs::read_to_string(place.path(&format!("{language}.txt"))).unwrap();
            let rows = rows(&place, &format!("{name} {language}.txt"));
            let tokens = match name {
                "word" => text.split_whitespace().count() + text.lines().count(),
                "char" => text.chars().count(),
                _ => text.len(),
            };
            assert_eq!(rows.len(), tokens, "{name} {language}");
            assert_places(&rows, &text);
        }
    }
    // A word in no text, in a script of its own, has neighbours among all of them.
    let found = place.json_of("neighbours word საქართველო --count 3 --json");
    assert_eq!(
        (found["known"].as_bool(), found["neighbours"].as_array().map(Vec::len)),
        (Some(false), Some(3))
    );
}

/// ů as one scalar value and as u with a ring: no text is normalized.
#[test]
fn a_letter_with_a_combining_mark_is_two_characters_and_another_word() {
    let place = Place::new();
    let composed = "r\u{16f}\u{17e}e\n";
    let decomposed = "ru\u{30a}z\u{30c}e\n";
    place.write("corpus.txt", composed.repeat(100));
    place.write("composed", composed);
    place.write("decomposed", decomposed);
    place.train("--out words --max-steps 1 --set corpus.unit=word --set corpus.unknown=true");
    place.train("--out characters --max-steps 1 --set corpus.unknown=true");
    let unknown = |run: &str, file: &str| -> Vec<bool> {
        let rows = rows(&place, &format!("{run} {file}"));
        assert_places(&rows, if file == "composed" { composed } else { decomposed });
        rows.iter().map(|row| row["unknown"].as_bool().unwrap()).collect()
    };
    assert_eq!(unknown("words", "composed"), [false, false]); // the word and its line end
    assert_eq!(unknown("words", "decomposed"), [true, false]);
    assert_eq!(unknown("characters", "composed"), [false; 5]);
    // r u ̊ z ̌ e and the line end: u, z and the marks are new.
    assert_eq!(unknown("characters", "decomposed"), [false, true, true, true, true, false, false]);
}
