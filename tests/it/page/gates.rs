//! Gates at each token of a text, as the page gets them.

use super::server::Server;
use crate::support::run::Place;
use serde_json::{Value, json};

/// The weights stay zero but for the transform gates' biases, so each gate is the sigmoid of -2 at every token.
const UNTRAINED: &str = "--max-steps 1 --set train.init_scale=1e-9 --set train.learning_rate=1e-12";

#[test]
fn gates_of_a_model_of_zeros_are_the_sigmoid_of_their_bias() {
    let place = Place::new();
    place.train(&format!("--out one {UNTRAINED} --set train.dropout.input=0"));
    let server = Server::start(&place, "one");
    let text = "to be ,\nor".repeat(20); // 200 tokens are two windows
    let found = server.gates(&json!({"text": text})).json();
    assert_eq!((&found["object"], &found["model"]), (&json!("gates"), &json!("one")));
    let tokens: String =
        found["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(tokens, text);
    let stages = found["stages"].as_array().unwrap();
    assert_eq!((stages.len(), &stages[0]["name"]), (1, &json!("sublayers of a time step")));
    assert_eq!(stages[0]["carry"], json!([]));
    let gates: Vec<Vec<f64>> = serde_json::from_value(stages[0]["transform"].clone()).unwrap();
    assert_eq!(gates.iter().map(Vec::len).collect::<Vec<_>>(), [200, 200]);
    let wanted = 1.0 / (1.0 + 2f64.exp());
    assert!(gates.iter().flatten().all(|gate| (gate - wanted).abs() < 1e-5), "{gates:?}, wanted {wanted}");
}

#[test]
fn gates_follow_the_text_and_do_not_see_what_comes_after() {
    let place = Place::new();
    place.train("--out one --set train.learning_rate=0.3 --set model.core.layers=2");
    let server = Server::start(&place, "one");
    let gates = |text: &str| -> Vec<Vec<Vec<f64>>> {
        let found = server.gates(&json!({"text": text, "model": "one"})).json();
        let stages = found["stages"].as_array().unwrap().iter();
        stages.map(|stage| serde_json::from_value(stage["transform"].clone()).unwrap()).collect()
    };
    let whole = gates("to be , or not");
    assert_eq!((whole.len(), whole[0].len(), whole[0][0].len()), (2, 2, 14));
    let part = gates("to be");
    for (whole, part) in whole.iter().flatten().zip(part.iter().flatten()) {
        assert_eq!(whole[..5], part[..]);
    }
    let other = gates("qu be");
    assert!(other[0][0][..2] != part[0][0][..2] && other != part, "{other:?}");
}

#[test]
fn words_keep_their_spelling_and_carry_gates_of_their_own_are_given() {
    let place = Place::new();
    let word = "--set corpus.unit=word --set corpus.unknown=true --set model.core.shared_gates=both";
    place.train(&format!("--out one {word} {UNTRAINED}"));
    let server = Server::start(&place, "one");
    let found = server.gates(&json!({"text": "to be <script> or\nnot"})).json();
    let tokens =
        [("to", false), ("be", false), ("<script>", true), ("or", false), ("\n", false), ("not", false)];
    let wanted: Vec<Value> = tokens.map(|(text, unknown)| json!({"text": text, "unknown": unknown})).to_vec();
    let spelled = found["tokens"].as_array().unwrap();
    assert_eq!(spelled.len(), wanted.len(), "{found}");
    for (found, wanted) in spelled.iter().zip(&wanted) {
        assert_eq!(found["unknown"], wanted["unknown"], "{found}");
        assert_eq!(found["text"].as_str().unwrap().trim(), wanted["text"].as_str().unwrap().trim());
    }
    let stage = &found["stages"][0];
    for gate in ["transform", "carry"] {
        let rows: Vec<Vec<f64>> = serde_json::from_value(stage[gate].clone()).unwrap();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6], "{gate}");
    }
}

#[test]
fn texts_that_cannot_be_read_and_models_without_gates_say_so() {
    let place = Place::new();
    place.train("--out all/a --max-steps 1");
    place.train("--out all/lstm --max-steps 1 --set model.core={kind=\"lstm\",hidden_size=8}");
    let server = Server::start(&place, "all/a --runs all --max-body 4096");
    for (body, status, part) in [
        (json!({"model": "lstm", "text": "to be"}), 400, "no sublayers with transform gates"),
        (json!({"model": "b", "text": "to be"}), 404, "there is no model"),
        (json!({"model": "a"}), 400, "text is missing"),
        (json!({"model": "a", "text": ""}), 400, "0 tokens"),
        (json!({"model": "a", "text": 7}), 400, "wanted a text"),
        (json!({"model": "a", "text": "to be", "per": "word"}), 400, "no field"),
        (json!({"model": "a", "text": "t".repeat(2001)}), 400, "2001 tokens, wanted 1 to 2000"),
        (json!({"model": "a", "text": "t".repeat(5000)}), 413, "4096 bytes"),
        (json!([]), 400, "JSON object"),
    ] {
        let answer = server.gates(&body);
        answer.is_error(status, part);
        answer.is_bound();
    }
    server
        .send("POST", "/page/gates", "Content-Type: text/plain\r\n", "{}")
        .is_error(415, "application/json");
    server.send("GET", "/page/gates", "", "").is_error(405, "POST");
    let longest = server.gates(&json!({"model": "a", "text": "t".repeat(2000)})).json();
    assert_eq!(longest["tokens"].as_array().unwrap().len(), 2000);
}
