//! What it means that a request to the API server brought nothing.

use std::time::Duration;

use kube::core::Status;

/// Why a request brought nothing, as far as the caller has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no such object (HTTP 404).
    NotFound,
    /// The object has changed meanwhile, or exists already (HTTP 409).
    Conflict,
    /// The API server answers, and says no. It will say so again until somebody mends something.
    Refused(Cause),
    /// The API server answers, and has too much to do (HTTP 429).
    Busy {
        /// How long it asks to be left alone (`Status.details.retryAfterSeconds`).
        retry_after: Option<Duration>,
    },
    /// Nothing came, or the API server could not do it (HTTP 5xx). It may have done it all the same.
    Unanswered {
        /// How long it asks to be left alone, where it says so.
        retry_after: Option<Duration>,
    },
}

/// Why the API server says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A `ResourceQuota` is used up.
    Quota,
    /// An admission policy or webhook denies it.
    Admission,
    /// The namespace is being deleted.
    Terminating,
    /// The token is not accepted: it is none, or not valid any more (HTTP 401).
    Unauthorized,
    /// Whoever asks lacks a permission (HTTP 403).
    Forbidden,
    /// The object is not acceptable: malformed or too large, say.
    Invalid,
}

impl Cause {
    /// The word for it in conditions and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "Quota",
            Self::Admission => "Admission",
            Self::Terminating => "Terminating",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::Invalid => "Invalid",
        }
    }

    /// What those are told who may not read the namespace of the object: the API server's own words name its quotas and
    /// policies.
    pub const fn in_general(self) -> &'static str {
        match self {
            Self::Quota => "a ResourceQuota there is used up; Arpeggio's log names it",
            Self::Admission => "an admission policy or webhook denies it; Arpeggio's log names it",
            Self::Terminating => "the namespace is being deleted",
            Self::Unauthorized => {
                "the API server does not accept Arpeggio's token; its log has the API server's words"
            }
            Self::Forbidden => "Arpeggio lacks the permission; its log has the API server's words",
            Self::Invalid => {
                "the object is not acceptable; Arpeggio's log has the API server's words"
            }
        }
    }

    /// The API server has one code for quotas, policies and permissions; its words tell them apart. Each of them has a blank
    /// in it: the name of an object, which stands beside them, has none.
    fn of(status: &Status) -> Self {
        let says = |words: &str| status.message.contains(words);
        match status.code {
            _ if says("exceeded quota") => Self::Quota,
            _ if says("denied the request") || says("denied request") => Self::Admission,
            _ if says("it is being terminated") => Self::Terminating,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            _ => Self::Invalid,
        }
    }
}

impl Failure {
    /// Whether the object is gone, or not what it was: to try again begins with reading it.
    pub fn tells_of_change(self) -> bool {
        matches!(self, Self::NotFound | Self::Conflict)
    }

    /// What an answer of the API server means (`Status.code`).
    pub fn of_status(status: &Status) -> Self {
        let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
        let retry_after = seconds.filter(|it| *it > 0).map(|it| Duration::from_secs(it.into()));
        match status.code {
            // A webhook denies with whichever code it likes, and one that cannot be asked is the API server's own fault (500).
            400..=599 if is_of_admission(status) => Self::Refused(Cause::Admission),
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::Busy { retry_after },
            // What stands before the API server gave up waiting (RFC 9110 section 15.5.9; RFC 8470 section 5.2).
            408 | 425 => Self::Unanswered { retry_after },
            400..=499 => Self::Refused(Cause::of(status)),
            _ => Self::Unanswered { retry_after },
        }
    }
}

/// Whether a webhook denies it, or was to be asked and could not be.
fn is_of_admission(status: &Status) -> bool {
    ["denied the request", "failed calling webhook"].iter().any(|it| status.message.contains(it))
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            _ => Self::Unanswered { retry_after: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    const DENIED: Failure = Failure::Refused(Cause::Admission);

    fn status(code: u16, message: &str, retry_after_seconds: u32) -> Status {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds,
        };
        Status { code, message: message.into(), details: Some(details), ..Status::default() }
    }

    #[test]
    fn an_api_server_that_says_no_is_not_one_that_is_away() {
        let second = Some(Duration::from_secs(1));
        let table = [
            (404, "not found", 0, Failure::NotFound),
            (409, "the object has been modified", 0, Failure::Conflict),
            (401, "Unauthorized", 0, Failure::Refused(Cause::Unauthorized)),
            (
                403,
                "leases is forbidden: User x cannot patch",
                0,
                Failure::Refused(Cause::Forbidden),
            ),
            (403, "forbidden: exceeded quota: leases", 0, Failure::Refused(Cause::Quota)),
            (
                403,
                "admission webhook \"a\" denied the request",
                0,
                Failure::Refused(Cause::Admission),
            ),
            (404, "admission webhook \"a\" denied the request: no such team", 0, DENIED),
            (409, "admission webhook \"a\" denied the request: taken", 0, DENIED),
            (422, "ValidatingAdmissionPolicy 'a' with binding 'a' denied request: no", 0, DENIED),
            (500, "Internal error occurred: failed calling webhook \"a\": refused", 0, DENIED),
            (503, "admission webhook \"a\" denied the request: not now", 0, DENIED),
            (
                403,
                "services \"denied\" is forbidden: User x cannot patch in the namespace \"access-denied\"",
                0,
                Failure::Refused(Cause::Forbidden),
            ),
            (
                403,
                "leases \"a\" is forbidden: unable to create new content in namespace lb because it is being terminated",
                0,
                Failure::Refused(Cause::Terminating),
            ),
            (408, "Request Time-out", 0, Failure::Unanswered { retry_after: None }),
            (425, "Too Early", 1, Failure::Unanswered { retry_after: second }),
            (413, "request is too large", 0, Failure::Refused(Cause::Invalid)),
            (422, "Lease is invalid", 0, Failure::Refused(Cause::Invalid)),
            (429, "too many requests", 1, Failure::Busy { retry_after: second }),
            (429, "too many requests", 0, Failure::Busy { retry_after: None }),
            (500, "etcdserver: request timed out", 0, Failure::Unanswered { retry_after: None }),
            (503, "apiserver is shutting down", 1, Failure::Unanswered { retry_after: second }),
        ];
        for (code, message, seconds, expected) in table {
            assert_eq!(Failure::of_status(&status(code, message, seconds)), expected, "{message}");
        }
    }
}
