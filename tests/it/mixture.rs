//! A mixture of softmaxes from outside: every command that needs its probabilities, and what is refused.

use crate::support::run::{Place, assert_fails, stderr, stdout};

/// Vectors of 3 numbers for a state of 8, tied: only a mixture can have them.
const MIXTURE: &str = "--set model.embedding.size=3 --set model.output={kind=\"mixture\",components=4,tied=true} \
    --set train.dropout.components=0.2 --set train.epochs=2";

#[test]
fn every_command_that_needs_its_probabilities_works() {
    let place = Place::new();
    place.train(&format!("--out run {MIXTURE}"));
    let inspected = place.json_of("inspect run --json");
    let names = inspected["tensors"].as_array().unwrap().iter();
    let shape = |name: &str| names.clone().find(|tensor| tensor["name"] == name).unwrap()["shape"].clone();
    assert_eq!(shape("output.components.weight"), serde_json::json!([8, 12]));
    assert_eq!(shape("output.components.bias"), serde_json::json!([12]));
    assert_eq!(shape("output.mixture.weight"), serde_json::json!([8, 4]));
    assert!(!names.clone().any(|tensor| tensor["name"] == "output.weight")); // it is the embedding
    assert!(stdout(&place.rhn("inspect run")).contains("mixture of 4 softmaxes, tied"));

    let of =
        |args: &str| place.json_of(&format!("eval run --json {args}"))["nats_per_token"].as_f64().unwrap();
    let plain = of("");
    assert_eq!(of("--temperature 1"), plain);
    assert!((of("--temperature 1.0000001") - plain).abs() < 1e-4); // ln p for logits is the same distribution
    assert!(of("--temperature 3") != plain && of("--mc 2") != plain);
    assert!(of("--cache 20") != plain && of("--dynamic") != plain);
    assert!(of("--dynamic --dynamic-update output-bias") != plain);
    let sampled = place.rhn("sample run --tokens 20 --seed 3");
    assert_eq!(sampled.status.code(), Some(0), "{}", stderr(&sampled));
    place.write("line.txt", "To be ,\n");
    assert_eq!(place.rhn("score run line.txt").status.code(), Some(0));
    place.write("other.txt", "zoo\nΖωή to be\n".repeat(40)); // with characters that the vocabulary lacks
    place.train(&format!(
        "--out grown --corpus other.txt --init-from run --grow-vocab {MIXTURE} --max-steps 2"
    ));
    assert!(stdout(&place.rhn("inspect grown")).contains("mixture of 4 softmaxes, tied"));
}

/// Windows of 256 tokens go through in blocks of rows, a single token is a block of its own: one frozen, one on the weights
/// that dynamic evaluation changes, here by nothing that counts.
#[test]
fn a_window_and_single_tokens_cost_the_same() {
    let place = Place::new();
    place.train(&format!("--out run {MIXTURE}"));
    let stream = place.json_of("eval run --split valid --json")["nats_per_token"].as_f64().unwrap();
    let dynamic = "--dynamic --dynamic-rate 1e-12 --dynamic-decay 0 --segment 1";
    let single =
        place.json_of(&format!("eval run --split valid --json {dynamic}"))["nats_per_token"].as_f64();
    assert!((stream - single.unwrap()).abs() < 1e-4, "{single:?} for {stream}");
}

#[test]
fn what_a_mixture_cannot_do_is_refused_by_name() {
    let place = Place::new();
    place.train(&format!("--out run {MIXTURE} --max-steps 2"));
    place.write("text", "To be");
    let output = place.rhn("compress run text --out text.rhn");
    assert_fails(&output, 4, &["has a mixture of softmaxes for its output", "A model with one softmax can"]);
    let train = |settings: &str, parts: &[&str]| {
        place.fails(&format!("train tiny.toml --out other {settings}"), 2, parts);
    };
    train("--set model.output.kind=mixture", &["needs model.output.components"]);
    train(
        "--set model.output={kind=\"mixture\",components=0}",
        &["model.output.components is 0, wanted 1 to 4096"],
    );
    train(
        "--set model.output.components=3",
        &["model.output.components is for model.output.kind = \"mixture\""],
    );
    train("--set train.dropout.components=0.1", &["train.dropout.components", "the output is a softmax"]);
    train(
        "--set model.embedding.size=3 --set model.output.tied=true",
        &["a tied output needs an embedding of the hidden size", "3 is not 8"],
    );
}
