//! The marks along the edges of a plot area: where they are, what they say.

use crate::study::plot::axis::Scale;
use crate::study::plot::{font, ticks};

/// Pixels of an em of a mark's text.
pub(super) const MARK_SIZE: f64 = 12.0;

/// Between two texts side by side.
const BETWEEN: f64 = 10.0;
const X_GAPS: [f64; 5] = [48.0, 64.0, 90.0, 130.0, 200.0];
const Y_GAP: f64 = 30.0;
/// Between the marks of two rows.
const ROW_GAP: f64 = 24.0;

/// A text at a pixel, from the plot area's left or upper edge.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) text: String,
}

/// Marks of a horizontal axis, as dense as their texts allow.
pub(super) fn along_x(scale: &Scale, whole: bool) -> Vec<Mark> {
    let all = X_GAPS.map(|gap| on_scale(scale, gap, whole));
    let widest_gap = all.last().cloned().unwrap_or_default();
    all.into_iter().find(|marks| are_apart(marks)).unwrap_or(widest_gap)
}

/// Marks of a vertical axis.
pub(super) fn along_y(scale: &Scale, whole: bool) -> Vec<Mark> {
    on_scale(scale, Y_GAP, whole)
}

fn on_scale(scale: &Scale, gap: f64, whole: bool) -> Vec<Mark> {
    let decade = (scale.end - scale.start).abs() / (scale.high / scale.low).log10();
    let ticks = if scale.log && decade < gap {
        ticks::powers(scale, (gap / decade).ceil() as i32) // too long for each power of ten
    } else {
        ticks::ticks(scale, gap, whole)
    };
    let texts = ticks::short_labels(&ticks, scale.log);
    ticks.iter().zip(texts).map(|(&tick, text)| Mark { at: scale.at(tick), text }).collect()
}

fn are_apart(marks: &[Mark]) -> bool {
    let half = |mark: &Mark| font::reserved(&mark.text, MARK_SIZE) / 2.0;
    marks.windows(2).all(|pair| pair[1].at - pair[0].at >= half(&pair[0]) + half(&pair[1]) + BETWEEN)
}

/// Texts in the middles of equal parts, every one of them, or each second, fifth, tenth … where they are dense.
/// Numbers are thinned to round ones, and the first stays.
pub(super) fn of_parts(texts: &[String], part: f64, vertical: bool) -> Vec<Mark> {
    let numbers: Option<Vec<usize>> = texts.iter().map(|text| text.parse().ok()).collect();
    let marks = |step: usize| -> Vec<Mark> {
        let kept = |index: usize| match &numbers {
            Some(numbers) => index == 0 || numbers[index].is_multiple_of(step),
            None => index.is_multiple_of(step),
        };
        let mark = |index: usize| Mark { at: (index as f64 + 0.5) * part, text: texts[index].clone() };
        without_second((0..texts.len()).filter(|&index| kept(index)).map(mark).collect(), vertical)
    };
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10usize.pow(power)));
    steps
        .take_while(|step| *step < 10 * texts.len().max(1))
        .map(marks)
        .find(|marks| fit(marks, vertical))
        .unwrap_or_default()
}

/// The first part is always marked; a round number right after it gives way.
fn without_second(mut marks: Vec<Mark>, vertical: bool) -> Vec<Mark> {
    if marks.len() > 2 && !fit(&marks[..2], vertical) {
        marks.remove(1);
    }
    marks
}

fn fit(marks: &[Mark], vertical: bool) -> bool {
    if vertical { marks.windows(2).all(|pair| pair[1].at - pair[0].at >= ROW_GAP) } else { are_apart(marks) }
}

/// The widest text, in pixels.
pub(super) fn widest(marks: &[Mark]) -> f64 {
    marks.iter().map(|mark| font::reserved(&mark.text, MARK_SIZE)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::{Mark, along_x, of_parts};
    use crate::study::plot::axis::Scale;

    fn texts(marks: &[Mark]) -> Vec<&str> {
        marks.iter().map(|mark| mark.text.as_str()).collect()
    }

    #[test]
    fn dense_numbers_are_thinned_to_round_ones_and_the_first_stays() {
        let numbers: Vec<String> = (1..=49).map(|number| number.to_string()).collect();
        let wide = of_parts(&numbers, 15.0, true);
        assert_eq!(texts(&wide)[..4], ["1", "4", "6", "8"], "2 is too near to 1");
        assert_eq!(
            texts(&of_parts(&numbers, 8.0, true)),
            ["1", "5", "10", "15", "20", "25", "30", "35", "40", "45"]
        );
        assert_eq!(of_parts(&numbers, 8.0, true)[0].at, 4.0, "the middle of the first part");
        assert!(of_parts(&[], 8.0, true).is_empty());
    }

    #[test]
    fn names_are_thinned_where_they_would_touch() {
        let names: Vec<String> = (0..20).map(|number| format!("name {number}")).collect();
        assert_eq!(of_parts(&names, 100.0, false).len(), 20);
        assert_eq!(
            texts(&of_parts(&names, 40.0, false)),
            [
                "name 0", "name 2", "name 4", "name 6", "name 8", "name 10", "name 12", "name 14", "name 16",
                "name 18"
            ]
        );
    }

    #[test]
    fn wide_texts_of_a_horizontal_axis_do_not_touch() {
        let scale = Scale { low: 1e-7, high: 90_000.0, log: true, start: 0.0, end: 150.0 };
        let marks = along_x(&scale, false);
        assert_eq!(texts(&marks), ["1e-4", "1", "10,000"]);
    }
}
