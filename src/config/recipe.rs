//! A recipe: one run in one TOML file. Built-in ones come from `recipes/`; any key can be set from outside.

use super::tables::{from_table, leaves, parse_table};
use super::train::{OnDivergence, OnNonFinite, OptimizerKind};
use super::{CoreConfig, CorpusConfig, EmbeddingConfig, ModelSpec, TaskConfig, TrainConfig};
use crate::error::{Error, Result};
use crate::model::dropout::DropoutConfig;
use crate::model::output::OutputKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the model learns to do.
    #[serde(default, skip_serializing_if = "TaskConfig::is_language")]
    pub task: TaskConfig,
    /// Which text, in which units.
    pub corpus: CorpusConfig,
    /// Which model.
    pub model: ModelSpec,
    /// How it is trained.
    pub train: TrainConfig,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the built-in recipes.
        pub const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*];
    };
}

built_in! {
    "shakespeare", "text", "words-adaptive", "ptb-rhn", "ptb-rhn-l1", "ptb-rhn-l2", "ptb-rhn-l3", "ptb-rhn-l4", "ptb-rhn-l5",
    "ptb-rhn-l6", "ptb-rhn-l7", "ptb-rhn-l8", "ptb-rhn-l9", "ptb-rhn-untied", "ptb-char-rhn", "ptb-rhn-fast", "ptb-rhn-best",
    "ptb-char-rhn-best", "ptb-char-cnn-rhn-best", "ptb-gru",
    "ptb-lstm-small", "ptb-lstm-medium", "ptb-hlstm-small", "ptb-hlstm-medium",
    "enwik8-rhn", "text8-rhn", "ptb-char-cnn-small", "ptb-char-cnn-large", "ptb-char-cnn-rhn", "mnist-highway",
    "mnist-plain", "errors-classify", "ptb-vae", "ptb-vae-inputless", "rescore", "shakespeare-vae",
}

/// The table of what the encoder of a sentence VAE drops.
const ENCODER_DROPOUT: &str = "train.latent.encoder_dropout";

/// Refuses rates of the table `key` for which the core has nothing.
fn validate_dropout(key: &str, dropout: &DropoutConfig, core: &CoreConfig) -> Result<()> {
    dropout.validate(key)?;
    if dropout.depth > 0.0 && !core.has_depth_gates() {
        return Err(Error::config(format!(
            "{key}.depth is for the gates between the layers of a highway LSTM, and there are none in {core}"
        )));
    }
    if dropout.recurrent_weights > 0.0 && !core.has_recurrent_weights() {
        return Err(Error::config(format!(
            "{key}.recurrent_weights is for the weights between time steps, and there are none in {core}"
        )));
    }
    if dropout.components > 0.0 && key == ENCODER_DROPOUT {
        return Err(Error::config(format!(
            "{key}.components is for a mixture of softmaxes, and an encoder has no output layer"
        )));
    }
    Ok(())
}

