//! `POST /v1/completions`: the texts of `rhn sample`, the numbers of `rhn score`, and everything between.

use super::{lines, served};
use serde_json::{Value, json};

const PROMPT: &str = "To be , or not";

fn texts(answer: &Value) -> Vec<&str> {
    answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

fn close(found: &Value, wanted: f64) -> bool {
    (found.as_f64().unwrap() - wanted).abs() < 1e-5
}

#[test]
fn a_text_is_that_of_rhn_sample_alone_and_beside_sixteen_others() {
    for unit in ["char", "word", "bpe", "byte"] {
        let (run, server) = served(unit, &[]);
        let request = |seed: usize| {
            json!({"prompt": PROMPT, "max_tokens": 30 + 5 * seed, "n": 2, "seed": seed, "temperature": 0.9,
                   "top_p": 0.95, "top_k": 30, "min_p": 0.001, "repetition_penalty": 1.1, "stop": ["tion\nthat"],
                   "ignore_eos": true})
        };
        let sampled = |seed: usize| {
            let flags = format!(
                "--tokens {} --samples 2 --seed {seed} --temperature 0.9 --top-p 0.95 --top-k 30 --min-p 0.001 \
                 --repetition-penalty 1.1",
                30 + 5 * seed
            );
            let mut arguments = vec!["--prompt", PROMPT, "--stop", "tion\nthat"];
            arguments.extend(flags.split(' '));
            let rows = lines(&run, "sample", &arguments);
            rows.iter().map(|row| row["text"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        let alone: Vec<Value> = (0..16).map(|seed| server.complete(&request(seed))).collect();
        for seed in [0, 7] {
            assert_eq!(texts(&alone[seed]), sampled(seed), "{unit}, seed {seed}");
        }
        std::thread::scope(|scope| {
            let server = &server;
            let running: Vec<_> =
                (0..16).map(request).map(|body| scope.spawn(move || server.complete(&body))).collect();
            for (together, alone) in running.into_iter().zip(&alone) {
                assert_eq!(texts(&together.join().unwrap()), texts(alone), "{unit}");
            }
        });
        assert_ne!(texts(&alone[1])[0], texts(&alone[1])[1]); // two samples of one prompt
    }
}

#[test]
fn the_prompt_s_logarithms_are_those_of_rhn_score() {
    for unit in ["char", "word", "bpe", "byte"] {
        let (run, server) = served(unit, &[]);
        let text = "To be , or not to be :\nthat is";
        std::fs::write(run.path("text"), text).unwrap();
        let file = run.path("text").display().to_string();
        let mut rows = lines(&run, "score", &[&file, "--base", "e"]);
        rows.pop(); // the totals
        if unit == "word" {
            rows.pop(); // the end of the last line, which a prompt has not
        }
        let request = json!({"prompt": text, "max_tokens": 0, "echo": true, "logprobs": 2});
        let answer = server.complete(&request);
        let choice = &answer["choices"][0];
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(text), &json!("length")));
        let logprobs = &choice["logprobs"];
        assert_eq!(logprobs["tokens"].as_array().unwrap().len(), rows.len(), "{unit}");
        for (at, row) in rows.iter().enumerate() {
            assert!(
                close(&logprobs["token_logprobs"][at], -row["surprisal"].as_f64().unwrap()),
                "{unit} {row}"
            );
            let top = logprobs["top_logprobs"][at].as_object().unwrap();
            let own = logprobs["tokens"][at].as_str().unwrap();
            assert!((2..=3).contains(&top.len()) && top[own] == logprobs["token_logprobs"][at]);
            if unit != "word" {
                assert_eq!(logprobs["text_offset"][at], row["start"], "{unit}");
            }
        }
        let joined: String =
            logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(joined, text);
        // The same as token ids.
        let ids: Vec<&Value> = rows.iter().map(|row| &row["id"]).collect();
        let same = server.complete(&json!({"prompt": ids, "max_tokens": 0, "echo": true, "logprobs": 2}));
        assert_eq!(same["choices"], answer["choices"], "{unit}");
        assert_eq!(same["usage"]["prompt_tokens"], rows.len());
    }
}

#[test]
fn a_part_of_a_character_begins_where_the_whole_does() {
    let (_run, server) = served("byte", &[]);
    let answer = server.complete(&json!({"prompt": "“é”a", "max_tokens": 0, "echo": true, "logprobs": 0}));
    let offsets = &answer["choices"][0]["logprobs"]["text_offset"];
    let known = offsets.as_array().unwrap().len();
    // Bytes that the vocabulary lacks are one token each.
    assert!(known == 9 && *offsets == json!([0, 0, 0, 1, 1, 2, 2, 2, 3]), "{offsets}");
}

/// As lm_eval asks: ids that begin with the line end, one token more than they are.
#[test]
fn echoed_ids_have_one_entry_each_and_one_for_the_token_drawn() {
    let (run, server) = served("word", &[]);
    std::fs::write(run.path("text"), "To be , or not to be :").unwrap();
    let file = run.path("text").display().to_string();
    let rows = lines(&run, "score", &[&file, "--base", "e"]);
    let ids: Vec<u64> = rows.iter().filter_map(|row| row["id"].as_u64()).collect();
    let line_end = *ids.last().unwrap();
    let with_start = [&[line_end], &ids[..]].concat();
    let answer = server.complete(&json!({
        "model": "run", "prompt": [with_start, &ids[..3], [line_end]], "temperature": 0, "max_tokens": 1,
        "logprobs": 1, "seed": 1234, "echo": true,
    }));
    let choices = answer["choices"].as_array().unwrap();
    for (choice, count) in choices.iter().zip([ids.len() + 1, 3, 1]) {
        for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(choice["logprobs"][key].as_array().unwrap().len(), count + 1, "{key}");
        }
    }
    let found = &choices[0]["logprobs"];
    assert_eq!((&found["token_logprobs"][0], &found["top_logprobs"][0]), (&Value::Null, &Value::Null));
    for (at, row) in rows[..ids.len()].iter().enumerate() {
        assert!(close(&found["token_logprobs"][at + 1], -row["surprisal"].as_f64().unwrap()), "{row}");
    }
    assert!(choices[1]["logprobs"]["token_logprobs"][0].is_f64()); // it follows the line end that is read before it
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": ids.len() + 5, "completion_tokens": 3, "total_tokens": ids.len() + 8})
    );
}

