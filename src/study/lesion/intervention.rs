//! What is done to a stage: which of its trained layers are applied, and in which order.

use crate::error::{Error, Result};
use crate::model::StageId;
use rhn_kernels::rng::Rng;

/// The most times that the last layer is applied.
const MOST_REPEATS: usize = 4;

/// The fewest layers whose orders say anything.
const FEWEST_TO_SHUFFLE: usize = 4;

/// A kind of change to a stage; layers are counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// A layer is left out.
    Remove(usize),
    /// A layer and the next one change places.
    Swap(usize),
    /// The last layer is applied this often.
    Repeat(usize),
    /// The layers that can change places are in a random order.
    Shuffle,
}

/// A change of one stage, and the order of its layers that it makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intervention {
    /// What is done.
    pub(crate) change: Change,
    /// To which stage.
    pub(crate) stage: StageId,
    /// The trained layers that are applied, counted from 0.
    pub(crate) order: Vec<usize>,
}

/// Which changes are asked for besides the removal of each layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Neighbours change places.
    pub(crate) swap: bool,
    /// The last layer is applied several times.
    pub(crate) repeat: bool,
    /// How many random orders.
    pub(crate) shuffles: usize,
    /// What they are drawn from.
    pub(crate) seed: u64,
}

impl Asked {
    /// The changes of `stages`, stage by stage. Fails if random orders are wanted and no stage has layers enough.
    pub(crate) fn interventions(&self, stages: &[StageId]) -> Result<Vec<Intervention>> {
        let most = stages.iter().map(|stage| stage.exchangeable().len()).max().unwrap_or(0);
        if self.shuffles > 0 && most < FEWEST_TO_SHUFFLE {
            return Err(Error::config(format!(
                "--shuffle needs a stage of at least {FEWEST_TO_SHUFFLE} layers that can change places, the model's \
                 largest has {most}; a time step's first sublayer reads the input and keeps its place"
            )));
        }
        Ok(stages.iter().flat_map(|&stage| self.of_stage(stage)).collect())
    }

    fn of_stage(&self, stage: StageId) -> Vec<Intervention> {
        let layers = stage.layers();
        let exchangeable = stage.exchangeable();
        let trained: Vec<usize> = (0..layers).collect();
        let made = |change, order| Intervention { change, stage, order };
        let mut all: Vec<_> = (0..layers)
            .map(|layer| {
                made(Change::Remove(layer), trained.iter().copied().filter(|&k| k != layer).collect())
            })
            .collect();
        if self.swap {
            for first in exchangeable.clone().skip(1).map(|second| second - 1) {
                let mut order = trained.clone();
                order.swap(first, first + 1);
                all.push(made(Change::Swap(first), order));
            }
        }
        if self.repeat && !exchangeable.is_empty() {
            for times in 2..=MOST_REPEATS {
                let again = std::iter::repeat_n(layers - 1, times - 1);
                all.push(made(Change::Repeat(times), trained.iter().copied().chain(again).collect()));
            }
        }
        if exchangeable.len() >= FEWEST_TO_SHUFFLE {
            for index in 0..self.shuffles {
                let mut order = trained.clone();
                let mut rng = Rng::keyed(self.seed, "study.lesion.shuffle", index as u64);
                let part = &mut order[exchangeable.clone()];
                for end in (1..part.len()).rev() {
                    part.swap(end, (rng.uniform() * (end + 1) as f64) as usize);
                }
                all.push(made(Change::Shuffle, order));
            }
        }
        all
    }
}

impl Intervention {
    /// The untouched model, as a change of any stage.
    pub(crate) fn none(stage: StageId) -> Self {
        Self { change: Change::None, stage, order: (0..stage.layers()).collect() }
    }

