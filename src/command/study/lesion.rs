//! `rhn study lesion`: what a model loses when layers are left out, exchanged, shuffled or repeated.

use super::images::ImageSubject;
use super::subject::{Subject, SubjectArgs, report_directory};
use crate::command::output::{Meter, json_line, note};
use crate::command::runs;
use crate::error::Result;
use crate::eval::perplexity::batched;
use crate::model::stages;
use crate::readable::{or_dash, perplexity};
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::lesion::{self, Asked, Cost, Intervention, Mild, Outcome, Reading, Trained, mild};
use crate::study::markdown;
use serde::Serialize;

const AFTER_HELP: &str = "\
Every layer of every stage is left out in turn: a highway layer of a char CNN, or a sublayer of an
RHN at all its time steps; it then carries what it receives. An RHN's first sublayer alone reads the
input, so leaving it out leaves the words out, and it keeps its place. Nothing is trained again. The
perplexities are those of `rhn eval --protocol batched`, the ratio is to the untouched model's.

Examples:
  rhn study lesion checkpoints/shakespeare
  rhn study lesion checkpoints/shakespeare --swap --repeat
  rhn study lesion checkpoints/ptb-rhn --shuffle 20 --tokens 20000";

/// Perplexity when a layer is left out, exchanged, shuffled or repeated
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) subject: SubjectArgs,
    /// Also exchange each layer with the next
    #[arg(long)]
    swap: bool,
    /// Also apply the last layer two, three and four times
    #[arg(long)]
    repeat: bool,
    /// Also put the layers in R random orders; needs four that can change places
    #[arg(long, value_name = "R", default_value_t = 0)]
    shuffle: usize,
    /// What the random orders are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// What `result.json` holds.
#[derive(Serialize)]
struct Found<'a> {
    study: &'static str,
    corpus: &'a str,
    split: &'a str,
    protocol: &'static str,
    tokens: u64,
    seed: u64,
    untouched: Outcome,
    interventions: Vec<Outcome>,
    mild: Vec<Mild>,
}

/// Evaluates, prints and keeps. Fails if the checkpoint or its corpus is refused, or the untouched model gives numbers
/// that are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(subject) = args.subject.open_images()? {
        return run_images(args, &subject);
    }
    let subject = args.subject.open()?;
    let found = study(args, &subject)?;
    note_no_swap(args, &found);
    let directory = args.subject.directory(&subject, "lesion")?;
    keep(&directory, &found)?;
    draw(&directory, &found, Cost::Perplexity, args.subject.png)?;
    if args.subject.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&(subject.describe(found.tokens) + &table(&found)))?;
    }
    report_directory(&directory);
    Ok(())
}

/// Says if no stage had two layers that `--swap` could exchange: the first of a time step reads the input, and stays.
fn note_no_swap(args: &Args, found: &Found<'_>) {
    if args.swap && !found.interventions.iter().any(|outcome| outcome.intervention == "exchanged") {
        note("--swap: no stage has two neighbouring layers that can change places");
    }
}

/// The same of a net that classifies images: its loss is over all images of the split, the training images unless another
/// is asked for, as in the papers.
fn run_images(args: &Args, subject: &ImageSubject) -> anyhow::Result<()> {
    let stages = stages(subject.model.config());
    let asked = Asked { swap: args.swap, repeat: args.repeat, shuffles: args.shuffle, seed: args.seed };
    let mut interventions = asked.interventions(&stages)?;
    interventions.retain(|intervention| !intervention.order.is_empty()); // a net has at least a layer
    let names = subject.names();
    let tensors = subject.tensors()?;
    let trained = Trained {
        config: subject.model.config(),
        tensors: &tensors,
        precision: subject.model.precision(),
        device: subject.model.device(),
    };
    let meter = Meter::new("evaluating");
    let mut progress = |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let none = Intervention::none(stages[0]);
    let untouched = trained.evaluate_images(&none, names, &subject.images, &mut progress)?;
    let outcomes = Outcome::all(
        &interventions,
        &untouched,
        &|intervention, progress| trained.evaluate_images(intervention, names, &subject.images, progress),
        &mut progress,
    )?;
    drop(meter);
    let found = Found {
        study: "lesion",
        corpus: names[0],
        split: names[1],
        protocol: "images",
        tokens: untouched.tokens,
        seed: args.seed,
        untouched: Outcome::new(&none, &untouched, &untouched),
        mild: mild(&stages, &interventions, &outcomes),
        interventions: outcomes,
    };
    note_no_swap(args, &found);
    let directory = subject.directory("lesion")?;
    keep(&directory, &found)?;
    draw(&directory, &found, Cost::Nats, args.subject.png)?;
    if args.subject.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&(subject.describe() + &image_table(&found)))?;
    }
    report_directory(&directory);
    Ok(())
}

