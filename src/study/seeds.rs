//! Runs that differ in their seed alone, taken together: mean, standard deviation and range.

use super::differences::settings;
use super::measure::Measure;
use super::run::RunHistory;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SEED: &str = "train.seed";

/// Runs that differ in their seed alone. Unfinished ones are counted, but their numbers are not in the spreads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    /// What their names share.
    pub name: String,
    /// The seeds of the finished ones. A run that has the seed and the figures of one before it is its copy, and
    /// counts once.
    pub seeds: Vec<Value>,
    pub unfinished: usize,
    /// The best epoch of the validation split; none if one of the finished runs has no finite figure.
    pub valid: Option<Spread>,
    /// The same of the test split.
    pub test: Option<Spread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub mean: f64,
    /// The standard deviation of the sample, whose squares are divided by one less than there are; none of a single value.
    pub sd: Option<f64>,
    pub min: f64,
    pub max: f64,
}

/// The groups in the order of their first runs, if any has more than one seed.
pub(crate) fn groups(runs: &[RunHistory], measure: Measure) -> Vec<Group> {
    let mut groups: Vec<(BTreeMap<String, Value>, Vec<&RunHistory>)> = Vec::new();
    for run in runs {
        let mut key = settings(run);
        key.remove(SEED);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    let seeds = |runs: &Vec<&RunHistory>| {
        runs.iter().map(|run| run.start.recipe["train"]["seed"].to_string()).collect::<BTreeSet<_>>().len()
    };
    if groups.iter().all(|(_, runs)| seeds(runs) < 2) {
        return Vec::new();
    }
    groups.iter().map(|(_, runs)| Group::of(runs, measure)).collect()
}

impl Group {
    fn of(runs: &[&RunHistory], measure: Measure) -> Self {
        let finished = runs.iter().filter(|run| run.result.is_some());
        let unfinished = runs.len() - finished.clone().count();
        let mut figures: Vec<(Value, Option<f64>, Option<f64>)> = Vec::new();
        for run in finished {
            let valid = run.best().and_then(|best| measure.valid(run, best));
            let of_run = (run.start.recipe["train"]["seed"].clone(), valid, measure.test(run));
            if !figures.contains(&of_run) {
                figures.push(of_run);
            }
        }
        Self {
            name: shared_name(runs),
            seeds: figures.iter().map(|(seed, ..)| seed.clone()).collect(),
            unfinished,
            valid: Spread::of(figures.iter().map(|(_, valid, _)| *valid)),
            test: Spread::of(figures.iter().map(|(.., test)| *test)),
        }
    }
}

impl Spread {
    /// Of all values, or of none: a mean without the runs that ended worst would be another figure.
    fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> =
            values.map(|value| value.filter(|value| value.is_finite())).collect::<Option<_>>()?;
        let min = values.iter().copied().fold(f64::MAX, f64::min);
        let max = values.iter().copied().fold(f64::MIN, f64::max);
        let (mean, sd) = mean_and_sd(&values);
        mean.map(|mean| Self { mean, sd, min, max })
    }

    /// `98.20 ± 0.70 (97.50 – 98.90)`, with the standard deviation, or the one value.
    pub(crate) fn show(&self, measure: Measure) -> String {
        let [mean, min, max] = [self.mean, self.min, self.max].map(|value| measure.show(value));
        let sd = self.sd.map_or(String::new(), |sd| format!(" ± {}", measure.show(sd)));
        if self.min < self.max { format!("{mean}{sd} ({min} – {max})") } else { mean }
    }
}

