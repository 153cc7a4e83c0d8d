//! Runs, curves and comparisons, as the page gets them.

use super::server::Server;
use crate::support::run::{Place, stdout};
use serde_json::{Value, json};

/// A name that would be a script, were it ever taken for markup.
const HOSTILE: &str = "<script>alert(1)<&'\"";

/// A part of an address with percent signs.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn names(list: &Value) -> Vec<(&str, &str)> {
    let runs = list["runs"].as_array().unwrap();
    runs.iter().map(|run| (run["name"].as_str().unwrap(), run["state"].as_str().unwrap())).collect()
}

#[test]
fn runs_are_listed_by_name_and_no_answer_names_a_directory() {
    let place = Place::new();
    let corpus = place.path("corpus.txt").display().to_string();
    place.train(&format!("--out all/done --set corpus.name={corpus}"));
    place.train("--out all/deep/live --max-steps 12 --set train.seed=3");
    std::fs::rename(place.path("all/done"), place.path("all").join(HOSTILE)).unwrap();
    place.write("all/odd/metrics.jsonl", "{\"event\":\"epoch\",\"epoch\":\"one\"}\n");
    let _held = rhn::storage::Lock::acquire(&place.path("all/deep/live")).unwrap();
    place.train("--out elsewhere/alone --max-steps 1");
    let server = Server::start(&place, "elsewhere/alone --runs all");
    let answer = server.get("/page/runs");
    answer.is_bound();
    let list = answer.json();
    let wanted =
        [("alone", "stopped"), (HOSTILE, "finished"), ("deep/live", "running"), ("odd", "unreadable")];
    assert_eq!(names(&list), wanted);
    assert_eq!(list["runs"][1]["corpus"], "…/corpus.txt");
    let result = place.json(&format!("all/{HOSTILE}/result.json"));
    assert_eq!(list["runs"][1]["test"], result["bits_per_char"]);
    let both = format!("run={}&run=deep%2Flive", encoded(HOSTILE));
    let answers = [
        answer,
        server.get(&format!("/page/compare?{both}")),
        server.get(&format!("/page/curves.svg?{both}")),
        server.get("/page/compare?run=odd"),
        server.gates(&json!({"model": "deep/live", "text": "to be"})),
    ];
    for answer in &answers {
        assert!(!answer.body.contains(&*place.path("").to_string_lossy()), "{}", answer.body);
        assert!(!answer.body.contains("elsewhere"), "{}", answer.body);
    }
    answers[3].is_error(422, "has no history");
    for outside in ["../elsewhere/alone", "deep", "deep/live/", "", "/etc", "elsewhere/alone"] {
        let answer = server.get(&format!("/page/compare?run={}", encoded(outside)));
        answer.is_error(404, "there is no run");
    }
}

#[test]
fn a_directory_that_is_a_run_itself_is_shown_by_its_name() {
    let place = Place::new();
    place.train("--out one --max-steps 12");
    let server = Server::start(&place, "one");
    assert_eq!(names(&server.get("/page/runs").json()), [("one", "stopped")]);
    assert_eq!(server.get("/page/compare?run=one").json()["runs"][0]["name"], "one");
}

