//! Where an axis has its round numbers, and how they are written.

use super::axis::Scale;
use crate::readable::grouped;

/// The mantissas from 1 to 10 that a logarithmic axis may show, from the densest.
const MANTISSAS: [&[f64]; 7] = [
    &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 2.0, 5.0],
    &[1.0, 3.0],
    &[1.0],
];

/// A tick that is more steps from zero is not round any more: a double has no more digits.
const MOST_STEPS: u64 = 1 << 50;

/// Fewer than this are no scale to read a curve by.
const ENOUGH: usize = 3;

/// Round numbers on the scale, at least `gap` pixels apart, as dense as that allows.
pub(super) fn ticks(scale: &Scale, gap: f64, whole: bool) -> Vec<f64> {
    let apart =
        |ticks: &Vec<f64>| ticks.windows(2).all(|pair| (scale.at(pair[1]) - scale.at(pair[0])).abs() >= gap);
    let rounds = |ticks: Vec<f64>| ticks.into_iter().filter(|tick| !whole || tick.fract() == 0.0).collect();
    if scale.log {
        let logarithmic = MANTISSAS.iter().map(|mantissas| rounds(decades(scale, mantissas)));
        if let Some(ticks) = logarithmic.filter(|ticks: &Vec<f64>| ticks.len() >= ENOUGH).find(apart) {
            return ticks;
        }
    }
    let smallest = ((scale.high - scale.low).log10().floor() as i32) - 3;
    let steps = (smallest..smallest + 6).flat_map(|power| [1.0, 2.0, 5.0].map(|step| (step, power)));
    let steps = steps.filter(|(_, power)| !whole || *power >= 0);
    steps.map(|(step, power)| multiples(scale, step, power)).find(apart).unwrap_or_default()
}

/// Powers of ten on a logarithmic scale, every `step` of them.
pub(super) fn powers(scale: &Scale, step: i32) -> Vec<f64> {
    let powers = scale.low.log10().floor() as i32..=scale.high.log10().ceil() as i32;
    let all = powers.filter(|power| power.rem_euclid(step) == 0).map(|power| times_power(1.0, power));
    all.filter(|tick| scale.holds(*tick)).collect()
}

fn decades(scale: &Scale, mantissas: &[f64]) -> Vec<f64> {
    let powers = scale.low.log10().floor() as i32..=scale.high.log10().ceil() as i32;
    let all = powers.flat_map(|power| mantissas.iter().map(move |mantissa| times_power(*mantissa, power)));
    all.filter(|tick| scale.holds(*tick)).collect()
}

/// The multiples of `step · 10^power` on the scale.
fn multiples(scale: &Scale, step: f64, power: i32) -> Vec<f64> {
    let width = times_power(step, power);
    let first = (scale.low / width).ceil() as i64;
    let last = (scale.high / width).floor() as i64;
    if first.unsigned_abs().max(last.unsigned_abs()) > MOST_STEPS {
        return Vec::new();
    }
    (first..=last.min(first + 1000)).map(|count| times_power(step * count as f64, power)).collect()
}

/// Dividing by a whole power keeps 0.3 from becoming 0.30000000000000004.
fn times_power(number: f64, power: i32) -> f64 {
    if power < 0 { number / 10f64.powi(-power) } else { number * 10f64.powi(power) }
}

/// The ticks' texts: all with as many decimals as the finest needs, thousands set apart, `200k` and `3M` where
/// they are large.
pub(super) fn labels(ticks: &[f64]) -> Vec<String> {
    const LARGE: f64 = 100_000.0;
    if ticks.iter().any(|tick| *tick >= LARGE) {
        return ticks.iter().map(|tick| short(*tick)).collect();
    }
    let needs = |tick: &f64| (0..6).find(|&decimals| rounded(*tick, decimals) == *tick).unwrap_or(6);
    let decimals = ticks.iter().map(needs).max().unwrap_or(0);
    ticks.iter().map(|tick| with_decimals(*tick, decimals)).collect()
}

