//! Conditions, whose time says when they last changed and not when they were last looked at.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The API server refuses longer messages (`Condition.message`).
const LONGEST_MESSAGE: usize = 32_768;

/// What is true of an object now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `Condition.type`.
    pub type_: &'static str,
    /// `Condition.status`: `True` or `False`.
    pub holds: bool,
    /// `Condition.reason`, one CamelCase word.
    pub reason: &'static str,
    /// `Condition.message`, for people; cut when too long.
    pub message: String,
}

impl Finding {
    /// The message as a condition has it: on one line, and no longer than the API server takes.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut shown = arpeggio_text::printable(&self.message).into_owned();
        shown.truncate(shown.floor_char_boundary(LONGEST_MESSAGE));
        shown
    }

    /// The condition that says this of the object's `generation`, where `present` is what it says so far. The time is
    /// `now` only when the status changes, in whole seconds: the API server keeps no more (`metav1.Time`), and what it keeps
    /// would differ for ever from what is to be said.
    #[must_use]
    pub fn observed(
        self,
        generation: Option<i64>,
        present: Option<&Condition>,
        now: Time,
    ) -> Condition {
        let unchanged = present.filter(|present| present.status == self.status());
        Condition {
            type_: self.type_.to_owned(),
            status: self.status().to_owned(),
            reason: self.reason.to_owned(),
            last_transition_time: unchanged
                .map_or_else(|| in_seconds(now), |it| it.last_transition_time.clone()),
            observed_generation: generation,
            message: self.shown(),
        }
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

/// A time as the API server keeps it.
fn in_seconds(time: Time) -> Time {
    Timestamp::from_second(time.0.as_second()).map_or(time, Time)
}

/// The condition of this type.
pub fn of_type<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn finding(holds: bool, message: &str) -> Finding {
        Finding { type_: "Ready", holds, reason: "Because", message: message.to_owned() }
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let first = finding(true, "a").observed(None, None, at(1));
        assert_eq!(first.last_transition_time, at(1));
        let reworded = finding(true, "b").observed(None, Some(&first), at(2));
        assert_eq!(reworded.last_transition_time, at(1));
        let turned = finding(false, "b").observed(None, Some(&reworded), at(3));
        assert_eq!(turned.last_transition_time, at(3));
    }

    #[test]
    fn the_time_is_what_the_api_server_keeps_of_it() {
        let now = Time(Timestamp::new(7, 345_678_901).unwrap());
        let said = finding(true, "a").observed(None, None, now);
        let kept: Condition = serde_json::from_str(&serde_json::to_string(&said).unwrap()).unwrap();
        assert_eq!((&said, &said.last_transition_time), (&kept, &at(7)));
    }

    #[test]
    fn a_message_is_one_line() {
        let condition = finding(true, "\"said\": a\nERROR\u{2028}b").observed(None, None, at(1));
        assert_eq!(condition.message, "\"said\": a\\nERROR\\u{2028}b");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let condition = finding(true, &"é".repeat(20_000)).observed(None, None, at(1));
        assert_eq!(condition.message.len(), LONGEST_MESSAGE);
    }
}
