//! `--init-from`: sizes and unit of the checkpoint, a vocabulary that may grow, notes of what it lacks.

use crate::support::run;
use candle_core::{DType, Device, Tensor};
use rhn::checkpoint::Checkpoint;
use rhn::model::{LanguageModel, Noise};
use run::{PLAY, Place, stderr};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

const OTHER: &str = "Ζωή\nto be or zoo\n";

/// A place with a first run `first` of these settings, and `other.txt`, whose characters and words it lacks in part.
fn with_first(settings: &str) -> Place {
    let place = Place::new();
    place.train(&format!("--out first --set train.epochs=1 {settings}"));
    place.write("other.txt", format!("{}{OTHER}", PLAY.repeat(10)).repeat(2));
    place
}

fn checkpoint(place: &Place, name: &str) -> (Checkpoint, Vec<String>, BTreeMap<String, Tensor>) {
    let checkpoint = Checkpoint::open(&place.path(name)).unwrap();
    let words = checkpoint.read_tokenizer().unwrap().words().to_vec();
    let weights = checkpoint.parameters(DType::F32, &Device::Cpu).unwrap().tensors();
    (checkpoint, words, weights)
}

fn rows(weight: &Tensor) -> Vec<Vec<f32>> {
    let weight = if weight.rank() == 1 { weight.unsqueeze(1).unwrap() } else { weight.clone() };
    weight.to_vec2().unwrap()
}

#[track_caller]
fn assert_mean(row: &[f32], others: &[Vec<f32>]) {
    for (column, value) in row.iter().enumerate() {
        let mean = others.iter().map(|other| other[column]).sum::<f32>() / others.len() as f32;
        assert!((value - mean).abs() < 1e-6, "{value} is not the mean {mean}");
    }
}

/// The logits of old tokens after old tokens are those of the first model.
#[track_caller]
fn assert_old_logits_stay(place: &Place) {
    let (first, words, _) = checkpoint(place, "first");
    let [before, after] = ["first", "grown"].map(|name| {
        let (checkpoint, ..) = checkpoint(place, name);
        let parameters = checkpoint.parameters(DType::F32, &Device::Cpu).unwrap();
        let model = LanguageModel::new(&checkpoint.config, &parameters, DType::F32, &Device::Cpu).unwrap();
        let ids: Vec<u32> = (0..words.len() as u32).collect();
        let tokens = Tensor::from_vec(ids, (words.len(), 1), &Device::Cpu).unwrap();
        let (logits, _) = model.logits(&tokens, &model.zero_state(1).unwrap(), &Noise::none()).unwrap();
        let old = logits.narrow(2, 0, words.len()).unwrap();
        old.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    });
    assert_eq!(before.len(), first.config.vocab_size * words.len());
    for (before, after) in before.iter().zip(&after) {
        assert!((before - after).abs() < 1e-5, "{before} and {after}");
    }
}

