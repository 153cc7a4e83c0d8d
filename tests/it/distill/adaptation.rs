//! Weights that learn alone, while all others stay those of the checkpoint that the run begins with.

use crate::support::run;
use candle_core::{DType, Tensor};
use rhn::checkpoint::Checkpoint;
use run::{PLAY, Place};
use std::collections::BTreeMap;
use std::fs;

/// A model `first` of a core, and a text `new.txt` of the same characters.
fn with_first(settings: &str) -> Place {
    let place = Place::new();
    place.train(&format!("--out first --max-steps 6 {settings}"));
    place.write("new.txt", "question the not , is be that to\nnor : or To\n".repeat(24));
    place
}

/// A rule that moves every number that it is given.
const ADAPT: &str =
    "--corpus new.txt --init-from first --set train.optimizer=adamw --set train.weight_decay=0.1";

fn weights(place: &Place, name: &str) -> BTreeMap<String, Tensor> {
    Checkpoint::open(&place.path(name)).unwrap().tensors().unwrap()
}

/// The columns of each tensor in which `after` differs from `before`; every number of a column that learns has moved.
fn moved(
    before: &BTreeMap<String, Tensor>,
    after: &BTreeMap<String, Tensor>,
) -> BTreeMap<String, Vec<usize>> {
    let mut all = BTreeMap::new();
    assert!(before.keys().eq(after.keys()));
    for (name, before) in before {
        let width = *before.dims().last().unwrap();
        let bits = |tensor: &Tensor| -> Vec<u64> {
            let exact = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            exact.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
        };
        let changed: Vec<bool> = bits(before).iter().zip(bits(&after[name])).map(|(a, b)| *a != b).collect();
        let in_column = |column: usize| changed.iter().skip(column).step_by(width);
        let columns: Vec<usize> =
            (0..width).filter(|&column| in_column(column).any(|&moved| moved)).collect();
        let whole = columns.iter().all(|&column| in_column(column).all(|&moved| moved));
        assert!(
            whole || ["embedding.weight", "embedding.characters"].contains(&name.as_str()),
            "{name}: a column of which a part has moved"
        );
        if !columns.is_empty() {
            all.insert(name.clone(), columns);
        }
    }
    all
}

#[test]
fn a_group_learns_and_every_other_number_stays_to_the_bit() {
    let lstm = "--set model.core={kind=\"lstm\",layers=1,hidden_size=8}";
    let characters = "--set corpus.unit=word --set model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],\
        filter_counts=[3,4],highway_layers=1}";
    for (settings, gates, highway) in
        [("", 8..16, None), (lstm, 0..24, None), (characters, 8..16, Some(7..14))]
    {
        let place = with_first(settings);
        let first = weights(&place, "first");
        for update in ["gates", "gate-biases", "output-bias"] {
            let adapted = format!("{update}-run");
            let message = place.train(&format!(
                "--out {adapted} {settings} {ADAPT} --set train.update={update} --max-steps 4"
            ));
            let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for name in first.keys() {
                let columns = match name.split('.').next().unwrap() {
                    _ if update == "output-bias" => None,
                    _ if update == "gate-biases" && !name.ends_with("bias") => None,
                    "core" => Some(gates.clone()),
                    "embedding" if name.contains("highway") => highway.clone(),
                    _ => None,
                };
                wanted.extend(columns.map(|columns| (name.clone(), columns.collect())));
            }
            if update == "output-bias" {
                wanted.insert("output.bias".into(), (0..first["output.bias"].dims()[0]).collect());
            }
            assert_eq!(moved(&first, &weights(&place, &adapted)), wanted, "{settings} {update}");
            let numbers: usize = wanted
                .iter()
                .map(|(name, columns)| {
                    first[name].elem_count() / first[name].dims().last().unwrap() * columns.len()
                })
                .sum();
            let said = format!("({numbers} of them updated: {update})");
            assert!(message.replace(',', "").contains(&said), "no {said:?} in {message}");
        }
        place.train(&format!("--out all {settings} {ADAPT} --max-steps 4"));
        assert!(moved(&first, &weights(&place, "all")).len() > 4);
    }
}

#[test]
fn nothing_is_remembered_of_what_does_not_learn() {
    let place = with_first("");
    place.train(&format!("--out gates {ADAPT} --set train.update=gates --max-steps 4"));
    let state = fs::read(place.newest("gates").join("optimizer.safetensors")).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&state, &candle_core::Device::Cpu).unwrap();
    let mut moments: Vec<_> = tensors.iter().filter(|(name, _)| name.starts_with("moments.")).collect();
    moments.sort_by_key(|(name, _)| name.as_str());
    let shapes: Vec<(&str, Vec<usize>)> =
        moments.iter().map(|(name, tensor)| (name.as_str(), tensor.dims().to_vec())).collect();
    let input = weights(&place, "first")["core.0.input.weight"].dims()[0];
    let wanted = [
        ("moments.core.0.bias", vec![2, 2, 8]),
        ("moments.core.0.input.weight", vec![2, input, 8]),
        ("moments.core.0.recurrent.weight", vec![2, 2, 8, 8]),
    ];
    assert_eq!(shapes, wanted);
}

