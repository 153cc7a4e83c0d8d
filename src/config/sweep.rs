//! A sweep: several runs in one TOML file, each a recipe with settings on top.
//!
//! The runs are all combinations of a `[[run]]` (one without settings if there is none), a value for each key of
//! `[grid]`, and a seed (the recipe's own unless there are `seeds`). `[set]` holds for all of them.

use super::Resolved;
use super::tables::{self, first_kinds_first, from_table, kinds_first, parse_table};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The key that `seeds` sets.
const SEED: &str = "train.seed";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepFile {
    /// A built-in recipe's name, or a file that ends in .toml.
    recipe: String,
    /// Where the runs' directories go; unless given: checkpoints/ and the file's name.
    out: Option<PathBuf>,
    /// Each run once with each of these.
    #[serde(default)]
    seeds: Vec<u64>,
    /// Settings of every run: a recipe's keys.
    #[serde(default)]
    set: Table,
    /// A recipe's keys, each with the list of its values.
    #[serde(default)]
    grid: Table,
    #[serde(default)]
    run: Vec<RunBlock>,
}

/// `[[run]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunBlock {
    /// The name of its directory and in tables.
    name: String,
    /// Another recipe than the sweep's.
    recipe: Option<String>,
    /// Its settings, over those of all runs.
    #[serde(default)]
    set: Table,
}

/// Several runs.
#[derive(Debug)]
pub struct Sweep {
    /// The directory of the runs' directories.
    pub out: PathBuf,
    /// In the order in which they are trained: all with the first seed, then all with the next.
    pub runs: Vec<Planned>,
}

/// One run of a sweep.
#[derive(Debug)]
pub struct Planned {
    /// Its directory's name.
    pub name: String,
    /// Its recipe's name or file.
    pub recipe: String,
    /// `key=value` on top of the recipe, the later over the earlier.
    pub settings: Vec<String>,
    /// Both together.
    pub resolved: Resolved,
}

/// Some settings and what they are called.
#[derive(Clone, Debug, Default)]
struct Variant {
    names: Vec<String>,
    settings: Vec<String>,
}

impl Sweep {
    /// Reads a sweep's file; `settings` come on top of every run's.
    ///
    /// # Errors
    /// If a key or a recipe is unknown, a run could not be trained, or two have the same name; names the run.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::config(format!("{}: {error}", path.display())))?;
        Self::parse(&text, path, settings)
    }

    fn parse(text: &str, path: &Path, settings: &[String]) -> Result<Self> {
        let refuse = |what: String| Error::config(format!("{}: {what}", path.display()));
        let mut file: SweepFile = from_table(parse_table(text, path)?, &path.display().to_string())?;
        if file.run.is_empty() {
            file.run.push(RunBlock::default());
        }
        let grid = grid(&file.grid).map_err(refuse)?;
        let seeds = seeds(&file.seeds);
        check_varied(&file, settings).map_err(refuse)?;
        let mut runs = Vec::new();
        for seed in &seeds {
            for block in &file.run {
                for point in &grid {
                    let planned = plan(&file, block, point, seed, settings);
                    runs.push(planned.map_err(|(name, error)| refuse(format!("run {name:?}: {error}")))?);
                }
            }
        }
        check_names(&runs).map_err(refuse)?;
        let stem = path.file_stem().unwrap_or_default();
        Ok(Self { out: file.out.unwrap_or_else(|| Path::new("checkpoints").join(stem)), runs })
    }
}

fn plan(
    file: &SweepFile,
    block: &RunBlock,
    point: &Variant,
    seed: &Variant,
    last: &[String],
) -> std::result::Result<Planned, (String, Error)> {
    let names = [std::slice::from_ref(&block.name), &point.names, &seed.names].concat();
    let name = names.iter().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>().join("-");
    let settings = [
        leaves(&file.set),
        leaves(&block.set),
        kinds_first(&point.settings),
        seed.settings.clone(),
        last.to_vec(),
    ];
    let settings = first_kinds_first(&settings.concat());
    let recipe = block.recipe.as_ref().unwrap_or(&file.recipe).clone();
    match Resolved::new(&recipe, &settings) {
        Ok(resolved) if name.is_empty() => {
            Ok(Planned { name: resolved.name.clone(), recipe, settings, resolved })
        }
        Ok(resolved) => Ok(Planned { name, recipe, settings, resolved }),
        Err(error) => Err((name, error)),
    }
}