#[test]
fn choices_come_in_the_order_of_the_prompts_and_each_has_its_own_draws() {
    let (_run, server) = served("char", &[]);
    let ask = |prompt: Value, n: usize| {
        server.complete(&json!({"prompt": prompt, "n": n, "seed": 3, "max_tokens": 12, "best_of": n}))
    };
    let both = ask(json!(["To", "that is"]), 3);
    assert_eq!(texts(&both), [texts(&ask(json!("To"), 3)), texts(&ask(json!("that is"), 3))].concat());
    let index = |choice: &Value| choice["index"].as_u64().unwrap();
    assert_eq!(Vec::from_iter(both["choices"].as_array().unwrap().iter().map(index)), [0, 1, 2, 3, 4, 5]);
    assert_eq!(both["usage"], json!({"prompt_tokens": 9, "completion_tokens": 72, "total_tokens": 81}));
    assert_eq!(texts(&ask(json!("To"), 1))[0], texts(&both)[0]);
    let other = |answer: Value| texts(&answer)[0].to_string();
    let unseeded = || other(server.complete(&json!({"prompt": "To", "max_tokens": 40})));
    assert_ne!(unseeded(), unseeded());
    // Nothing, no text and no ids are the same: the start of a line.
    let empty = [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": null}),
        json!({"prompt": []}),
        json!({"prompt": [[]]}),
    ]
    .map(|mut body| {
        body["seed"] = json!(1);
        other(server.complete(&body))
    });
    assert!(empty.iter().all(|text| *text == empty[0] && text.chars().count() == 16), "{empty:?}");
}

#[test]
fn a_text_ends_before_a_stop_string_or_after_a_line_and_the_tokens_with_it() {
    let (_run, server) = served("char", &[]);
    let body = json!({"prompt": "To", "seed": 5, "max_tokens": 200, "logprobs": 0});
    let whole = server.complete(&body);
    let whole = texts(&whole)[0];
    let stop: String = whole.chars().skip(20).take(3).collect();
    let wanted = whole.split(&stop).next().unwrap();
    for stop in [json!(stop), json!(["☃", stop])] {
        let mut body = body.clone();
        body["stop"] = stop;
        let answer = server.complete(&body);
        let choice = &answer["choices"][0];
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(wanted), &json!("stop")));
        assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), wanted.chars().count());
        assert_eq!(choice["logprobs"]["top_logprobs"], Value::Null);
    }
    // A vocabulary with <eos> ends there unasked.
    let (_run, server) = served("word", &[]);
    let mut body = json!({"prompt": "To", "seed": 5, "max_tokens": 200, "logprobs": 0});
    let ended = server.complete(&body);
    body["ignore_eos"] = json!(true);
    let whole = server.complete(&body);
    let (line, _) = texts(&whole)[0].split_once('\n').unwrap();
    assert_eq!((texts(&ended)[0], &ended["choices"][0]["finish_reason"]), (line, &json!("stop")));
    assert_eq!(ended["choices"][0]["logprobs"]["tokens"].as_array().unwrap().last(), Some(&json!("\n")));
}

