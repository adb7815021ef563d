//! Asking somebody before something is done that others notice.

use std::io::{IsTerminal as _, Write as _, stdin, stdout};

use anyhow::bail;

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
    anstream::print!("{question} [y/N] ");
    stdout().flush()?;
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
}