impl Recipe {
    /// Parses and checks the text of a saved recipe; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        from_table(parse_table(text, path)?, &path.display().to_string())
    }

    /// As TOML, every value written out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe has string keys and TOML values")
    }

    /// Dotted keys and their values as TOML writes them.
    pub fn leaves(&self) -> BTreeMap<String, String> {
        let table = Table::try_from(self).expect("a recipe is a table");
        leaves("", &Value::Table(table)).into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// The keys of training that the core, the optimizer or a policy does not read, and what each is for.
    pub(crate) fn unread(&self) -> Vec<(&'static str, &'static str)> {
        let Self { train, model, .. } = self;
        let dropout = &train.dropout;
        let is_adam = matches!(train.optimizer, OptimizerKind::Adam | OptimizerKind::AdamW);
        let has_gate_masks = model.core.has_separate_gate_masks() && dropout.hidden > 0.0;
        let all = [
            ("train.beta1", is_adam, "train.optimizer = \"adam\" and \"adamw\""),
            ("train.beta2", is_adam, "train.optimizer = \"adam\" and \"adamw\""),
            ("train.epsilon", train.optimizer != OptimizerKind::Sgd, "every optimizer but \"sgd\""),
            (
                "train.max_skipped_steps",
                train.on_non_finite == OnNonFinite::Skip,
                "train.on_non_finite = \"skip\"",
            ),
            (
                "train.max_rollbacks",
                train.on_divergence == OnDivergence::Rollback,
                "train.on_divergence = \"rollback\"",
            ),
            ("train.dropout.between", model.core.layers() > 1, "a core of several layers"),
            (
                "train.dropout.separate_gate_masks",
                has_gate_masks || !dropout.separate_gate_masks,
                "an RHN with train.dropout.hidden",
            ),
        ];
        all.into_iter().filter(|(_, is_read, _)| !is_read).map(|(key, _, what)| (key, what)).collect()
    }

    /// Refuses settings that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.train.validate()?;
        self.task.validate(&self.corpus, &self.model, &self.train)?;
        self.train.loss.validate(&self.model, self.train.fraternal.is_some())?;
        self.train.tables.validate(&self.model, &self.train)?;
        let layers = self.model.core.layers();
        self.train.fraternal.map_or(Ok(()), |fraternal| fraternal.validate(&self.train.dropout, layers))?;
        if self.train.fraternal.is_some() && self.model.output.kind == OutputKind::Adaptive {
            return Err(Error::config(
                "train.fraternal compares the logits of all words, which an adaptive softmax makes for none of a window",
            ));
        }
        let encoder = self.model.encoder.as_ref().unwrap_or(&self.model.core);
        let of_encoder = self.train.latent.as_ref().map(|latent| &latent.encoder_dropout);
        let tables = [("train.dropout", Some(&self.train.dropout), &self.model.core)];
        for (key, dropout, core) in tables.into_iter().chain([(ENCODER_DROPOUT, of_encoder, encoder)]) {
            dropout.map_or(Ok(()), |dropout| validate_dropout(key, dropout, core))?;
        }
        if self.train.dropout.components > 0.0 && self.model.output.component_count().is_none() {
            return Err(Error::config(
                "train.dropout.components is for the vectors of model.output.kind = \"mixture\", and the output is a softmax",
            ));
        }
        if self.corpus.shuffle_sentences == 0 {
            return Err(Error::config("corpus.shuffle_sentences is 0, wanted 1 or more"));
        }
        if self.corpus.vocab_size == 1 {
            return Err(Error::config("corpus.vocab_size is 1, wanted 2 or more, or 0 for all"));
        }
        if self.corpus.tokenizer.is_some() && self.corpus.vocabulary.is_some() {
            return Err(Error::config(
                "corpus.tokenizer and corpus.vocabulary both say what the words are; give one",
            ));
        }
        let sum: f64 = self.corpus.split.iter().sum();
        if self.corpus.split.iter().any(|part| !(0.0..=100.0).contains(part)) || (sum - 100.0).abs() > 1e-6 {
            return Err(Error::config(format!(
                "corpus.split {:?} must be percentages that sum to 100",
                self.corpus.split
            )));
        }
        Ok(())
    }

    /// Whether the vocabulary must be sorted by falling frequency: clusters are cut from it, or words are drawn by their
    /// place in it.
    pub fn needs_sorted_words(&self) -> bool {
        let has_clusters = matches!(self.model.embedding, EmbeddingConfig::Adaptive(_));
        self.model.output.needs_sorted_words() || has_clusters || self.train.loss.is_sampled()
    }
}

