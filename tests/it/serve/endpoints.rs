//! What is there beside completions.

use super::server::Server;
use super::{lines, served};
use crate::cli::Run;
use crate::support::run::{assert_fails, wait_until};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn models_health_counters_and_the_description_are_there_and_nothing_else() {
    let (_run, server) = served("char", &[]);
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("run")));
    assert_eq!(server.get("/v1/models/run").json(), models["data"][0]);
    assert_eq!(server.get("/v1/models/nobody").error()["code"], "model_not_found");
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    assert!(server.get("/openapi.json").json()["paths"]["/v1/completions"].is_object());
    for path in [
        "/index.html",
        "/tokenizer_info",
        "/v1/chat/completions",
        "/v1/models/",
        "/v1/completions/",
        "/../etc/passwd",
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, &answer.error()["code"]), (404, &json!("not_found")), "{path}");
    }
    for (method, path, allowed) in [
        ("GET", "/v1/completions", "allow: post"),
        ("DELETE", "/v1/models", "allow: get, head"),
        ("POST", "/health", "allow: get, head"),
    ] {
        let answer = server.send(method, path, "", "");
        assert_eq!((answer.status, &answer.error()["code"]), (405, &json!("method_not_allowed")));
        assert!(answer.head.contains(allowed), "{answer:?}");
    }
    let head = server.send("HEAD", "/health", "", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    server.complete(&json!({"prompt": "To be", "max_tokens": 7}));
    assert_eq!((server.metric("rhn_drawn_tokens_total"), server.metric("rhn_prompt_tokens_total")), (7, 6));
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("rhn_answers_total{path=\"other\",status=\"404\"} 6\n"), "{metrics}");
    assert!(metrics.contains("rhn_answers_total{path=\"/v1/completions\",status=\"200\"} 1\n"), "{metrics}");
}

