//! A recipe: one run in one TOML file. Built-in ones come from `recipes/`; any key can be set from outside.

use super::{CorpusConfig, EmbeddingConfig, ModelSpec, TaskConfig, TrainConfig};
use crate::error::{Error, Result};
use crate::model::output::OutputKind;
use serde::de::DeserializeOwned;
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

/// A recipe, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe's name: a built-in one's, or the file's without its ending.
    pub name: String,
    /// The recipe with everything set.
    pub recipe: Recipe,
    /// For each dotted key that was given: by whom. The others have their default.
    origins: BTreeMap<String, String>,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the built-in recipes.
        pub const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*];
    };
}

built_in! {
    "shakespeare", "text", "words-adaptive", "ptb-rhn", "ptb-rhn-l1", "ptb-rhn-l2", "ptb-rhn-l3", "ptb-rhn-l4", "ptb-rhn-l5",
    "ptb-rhn-l6", "ptb-rhn-l7", "ptb-rhn-l8", "ptb-rhn-l9", "ptb-rhn-untied", "ptb-char-rhn", "ptb-gru",
    "ptb-lstm-small", "ptb-lstm-medium", "ptb-hlstm-small", "ptb-hlstm-medium",
    "enwik8-rhn", "text8-rhn", "ptb-char-cnn-small", "ptb-char-cnn-large", "ptb-char-cnn-rhn", "mnist-highway",
    "mnist-plain",
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

    /// Refuses settings that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.train.validate()?;
        self.task.validate(&self.corpus, &self.model, &self.train)?;
        self.train.loss.validate(&self.model, self.train.fraternal.is_some())?;
        if self.train.fraternal.is_some() && self.model.output.kind == OutputKind::Adaptive {
            return Err(Error::config(
                "train.fraternal compares the logits of all words, which an adaptive softmax makes for none of a window",
            ));
        }
        if self.train.dropout.depth > 0.0 && !self.model.core.has_depth_gates() {
            return Err(Error::config(format!(
                "train.dropout.depth is for the gates between the layers of a highway LSTM, and there are none in {}",
                self.model.core
            )));
        }
        if self.train.dropout.recurrent_weights > 0.0 && !self.model.core.has_recurrent_weights() {
            return Err(Error::config(format!(
                "train.dropout.recurrent_weights is for the weights between time steps, and there are none in {}",
                self.model.core
            )));
        }
        if self.train.dropout.components > 0.0 && self.model.output.component_count().is_none() {
            return Err(Error::config(
                "train.dropout.components is for the vectors of model.output.kind = \"mixture\", and the output is a softmax",
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
}

impl Recipe {
    /// Whether the vocabulary must be sorted by falling frequency: clusters are cut from it, or words are drawn by their
    /// place in it.
    pub fn needs_sorted_words(&self) -> bool {
        let has_clusters = matches!(self.model.embedding, EmbeddingConfig::Adaptive(_));
        self.model.output.needs_sorted_words() || has_clusters || !self.train.loss.is_exact()
    }
}

impl Resolved {
    /// The built-in recipe `name`, or the file of that path, with `key=value` settings on top.
    pub fn new(name: &str, settings: &[String]) -> Result<Self> {
        let mut origins = BTreeMap::new();
        let (short, mut table) = load(name, &mut origins, 0)?;
        for setting in settings {
            let (key, value) = parse_setting(setting)?;
            set(&mut table, key, value.clone(), setting)?;
            note(&mut origins, key, &value, "--set");
        }
        let source = match settings {
            [] => name.to_string(),
            _ => format!("{name} with --set {}", settings.join(" --set ")),
        };
        let recipe: Recipe = from_table(table, &source)?;
        recipe.validate()?;
        Ok(Self { name: short, recipe, origins })
    }

    /// Whether a value comes from the user: from a setting, or from a file that is not built in.
    pub fn is_set(&self, key: &str) -> bool {
        let is_built_in = |origin: &String| {
            let name = origin.strip_prefix("recipe ");
            name.is_some_and(|name| BUILT_IN.iter().any(|(known, _)| *known == name))
        };
        self.origins.get(key).is_some_and(|origin| !is_built_in(origin))
    }

    /// What the user has set under `keys`, tables or single values, otherwise than `other` has it: the key, the value
    /// in `other`, and the one here.
    pub fn conflicts(&self, keys: &[&str], other: &Recipe) -> Vec<[String; 3]> {
        let theirs = other.leaves();
        let lies_under = |key: &str, table: &str| {
            key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let own = self.recipe.leaves().into_iter();
        own.filter(|(key, _)| keys.iter().any(|table| lies_under(key, table)) && self.is_set(key))
            .filter(|(key, value)| theirs.get(key) != Some(value))
            .map(|(key, value)| {
                let there = theirs.get(&key).cloned().unwrap_or_else(|| "unset".into());
                [key, there, value]
            })
            .collect()
    }

    /// Takes what `other` has under `keys` in place of the values here.
    ///
    /// # Errors
    /// If the result is no recipe.
    pub fn take(&mut self, keys: &[&str], other: &Recipe) -> Result<()> {
        let mut table = Table::try_from(&self.recipe).expect("a recipe is a table");
        let theirs = Table::try_from(other).expect("a recipe is a table");
        for key in keys {
            if let Some(value) = lookup(&theirs, key) {
                set(&mut table, key, value.clone(), key)?;
            }
        }
        self.recipe = from_table(table, &self.name)?;
        Ok(())
    }

    /// The whole configuration as it would run, as TOML; each value with its origin.
    pub fn describe(&self) -> String {
        let table = Table::try_from(&self.recipe).expect("a recipe is a table");
        let mut lines = vec![format!("# {}", self.name)];
        for (section, value) in &table {
            lines.push(format!("\n[{section}]"));
            for (key, value) in leaves("", value) {
                let origin = self.origins.get(&format!("{section}.{key}")).map_or("default", String::as_str);
                lines.push(format!("{:40} # {origin}", format!("{key} = {value}")));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// The comment at a recipe's head: paper, number and time to expect.
pub fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim)
}

/// The table of a recipe, merged over the one that it extends.
fn load(name: &str, origins: &mut BTreeMap<String, String>, depth: usize) -> Result<(String, Table)> {
    const LONGEST_CHAIN: usize = 8;
    if depth > LONGEST_CHAIN {
        return Err(Error::config(format!(
            "{name}: recipes extend one another more than {LONGEST_CHAIN} times"
        )));
    }
    let (short, text, path) = find(name)?;
    let mut table = parse_table(&text, Path::new(&path))?;
    let base = match table.remove("extends") {
        None => None,
        Some(Value::String(base)) => Some(load(&base, origins, depth + 1)?.1),
        Some(other) => {
            return Err(Error::config(format!("{path}: extends is {other}, wanted a recipe's name")));
        }
    };
    note(origins, "", &Value::Table(table.clone()), &path);
    Ok(match base {
        None => (short, table),
        Some(mut base) => {
            merge(&mut base, table);
            (short, base)
        }
    })
}

/// A recipe's short name, its text, and how to call it in messages.
fn find(name: &str) -> Result<(String, String, String)> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok(((*name).into(), (*text).into(), format!("recipe {name}")));
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|ending| ending == "toml") || path.is_file() {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::config(format!("{name}: {error}")))?;
        let short =
            path.file_stem().map_or_else(|| name.to_string(), |stem| stem.to_string_lossy().into_owned());
        return Ok((short, text, name.into()));
    }
    let known = BUILT_IN.iter().map(|(known, _)| *known);
    let nearest =
        nearest(name, known.clone()).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
    let all: Vec<_> = known.collect();
    Err(Error::config(format!(
        "no recipe is named {name}.{nearest} There are {}, or a file that ends in .toml",
        all.join(", ")
    )))
}

pub(super) fn parse_table(text: &str, path: &Path) -> Result<Table> {
    toml::from_str(text)
        .map_err(|error: toml::de::Error| Error::config(format!("{}: {error}", path.display())))
}

fn parse_setting(setting: &str) -> Result<(&str, Value)> {
    let (key, value) = setting
        .split_once('=')
        .filter(|(key, _)| key.split('.').all(|part| !part.trim().is_empty()))
        .ok_or_else(|| Error::config(format!("--set {setting}: wanted key=value, say train.epochs=3")))?;
    let parsed = toml::from_str::<Table>(&format!("value = {value}")).ok();
    let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    Ok((key.trim(), parsed.unwrap_or_else(|| Value::String(value.into()))))
}

/// Sets a dotted key; a new `kind` sweeps away what belonged to the old one.
fn set(table: &mut Table, key: &str, value: Value, setting: &str) -> Result<()> {
    let Some((first, rest)) = key.split_once('.') else {
        if key == "kind" && table.get("kind").is_some_and(|kind| *kind != value) {
            table.clear();
        }
        table.insert(key.into(), value);
        return Ok(());
    };
    let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => set(inner, rest, value, setting),
        other => Err(Error::config(format!("--set {setting}: {first} is {other}, it has no keys"))),
    }
}

/// The value of a dotted key.
fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// Puts `top` over `base`; a table of another `kind` replaces the one below it.
fn merge(base: &mut Table, top: Table) {
    for (key, value) in top {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                if above.get("kind").is_some_and(|kind| below.get("kind") != Some(kind)) {
                    below.clear();
                }
                merge(below, above);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Records for every leaf under `key` that `origin` gave it.
fn note(origins: &mut BTreeMap<String, String>, key: &str, value: &Value, origin: &str) {
    origins.extend(leaves(key, value).into_iter().map(|(key, _)| (key, origin.to_string())));
}

/// Every leaf under `key` with its dotted name.
pub(super) fn leaves<'a>(key: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    let Value::Table(table) = value else { return vec![(key.into(), value)] };
    let below = |(name, value): (&String, &'a Value)| match key {
        "" => leaves(name, value),
        _ => leaves(&format!("{key}.{name}"), value),
    };
    table.iter().flat_map(below).collect()
}

/// The settings in a table; an unknown key is an error that suggests the nearest.
pub(super) fn from_table<T: DeserializeOwned>(table: Table, source: &str) -> Result<T> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let what = error.inner().to_string();
        let what = what.trim().lines().next().unwrap_or_default(); // the next would name the key again
        let suggestion = suggestion(what).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
        let key = if key == "." { String::new() } else { format!("{key}: ") };
        Error::config(format!("{source}: {key}{what}.{suggestion}"))
    })
}

