//! The GPU's dropout masks are the same bits as the CPU's for the same seed.

use crate::emulator::{Script, emulator};
use crate::grids;
use candle_core::{DType, Device, Shape, Tensor};
use rhn_kernels::dropout::{Stream, mask, words};
use rhn_kernels::rng::key_words;

const SEED: u64 = 20260;

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn masks_of_states_and_inputs_are_the_same_bits() {
    let Some(emulator) = emulator() else { return };
    for (purpose, position, rate, count) in [
        ("dropout.input.0", 7, 0.25, 5 * 3 * 37),
        ("dropout.output", 9, 0.65, 3 * 37),
        ("x", 1 << 41, 0.4, 8),
    ] {
        let stream = Stream { seed: SEED, purpose, position };
        let wanted = bits(&mask(stream, rate, Shape::from(count), DType::F32, &Device::Cpu).unwrap());
        assert!(wanted.contains(&0) && wanted.iter().any(|&bits| bits != 0), "{purpose}");
        for shape in grids(count.div_ceil(8), 64) {
            let mut script = Script::new();
            script.load("key", &key_words(SEED, purpose, position));
            script.buffer::<f32>("mask", count);
            let kept = 1.0 / (1.0 - rate);
            script.launch("dropout_f32", shape, &[&"&key", &rate, &kept, &count, &"&mask"]);
            assert_eq!(script.run(emulator, &["mask"]).get::<u32>("mask"), wanted, "{purpose}");
        }
    }
}

#[test]
fn masks_of_words_are_the_same_bits() {
    let Some(emulator) = emulator() else { return };
    let time = 11;
    let batch = 3;
    let ids: Vec<u32> = (0..time * batch).map(|i| (i * i * 7 % 50) as u32).collect();
    let tokens = Tensor::from_slice(&ids, (time, batch), &Device::Cpu).unwrap();
    let purposes: Vec<String> = (0..batch).map(|row| format!("dropout.word.{row}")).collect();
    let streams: Vec<Stream<'_>> =
        purposes.iter().map(|purpose| Stream { seed: SEED, purpose, position: 4 }).collect();
    let wanted = bits(&words(&streams, 0.3, &tokens, DType::F32, &Device::Cpu).unwrap());
    let keys: Vec<u32> = purposes.iter().flat_map(|purpose| key_words(SEED, purpose, 4)).collect();
    for shape in grids(ids.len(), 32) {
        let mut script = Script::new();
        script.load("keys", &keys);
        script.load("tokens", &ids);
        script.buffer::<f32>("mask", ids.len());
        let rate = 0.3;
        let kept = 1.0 / (1.0 - rate);
        let arguments: [&dyn std::fmt::Display; 7] =
            [&"&keys", &"&tokens", &rate, &kept, &batch, &ids.len(), &"&mask"];
        script.launch("word_dropout_f32", shape, &arguments);
        assert_eq!(script.run(emulator, &["mask"]).get::<u32>("mask"), wanted);
    }
}
