//! Runs in a table, and below it what differs between their recipes.

use super::differences::{self, Differences, between};
use super::markdown;
use super::measure::{Item, Measure};
use super::run::RunHistory;
use super::seeds::{self, Group, Spread};
use crate::readable::{duration, grouped};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub measure: Measure,
    /// What all runs predict one by one; none if it is not the same.
    pub item: Option<Item>,
    /// One a run, in the order given.
    pub runs: Vec<RunRow>,
    /// The keys that are not the same in all runs.
    pub differences: Differences,
    /// Runs that differ in their seed alone, taken together; empty if there are none.
    pub seeds: Vec<Group>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunRow {
    pub name: String,
    /// What it predicts one by one: a token, or the label of a sentence or an image.
    pub item: Item,
    /// How many numbers training finds.
    pub parameters: u64,
    pub epochs: u64,
    pub epochs_asked: Option<u64>,
    pub finished: bool,
    /// The epoch with the least loss on the validation split.
    pub best_epoch: Option<u64>,
    /// That epoch, on the validation split.
    pub best_valid: Option<f64>,
    /// The best epoch's weights on the test split.
    pub test: Option<f64>,
    /// Whether its losses are bounds, as those of a sentence VAE are.
    pub is_bound: bool,
    /// The test split by other protocols, which compare with their like alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub test_by_protocol: BTreeMap<String, f64>,
    /// The settings of each of these protocols by their names in JSON.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings_by_protocol: BTreeMap<String, BTreeMap<String, Value>>,
    /// Why the run has no loss in this measure, if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Training alone, in the last epoch's process; sentences or images a second where these are predicted.
    pub tokens_per_second: Option<f64>,
    /// Wall-clock time so far.
    pub seconds: Option<f64>,
}

impl Comparison {
    pub(crate) fn new(runs: &[RunHistory], measure: Measure) -> Self {
        let rows = runs.iter().map(|run| RunRow::new(run, measure)).collect();
        let item = Item::shared(runs);
        Self { measure, item, runs: rows, differences: between(runs), seeds: seeds::groups(runs, measure) }
    }

    /// One to three tables: the runs, means over seeds, what differs.
    pub(crate) fn markdown(&self) -> String {
        let mut tables = vec![self.run_table()];
        if !self.seeds.is_empty() {
            tables.push(self.seed_table());
        }
        if !self.differences.is_empty() {
            tables.push(self.difference_table());
        }
        tables.join("\n")
    }

    /// A line for each run below a head, with the keys that differ as further columns; fields that are not known are empty.
    pub(crate) fn csv(&self) -> String {
        let fixed = [
            "run",
            "measure",
            "parameters",
            "epochs",
            "epochs_asked",
            "finished",
            "best_epoch",
            "best_valid",
            "test",
            "tokens_per_second",
            "seconds",
        ];
        let protocols = self.protocols();
        let tests = protocols.iter().map(|protocol| format!("test_{protocol}"));
        let head = fixed.map(String::from).into_iter().chain(tests).chain(self.differences.keys().cloned());
        let mut lines = vec![csv_line(head)];
        for (index, row) in self.runs.iter().enumerate() {
            let differing = self.differences.values().map(|values| match &values[index] {
                None => String::new(),
                value => differences::show(value.as_ref()),
            });
            let tests = protocols
                .iter()
                .map(|protocol| row.test_by_protocol.get(protocol).map_or_else(String::new, f64::to_string));
            lines.push(csv_line(row.csv_fields(self.measure).into_iter().chain(tests).chain(differing)));
        }
        lines.concat()
    }

    /// Protocols by which any run's test split was evaluated and kept.
    fn protocols(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.runs.iter().flat_map(|row| row.test_by_protocol.keys()).collect();
        all.into_iter().cloned().collect()
    }

    fn run_table(&self) -> String {
        let measure = self.measure.name(self.item);
        let valid = format!("valid {measure}");
        let test = format!("test {measure}");
        let speed = self.item.map_or("speed".into(), |item| format!("{}s/s", item.name()));
        let head = ["run", "parameters", "epochs", "best epoch", &valid, &test, &speed, "time"];
        let protocols = self.protocols();
        let further = protocols.iter().map(|protocol| format!("{test} ({protocol})"));
        let head: Vec<String> = head.map(String::from).into_iter().chain(further).collect();
        let by_protocol = |row: &RunRow, protocol: &String| {
            let test = row.test_by_protocol.get(protocol);
            test.map_or_else(|| "–".into(), |&test| self.measure.show(test))
        };
        let cells = |row: &RunRow| {
            let further = protocols.iter().map(|protocol| by_protocol(row, protocol));
            row.cells(self.measure, self.item).into_iter().chain(further).collect()
        };
        let rows: Vec<_> = self.runs.iter().map(cells).collect();
        let reason = |row: &RunRow| Some(format!("\n{}: no {measure}, {}\n", row.name, row.absent.as_ref()?));
        let reasons: String = self.runs.iter().filter_map(reason).collect();
        markdown::table(&head, &rows) + &reasons + &self.bounds() + &self.protocol_settings()
    }

    /// The settings that are not the same in all evaluations by a protocol, whose figures stand in one column.
    fn protocol_settings(&self) -> String {
        let mut lines = String::new();
        for protocol in self.protocols() {
            let of_runs =
                self.runs.iter().filter_map(|row| Some((row, row.settings_by_protocol.get(&protocol)?)));
            let of_runs: Vec<_> = of_runs.collect();
            let names: BTreeSet<&String> = of_runs.iter().flat_map(|(_, settings)| settings.keys()).collect();
            for name in names {
                let value = |settings: &BTreeMap<String, Value>| differences::show(settings.get(name));
                let values: Vec<String> = of_runs.iter().map(|(_, settings)| value(settings)).collect();
                if values.windows(2).any(|pair| pair[0] != pair[1]) {
                    let each = of_runs
                        .iter()
                        .zip(&values)
                        .map(|((row, _), value)| format!("{value} of {}", row.name));
                    lines += &format!("\n{protocol}: {name} is {}\n", each.collect::<Vec<_>>().join(", "));
                }
            }
        }
        lines
    }

