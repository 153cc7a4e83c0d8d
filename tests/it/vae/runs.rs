//! Runs of a sentence VAE by the command line: learned, resumed to the bit, chosen once the KL counts whole, refused.

use crate::support::run::{Place, assert_fails, stderr, stdout};
use candle_core::{Device, Tensor};
use rhn::storage::load_tensors;
use serde_json::Value;
use std::sync::LazyLock;

/// A dozen sentences of different lengths; none of their first words tells all that follows.
const SENTENCES: [&str; 12] = [
    "anna reads the old book",
    "anna sings",
    "anna sees a tree near the house",
    "bert reads a letter",
    "bert sleeps under the old tree",
    "bert sees the sea",
    "carla sings a song near the sea",
    "carla sleeps",
    "carla writes the letter",
    "dora writes a book in the house",
    "dora sees anna",
    "dora runs",
];

const RECIPE: &str = r#"
[task]
kind = "vae"

[corpus]
name = "sentences.txt"
unit = "word"
split = [80, 10, 10]
longest_sentence = 8

[model.embedding]
kind = "word"
size = 16

[model.core]
kind = "gru"
hidden_size = 24

[model.latent]
size = 6
highway_layers = 1
inject = "both"

[train]
epochs = 20
batch_size = 8
bptt_steps = 1
optimizer = "adam"
learning_rate = 0.02
max_grad_norm = 5.0
init_scale = 0.3
seed = 1

[train.latent]
schedule = { kind = "linear-epochs", from = 0.0, epochs = 16 }
word_keep = 0.2
"#;

/// A directory with `vae.toml` and its sentences in a drawn order, an empty line and a long one among them.
fn place() -> Place {
    let place = Place::new();
    let sentence = |index: usize| SENTENCES[(index * index + 5 * index + index / 12) % 12];
    let mut lines: Vec<&str> = (0..480).map(sentence).collect();
    lines[7] = "";
    lines[9] = "a a a a a a a a a";
    place.write("sentences.txt", lines.join("\n") + "\n");
    place.write("vae.toml", RECIPE);
    place.write("pairs.tsv", "anna sings\tsings anna\n");
    place.write("lists.tsv", "u1\t-3\tanna sings\n");
    place
}

/// A run that has learned its sentences, in `run`; commands read it.
pub(super) static LEARNED: LazyLock<Place> = LazyLock::new(|| {
    let place = place();
    let output = place.rhn("train vae.toml --out run");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("sentences of more than 8 words are left out: 1 of training"));
    place
});

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn a_text_is_learned_by_its_sentences_and_the_vector_holds_them() {
    let found = LEARNED.json_of("eval run --split train --samples 20 --json");
    assert_eq!((&found["protocol"], &found["dropped_sentences"]), (&"elbo".into(), &1.into()));
    // Which of the twelve it is costs ln 12 = 2.48 nats; without the vector, a decoder that reads one word of five
    // pays for it several times.
    let [kl, elbo] = ["kl_nats", "elbo_nats"].map(|key| number(&found, key));
    assert!(kl > 1.5 && elbo < 4.0, "{found}");
    assert!(number(&found, "reconstruction_accuracy") > 0.8, "{found}");
    assert!(number(&found, "active_units") >= 2.0, "{found}");
    let information = number(&found, "mutual_information");
    assert!(information > 1.5 && information < 12f64.ln() + 0.1, "{found}"); // of twelve sentences
    assert!(number(&found, "iw_nats") < elbo, "{found}");
    let result = LEARNED.json("run/result.json");
    assert_eq!(result["protocol"], "elbo");
    assert!(number(&result, "kl_nats") > 1.5 && number(&result, "elbo_nats") < 4.0, "{result}");
    LEARNED.assert_counted_before("recipe = \"vae.toml\"", "run");
}

