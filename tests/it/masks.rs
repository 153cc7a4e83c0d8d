//! Dropout masks: what shares one, what differs, and what they do to the model.

use candle_core::{DType, Device, IndexOp, Tensor};
use rhn::config::ModelConfig;
use rhn::config::train::DropoutConfig;
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters, State};
use rhn_kernels::scan::HiddenMask;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TIME: usize = 6;
const ROWS: usize = 4;
const WORDS: usize = 9;
const HIDDEN: usize = 20;

fn rhn(transform_bias: f64) -> Value {
    json!({"kind": "rhn", "layers": 2, "hidden_size": HIDDEN, "recurrence_depth": 3,
           "transform_bias": transform_bias})
}

fn lstm() -> Value {
    json!({"kind": "lstm", "layers": 2, "hidden_size": HIDDEN})
}

fn model(core: Value) -> ModelConfig {
    let embedding = json!({"kind": "word", "size": 12});
    let config = json!({"model_type": "rhn", "vocab_size": WORDS, "embedding": embedding, "core": core});
    serde_json::from_value(config).unwrap()
}

/// A different rate for every purpose.
fn rates() -> Value {
    json!({"word": 0.25, "input": 0.75, "between": 0.5, "hidden": 0.2, "output": 0.4})
}

fn per_step() -> Value {
    json!({"kind": "per-step", "input": 0.75, "between": 0.5, "output": 0.4})
}

fn source(core: Value, dropout: Value, seed: u64, dtype: DType) -> NoiseSource {
    let dropout: DropoutConfig = serde_json::from_value(dropout).unwrap();
    NoiseSource::new(&model(core), &dropout, seed, dtype, &Device::Cpu)
}

/// Three words, each several times in every batch row.
fn tokens() -> Tensor {
    let token = |i: usize| (i / ROWS * 4 % WORDS + i % ROWS / 2) as u32 % 3;
    Tensor::from_vec((0..TIME * ROWS).map(token).collect::<Vec<_>>(), (TIME, ROWS), &Device::Cpu).unwrap()
}

