//! `rhn rescore`: the best hypothesis of each n-best list, with a model's scores among the others.

use super::args::DeviceArgs;
use super::output::{Meter, Treatment, json_line, load, note, note_unseen};
use super::score::cell;
use crate::error::{Error, Result};
use crate::eval::nbest::{
    Costs, Format, Hypothesis, NBest, Tuned, Weights, WordErrors, distances, read_kaldi, read_lists,
    read_references, tune,
};
use crate::eval::sentences::{ROWS, Sentence, score_sentences};
use crate::predict::Loaded;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
The best hypothesis of a list has the highest total, in nats:
  acoustic-scale * acoustic + old-weight * old + weight * LP - word-penalty * words
LP is the sum of ln p by the model of the hypothesis read by itself, its line end included, as rhn judge has it. What the
other two are depends on the format; costs count with a minus:
  tsv    lines id<TAB>score<TAB>text: the score, a natural logarithm, is `acoustic`; there is no `old`
  kaldi  words_text (lines `utterance-N words`), or the directory that it is in; `acoustic` from acwt and `old` from
         lmwt.withlm beside it (lines `utterance-N cost`), as nbest-to-linear writes them
  srilm  a file an utterance, or a directory of them: NBestList1.0 and 2.0 (bytelogs, all `acoustic`), or
         lines `ascore lscore nwords words` (base 10)

--tune takes the weight and the word penalty with the fewest word errors on other lists, from a grid; what is given
by a flag stays as it is. References are lines of an id and the words.

Columns: id, rank (in its list, from 1), total, acoustic, old, lp, text. Word error rates go to the standard error:
of the first hypotheses as they were, of the best ones, and of those nearest to the references (the oracle).
--json ends with a line of totals.

Examples:
  rhn rescore checkpoints/ptb-rhn test.tsv --weight 0.5 --references text
  rhn rescore checkpoints/ptb-rhn archives.1 --format kaldi --acoustic-scale 0.1 --old-weight 0.5 --weight 0.5
  rhn rescore checkpoints/ptb-rhn test.tsv --tune dev.tsv --references dev.text --references test.text";

/// Rescore n-best lists: the best hypothesis of each, by a model's score beside those that it has
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// Lists, packed or not; - is the standard input
    #[arg(value_name = "NBEST", required = true)]
    lists: Vec<PathBuf>,
    /// How lists are written
    #[arg(long, value_enum, default_value = "tsv")]
    format: Format,
    /// Kaldi's acoustic costs of NBEST [default: acwt beside it]
    #[arg(long, value_name = "FILE")]
    ac_cost: Option<PathBuf>,
    /// Kaldi's costs of graph and language model of NBEST [default: lmwt.withlm beside it]
    #[arg(long, value_name = "FILE")]
    lm_cost: Option<PathBuf>,
    /// The weight of this model's LP [default: 0.5, or what --tune finds]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    weight: Option<f64>,
    /// Nats that each word costs [default: 0, or what --tune finds]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    word_penalty: Option<f64>,
    /// The weight of the acoustic score
    #[arg(long, value_name = "X", default_value = "1", allow_negative_numbers = true)]
    acoustic_scale: f64,
    /// The weight of the language model that the lists were made with
    #[arg(long, value_name = "X", default_value = "1", allow_negative_numbers = true)]
    old_weight: f64,
    /// Lists to tune on, in the same format
    #[arg(long, value_name = "NBEST", requires = "references")]
    tune: Vec<PathBuf>,
    /// What was said
    #[arg(long, value_name = "FILE")]
    references: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each list, and one of totals at the end
    #[arg(long)]
    json: bool,
}

/// Used where nothing else is asked for.
const WEIGHT: f64 = 0.5;