#[test]
fn curves_are_the_pictures_of_rhn_plot_and_grow() {
    let place = Place::new();
    place.train("--out all/a");
    place.train("--out all/b --max-steps 200 --set train.seed=2");
    let server = Server::start(&place, "--runs all");
    let picture = |target: &str| {
        let answer = server.get(target);
        assert!(answer.head.contains("content-type: image/svg+xml"), "{}: {}", answer.head, answer.body);
        answer.is_bound();
        answer.body
    };
    let about = |svg: &str| svg.split("aria-label=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let without_about = |svg: &str| svg.replace(&about(svg), "");
    for (query, flags) in [
        ("", "--width 900 --height 450"),
        (
            "&measure=nats&x=time&split=both&width=640",
            "--y nats --x time --split both --width 640 --height 320",
        ),
    ] {
        place.rhn(&format!("plot all/a all/b --out wanted.svg {flags}"));
        let wanted = std::fs::read_to_string(place.path("wanted.svg")).unwrap();
        let found = picture(&format!("/page/curves.svg?run=a&run=b{query}"));
        assert_eq!(without_about(&found), without_about(&wanted), "{query}");
        assert!(about(&found).starts_with("Learning curves of a, b: "), "{}", about(&found));
    }
    let before = picture("/page/curves.svg?run=a");
    let metrics = std::fs::read_to_string(place.path("all/a/metrics.jsonl")).unwrap();
    let mut next = place.events("all/a", "epoch").pop().unwrap();
    next["epoch"] = 4.into();
    next["step"] = (next["step"].as_u64().unwrap() + 9).into();
    place.write("all/a/metrics.jsonl", format!("{metrics}{next}\n"));
    let points = |svg: &str| svg.matches("<circle").count();
    assert_eq!(points(&picture("/page/curves.svg?run=a")), points(&before) + 1);
}

#[test]
fn a_comparison_is_that_of_rhn_compare() {
    let place = Place::new();
    place.train("--out all/a");
    place.train("--out all/b --set train.seed=2");
    place.train("--out all/c --set model.core.hidden_size=7 --set corpus.name=./corpus.txt");
    let server = Server::start(&place, "--runs all");
    for (query, flags) in [("", ""), ("&measure=perplexity", "--measure perplexity")] {
        let output = place.rhn(&format!("compare all/a all/b all/c --json {flags}"));
        let mut wanted: Value = serde_json::from_str(&stdout(&output)).unwrap();
        wanted["differences"]["corpus.name"][2] = json!("…/corpus.txt"); // no directory
        let found = server.get(&format!("/page/compare?run=a&run=b&run=c{query}")).json();
        assert_eq!(found, wanted);
    }
}

#[test]
fn what_cannot_be_drawn_is_refused_with_a_reason() {
    let place = Place::new();
    place.train("--out all/a");
    place.train("--out all/young --max-steps 1");
    let server = Server::start(&place, "--runs all");
    for (target, status, part) in [
        ("/page/curves.svg", 400, "wanted 1 to 32 runs"),
        ("/page/compare?measure=nats", 400, "wanted 1 to 32 runs"),
        ("/page/curves.svg?run=b", 404, "there is no run"),
        ("/page/curves.svg?run=a&measure=bits", 400, "wanted one of perplexity, bits-per-char, nats"),
        ("/page/curves.svg?run=a&x=up", 400, "wanted one of epoch, step, tokens, time"),
        ("/page/curves.svg?run=a&split=all", 400, "wanted one of valid, train, both"),
        ("/page/curves.svg?run=a&width=100", 400, "wanted a number from 320 to 2000"),
        ("/page/curves.svg?run=a&x=time&x=step", 400, "given 2 times"),
        ("/page/curves.svg?run=a&log=1", 400, "is no part of this request"),
        ("/page/runs?dir=/etc", 400, "is no part of this request"),
        ("/page/curves.svg?run=young", 422, "nothing to draw yet"),
    ] {
        server.get(target).is_error(status, part);
    }
    let many = format!("/page/compare?{}", "run=a&".repeat(33));
    server.get(&many).is_error(400, "run is given 33 times");
    server.send("POST", "/page/runs", "", "").is_error(405, "GET");
}

#[test]
fn names_of_runs_stay_text() {
    let place = Place::new();
    place.train("--out all/a");
    std::fs::rename(place.path("all/a"), place.path("all").join(HOSTILE)).unwrap();
    let server = Server::start(&place, "--runs all");
    let svg = server.get(&format!("/page/curves.svg?run={}", encoded(HOSTILE))).body;
    assert!(svg.contains("&lt;script&gt;alert(1)&lt;&amp;'&quot;") && !svg.contains("<script"), "{svg}");
    let list = server.get("/page/runs");
    assert!(list.head.contains("content-type: application/json"), "{}", list.head);
    assert_eq!(list.json()["runs"][0]["name"], HOSTILE);
    let unknown = server.get(&format!("/page/curves.svg?run={}x", encoded(HOSTILE)));
    assert!(unknown.head.contains("content-type: application/json"), "{}", unknown.head);
    unknown.is_error(404, "<script>alert(1)");
}
