//! `POST /v1/completions`: a request becomes jobs of the model's thread, their events become an answer or a stream.

mod answer;
mod assembly;
mod stream;

use super::App;
use super::engine::{Engine, Event, Job, Served};
use super::failure::Failure;
use super::http::Reply;
use super::request::{CompletionRequest, Given};
use crate::data::Text;
use crate::error::Error;
use crate::sample::SampleSettings;
use crate::sample::text::Prompt;
use assembly::Assembly;
use hyper::Response;
use hyper::body::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What every part of an answer says.
struct Head {
    id: String,
    created: u64,
    model: String,
}

/// A request whose prompts are tokens.
struct Prepared {
    prompts: Vec<(Prompt, Vec<usize>)>,
    /// Tokens of the prompts, without the start symbol.
    prompt_tokens: usize,
}

/// A request under way.
struct Running {
    head: Head,
    assembly: Assembly,
    events: UnboundedReceiver<Event>,
    limit: Duration,
    include_usage: bool,
}

/// Answers a request; refused ones are an error.
pub(super) async fn complete(app: Arc<App>, body: Bytes) -> Result<Response<Reply>, Failure> {
    let limits = app.limits.clone();
    let request = aside(move || CompletionRequest::parse(&body, &limits)).await?;
    let (name, asked) = app.models.get(request.model.as_deref()).await?;
    let served = asked.engine.served.clone();
    let most = app.limits.request_tokens;
    let longest = app.limits.prompt_tokens;
    let (request, prepared) = aside(move || {
        let prepared = Prepared::new(&request, &served, longest)?;
        let drawn = request.prompts.len() * request.n * request.max_tokens;
        check_size(prepared.prompt_tokens.saturating_add(drawn), most)?;
        Ok((request, prepared))
    })
    .await?;
    let head = Head { id: app.next_id(), created: super::now(), model: name };
    let stream = request.stream;
    let running = start(&app, head, &asked.engine, request, prepared)?;
    match stream {
        true => Ok(stream::stream(running)),
        false => answer::collect(running).await,
    }
}

/// Runs what may take a while where it holds nobody up.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::internal("reading the request failed")),
    }
}

fn check_size(tokens: usize, most: usize) -> Result<(), Failure> {
    if tokens <= most {
        return Ok(());
    }
    let message =
        format!("the prompts and max_tokens are up to {tokens} tokens together, wanted at most {most}");
    Err(Failure::field("prompt", message))
}

fn start(
    app: &App,
    head: Head,
    engine: &Engine,
    request: CompletionRequest,
    prepared: Prepared,
) -> Result<Running, Failure> {
    let tokenizer = &engine.served.tokenizer;
    let (sender, events) = unbounded_channel();
    let settings = SampleSettings {
        filters: request.filters.clone(),
        forbidden: tokenizer.unknown_id(),
        seed: request.seed.unwrap_or_else(super::random),
        ..SampleSettings::default()
    };
    let echoes = prepared
        .prompts
        .iter()
        .map(|(prompt, _)| request.echo.then(|| String::from_utf8_lossy(&prompt.text).into_owned()));
    let assembly = Assembly::new(echoes, request.n, request.logprobs, prepared.prompt_tokens);
    let end = tokenizer.end_id().filter(|_| !request.ignore_eos);
    let job = |(at, (prompt, offsets)): (usize, (Prompt, Vec<usize>))| Job {
        prompt,
        offsets,
        first: at * request.n,
        count: request.n,
        settings: settings.clone(),
        limit: request.max_tokens,
        stops: request.stops.clone(),
        end,
        top: request.logprobs,
        scores_prompt: request.echo && request.logprobs.is_some(),
        events: sender.clone(),
    };
    engine.submit(prepared.prompts.into_iter().enumerate().map(job).collect())?;
    let limit = app.limits.request_timeout;
    Ok(Running { head, assembly, events, limit, include_usage: request.include_usage })
}

impl Prepared {
    fn new(request: &CompletionRequest, served: &Served, longest: usize) -> Result<Self, Failure> {
        let tokenizer = &served.tokenizer;
        let mut prompts = Vec::with_capacity(request.prompts.len());
        let mut prompt_tokens = 0;
        for given in &request.prompts {
            let wants_offsets = request.echo && request.logprobs.is_some();
            let (prompt, offsets) = match given {
                Given::Text(text) => {
                    let prompt = Prompt::new(tokenizer, text.as_bytes()).map_err(|error| refused(&error))?;
                    (prompt, if wants_offsets { offsets(served, text)? } else { Vec::new() })
                }
                Given::Ids(ids) => {
                    let size = tokenizer.vocab_size();
                    if let Some(id) = ids.iter().find(|&&id| id as usize >= size) {
                        let message =
                            format!("prompt has the token id {id}, and the vocabulary ends at {}", size - 1);
                        return Err(Failure::field("prompt", message));
                    }
                    (Prompt::of_ids(tokenizer, ids), Vec::new())
                }
            };
            let tokens = prompt.context().len() - prompt.start();
            if tokens > longest {
                let message = format!("a prompt has {tokens} tokens, wanted at most {longest}");
                return Err(Failure::field("prompt", message));
            }
            prompt_tokens += tokens;
            prompts.push((prompt, offsets));
        }
        Ok(Self { prompts, prompt_tokens })
    }
}

/// Where each token of a text begins, in characters; what is left out between two belongs to the second. A part of a character
/// begins where the whole does.
fn offsets(served: &Served, text: &str) -> Result<Vec<usize>, Failure> {
    let mut offsets = Vec::new();
    let mut end = 0; // of the last stretch, in bytes
    let mut chars = 0; // before it
    let whole = Text::new(text.as_bytes().to_vec(), "the prompt");
    let cut = served.tokenizer.cut(&whole, |piece| {
        let begins_one = |byte: u8| byte & 0xc0 != 0x80;
        if piece.id.is_some() {
            let is_within_one = text.as_bytes().get(end).is_some_and(|&byte| !begins_one(byte));
            offsets.push(chars - usize::from(is_within_one));
        }
        let after = piece.span.end.max(end);
        chars += text.as_bytes()[end..after].iter().filter(|&&byte| begins_one(byte)).count();
        end = after;
    });
    cut.map_err(|error| refused(&error))?;
    Ok(offsets)
}

/// A text that the tokenizer refuses.
fn refused(error: &Error) -> Failure {
    Failure::field("prompt", error.to_string())
}
