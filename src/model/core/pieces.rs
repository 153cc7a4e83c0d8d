//! A window whose rows have several sentences, each of which begins with the zero state.
//!
//! The parts of a window that belong to one sentence of one row are its pieces. They are read side by side as the rows of
//! a wider batch, from its first step on, and what the core gives for them goes back to where it belongs. So every kind of
//! core can do it, and the gradient of a piece ends where its sentence begins. Steps past a piece's end are computed and
//! used by nobody.
//!
//! The state that a row leaves is that of its last piece, which may be shorter than others: such pieces are read again
//! without a record, in stretches at whose ends the state of those that end there is taken.

use super::state::State;
use crate::error::Result;
use crate::model::layers::Core;
use crate::model::noise::Noise;
use candle_core::{Device, Tensor};

/// The part of a window that belongs to one sentence of a batch row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    row: usize,
    /// The step that it begins at.
    start: usize,
    steps: usize,
    /// Whether its sentence began in a window before, so that it goes on from the state that was carried.
    goes_on: bool,
}

/// The pieces of a window.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    time: usize,
    batch: usize,
    /// By row, then by start.
    pieces: Vec<Piece>,
}

impl Pieces {
    /// The pieces of `inputs`, `(time, batch)` in row order: a sentence begins where `line_end` is read, whose target is its
    /// first token.
    pub(crate) fn new(inputs: &[u32], batch: usize, line_end: u32) -> Self {
        let time = inputs.len() / batch.max(1);
        let mut pieces: Vec<Piece> = Vec::new();
        for row in 0..batch {
            for step in 0..time {
                let begins = inputs[step * batch + row] == line_end;
                match pieces.last_mut().filter(|_| step > 0 && !begins) {
                    Some(piece) => piece.steps += 1,
                    None => pieces.push(Piece { row, start: step, steps: 1, goes_on: !begins }),
                }
            }
        }
        Self { time, batch, pieces }
    }

    /// Those of a window of tokens, `(time, batch)` of u32.
    pub(crate) fn of(inputs: &Tensor, line_end: u32) -> Result<Self> {
        let (_, batch) = inputs.dims2()?;
        Ok(Self::new(&inputs.flatten_all()?.to_vec1::<u32>()?, batch, line_end))
    }

    /// The last piece of each row, in the rows' order.
    fn last(&self) -> Vec<Piece> {
        let is_last = |piece: &&Piece| piece.start + piece.steps == self.time;
        self.pieces.iter().filter(is_last).copied().collect()
    }

    /// Where in the pieces' batch, `(steps, pieces)` in row order, each place of the window is.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.time * self.batch];
        for (number, piece) in self.pieces.iter().enumerate() {
            for step in 0..piece.steps {
                places[(piece.start + step) * self.batch + piece.row] =
                    (step * self.pieces.len() + number) as u32;
            }
        }
        places
    }
}

/// The steps from `from` to `to` of some pieces, as a batch of its own.
struct Stretch<'a> {
    pieces: &'a [Piece],
    from: usize,
    to: usize,
    batch: usize,
}

impl Stretch<'_> {
    /// The window's places in `(time, batch)` that the stretch reads; past a piece's end its last one.
    fn places(&self) -> Vec<u32> {
        let place = |step: usize, piece: &Piece| {
            let step = piece.start + step.min(piece.steps - 1);
            (step * self.batch + piece.row) as u32
        };
        (self.from..self.to)
            .flat_map(|step| self.pieces.iter().map(move |piece| place(step, piece)))
            .collect()
    }

    fn rows(&self) -> Vec<u32> {
        self.pieces.iter().map(|piece| piece.row as u32).collect()
    }

    /// `(time, batch, size)` of the window to the stretch's.
    fn of_steps(&self, xs: &Tensor) -> Result<Tensor> {
        let places = self.places();
        let shape = (self.to - self.from, self.pieces.len(), xs.dim(2)?);
        Ok(select(&xs.flatten(0, 1)?, &places)?.reshape(shape)?)
    }

    /// A mask of each row, `(batch, size)`, or of each step's rows, `(time, batch, size)`.
    fn of_mask(&self, mask: &Tensor) -> Result<Tensor> {
        if mask.rank() == 3 { self.of_steps(mask) } else { select(mask, &self.rows()) }
    }

    /// What is dropped inside the core.
    fn of_noise(&self, noise: &Noise) -> Result<Noise> {
        let inside = Noise {
            input: noise.input.clone(),
            hidden: noise.hidden.clone(),
            weights: noise.weights.clone(),
            depth: noise.depth.clone(),
            ..Noise::none()
        };
        inside.with_rows(|mask| self.of_mask(mask))
    }
}

