//! Parameter counts of the published settings, to the unit, and Penn Treebank's own sizes where it is present.

use candle_core::{DType, Device};
use rhn::config::ModelConfig;
use rhn::config::{Recipe, Resolved};
use rhn::data::DataDirectories;
use rhn::model::spelling::SpellingSize;
use rhn::model::{parameter_count, specs};
use rhn::task::language::Language;
use rhn::train::task::Task;
use std::path::{Path, PathBuf};

const PTB_TYPES: usize = 10_000;
const PTB_CHARACTERS: usize = 51; // the blank and the two marks included
const PTB_LONGEST_WORD: usize = 21; // its marks included

fn recipe(name: &str) -> Recipe {
    Resolved::new(name, &[]).unwrap().recipe
}

/// The recipe's model for a vocabulary, with Penn Treebank's characters if it reads characters.
fn model(name: &str, vocab_size: usize) -> ModelConfig {
    let mut config = ModelConfig::new(recipe(name).model, vocab_size);
    config.set_spelling(SpellingSize { alphabet_size: PTB_CHARACTERS, word_length: PTB_LONGEST_WORD });
    config
}

fn count(name: &str, vocab_size: usize) -> u64 {
    parameter_count(&model(name, vocab_size)).unwrap()
}

#[test]
fn published_settings_have_the_published_parameter_counts() {
    assert_eq!(count("ptb-rhn", PTB_TYPES), 23_482_400);
    assert_eq!(count("enwik8-rhn", 205), 45_994_730);
    assert_eq!(count("text8-rhn", 27), 45_152_256);
    assert_eq!(count("ptb-char-cnn-small", PTB_TYPES), 5_312_515);
    assert_eq!(count("ptb-char-cnn-large", PTB_TYPES), 19_373_165);
}

#[test]
fn letters_into_an_rhn_have_the_small_lstms_parameter_count_within_two_percent() {
    let ratio = count("ptb-char-cnn-rhn", PTB_TYPES) as f64 / 5_312_515.0;
    assert!((0.98..=1.02).contains(&ratio), "{ratio}");
}

/// A recipe's model with the settings `--set` gives it.
fn count_with(name: &str, settings: &[&str]) -> u64 {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let mut config = ModelConfig::new(Resolved::new(name, &settings).unwrap().recipe.model, PTB_TYPES);
    config.set_spelling(SpellingSize { alphabet_size: PTB_CHARACTERS, word_length: PTB_LONGEST_WORD });
    parameter_count(&config).unwrap()
}

#[test]
fn the_variants_of_highway_layers_have_their_weights() {
    let none = count_with("ptb-char-cnn-large", &["model.embedding.highway_layers=0"]);
    let in_layers = |variant: &str, layers: usize| {
        let variant = format!("model.embedding.highway={variant}");
        let layers = format!("model.embedding.highway_layers={layers}");
        count_with("ptb-char-cnn-large", &[&variant, &layers]) - none
    };
    let square = 1100 * 1100 + 1100;
    assert_eq!([in_layers("full", 2), 2 * 3 * square], [7_266_600; 2]);
    for variant in ["coupled", "c-only", "t-only", "residual-linear"] {
        assert_eq!([in_layers(variant, 2), 2 * 2 * square], [4_844_400; 2], "{variant}");
    }
    assert_eq!([in_layers("residual", 4), in_layers("plain", 4)], [4_844_400; 2]);
    assert_eq!(in_layers("plain", 1), square);
}

#[test]
fn a_transform_bias_that_means_nothing_is_refused() {
    let refused = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let resolved = Resolved::new("ptb-char-cnn-small", &settings);
        let valid = resolved.and_then(|resolved| {
            let mut config = ModelConfig::new(resolved.recipe.model, PTB_TYPES);
            config.set_spelling(SpellingSize { alphabet_size: 51, word_length: 21 });
            config.validate()
        });
        valid.unwrap_err().to_string()
    };
    let error = refused(&["model.embedding.highway=residual", "model.embedding.transform_bias=-3"]);
    assert!(error.contains("highway = \"residual\" has no gate"), "{error}");
    assert!(refused(&["model.embedding.transform_bias=nan"]).contains("finite"));
    assert!(refused(&["model.embedding.highway=gated"]).contains("unknown variant"));
}

#[test]
fn every_count_follows_the_papers_formula() {
    // V·d_in (+ H·V untied) + V + 2[(d_in + H)·H + H] + (L − 1)·2(H² + H), d_in = H where tied or V is larger
    let formula = |hidden: u64, depth: u64, tied: bool| {
        let (v, square) = (PTB_TYPES as u64, hidden * hidden + hidden);
        v * hidden * (2 - u64::from(tied)) + v + 2 * (square + hidden * hidden) + (depth - 1) * 2 * square
    };
    let series = [1275, 1180, 1110, 1050, 1000, 960, 920, 890, 860];
    for (depth, hidden) in (1..).zip(series) {
        assert_eq!(count(&format!("ptb-rhn-l{depth}"), PTB_TYPES), formula(hidden, depth, true), "{depth}");
    }
    assert_eq!(count("ptb-rhn-untied", PTB_TYPES), formula(830, 10, false));
}

#[test]
fn two_lstms_over_characters_count_both_ways_and_their_projection() {
    let c2w = "model.embedding={kind=\"char-lstm\",char_size=200,char_hidden=200,word_size=200}";
    let of = |more: &[&str]| {
        count_with("ptb-char-cnn-small", &[&["model.core.hidden_size=200", c2w], more].concat())
    };
    let words = |size: usize| {
        count_with(
            "ptb-char-cnn-small",
            &["model.core.hidden_size=200", &format!("model.embedding={{kind=\"word\",size={size}}}")],
        )
    };
    let direction = 200 * 800 + 200 * 800 + 800;
    let own = 51 * 200 + 2 * direction + 400 * 200 + 200;
    assert_eq!(of(&[]), words(200) - 10_000 * 200 + own);
    assert_eq!(of(&["model.embedding.highway_layers=2"]) - of(&[]), 2 * (200 * 400 + 400));
}

#[test]
fn the_count_is_that_of_the_trained_tensors_alone() {
    let spelled = specs(&model("ptb-char-cnn-small", PTB_TYPES)).unwrap();
    let spelling = &spelled["embedding.spelling"];
    assert_eq!(spelling.shape, [PTB_TYPES, PTB_LONGEST_WORD]);
    assert!(!spelling.trained() && spelled.values().filter(|spec| !spec.trained()).count() == 1);
}

#[test]
fn penn_treebank_has_ten_thousand_words_and_51_characters() {
    let Some(directories) = treebank() else { return };
    for (name, parameters) in [("ptb-char-cnn-small", 5_312_515), ("ptb-rhn", 23_482_400)] {
        let language = Language::prepare(recipe(name), &directories, None, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(language.tokenizer().vocab_size(), PTB_TYPES);
        assert_eq!(language.model(), &model(name, PTB_TYPES));
        assert_eq!(parameter_count(language.model()).unwrap(), parameters);
    }
}

/// Where Penn Treebank is: in `$RHN_TEST_DATA/ptb` or beside the checkout.
fn treebank() -> Option<DataDirectories> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let data = std::env::var_os("RHN_TEST_DATA").map_or_else(beside, PathBuf::from);
    if data.join("ptb/ptb.train.txt").is_file() {
        return Some(DataDirectories::new(Some(&data)).unwrap());
    }
    eprintln!("skipped: no {}/ptb/ptb.train.txt", data.display());
    None
}
