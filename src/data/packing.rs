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
pub(super) fn shuffle<T>(order: &mut [T], rng: &mut Rng) {
    for last in (1..order.len()).rev() {
        let other = (rng.uniform() * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
}

#[cfg(test)]
mod tests;
