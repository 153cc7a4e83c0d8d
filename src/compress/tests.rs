//! Round trips by every instruction set, number of threads and kind of model; sizes, damage, refusals.

use super::*;
use crate::checkpoint::publish;
use crate::config::{ModelConfig, Unit};
use crate::data::Tokenizer;
use crate::model::Parameters;
use crate::predict::tiny;
use crate::storage::{CONFIG, MODEL, TOKENIZER, save_tensors};
use candle_core::{DType, Device};
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::rng::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

const PLAY: &str = "To be , or not to be :\nthat is the question\n";

/// A checkpoint in a directory of its own, its weights drawn.
fn checkpoint(unit: Unit, spec: &Value, seed: u64) -> TempDir {
    let tokenizer = tiny::tokenizer(unit, PLAY);
    checkpoint_of(&tokenizer, spec, seed)
}

fn checkpoint_of(tokenizer: &Tokenizer, spec: &Value, seed: u64) -> TempDir {
    let spec = serde_json::from_value(spec.clone()).unwrap();
    let (config, fixed) = ModelConfig::for_words(spec, tokenizer.words()).unwrap();
    let weights = Parameters::draw(&config, fixed, seed, 0.4, DType::F32, &Device::Cpu).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = [
        (CONFIG, serde_json::to_vec(&config).unwrap()),
        (MODEL, save_tensors(&weights.tensors()).unwrap()),
        (TOKENIZER, tokenizer.to_json().into_bytes()),
    ];
    publish(directory.path(), &files).unwrap();
    directory
}

fn word_spec(core: Value) -> Value {
    json!({"embedding": {"kind": "word"}, "core": core})
}

fn small() -> Value {
    word_spec(json!({"kind": "rhn", "hidden_size": 7, "recurrence_depth": 2}))
}

fn open(unit: Unit) -> Compressor {
    Compressor::open(checkpoint(unit, &small(), 1).path()).unwrap()
}

// On one thread, as threads that wait for each other on a busy machine take many times as long for so small a model.

fn compress(compressor: &Compressor, text: &[u8], rows: usize) -> Vec<u8> {
    with_threads(1, || compressor.compress(text, Some(rows), &mut |_, _| Ok(())).unwrap().0)
}

fn decompress(compressor: &Compressor, bytes: &[u8]) -> Result<Vec<u8>> {
    with_threads(1, || Ok(compressor.decompress(Path::new("x.rhn"), bytes, &mut |_, _| Ok(()))?.0))
}

