//! Sentences packed whole into batch rows: each row takes the next sentence of one stream when it has read its last.
//!
//! The stream of an epoch is all sentences once: blocks in an order drawn from the seed and the epoch, the sentences of
//! a block in an order drawn from the block too. When it ends before the epoch's last window, it begins again, so that
//! every window is full. Where a window's rows stand follows from the seed, the epoch and the windows before; a resumed run
//! finds it by the sentences' lengths alone.

use super::sentences::SentenceSource;
use crate::error::{Error, Result};
use rhn_kernels::rng::Rng;
use std::cell::RefCell;

/// The inputs and targets of a window, `(time, batch)` in row order.
pub(crate) type WindowIds = [Vec<u32>; 2];

/// Batch rows of sentences.
pub(crate) struct PackedRows {
    source: Box<dyn SentenceSource>,
    /// Sentences of each block.
    blocks: Vec<usize>,
    rows: usize,
    /// What comes before a sentence: the line end.
    context: u32,
    /// What the order is drawn from; without one it is that of the text.
    seed: Option<u64>,
    reading: RefCell<Option<Reading>>,
}

/// Where the rows stand in an epoch.
struct Reading {
    epoch: u64,
    /// The window that comes next.
    window: usize,
    /// The blocks in their order.
    order: Vec<usize>,
    /// How many sentences of the stream come before each of them, and how many there are.
    begins: Vec<u64>,
    /// The sentence of the stream that comes next.
    next: u64,
    rows: Vec<Row>,
    held: Option<HeldBlock>,
}

/// The sentence that a row is in.
#[derive(Clone, Default)]
struct Row {
    /// Its number in the stream.
    sentence: u64,
    length: usize,
    /// Tokens of it that were predicted.
    done: usize,
    /// Its tokens; none while only lengths are looked at.
    tokens: Vec<u32>,
}

/// The block that sentences are taken from.
struct HeldBlock {
    /// Its place in the order.
    place: usize,
    /// Its sentences in their order.
    order: Vec<u32>,
    /// Where each sentence begins, and where the last ends.
    begins: Vec<usize>,
    /// Its tokens, if they were read.
    tokens: Option<Vec<u32>>,
}

impl PackedRows {
    /// `rows` batch rows of the sentences of `source`; the text is called `text` in errors.
    ///
    /// # Errors
    /// If there is no sentence.
    pub(crate) fn new(
        text: &str,
        source: Box<dyn SentenceSource>,
        rows: usize,
        context: u32,
        seed: Option<u64>,
    ) -> Result<Self> {
        let blocks = source.blocks();
        if blocks.is_empty() {
            return Err(Error::data(text, "has no sentence"));
        }
        Ok(Self { source, blocks, rows, context, seed, reading: RefCell::new(None) })
    }

    /// Window number `index` of an epoch; `steps` says how many steps each window has.
    ///
    /// # Errors
    /// If the sentences cannot be read.
    pub(crate) fn window(
        &self,
        epoch: u64,
        index: usize,
        steps: &dyn Fn(usize) -> usize,
    ) -> Result<WindowIds> {
        let mut held = self.reading.borrow_mut();
        let goes_on = held.take().filter(|reading| reading.epoch == epoch && reading.window == index);
        let mut reading = match goes_on {
            Some(reading) => reading,
            None => self.seek(epoch, index, steps)?,
        };
        let ids = self.read(&mut reading, steps(index))?;
        *held = Some(reading); // after an error the next window is looked for anew
        Ok(ids)
    }

    /// The rows before window `index`.
    fn seek(&self, epoch: u64, index: usize, steps: &dyn Fn(usize) -> usize) -> Result<Reading> {
        let mut reading = self.first(epoch);
        for window in 0..index {
            for row in 0..self.rows {
                self.pass_over(&mut reading, row, steps(window))?;
            }
        }
        reading.window = index;
        reading.held = None;
        let mut under_way: Vec<usize> = (0..self.rows).collect();
        under_way.retain(|&row| reading.rows[row].done < reading.rows[row].length);
        under_way.sort_by_key(|&row| reading.rows[row].sentence); // each block is read once
        for row in under_way {
            let sentence = reading.rows[row].sentence;
            reading.rows[row].tokens = self.sentence(&mut reading, sentence)?.to_vec();
        }
        Ok(reading)
    }