fn select(from: &Tensor, rows: &[u32]) -> Result<Tensor> {
    Ok(from.index_select(&Tensor::from_slice(rows, rows.len(), from.device())?, 0)?)
}

/// As [`Core::forward`], each piece from the zero state but those that go on, which begin with their row of `state`.
pub(super) fn forward(
    core: &dyn Core,
    xs: &Tensor,
    pieces: &Pieces,
    state: &State,
    noise: &Noise,
) -> Result<(Tensor, State)> {
    let Pieces { time, batch, pieces: all } = pieces;
    let longest = all.iter().map(|piece| piece.steps).max().unwrap_or(0);
    let whole = Stretch { pieces: all, from: 0, to: longest, batch: *batch };
    let (ys, after) = core.forward(&whole.of_steps(xs)?, &entering(state, all)?, &whole.of_noise(noise)?)?;
    let size = ys.dim(2)?;
    let ys = select(&ys.flatten(0, 1)?, &pieces.places())?.reshape((*time, *batch, size))?;
    let last = pieces.last();
    if last.iter().all(|piece| piece.steps == longest) {
        let number = |piece: &Piece| all.iter().position(|other| other == piece).unwrap_or_default() as u32;
        return Ok((ys, after.select(&last.iter().map(number).collect::<Vec<_>>())?));
    }
    Ok((ys, leaving(core, &xs.detach(), &last, state, noise)?))
}

/// The state that pieces begin with.
fn entering(state: &State, pieces: &[Piece]) -> Result<State> {
    let rows: Vec<u32> = pieces.iter().map(|piece| piece.row as u32).collect();
    let selected = state.select(&rows)?;
    if pieces.iter().all(|piece| piece.goes_on) {
        return Ok(selected);
    }
    let kept: Vec<f32> = pieces.iter().map(|piece| f32::from(u8::from(piece.goes_on))).collect();
    let kept = Tensor::from_vec(kept, (pieces.len(), 1), &Device::Cpu)?;
    let part = |part: &Tensor| -> Result<Tensor> {
        Ok(part.broadcast_mul(&kept.to_dtype(part.dtype())?.to_device(part.device())?)?)
    };
    let layer = |parts: &Vec<Tensor>| parts.iter().map(part).collect();
    Ok(State(selected.0.iter().map(layer).collect::<Result<_>>()?))
}

/// The state after the last piece of each row.
fn leaving(core: &dyn Core, xs: &Tensor, last: &[Piece], state: &State, noise: &Noise) -> Result<State> {
    let mut order: Vec<usize> = (0..last.len()).collect();
    order.sort_by_key(|&row| last[row].steps);
    let mut active: Vec<Piece> = order.iter().map(|&row| last[row]).collect();
    let mut current = entering(state, &active)?;
    let mut from = 0;
    let mut found: Vec<State> = Vec::new();
    while let Some(shortest) = active.first().map(|piece| piece.steps) {
        let stretch = Stretch { pieces: &active, from, to: shortest, batch: last.len() };
        current = core.forward(&stretch.of_steps(xs)?, &current, &stretch.of_noise(noise)?)?.1.detach();
        let ended = active.iter().take_while(|piece| piece.steps == shortest).count();
        found.push(current.select(&(0..ended as u32).collect::<Vec<_>>())?);
        if ended < active.len() {
            current = current.select(&(ended as u32..active.len() as u32).collect::<Vec<_>>())?;
        }
        active.drain(..ended);
        from = shortest;
    }
    let mut back = vec![0; last.len()];
    order.iter().enumerate().for_each(|(number, &row)| back[row] = number as u32);
    State::join(&found.iter().collect::<Vec<_>>())?.select(&back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_where_a_line_end_is_read() {
        // Rows 9 1 2 9 and 3 9 4 5; 9 is the line end.
        let pieces = Pieces::new(&[9, 3, 1, 9, 2, 4, 9, 5], 2, 9);
        let piece = |row, start, steps, goes_on| Piece { row, start, steps, goes_on };
        assert_eq!(
            pieces.pieces,
            [piece(0, 0, 3, false), piece(0, 3, 1, false), piece(1, 0, 1, true), piece(1, 1, 3, false)]
        );
        assert_eq!(pieces.last(), [piece(0, 3, 1, false), piece(1, 1, 3, false)]);
        assert_eq!(pieces.places(), [0, 2, 4, 3, 8, 7, 1, 11]);
    }
}