#[test]
fn scores_are_the_rows_of_rhn_score() {
    for unit in ["char", "word"] {
        let (run, server) = served(unit, &[]);
        let text = "To be , or é not\nto be\n\nthat is \"the\" question";
        std::fs::write(run.path("text"), text).unwrap();
        let file = run.path("text").display().to_string();
        for (per, base, given) in [
            ("token", "2", json!("2")),
            ("word", "e", json!("e")),
            ("line", "10", json!(10)),
            ("document", "2", json!(null)),
        ] {
            let mut wanted = lines(&run, "score", &[&file, "--per", per, "--base", base]);
            if per == "document" {
                wanted[0]["file"] = json!("text"); // its name is nobody's business
            }
            let body = json!({"text": text, "per": per, "base": given, "model": "run"});
            let answer = server.post("/v1/score", &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            let total = wanted.pop().unwrap();
            assert_eq!(
                answer.json(),
                json!({"object": "score", "model": "run", "rows": wanted, "total": total})
            );
        }
        let wrong = [
            ("per", json!("letter")),
            ("base", json!(3)),
            ("text", json!(1)),
            ("foo", json!(1)),
            ("boundary", json!("trailing")), // is of words
        ];
        for (name, value) in wrong {
            let mut body = json!({"text": "To"});
            body[name] = value;
            let answer = server.post("/v1/score", &body);
            assert_eq!((answer.status, &answer.error()["param"]), (400, &json!(name)));
        }
        assert_eq!(server.post("/v1/score", &json!({})).error()["param"], "text");
    }
}

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let (run, server) = served("char", &[]);
    // Clients that were given none send the header with nothing after it.
    for header in
        ["Authorization: Bearer \r\n", "Authorization: Bearer\r\n", "Authorization: Basic x\r\n", ""]
    {
        assert_eq!(server.send("GET", "/v1/models", header, "").status, 200, "{header:?}");
    }
    std::fs::write(run.path("token"), "s3cret-token\n").unwrap();
    let checkpoint = run.checkpoint();
    let file = run.path("token").display().to_string();
    let server = Server::start(&[&checkpoint, "--token-file", &file]);
    let status = |path: &str, header: &str| server.send("GET", path, header, "").status;
    assert_eq!(status("/health", ""), 200);
    for header in [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer s3cret\r\n",
        "Authorization: s3cret-token\r\n",
    ] {
        for path in ["/v1/models", "/metrics", "/openapi.json", "/nothing"] {
            assert_eq!(status(path, header), 401, "{path} {header:?}");
        }
    }
    let answer = server.send("POST", "/v1/completions", "Content-Type: application/json\r\n", "{}");
    assert_eq!((answer.status, &answer.error()["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(status("/v1/models", "Authorization: Bearer s3cret-token\r\n"), 200);
    assert_eq!(status("/v1/models", "authorization: bearer s3cret-token\r\n"), 200);
}

/// Copies a run's model to a directory.
fn copy(run: &Run, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(run.checkpoint()).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn several_models_are_served_by_name_and_loaded_when_they_are_asked_for() {
    let words = Run::new("word", 0.5);
    let chars = Run::new("char", 0.5);
    let place = tempfile::tempdir().unwrap();
    let copy = |run: &Run, to: &str| copy(run, &place.path().join(to));
    copy(&words, "words");
    copy(&chars, "more/chars");
    copy(&chars, "broken");
    std::fs::write(place.path().join("broken/model.safetensors"), "no").unwrap();
    copy(&words, "judge"); // no language model, which is not listed
    let config = place.path().join("judge/config.json");
    let mut judge: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    judge["classifier"] = json!({"pooling": "max", "bidirectional": true});
    std::fs::write(&config, judge.to_string()).unwrap();
    copy(&chars, "exported"); // which another library reads
    let config = place.path().join("exported/config.json");
    let mut exported: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    exported["architectures"] = json!(["RhnForCausalLM"]);
    std::fs::write(&config, exported.to_string()).unwrap();
    let server = Server::start(&["--runs", place.path().to_str().unwrap()]);
    let list = server.get("/v1/models").json();
    let names: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["broken", "more/chars", "words"]);
    let left_out = server.errors();
    assert!(
        left_out.contains("they are no language models") && left_out.contains(": exported, judge\n"),
        "{left_out}"
    );
    let runs =
        std::process::Command::new(env!("CARGO_BIN_EXE_rhn")).arg("runs").arg(place.path()).output().unwrap();
    let runs = String::from_utf8(runs.stdout).unwrap();
    assert!(runs.contains("more/chars") && !runs.contains("exported"), "{runs}");
    let clash = std::process::Command::new(env!("CARGO_BIN_EXE_rhn"))
        .args(["serve", "--runs", place.path().join("more").to_str().unwrap()])
        .arg({
            copy(&words, "other/chars");
            place.path().join("other/chars")
        })
        .output()
        .unwrap();
    assert_fails(&clash, 2, &["chars: ", "has a model of this name too"]);
    let ask = |model: &str| {
        let body = json!({"model": model, "prompt": "To", "seed": 1, "max_tokens": 9, "ignore_eos": true});
        server.complete(&body)["choices"][0]["text"].as_str().unwrap().to_string()
    };
    for (run, name) in [(&words, "words"), (&chars, "more/chars")] {
        let wanted = &lines(run, "sample", &["--prompt", "To", "--tokens", "9"])[0]["text"];
        assert_eq!([ask(name), ask(name)], [wanted.as_str().unwrap(); 2]);
    }
    let nameless = server.post("/v1/completions", &json!({"prompt": "To"}));
    assert_eq!((nameless.status, &nameless.error()["param"]), (400, &json!("model")));
    let broken = server.post("/v1/completions", &json!({"model": "broken"}));
    assert_eq!((broken.status, &broken.error()["code"]), (503, &json!("model_unavailable")));
    let path = place.path().to_str().unwrap();
    assert!(!broken.body.contains(path), "{broken:?}");
    wait_until("the reason is on the standard error", || server.errors().contains(path));
    let judges = tempfile::tempdir().unwrap();
    std::fs::rename(place.path().join("judge"), judges.path().join("judge")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rhn"))
        .args(["serve", "--runs", judges.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_fails(&output, 3, &["none of the checkpoints below it is a language model: judge"]);
}

#[test]
fn no_more_models_stay_than_may_and_the_one_asked_for_longest_ago_goes() {
    let run = Run::new("char", 0.5);
    let place = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        copy(&run, &place.path().join(name));
    }
    let (runs, checkpoint) = (place.path().to_str().unwrap(), run.checkpoint());
    let flags = ["--runs", runs, "--max-models", "2", "--max-tokens", "20000"];
    let server = Server::start(&[&[checkpoint.as_str()], flags.as_slice()].concat());
    let wanted = server.complete(&json!({"prompt": "To", "seed": 1, "max_tokens": 9}))["choices"].clone();
    assert_eq!(server.metric("rhn_models_loaded"), 0); // the checkpoint is none of them
    let ask = |model: &str| {
        let answer = server.complete(&json!({"model": model, "prompt": "To", "seed": 1, "max_tokens": 9}));
        assert_eq!(answer["choices"], wanted, "{model}");
        server.metric("rhn_models_loaded")
    };
    assert_eq!([ask("a"), ask("b"), ask("a"), ask("c")], [1, 2, 2, 2]); // b has gone
    let body = json!({"model": "a", "prompt": "To", "max_tokens": 20_000, "stream": true});
    let running = std::thread::scope(|scope| {
        let stream = scope.spawn(|| server.post("/v1/completions", &body).events());
        wait_until("it runs", || server.metric("rhn_choices_running") > 0);
        assert_eq!([ask("b"), ask("c"), ask("b")], [2, 2, 2]); // a goes while it works
        stream.join().unwrap()
    });
    assert_eq!(running.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(ask("a"), 2);
    assert_eq!(server.get("/health").status, 200);
}
