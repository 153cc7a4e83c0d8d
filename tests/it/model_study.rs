//! `rhn study estimate` and `lesion` from outside: tables, files and errors, on runs made on the spot.

use crate::support::run;
use run::{Place, stdout};
use serde_json::Value;

const CHARACTERS: &str = "--set corpus.unit=word --set model.core={kind=\"lstm\",layers=1,hidden_size=6}";

/// `rhn ARGS… --json`.
#[track_caller]
fn json(place: &Place, args: &str) -> Value {
    place.json_of(&format!("{args} --json"))
}

/// A run with highway layers of this variant over the characters of words.
fn of_characters(place: &Place, variant: &str, layers: usize, out: &str) {
    let embedding = format!(
        "--set model.embedding={{kind=\"char-cnn\",char_size=4,filter_widths=[1,2],filter_counts=[6,6],\
         highway_layers={layers},highway=\"{variant}\"}}"
    );
    place.train(&format!(
        "{CHARACTERS} {embedding} --set train.epochs=8 --set train.learning_rate=0.03 --out {out}"
    ));
}

#[test]
fn a_lesion_study_begins_with_the_evaluations_own_perplexity() {
    let place = Place::new();
    place.train("--out a --set model.core.recurrence_depth=3");
    let evaluated = json(&place, "eval a --split valid --protocol batched");
    let found = json(&place, "study lesion a --swap --repeat");
    assert_eq!(found["untouched"]["perplexity"], evaluated["perplexity"]);
    assert_eq!(found["tokens"], evaluated["tokens"]);
    let done = found["interventions"].as_array().unwrap();
    let names: Vec<_> = done.iter().map(|one| format!("{} {}", one["intervention"], one["layers"])).collect();
    assert_eq!(names.len(), 3 + 1 + 3, "{names:?}");
    for one in done {
        let ratio = one["perplexity"].as_f64().unwrap() / evaluated["perplexity"].as_f64().unwrap();
        assert!((one["ratio"].as_f64().unwrap() - ratio).abs() < 1e-12 && ratio != 1.0, "{one}");
    }
    assert_eq!(place.json("studies/a/lesion/result.json"), found);
    let table = std::fs::read_to_string(place.path("studies/a/lesion/interventions.tsv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 1 + done.len());
    let picture = std::fs::read_to_string(place.path("studies/a/lesion/lesion.svg")).unwrap();
    for text in ["exchanged with the next</text>", ">untouched ", "<title>left out, layer 3: "] {
        assert!(picture.contains(text), "no {text:?} in {picture}");
    }
    assert!(
        !place.path("studies/a/lesion/lesion.png").exists()
            && !place.path("studies/a/lesion/shuffle.svg").exists()
    );
    let shown = stdout(&place.rhn("study lesion a --out elsewhere --tokens 60 --png"));
    assert!(std::fs::read(place.path("elsewhere/lesion.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(
        shown.contains("| left out ") && shown.contains("of 3 cost less than 25 % when left out"),
        "{shown}"
    );
    assert!(place.path("elsewhere/result.json").exists());
}

#[test]
fn the_studies_take_sublayers_that_share_their_gates() {
    let place = Place::new();
    place.train("--out a --set model.core.shared_gates=both --set model.core.recurrence_depth=3");
    let evaluated = json(&place, "eval a --split valid --protocol batched");
    let found = json(&place, "study lesion a --swap --repeat");
    assert_eq!(found["untouched"]["perplexity"], evaluated["perplexity"]);
    for one in found["interventions"].as_array().unwrap() {
        assert!(one["ratio"].as_f64().is_some_and(|ratio| ratio != 1.0), "{one}");
    }
    let found = json(&place, "study estimate a --against init");
    let untrained = &found["stages"][1]["layers"];
    assert_eq!(untrained.as_array().unwrap().len(), 4);
    // b_T = -2, b_C = 2, and the input's weights are small: sigmoid(-2) = 0.119, sigmoid(2) = 0.881
    assert!((untrained[2]["gate_mean"].as_f64().unwrap() - 0.119).abs() < 0.01, "{untrained}");
    place.train(
        "--out b --set model.core.shared_gates=both --set train.learning_rate=1e-12 --set train.epochs=1",
    );
    let gates = json(&place, "study gates b");
    for layer in gates["stages"][0]["layers"].as_array().unwrap() {
        for (name, wanted) in [("bias", -2.0), ("mean", 0.119), ("mean_carry", 0.881)] {
            assert!((layer[name].as_f64().unwrap() - wanted).abs() < 0.01, "{name} of {layer}");
        }
    }
    assert!(place.path("studies/b/gates/mean-carry.tsv").exists());
    assert!(stdout(&place.rhn("study gates b")).contains("| mean C |"));
    let inspected = stdout(&place.rhn("inspect b"));
    assert!(inspected.contains("one transform and one carry gate for all sublayers"), "{inspected}");
    place.train("--out c");
    assert!(!stdout(&place.rhn("study gates c")).contains("mean C"));
    // The same text by another name.
    place.write("mine.txt", crate::support::run::PLAY.repeat(12));
    for study in ["gates c", "lesion c", "estimate c"] {
        let [whole, mine] =
            ["--split all", "--file mine.txt"].map(|text| json(&place, &format!("study {study} {text}")));
        assert_eq!((&mine["corpus"], &mine["split"]), (&"mine.txt".into(), &"all".into()));
        for key in ["stages", "untouched", "interventions"] {
            assert_eq!(whole[key], mine[key], "{study}");
        }
    }
    place.fails("study gates c --file mine.txt --split test", 2, &["--file", "--split"]);
}

#[test]
fn biases_have_fallen_from_the_value_that_their_own_stage_began_with() {
    let place = Place::new();
    let embedding = "{kind=\"char-cnn\",char_size=4,filter_widths=[1],filter_counts=[6],highway_layers=2}";
    place.train(&format!("--set corpus.unit=word --set model.embedding={embedding} --max-steps 2 --out run"));
    let gates = json(&place, "study gates run");
    let stages = gates["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2, "{gates}");
    // The first biases of the embedding's highway layers are drawn, those of the core are all one number.
    assert!(stages[0].get("biases_fallen").is_none_or(Value::is_null), "{gates}");
    let fallen = stages[1]["biases_fallen"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&fallen), "{gates}");
    // Those of a run that began with another's weights did not begin there.
    place.train(
        "--init-from run --set corpus.unit=word --set model.embedding.kind=char-cnn --set train.update=output-bias \
         --max-steps 1 --out later",
    );
    let gates = json(&place, "study gates later");
    assert!(gates["stages"][1].get("biases_fallen").is_none_or(Value::is_null), "{gates}");
    let against = place.rhn("study estimate later --against init");
    assert!(run::stderr(&against).contains("began with the weights of another"), "{}", run::stderr(&against));
}

#[test]
fn a_study_says_that_it_reads_sentences_as_one_text() {
    let place = Place::new();
    place.train("--set corpus.unit=word --set corpus.sentences=reset --max-steps 2 --out run");
    let studied = place.rhn("study lesion run");
    assert!(studied.status.success(), "{}", run::stderr(&studied));
    assert!(run::stderr(&studied).contains("reads one running text"), "{}", run::stderr(&studied));
}

#[test]
fn an_estimate_study_has_the_states_of_every_stage_and_of_the_untrained_weights() {
    let place = Place::new();
    place.train("--out a --set model.core.recurrence_depth=3 --set model.core.layers=2");
    let found = json(&place, "study estimate a --against init");
    let picture = std::fs::read_to_string(place.path("studies/a/estimate/estimate.svg")).unwrap();
    assert!(picture.contains(">untrained weights</text>") && picture.contains("<polygon "), "{picture}");
    let stages = found["stages"].as_array().unwrap();
    let names: Vec<_> =
        stages.iter().map(|one| (one["stage"].as_str().unwrap(), one["weights"].as_str().unwrap())).collect();
    let [one, two] = ["sublayers of a time step, layer 1", "sublayers of a time step, layer 2"];
    assert_eq!(names, [(one, "trained"), (two, "trained"), (one, "init"), (two, "init")]);
    for stage in stages {
        let layers = stage["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4);
        assert_eq!((layers[3]["mean"].as_f64(), layers[3]["sd"].as_f64()), (Some(0.0), Some(0.0)));
        assert!(layers[0]["sd"].as_f64() > Some(0.0) && layers[0]["gate_mean"].is_null());
        assert_eq!(stage["rows"], found["tokens"]);
    }
    // b_T = -2, and the input's weights are small: sigmoid(-2) = 0.119
    let gate = stages[2]["layers"][2]["gate_mean"].as_f64().unwrap();
    assert!((gate - 0.119).abs() < 0.01, "{gate}");
    assert_eq!(place.json("studies/a/estimate/result.json"), found);
    let table = std::fs::read_to_string(place.path("studies/a/estimate/layers.tsv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 4 * 4);
}

#[test]
fn words_count_as_often_as_the_text_has_them_or_once() {
    let place = Place::new();
    of_characters(&place, "coupled", 2, "a");
    let tokens = json(&place, "study estimate a");
    let types = json(&place, "study estimate a --over types");
    let stage = |found: &Value| found["stages"][0].clone();
    assert_eq!(stage(&tokens)["weight"].as_f64(), tokens["tokens"].as_u64().map(|count| count as f64));
    assert_eq!(stage(&types)["weight"].as_f64(), stage(&types)["rows"].as_u64().map(|count| count as f64));
    assert_ne!(stage(&tokens)["layers"][1]["sd"], stage(&types)["layers"][1]["sd"]);
    let shown = stdout(&place.rhn("study estimate a"));
    assert!(shown.contains("highway layers over characters: trained weights"), "{shown}");
}

#[test]
fn a_plain_net_misses_each_layer_more_than_a_highway_net_does() {
    let place = Place::new();
    let mut worst = Vec::new();
    for variant in ["coupled", "plain"] {
        of_characters(&place, variant, 3, variant);
        let found = json(&place, &format!("study lesion {variant} --split train"));
        let ratios =
            found["interventions"].as_array().unwrap().iter().map(|one| one["ratio"].as_f64().unwrap());
        worst.push(ratios.fold(0.0, f64::max));
    }
    assert!(worst[1] > 1.5 && worst[1] > worst[0], "{worst:?}");
}

#[test]
fn what_cannot_be_studied_is_refused() {
    let place = Place::new();
    place.train(&format!("{CHARACTERS} --out a"));
    for study in ["estimate", "lesion"] {
        place.fails(&format!("study {study} a"), 2, &["a has no stage to study", "LSTM"]);
    }
    place.train("--out b");
    place.fails(
        "study lesion b --shuffle 3",
        2,
        &["--shuffle needs a stage of at least 4 layers", "largest has 1"],
    );
    place.fails("study lesion b --tokens 3", 3, &["3 tokens are too few", "--tokens"]);
    place.fails("study estimate missing", 4, &["does not exist"]);
    assert!(!place.path("studies").exists());
}
