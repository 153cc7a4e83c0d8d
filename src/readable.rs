//! Numbers and times as people write them.

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Seconds as `42s`, `3:07` or `2:03:07`, days as `4d 02:03`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".into();
    }
    let all = seconds.round().max(0.0) as u64;
    let (days, hours, minutes, rest) = (all / 86_400, all / 3600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}:{rest:02}"),
        (0, _, _) => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, grouped};

    #[test]
    fn numbers_and_times_read_as_people_write_them() {
        assert_eq!(
            ["7", "1,000", "23,482,400"],
            [7, 1000, 23_482_400].map(grouped).each_ref().map(String::as_str)
        );
        let times =
            [(9.6, "10s"), (187.0, "3:07"), (7387.0, "2:03:07"), (352_987.0, "4d 02:03"), (f64::NAN, "?")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
    }
}