/// Rescores and prints. Fails if the checkpoint or a list is refused, a reference is missing, or the model gives numbers that
/// are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let given = Weights {
        acoustic_scale: args.acoustic_scale,
        old_weight: args.old_weight,
        weight: args.weight.unwrap_or(WEIGHT),
        word_penalty: args.word_penalty.unwrap_or(0.0),
    };
    given.validate()?;
    refuse_what_conflicts(args)?;
    let references = read_references(&args.references)?;
    let mut lists = read(args, &args.lists, true)?;
    let mut development = read(args, &args.tune, false)?;
    check_references(&development, &references, true)?;
    // References that are for the lists to tune on alone are no mistake.
    let must = args.tune.is_empty() && !args.references.is_empty();
    let has_references = check_references(&lists, &references, must)?;
    if !has_references && !args.references.is_empty() {
        note("--references has none of these lists: no word error rate is known");
    }
    let loaded = load(&args.checkpoint, &args.device)?;
    let unknown = score(&loaded, [&mut lists, &mut development])?;
    let treatment = Treatment::in_text(&loaded.tokenizer, loaded.model.reads_any_string());
    note_unseen(unknown, "the lists", treatment);
    let tuned = (!args.tune.is_empty())
        .then(|| tune(&development, &references, given, args.weight, args.word_penalty));
    let weights = tuned.map_or(given, |tuned| tuned.weights);
    check_totals(&lists, &weights)?;
    let rates = has_references.then(|| Rates::new(&lists, &references, &weights));
    report(tuned.as_ref(), rates.as_ref());
    let out = BufWriter::new(io::stdout().lock());
    Ok(print(args.json, &lists, &weights, tuned.as_ref(), rates.as_ref(), out)?)
}

fn refuse_what_conflicts(args: &Args) -> Result<()> {
    let costs = args.ac_cost.is_some() || args.lm_cost.is_some();
    if costs && (args.format != Format::Kaldi || args.lists.len() > 1) {
        return Err(Error::config("--ac-cost and --lm-cost are for one NBEST with --format kaldi"));
    }
    let files = args.lists.iter().chain(&args.tune).chain(&args.references).chain(&args.ac_cost);
    if files.chain(&args.lm_cost).filter(|file| *file == Path::new("-")).count() > 1 {
        return Err(Error::config("the standard input (-) can be read once only, it is asked for twice"));
    }
    Ok(())
}

/// The lists of all files; an utterance that is in two is refused.
fn read(args: &Args, paths: &[PathBuf], given_costs: bool) -> Result<Vec<NBest>> {
    let costs = Costs { acoustic: args.ac_cost.as_deref(), language: args.lm_cost.as_deref() };
    let mut lists: Vec<NBest> = Vec::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let read = match args.format {
            Format::Kaldi if given_costs => read_kaldi(path, costs)?,
            format => read_lists(path, format)?,
        };
        for list in read {
            if let Some(first) = seen.insert(list.id.clone(), path) {
                let what = format!("has a list of {:?}, and so has {}", list.id, first.display());
                return Err(Error::data(path, what));
            }
            lists.push(list);
        }
    }
    Ok(lists)
}

/// Whether the lists have references: all have one, or, unless they `must`, none.
fn check_references(lists: &[NBest], references: &BTreeMap<String, String>, must: bool) -> Result<bool> {
    let missing: Vec<&NBest> = lists.iter().filter(|list| !references.contains_key(&list.id)).collect();
    match missing.first() {
        None => Ok(!lists.is_empty()),
        Some(_) if missing.len() == lists.len() && !must => Ok(false),
        Some(list) => Err(Error::config(format!(
            "--references has no line of {:?}: wanted one for each of the {} lists, {} have none",
            list.id,
            lists.len(),
            missing.len()
        ))),
    }
}

/// Refuses weights with which a total is no number.
fn check_totals(lists: &[NBest], weights: &Weights) -> Result<()> {
    for list in lists {
        let total = list.hypotheses.iter().map(|hypothesis| weights.total(hypothesis));
        if let Some(wrong) = total.into_iter().find(|total| !total.is_finite()) {
            return Err(Error::config(format!(
                "a total of {:?} is {wrong}: --weight, --word-penalty, --acoustic-scale or --old-weight is too large",
                list.id
            )));
        }
    }
    Ok(())
}

/// Fills in LP; gives the symbols that the vocabulary lacks. Fails if a hypothesis has no token that anything predicts.
fn score(loaded: &Loaded, all: [&mut Vec<NBest>; 2]) -> Result<u64> {
    let [lists, development] = all;
    let mut hypotheses: Vec<&mut Hypothesis> =
        lists.iter_mut().chain(development).flat_map(|list| &mut list.hypotheses).collect();
    let cut = |hypothesis: &&mut Hypothesis| Sentence::cut(&hypothesis.text, &loaded.tokenizer);
    let sentences = hypotheses.iter().map(cut).collect::<Result<Vec<_>>>()?;
    let meter = Meter::new("rescoring");
    let context = loaded.tokenizer.line_end_id();
    if context.is_none() {
        note("the vocabulary has no line end: the first token of each hypothesis has no score");
    }
    let progress = &mut |done, all| {
        meter.set(done, all);
        Ok(())
    };
    let scores = score_sentences(&loaded.model, context, &sentences, ROWS, progress)?;
    for (hypothesis, score) in hypotheses.iter_mut().zip(scores) {
        if score.tokens == 0 {
            return Err(Error::config(format!(
                "the hypothesis {:?} has no score: nothing predicts a first token, as the vocabulary has no line end, and it has no second one",
                hypothesis.text
            )));
        }
        hypothesis.lp = score.lp;
    }
    Ok(sentences.iter().map(|sentence| sentence.unseen).sum())
}