/// The nearest of the names that a message such as "unknown field `a`, expected one of `b`, `c`" offers.
fn suggestion(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let found = message.starts_with("unknown").then(|| names.next())??;
    nearest(found, names).map(str::to_string)
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > ALIKE).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::{BUILT_IN, Recipe, Resolved, head};
    use crate::config::train::Schedule;
    use std::path::Path;

    fn settings(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|setting| setting.to_string()).collect()
    }

    fn error(name: &str, given: &[&str]) -> String {
        Resolved::new(name, &settings(given)).unwrap_err().to_string()
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
        assert_eq!(resolved.recipe.train.schedule, Schedule::Constant);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_nearest() {
        assert!(error("ptb-rhn", &["model.core.hiden_size=2"]).contains("Did you mean hidden_size?"));
        assert!(error("ptb-rhn", &["train.epoch=2"]).contains("Did you mean epochs?"));
        assert!(error("ptb-rnh", &[]).contains("Did you mean ptb-rhn"));
    }

    #[test]
    fn values_that_cannot_be_trained_with_are_refused() {
        assert!(error("ptb-rhn", &["train.dropout.input=1.0"]).contains("dropout rate"));
        assert!(error("ptb-rhn", &["train.learning_rate=nan"]).contains("learning_rate"));
        assert!(error("ptb-rhn", &["train.dropout.depth=0.1"]).contains("none in recurrent highway network"));
        assert!(error("ptb-rhn", &["train.batch_size=0"]).contains("batch_size"));
        assert!(error("ptb-rhn", &["corpus.split=[90,5,6]"]).contains("sum to 100"));
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
