//! `POST /v1/completions`: what a client asks for, each field checked by name.

mod fields;
mod prompt;

pub(super) use fields::{Fields, Object};
pub(super) use prompt::{Given, Prompts};

use super::Limits;
use super::failure::Failure;
use crate::sample::distribution::Filters;
use serde::Deserialize;
use serde_json::Value;

/// Likeliest tokens that may be asked for, as at OpenAI.
const MOST_LOGPROBS: u64 = 5;

/// Strings that may end a text, and bytes of one.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;

/// Tokens that are drawn unless the client says, as at OpenAI.
const MAX_TOKENS: u64 = 16;

/// A request for completions.
#[derive(Clone, Debug)]
pub(super) struct CompletionRequest {
    pub(super) model: Option<String>,
    pub(super) prompts: Vec<Given>,
    pub(super) max_tokens: usize,
    pub(super) echo: bool,
    pub(super) logprobs: Option<usize>,
    /// Samples of each prompt.
    pub(super) n: usize,
    pub(super) stops: Vec<String>,
    /// Whether `<eos>` does not end a text.
    pub(super) ignore_eos: bool,
    /// None: another one for each request.
    pub(super) seed: Option<u64>,
    pub(super) filters: Filters,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    prompt: Prompts,
    #[serde(flatten)]
    rest: Object,
}

impl CompletionRequest {
    /// Reads the body of a request.
    pub(super) fn parse(body: &[u8], limits: &Limits) -> Result<Self, Failure> {
        let Body { prompt: Prompts(prompts), rest } = serde_json::from_slice(body).map_err(|error| {
            let message = error.to_string();
            match message.contains("prompt") {
                true => Failure::field("prompt", message),
                false => Failure::body(format!("the body is no JSON object as wanted: {message}")),
            }
        })?;
        let mut fields = Fields::new(rest);
        let model = fields.string("model")?;
        let echo = fields.flag("echo")?;
        let max_tokens = fields.count("max_tokens", 0, limits.max_tokens as u64)?.unwrap_or(MAX_TOKENS);
        if max_tokens == 0 && !echo {
            return Err(Failure::field(
                "max_tokens",
                "max_tokens is 0, wanted 1 or more unless echo is true",
            ));
        }
        let n = fields.count("n", 1, limits.max_choices as u64)?.unwrap_or(1);
        let stream = fields.flag("stream")?;
        let request = Self {
            model,
            prompts,
            max_tokens: max_tokens as usize,
            echo,
            logprobs: fields.count("logprobs", 0, MOST_LOGPROBS)?.map(|count| count as usize),
            n: n as usize,
            stops: fields.strings("stop", MOST_STOPS, LONGEST_STOP)?,
            ignore_eos: fields.flag("ignore_eos")?,
            seed: fields.seed("seed")?,
            filters: filters(&mut fields)?,
            stream,
            include_usage: stream_options(&mut fields, stream)?,
        };
        neutral(&mut fields, n)?;
        fields.finish()?;
        let choices = request.prompts.len().saturating_mul(request.n);
        if choices > limits.max_choices {
            let message = format!(
                "{} prompts with n {n} are {choices} choices, wanted at most {}",
                request.prompts.len(),
                limits.max_choices
            );
            return Err(Failure::field("prompt", message));
        }
        Ok(request)
    }
}

fn filters(fields: &mut Fields) -> Result<Filters, Failure> {
    let none = Filters::default();
    let top_k = fields.top_k("top_k")?;
    Ok(Filters {
        temperature: fields.number("temperature", 0.0..=100.0)?.unwrap_or(none.temperature),
        top_k: top_k.unwrap_or(none.top_k),
        top_p: fields.number("top_p", f64::MIN_POSITIVE..=1.0)?.unwrap_or(none.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(none.min_p),
        repetition_penalty: fields
            .number("repetition_penalty", 0.01..=100.0)?
            .unwrap_or(none.repetition_penalty),
    })
}

/// Whether a stream ends with the counts of tokens.
fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, Failure> {
    let Some(options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(Failure::field("stream_options", "stream_options is given, and stream is not true"));
    }
    let mut options = Fields::new(options);
    let usage = options.flag("include_usage")?;
    options.neutral("include_obfuscation", &[Value::Bool(false)])?;
    options.finish()?;
    Ok(usage)
}

/// Fields of the interface that are accepted where they change nothing.
fn neutral(fields: &mut Fields, n: u64) -> Result<(), Failure> {
    let zero = [Value::from(0), Value::from(0.0)];
    fields.neutral("best_of", &[Value::from(n)])?;
    fields.neutral("presence_penalty", &zero)?;
    fields.neutral("frequency_penalty", &zero)?;
    fields.neutral("logit_bias", &[Value::Object(Default::default())])?;
    fields.neutral("suffix", &[Value::from("")])?;
    fields.neutral("min_tokens", &zero)?;
    fields.neutral("use_beam_search", &[Value::Bool(false)])?;
    fields.any("user");
    fields.any("metadata");
    Ok(())
}