#[test]
fn a_run_that_is_held_to_its_start_resumes_exactly_without_naming_it_again() {
    let place = with_first("");
    // Without a teacher, the checkpoint that the run begins with is one.
    let settings = "--corpus new.txt --set train.update=gates --set train.loss.kind=distill --set train.loss.alpha=0.5 \
        --set train.averaging.kind=ema --set train.epochs=2";
    let message = place.train(&format!("--out whole {settings} --init-from first"));
    assert!(message.contains("teacher first: recurrent highway network"), "{message}");
    assert!(fs::read_to_string(place.path("whole/recipe.toml")).unwrap().contains("teacher = \"first\""));
    place.train(&format!("--out pieces {settings} --init-from first --max-steps 7"));
    place.train(&format!("--out pieces {settings} --resume --max-steps 60"));
    place.train(&format!("--out pieces {settings} --resume"));
    for (whole, pieces) in place.fingerprint("whole").into_iter().zip(place.fingerprint("pieces")) {
        assert_eq!(whole, pieces);
    }
    let first = weights(&place, "first");
    let held = ["embedding.weight", "output.weight", "output.bias"];
    let found = moved(&first, &weights(&place, "pieces"));
    assert!(held.iter().all(|name| !found.contains_key(*name)) && found.len() == 3, "{found:?}");
}

#[test]
fn a_group_that_there_is_not_is_refused() {
    let adaptive = "--set model.output={kind=\"adaptive\",cutoffs=[6]} --set corpus.unit=word";
    let place = with_first(adaptive);
    let adapt = format!("train tiny.toml --out run {adaptive} {ADAPT}");
    place.fails(&format!("{adapt} --set train.update=output-bias"), 2, &["the model has no such weights"]);
    place.fails(&format!("{adapt} --set train.update=biases"), 2, &["unknown variant", "gate-biases"]);
    place.fails(
        "train tiny.toml --out run --set train.update=gates",
        2,
        &["train.update = \"gates\"", "--init-from"],
    );
    place.fails("train mnist-highway --out run --set train.update=gates", 2, &["train.update is for text"]);
    assert!(!place.path("run").exists());
}

#[test]
fn the_table_has_both_domains_before_and_after() {
    let place = with_first("");
    place.train(&format!("--out gates {ADAPT} --set train.update=gates --max-steps 8"));
    place.train(&format!("--out all {ADAPT} --max-steps 8"));
    let found = place.json_of("study adapt first gates all --json");
    let rows = found["rows"].as_array().unwrap();
    let nats = |args: &str| place.json_of(&format!("eval {args} --json"))["nats_per_token"].clone();
    for (row, name) in rows.iter().zip(["first", "gates", "all"]) {
        assert_eq!(row["checkpoint"], name);
        // On the adapted runs' own test split, by the old tokens, and on that of the first.
        assert_eq!(
            row["new"]["nats_per_token"],
            nats(&format!("{name} --corpus new.txt --split test")),
            "{name}"
        );
        assert_eq!(
            row["old"]["nats_per_token"],
            nats(&format!("{name} --corpus corpus.txt --split test")),
            "{name}"
        );
    }
    assert_eq!(
        (&rows[0]["update"], &rows[1]["update"], &rows[2]["update"]),
        (&"–".into(), &"gates".into(), &"all".into())
    );
    let gates = rows[1]["updated"].as_u64().unwrap();
    assert!(gates > 0 && gates < rows[2]["updated"].as_u64().unwrap());
    let output = place.rhn("study adapt first gates all");
    let table = run::stdout(&output);
    assert!(
        table.contains("| first") && table.contains("new: new.txt") && table.contains("old: corpus.txt"),
        "{table}"
    );
    let other = place.json_of("study adapt first gates --new corpus.txt --old new.txt --json");
    assert_eq!(other["rows"][1]["old"]["corpus"], "new.txt");
    // A vocabulary of its own makes no row that compares.
    place.write("else.txt", format!("{PLAY}Ζωή\n").repeat(12));
    place.train("--out else --corpus else.txt --max-steps 1");
    place.fails("study adapt first else", 4, &["else: has another vocabulary", "first"]);
}