    /// What is done, as a table's first column has it.
    pub(crate) fn name(&self) -> &'static str {
        match self.change {
            Change::None => "untouched",
            Change::Remove(_) => "left out",
            Change::Swap(_) => "exchanged",
            Change::Repeat(_) => "repeated",
            Change::Shuffle => "shuffled",
        }
    }

    /// To which layers, counted from 1.
    pub(crate) fn layers(&self) -> String {
        match self.change {
            Change::None => "–".into(),
            Change::Remove(layer) => (layer + 1).to_string(),
            Change::Swap(first) => format!("{}, {}", first + 1, first + 2),
            Change::Repeat(times) => format!("{}, {times} times", self.stage.layers()),
            Change::Shuffle => {
                self.order.iter().map(|layer| (layer + 1).to_string()).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Kendall's tau between the order of the layers that can change places and the trained one.
    pub(crate) fn kendall_tau(&self) -> Option<f64> {
        (self.change == Change::Shuffle).then(|| kendall_tau(&self.order[self.stage.exchangeable()]))
    }
}

/// The pairs in rising order less those in falling order, over all pairs.
fn kendall_tau(order: &[usize]) -> f64 {
    let pairs = order.iter().enumerate().flat_map(|(i, a)| order[i + 1..].iter().map(move |b| a < b));
    let (sum, count) =
        pairs.fold((0, 0), |(sum, count), rising| (sum + if rising { 1 } else { -1 }, count + 1));
    f64::from(sum) / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Change, kendall_tau};
    use crate::model::StageId;

    const EMBEDDING: StageId = StageId::Embedding { layers: 4 };
    const STEP: StageId = StageId::TimeStep { layer: 0, depth: 4, of: 1 };

    fn orders(asked: Asked, stage: StageId, kind: fn(&Change) -> bool) -> Vec<Vec<usize>> {
        let all = asked.interventions(&[stage]).unwrap();
        all.into_iter().filter(|one| kind(&one.change)).map(|one| one.order).collect()
    }

    #[test]
    fn each_layer_is_left_out_once() {
        let removed = orders(Asked::default(), STEP, |change| matches!(change, Change::Remove(_)));
        assert_eq!(removed, [vec![1, 2, 3], vec![0, 2, 3], vec![0, 1, 3], vec![0, 1, 2]]);
    }

    #[test]
    fn neighbours_are_exchanged_but_for_the_sublayer_that_reads_the_input() {
        let asked = Asked { swap: true, ..Asked::default() };
        let swapped = |stage| orders(asked, stage, |change| matches!(change, Change::Swap(_)));
        assert_eq!(swapped(EMBEDDING), [vec![1, 0, 2, 3], vec![0, 2, 1, 3], vec![0, 1, 3, 2]]);
        assert_eq!(swapped(STEP), [vec![0, 2, 1, 3], vec![0, 1, 3, 2]]);
    }

    #[test]
    fn the_last_layer_is_applied_up_to_four_times() {
        let asked = Asked { repeat: true, ..Asked::default() };
        let repeated = orders(asked, STEP, |change| matches!(change, Change::Repeat(_)));
        assert_eq!(repeated, [vec![0, 1, 2, 3, 3], vec![0, 1, 2, 3, 3, 3], vec![0, 1, 2, 3, 3, 3, 3]]);
    }

    #[test]
    fn random_orders_are_those_of_their_seed_and_need_four_layers() {
        let asked = |seed| Asked { shuffles: 20, seed, ..Asked::default() };
        let shuffled = |seed| orders(asked(seed), EMBEDDING, |change| *change == Change::Shuffle);
        assert!(shuffled(1) == shuffled(1) && shuffled(1) != shuffled(2));
        for mut order in shuffled(1) {
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
        let error = asked(1).interventions(&[STEP]).unwrap_err().to_string();
        assert!(error.contains("at least 4") && error.contains("largest has 3"), "{error}");
    }

    #[test]
    fn kendalls_tau_is_one_in_order_and_minus_one_backwards() {
        let taus = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 2, 3]].map(|order| kendall_tau(&order));
        assert_eq!(taus, [1.0, -1.0, 4.0 / 6.0]); // five pairs rise, one falls
    }
}