#[test]
fn the_model_is_chosen_among_the_validations_at_which_the_kl_counts_whole() {
    let epochs = LEARNED.events("run", "epoch");
    let weights: Vec<f64> = epochs.iter().map(|epoch| number(epoch, "kl_weight")).collect();
    assert!((weights[0] - 0.0625).abs() < 1e-12 && weights[15] == 1.0 && weights[19] == 1.0, "{weights:?}");
    let provisional = |epoch: &Value| epoch["provisional"] == true;
    assert!(epochs[..15].iter().all(provisional) && !epochs[15..].iter().any(provisional));
    // The first that counts is the best so far whatever came before.
    assert_eq!(epochs[15]["best"], true);
    let least =
        epochs[15..].iter().map(|epoch| number(epoch, "valid_nats_per_token")).fold(f64::MAX, f64::min);
    let result = LEARNED.json("run/result.json");
    assert_eq!(number(&result, "valid_nats_per_token"), least);
    assert!(result["best_epoch"].as_u64().unwrap() >= 16);
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit() {
    let place = place();
    let settings = "--set train.epochs=2 --set train.dropout.output=0.2 --set train.latent.schedule.epochs=1";
    let train = |more: &str| {
        let output = place.rhn(&format!("train vae.toml {settings} {more}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    };
    train("--out whole");
    train("--out parts --max-steps 5");
    train("--out parts --resume --max-steps 59"); // in the second epoch, whose order is another
    train("--out parts --resume");
    for (whole, parts) in place.fingerprint("whole").into_iter().zip(place.fingerprint("parts")) {
        assert_eq!(whole, parts);
    }
    place.assert_is_read("whole");
}

#[test]
fn sentences_that_training_shows_have_no_unknown_words_and_are_no_longer_than_the_texts() {
    let place = place();
    let rare = "--set corpus.vocab_size=5 --set train.epochs=2 --set train.latent.schedule.epochs=1";
    let output = place.rhn(&format!("train vae.toml --out run {rare}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    let shown: Vec<&str> = printed.lines().filter_map(|line| line.trim_start().strip_prefix('|')).collect();
    assert!(!shown.is_empty(), "{printed}");
    // Two words of three are unknown ones, so that they are the likeliest.
    assert!(
        shown.iter().all(|line| !line.contains("<unk>") && line.split_whitespace().count() <= 8),
        "{printed}"
    );
}

#[test]
fn a_run_begins_with_its_like_alone_and_the_keys_that_differ_are_named() {
    LEARNED.fails(
        "train vae.toml --init-from run --set train.latent.word_keep=0 --out none",
        4,
        &["run: is another model: its latent.inputless is unset, wanted true (train.latent.word_keep = 0 asks for it)"],
    );
    // Trained on words and measured on none, it would be neither.
    let parts = ["model.latent.inputless", "train.latent.word_keep is 1"];
    LEARNED.fails(
        "train vae.toml --set model.latent.inputless=true --set train.latent.word_keep=1 --out none",
        2,
        &parts,
    );
    let place = place();
    let output = place.rhn("train vae.toml --set train.latent.word_keep=0 --max-steps 2 --out silent");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    place.fails("train vae.toml --init-from silent --set train.latent.word_keep=1 --out none", 2, &parts);
    // What is clipped to next to nothing stays where it began, and nothing else does.
    let clip = "train.clip={embedding=5.0,core=5.0,output=5.0,latent=1e-30}";
    let weights = |steps: u32| {
        let out = format!("clipped-{steps}");
        let settings = "--set train.optimizer=sgd --set train.learning_rate=0.5 --set train.max_grad_norm=0";
        let output =
            place.rhn(&format!("train vae.toml {settings} --set {clip} --max-steps {steps} --out {out}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let file = place.newest(&out).join("model.safetensors");
        load_tensors(&file, &std::fs::read(&file).unwrap(), &Device::Cpu).unwrap()
    };
    let [first, later] = [1, 5].map(weights);
    for (name, weight) in &first {
        let numbers = |weight: &Tensor| weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let moved = numbers(weight) != numbers(&later[name]);
        assert!(!(moved && name.starts_with("latent.")), "{name} moved");
        assert!(moved || !name.starts_with("output."), "{name} did not move");
    }
    assert!(first.keys().any(|name| name.starts_with("latent.")));
    place.fails(
        "train tiny.toml --set train.max_grad_norm=0 --set train.clip={latent=1.0}",
        2,
        &["train.clip.latent"],
    );
}

/// A cycle that ends with an epoch has come to its whole weight then, though the next step begins another.
#[test]
fn an_epoch_that_ends_a_cycle_of_the_kl_counts() {
    let place = place();
    let schedule = "train.latent.schedule={kind=\"cyclical\",cycle_steps=48,cycles=3}";
    let output = place.rhn(&format!("train vae.toml --set train.epochs=2 --out run --set {schedule}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for epoch in place.events("run", "epoch") {
        assert_eq!((number(&epoch, "step") % 48.0, number(&epoch, "kl_weight")), (0.0, 1.0), "{epoch}");
        assert_eq!(epoch.get("provisional"), None, "{epoch}");
    }
}

/// Almost nothing is learned at a rate of 1e-9: the bound of the mixture at its first step is near the standard Gaussian's.
#[test]
fn a_prior_is_learned_from_where_a_run_without_one_ended() {
    let begin = "train vae.toml --set train.epochs=1 --set train.learning_rate=1e-9";
    let set = "--set model.latent.prior_components";
    let output = LEARNED.rhn(&format!("{begin} --init-from run {set}=40 --out prior"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let [before, after] =
        ["run", "prior"].map(|run| LEARNED.json_of(&format!("eval {run} --samples 40 --json")));
    assert_eq!((&after["prior_components"], before.get("prior_components")), (&40.into(), None));
    assert!((number(&before, "reconstruction_nats") - number(&after, "reconstruction_nats")).abs() < 1e-4);
    let added = number(&after, "kl_nats") - number(&before, "kl_nats");
    assert!(added != 0.0 && added.abs() < 1.0, "{added} nats in {after}");
    let shown = LEARNED.rhn("eval prior");
    assert!(
        stdout(&shown).contains(" from a prior of 40 Gaussian(s), partly a mean over the samples"),
        "{shown:?}"
    );
    assert!(LEARNED.json_of("eval prior --refine 5 --json")["elbo_nats"].is_f64());
    assert!(!stdout(&LEARNED.rhn("sample prior --samples 2")).is_empty());
    // With a prior there is nothing to be drawn.
    LEARNED.rhn(&format!("{begin} --init-from prior --out again"));
    assert_eq!(LEARNED.json_of("eval again --json")["prior_components"], 40);
    for (name, count, part) in [
        ("prior", 41, "its model.latent.prior_components is 40, wanted 41"),
        ("run", 0, "model.latent.prior_components is 0, wanted 1 to 4096"),
    ] {
        let code = if count == 0 { 2 } else { 4 };
        LEARNED.fails(&format!("{begin} --init-from {name} {set}={count} --out none"), code, &[part]);
    }
}

#[test]
fn sentences_of_several_texts_are_measured_together() {
    LEARNED.write("one.txt", "the cat sat\na dog ran away\n");
    LEARNED.write("two.txt", "\nthe dog sat\n");
    let of = |files: &str| LEARNED.json_of(&format!("eval run {files} --json"));
    let [one, two] = ["--file one.txt", "--file two.txt"].map(of);
    let both = of("--file one.txt --file two.txt");
    assert_eq!((&both["corpus"], &both["split"]), (&"2 files".into(), &"all".into()));
    let counts = ["sentence_count", "tokens", "words", "oov_tokens"].map(|key| {
        assert_eq!(number(&both, key), number(&one, key) + number(&two, key), "{key}");
        number(&both, key)
    });
    assert_eq!(counts[0], 3.0);
    let kl = number(&both, "kl_nats") * 3.0;
    assert!((kl - 2.0 * number(&one, "kl_nats") - number(&two, "kl_nats")).abs() < 1e-5, "{both}");
}

#[test]
fn posteriors_are_fitted_on_demand() {
    let found = LEARNED.json_of("eval run --split train --refine 20 --json");
    assert_eq!((&found["protocol"], &found["refine_steps"]), (&"elbo+refined".into(), &20.into()));
    assert!(number(&found, "elbo_nats") < number(&found, "encoder_elbo_nats"), "{found}");
    let plain = LEARNED.json_of("eval run --split train --json");
    assert_eq!(plain["elbo_nats"], found["encoder_elbo_nats"]);
    assert_eq!(plain.get("refine_steps"), None);
    let full = LEARNED.json_of("eval run --split train --refine 20 --refine-covariance full --json");
    assert_eq!([&full["protocol"], &full["refine_covariance"]], ["elbo+refined-full", "full"]);
    assert!(number(&full, "elbo_nats") < number(&full, "encoder_elbo_nats"), "{full}");
    let output = LEARNED.rhn("eval run --split train --refine 2 --refine-rate 30");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("nats worse than the encoder's: give --refine more steps"),
        "{}",
        stderr(&output)
    );
    for (flags, part) in [
        ("--refine 0", "--refine 0 fits nothing"),
        ("--refine 3 --refine-rate 0", "--refine-rate 0 is no rate"),
        ("--refine 3 --refine-rate 1e30", "--refine-rate 1000000000000000000000000000000 is too high"),
    ] {
        LEARNED.fails(&format!("eval run {flags}"), 2, &[part]);
    }
}

#[test]
fn a_vector_that_is_not_used_is_reported() {
    let place = place();
    // A constant weight of 20 leaves nothing of the vector.
    let settings = "--set train.epochs=2 --set train.latent.schedule.kind=constant --set train.latent.schedule.weight=20";
    let output = place.rhn(&format!("train vae.toml --out run {settings}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("the latent variable is not used"), "{}", stderr(&output));
    assert!(stderr(&place.rhn("eval run")).contains("the latent variable is not used"));
}

#[test]
fn a_dry_run_counts_words() {
    place().dry_run("vae.toml", "words");
}

#[test]
fn what_a_sentence_vae_cannot_be_trained_with_is_refused() {
    let place = place();
    for (settings, parts) in [
        ("train.bptt_steps=5", &["train.bptt_steps", "running text"][..]),
        ("corpus.sentences=reset", &["corpus.sentences", "items"]),
        ("train.latent.word_keep=2", &["word_keep is 2"]),
        ("model.latent.size=0", &["latent.size is 0"]),
        ("train.batch_size=1000", &["too few for a batch of 1000"]),
        ("corpus.unit=bpe", &["lines whose end"]),
        ("corpus.unknown=false", &["word_keep is 0.2", "<unk>"]),
        ("task.kind=language", &["[task] kind = \"vae\"", "model.latent"]),
    ] {
        let output = place.rhn(&format!("train vae.toml --out run --set {settings}"));
        let code = if settings.contains("batch_size") { 3 } else { 2 };
        assert_fails(&output, code, parts);
    }
    let recipe = RECIPE.replace("[model.latent]\nsize = 6\nhighway_layers = 1\ninject = \"both\"\n", "");
    place.write("without.toml", recipe);
    place.fails("train without.toml --out run", 2, &["needs a [model.latent]"]);
    place.fails(
        "train tiny.toml --corpus corpus.txt --set train.latent.word_keep=0.5",
        2,
        &["train.latent is for a sentence VAE"],
    );
    assert!(!place.path("run").exists());
}

#[test]
fn the_corpus_of_a_run_is_found_beside_it() {
    let place = place();
    let output = place.rhn("train vae.toml --set train.epochs=1 --out runs/run --max-steps 5");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    std::fs::create_dir(place.path("far")).unwrap();
    place.rhn_from("far", "train ../runs/run --resume");
    place.rhn_from("far", "eval ../runs/run");
}

#[test]
fn a_result_and_an_evaluation_agree_on_what_the_vocabulary_lacks() {
    let place = place();
    let settings = "--set corpus.vocab_size=9 --set train.epochs=1 --set train.latent.schedule.epochs=1";
    let output = place.rhn(&format!("train vae.toml {settings} --out run"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let result = place.json("run/result.json");
    let found = place.json_of("eval run --json");
    assert!(number(&found, "oov_tokens") > 0.0, "{found}");
    assert_eq!(result["oov_tokens"], found["oov_tokens"]);
    // Sentences by themselves are not measured as text.
    assert!(result.get("bytes").is_none() && found.get("bytes").is_none(), "{result} {found}");
}

#[test]
fn a_run_over_characters_has_figures_in_every_table() {
    let place = place();
    let settings = "--set corpus.unit=char --set corpus.longest_sentence=60 --set train.epochs=1";
    let output = place.rhn(&format!("train vae.toml {settings} --out run"));
    let notes = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(notes.contains(" chars,") && !notes.contains(" words"), "{notes}");
    let watched = stdout(&place.rhn("watch run"));
    assert!(watched.contains("perplexity") && !watched.contains("no test"), "{watched}");
    let table = stdout(&place.rhn("compare run"));
    assert!(table.contains("perplexity") && !table.contains('–'), "{table}");
    assert_eq!(place.rhn("plot run --out run.svg").status.code(), Some(0));
}
