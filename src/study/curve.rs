//! The points of a learning curve.

use super::measure::Measure;
use super::run::RunHistory;
use crate::events::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Along {
    /// Passes over the training split
    Epoch,
    /// Updates of the weights
    Step,
    /// Tokens trained on
    Tokens,
    /// Wall-clock time of the run
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CurveSplit {
    /// The validation split, at each epoch's end
    Valid,
    /// The training split, with dropout, over each epoch
    Train,
    /// Both: validation solid, training dashed
    Both,
}

impl CurveSplit {
    pub(crate) fn each(self) -> &'static [Self] {
        match self {
            Self::Valid => &[Self::Valid],
            Self::Train => &[Self::Train],
            Self::Both => &[Self::Valid, Self::Train],
        }
    }
}

/// `(along, loss)` of each row whose numbers are there and finite; `split` is one split.
pub(crate) fn points(run: &RunHistory, split: CurveSplit, along: Along, measure: Measure) -> Vec<(f64, f64)> {
    let loss = |epoch: &Epoch| match split {
        CurveSplit::Train => measure.train(run, epoch),
        CurveSplit::Valid | CurveSplit::Both => measure.valid(run, epoch),
    };
    let rows = match split {
        CurveSplit::Train => run.epochs.iter().collect(), // within an epoch its mean is not known yet
        CurveSplit::Valid | CurveSplit::Both => run.rows(),
    };
    rows.into_iter().filter_map(|row| Some((position(run, row, along)?, loss(row)?))).collect()
}

/// Where a row lies along an axis; one within an epoch lies between the whole numbers.
fn position(run: &RunHistory, epoch: &Epoch, along: Along) -> Option<f64> {
    match along {
        Along::Epoch => Some(epochs(run, epoch)),
        Along::Step => Some(epoch.step as f64),
        Along::Tokens => Some(epoch.tokens as f64),
        Along::Time => epoch.seconds,
    }
}

/// The epochs until a row. Epochs need not have the same number of steps: an epoch's end is known by its own row, and only
/// before it by the steps that the run said an epoch has.
fn epochs(run: &RunHistory, row: &Epoch) -> f64 {
    let end = |epoch: u64| run.epochs.iter().find(|other| other.epoch == epoch).map(|other| other.step);
    let per_epoch = run.start.steps_per_epoch;
    let end_of_this = end(row.epoch);
    if per_epoch == 0 || end_of_this == Some(row.step) {
        return row.epoch as f64;
    }
    let before = row.epoch.saturating_sub(1);
    let begin = end(before).unwrap_or(before * per_epoch);
    let steps = end_of_this.map_or(per_epoch, |end| end.saturating_sub(begin)).max(1);
    before as f64 + row.step.saturating_sub(begin) as f64 / steps as f64
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::{epoch, read, start};
    use super::{Along, CurveSplit, Measure, points};

    #[test]
    fn a_curve_has_a_point_an_epoch() {
        let run = read("run", &[start(1), epoch(1, 5.0), epoch(2, 4.0)]);
        let curve = |split, along, measure| points(&run, split, along, measure);
        assert_eq!(curve(CurveSplit::Valid, Along::Epoch, Measure::Nats), [(1.0, 5.0), (2.0, 4.0)]);
        assert_eq!(curve(CurveSplit::Train, Along::Step, Measure::Nats), [(10.0, 5.5), (20.0, 4.5)]);
        assert_eq!(
            curve(CurveSplit::Valid, Along::Tokens, Measure::BitsPerChar),
            [(700.0, 1.25), (1400.0, 1.0)]
        );
        let perplexity = [(60.0, 5f64.exp()), (120.0, 4f64.exp())];
        assert_eq!(curve(CurveSplit::Valid, Along::Time, Measure::Perplexity), perplexity);
    }

    #[test]
    fn a_row_within_an_epoch_has_its_point_on_the_validation_curve() {
        let mut begin = start(1);
        begin["steps_per_epoch"] = 10.into();
        let mut within = epoch(2, 4.5);
        within["event"] = "evaluation".into();
        within["step"] = 15.into();
        let run = read("run", &[begin, epoch(1, 5.0), within, epoch(2, 4.0)]);
        let curve = |split| points(&run, split, Along::Epoch, Measure::Nats);
        assert_eq!(curve(CurveSplit::Valid), [(1.0, 5.0), (1.5, 4.5), (2.0, 4.0)]);
        assert_eq!(curve(CurveSplit::Train), [(1.0, 5.5), (2.0, 4.5)]);
    }

    #[test]
    fn epochs_of_different_lengths_end_at_whole_numbers() {
        let mut begin = start(1);
        begin["steps_per_epoch"] = 10.into();
        let with_step = |mut row: serde_json::Value, step: u64| {
            row["step"] = step.into();
            row
        };
        let mut within = with_step(epoch(2, 4.5), 17);
        within["event"] = "evaluation".into();
        let mut last = with_step(epoch(3, 3.5), 27);
        last["event"] = "evaluation".into();
        let rows = [begin, with_step(epoch(1, 5.0), 11), within, with_step(epoch(2, 4.0), 23), last];
        let points = points(&read("run", &rows), CurveSplit::Valid, Along::Epoch, Measure::Nats);
        assert_eq!(points, [(1.0, 5.0), (1.5, 4.5), (2.0, 4.0), (2.4, 3.5)]); // 6 of 12 steps, 4 of about 10
    }

    #[test]
    fn the_characters_of_a_training_word_are_not_known() {
        let run = read("run", &[start(1), epoch(1, 5.0)]);
        assert!(points(&run, CurveSplit::Train, Along::Epoch, Measure::BitsPerChar).is_empty());
    }

    #[test]
    fn a_loss_that_is_not_finite_has_no_point() {
        let mut broken = epoch(2, 4.0);
        broken["valid_nats_per_token"] = serde_json::Value::Null;
        let run = read("run", &[start(1), epoch(1, 5.0), broken, epoch(3, 1e3)]); // e^1000 is infinite
        let points = points(&run, CurveSplit::Valid, Along::Epoch, Measure::Perplexity);
        assert_eq!(points, [(1.0, 5f64.exp())]);
    }
}
