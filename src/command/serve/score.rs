//! `POST /v1/score`: the rows of `rhn score --json` of a text.

use super::super::score::{Base, Per, Reset, Settings, score_text};
use super::App;
use super::failure::Failure;
use super::http::{Reply, text};
use super::request::{Fields, Object};
use crate::data::Text;
use crate::error::Error;
use clap::ValueEnum;
use hyper::Response;
use hyper::body::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a client asks for.
struct ScoreRequest {
    model: Option<String>,
    text: String,
    settings: Settings,
}

impl ScoreRequest {
    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let fields: Object = serde_json::from_slice(body)
            .map_err(|error| Failure::body(format!("the body is no JSON object as wanted: {error}")))?;
        let mut fields = Fields::new(fields);
        let model = fields.string("model")?;
        let Some(text) = fields.string("text")? else {
            return Err(Failure::field("text", "text is missing, wanted the text to score"));
        };
        let per = choice(&mut fields, "per")?.unwrap_or(Per::Token);
        let boundary = choice(&mut fields, "boundary")?;
        if boundary.is_some() && per != Per::Word {
            return Err(Failure::field("boundary", "boundary is for per = \"word\""));
        }
        let settings = Settings {
            per,
            reset: choice(&mut fields, "reset")?.unwrap_or(Reset::Document),
            boundary: boundary.unwrap_or_default(),
            base: choice(&mut fields, "base")?.unwrap_or(Base::Two),
            cache: None,
            json: true,
            several: false,
        };
        fields.finish()?;
        Ok(Self { model, text, settings })
    }
}

/// One of the names that the command line knows, if the client gave one.
fn choice<T: ValueEnum>(fields: &mut Fields, name: &'static str) -> Result<Option<T>, Failure> {
    let Some(given) = fields.name(name)? else { return Ok(None) };
    T::from_str(&given, false).map(Some).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_string()).collect();
        let shown: String = given.chars().take(40).collect();
        Failure::field(name, format!("{name} is {shown:?}, wanted one of {}", names.join(", ")))
    })
}

/// Says that the client has left, when the request is dropped.
struct Leaves(Arc<AtomicBool>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Scores beside the model's thread: the products of both take their turns.
pub(super) async fn score(app: Arc<App>, body: Bytes) -> Result<Response<Reply>, Failure> {
    let request = ScoreRequest::parse(&body)?;
    drop(body);
    let (name, model) = app.models.get(request.model.as_deref()).await?;
    let left = Arc::new(AtomicBool::new(false));
    let _leaves = Leaves(left.clone());
    let most = app.limits.request_tokens;
    let work = async {
        let Ok(permit) = app.scores.clone().acquire_owned().await else {
            return Err(Failure::internal("the server stops"));
        };
        let served = model.engine.served.clone();
        let rows = tokio::task::spawn_blocking(move || {
            let _permit = permit; // until the work is over, also where nobody waits for it any more
            let tokens = served.tokenizer.encode(&Text::new(request.text.as_bytes().to_vec(), "the text"));
            let tokens = tokens.map_err(|error| Failure::field("text", error.to_string()))?.tokens.len();
            if tokens > most {
                let message = format!("the text has {tokens} tokens, wanted at most {most}");
                return Err(Failure::field("text", message));
            }
            let mut rows = Vec::new();
            let bytes = request.text.as_bytes();
            score_text(&served.model, &served.tokenizer, bytes, request.settings, left, &mut rows)
                .map_err(|error| failed(&error))?;
            Ok(rows)
        });
        rows.await.unwrap_or_else(|_| Err(Failure::internal("scoring failed")))
    };
    match tokio::time::timeout(app.limits.request_timeout, work).await {
        Ok(rows) => Ok(answer(&name, &rows?)),
        Err(_) => Err(Failure::timeout(app.limits.request_timeout.as_secs())),
    }
}

fn failed(error: &anyhow::Error) -> Failure {
    match error.downcast_ref::<Error>() {
        Some(Error::Data { .. }) => Failure::field("text", error.to_string()),
        _ => Failure::internal(error.to_string()),
    }
}

/// The rows as they are, the last of them the totals.
fn answer(model: &str, rows: &[u8]) -> Response<Reply> {
    let lines: Vec<&[u8]> = rows.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (total, rows) = lines.split_last().map_or((&b"null"[..], &[][..]), |(total, rows)| (*total, rows));
    let model = json!(model).to_string();
    let parts = [&b"{\"object\":\"score\",\"model\":"[..], model.as_bytes(), b",\"rows\":["];
    let end = [&b"],\"total\":"[..], total, b"}"];
    text("application/json", [parts.concat(), rows.join(&b","[..]), end.concat()].concat())
}
