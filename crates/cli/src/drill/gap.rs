//! How long nobody had an answer.

use std::time::Duration;

use super::probe::Series;

/// The longest time without an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gap {
    pub(super) length: Duration,
    /// When it began, after the beginning of all.
    pub(super) from: Duration,
}

/// From the first attempt that failed to the next one that was answered; to the last attempt, if none was.
pub(super) fn longest(series: &Series) -> Option<Gap> {
    let mut gaps = Vec::new();
    let mut open: Option<Duration> = None;
    for attempt in &series.tries {
        match (open, attempt.answered) {
            (None, false) => open = Some(attempt.at),
            (Some(from), true) => {
                gaps.push(Gap { length: attempt.at.saturating_sub(from), from });
                open = None;
            }
            _ => {}
        }
    }
    let last = series.tries.last();
    gaps.extend(
        open.zip(last).map(|(from, last)| Gap { length: last.at.saturating_sub(from), from }),
    );
    gaps.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::{super::probe::Try, *};

    /// An attempt every 20 ms, `#` answered and `.` not.
    fn series(picture: &str) -> Series {
        let every = |number: usize| Duration::from_millis(20) * u32::try_from(number).unwrap();
        let attempt =
            |(number, mark): (usize, char)| Try { at: every(number), answered: mark == '#' };
        Series { name: "tcp 80".into(), tries: picture.chars().enumerate().map(attempt).collect() }
    }

    #[test]
    fn the_longest_time_without_an_answer_counts() {
        let gap = |picture: &str| {
            longest(&series(picture)).map(|gap| (gap.length.as_millis(), gap.from.as_millis()))
        };
        assert_eq!(gap("#####"), None);
        assert_eq!(gap(""), None);
        assert_eq!(gap("##...##"), Some((60, 40)));
        assert_eq!(gap("#.#..#"), Some((40, 60)));
        assert_eq!(gap("##..."), Some((40, 40)), "it did not come back while somebody looked");
    }
}
