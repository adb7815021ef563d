//! Asking somebody before something is done that others notice.
//!
//! Standard output may be a file, so what is asked, and what about, is on standard error.

use std::io::{IsTerminal as _, Write as _, stderr, stdin, stdout};

use anyhow::bail;

use crate::{outcome::Format, paint};

/// Where a plan is shown.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    with_result: bool,
    with_question: bool,
}

impl Places {
    /// `on_terminal`: whether the result goes to one, where whoever is asked has seen the plan.
    fn of(format: Format, yes: bool, on_terminal: bool) -> Self {
        let with_result = format.is_for_people();
        let is_seen = with_result && on_terminal;
        Self { with_result, with_question: !yes && !is_seen }
    }
}

/// Shows what is going to be done: before the result, where that is for people, and to whoever is asked.
pub(crate) fn show(plan: &str, format: Format, yes: bool) {
    let (plan, places) = (paint::shown(plan), Places::of(format, yes, stdout().is_terminal()));
    if places.with_result {
        anstream::println!("{plan}");
    }
    if places.with_question {
        anstream::eprintln!("{plan}");
    }
}

/// Whether to go on. `yes`: that was said already.
///
/// Where nobody can be asked nothing is done: a script says beforehand that it means it.
pub(crate) fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !stdin().is_terminal() {
        bail!(
            "there is nobody to ask whether to go on: use --yes, or --dry-run to see what would be done"
        );
    }
    anstream::eprint!("{question} [y/N] ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        assert!(["y\n", "Yes\n"].into_iter().all(is_yes));
        assert!(["", "\n", "n\n", "yep\n"].into_iter().all(|it| !is_yes(it)));
    }

    #[test]
    fn who_is_asked_sees_the_plan_once_and_programs_never() {
        let shown = |format, yes, on_terminal| {
            let Places { with_result, with_question } = Places::of(format, yes, on_terminal);
            (with_result, with_question)
        };
        assert_eq!(shown(Format::Table, false, true), (true, false));
        assert_eq!(shown(Format::Wide, false, false), (true, true), "it goes to a file");
        assert_eq!(shown(Format::Table, true, false), (true, false));
        for format in [Format::Json, Format::Yaml] {
            assert_eq!(shown(format, false, true), (false, true));
            assert_eq!(shown(format, false, false), (false, true));
            assert_eq!(shown(format, true, true), (false, false));
        }
    }
}