/// Word errors of three choices from the same lists.
#[derive(Clone, Copy, Serialize)]
struct Rates {
    first: WordErrors,
    rescored: WordErrors,
    oracle: WordErrors,
}

impl Rates {
    fn new(lists: &[NBest], references: &BTreeMap<String, String>, weights: &Weights) -> Self {
        let zero = WordErrors::default();
        let mut rates = Self { first: zero, rescored: zero, oracle: zero };
        for list in lists {
            let Some(reference) = references.get(&list.id) else { continue };
            let (errors, words) = distances(list, reference);
            rates.first.add(errors[0], words);
            rates.rescored.add(errors[weights.best(list)], words);
            rates.oracle.add(errors.iter().copied().min().unwrap_or(0), words);
        }
        rates
    }
}

/// Prints what was tuned, and the word error rates, beside the result.
fn report(tuned: Option<&Tuned>, rates: Option<&Rates>) {
    if let Some(Tuned { weights, errors, trials }) = tuned {
        note(&format!(
            "--weight {} --word-penalty {} has {} on the lists to tune on, the fewest of {trials} trials",
            weights.weight,
            weights.word_penalty,
            shown(errors)
        ));
    }
    if let Some(Rates { first, rescored, oracle }) = rates {
        note(&format!(
            "word errors: {} rescored, {} of the first hypotheses, {} of the oracle",
            shown(rescored),
            shown(first),
            shown(oracle)
        ));
    }
}

fn shown(errors: &WordErrors) -> String {
    let share = errors.rate().map_or_else(|| "–".to_owned(), |rate| format!("{:.2} %", 100.0 * rate));
    format!("{share} ({} of {} words)", errors.errors, errors.words)
}

/// The best of a list.
#[derive(Serialize)]
struct BestRow<'a> {
    event: &'static str,
    id: &'a str,
    rank: usize,
    hypotheses: usize,
    total: f64,
    acoustic: f64,
    old: f64,
    lp: f64,
    text: &'a str,
}

/// The last line of JSON.
#[derive(Serialize)]
struct Total<'a> {
    event: &'static str,
    lists: usize,
    /// Lists whose best is not their first.
    changed: usize,
    #[serde(flatten)]
    weights: &'a Weights,
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<WordErrors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    word_errors: Option<&'a Rates>,
    /// Of the best hypotheses.
    #[serde(skip_serializing_if = "Option::is_none")]
    word_error_rate: Option<f64>,
}

fn print(
    json: bool,
    lists: &[NBest],
    weights: &Weights,
    tuned: Option<&Tuned>,
    rates: Option<&Rates>,
    mut out: impl Write,
) -> io::Result<()> {
    if !json {
        writeln!(out, "id\trank\ttotal\tacoustic\told\tlp\ttext")?;
    }
    let mut changed = 0;
    for list in lists {
        let at = weights.best(list);
        changed += usize::from(at > 0);
        let row = best_row(list, at, weights);
        if json {
            json_line(&mut out, &row)?;
        } else {
            let numbers = [row.total, row.acoustic, row.old, row.lp].map(|number| format!("{number:.6}"));
            writeln!(out, "{}\t{}\t{}\t{}", cell(row.id), row.rank, numbers.join("\t"), cell(row.text))?;
        }
    }
    if json {
        let total = Total {
            event: "total",
            lists: lists.len(),
            changed,
            weights,
            tuned: tuned.map(|tuned| tuned.errors),
            word_errors: rates,
            word_error_rate: rates.and_then(|rates| rates.rescored.rate()),
        };
        json_line(&mut out, &total)?;
    }
    out.flush()
}

fn best_row<'a>(list: &'a NBest, at: usize, weights: &Weights) -> BestRow<'a> {
    let best = &list.hypotheses[at];
    BestRow {
        event: "best",
        id: &list.id,
        rank: at + 1,
        hypotheses: list.hypotheses.len(),
        total: weights.total(best),
        acoustic: best.acoustic,
        old: best.old,
        lp: best.lp,
        text: &best.text,
    }
}
