//! What a run says of itself before its first step and after its last.

use super::super::output::{Treatment, note, note_unseen};
use crate::config::train::WindowKind;
use crate::console::report;
use crate::data::items::Items;
use crate::eval::decisions::percent;
use crate::events::Outcome;
use crate::readable::{duration, grouped, or_dash, perplexity, shell_quoted};
use crate::run::console::Shown;
use crate::run::{Finish, Run};
use crate::task::classify::ClassifyTask;
use crate::task::images::ImageTask;
use crate::task::language::Language;
use crate::task::rescore::Rescoring;
use crate::task::split::SplitSize;
use crate::task::teachers::Teacher;
use crate::task::vae::VaeTask;
use crate::train::limits::Stop;
use crate::train::task::Task;
use std::path::Path;

pub(super) fn introduce(language: &Language) {
    let (train, valid, test) = language.sizes();
    let tokens = |size: SplitSize| grouped(size.tokens);
    report(&format!(
        "{}: {} training tokens, {} for validation, {} for test, vocabulary of {}",
        language.data().corpus,
        tokens(train),
        tokens(valid),
        test.map_or("none".into(), tokens),
        grouped(language.model().vocab_size as u64)
    ));
    if test.is_none() {
        note("the corpus has no test split; the result will be of the validation split alone");
    }
    for Teacher { name, sha256, model, .. } in language.teachers() {
        let core = &model.config().spec.core;
        report(&format!("teacher {name}: {core}, weights with SHA-256 {}…", &sha256[..12]));
    }
    let treatment = Treatment::of(language.tokenizer());
    note_unseen(train.unseen, "the training split", treatment);
    note_unseen(valid.unseen, "the validation split", treatment);
    note_unseen(test.map_or(0, |test| test.unseen), "the test split", treatment);
}

pub(super) fn introduce_images(task: &ImageTask) {
    let [train, valid, test] = task.data().tokens.map(grouped);
    let valid =
        if task.corpus().valid.is_some() { valid } else { "none (the loss of training chooses)".into() };
    let classes = task.corpus().classes;
    let name = task.data().corpus;
    report(&format!(
        "{name}: {train} training images, {valid} for validation, {test} for test, {classes} classes"
    ));
}

pub(super) fn introduce_labelled(task: &ClassifyTask) {
    let [train, valid, test] = task.data().tokens.map(grouped);
    report(&format!(
        "{}: {train} training sentences, {valid} for validation, {test} for test, vocabulary of {}",
        task.data().corpus,
        grouped(task.model().vocab_size as u64)
    ));
    for (name, split) in ["training", "validation", "test"].into_iter().zip(task.splits()) {
        let Some(split) = split else { continue };
        let [words, unknown] = split.words();
        report(&format!(
            "{name}: {} need an edit, {} words, {} of them unknown ({:.1} %)",
            grouped(split.positives()),
            grouped(words),
            grouped(unknown),
            100.0 * unknown as f64 / (words as f64).max(1.0)
        ));
    }
    if task.left_out() > 0 {
        note(&format!("{} elements without any text before the edit are left out", grouped(task.left_out())));
    }
}

pub(super) fn introduce_lists(task: &Rescoring) {
    let (sizes, unseen) = task.sizes();
    let [train, valid, test] = sizes.map(|size| grouped(size as u64));
    let name = task.data().corpus;
    report(&format!("{name}: {train} n-best lists to train on, {valid} for validation, {test} for test"));
    if unseen > 0 {
        let unseen = grouped(unseen as u64);
        note(&format!("{unseen} words of the lists to train on have symbols that the vocabulary lacks"));
    }
}

pub(super) fn introduce_sentences(task: &VaeTask) {
    let units = Shown::Sentences(task.unit()).units();
    let (train, valid, test) = task.sentences();
    let count = |items: &Items| grouped(items.len() as u64);
    report(&format!(
        "{}: {} training sentences of {} {units}, {} for validation, {} for test, vocabulary of {}",
        task.data().corpus,
        count(train),
        grouped(train.words()),
        count(valid),
        test.map_or("none".into(), count),
        grouped(task.model().vocab_size as u64)
    ));
    let dropped = [Some(train), Some(valid), test].map(|items| items.map_or(0, |items| items.dropped));
    if let Some(longest) =
        task.recipe().corpus.longest_sentence.filter(|_| dropped.iter().any(|&left| left > 0))
    {
        let [train, valid, test] = dropped.map(grouped);
        note(&format!(
            "sentences of more than {longest} {units} are left out: {train} of training, {valid} of validation, {test} of test"
        ));
    }
    let treatment = Treatment::of(task.tokenizer());
    let [train, valid, _] = task.unseen();
    note_unseen(train, "the training split", treatment);
    note_unseen(valid, "the validation split", treatment);
}

