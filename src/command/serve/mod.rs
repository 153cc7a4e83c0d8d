//! `rhn serve`: models over HTTP, by the completions interface of OpenAI.

mod completion;
mod engine;
mod failure;
mod http;
mod limits;
mod metrics;
mod models;
mod page;
mod pool;
mod request;
mod routes;
mod score;

use super::args::DeviceArgs;
use super::output::note;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::signals::Signals;
use limits::{LimitArgs, Limits};
use metrics::Metrics;
use models::Models;
use page::Runs;
use rhn_kernels::threads;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const AFTER_HELP: &str = "\
GET / is a page for the browser: runs, samples, scores, gates.

GET /v1/models, /health, /metrics, /openapi.json; POST /v1/completions, as OpenAI has it, with
echo, logprobs, stop, seed, stream and several prompts; POST /v1/score, the rows of rhn score
--json. docs/serve.md has the fields. The same prompt, settings and seed give the text of rhn
sample, alone or beside other requests (on the CPU, in f32).

SIGINT and SIGTERM let what runs end, and then end the server with exit code 0.

Examples:
  rhn serve checkpoints/shakespeare
  rhn serve --runs checkpoints --port 9000                    every checkpoint below, by its name
  rhn serve checkpoints/ptb-rhn --host 0.0.0.0 --token-file token.txt
  curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"shakespeare\", \"prompt\": \"ROMEO:\", \"max_tokens\": 100, \"seed\": 1}'";

/// How often is looked whether a signal asks to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Texts that are scored at once.
const SCORES: usize = 2;

/// Threads that read requests and score texts.
const BLOCKING: usize = 8;

/// Serve models over HTTP: the completions interface of OpenAI, and scores
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: Option<PathBuf>,
    /// Serve every language model below DIR by its name; it is loaded when it is first asked for
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Listen at this address; any but a loopback one needs --token-file
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Listen at this port; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// A file with a token that every request must bring: Authorization: Bearer TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What all requests share.
struct App {
    models: Models,
    runs: Arc<Runs>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    /// The hash of the token.
    token: Option<String>,
    scores: Arc<Semaphore>,
    /// Answers so far, and what makes their names those of this process.
    answers: AtomicU64,
    process: u64,
}

impl App {
    fn next_id(&self) -> String {
        format!("cmpl-{:016x}{:08x}", self.process, self.answers.fetch_add(1, Ordering::Relaxed))
    }
}

/// Serves until a signal asks to stop. Fails if a checkpoint is refused, the address cannot be listened at, or it is open
/// to others without a token.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.checkpoint.is_none() && args.runs.is_none() {
        return Err(
            Error::config("rhn serve needs a CHECKPOINT, or --runs DIR with checkpoints below it").into()
        );
    }
    let address = address(&args.host, args.port)?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    if !address.ip().is_loopback() && token.is_none() {
        let what = format!(
            "--host {} can be reached by other machines: give --token-file, or listen at 127.0.0.1",
            args.host
        );
        return Err(Error::config(what).into());
    }
    // The threads of the products, which no thread of this command is one of: they must be free for the models' threads.
    threads::start(args.device.threads.count())?;
    let signals = Signals::listen()?;
    let limits = Arc::new(args.limits.limits());
    let metrics = Arc::new(Metrics::default());
    let checkpoint = args.checkpoint.as_deref();
    let models = Models::open(checkpoint, args.runs.as_deref(), &args.device, &limits, &metrics)?;
    let runs = Arc::new(Runs::open(checkpoint, args.runs.as_deref())?);
    let app = App {
        models,
        runs,
        limits,
        metrics,
        token,
        scores: Arc::new(Semaphore::new(SCORES)),
        answers: AtomicU64::new(0),
        process: random(),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().enable_time().max_blocking_threads(BLOCKING).build();
    let runtime = runtime.map_err(Error::io("the server"))?;
    let outcome = runtime.block_on(listen(Arc::new(app), address, signals));
    runtime.shutdown_background(); // what is still computed is for nobody
    Ok(outcome?)
}

async fn listen(app: Arc<App>, address: SocketAddr, signals: Signals) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(Error::io(address.to_string()))?;
    let bound = listener.local_addr().map_err(Error::io(address.to_string()))?;
    note(&format!("serving {} at http://{bound}", app.models.names().join(", ")));
    let limits = app.limits.clone();
    let metrics = app.metrics.clone();
    let answer = move |request| routes::answer(app.clone(), request);
    http::serve(listener, answer, &limits, metrics, asked_to_stop(signals)).await;
    Ok(())
}

async fn asked_to_stop(signals: Signals) {
    while signals.received().is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Where to listen. Fails if the host has no address.
fn address(host: &str, port: u16) -> Result<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let unknown = || Error::config(format!("--host {host} has no address"));
    (host, port).to_socket_addrs().map_err(|_| unknown())?.next().ok_or_else(unknown)
}

/// The hash of the token in a file. Fails if the file cannot be read or has no token.
fn read_token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "wanted one token of visible ASCII characters, say from `openssl rand -hex 32`";
        return Err(Error::config(format!("{}: {what}", path.display())));
    }
    Ok(sha256(token.as_bytes()))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A number that is another one each time.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