/// Bytes in no order, of `kinds` kinds.
fn noise(length: usize, kinds: f64, seed: u64) -> Vec<u8> {
    let mut rng = Rng::keyed(seed, "noise", 0);
    (0..length).map(|_| (rng.uniform() * kinds) as u8).collect()
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_one_file_and_reads_it() {
    let rhn = json!({"kind": "rhn", "layers": 2, "hidden_size": 21, "recurrence_depth": 3});
    let wide = json!({"kind": "rhn", "hidden_size": 301, "recurrence_depth": 1}); // more than the nearest cache holds
    let characters = json!({"kind": "char-cnn", "char_size": 5, "filter_widths": [1, 2], "filter_counts": [130, 207],
        "highway_layers": 1, "word_size": 19});
    let both_ways = json!({"kind": "char-lstm", "char_size": 5, "char_hidden": 37, "word_size": 19});
    for (unit, spec) in [
        (Unit::Char, word_spec(rhn.clone())),
        (Unit::Byte, word_spec(wide)),
        (Unit::Char, json!({"embedding": {"kind": "word"}, "core": rhn, "output": {"tied": true}})),
        (Unit::Word, word_spec(json!({"kind": "lstm", "layers": 2, "hidden_size": 13}))),
        (Unit::Byte, word_spec(json!({"kind": "gru", "layers": 2, "hidden_size": 13}))),
        (Unit::Char, word_spec(json!({"kind": "hlstm", "layers": 2, "hidden_size": 18}))),
        (
            Unit::Char,
            word_spec(json!({"kind": "hlstm", "layers": 2, "hidden_size": 11, "variant": "kurata"})),
        ),
        (Unit::Word, json!({"embedding": characters, "core": {"kind": "lstm", "hidden_size": 33}})),
        (Unit::Word, json!({"embedding": both_ways, "core": {"kind": "lstm", "hidden_size": 33}})),
    ] {
        let directory = checkpoint(unit, &spec, 1);
        let text = PLAY.repeat(2) + "odd\u{e9}  ends\r\n";
        let open = || Compressor::open(directory.path()).unwrap();
        let mut files = Vec::new();
        let sets = InstructionSet::available();
        for (set, threads) in sets.iter().zip([1, 2, 3].into_iter().cycle()) {
            let compress = || open().compress(text.as_bytes(), Some(3), &mut |_, _| Ok(())).unwrap().0;
            files.push(set.force(|| with_threads(threads, compress)));
        }
        assert!(files.iter().all(|file| *file == files[0]), "{spec}: the files differ");
        for (set, threads) in sets.iter().zip([3, 1, 2].into_iter().cycle()) {
            let read = || open().decompress(Path::new("x"), &files[0], &mut |_, _| Ok(())).unwrap().0;
            assert!(set.force(|| with_threads(threads, read)) == text.as_bytes(), "{spec}: {set:?}");
        }
    }
}

#[test]
fn any_bytes_come_back_by_any_unit_and_number_of_rows() {
    let texts: [Vec<u8>; 11] = [
        vec![],
        b"T".to_vec(),
        b"\n".to_vec(),
        vec![0xff],
        PLAY.as_bytes().to_vec(),
        b"  To be ,\r\n\r\n <unk> or\tnot  \n\n to<eos>be".to_vec(),
        "\u{feff}To b\u{e9}\u{a0}or \u{1f3ad} not\u{2028}".into(),
        PLAY.repeat(4).into_bytes().into_iter().filter(|byte| *byte != b'\n').collect(),
        noise(200, 256.0, 1),
        noise(150, 128.0, 2),
        [PLAY.as_bytes(), &noise(90, 256.0, 3), PLAY.as_bytes(), b"\xf0\x9f"].concat(),
    ];
    for unit in [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe] {
        let tokenizer = match unit {
            Unit::Bpe => {
                let mut corpus = tiny::corpus(unit);
                corpus.vocab_size = 280;
                Tokenizer::build(&corpus, &crate::data::Text::from(PLAY.repeat(5).as_str())).unwrap()
            }
            _ => tiny::tokenizer(unit, PLAY),
        };
        let compressor = Compressor::open(checkpoint_of(&tokenizer, &small(), 2).path()).unwrap();
        for text in &texts {
            for rows in 1..=5 {
                let file = compress(&compressor, text, rows);
                assert!(decompress(&compressor, &file).unwrap() == *text, "{unit:?}, {rows} rows: {text:?}");
            }
        }
    }
}

#[test]
fn the_size_is_what_the_model_needs() {
    for (unit, seed) in [(Unit::Byte, 1), (Unit::Char, 2), (Unit::Word, 3)] {
        let compressor = Compressor::open(checkpoint(unit, &small(), seed).path()).unwrap();
        let text = PLAY.repeat(150);
        let coded = || compressor.compress(text.as_bytes(), Some(5), &mut |_, _| Ok(())).unwrap();
        let (file, summary) = with_threads(1, coded);
        assert_eq!((summary.rows, summary.literals), (5, 0));
        let coded = (file.len() - 77 - 2 * 4 * 5) as f64; // the header: a length and a check for each row
        let ideal = summary.ideal_bits / 8.0;
        assert!(coded >= ideal - 2.0 && coded <= ideal * 1.001 + 2.0, "{unit:?}: {coded} bytes for {ideal}");
    }
}

#[test]
fn the_models_own_bits_are_those_of_scoring() {
    let compressor = open(Unit::Char);
    let text = PLAY.repeat(20);
    let (_, summary) = compressor.compress(text.as_bytes(), Some(1), &mut |_, _| Ok(())).unwrap();
    let ids = compressor.loaded.tokenizer.encode(&text.as_str().into()).unwrap().tokens.to_vec();
    let first = compressor.loaded.tokenizer.line_end_id();
    let nats = crate::eval::score::Scorer::new(&compressor.loaded.model, first).unwrap().nats(&ids).unwrap();
    let wanted = nats.into_iter().map(Option::unwrap).sum::<f64>() / std::f64::consts::LN_2;
    let beside = summary.ideal_bits - wanted; // that no literal comes, which is learned at once
    assert!((0.0..40.0).contains(&beside), "{} bits, scored {wanted}", summary.ideal_bits);
}

#[test]
fn noise_gets_hardly_larger() {
    let text = noise(8000, 256.0, 5);
    for unit in [Unit::Char, Unit::Word] {
        let file = compress(&open(unit), &text, 2);
        assert!((file.len() as f64) < 1.06 * text.len() as f64, "{unit:?}: {} bytes", file.len());
    }
}

#[test]
fn no_changed_byte_gives_another_text() {
    let compressor = open(Unit::Char);
    let text = PLAY.repeat(3);
    let file = compress(&compressor, text.as_bytes(), 2);
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= flip;
            assert!(decompress(&compressor, &file).is_err(), "byte {at}");
        }
        assert!(decompress(&compressor, &file[..at]).is_err(), "{at} bytes");
    }
}

