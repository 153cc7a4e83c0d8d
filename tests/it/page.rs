//! The page of `rhn serve`: its files, what it asks the server for, and what it must never get.

use crate::support::run::{Place, stdout};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// A name that would be a script, were it ever taken for markup.
const HOSTILE: &str = "<script>alert(1)<&'\"";

/// `rhn serve` in a place, ended with the test.
struct Server {
    child: Child,
    address: String,
}

struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(place: &Place, args: &str) -> Self {
        let mut command = place.command(&format!("serve {args} --port 0 --device cpu --threads 2"));
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        let address = loop {
            let start = text.len();
            assert!(errors.read_line(&mut text).unwrap() > 0, "no server: {text}");
            if let Some((_, address)) = text[start..].trim().split_once("http://") {
                break address.to_string();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, address }
    }

    fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.into() }
    }

    fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "", "")
    }

    fn gates(&self, body: &Value) -> Answer {
        self.send("POST", "/page/gates", "Content-Type: application/json\r\n", &body.to_string())
    }
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The status, and a part of the error's message.
    #[track_caller]
    fn is_error(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        let body: Value = serde_json::from_str(&self.body).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}, wanted {part}");
    }

    /// The headers that bind a browser.
    #[track_caller]
    fn is_bound(&self) {
        for part in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(self.head.contains(part), "{part}: {}", self.head);
        }
    }
}

/// A part of an address with percent signs.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn names(list: &Value) -> Vec<(&str, &str)> {
    let runs = list["runs"].as_array().unwrap();
    runs.iter().map(|run| (run["name"].as_str().unwrap(), run["state"].as_str().unwrap())).collect()
}

#[test]
fn the_page_and_its_files_are_served_with_a_policy_that_binds_the_browser() {
    let place = Place::new();
    place.train("--out run --max-steps 1");
    let server = Server::start(&place, "run");
    let page = server.get("/");
    assert!(
        page.status == 200 && page.head.contains("content-type: text/html; charset=utf-8"),
        "{}",
        page.head
    );
    page.is_bound();
    let mut references = 0;
    for attribute in ["src=\"/", "href=\"/"] {
        for rest in page.body.split(attribute).skip(1) {
            let answer = server.get(&format!("/{}", rest.split('"').next().unwrap()));
            assert_eq!(answer.status, 200, "{rest}");
            answer.is_bound();
            references += 1;
        }
    }
    assert_eq!(references, 7); // the icon, the style, the script and what it imports
    assert!(
        !page.body.contains("<script>") && !page.body.contains("<style"),
        "no script or style in the page"
    );
    assert!(server.get("/page/app.js").head.contains("content-type: text/javascript"));
    assert_eq!(server.send("HEAD", "/", "", "").body, "");
    server.send("POST", "/", "", "").is_error(405, "GET");
    server.get("/page/").is_error(404, "nothing here");
    server.get("/page/../Cargo.toml").is_error(404, "nothing here");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("rhn_answers_total{path=\"/page/app.js\",status=\"200\"} 2\n"), "{metrics}");
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

#[test]
fn the_files_need_no_token_and_everything_else_does() {
    let place = Place::new();
    place.train("--out run");
    place.write("token", "a-secret\n");
    let server = Server::start(&place, "run --token-file token");
    for file in ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"] {
        assert_eq!(server.get(file).status, 200, "{file}");
    }
    let asked = ["/page/runs", "/page/curves.svg?run=run", "/page/compare?run=run", "/v1/models"];
    for target in asked {
        server.get(target).is_error(401, "TOKEN");
        assert_eq!(server.send("GET", target, "Authorization: Bearer wrong\r\n", "").status, 401);
        assert_eq!(
            server.send("GET", target, "Authorization: Bearer a-secret\r\n", "").status,
            200,
            "{target}"
        );
    }
    server.gates(&json!({"text": "to be"})).is_error(401, "TOKEN");
}
