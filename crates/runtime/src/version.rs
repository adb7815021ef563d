//! Which Arpeggio this is.

use std::sync::LazyLock;

/// The version of all programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a program says for [`REVISION`] that does not know it.
pub const UNKNOWN: &str = "unknown";

/// The commit that this was built from, with `-dirty` when something was changed since; [`UNKNOWN`] unless the build said so
/// (`ARPEGGIO_REVISION`, as `make programs` does).
pub const REVISION: &str = match option_env!("ARPEGGIO_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => UNKNOWN,
};

/// What `--version` says after the program's name.
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({REVISION})"));
    &LONG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_empty() {
        assert!(!VERSION.is_empty() && !REVISION.is_empty());
        assert_eq!(long(), format!("{VERSION} ({REVISION})"));
    }
}
