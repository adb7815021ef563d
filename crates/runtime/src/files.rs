//! How many files and sockets this process may open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A process that may open fewer is told of in its log: with interfaces, watches and connections of its own it needs some
/// thirty, and more on a node with several networks.
const FEW: u64 = 128;

/// One in so many may be a connection that a stranger has made.
const SHARE: u64 = 16;

/// Lets this process open as many files as its hard limit has, and warns when those are few.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit < FEW => tracing::warn!(
            limit,
            "this process may open few files: with too few it cannot open its interfaces, or cannot reach the API server. \
             Raise the limit (LimitNOFILE of the container runtime's unit, or ulimit -n)"
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "how many files this process may open is not known, or cannot be raised");
        }
    }
}

/// How many files strangers' connections may take, so that they never take the last ones: `most` where there are enough.
pub(crate) fn for_strangers(most: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    share_of(limit, most)
}

fn share_of(limit: u64, most: usize) -> usize {
    usize::try_from(limit / SHARE).unwrap_or(most).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_few_of_few_files() {
        let table = [(0, 1), (20, 1), (48, 3), (64, 4), (512, 32), (1024, 32), (u64::MAX, 32)];
        for (limit, expected) in table {
            assert_eq!(share_of(limit, 32), expected, "{limit}");
        }
    }

    #[test]
    fn the_hard_limit_is_used() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
