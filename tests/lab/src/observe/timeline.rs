//! What a row of observations says. Pure.

use std::time::{Duration, Instant};

use super::request_loop::Request;

/// A time without any success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The last success before it, or the begin of the observation.
    pub from: Instant,
    /// The first success after it, or the end of the observation.
    pub until: Instant,
}

impl Silence {
    /// How long it lasted.
    pub fn length(&self) -> Duration {
        self.until - self.from
    }
}

/// The longest time without a success between `begin` and `end`. `successes` may be in any order.
///
/// What repeats every 20 ms and never fails shows silences of about 20 ms: that is the resolution.
pub fn longest_silence(
    successes: impl IntoIterator<Item = Instant>,
    begin: Instant,
    end: Instant,
) -> Silence {
    let mut moments: Vec<Instant> = successes.into_iter().collect();
    moments.retain(|moment| (begin..=end).contains(moment));
    moments.extend([begin, end]);
    moments.sort_unstable();
    let silences = moments.windows(2).map(|pair| Silence { from: pair[0], until: pair[1] });
    silences.max_by_key(Silence::length).unwrap_or(Silence { from: begin, until: end })
}

/// A row of equal observations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// What was observed.
    pub value: T,
    /// When first.
    pub first: Instant,
    /// When last.
    pub last: Instant,
    /// How often.
    pub count: usize,
}

/// Joins equal neighbours; who answered when, for a timeline. The observations must be in the order
/// of time.
pub fn spans<T: PartialEq>(observations: impl IntoIterator<Item = (Instant, T)>) -> Vec<Span<T>> {
    let mut spans: Vec<Span<T>> = Vec::new();
    for (at, value) in observations {
        match spans.last_mut() {
            Some(span) if span.value == value => {
                span.last = at;
                span.count += 1;
            }
            _ => spans.push(Span { value, first: at, last: at, count: 1 }),
        }
    }
    spans
}

/// When each successful request was answered, for [`longest_silence`].
pub fn answers(requests: &[Request]) -> impl Iterator<Item = Instant> {
    requests.iter().filter(|request| request.is_answered()).map(|request| request.ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn the_longest_silence() {
        let begin = Instant::now();
        let table: [(&[u64], (u64, u64)); 5] = [
            (&[], (0, 1000)),
            (&[0, 1000], (0, 1000)),
            (&[10, 20, 900], (20, 900)),
            (&[700, 600, 650], (0, 600)),
            (&[100, 200, 5000], (200, 1000)),
        ];
        for (successes, (from, until)) in table {
            let moments = successes.iter().map(|number| begin + ms(*number));
            let silence = longest_silence(moments, begin, begin + ms(1000));
            assert_eq!(silence, Silence { from: begin + ms(from), until: begin + ms(until) });
        }
    }

    #[test]
    fn neighbours_are_joined() {
        let begin = Instant::now();
        let seen =
            [(0, "a"), (20, "a"), (40, "b"), (60, "a")].map(|(at, who)| (begin + ms(at), who));
        let joined = spans(seen);
        let short: Vec<_> = joined.iter().map(|span| (span.value, span.count)).collect();
        assert_eq!(short, [("a", 2), ("b", 1), ("a", 1)]);
        assert_eq!(joined[0].last, begin + ms(20));
    }

    proptest! {
        #[test]
        fn no_success_lies_inside_of_the_longest_silence(successes in proptest::collection::vec(0u64..2000, 0..50)) {
            let begin = Instant::now();
            let moments: Vec<_> = successes.iter().map(|number| begin + ms(*number)).collect();
            let silence = longest_silence(moments.iter().copied(), begin, begin + ms(1000));
            prop_assert!(moments.iter().all(|at| *at <= silence.from || *at >= silence.until));
        }

        #[test]
        fn spans_count_everything(values in proptest::collection::vec(0u8..3, 0..50)) {
            let now = Instant::now();
            let joined = spans(values.iter().map(|value| (now, *value)));
            prop_assert_eq!(joined.iter().map(|span| span.count).sum::<usize>(), values.len());
            prop_assert!(joined.windows(2).all(|pair| pair[0].value != pair[1].value));
        }
    }
}
