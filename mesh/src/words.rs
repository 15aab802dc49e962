//! How lengths of time and numbers of things are told to people: in errors, in the log, on pages.
//!
//! `storage::cloudfs` makes the texts of decisions with them, which are part of the replicated state: whoever changes a word
//! has filers of two builds disagree on it, and must raise the state's format.

/// A length of time, as exact as people need it: two units at most, and nothing that is zero.
pub fn span(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    let tenths = ms % 1_000 / 100;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if tenths == 0 => format!("{seconds} s"),
        1_000..60_000 => format!("{seconds}.{tenths} s"),
        60_000..3_600_000 => two(minutes, "min", seconds % 60, "s"),
        3_600_000..86_400_000 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

fn two(much: u64, unit: &str, little: u64, smaller_unit: &str) -> String {
    match little {
        0 => format!("{much} {unit}"),
        _ => format!("{much} {unit} {little} {smaller_unit}"),
    }
}

/// So many of what `one` names; its plural ends in s.
pub fn counted(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {one}{s}")
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_reads_well() {
        for (ms, text) in [
            (0, "0 ms"),
            (7, "7 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (1_540, "1.5 s"),
            (10_000, "10 s"),
            (10_050, "10 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (86_400_000, "1 d"),
            (90_000_000, "1 d 1 h"),
            (u64::MAX, "213503982334 d 14 h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn one_is_one_and_none_are_many() {
        let texts = [0, 1, 2].map(|number| counted(number, "segment"));
        assert_eq!(texts, ["0 segments", "1 segment", "2 segments"]);
    }
}