/// The mean, and with two values or more the standard deviation of a sample.
pub(crate) fn mean_and_sd(values: &[f64]) -> (Option<f64>, Option<f64>) {
    if values.is_empty() {
        return (None, None);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (Some(mean), (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}

/// The beginning that all names have, without `seed` and what joins it; the first name if there is none. Words and
/// numbers are not cut in two, a number is cut off whole.
fn shared_name(runs: &[&RunHistory]) -> String {
    let first = &runs[0].name;
    if runs.len() == 1 {
        return first.clone();
    }
    let shared = |length: &usize| runs.iter().all(|run| run.name.get(..*length) == first.get(..*length));
    let length =
        (0..=first.len()).rev().filter(|&length| first.is_char_boundary(length)).find(shared).unwrap_or(0);
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let length = match runs.iter().all(|run| run.name.len() == length || is_number(&run.name[length..])) {
        true => first[..length].trim_end_matches(|end: char| end.is_ascii_digit()).len(),
        false => first[..length].rfind(|end: char| !end.is_alphanumeric()).unwrap_or(0),
    };
    let name = first[..length].trim_end_matches(|end: char| !end.is_alphanumeric());
    let name = name.strip_suffix("seed").unwrap_or(name).trim_end_matches(|end: char| !end.is_alphanumeric());
    if name.is_empty() { first.clone() } else { name.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::{epoch, read, result, start};
    use super::{Measure, Spread, groups, mean_and_sd};

    #[test]
    fn the_spread_is_that_of_a_sample() {
        assert_eq!(mean_and_sd(&[1.0, 3.0]), (Some(2.0), Some(2f64.sqrt())));
        assert_eq!(mean_and_sd(&[5.0]), (Some(5.0), None));
        assert_eq!(mean_and_sd(&[]), (None, None));
    }

    #[test]
    fn runs_that_differ_in_their_seed_have_mean_and_range() {
        let run = |name, seed, nats: f64| read(name, &[start(seed), epoch(1, nats), result(nats - 1.0)]);
        let again = [run("a", 1, 4.0), run("copy-of-a", 1, 4.0)];
        assert!(groups(&again, Measure::Nats).is_empty(), "one seed twice is not two");
        let mut other = start(1);
        other["recipe"]["train"]["epochs"] = 9.into();
        let runs = [
            run("l3-seed-1", 1, 4.0),
            read("l5", &[other, epoch(1, 3.0), result(2.0)]),
            run("l3-seed-2", 2, 5.0),
        ];
        let found = groups(&runs, Measure::Nats);
        assert_eq!(found.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["l3", "l5"]);
        let sd = Some(0.5f64.sqrt());
        assert_eq!(found[0].valid, Some(Spread { mean: 4.5, sd, min: 4.0, max: 5.0 }));
        assert_eq!(found[0].test.unwrap().show(Measure::Nats), "3.5000 ± 0.7071 (3.0000 – 4.0000)");
        assert_eq!(found[1].test.unwrap().sd, None);
        assert_eq!(found[1].test.unwrap().show(Measure::Nats), "2.0000");
        assert!(groups(&runs[..2], Measure::Nats).is_empty());

        let copied =
            [run("seed-1", 1, 4.0), run("seed-2", 2, 5.0), run("copy-of-2", 2, 5.0), run("again-2", 2, 6.0)];
        let found = groups(&copied, Measure::Nats);
        assert_eq!(
            found[0].valid,
            Some(Spread { mean: 5.0, sd: Some(1.0), min: 4.0, max: 6.0 }),
            "a copy counts once"
        );
        assert_eq!(found[0].seeds, [1, 2, 2], "another run of the same seed is not a copy");
    }

    #[test]
    fn a_group_has_the_name_that_its_runs_share_and_no_part_of_a_word() {
        let named = |names: &[&str]| {
            let runs: Vec<_> = names.iter().zip(1..).map(|(name, seed)| read(name, &[start(seed)])).collect();
            groups(&runs, Measure::Nats)[0].name.clone()
        };
        assert_eq!(named(&["l3-seed-1", "l3-seed-12"]), "l3");
        assert_eq!(named(&["run1", "run23"]), "run");
        assert_eq!(named(&["run", "run2"]), "run");
        assert_eq!(named(&["four", "from-four"]), "four");
        assert_eq!(named(&["wide-one", "wide-other"]), "wide");
        assert_eq!(named(&["é1", "è2"]), "é1");
    }

    #[test]
    fn runs_that_began_with_other_weights_are_no_seeds_of_each_other() {
        let mut other = start(2);
        other["begun_from"] = "ab12".into();
        assert!(groups(&[read("a1", &[start(1)]), read("a2", &[other])], Measure::Nats).is_empty());
    }

    #[test]
    fn no_mean_leaves_out_a_run_without_a_finite_figure() {
        let run = |name, seed, nats: f64| read(name, &[start(seed), epoch(1, 4.0), result(nats)]);
        let runs = [run("a1", 1, 4.0), run("a2", 2, 798.4)]; // a perplexity of e^798
        let found = groups(&runs, Measure::Perplexity);
        assert_eq!((found[0].seeds.len(), found[0].test), (2, None));
        assert!(found[0].valid.is_some());
        assert_eq!(groups(&runs, Measure::Nats)[0].test.unwrap().max, 798.4);
    }

    #[test]
    fn an_unfinished_run_is_counted_apart() {
        let runs =
            [read("a1", &[start(1), epoch(1, 4.0), result(4.0)]), read("a2", &[start(2), epoch(1, 9.0)])];
        let found = groups(&runs, Measure::Nats);
        assert_eq!((found[0].seeds.len(), found[0].unfinished), (1, 1));
        assert_eq!(found[0].valid, Some(Spread { mean: 4.0, sd: None, min: 4.0, max: 4.0 }));
    }
}