/// `key=value` for each leaf of a table of settings; a `kind` comes before what belongs to it.
fn leaves(table: &Table) -> Vec<String> {
    let table = Value::Table(table.clone());
    let mut leaves = tables::leaves("", &table);
    let is_kind = |key: &str| key == "kind" || key.ends_with(".kind");
    leaves.sort_by_key(|(key, _)| !is_kind(key));
    leaves.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// All combinations of the keys' values; one without settings if there is no key.
fn grid(table: &Table) -> std::result::Result<Vec<Variant>, String> {
    let table = Value::Table(table.clone());
    let mut all = vec![Variant::default()];
    for (key, values) in tables::leaves("", &table) {
        let Value::Array(values) = values else {
            return Err(format!("grid.{key} is {values}, wanted the list of its values"));
        };
        all = all.iter().flat_map(|before| values.iter().map(|value| before.with(&key, value))).collect();
    }
    if all.is_empty() {
        Err("a key of [grid] has no values: there is nothing to run".into())
    } else {
        Ok(all)
    }
}

fn seeds(seeds: &[u64]) -> Vec<Variant> {
    let of_seed = |&seed: &u64| Variant {
        names: vec![format!("seed-{seed}")],
        settings: vec![format!("{SEED}={seed}")],
    };
    if seeds.is_empty() { vec![Variant::default()] } else { seeds.iter().map(of_seed).collect() }
}

impl Variant {
    /// With one more setting, called by the key's last part and the value.
    fn with(&self, key: &str, value: &Value) -> Self {
        let short = key.rsplit('.').next().unwrap_or(key);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let mut more = self.clone();
        more.names.push(format!("{short}-{}", file_name(&text)));
        more.settings.push(format!("{key}={value}"));
        more
    }
}

/// The text with only characters that a directory's name can have on every system.
fn file_name(text: &str) -> String {
    let kept = |character: char| character.is_alphanumeric() || "._-".contains(character);
    let parts = text.split(|character| !kept(character)).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_")
}

/// Refuses a key that has several values by `[grid]` or `seeds` and one by something else too, which would win silently. That
/// of `[set]` is for the runs that have no other.
fn check_varied(file: &SweepFile, last: &[String]) -> std::result::Result<(), String> {
    let grid = Value::Table(file.grid.clone());
    let mut varied: Vec<(String, &str)> =
        tables::leaves("", &grid).into_iter().map(|(key, _)| (key, "[grid]")).collect();
    let clash = |key: &str, varied: &[(String, &'static str)]| {
        let lies_in = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = varied.iter().find(|(other, _)| lies_in(key, other) || lies_in(other, key));
        found.map(|(_, by)| *by)
    };
    let refuse = |key: &str, whose: &str, by: &str| {
        Err(format!("{key} has its values by {by}, and another one by {whose}: give it in one place"))
    };
    if !file.seeds.is_empty() {
        if let Some(by) = clash(SEED, &varied) {
            return refuse(SEED, "seeds", by);
        }
        varied.push((SEED.into(), "seeds"));
    }
    let of_runs = file.run.iter().flat_map(|block| {
        leaves(&block.set).into_iter().map(move |setting| (format!("run {:?}", block.name), setting))
    });
    let given = last.iter().map(|setting| ("--set".to_string(), setting.clone()));
    for (whose, setting) in of_runs.chain(given) {
        let key = setting.split('=').next().unwrap_or_default().trim();
        if let Some(by) = clash(key, &varied) {
            return refuse(key, &whose, by);
        }
    }
    Ok(())
}

fn check_names(runs: &[Planned]) -> std::result::Result<(), String> {
    let mut known = BTreeSet::new();
    for Planned { name, .. } in runs {
        if file_name(name) != *name || name.starts_with('.') {
            return Err(format!(
                "run {name:?}: a run's name is its directory's: wanted letters, digits, '-', '_' and '.'"
            ));
        }
        if !known.insert(name) {
            return Err(format!("two runs are called {name:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Sweep;
    use std::path::Path;

    fn sweep(text: &str) -> Sweep {
        Sweep::parse(text, Path::new("sweeps/mine.toml"), &["train.epochs=2".into()]).unwrap()
    }

    fn error(text: &str) -> String {
        Sweep::parse(text, Path::new("mine.toml"), &[]).unwrap_err().to_string()
    }

    fn names(sweep: &Sweep) -> Vec<&str> {
        sweep.runs.iter().map(|run| run.name.as_str()).collect()
    }

    #[test]
    fn a_key_with_several_values_has_no_other_one() {
        let head = "recipe = \"ptb-rhn\"\nseeds = [1, 2]\n";
        let found = error(&format!("{head}[grid]\ntrain.seed = [5, 6]"));
        assert!(found.contains("train.seed has its values by [grid], and another one by seeds"), "{found}");
        let wide = "[[run]]\nname = \"wide\"\nset.model.core.hidden_size = 16";
        let found = error(&format!("{head}[grid]\nmodel.core.hidden_size = [8, 12]\n{wide}"));
        assert!(found.contains("model.core.hidden_size") && found.contains("run \"wide\""), "{found}");
        let given = ["train.seed=9".to_string()];
        let found = Sweep::parse(head, Path::new("mine.toml"), &given).unwrap_err().to_string();
        assert!(found.contains("by seeds, and another one by --set"), "{found}");
        let found = error(&format!(
            "{head}[grid]\ntrain.dropout.input = [0.1]\n[[run]]\nname = \"a\"\nset.train.seed = 3"
        ));
        assert!(found.contains("train.seed"), "{found}");
    }

    #[test]
    fn a_run_of_another_kind_keeps_what_is_set_for_all_runs() {
        let core = |all: &str, own: &str| {
            let runs = "[[run]]\nname = \"b\"\n";
            let sweep = sweep(&format!("recipe = \"text\"\n[set]\n{all}\n{runs}set = {{ {own} }}"));
            serde_json::to_value(&sweep.runs[0].resolved.recipe.model.core).unwrap()
        };
        let all = "model.core.layers = 2\nmodel.core.hidden_size = 16";
        let found = core(all, "model.core.kind = \"lstm\"");
        assert_eq!(
            (&found["kind"], &found["layers"], &found["hidden_size"]),
            (&"lstm".into(), &2.into(), &16.into())
        );
        let found = core(all, "model.core.kind = \"lstm\", model.core.hidden_size = 8");
        assert_eq!((&found["layers"], &found["hidden_size"]), (&2.into(), &8.into()));
        // A kind for all runs has its own keys, which another one takes away with it.
        let all = format!("model.core.kind = \"gru\"\n{all}");
        let found = core(&all, "model.core.kind = \"lstm\", model.core.hidden_size = 8");
        assert_eq!((&found["kind"], &found["layers"]), (&"lstm".into(), &1.into()));
    }

    #[test]
    fn the_runs_are_all_combinations_and_the_seed_changes_last() {
        let sweep = sweep(
            "recipe = \"ptb-rhn\"\nseeds = [1, 7]\n[grid]\nmodel.core.recurrence_depth = [2, 3]\n\
             [[run]]\nname = \"a\"\n[[run]]\nname = \"b\"\nset = { train.batch_size = 5 }",
        );
        let first =
            ["a-recurrence_depth-2", "a-recurrence_depth-3", "b-recurrence_depth-2", "b-recurrence_depth-3"];
        let all: Vec<String> =
            ["seed-1", "seed-7"].iter().flat_map(|seed| first.map(|run| format!("{run}-{seed}"))).collect();
        assert_eq!(names(&sweep), all);
        let train = &sweep.runs[7].resolved.recipe.train;
        assert_eq!((train.batch_size, train.seed, train.epochs), (5, 7, 2));
        assert_eq!(sweep.out, Path::new("checkpoints/mine"));
    }

    #[test]
    fn seeds_alone_are_a_sweep() {
        assert_eq!(names(&sweep("recipe = \"text\"\nseeds = [1, 2, 3]")), ["seed-1", "seed-2", "seed-3"]);
        assert_eq!(names(&sweep("recipe = \"text\"")), ["text"]);
    }

    #[test]
    fn a_kind_and_what_belongs_to_it_can_be_set_together() {
        let text = "recipe = \"ptb-rhn\"\nset.train.schedule = { constant_epochs = 3, factor = 1.5, kind = \"decay-per-epoch\" }\n\
             [[run]]\nname = \"halved\"\nset.train.schedule = { after_epochs = 4, kind = \"halve-on-plateau\" }";
        let described = sweep(text).runs[0].resolved.describe();
        assert!(
            described.contains("schedule.after_epochs = 4") && !described.contains("constant_epochs"),
            "{described}"
        );
    }

    #[test]
    fn a_grid_of_kinds_keeps_what_else_it_sets() {
        let text = "recipe = \"ptb-rhn\"\n[grid]\nmodel.core.hidden_size = [8]\nmodel.core.kind = [\"rhn\", \"lstm\"]";
        let sizes = sweep(text)
            .runs
            .iter()
            .map(|run| run.resolved.recipe.model.core.hidden_size())
            .collect::<Vec<_>>();
        assert_eq!(sizes, [8, 8]);
    }

    #[test]
    fn a_value_of_a_grid_may_be_a_text_or_a_list() {
        let text = "recipe = \"ptb-rhn\"\n[grid]\ntrain.optimizer = [\"sgd\", \"adam\"]\ncorpus.split = [[90, 5, 5], [80, 10, 10]]";
        let found = sweep(text);
        let wanted = ["split-90_5_5-optimizer-sgd", "split-90_5_5-optimizer-adam"];
        assert_eq!(names(&found)[..2], wanted);
        assert_eq!(found.runs[3].resolved.recipe.corpus.split, [80.0, 10.0, 10.0]);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_nearest() {
        assert!(error("recipe = \"text\"\nsead = [1]").contains("Did you mean seeds?"));
        assert!(error("recipe = \"text\"\n[[run]]\nnmae = \"a\"").contains("Did you mean name?"));
        assert!(error("recipe = \"ptb-rnh\"").contains("Did you mean ptb-rhn"));
        let found = error("recipe = \"text\"\n[[run]]\nname = \"a\"\nset = { train.epoch = 3 }");
        assert!(
            found.starts_with("mine.toml: run \"a\": ") && found.contains("Did you mean epochs?"),
            "{found}"
        );
    }

    #[test]
    fn a_sweep_that_cannot_be_run_is_refused() {
        assert!(error("recipe = \"text\"\ngrid.train.epochs = 3").contains("wanted the list of its values"));
        assert!(error("recipe = \"text\"\ngrid.train.epochs = []").contains("nothing to run"));
        assert!(error("recipe = \"text\"\nseeds = [1, 1]").contains("two runs are called \"seed-1\""));
        assert!(
            error("recipe = \"text\"\n[[run]]\nname = \"../a\"").contains("a run's name is its directory's")
        );
    }
}