    fn first(&self, epoch: u64) -> Reading {
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        if let Some(seed) = self.seed {
            shuffle(&mut order, &mut Rng::keyed(seed, "corpus.blocks", epoch));
        }
        let mut begins = vec![0];
        order.iter().for_each(|&block| begins.push(begins[begins.len() - 1] + self.blocks[block] as u64));
        Reading {
            epoch,
            window: 0,
            order,
            begins,
            next: 0,
            rows: vec![Row::default(); self.rows],
            held: None,
        }
    }

    fn pass_over(&self, reading: &mut Reading, row: usize, steps: usize) -> Result<()> {
        let mut left = steps;
        while left > 0 {
            let Row { length, done, .. } = reading.rows[row];
            let taken = (length - done).min(left);
            reading.rows[row].done += taken;
            left -= taken;
            if left > 0 {
                let sentence = reading.next;
                let length = self.hold(reading, sentence, false)?.len();
                reading.rows[row] = Row { sentence, length, done: 0, tokens: Vec::new() };
                reading.next += 1;
            }
        }
        Ok(())
    }

    fn read(&self, reading: &mut Reading, steps: usize) -> Result<WindowIds> {
        let mut inputs = vec![0; steps * self.rows];
        let mut targets = vec![0; steps * self.rows];
        for row in 0..self.rows {
            for step in 0..steps {
                if reading.rows[row].done == reading.rows[row].length {
                    let sentence = reading.next;
                    let tokens = self.sentence(reading, sentence)?.to_vec();
                    reading.rows[row] = Row { sentence, length: tokens.len(), done: 0, tokens };
                    reading.next += 1;
                }
                let Row { done, tokens, .. } = &mut reading.rows[row];
                inputs[step * self.rows + row] = if *done == 0 { self.context } else { tokens[*done - 1] };
                targets[step * self.rows + row] = tokens[*done];
                *done += 1;
            }
        }
        reading.window += 1;
        Ok([inputs, targets])
    }

    /// The tokens of a sentence of the stream.
    fn sentence<'a>(&self, reading: &'a mut Reading, sentence: u64) -> Result<&'a [u32]> {
        let range = self.hold(reading, sentence, true)?;
        let tokens = reading.held.as_ref().and_then(|held| held.tokens.as_ref());
        Ok(&tokens.expect("the block was read with its tokens")[range])
    }

    /// Where a sentence of the stream is in its block, which is then held.
    fn hold(
        &self,
        reading: &mut Reading,
        sentence: u64,
        with_tokens: bool,
    ) -> Result<std::ops::Range<usize>> {
        let all = reading.begins[reading.begins.len() - 1];
        let sentence = sentence % all;
        let place = reading.begins.partition_point(|&begin| begin <= sentence) - 1;
        let fits = |held: &HeldBlock| held.place == place && (held.tokens.is_some() || !with_tokens);
        let known = reading.held.take().filter(fits);
        let held = match known {
            Some(held) => held,
            None => self.open(reading.epoch, place, reading.order[place], with_tokens)?,
        };
        let number = held.order[(sentence - reading.begins[place]) as usize] as usize;
        let range = held.begins[number]..held.begins[number + 1];
        reading.held = Some(held);
        Ok(range)
    }

    fn open(&self, epoch: u64, place: usize, block: usize, with_tokens: bool) -> Result<HeldBlock> {
        let mut begins = vec![0];
        let lengths = self.source.lengths(block)?;
        lengths.iter().for_each(|&length| begins.push(begins[begins.len() - 1] + length as usize));
        let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
        if let Some(seed) = self.seed {
            shuffle(&mut order, &mut Rng::keyed(seed, &format!("corpus.sentences.{block}"), epoch));
        }
        let tokens = if with_tokens { Some(self.source.tokens(block)?) } else { None };
        Ok(HeldBlock { place, order, begins, tokens })
    }
}

