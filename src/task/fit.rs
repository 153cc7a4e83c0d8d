//! A small text: batch, window and, for a text of a line or two, the split shrink until an epoch has steps enough.

use crate::config::Recipe;
use crate::data::{Corpus, DataDirectories, Tokenizer};
use crate::error::Result;

/// The keys of a recipe that a small text may change.
pub const KEYS: [&str; 3] = ["train.batch_size", "train.bptt_steps", "corpus.split"];

/// Down to these sizes a small text gives up batch rows before steps of its windows, and then steps.
const FEW_ROWS: usize = 4;
const SHORT_WINDOW: usize = 16;

/// Bytes that a token has at most, on average: a larger text is not cut into tokens to know that it is no small one.
const BYTES_A_TOKEN: usize = 16;

/// Splits that leave a few tokens for validation where the recipe's does not.
const SPLITS: [[f64; 3]; 3] = [[80.0, 10.0, 10.0], [60.0, 20.0, 20.0], [50.0, 50.0, 0.0]];

/// A corpus that its recipe fits.
pub struct Fitted {
    /// The corpus, split as the recipe says now.
    pub corpus: Corpus,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// The keys of the recipe that were changed, each with what became of it, as `key was a, is b`.
    pub changes: Vec<(&'static str, String)>,
    /// Tokens of the training split, if they were counted.
    pub tokens: usize,
}

/// Opens the corpus of `recipe`. With `train.min_epoch_steps`, a text that is too small for as many steps gets a smaller
/// `train.batch_size` and `train.bptt_steps`, as far as `is_free` says of the key that nobody has set it.
///
/// `vocabulary` is asked for the vocabulary of the training text.
///
/// # Errors
/// If there is no such corpus, or it cannot be split or cut into tokens.
pub fn open(
    recipe: &mut Recipe,
    directories: &DataDirectories,
    is_free: impl Fn(&str) -> bool,
    vocabulary: impl Fn(&Recipe, &Corpus) -> Result<Tokenizer>,
) -> Result<Fitted> {
    let split = recipe.corpus.split;
    let sizes = [recipe.train.batch_size, recipe.train.bptt_steps];
    let (mut fitted, counted) = choose_split(recipe, directories, &is_free, &vocabulary)?;
    let Some(tokens) = counted else { return Ok(fitted) };
    let [rows_key, steps_key, split_key] = KEYS;
    let free = [rows_key, steps_key].map(is_free);
    let fitting = fit(tokens, sizes, free, recipe.train.min_epoch_steps as usize);
    [recipe.train.batch_size, recipe.train.bptt_steps] = fitting;
    fitted.tokens = tokens[0];
    fitted.changes = [
        (rows_key, sizes[0].to_string(), fitting[0].to_string()),
        (steps_key, sizes[1].to_string(), fitting[1].to_string()),
        (split_key, format!("{split:?}"), format!("{:?}", recipe.corpus.split)),
    ]
    .into_iter()
    .filter(|(_, was, is)| was != is)
    .map(|(key, was, is)| (key, format!("{key} was {was}, is {is}")))
    .collect();
    Ok(fitted)
}

/// A corpus, and the tokens of its training and validation split; `None` where the text is large, or no steps are
/// asked for.
type Counted = (Fitted, Option<[usize; 2]>);

/// The corpus split as `recipe` says, or as the first of [`SPLITS`] that leaves tokens where that one does not; the recipe
/// then says so.
fn choose_split(
    recipe: &mut Recipe,
    directories: &DataDirectories,
    is_free: &impl Fn(&str) -> bool,
    vocabulary: &impl Fn(&Recipe, &Corpus) -> Result<Tokenizer>,
) -> Result<Counted> {
    let first = count(recipe, directories, vocabulary);
    // The standard input can be read only once.
    let may_be_split_again = recipe.train.min_epoch_steps > 0 && recipe.corpus.name != "-";
    if leaves_tokens(&first) || !may_be_split_again || !is_free(KEYS[2]) {
        return first;
    }
    for split in SPLITS {
        let mut other = recipe.clone();
        other.corpus.split = split;
        let counted = count(&other, directories, vocabulary);
        if leaves_tokens(&counted) {
            *recipe = other;
            return counted;
        }
    }
    first
}

/// Whether there is a token to read and one to predict in both splits.
fn leaves_tokens(counted: &Result<Counted>) -> bool {
    let enough = |tokens: &[usize; 2]| tokens.iter().all(|&tokens| tokens > 1);
    counted.as_ref().is_ok_and(|(_, tokens)| tokens.as_ref().is_none_or(enough))
}

fn count(
    recipe: &Recipe,
    directories: &DataDirectories,
    vocabulary: &impl Fn(&Recipe, &Corpus) -> Result<Tokenizer>,
) -> Result<Counted> {
    let corpus = Corpus::open(&recipe.corpus, directories)?;
    let tokenizer = vocabulary(recipe, &corpus)?;
    let window = recipe.train.batch_size.saturating_mul(recipe.train.bptt_steps);
    let enough = window.saturating_mul(recipe.train.min_epoch_steps as usize);
    let tokens = match corpus.train.len() / BYTES_A_TOKEN >= enough {
        true => None,
        false => Some([
            tokenizer.encode(&corpus.train)?.tokens.len(),
            tokenizer.encode(&corpus.valid)?.tokens.len(),
        ]),
    };
    Ok((Fitted { corpus, tokenizer, changes: Vec::new(), tokens: 0 }, tokens))
}

/// Batch rows and steps of a window, halved by turns until a training split of `tokens[0]` has `wanted` windows and a
/// validation split of `tokens[1]` has one. Windows of less than sixteen steps are made only where no window fits
/// otherwise.
fn fit(tokens: [usize; 2], sizes: [usize; 2], free: [bool; 2], wanted: usize) -> [usize; 2] {
    let [mut rows, mut steps] = sizes;
    loop {
        let windows = tokens.map(|tokens| (tokens / rows).saturating_sub(1) / steps);
        let fits = windows.iter().all(|&windows| windows > 0);
        if fits && windows[0] >= wanted {
            return [rows, steps];
        }
        let [may_have_fewer_rows, may_be_shorter] = free;
        if may_have_fewer_rows && rows > FEW_ROWS {
            rows = (rows / 2).max(FEW_ROWS);
        } else if may_be_shorter && steps > SHORT_WINDOW {
            steps = (steps / 2).max(SHORT_WINDOW);
        } else if may_have_fewer_rows && rows > 1 {
            rows /= 2;
        } else if may_be_shorter && steps > 1 && !fits {
            steps /= 2;
        } else {
            return [rows, steps];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fit;

    const RECIPE: [usize; 2] = [32, 64];

    #[test]
    fn a_text_with_steps_enough_keeps_the_recipe_s_sizes() {
        assert_eq!(fit([64 * 2048 + 32, 10_000], RECIPE, [true; 2], 64), RECIPE);
    }

    #[test]
    fn batch_rows_go_first_then_steps_of_the_window() {
        assert_eq!(fit([90_000, 5_000], RECIPE, [true; 2], 64), [16, 64]); // 87 windows
        assert_eq!(fit([20_000, 1_000], RECIPE, [true; 2], 64), [4, 64]); // 78
        assert_eq!(fit([9_000, 500], RECIPE, [true; 2], 64), [4, 32]); // 70
        assert_eq!(fit([3_000, 160], RECIPE, [true; 2], 64), [2, 16]); // 93
    }

    #[test]
    fn windows_get_shorter_than_sixteen_only_where_the_validation_split_has_none_otherwise() {
        assert_eq!(fit([300, 20], RECIPE, [true; 2], 64), [1, 16]); // 18 windows, not 64
        assert_eq!(fit([90, 5], RECIPE, [true; 2], 64), [1, 4]);
        assert_eq!(fit([20, 2], RECIPE, [true; 2], 64), [1, 1]);
    }

    #[test]
    fn what_was_set_stays_and_what_cannot_fit_ends() {
        assert_eq!(fit([3_000, 160], RECIPE, [false, true], 64), [32, 4]);
        assert_eq!(fit([3_000, 160], RECIPE, [true, false], 64), [1, 64]);
        assert_eq!(fit([3_000, 160], RECIPE, [false; 2], 64), RECIPE);
        assert_eq!(fit([1, 0], RECIPE, [true; 2], 64), [1, 1]);
    }
}
