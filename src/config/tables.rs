//! Tables of TOML: dotted keys, one table over another, and what is in a table as settings.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

/// The table that a file's text is; `path` is for messages.
pub(super) fn parse_table(text: &str, path: &Path) -> Result<Table> {
    toml::from_str(text)
        .map_err(|error: toml::de::Error| Error::config(format!("{}: {error}", path.display())))
}

/// The key and the value of `key=value`; what is no TOML is a string.
pub(super) fn parse_setting(setting: &str) -> Result<(&str, Value)> {
    let (key, value) = setting
        .split_once('=')
        .filter(|(key, _)| key.split('.').all(|part| !part.trim().is_empty()))
        .ok_or_else(|| Error::config(format!("--set {setting}: wanted key=value, say train.epochs=3")))?;
    let parsed = toml::from_str::<Table>(&format!("value = {value}")).ok();
    let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    Ok((key.trim(), parsed.unwrap_or_else(|| Value::String(value.into()))))
}

/// Settings `key=value` that were given at once, in an order in which none is swept away by a `kind` that comes after it: such a
/// one goes before the first setting of its own table, unless another kind or the whole table is set in between.
pub(crate) fn kinds_first(settings: &[String]) -> Vec<String> {
    moved(settings, |_| true)
}

/// As [`kinds_first`], of settings for several runs with those of one behind them: where those say of which kind a table is,
/// the others may have set keys of it. A second kind is another table, and sweeps them away.
pub(super) fn first_kinds_first(settings: &[String]) -> Vec<String> {
    moved(settings, |start| start == 0)
}

/// Each `kind` before what belongs to it since its table was set anew, at `start`, if it `is_moved` from there.
fn moved(settings: &[String], is_moved: impl Fn(usize) -> bool) -> Vec<String> {
    let mut settings = settings.to_vec();
    let key = |setting: &str| setting.split('=').next().unwrap_or_default().trim().to_owned();
    for at in 0..settings.len() {
        let kind = key(&settings[at]);
        let Some(table) = kind.strip_suffix(".kind") else { continue };
        let sets_anew = |setting: &String| key(setting) == kind || lies_under(table, &key(setting));
        let start = settings[..at].iter().rposition(sets_anew).map_or(0, |last| last + 1);
        if !is_moved(start) {
            continue;
        }
        if let Some(first) = settings[start..at].iter().position(|setting| lies_under(&key(setting), table)) {
            settings[start + first..=at].rotate_right(1);
        }
    }
    settings
}

/// Sets a dotted key; a new `kind` sweeps away what belonged to the old one.
pub(super) fn set(table: &mut Table, key: &str, value: Value, setting: &str) -> Result<()> {
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
pub(super) fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// Whether a dotted key is `table` or one in it.
pub(super) fn lies_under(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Puts `top` over `base`; a table of another `kind` replaces the one below it.
pub(super) fn merge(base: &mut Table, top: Table) {
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
    let kept = if is_shallow(&table) { table.clone() } else { Table::new() };
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let what = error.inner().to_string();
        let key = with_value(&kept, &key, &what).unwrap_or(key);
        let what = what.trim().lines().next().unwrap_or_default(); // the next would name the key again
        let suggestion = suggestion(what).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
        let key = if key == "." { String::new() } else { format!("{key}: ") };
        Error::config(format!("{source}: {key}{what}.{suggestion}"))
    })
}

/// Whether a table is no deeper than a recipe can be: what goes through a deeper one by recursion could end the stack.
fn is_shallow(table: &Table) -> bool {
    const DEEPEST: usize = 16;
    let mut level: Vec<&Value> = table.values().collect();
    for _ in 0..DEEPEST {
        let below = level.into_iter().flat_map(|value| match value {
            Value::Table(table) => table.values().collect::<Vec<_>>(),
            Value::Array(values) => values.iter().collect(),
            _ => Vec::new(),
        });
        level = below.collect();
    }
    level.is_empty()
}

/// The key below `key` whose value a message such as "invalid value: integer `-1`, expected usize" shows, if there is one alone:
/// a table that has a `kind` is read as a whole, and its path ends there.
fn with_value(table: &Table, key: &str, message: &str) -> Option<String> {
    let shown = message.strip_prefix("invalid ")?.split('`').nth(1)?;
    let outer = lookup(table, key).filter(|value| value.is_table())?;
    let mut found = leaves(key, outer).into_iter().filter(|(_, value)| value.to_string() == shown);
    let (key, _) = found.next()?;
    found.next().is_none().then_some(key)
}

/// The nearest of the names that a message such as "unknown field `a`, expected one of `b`, `c`" offers.
fn suggestion(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let found = message.starts_with("unknown").then(|| names.next())??;
    nearest(found, names).map(str::to_string)
}

/// The known name most like this one, if one is like it.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > ALIKE).map(|(_, known)| known)
}
