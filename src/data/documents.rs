//! A folder of texts as one corpus: its files are documents, in the order of their names or shuffled by a seed.

use super::split::{self, Cut};
use super::text::Text;
use crate::config::{CorpusConfig, Unit};
use crate::error::{Error, Result};
use rhn_kernels::rng::Rng;
use std::path::{Path, PathBuf};

/// The splits of a folder whose `files` are documents: cut between two of them where that leaves something for each split,
/// else as one text is cut.
///
/// # Errors
/// If a file cannot be read, or there is too little text.
pub(super) fn splits(folder: &Path, files: &[PathBuf], config: &CorpusConfig) -> Result<[Text; 3]> {
    split::validate(config.split)?;
    let (text, begins) = join(folder, files, config)?;
    let parts = at_documents(text.len(), &begins, config.split);
    match parts {
        Some([first, second]) => {
            Ok([text.slice(0..first), text.slice(first..second), text.slice(second..text.len())])
        }
        None => split::by_percent(&text, config.split, Cut::for_unit(config.unit, Cut::Line)),
    }
}

/// All documents as one text, and where each but the first begins.
pub(super) fn join(folder: &Path, files: &[PathBuf], config: &CorpusConfig) -> Result<(Text, Vec<usize>)> {
    let mut order: Vec<&PathBuf> = files.iter().collect();
    if let Some(seed) = config.shuffle {
        shuffle(&mut order, seed);
    }
    let mut bytes = Vec::new();
    let mut begins = Vec::new();
    for path in order {
        let text = Text::read(path)?;
        if config.unit != Unit::Byte {
            text.as_str()?; // a fault is told with the file's own name and place
        }
        if !bytes.is_empty() {
            bytes.extend_from_slice(config.boundary.as_bytes());
            begins.push(bytes.len());
        }
        bytes.extend_from_slice(&text.bytes()[text.mark_length()..]); // a mark at a file's start is none of its text
    }
    if bytes.is_empty() {
        return Err(Error::data(folder, "has only empty texts; wanted text"));
    }
    Ok((Text::new(bytes, folder), begins))
}

/// Fisher and Yates, drawn from the seed.
fn shuffle(order: &mut [&PathBuf], seed: u64) {
    let mut rng = Rng::keyed(seed, "documents", 0);
    for last in (1..order.len()).rev() {
        let other = (rng.uniform() * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
}

/// The begins of documents nearest to where the percentages say, if no split that is wanted is left without any.
fn at_documents(length: usize, begins: &[usize], split: [f64; 3]) -> Option<[usize; 2]> {
    let nearest = |percent: f64| {
        let at = (length as f64 * percent / 100.0) as usize;
        let candidates = begins.iter().copied().chain((percent >= 100.0 - 1e-9).then_some(length));
        candidates.min_by_key(|begin| begin.abs_diff(at))
    };
    let first = nearest(split[0])?;
    let second = if split[1] > 0.0 { nearest(split[0] + split[1])? } else { first };
    let sizes = [first, second.checked_sub(first)?, length - second];
    let whole = sizes.iter().zip(split).all(|(&size, part)| (size > 0) == (part > 0.0));
    whole.then_some([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_begin_with_documents_where_there_are_enough() {
        let begins = [100, 400, 900, 950];
        assert_eq!(at_documents(1000, &begins, [90.0, 5.0, 5.0]), Some([900, 950]));
        assert_eq!(at_documents(1000, &begins, [60.0, 0.0, 40.0]), Some([400, 400]));
        assert_eq!(at_documents(1000, &begins, [90.0, 10.0, 0.0]), Some([900, 1000]));
        assert_eq!(at_documents(1000, &[400], [90.0, 5.0, 5.0]), None); // validation would be empty
        assert_eq!(at_documents(1000, &[], [90.0, 5.0, 5.0]), None);
    }

    #[test]
    fn a_seed_gives_one_order_of_all() {
        let files: Vec<PathBuf> = (0..9).map(|name| PathBuf::from(name.to_string())).collect();
        let order = |seed| {
            let mut order: Vec<&PathBuf> = files.iter().collect();
            shuffle(&mut order, seed);
            order
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut all = order(3);
        all.sort();
        assert_eq!(all, files.iter().collect::<Vec<_>>());
    }
}
