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
        CurveSplit::Train => measure.train(epoch, run.unit()),
        CurveSplit::Valid | CurveSplit::Both => measure.valid(epoch),
    };
    let rows = match split {
        CurveSplit::Train => run.epochs.iter().collect(), // within an epoch its mean is not known yet
        CurveSplit::Valid | CurveSplit::Both => run.rows(),
    };
    let per_epoch = run.start.steps_per_epoch;
    rows.into_iter().filter_map(|row| Some((position(row, along, per_epoch)?, loss(row)?))).collect()
}

/// Where a row lies along an axis; one within an epoch lies between the whole numbers.
fn position(epoch: &Epoch, along: Along, steps_per_epoch: u64) -> Option<f64> {
    match along {
        Along::Epoch if steps_per_epoch > 0 => Some(epoch.step as f64 / steps_per_epoch as f64),
        Along::Epoch => Some(epoch.epoch as f64),
        Along::Step => Some(epoch.step as f64),
        Along::Tokens => Some(epoch.tokens as f64),
        Along::Time => epoch.seconds,
    }
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