#[test]
fn a_trained_lstm_gets_a_highway_layer_inside_and_goes_on() {
    let place = with_first("--set model.core={kind=\"lstm\",layers=2,hidden_size=8}");
    let recipe = "train ptb-hlstm-small --corpus corpus.txt --out grown --set train.batch_size=2 --set train.bptt_steps=4";
    let kurata = "--set model.core.variant=kurata --set model.core.depth_bias=-3";
    let output = place.rhn(&format!("{recipe} {kurata} --init-from first --max-steps 0"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (_, _, before) = checkpoint(&place, "first");
    let (_, _, mut after) = checkpoint(&place, "grown");
    for layer in 0..2 {
        let weight = after.remove(&format!("core.{layer}.highway.weight")).unwrap();
        assert!(rows(&weight).concat().iter().all(|&value| value != 0.0));
        let bias = after.remove(&format!("core.{layer}.highway.bias")).unwrap();
        assert_eq!(bias.to_vec1::<f32>().unwrap()[8..], [-3.0; 8]);
    }
    assert!(before.keys().eq(after.keys()));
    assert!(before.iter().all(|(name, weight)| rows(weight) == rows(&after[name])));
    let output = place.rhn(&format!("{recipe} {kurata} --resume --max-steps 2"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    place.fails(
        "train ptb-hlstm-small --corpus corpus.txt --out none --init-from first --set model.core.variant=zhang",
        4,
        &["first: is another model: its model.core.variant is unset, wanted \"zhang\""],
    );
}

#[test]
fn sizes_and_unit_come_from_the_checkpoint_and_a_resumed_run_keeps_them() {
    let place = with_first("--set corpus.unit=word --set model.core.layers=2");
    let text = "train text --corpus corpus.txt --set train.epochs=2";
    let output = place.rhn(&format!("{text} --out tuned --init-from first --max-steps 0"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let file = |out: &str| fs::read(place.path(out).join(name)).unwrap();
        assert!(file("first") == file("tuned"), "{name}");
    }
    let output = place.rhn(&format!("{text} --out tuned --resume"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(place.path("tuned/result.json").exists());
    // And what is set otherwise is refused, with one error that has both.
    place.fails(
        &format!("{text} --out none --init-from first --set model.core.hidden_size=9"),
        4,
        &["first: is another model: its model.core.hidden_size is 8, wanted 9; --init-from takes"],
    );
    place.fails(
        &format!("{text} --out none --init-from first --set corpus.unit=char"),
        2,
        &["cuts by word", "corpus.unit says char"],
    );
    // A kind that is the checkpoint's own asks for nothing, whatever the recipe's is; another one lacks nothing but the right
    // checkpoint.
    let kinds = "--set model.embedding.kind=word --set model.core.layers=2 --set model.core.kind";
    for recipe in ["text", "ptb-hlstm-small"] {
        let own = "train RECIPE --corpus corpus.txt --set train.epochs=2 --set corpus.unit=word --set train.batch_size=2 \
                   --set train.bptt_steps=2 --init-from first --max-steps 0 --out"
            .replace("RECIPE", recipe);
        let output = place.rhn(&format!("{own} {recipe} {kinds}=rhn"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(place.path(recipe).join("config.json").exists());
        place.fails(
            &format!("{own} none {kinds}=gru"),
            4,
            &["first: is another model: its model.core.kind is rhn, wanted gru"],
        );
    }
    let resume = format!("{text} --out tuned --resume --set model.core.hidden_size=9");
    place.fails(&resume, 2, &["model.core.hidden_size was 8, is 9"]);
}

#[test]
fn symbols_of_the_training_text_that_the_vocabulary_lacks_are_counted_as_in_the_other_splits() {
    let place = with_first("");
    for split in ["train", "valid", "test"] {
        place.write(&format!("mixed/{split}.txt"), format!("{}☃☃☃☃", PLAY.repeat(10)));
    }
    let message = place.train("--out tuned --corpus mixed --init-from first --max-steps 0");
    for split in ["training", "validation", "test"] {
        let note = format!("note: 4 symbols of the {split} split are not in the vocabulary; read as <unk>");
        assert!(message.contains(&note), "no {note:?} in {message}");
    }
}

#[test]
fn a_vocabulary_of_characters_grows_behind_its_own_ids_and_new_rows_are_the_mean() {
    let place = with_first("");
    let grow = "--corpus other.txt --init-from first --grow-vocab --set train.epochs=2";
    let message = place.train(&format!("--out grown {grow} --max-steps 0"));
    assert!(message.contains("note: the vocabulary grows by 4 to "), "{message}");
    assert!(!message.contains("of the training split"), "{message}"); // nothing is unknown there
    let (first, old_words, old) = checkpoint(&place, "first");
    let (grown, words, new) = checkpoint(&place, "grown");
    assert_eq!(words, [&old_words[..], &["z", "Ζ", "ή", "ω"].map(String::from)].concat());
    // The embedding was as large as the vocabulary where that is smaller than the hidden size; it stays so.
    assert_eq!(first.config.embedding_size(), grown.config.embedding_size());
    for name in ["embedding.weight", "output.weight", "output.bias"] {
        let table = |weights: &BTreeMap<String, Tensor>| match name {
            "output.weight" => rows(&weights[name].t().unwrap()),
            _ => rows(&weights[name]),
        };
        let (before, after) = (table(&old), table(&new));
        assert_eq!(before, after[..old_words.len()], "{name}");
        after[old_words.len()..].iter().for_each(|row| assert_mean(row, &before));
    }
    assert_eq!(rows(&old["core.0.input.weight"]), rows(&new["core.0.input.weight"]));
    assert_old_logits_stay(&place);
    // It trains, resumes exactly, and can write the new characters.
    place.train(&format!("--out whole {grow}"));
    place.train("--out grown --corpus other.txt --resume --set train.epochs=2 --max-steps 20");
    place.train("--out grown --corpus other.txt --resume --set train.epochs=2");
    assert_eq!(place.fingerprint("whole"), place.fingerprint("grown"));
    let evaluated = place.rhn("eval grown --corpus other.txt --json");
    assert_eq!(serde_json::from_slice::<Value>(&evaluated.stdout).unwrap()["oov_tokens"], 0);
}

#[test]
fn the_size_of_an_embedding_that_followed_the_vocabulary_stays() {
    let place = with_first("--set model.core.hidden_size=64");
    place.train(
        "--out grown --corpus other.txt --init-from first --grow-vocab --set model.core.hidden_size=64 --max-steps 2",
    );
    let (first, old_words, _) = checkpoint(&place, "first");
    let (grown, words, _) = checkpoint(&place, "grown");
    assert_eq!(words.len(), old_words.len() + 4);
    assert_eq!([first, grown].map(|one| one.config.embedding_size()), [old_words.len(); 2]);
}

#[test]
fn a_tied_vocabulary_of_words_grows_by_the_words_that_are_frequent_enough() {
    let place = with_first("--set corpus.unit=word --set model.output.tied=true");
    let settings = "--set corpus.unit=word --set model.output.tied=true --set corpus.min_count=2";
    place.write("other.txt", format!("{}zoo bar zoo\nbaz\n", PLAY.repeat(10)));
    place.write("splits/train.txt", fs::read(place.path("other.txt")).unwrap());
    place.write("splits/valid.txt", PLAY.repeat(2));
    let message = place.train(&format!(
        "--out grown --corpus splits --init-from first --grow-vocab {settings} --max-steps 0"
    ));
    assert!(message.contains("grows by 1 to "), "{message}");
    assert!(message.contains("2 symbols of the training split are not in the vocabulary"), "{message}");
    let (_, old_words, _) = checkpoint(&place, "first");
    let (_, words, new) = checkpoint(&place, "grown");
    assert_eq!(words, [&old_words[..], &["zoo".to_string()]].concat());
    assert_eq!(new["embedding.weight"].dims()[0], words.len());
    assert!(!new.contains_key("output.weight"));
    assert_old_logits_stay(&place);
}

#[test]
fn a_vocabulary_that_is_spelled_grows_with_its_alphabet() {
    grows_with_its_alphabet(
        "--set corpus.unit=word --set model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],\
         filter_counts=[3,4],highway_layers=1}",
    );
    grows_with_its_alphabet(
        "--set corpus.unit=word --set model.embedding={kind=\"char-lstm\",char_size=3,char_hidden=4,word_size=5}",
    );
}

fn grows_with_its_alphabet(characters: &str) {
    let place = with_first(characters);
    place.write("splits/train.txt", format!("{}zigzag zebra\n", PLAY.repeat(10)));
    place.write("splits/valid.txt", PLAY.repeat(2));
    place.train(&format!(
        "--out grown --corpus splits --init-from first --grow-vocab {characters} --max-steps 0"
    ));
    let (_, old_words, old) = checkpoint(&place, "first");
    let (_, words, new) = checkpoint(&place, "grown");
    assert_eq!(words[old_words.len()..], ["zigzag", "zebra"].map(String::from));
    // Blank, {, }, then the characters in order: g and z are new, the others keep their vectors.
    let alphabet = |words: &[String]| {
        let words = words.iter().map(String::as_str);
        rhn::model::spelling::Spelling::of(words, 65).unwrap().alphabet
    };
    let (before, after) = (alphabet(&old_words), alphabet(&words));
    let (old_rows, new_rows) = (rows(&old["embedding.characters"]), rows(&new["embedding.characters"]));
    assert_eq!(old_rows[0], new_rows[0]);
    let mut added = String::new();
    for (character, row) in after.iter().zip(&new_rows[1..]) {
        match before.iter().position(|known| known == character) {
            Some(index) => assert_eq!(*row, old_rows[index + 1], "{character}"),
            None => {
                added.push(*character);
                assert_mean(row, &old_rows[1..]);
            }
        }
    }
    assert!(added.contains('z') && added.len() < after.len(), "{added}");
    assert_old_logits_stay(&place);
}

#[test]
fn bytes_and_byte_pairs_cannot_grow_and_the_flag_needs_a_checkpoint() {
    let place = Place::new();
    for (unit, name) in [("byte", "byte"), ("bpe --set corpus.vocab_size=262", "bpe")] {
        place.train(&format!("--out {name} --set corpus.unit={unit} --max-steps 1"));
        place.fails(
            &format!("train tiny.toml --out none --set corpus.unit={unit} --init-from {name} --grow-vocab"),
            2,
            &["--grow-vocab", &format!("unit is {name}"), "wanted char or word"],
        );
    }
    place.fails("train tiny.toml --out none --grow-vocab", 2, &["--init-from"]);
    assert!(!place.path("none").exists());
}

/// Which weights a run began with is kept with its events, and tells it from a run that began with others.
#[test]
fn a_run_says_what_it_began_with() {
    let place = with_first("");
    let again = "--set train.epochs=1 --set train.learning_rate=0.01";
    place.train(&format!("--out plain {again}"));
    place.train(&format!("--out begun --init-from first {again} --max-steps 2"));
    place.train(&format!("--out begun {again} --resume"));
    let (first, ..) = checkpoint(&place, "first");
    let start = |out: &str, kind: &str| place.events(out, kind)[0]["begun_from"].clone();
    assert_eq!(start("begun", "start"), Value::from(first.weights_sha256()));
    assert_eq!([start("begun", "resume"), start("plain", "start")], [Value::Null, Value::Null]);
    let compared = place.json_of("compare plain begun --json");
    let differs = &compared["differences"]["--init-from (SHA-256)"];
    assert_eq!(differs[1], Value::from(&first.weights_sha256()[..8]));
    assert_eq!(compared["seeds"], Value::Array(Vec::new()));
}