/// The ticks' texts in a figure: as [`labels`] but, where that takes more than five characters of zeros, powers of ten;
/// on a logarithmic axis over a power of ten and more each as short as it can be.
pub(super) fn short_labels(ticks: &[f64], log: bool) -> Vec<String> {
    let greatest = ticks.iter().fold(0.0, |greatest: f64, tick| greatest.max(tick.abs()));
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let decades = ticks.first().zip(ticks.last()).is_some_and(|(first, last)| *last >= 10.0 * first);
    if log && decades {
        ticks.iter().map(|tick| shortest(*tick)).collect()
    } else if greatest >= 1e12 || step < 1e-5 {
        ticks.iter().map(|number| tick(*number)).collect()
    } else {
        labels(ticks)
    }
}

/// `0.001` and `100k`, but `1e-4` and `1e12`.
fn shortest(number: f64) -> String {
    match number {
        number if !(1e-3..1e12).contains(&number) => tick(number),
        number if number >= 100_000.0 => short(number),
        number if number >= 1000.0 && number.fract() == 0.0 => grouped(number as u64),
        number => number.to_string(),
    }
}

/// As many significant digits as `digits`; powers of ten where the number is very small or very large.
pub(crate) fn significant(number: f64, digits: usize) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let scientific = format!("{number:.*e}", digits - 1);
    let power = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    match power {
        -3..6 => format!("{number:.*}", usize::try_from(digits as i32 - 1 - power).unwrap_or(0)),
        _ => scientific,
    }
}

/// A tick's number without zeros at its end.
fn tick(number: f64) -> String {
    let text = significant(number, 4);
    let (mantissa, power) = text.split_once('e').map_or((text.as_str(), None), |(m, power)| (m, Some(power)));
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    power.map_or_else(|| mantissa.to_string(), |power| format!("{mantissa}e{power}"))
}

fn rounded(number: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (number * scale).round() / scale
}

fn with_decimals(number: f64, decimals: i32) -> String {
    if decimals == 0 && number >= 0.0 {
        return grouped(number as u64);
    }
    format!("{number:.*}", decimals as usize)
}

fn short(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = units.into_iter().find(|(size, _)| number >= *size);
    unit.map_or_else(|| number.to_string(), |(size, suffix)| format!("{}{suffix}", rounded(number / size, 3)))
}

#[cfg(test)]
mod tests {
    use super::{labels, short_labels, significant, ticks};
    use crate::study::plot::axis::Scale;

    fn shown(low: f64, high: f64, log: bool, whole: bool) -> Vec<String> {
        labels(&ticks(&Scale { low, high, log, start: 0.0, end: 400.0 }, 45.0, whole))
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(shown(0.0, 25.0, false, true), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(shown(0.0, 1.0, false, true), ["0", "1"]);
        assert_eq!(shown(2.07, 2.61, false, false), ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"]);
        assert_eq!(shown(0.0, 3e6, false, true), ["0", "500k", "1M", "1.5M", "2M", "2.5M", "3M"]);
        assert_eq!(shown(0.0, 9000.0, false, true), ["0", "2,000", "4,000", "6,000", "8,000"]);
    }

    #[test]
    fn a_logarithmic_axis_shows_what_room_allows() {
        assert_eq!(shown(60.0, 700.0, true, false), ["70", "100", "150", "200", "300", "500", "700"]);
        assert_eq!(shown(1.0, 1e5, true, true), ["1", "10", "100", "1k", "10k", "100k"]);
        assert_eq!(shown(95.0, 118.0, true, false), ["95", "100", "105", "110", "115"]);
    }

    #[test]
    fn a_figures_ticks_are_short_however_small_or_large() {
        assert_eq!(
            short_labels(&[1e-7, 1e-4, 1e-3, 0.5, 1.0, 2000.0, 1e6], true),
            ["1e-7", "1e-4", "0.001", "0.5", "1", "2,000", "1M"]
        );
        assert_eq!(short_labels(&[0.0, 0.5, 1.0], false), ["0.0", "0.5", "1.0"]);
        assert_eq!(short_labels(&[27.415, 27.4152], true), ["27.4150", "27.4152"]);
        assert_eq!(short_labels(&[-2e-7, 0.0, 2e-7], false), ["-2e-7", "0", "2e-7"]);
        assert_eq!(
            [200.494, 5.93, 0.123_456, 1234.5, 1e9, -0.5].map(|number| significant(number, 3)),
            ["200", "5.93", "0.123", "1234", "1.00e9", "-0.500"]
        );
    }
}
