//! What users are told of an object, once, as an event shows it.

/// Whether an event tells of something expected (`Event.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something went as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Normal or warning.
    pub kind: Kind,
    /// One CamelCase word for machines (`Event.reason`).
    pub reason: &'static str,
    /// What was done, one CamelCase word (`Event.action`).
    pub action: &'static str,
    /// A sentence for people.
    pub note: String,
}
