//! What differs between the recipes of runs: the keys, each with every run's value.

use super::run::RunHistory;
use crate::config::recipe::Recipe;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// For each key that is not the same in all runs: its value in each, `None` where it is not set.
pub(crate) type Differences = BTreeMap<String, Vec<Option<Value>>>;

/// What differs between these runs: their recipes' keys, the text behind the corpus's name, the weights that they began with,
/// the numbers computed with, the program's version.
pub(crate) fn between(runs: &[RunHistory]) -> Differences {
    let settings: Vec<_> = runs.iter().map(settings).collect();
    let keys = settings.iter().flat_map(|settings| settings.keys().cloned());
    let values = |key: &String| settings.iter().map(|settings| settings.get(key).cloned()).collect();
    let all = keys.map(|key| (values(&key), key)).map(|(values, key): (Vec<_>, _)| (key, values));
    all.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

/// All that fixes a run's numbers, by dotted key.
pub(crate) fn settings(run: &RunHistory) -> BTreeMap<String, Value> {
    let start = &run.start;
    let mut settings = BTreeMap::new();
    walk("", &filled_in(&start.recipe), &mut settings);
    settings
        .insert("corpus (SHA-256)".into(), start.corpus_sha256.chars().take(8).collect::<String>().into());
    if let Some(weights) = &start.begun_from {
        settings.insert("--init-from (SHA-256)".into(), weights.chars().take(8).collect::<String>().into());
    }
    settings.insert("precision".into(), start.precision.clone().into());
    settings.insert("version".into(), start.version.clone().into());
    settings
}

/// The recipe with the keys that an earlier version did not have yet, by their defaults: they say what it did. As it is, where
/// this version does not understand it.
fn filled_in(recipe: &Value) -> Value {
    let known = Recipe::deserialize(recipe).ok();
    known.and_then(|recipe| serde_json::to_value(recipe).ok()).unwrap_or_else(|| recipe.clone())
}

fn walk(key: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    let Value::Object(table) = value else {
        leaves.insert(key.into(), value.clone());
        return;
    };
    for (name, value) in table {
        let name = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        walk(&name, value, leaves);
    }
}

/// A value as a table shows it.
pub(crate) fn show(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".into(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::{read, start};
    use super::between;
    use crate::config::Resolved;
    use serde_json::{json, to_value};

    #[test]
    fn only_the_keys_that_differ_are_told_with_each_runs_value() {
        let first = start(1);
        let mut second = start(2);
        second["begun_from"] = "0123456789abcdef".into();
        second["recipe"]["train"]["schedule"] = json!({"kind": "cosine"});
        second["precision"] = "bf16".into();
        let runs = [read("a", &[first]), read("b", &[second])];
        let found: Vec<_> = between(&runs).into_iter().collect();
        let wanted = [
            ("--init-from (SHA-256)".to_string(), vec![None, Some(json!("01234567"))]),
            ("precision".to_string(), vec![Some(json!("f32")), Some(json!("bf16"))]), // the first run does not say
            ("train.schedule.kind".to_string(), vec![None, Some(json!("cosine"))]),
            ("train.seed".to_string(), vec![Some(json!(1)), Some(json!(2))]),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_key_that_an_older_recipe_lacks_has_its_default() {
        let recipe = to_value(Resolved::new("ptb-rhn", &[]).unwrap().recipe).unwrap();
        let mut runs = [start(1), start(1), start(1)];
        runs.iter_mut().for_each(|run| run["recipe"] = recipe.clone());
        let older = runs[1]["recipe"]["train"].as_object_mut().unwrap();
        let default = older.remove("on_divergence").unwrap();
        assert!(older.remove("min_epoch_steps").is_some());
        assert!(between(&[read("a", &runs[..1]), read("b", &runs[1..2])]).is_empty());
        runs[2]["recipe"]["train"]["on_divergence"] = "warn".into();
        let found = between(&[read("b", &runs[1..2]), read("c", &runs[2..])]);
        let wanted = ("train.on_divergence".to_string(), vec![Some(default), Some(json!("warn"))]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [wanted]);
    }
}