/// The comment at a recipe's head: paper, number and time to expect.
pub fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::{BUILT_IN, Recipe, head};
    use crate::config::train::Schedule;
    use crate::config::{Resolved, kinds_first};
    use std::path::Path;

    fn settings(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|setting| setting.to_string()).collect()
    }

    fn error(name: &str, given: &[&str]) -> String {
        Resolved::new(name, &settings(given)).unwrap_err().to_string()
    }

    #[test]
    fn an_epoch_is_validated_at_its_end_and_within_it() {
        let validations = |every: &str, steps| {
            let setting = format!("train.evaluate_steps={every}");
            Resolved::new("text", &[setting]).unwrap().recipe.train.validations(steps)
        };
        assert_eq!([validations("0", 100), validations("10", 100), validations("10", 101)], [1, 10, 11]);
        assert_eq!([validations("10", 1), validations("1", 3)], [1, 3]);
    }

    #[test]
    fn every_file_of_the_recipes_folder_is_built_in_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect(); // not sweeps/
        files.sort();
        let mut built_in: Vec<_> = BUILT_IN.iter().map(|(name, _)| format!("{name}.toml")).collect();
        built_in.sort();
        let names: Vec<_> =
            files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_string()).collect();
        assert_eq!(names, built_in);
        for (name, text) in BUILT_IN {
            Resolved::new(name, &[]).unwrap();
            assert!(head(text).count() >= 2, "{name} says what it is and what to expect");
            assert!(head(text).any(|line| line.starts_with("Time on")), "{name} says how long it takes");
        }
    }

    #[test]
    fn a_setting_overrides_any_key_and_says_so() {
        let resolved =
            Resolved::new("ptb-rhn", &settings(&["train.epochs=3", "model.core.hidden_size=256"])).unwrap();
        assert_eq!((resolved.recipe.train.epochs, resolved.recipe.model.core.hidden_size()), (3, 256));
        let described = resolved.describe();
        let line = |key: &str| described.lines().find(|line| line.starts_with(key)).unwrap().to_string();
        assert!(line("epochs").ends_with("# --set") && line("batch_size").ends_with("# recipe ptb-rhn"));
        assert!(line("patience").ends_with("# default"));
        assert_eq!(Recipe::parse(&described, Path::new("shown")).unwrap(), resolved.recipe);
    }

    #[test]
    fn what_nobody_set_is_taken_from_another_recipe_and_what_somebody_set_is_a_conflict() {
        let settings = settings(&["model.core.hidden_size=32", "model.core.layers=2"]);
        let mut resolved = Resolved::new("text", &settings).unwrap();
        assert!(resolved.is_set("model.core.layers") && !resolved.is_set("model.core.recurrence_depth"));
        assert!(!resolved.is_set("train.patience") && !resolved.is_set("train.weight_decay"));
        let other = Resolved::new("ptb-rhn", &settings[1..]).unwrap().recipe;
        let wanted = ["model.core.hidden_size", "830", "32"].map(String::from);
        assert_eq!(resolved.conflicts(&["model"], &other), [wanted]);
        resolved.take(&["model", "corpus.unit", "train.batch_size"], &other).unwrap();
        let recipe = &resolved.recipe;
        assert_eq!((&recipe.model, recipe.corpus.unit), (&other.model, other.corpus.unit));
        assert_eq!((recipe.train.batch_size, recipe.train.bptt_steps), (20, 64));
    }

    #[test]
    fn a_new_kind_sweeps_away_the_keys_of_the_old_one() {
        let resolved = Resolved::new("ptb-rhn", &settings(&["train.schedule.kind=constant"])).unwrap();
        assert_eq!(resolved.recipe.train.schedule, Schedule::Constant {});
    }

    #[test]
    fn a_kind_that_is_set_after_its_settings_keeps_them() {
        let model = |given: &[&str]| {
            Resolved::new("text", &kinds_first(&settings(given))).map(|resolved| resolved.recipe.model)
        };
        let [layers, kind, size] =
            ["model.core.layers=3", "model.core.kind=lstm", "model.core.hidden_size=16"];
        let wanted = model(&[kind, layers, size]).unwrap();
        for order in [[layers, kind, size], [layers, size, kind], [size, kind, layers]] {
            assert_eq!(model(&order).unwrap(), wanted, "{order:?}");
        }
        // Of two kinds the last one counts, and a whole table what comes after it.
        assert_eq!(model(&["model.core.kind=gru", size, kind, layers, size]).unwrap(), wanted);
        let table = "model.core={kind=\"gru\",hidden_size=5}";
        assert_eq!(model(&["model.core.layers=9", table, layers, kind, size]).unwrap(), wanted);
        let described =
            Resolved::new("ptb-rhn", &settings(&["model.core.kind=lstm", size])).unwrap().describe();
        assert!(described.lines().any(|line| line.starts_with("core.layers") && line.ends_with("# default")));
    }

    #[test]
    fn a_kind_without_settings_takes_none() {
        for table in [
            "train.schedule={kind=\"constant\"",
            "train.loss={kind=\"exact\"",
            "train.averaging={kind=\"none\"",
        ] {
            Resolved::new("text", &settings(&[&format!("{table}}}")])).unwrap();
            let message = error("text", &[&format!("{table},bogus=1}}")]);
            assert!(message.contains("unknown field `bogus`"), "{message}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_nearest() {
        assert!(error("ptb-rhn", &["model.core.hiden_size=2"]).contains("Did you mean hidden_size?"));
        assert!(error("ptb-rhn", &["train.epoch=2"]).contains("Did you mean epochs?"));
        assert!(error("ptb-rnh", &[]).contains("Did you mean ptb-rhn"));
    }

    #[test]
    fn values_that_cannot_be_trained_with_are_refused() {
        assert!(
            error("ptb-rhn", &["train.dropout.input=1.0"])
                .contains("train.dropout.input is 1, wanted a dropout rate")
        );
        assert!(error("ptb-rhn", &["train.learning_rate=nan"]).contains("learning_rate"));
        assert!(error("ptb-rhn", &["train.dropout.depth=0.1"]).contains("none in recurrent highway network"));
        let encoder = |rate: &str| error("ptb-vae", &[&format!("train.latent.encoder_dropout.{rate}")]);
        assert!(encoder("hidden=-0.5").contains("train.latent.encoder_dropout.hidden is -0.5"));
        assert!(encoder("depth=0.1").contains("train.latent.encoder_dropout.depth is for the gates"));
        assert!(encoder("components=0.1").contains("an encoder has no output layer"));
        assert!(error("ptb-rhn", &["train.batch_size=0"]).contains("train.batch_size is 0"));
        assert!(error("ptb-rhn", &["corpus.vocab_size=1"]).contains("corpus.vocab_size is 1"));
        let distill =
            |key: &str| error("ptb-rhn", &["train.loss.kind=distill", "train.loss.teacher=['a', 'b']", key]);
        assert!(distill("train.loss.top_k=-1").contains("train.loss.top_k: invalid value: integer `-1`"));
        assert!(distill("train.loss.temperature=1e30").contains("above 0, at most 1000"));
        assert!(distill("train.loss.weights=[1e308, 1e308]").contains("have no finite sum"));
        assert!(error("ptb-rhn", &["corpus.split=[90,5,6]"]).contains("sum to 100"));
        assert!(error("ptb-rhn", &["corpus.shuffle_sentences=0"]).contains("wanted 1 or more"));
        assert!(error("ptb-rhn", &["corpus.tokenizer=a", "corpus.vocabulary=b"]).contains("give one"));
        assert!(error("ptb-rhn", &["corpus.sentences=shuffled"]).contains("carry"));
        assert!(error("ptb-rhn", &["train"]).contains("key=value"));
    }

    #[test]
    fn a_saved_recipe_reads_back_the_same() {
        for (name, _) in BUILT_IN {
            let recipe = Resolved::new(name, &[]).unwrap().recipe;
            assert_eq!(Recipe::parse(&recipe.to_toml(), Path::new("saved")).unwrap(), recipe);
        }
    }
}
