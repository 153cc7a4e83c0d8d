//! Numbers and times as people write them.

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// A number of things by their singular, as `1 token` and `1,234 tokens`.
pub fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}

/// As [`counted`], and that they are too few: `1 token is too few`.
pub fn too_few(number: usize, thing: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb} too few", counted(number as u64, thing))
}

/// Seconds as `42s`, `3:07` or `2:03:07`, days as `4d 02:03`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".into();
    }
    let all = seconds.round().max(0.0) as u64;
    let days = all / 86_400;
    let hours = all / 3600 % 24;
    let minutes = all / 60 % 60;
    let rest = all % 60;
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}:{rest:02}"),
        (0, _, _) => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}"),
    }
}

/// e to the nats per token with this many digits; a number that no double holds is named as that.
pub fn perplexity(nats_per_token: f64, digits: usize) -> String {
    match nats_per_token.exp() {
        value if value < 1e6 => format!("{value:.digits$}"),
        value if value == f64::INFINITY => "over 1e308".into(),
        value => format!("{value:.3e}"),
    }
}

/// A number with this many digits; a dash where there is none.
pub fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
}

/// A path as one argument of a command for a POSIX shell.
pub fn shell_quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_./-:@%+=,".contains(c);
    let path = if path.starts_with('-') { format!("./{path}") } else { path.to_string() }; // else it reads as a flag
    match !path.is_empty() && path.chars().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::{counted, duration, grouped, or_dash, perplexity, shell_quoted, too_few};

    #[test]
    fn a_path_is_one_argument_for_a_shell() {
        for (path, quoted) in [
            ("checkpoints/text-2", "checkpoints/text-2"),
            ("my run; v2", "'my run; v2'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("-o", "./-o"),
            ("", "''"),
            ("größe", "größe"),
        ] {
            assert_eq!(shell_quoted(path), quoted);
        }
    }

    #[test]
    fn numbers_and_times_read_as_people_write_them() {
        assert_eq!(
            ["7", "1,000", "23,482,400"],
            [7, 1000, 23_482_400].map(grouped).each_ref().map(String::as_str)
        );
        assert_eq!([counted(1, "step"), counted(1000, "step")], ["1 step", "1,000 steps"]);
        assert_eq!([too_few(1, "line"), too_few(0, "line")], ["1 line is too few", "0 lines are too few"]);
        let times =
            [(9.6, "10s"), (187.0, "3:07"), (7387.0, "2:03:07"), (352_987.0, "4d 02:03"), (f64::NAN, "?")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_number_that_is_missing_is_a_dash() {
        assert_eq!([Some(1.25), None].map(|value| or_dash(value, 2)), ["1.25", "–"]);
    }

    #[test]
    fn a_perplexity_is_printed_however_large_it_is() {
        for (nats, text) in [(0.0, "1.00"), (2f64.ln(), "2.00"), (20.0, "4.852e8"), (709.0, "8.218e307")] {
            assert_eq!(perplexity(nats, 2), text);
        }
        assert_eq!([710.0, 3e38].map(|nats| perplexity(nats, 2)), ["over 1e308"; 2]);
        assert_eq!(perplexity(f64::NAN, 2), "NaN");
    }
}