/// The losses in nats, since a net may give its labels nearly all probability.
fn image_table(found: &Found<'_>) -> String {
    let head = ["intervention", "layers", "nats an image", "times the untouched"].map(String::from);
    let row = |outcome: &Outcome| {
        vec![
            outcome.intervention.clone(),
            outcome.layers.clone(),
            outcome.nats_per_token.map_or_else(|| "–".into(), |nats| format!("{nats:.3e}")),
            or_dash(outcome.ratio, 2),
        ]
    };
    let rows: Vec<_> = std::iter::once(&found.untouched).chain(&found.interventions).map(row).collect();
    let mut text = markdown::table(&head, &rows);
    for Mild { mild, layers, .. } in &found.mild {
        text += &format!(
            "\n{mild} of {layers} layers cost less than a quarter of the loss when they are left out\n"
        );
    }
    text
}

fn study<'a>(args: &Args, subject: &'a Subject) -> Result<Found<'a>> {
    let stages = subject.stages();
    let asked = Asked { swap: args.swap, repeat: args.repeat, shuffles: args.shuffle, seed: args.seed };
    let interventions = asked.interventions(&stages)?;
    subject.batches()?; // too short a text is refused by the flags of a study
    let split = subject.split();
    let train = &subject.recipe.train;
    let reading = Reading { split: &split, batch: train.batch_size, steps: train.bptt_steps };
    let meter = Meter::new("evaluating");
    let mut progress = |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let model = &subject.loaded.model;
    let untouched = batched(model, &split, reading.batch, reading.steps, &mut progress)?;
    let tensors = subject.tensors()?;
    let trained = Trained {
        config: model.config(),
        tensors: &tensors,
        precision: model.precision(),
        device: model.device(),
    };
    let outcomes = Outcome::all(
        &interventions,
        &untouched,
        &|intervention, progress| trained.evaluate(intervention, reading, progress),
        &mut progress,
    )?;
    Ok(Found {
        study: "lesion",
        corpus: &subject.corpus,
        split: subject.split.as_str(),
        protocol: "batched",
        tokens: untouched.tokens,
        seed: args.seed,
        untouched: Outcome::new(&Intervention::none(stages[0]), &untouched, &untouched),
        mild: mild(&stages, &interventions, &outcomes),
        interventions: outcomes,
    })
}

fn keep(directory: &StudyDirectory, found: &Found<'_>) -> Result<()> {
    let head =
        ["stage", "intervention", "layers", "order", "perplexity", "nats_per_token", "ratio", "kendall_tau"];
    let row = |outcome: &Outcome| {
        let order: Vec<String> = outcome.order.iter().map(ToString::to_string).collect();
        let names = [&outcome.stage, &outcome.intervention, &outcome.layers].map(Clone::clone);
        let figures = [outcome.perplexity, outcome.nats_per_token, outcome.ratio, outcome.kendall_tau];
        names.into_iter().chain([order.join(" ")]).chain(figures.map(tsv_number)).collect::<Vec<_>>()
    };
    let rows: Vec<_> = std::iter::once(&found.untouched).chain(&found.interventions).map(row).collect();
    directory.write_table("interventions", &head, &rows)?;
    directory.write_result(found)
}

/// A picture of what each layer is worth, and if there are random orders one of those.
fn draw(directory: &StudyDirectory, found: &Found<'_>, cost: Cost, png: bool) -> Result<()> {
    let Found { untouched, interventions, .. } = found;
    directory.write_figure("lesion", &lesion::removals(untouched, interventions, cost), png)?;
    if let Some(figure) = lesion::orders(untouched, interventions, cost) {
        directory.write_figure("shuffle", &figure, png)?;
    }
    Ok(())
}

/// A table of all interventions, and how many removals of each stage are mild.
fn table(found: &Found<'_>) -> String {
    let shuffled = found.interventions.iter().any(|outcome| outcome.kendall_tau.is_some());
    let mut head = vec!["intervention", "stage", "layers", "perplexity", "ratio"];
    head.extend(shuffled.then_some("Kendall's tau"));
    let head: Vec<String> = head.into_iter().map(String::from).collect();
    let row = |outcome: &Outcome| {
        let shown = outcome.nats_per_token.filter(|_| outcome.perplexity.is_some());
        let mut row = vec![
            outcome.intervention.clone(),
            outcome.stage.clone(),
            outcome.layers.clone(),
            shown.map_or_else(|| "–".into(), |nats| perplexity(nats, 2)),
            or_dash(outcome.ratio, 3),
        ];
        row.extend(shuffled.then(|| or_dash(outcome.kendall_tau, 2)));
        row
    };
    let mut untouched = row(&found.untouched);
    untouched[1] = "–".into();
    let rows: Vec<_> = std::iter::once(untouched).chain(found.interventions.iter().map(row)).collect();
    let mut text = format!("\n{}\n", markdown::table(&head, &rows));
    for Mild { stage, mild, layers } in &found.mild {
        text += &format!("{stage}: {mild} of {layers} cost less than 25 % when left out\n");
    }
    let mut reasons: Vec<&String> =
        found.interventions.iter().filter_map(|one| one.absent.as_ref()).collect();
    reasons.dedup();
    for reason in reasons {
        text += &format!("no figure where there is a dash: {reason}\n");
    }
    text
}
