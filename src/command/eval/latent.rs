//! `rhn eval` of a sentence VAE.

use super::super::output::{Meter, Treatment, json_line, note, note_unseen};
use super::{Args, Protocol};
use crate::checkpoint::Checkpoint;
use crate::config::Unit;
use crate::data::items::Items;
use crate::data::{Chosen, TrainedOn};
use crate::error::Error;
use crate::eval::Evaluation;
use crate::eval::latent::{LatentFigures, LatentSettings, UNUSED, evaluate};
use crate::eval::refine::{Covariance, Refinement};
use crate::predict::LoadedVae;
use crate::readable::{or_dash, perplexity};
use crate::run::console::Shown;
use crate::sample::sentences::SentenceWriter;
use crate::signals::Signals;
use crate::study::kept;
use crate::task::vae::sentence_end;
use anyhow::Result;
use std::io::{Write, stdout};

/// The bound of a sentence VAE on the sentences that were asked for, those of several texts together.
pub(super) fn run(args: &Args, checkpoint: Checkpoint) -> Result<()> {
    let settings = settings(args)?;
    let refinement = refinement_of(args)?;
    let (device, precision) = args.device.open()?;
    let loaded = LoadedVae::new(checkpoint, precision, &device)?;
    let recipe = loaded.recipe()?;
    let line_end = sentence_end(&loaded.tokenizer)?;
    let writer = SentenceWriter::new(&loaded.model, &loaded.tokenizer)?;
    let with_gradients = match refinement {
        None => None,
        Some(_) => Some(loaded.checkpoint().sentence_vae_with_gradients(precision, &device)?),
    };
    let refinement = with_gradients.as_ref().zip(refinement);
    let covariance = args.refine_covariance;
    let refinement = refinement.map(|(model, (steps, rate))| Refinement { model, steps, rate, covariance });
    let settings = LatentSettings { refinement, ..settings };
    let signals = Signals::listen()?;
    let texts = texts(args, &loaded, &recipe.corpus)?;
    let mut items = Items::default();
    let mut oov_tokens = 0;
    for Chosen { corpus, text, .. } in &texts {
        let encoded = loaded.tokenizer.encode(text)?;
        note_unseen(encoded.unseen, corpus, Treatment::of(&loaded.tokenizer));
        items.append(Items::of(&encoded.tokens, line_end, recipe.corpus.longest_sentence));
        oov_tokens += encoded.unseen;
    }
    let several = format!("{} files", texts.len());
    let [name, split] = match texts.as_slice() {
        [only] => [only.corpus.as_str(), only.split.as_str()],
        _ => [several.as_str(), "all"],
    };
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        signals.check()
    };
    let mut found = evaluate(&writer, [name, split], &items, settings, progress)?;
    found.oov_tokens = oov_tokens;
    drop(meter);
    print(args.json, loaded.tokenizer.unit(), &found)?;
    if args.keep {
        kept::keep(loaded.checkpoint(), &found)?;
    }
    Ok(())
}

/// What is measured. Fails if a flag is for language models, or nothing would be drawn.
fn settings(args: &Args) -> Result<LatentSettings<'static>> {
    let text_only = [
        ("--mc", args.mc.is_some()),
        ("--per", args.per.is_some()),
        ("--protocol batched", matches!(args.protocol, Protocol::Batched)),
    ];
    if let Some((flag, _)) = text_only.into_iter().chain(args.adapt.given()).find(|(_, given)| *given) {
        let what = format!("{flag} is for language models, and this checkpoint is a sentence VAE");
        return Err(Error::config(what).into());
    }
    match args.samples {
        Some(0) => Err(Error::config("--samples 0 draws no vector: wanted 1 or more").into()),
        samples => Ok(LatentSettings {
            samples: samples.unwrap_or(1),
            seed: args.seed.unwrap_or(1),
            rebuilds: true,
            refinement: None,
        }),
    }
}

/// Steps and rate of a refinement that was asked for.
fn refinement_of(args: &Args) -> Result<Option<(usize, f64)>> {
    let Some(steps) = args.refine else { return Ok(None) };
    if steps == 0 {
        return Err(Error::config("--refine 0 fits nothing: wanted 1 step or more").into());
    }
    let rate = args.refine_rate;
    if !(rate > 0.0 && rate.is_finite()) {
        return Err(Error::config(format!("--refine-rate {rate} is no rate: wanted a number above 0")).into());
    }
    Ok(Some((steps, rate)))
}