/// A file whose coded text is `payload`, all check sums of the file itself in order.
fn resealed(compressor: &Compressor, file: &[u8], payload: &[u8]) -> Vec<u8> {
    let (header, _) = Header::read(file).unwrap();
    assert!(header.check_model(&compressor.digest, compressor.vocabulary()).is_ok());
    header.write(payload)
}

#[test]
fn coded_text_that_someone_made_up_is_refused_or_the_text() {
    let compressor = open(Unit::Word);
    let text = PLAY.repeat(3) + "odd words";
    let file = compress(&compressor, text.as_bytes(), 2);
    let (_, payload) = Header::read(&file).unwrap();
    let mut refused = 0;
    for seed in 0..120 {
        let mut payload = payload.to_vec();
        let at = seed as usize % payload.len();
        match seed % 3 {
            0 => payload[at] ^= 1 << (seed % 8),
            1 => payload.truncate(at),
            _ => payload = noise(payload.len(), 256.0, seed),
        }
        match decompress(&compressor, &resealed(&compressor, &file, &payload)) {
            Err(error) => {
                assert_eq!(error.exit_code(), 3, "{error}");
                assert!(error.to_string().starts_with("x.rhn: "), "{error}");
                refused += 1;
            }
            Ok(found) => assert!(found == text.as_bytes()),
        }
    }
    assert!(refused > 115, "{refused} of 120"); // the last bits of the last byte mean nothing
}

#[test]
fn another_model_is_refused_and_what_differs_is_named() {
    let compressor = open(Unit::Char);
    let file = compress(&compressor, PLAY.as_bytes(), 1);
    let other = |directory: TempDir| {
        let error = decompress(&Compressor::open(directory.path()).unwrap(), &file).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        error.to_string()
    };
    let weights = other(checkpoint(Unit::Char, &small(), 9));
    assert!(
        weights.contains("is not the model that x.rhn was compressed with: its weights differ"),
        "{weights}"
    );
    let more = tiny::tokenizer(Unit::Char, &PLAY.replace(':', ";"));
    let tokenizer = other(checkpoint_of(&more, &small(), 1));
    assert!(tokenizer.contains("its tokenizer differs"), "{tokenizer}");
    let wider = word_spec(json!({"kind": "rhn", "hidden_size": 8, "recurrence_depth": 2}));
    let config = other(checkpoint(Unit::Char, &wider, 1));
    assert!(config.contains("its configuration, its weights differ"), "{config}");
}

#[test]
fn models_that_machines_compute_differently_are_refused() {
    let depth_gated = json!({"kind": "hlstm", "hidden_size": 5, "variant": "depth-gated"});
    let stabilised = json!({"kind": "hlstm", "hidden_size": 5, "stabiliser": true});
    for core in [depth_gated, stabilised] {
        let error = Compressor::open(checkpoint(Unit::Char, &word_spec(core), 1).path()).err().unwrap();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("tanh or exp is that of the operating system"), "{error}");
    }
}

#[test]
fn who_watches_can_stop_it() {
    let compressor = open(Unit::Char);
    let text = PLAY.repeat(3);
    let mut seen = Vec::new();
    let stopped = compressor.compress(text.as_bytes(), Some(1), &mut |done, total| {
        seen.push((done, total));
        if done < 50 { Ok(()) } else { Err(Error::Stopped { code: 130 }) }
    });
    assert_eq!(stopped.unwrap_err().exit_code(), 130);
    assert_eq!((seen.first(), seen.last()), (Some(&(0, 132)), Some(&(50, 132))));
}

#[test]
#[cfg(not(any(target_arch = "aarch64", target_feature = "fma")))] // where plain code has them anyway
fn without_fused_multiply_adds_the_logits_are_others() {
    let directory = checkpoint(Unit::Char, &small(), 1);
    let logits = |set: InstructionSet| {
        set.force(|| {
            let mut stepper = Stepper::new(&step::load(directory.path()).unwrap().model, 1).unwrap();
            (0..20).flat_map(|token| stepper.step(&[token % 9]).unwrap()).collect::<Vec<f32>>()
        })
    };
    // So the test of every instruction set can fail.
    assert!(logits(InstructionSet::PortableFused) != logits(InstructionSet::Portable));
}