    /// Which figures are bounds, where others are not.
    fn bounds(&self) -> String {
        let bounds: Vec<&RunRow> = self.runs.iter().filter(|row| row.is_bound).collect();
        if bounds.len() == self.runs.len() {
            return String::new();
        }
        let has_loss = |row: &&&RunRow| row.best_valid.is_some() || row.test.is_some();
        let line = |row: &&RunRow| format!("\n{}: an upper bound, by the sentence VAE's −ELBO\n", row.name);
        bounds.iter().filter(has_loss).map(line).collect()
    }

    fn seed_table(&self) -> String {
        let measure = self.measure.name(self.item);
        let head = ["over seeds", "seeds", &format!("valid {measure}"), &format!("test {measure}")]
            .map(String::from);
        let rows: Vec<_> = self.seeds.iter().map(|group| group_cells(group, self.measure)).collect();
        markdown::table(&head, &rows)
    }

    /// Keys are the rows if there are more keys than runs, else the columns.
    fn difference_table(&self) -> String {
        let names = || self.runs.iter().map(|row| row.name.clone());
        let shown = |values: &Vec<_>| {
            values.iter().map(|value: &Option<_>| differences::show(value.as_ref())).collect()
        };
        let columns: Vec<Vec<String>> = self.differences.values().map(shown).collect();
        let keys = || self.differences.keys().cloned();
        if columns.len() > self.runs.len() {
            let head: Vec<String> = std::iter::once("what differs".into()).chain(names()).collect();
            let rows = keys().zip(columns).map(|(key, values)| [vec![key], values].concat());
            return markdown::table(&head, &rows.collect::<Vec<_>>());
        }
        let head: Vec<String> = std::iter::once("what differs".into()).chain(keys()).collect();
        let row = |(index, name): (usize, String)| {
            std::iter::once(name).chain(columns.iter().map(|values| values[index].clone())).collect()
        };
        markdown::table(&head, &names().enumerate().map(row).collect::<Vec<_>>())
    }
}

impl RunRow {
    fn new(run: &RunHistory, measure: Measure) -> Self {
        Self {
            name: run.name.clone(),
            item: run.item(),
            is_bound: run.is_of_bound(),
            parameters: run.start.parameters,
            epochs: run.epochs.last().map_or(0, |epoch| epoch.epoch),
            epochs_asked: run.epochs_asked(),
            finished: run.result.is_some(),
            best_epoch: run.best().map(|epoch| epoch.epoch),
            best_valid: run.best().and_then(|epoch| measure.valid(run, epoch)),
            test: measure.test(run),
            test_by_protocol: run
                .kept
                .iter()
                .filter_map(|(protocol, kept)| Some((protocol.clone(), measure.kept(run, kept)?)))
                .collect(),
            settings_by_protocol: run
                .kept
                .iter()
                .map(|(protocol, kept)| (protocol.clone(), kept.settings()))
                .filter(|(_, settings)| !settings.is_empty())
                .collect(),
            absent: measure.absent(run),
            tokens_per_second: run.epochs.last().and_then(|epoch| epoch.tokens_per_second),
            seconds: run.seconds(),
        }
    }

    fn csv_fields(&self, measure: Measure) -> Vec<String> {
        fn known<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(String::new, |value| value.to_string())
        }
        vec![
            self.name.clone(),
            measure.name(Some(self.item)),
            self.parameters.to_string(),
            self.epochs.to_string(),
            known(self.epochs_asked),
            self.finished.to_string(),
            known(self.best_epoch),
            known(self.best_valid),
            known(self.test),
            known(self.tokens_per_second),
            known(self.seconds),
        ]
    }

    /// The cells of a table of runs that all predict `item`, or not the same.
    fn cells(&self, measure: Measure, item: Option<Item>) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        let speed = |speed: f64| match item {
            Some(_) => grouped(speed.round() as u64),
            None => format!("{} {}s/s", grouped(speed.round() as u64), self.item.name()),
        };
        let test = if self.finished {
            or_dash(self.test.map(|test| measure.show(test)))
        } else {
            "unfinished".into()
        };
        vec![
            self.name.clone(),
            grouped(self.parameters),
            match self.epochs_asked {
                Some(asked) if asked != self.epochs => format!("{} of {asked}", self.epochs),
                _ => self.epochs.to_string(),
            },
            or_dash(self.best_epoch.map(|epoch| epoch.to_string())),
            or_dash(self.best_valid.map(|valid| measure.show(valid))),
            test,
            or_dash(self.tokens_per_second.map(speed)),
            or_dash(self.seconds.map(duration)),
        ]
    }
}

/// Fields of a line; those with a comma, a quotation mark or a line end are quoted.
pub(crate) fn csv_line(fields: impl Iterator<Item = String>) -> String {
    let quoted = |field: String| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    };
    fields.map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

fn group_cells(group: &Group, measure: Measure) -> Vec<String> {
    let mut seeds: Vec<String> = group.seeds.iter().map(ToString::to_string).collect();
    if group.unfinished > 0 {
        seeds.push(format!("{} unfinished", group.unfinished));
    }
    let show = |spread: Option<Spread>| spread.map_or("–".into(), |spread| spread.show(measure));
    vec![group.name.clone(), seeds.join(", "), show(group.valid), show(group.test)]
}