/// Fisher and Yates.
fn shuffle<T>(order: &mut [T], rng: &mut Rng) {
    for last in (1..order.len()).rev() {
        let other = (rng.uniform() * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::data::sentences::TextSentences;
    use crate::data::{Text, Tokenizer};
    use crate::predict::tiny;
    use std::sync::Arc;

    const ROWS: usize = 3;
    const STEPS: usize = 4;

    /// Sentence number n is n letters, of which there are 1 to 9, and its line end; they tell themselves apart.
    fn text() -> (Tokenizer, String) {
        let text: String = (0..40u8)
            .map(|n| format!("{}\n", char::from(b'a' + n % 26).to_string().repeat(1 + usize::from(n) % 9)))
            .collect();
        (tiny::tokenizer(Unit::Char, &text), text)
    }

    fn rows(seed: Option<u64>, block: usize) -> PackedRows {
        let (tokenizer, text) = text();
        let end = tokenizer.line_end_id().unwrap();
        let encoded = Arc::new(tokenizer.encode(&Text::from(text.as_str())).unwrap());
        let source = Box::new(TextSentences::new(encoded, end, block));
        PackedRows::new("text", source, ROWS, end, seed).unwrap()
    }

    fn windows(rows: &PackedRows, epoch: u64, range: std::ops::Range<usize>) -> Vec<WindowIds> {
        range.map(|index| rows.window(epoch, index, &|_| STEPS).unwrap()).collect()
    }

    /// What each row reads in these windows.
    fn by_row(windows: &[WindowIds], which: usize) -> Vec<Vec<u32>> {
        let row = |row: usize| {
            windows.iter().flat_map(move |ids| ids[which].iter().skip(row).step_by(ROWS).copied()).collect()
        };
        (0..ROWS).map(row).collect()
    }

    #[test]
    fn rows_take_whole_sentences_in_the_order_of_the_stream() {
        let (tokenizer, text) = text();
        let end = tokenizer.line_end_id().unwrap();
        let ids = windows(&rows(None, 7), 0, 0..5);
        let encode = |lines: &[usize]| {
            let lines: String =
                lines.iter().map(|&line| format!("{}\n", text.lines().nth(line).unwrap())).collect();
            tokenizer.encode(&Text::from(lines.as_str())).unwrap().tokens.to_vec()
        };
        // Tokens of the lines: 2 3 4 5 6 7 8 9 10 2 3 4 … Window 1: row 0 takes lines 0, 1; row 1 takes 2; row 2 takes 3.
        // Window 2: row 0 has 1 token left and takes 4; row 1 takes 5; row 2 has 1 left and takes 6.
        let targets = by_row(&ids[..2], 1);
        assert_eq!(targets[0], encode(&[0, 1, 4])[..8]);
        assert_eq!(targets[1], encode(&[2, 5])[..8]);
        assert_eq!(targets[2], encode(&[3, 6])[..8]);
        for (inputs, targets) in by_row(&ids, 0).iter().zip(by_row(&ids, 1)) {
            assert_eq!(inputs[0], end);
            assert_eq!(inputs[1..], targets[..targets.len() - 1]);
        }
    }

    #[test]
    fn any_window_is_found_as_if_all_before_had_been_read() {
        for seed in [None, Some(3)] {
            for block in [1, 7, 1000] {
                let whole = windows(&rows(seed, block), 2, 0..30);
                for index in [0, 1, 13, 29] {
                    assert_eq!(rows(seed, block).window(2, index, &|_| STEPS).unwrap(), whole[index]);
                }
            }
        }
    }

    #[test]
    fn an_epoch_has_every_sentence_once_and_begins_again_where_its_windows_are_not_full() {
        let (tokenizer, text) = text();
        let end = tokenizer.line_end_id().unwrap();
        let tokens = text.chars().count();
        let read = windows(&rows(Some(1), 7), 0, 0..tokens / (ROWS * STEPS));
        let mut lines: Vec<String> = Vec::new();
        for row in by_row(&read, 1) {
            let whole = row.split_inclusive(|&id| id == end).filter(|line| line.last() == Some(&end));
            lines.extend(whole.map(|line| line.iter().map(|&id| tokenizer.token(id)).collect::<String>()));
        }
        let count = lines.len();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), count, "a sentence came twice before all had come");
        assert!(count >= 40 - ROWS, "{count} whole sentences of 40");
        let far = rows(Some(1), 7).window(0, 100, &|_| STEPS).unwrap(); // 1,200 tokens of 230
        assert_eq!(far[0].len(), ROWS * STEPS);
    }

    #[test]
    fn the_order_is_that_of_the_seed_and_another_each_epoch() {
        let read = |seed, epoch| windows(&rows(Some(seed), 7), epoch, 0..10);
        assert_eq!(read(1, 0), read(1, 0));
        assert_ne!(read(1, 0), read(1, 1));
        assert_ne!(read(1, 0), read(2, 0));
    }

    #[test]
    fn windows_may_have_any_number_of_steps() {
        let steps = |window: usize| [3, 7, 1, 12][window % 4];
        let rows = rows(Some(5), 7);
        let whole: Vec<_> = (0..8).map(|index| rows.window(0, index, &steps).unwrap()).collect();
        assert_eq!(whole[3][0].len(), 12 * ROWS);
        assert_eq!(rows.window(0, 6, &steps).unwrap(), whole[6]);
    }
}