/// The texts to read.
fn texts(
    args: &Args,
    loaded: &LoadedVae,
    config: &crate::config::CorpusConfig,
) -> crate::error::Result<Vec<Chosen>> {
    if !args.file.is_empty() {
        return args.file.iter().map(|file| Chosen::file(file)).collect();
    }
    let sha256 = loaded.corpus_sha256();
    let run = TrainedOn { config, sha256: sha256.as_deref(), directory: loaded.directory() };
    let directories = args.data.directories()?;
    match &args.corpus {
        None => Ok(vec![Chosen::of_run(run, args.split, &directories)?]),
        Some(path) => match path.to_str() {
            Some(name) => Chosen::named(name, run, args.split, &directories),
            None => Ok(vec![Chosen::file(path)?]), // a recipe could not name it, so no run has it for its corpus
        },
    }
}

fn print(json: bool, unit: Unit, found: &Evaluation) -> std::io::Result<()> {
    let units = Shown::Sentences(unit).units();
    let mut out = stdout().lock();
    let Some(latent) = &found.latent else { return Ok(()) };
    if latent.is_unused() {
        note(UNUSED);
    }
    if let Some(lost) =
        latent.encoder_elbo_nats.map(|nats| latent.elbo_nats - nats).filter(|lost| *lost > 0.0)
    {
        note(&format!(
            "the refined bound is {lost:.4} nats worse than the encoder's: give --refine more steps, or a lower --refine-rate"
        ));
    }
    if json {
        return json_line(&mut out, found);
    }
    let LatentFigures { sentence_count: sentences, dropped_sentences, samples, .. } = latent;
    writeln!(out, "{}, {} split, {samples} sample(s) a sentence", found.corpus, found.split)?;
    writeln!(out, "nats a sentence  {:.4} (-ELBO, a bound on -ln p)", latent.elbo_nats)?;
    writeln!(out, "  reconstruction {:.4}", latent.reconstruction_nats)?;
    let of = latent.prior_components.map_or_else(String::new, |components| {
        format!(" from a prior of {components} Gaussian(s), partly a mean over the samples")
    });
    writeln!(out, "  KL             {:.4}{of}", latent.kl_nats)?;
    if let Some((steps, nats)) = latent.refine_steps.zip(latent.encoder_elbo_nats) {
        let of = match latent.refine_covariance {
            Some(Covariance::Full) => " of full covariances",
            Some(Covariance::Diagonal) | None => "",
        };
        writeln!(out, "  the encoder's  {nats:.4} before {steps} step(s) of refinement{of}")?;
    }
    if let Some(nats) = latent.iw_nats {
        writeln!(out, "importance       {nats:.4} nats a sentence, the importance-weighted bound")?;
    }
    writeln!(
        out,
        "perplexity       {} (of the bound, ends of sentences counted)",
        perplexity(found.nats_per_token, 4)
    )?;
    writeln!(out, "  without ends   {}", perplexity(latent.perplexity_no_eos.ln(), 4))?;
    writeln!(out, "active units     {}", latent.active_units)?;
    writeln!(
        out,
        "information      {} nats of the vector are about the sentence",
        or_dash(latent.mutual_information, 4)
    )?;
    let share =
        |share: Option<f64>| share.map_or_else(|| "–".into(), |share| format!("{:.2} %", 100.0 * share));
    let [sentences_back, words_back] = [latent.reconstruction_accuracy, latent.word_accuracy].map(share);
    writeln!(
        out,
        "given back       {sentences_back} of sentences, {words_back} of {units}, by the likeliest {units}"
    )?;
    writeln!(
        out,
        "sentences        {sentences} ({} {units}), {dropped_sentences} left out as too long",
        found.words
    )?;
    let whose = if *dropped_sentences > 0 { ", those of sentences that are left out with them" } else { "" };
    writeln!(out, "not in vocab     {}{whose}", found.oov_tokens)?;
    writeln!(out, "time             {:.1} s, {:.0} tokens/s", found.seconds, found.tokens_per_second)
}