#[test]
fn a_stream_is_the_answer_in_parts() {
    for unit in ["char", "byte", "word"] {
        let (_run, server) = served(unit, &[]);
        let mut body = json!({"prompt": ["To be", "that"], "n": 2, "seed": 2, "max_tokens": 40, "logprobs": 1,
                              "echo": true, "ignore_eos": true});
        let whole = server.complete(&body);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let answer = server.post("/v1/completions", &body);
        assert!(
            answer.status == 200 && answer.head.contains("content-type: text/event-stream"),
            "{answer:?}"
        );
        let mut events = answer.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        let mut events: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let last = events.pop().unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])));
        let mut texts = vec![String::new(); 4];
        let mut offsets = vec![Vec::new(); 4];
        let mut reasons = vec![Value::Null; 4];
        for event in &events {
            assert_eq!((&event["usage"], &event["id"]), (&Value::Null, &last["id"]));
            let choice = &event["choices"][0];
            let index = choice["index"].as_u64().unwrap() as usize;
            assert_eq!(reasons[index], Value::Null, "nothing follows the end");
            texts[index] += choice["text"].as_str().unwrap();
            if let Some(more) = choice["logprobs"]["text_offset"].as_array() {
                offsets[index].extend(more.clone());
            }
            reasons[index] = choice["finish_reason"].clone();
        }
        assert!(events.len() > 40, "{}", events.len());
        for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
            assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(texts[index]), &reasons[index]));
            assert_eq!(choice["logprobs"]["text_offset"], json!(offsets[index]));
        }
    }
}

#[test]
fn fields_that_would_change_the_text_and_are_not_there_are_refused_by_name() {
    let (_run, server) = served("char", &["--max-tokens", "50", "--max-prompt-tokens", "20"]);
    let wrong = [
        ("max_tokens", json!(51)),
        ("max_tokens", json!("5")),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(1.5)),
        ("prompt", json!([null, 1])),
        ("prompt", json!([[1, null]])),
        ("prompt", json!([99999])),
        ("prompt", json!(-3)),
        ("prompt", json!("x".repeat(21))),
        ("prompt", json!(vec!["x"; 129])),
        ("n", json!(0)),
        ("n", json!(129)),
        ("logprobs", json!(6)),
        ("logprobs", json!(true)),
        ("echo", json!("yes")),
        ("stop", json!(vec!["a"; 17])),
        ("stop", json!([1])),
        ("stop", json!("a".repeat(1025))),
        ("seed", json!("x")),
        ("temperature", json!(-0.1)),
        ("temperature", json!("hot")),
        ("top_p", json!(0)),
        ("top_p", json!(1.01)),
        ("top_k", json!(-2)),
        ("min_p", json!(2)),
        ("repetition_penalty", json!(0)),
        ("stream", json!(1)),
        ("stream_options", json!({"include_usage": true})),
        ("best_of", json!(2)),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-1)),
        ("logit_bias", json!({"50256": -100})),
        ("suffix", json!("end")),
        ("model", json!(3)),
        ("temprature", json!(1)),
    ];
    for (name, value) in wrong {
        let answer = server.post("/v1/completions", &json!({ name: value }));
        let error = answer.error();
        assert_eq!(
            (answer.status, &error["param"], &error["type"]),
            (400, &json!(name), &json!("invalid_request_error")),
            "{value}: {error}"
        );
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    let hint = server.post("/v1/completions", &json!({"temprature": 1})).error();
    assert!(hint["message"].as_str().unwrap().contains("did you mean temperature?"), "{hint}");
    let neutral = json!({"user": "me", "logit_bias": null, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0,
        "suffix": null, "stop": null, "seed": null, "temperature": null, "n": null, "stream": false, "top_k": -1,
        "logprobs": null, "max_tokens": 3, "metadata": {"a": "b"}, "stream_options": null, "foo": null, "echo": false,
        "logit_bias": {}, "min_p": 0, "best_of": null});
    assert_eq!(server.complete(&neutral)["usage"]["completion_tokens"], 3);
    let unknown = server.post("/v1/completions", &json!({"model": "gpt-3"}));
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &json!("model_not_found")));
}
