//! `rhn neighbours` from outside: cosines of vectors that are known, of words that no vocabulary has, and what is refused.

use crate::support::run::{Place, assert_fails, stderr, stdout};
use candle_core::{Device, Tensor};
use rhn::storage::{MANIFEST, load_tensors, save_tensors};
use serde_json::Value;
use std::fs;

const WORDS: &str = "--max-steps 2 --set corpus.unit=word --set corpus.unknown=true";
const CNN: &str = "--set model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],filter_counts=[3,4],\
    highway_layers=1,word_size=6}";
const LSTM: &str =
    "--set model.embedding={kind=\"char-lstm\",char_size=3,char_hidden=4,word_size=5,highway_layers=1}";

/// A run whose vector of the word with id i points to 10 i degrees and is i + 1 long; the words by their ids.
fn on_a_circle() -> (Place, Vec<String>) {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} --set model.embedding.size=2"));
    let path = place.path("run/model.safetensors");
    let mut tensors = load_tensors(&path, &fs::read(&path).unwrap(), &Device::Cpu).unwrap();
    let count = tensors["embedding.weight"].dims()[0];
    let angles = (0..count).map(|id| (id as f32, (10.0 * id as f32).to_radians()));
    let vectors = angles.flat_map(|(id, angle)| [(id + 1.0) * angle.cos(), (id + 1.0) * angle.sin()]);
    let table = Tensor::from_iter(vectors, &Device::Cpu).unwrap().reshape((count, 2)).unwrap();
    tensors.insert("embedding.weight".into(), table);
    fs::write(&path, save_tensors(&tensors).unwrap()).unwrap();
    fs::remove_file(place.path("run").join(MANIFEST)).unwrap();
    let mut words: Vec<(u64, String)> = place.json("run/tokenizer.json")["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(word, id)| (id.as_u64().unwrap(), word.clone()))
        .collect();
    words.sort();
    (place, words.into_iter().map(|(_, word)| word).collect())
}

fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split('\t').collect()).collect()
}

#[test]
fn neighbours_go_by_the_angle_between_vectors_whatever_their_length() {
    let (place, words) = on_a_circle();
    let asked = words[4].as_str();
    let output = place.rhn(&format!("neighbours run {asked} --count 4"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().next(), Some("word\tneighbour\tcosine"));
    let found = rows(&text);
    // 10 degrees on either side, then 20.
    let mut nearest = [found[0][1], found[1][1]];
    nearest.sort();
    let mut wanted = [words[3].as_str(), words[5].as_str()];
    wanted.sort();
    assert_eq!(nearest, wanted);
    let cosines: Vec<&str> = found.iter().map(|row| row[2]).collect();
    assert_eq!(cosines, ["0.9848", "0.9848", "0.9397", "0.9397"]);
    assert!(found.iter().all(|row| row[0] == asked && row[1] != asked));

    let json = place.json_of(&format!("neighbours run {asked} --count 1 --json"));
    assert_eq!((&json["word"], &json["known"]), (&Value::from(asked), &Value::from(true)));
    let cosine = json["neighbours"][0]["cosine"].as_f64().unwrap();
    assert!((cosine - 10f64.to_radians().cos()).abs() < 1e-6);
    let all = place.json_of(&format!("neighbours run {asked} --count 100000 --json"));
    assert_eq!(all["neighbours"].as_array().unwrap().len(), words.len() - 1);
}

#[test]
fn words_come_from_the_standard_input_and_each_has_its_line() {
    let (place, words) = on_a_circle();
    let input = format!("{} {}\n{}\n", words[1], words[2], words[3]);
    let output = place.rhn_reading("neighbours run - --count 1 --json", input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let asked: Vec<String> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["word"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(asked, words[1..4]);
    assert_fails(&place.rhn_reading("neighbours run -", b" \n"), 3, &["standard input", "has no word"]);
    assert_fails(&place.rhn("neighbours run - -"), 2, &["can be read once only"]);
}

#[test]
fn a_model_of_characters_has_neighbours_of_unseen_words_before_and_behind_its_highway_layers() {
    let place = Place::new();
    for (run, embedding) in [("cnn", CNN), ("lstm", LSTM)] {
        place.train(&format!("--out {run} {WORDS} {embedding}"));
        let of = |args: &str| place.json_of(&format!("neighbours {run} {args} --count 3 --json"));
        let [behind, before] = ["", "--before-highway"].map(|stage| of(&format!("questio {stage}")));
        assert_eq!((&behind["known"], &before["known"]), (&Value::from(false), &Value::from(false)));
        assert_ne!(behind["neighbours"], before["neighbours"], "{run}");
        // The model reads characters alone: the same word has the same vector, known or not.
        let own = of("question");
        assert_eq!(own["known"], true);
        // By its first characters a word that is too long is a known one; its cosine with itself is 1.
        assert_fails(
            &place.rhn(&format!("neighbours {run} Ωmega")),
            2,
            &["'Ω'", "no word of the vocabulary has"],
        );
        place.train(&format!("--out {run}-cut {WORDS} {embedding} --set model.embedding.max_word_length=10"));
        let output = place.rhn(&format!("neighbours {run}-cut questionable --count 1 --json"));
        assert!(stderr(&output).contains("its first 8 characters are taken"), "{}", stderr(&output));
        let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(found["neighbours"][0]["word"], "question", "{run}: {found}");
        assert!((found["neighbours"][0]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn sentence_vaes_and_classifiers_have_neighbours_too() {
    let place = Place::new();
    let line = |number: usize| format!("{}\n", ["the cat sat", "a dog ran", "the cow ate"][number % 3]);
    let text: String = (0..30).map(line).collect();
    place.write("text/train.txt", &text);
    place.write("text/valid.txt", &text);
    let small = "--corpus text --max-steps 2 --set model.embedding.size=4 --set model.core.hidden_size=4";
    let labelled: String = (0..30).map(|number| format!("{}\t{}", number % 2, line(number))).collect();
    for split in ["train", "valid"] {
        place.write(&format!("labels/{split}.tsv"), &labelled);
    }
    for args in [
        format!(
            "shakespeare-vae {small} --set corpus.unit=word --set corpus.unknown=true --set train.batch_size=4"
        ),
        format!(
            "errors-classify --corpus labels --max-steps 2 {CNN} --set model.core.hidden_size=4 --set train.batch_size=4"
        ),
    ] {
        let output = place.rhn(&format!("train {args} --out run"));
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        let found = place.json_of("neighbours run cat --count 3 --json");
        assert_eq!(found["known"], true, "{args}");
        assert_eq!(found["neighbours"].as_array().map(Vec::len), Some(3), "{args}");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn what_has_no_neighbours_is_refused() {
    let (place, _) = on_a_circle();
    let wanted = ["\"questoin\" is not in the vocabulary", "Did you mean \"question\"?"];
    assert_fails(&place.rhn("neighbours run questoin"), 2, &wanted);
    assert_fails(&place.rhn("neighbours run to --before-highway"), 2, &["no highway layers"]);
    assert_fails(&place.rhn("neighbours nowhere to"), 4, &["nowhere"]);
    assert_fails(&place.rhn("neighbours run to --count 0"), 2, &["--count"]);
}
