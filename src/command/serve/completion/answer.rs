//! An answer in one piece.

use super::super::engine::{Entry, Reason};
use super::super::failure::Failure;
use super::super::http::{Reply, json};
use super::Running;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

#[derive(Default)]
struct Choice {
    text: String,
    entries: Vec<Entry>,
    reason: Option<Reason>,
}

/// Waits for all choices to end.
pub(super) async fn collect(running: Running) -> Result<Response<Reply>, Failure> {
    let limit = running.limit;
    match tokio::time::timeout(limit, whole(running)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::timeout(limit.as_secs())),
    }
}

async fn whole(mut running: Running) -> Result<Response<Reply>, Failure> {
    let mut choices: Vec<Choice> = (0..running.assembly.len()).map(|_| Choice::default()).collect();
    while !running.assembly.is_over() {
        let Some(event) = running.events.recv().await else {
            return Err(Failure::internal("the model's thread has ended"));
        };
        for part in running.assembly.take(event).map_err(Failure::internal)? {
            let choice = &mut choices[part.choice];
            choice.text += &part.text;
            choice.entries.extend(part.entries);
            choice.reason = part.reason;
        }
    }
    let choice = |(index, choice): (usize, &Choice)| {
        json!({
            "index": index,
            "text": choice.text,
            "logprobs": running.assembly.logprobs(&choice.entries),
            "finish_reason": choice.reason.map(Reason::name),
        })
    };
    let choices: Vec<Value> = choices.iter().enumerate().map(choice).collect();
    let mut answer = running.head.json();
    answer["choices"] = choices.into();
    answer["usage"] = running.assembly.usage();
    Ok(json(StatusCode::OK, &answer))
}