pub(super) fn introduce_training<T: Task>(run: &Run<T>, shown: Shown) {
    let config = &run.task.recipe().train;
    let step = match (shown, config.bptt_steps, config.window) {
        (Shown::Images, ..) => format!("{} images", config.batch_size),
        (Shown::Lists(_), ..) => format!("{} lists", config.batch_size),
        (Shown::Labels | Shown::Sentences(_), ..) => format!("{} sentences", config.batch_size),
        (Shown::Text(_), steps, WindowKind::Fixed) => format!("{} × {steps} tokens", config.batch_size),
        (Shown::Text(_), steps, WindowKind::Variable) => {
            format!("{} × about {steps} tokens", config.batch_size)
        }
    };
    let epoch = run.resumed.as_ref().map_or(0, |resumed| resumed.position.epoch);
    let [all, updated] = run.parameters();
    let of_them = match config.update.is_all() {
        true => String::new(),
        false => format!(" ({} of them updated: {})", grouped(updated), config.update.name()),
    };
    report(&format!(
        "{} parameters{of_them}, {} steps an epoch of {step}, into {}",
        grouped(all),
        grouped(run.task.batch_count(epoch) as u64),
        run.out.display()
    ));
    if let Some(resumed) = &run.resumed {
        report(&format!("going on after step {}", grouped(resumed.position.step)));
    }
}

/// What lets a finished run, or its model, go on.
pub(super) fn advice(finish: Finish, out: &Path) -> String {
    let Finish { epochs: [done, asked], patience, is_bound, no_longer_falls } = finish;
    let out = shell_quoted(&out.display().to_string());
    let init = format!("rhn train {out} --init-from {out} --out DIR begins another with its weights");
    match patience {
        _ if no_longer_falls => {
            format!(
                ": after epoch {done} of {asked} the loss of the mean of the weights no longer fell; {init}"
            )
        }
        Some(patience) if done < asked => format!(
            ": train.patience = {patience} ended it after epoch {done} of {asked}; a larger one, or 0, lets it go on"
        ),
        _ if is_bound => format!(", and its rate is at the cosine's end; {init}"),
        Some(_) => "; more train.epochs with more train.patience let it go on".into(),
        None => "; more train.epochs let it go on".into(),
    }
}

pub(super) fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Signal(_) => "by a signal",
        Stop::MaxSteps => "by --max-steps",
        Stop::TimeLimit => "by --time-limit",
        Stop::OtherRank => "by another rank",
    }
}

/// The last line: the number that papers publish, and what to do next.
pub(super) fn closing(outcome: &Outcome, out: &Path, shown: Shown) -> String {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let test = match outcome.test.nats_per_token {
        None => String::new(),
        Some(nats) if outcome.test.decisions.is_some() => {
            let found = outcome.test.decisions.unwrap_or_default();
            let [precision, recall, f1, always] =
                [found.precision, found.recall, found.f1, found.always_yes_f1].map(percent);
            format!(
                "test: {nats:.4} nats a sentence, precision {precision}, recall {recall}, F1 {f1} (always yes {always})\n"
            )
        }
        Some(nats) if outcome.test.expected_error_rate.is_some() => {
            let percent = |rate: Option<f64>| 100.0 * number(rate);
            format!(
                "test: word errors {:.2} % ({:.2} % of the first hypotheses, {:.2} % of the oracle), {nats:.4} nats a token of \
                 the references\n",
                percent(outcome.test.word_error_rate),
                percent(outcome.test.word_error_rate_first),
                percent(outcome.test.word_error_rate_oracle)
            )
        }
        Some(nats) if outcome.test.latent.is_some() => {
            let latent = outcome.test.latent.clone().unwrap_or_default();
            format!("test: {}, perplexity {}\n", latent.bound(), perplexity(nats, 2))
        }
        Some(nats) if outcome.test.accuracy.is_some() => {
            let accuracy = 100.0 * number(outcome.test.accuracy);
            format!("test: {nats:.4} nats an image, accuracy {accuracy:.2} %\n")
        }
        Some(nats) => format!(
            "test: {nats:.4} nats a token, perplexity {}, {} bits a character, {} bits a byte (stream)\n",
            perplexity(nats, 2),
            or_dash(outcome.test.bits_per_char, 3),
            or_dash(outcome.test.bits_per_byte, 3)
        ),
    };
    let (what, more) = match shown {
        Shown::Text(_) | Shown::Sentences(_) => ("sample", ""),
        Shown::Images | Shown::Labels => ("eval", ""),
        Shown::Lists(_) => ("rescore", " NBEST"),
    };
    let by = if matches!(shown, Shown::Images) { "" } else { " of the validation split" };
    format!(
        "{test}best epoch {}{by}, {} in all; the model is in {}\ntry: rhn {what} {}{more}",
        outcome.best_epoch.map_or("null".into(), |epoch| epoch.to_string()),
        duration(number(outcome.seconds_total)),
        out.display(),
        shell_quoted(&out.display().to_string())
    )
}