fn drawn(core: Value, dropout: Value, step: u64) -> Noise {
    source(core, dropout, 1, DType::F64).draw(&tokens(), step, step).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Every mask by name.
fn named(masks: &Noise) -> BTreeMap<String, Tensor> {
    let optional = |name: &str, mask: &Option<Tensor>| mask.clone().map(|mask| (name.to_string(), mask));
    let input = masks.input.iter().enumerate().filter_map(|(k, mask)| optional(&format!("input.{k}"), mask));
    let depth = masks.depth.iter().enumerate().filter_map(|(k, mask)| optional(&format!("depth.{k}"), mask));
    let hidden = masks.hidden.iter().enumerate().flat_map(|(k, mask)| match mask {
        HiddenMask::None => vec![],
        HiddenMask::Shared(mask) => vec![(format!("hidden.{k}"), mask.clone())],
        HiddenMask::Separate { h, t } => {
            vec![(format!("hidden.{k}"), h.clone()), (format!("hidden_transform.{k}"), t.clone())]
        }
    });
    let ends = optional("word", &masks.word).into_iter().chain(optional("output", &masks.output));
    ends.chain(input).chain(depth).chain(hidden).collect()
}

fn all(masks: &Noise) -> BTreeMap<String, Vec<f64>> {
    named(masks).into_iter().map(|(name, mask)| (name, values(&mask))).collect()
}

#[test]
fn kept_values_are_exactly_one_over_the_probability_of_being_kept() {
    let rates = [("word", 0.25), ("input.0", 0.75), ("input.1", 0.5), ("hidden.0", 0.2), ("output", 0.4)];
    for dtype in [DType::F64, DType::F32] {
        let masks = source(rhn(-2.0), self::rates(), 1, dtype).draw(&tokens(), 0, 0).unwrap();
        let masks = named(&masks);
        for (name, rate) in rates {
            let scale = 1.0 / (1.0 - rate);
            let scale = if dtype == DType::F64 { scale } else { f64::from(scale as f32) };
            assert_eq!(masks[name].dtype(), dtype);
            assert!(values(&masks[name]).iter().all(|&v| v == 0.0 || v == scale), "{name} {dtype:?}");
        }
    }
}

#[test]
fn both_precisions_drop_the_same_values() {
    let draw = |dtype| source(rhn(-2.0), rates(), 1, dtype).draw(&tokens(), 3, 3).unwrap();
    let (double, single) = (named(&draw(DType::F64)), named(&draw(DType::F32)));
    for (name, mask) in &double {
        let rounded = mask.to_dtype(DType::F32).unwrap();
        assert_eq!(values(&rounded), values(&single[name]), "{name}");
    }
}

#[test]
fn the_mean_of_a_mask_is_one() {
    for dropout in [rates(), per_step()] {
        let rate =
            |name: &str| dropout[name].as_f64().unwrap_or_else(|| dropout["between"].as_f64().unwrap());
        let source = source(rhn(-2.0), dropout.clone(), 1, DType::F64);
        let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for step in 0..400 {
            for (name, mut mask) in all(&source.draw(&tokens(), step, step).unwrap()) {
                if name == "word" {
                    mask.truncate(1); // the others repeat its draws where a batch row repeats its words
                }
                let (sum, count) = sums.entry(name).or_default();
                *sum += mask.iter().sum::<f64>();
                *count += mask.len() as f64;
            }
        }
        for (name, (sum, count)) in sums {
            let rate = rate(if name == "input.1" { "between" } else { name.split('.').next().unwrap() });
            let deviation = (rate / (1.0 - rate) / count).sqrt(); // of the mean of Bernoulli(1 − rate) / (1 − rate)
            assert!((sum / count - 1.0).abs() < 5.0 * deviation, "{name}: {}", sum / count);
        }
    }
}

#[test]
fn occurrences_of_a_word_in_a_row_share_its_mask_and_rows_differ() {
    let (tokens, mut rows_differ) = (tokens().to_vec2::<u32>().unwrap(), false);
    for step in 0..20 {
        let word =
            drawn(rhn(-2.0), rates(), step).word.unwrap().squeeze(2).unwrap().to_vec2::<f64>().unwrap();
        let mut by_row_and_word = BTreeMap::new();
        for (ids, mask) in tokens.iter().zip(&word) {
            for (row, (&id, &value)) in ids.iter().zip(mask).enumerate() {
                assert_eq!(*by_row_and_word.entry((id, row)).or_insert(value), value, "{id} in {row}");
            }
        }
        rows_differ |= by_row_and_word.iter().any(|(&(id, row), value)| {
            by_row_and_word.get(&(id, row + 1)).is_some_and(|other| other != value)
        });
    }
    assert!(rows_differ);
}

#[test]
fn occurrences_of_a_word_in_all_rows_share_the_embedding_mask() {
    let tokens = tokens().flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let embedding = json!({"embedding": 0.5});
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..40 {
        let mask = drawn(rhn(-2.0), embedding.clone(), step).word.unwrap();
        assert_eq!(mask.dims(), [TIME, ROWS, 1]);
        let mut by_word = BTreeMap::new();
        for (&id, value) in tokens.iter().zip(values(&mask)) {
            assert_eq!(*by_word.entry(id).or_insert(value), value, "word {id} at step {step}");
        }
        seen.insert(by_word.values().map(|&value| value as u32).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 8, "three words, each dropped or doubled: {seen:?}");
}

#[test]
fn word_and_embedding_masks_multiply() {
    let both = drawn(rhn(-2.0), json!({"word": 0.25, "embedding": 0.5}), 3).word.unwrap();
    let [word, embedding] = [json!({"word": 0.25}), json!({"embedding": 0.5})]
        .map(|dropout| drawn(rhn(-2.0), dropout, 3).word.unwrap());
    assert_eq!(values(&both), values(&(word * embedding).unwrap()));
}

#[test]
fn a_second_pass_has_masks_of_its_own() {
    let rates = json!({"word": 0.25, "embedding": 0.4, "input": 0.75, "hidden": 0.2, "output": 0.4});
    let source = source(rhn(-2.0), rates, 1, DType::F64);
    let first = all(&source.draw(&tokens(), 5, 5).unwrap());
    let second = all(&source.second_pass().draw(&tokens(), 5, 5).unwrap());
    assert!(first.keys().eq(second.keys()));
    for (name, mask) in &first {
        assert_ne!(mask, &second[name], "{name}");
    }
}

#[test]
fn variational_masks_have_no_time_and_per_step_masks_differ_at_every_step() {
    let dims = |masks: &Noise| named(masks).into_iter().map(|(n, m)| (n, m.dims().to_vec())).collect();
    let shared: BTreeMap<String, Vec<usize>> = dims(&drawn(rhn(-2.0), rates(), 0));
    assert_eq!((&shared["input.0"][..], &shared["output"][..]), (&[ROWS, 12][..], &[ROWS, HIDDEN][..]));
    assert_eq!((&shared["word"][..], &shared["hidden.1"][..]), (&[TIME, ROWS, 1][..], &[ROWS, HIDDEN][..]));
    for (name, mask) in named(&drawn(lstm(), per_step(), 0)) {
        let size = if name == "input.0" { 12 } else { HIDDEN };
        assert_eq!(mask.dims(), [TIME, ROWS, size], "{name}");
        let steps: Vec<_> = (0..TIME).map(|step| values(&mask.i(step).unwrap())).collect();
        assert!((1..TIME).all(|step| steps[..step].iter().all(|s| *s != steps[step])), "{name}");
    }
}

#[test]
fn the_same_seed_and_step_draw_the_same_masks_and_others_draw_others() {
    for dropout in [rates(), per_step()] {
        let draw = |seed, step| {
            all(&source(rhn(-2.0), dropout.clone(), seed, DType::F64).draw(&tokens(), step, step).unwrap())
        };
        let first = draw(1, 5);
        assert_eq!(first, draw(1, 5));
        for other in [draw(1, 6), draw(2, 5)] {
            assert!(first.iter().all(|(name, mask)| name == "word" || *mask != other[name]));
        }
    }
}

#[test]
fn a_position_names_what_is_shared_and_a_window_what_is_drawn_at_every_step() {
    let draw = |dropout, position, window| {
        all(&source(rhn(-2.0), dropout, 1, DType::F64).draw(&tokens(), position, window).unwrap())
    };
    assert_eq!(draw(rates(), 1, 2), draw(rates(), 1, 3));
    assert_eq!(draw(per_step(), 1, 2), draw(per_step(), 0, 2));
    assert_ne!(draw(per_step(), 1, 2), draw(per_step(), 1, 3));
}

#[test]
fn layers_rows_and_purposes_have_masks_of_their_own() {
    let half = json!({"input": 0.5, "hidden": 0.5, "output": 0.5, "separate_gate_masks": true});
    let masks = named(&drawn(rhn(-2.0), half, 0));
    let wide = masks.iter().filter(|(_, mask)| mask.dims() == [ROWS, HIDDEN]);
    let mut rows: Vec<Vec<f64>> = wide
        .flat_map(|(_, mask)| values(mask).chunks(HIDDEN).map(<[f64]>::to_vec).collect::<Vec<_>>())
        .collect();
    assert_eq!(rows.len(), 6 * ROWS); // input.1, output, and H and T of two layers
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn only_an_rhn_has_separate_masks_for_its_gates() {
    let mut separate = rates();
    separate["separate_gate_masks"] = json!(true);
    for (core, separate_wanted) in [(rhn(-2.0), true), (lstm(), false)] {
        let hidden = drawn(core, separate.clone(), 0).hidden;
        assert!(hidden.iter().all(|mask| matches!(mask, HiddenMask::Separate { .. }) == separate_wanted));
    }
    assert!(drawn(rhn(-2.0), rates(), 0).hidden.iter().all(|mask| matches!(mask, HiddenMask::Shared(_))));
}

#[test]
fn only_layers_that_take_a_lower_cell_have_a_mask_on_its_gate() {
    let core = |settings: Value| {
        let mut core = json!({"kind": "hlstm", "layers": 3, "hidden_size": HIDDEN});
        core.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        core
    };
    let names = |core: Value| named(&drawn(core, json!({"depth": 0.3}), 0)).into_keys().collect::<Vec<_>>();
    assert_eq!(names(core(json!({}))), ["depth.1", "depth.2"]);
    assert_eq!(names(core(json!({"first_layer_carry": true}))), ["depth.0", "depth.1", "depth.2"]);
    assert!(names(core(json!({"variant": "kurata"}))).is_empty() && names(lstm()).is_empty());
    let projected = core(json!({"projection": 4}));
    let masks = named(&drawn(projected.clone(), json!({"depth": 0.3, "hidden": 0.2, "between": 0.2}), 0));
    let dims = |name: &str| masks[name].dims().to_vec();
    assert_eq!((dims("depth.1"), dims("hidden.1")), (vec![ROWS, HIDDEN], vec![ROWS, 4])); // of the cell, of h
    assert_eq!(dims("input.1"), [ROWS, 4]);
    let per_step = named(&drawn(projected, json!({"kind": "per-step", "depth": 0.3}), 0));
    assert_eq!(per_step["depth.2"].dims(), [TIME, ROWS, HIDDEN]);
}

#[test]
fn a_rate_of_zero_draws_no_mask() {
    assert!(named(&drawn(rhn(-2.0), json!({}), 0)).is_empty());
}

/// A model with weights in ± 0.5, some changed, and what it makes of the tokens from a state of 0.3 everywhere.
fn run(core: &Value, masks: &Noise, change: impl Fn(&mut BTreeMap<String, Tensor>)) -> (Tensor, State) {
    let (config, dtype, device) = (model(core.clone()), DType::F64, Device::Cpu);
    let first = Parameters::draw(&config, BTreeMap::new(), 2, 0.5, dtype, &device).unwrap();
    let mut tensors = first.tensors();
    change(&mut tensors);
    let parameters = Parameters::load(&config, &tensors, dtype, &device).unwrap();
    let model = LanguageModel::new(&config, &parameters, dtype, &device).unwrap();
    model.logits(&tokens(), &filled(&model, 0.3), masks).unwrap()
}

fn filled(model: &LanguageModel, value: f64) -> State {
    let zero = model.zero_state(ROWS).unwrap().0;
    State(zero.iter().map(|layer| layer.iter().map(|part| (part + value).unwrap()).collect()).collect())
}

fn row_of(logits: &Tensor, row: usize) -> Vec<f64> {
    values(&logits.narrow(1, row, 1).unwrap())
}

#[test]
fn the_carry_uses_the_state_without_the_mask() {
    let masks = drawn(rhn(-2.0), json!({"hidden": 0.5}), 0);
    let (_, after) = run(&rhn(-1e4), &masks, |_| {}); // transform gates shut: what enters must leave
    assert!(after.0.iter().flatten().flat_map(values).all(|value| value == 0.3));
}

#[test]
fn a_dropped_unit_is_dropped_at_every_step_and_sublayer_and_in_its_row_alone() {
    let mut keep = vec![1.0; ROWS * HIDDEN];
    keep[7] = 0.0; // unit 7 in batch row 0
    let mask = Tensor::from_vec(keep, (ROWS, HIDDEN), &Device::Cpu).unwrap();
    let hidden = vec![HiddenMask::Shared(mask.clone()), HiddenMask::None];
    let masks = Noise { hidden, ..Noise::none() };
    let louder = |name: &'static str, axis: usize| {
        move |tensors: &mut BTreeMap<String, Tensor>| {
            let weight = &tensors[name];
            let mut factors = vec![1.0; HIDDEN];
            factors[7] = 3.0;
            let shape: Vec<usize> = (0..weight.rank()).map(|a| if a == axis { HIDDEN } else { 1 }).collect();
            let factors = Tensor::from_vec(factors, shape, &Device::Cpu).unwrap();
            tensors.insert(name.into(), weight.broadcast_mul(&factors).unwrap());
        }
    };
    for (core, axis) in [(rhn(-1.0), 1), (lstm(), 0)] {
        let (plain, _) = run(&core, &masks, |_| {});
        let (changed, _) = run(&core, &masks, louder("core.0.recurrent.weight", axis));
        assert_eq!(row_of(&plain, 0), row_of(&changed, 0)); // its row of every sublayer's weights is never used
        assert!((1..ROWS).all(|other| row_of(&plain, other) != row_of(&changed, other)));
        let output = Noise { output: Some(mask.clone()), ..Noise::none() };
        let (plain, _) = run(&core, &output, |_| {});
        let (changed, _) = run(&core, &output, louder("output.weight", 0));
        assert_eq!(row_of(&plain, 0), row_of(&changed, 0));
        assert!((1..ROWS).all(|other| row_of(&plain, other) != row_of(&changed, other)));
    }
}

#[test]
fn a_variational_mask_acts_as_the_same_mask_at_every_step() {
    for core in [rhn(-1.0), lstm()] {
        let masks = drawn(core.clone(), rates(), 0);
        let repeat = |mask: &Tensor| {
            let (rows, size) = mask.dims2().unwrap();
            mask.broadcast_as((TIME, rows, size)).unwrap().contiguous().unwrap()
        };
        let repeated = Noise {
            input: masks.input.iter().map(|mask| mask.as_ref().map(repeat)).collect(),
            output: masks.output.as_ref().map(repeat),
            ..masks.clone()
        };
        let (shared, _) = run(&core, &masks, |_| {});
        assert_eq!(values(&shared), values(&run(&core, &repeated, |_| {}).0));
        assert_ne!(values(&shared), values(&run(&core, &Noise::none(), |_| {}).0));
    }
}
