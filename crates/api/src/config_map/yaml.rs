//! YAML with the place of everything in it, so that a mistake can be named with its line.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned, options};

use super::Malformed;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    line: u64,
    column: u64,
}

/// Something, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) location: Location,
    /// Which bytes of the text it is made of, where that is known.
    bytes: Range<usize>,
    pub(super) value: T,
}

/// What stands somewhere, as far as pools are concerned.
#[derive(Debug, Clone)]
pub(super) enum Yaml {
    Null,
    Switch(bool),
    /// A number. Nothing here is one, but it may be meant for a name.
    Number,
    Text(String),
    List(Vec<Located<Self>>),
    Map(Pairs),
}

/// A mapping in the order of the text. No key stands twice: the parser refuses that.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs(pub(super) Vec<(Located<String>, Located<Yaml>)>);

/// The mappings that `text` is made of, those apart that say nothing: more than one when `---` begins another.
pub(super) fn parse(text: &str) -> Result<Vec<Pairs>, Malformed> {
    // A word such as .inf may be a name, or anything in what is for other programs.
    let options = options! { non_finite_float_policy: NonFiniteFloatPolicy::PassThrough };
    let documents = serde_saphyr::from_multiple_with_options(text, options);
    // Its text ends with line and column.
    let malformed = |error: serde_saphyr::Error| error.without_snippet().to_string();
    let documents: Vec<Pairs> =
        documents.map_err(|error| Malformed { message: malformed(error) })?;
    Ok(documents.into_iter().filter(|document| !document.0.is_empty()).collect())
}

impl Location {
    /// From 1.
    pub(super) fn line(self) -> u64 {
        self.line
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Pairs {
    /// Where it begins, if it has anything.
    pub(super) fn location(&self) -> Option<Location> {
        self.0.first().map(|(key, _)| key.location)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Located<Yaml>> {
        self.0.iter().find(|(name, _)| name.value == key).map(|(_, value)| value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(deserializer)?;
        let location = Location { line: referenced.line(), column: referenced.column() };
        Ok(Self { location, bytes: bytes(defined).unwrap_or_default(), value })
    }
}

/// The bytes of the text that stand there.
fn bytes(location: serde_saphyr::Location) -> Option<Range<usize>> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    Some(start..start.checked_add(length)?)
}

impl Located<Yaml> {
    /// The word that it is, as it stands in `text`: a number, or a word such as `yes`, may well be a name. Nothing is an
    /// empty word.
    pub(super) fn word<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        match &self.value {
            Yaml::Null => Some(""),
            Yaml::Text(word) => Some(word),
            Yaml::Number | Yaml::Switch(_) => text.get(self.bytes.clone()).map(str::trim),
            Yaml::List(_) | Yaml::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Yaml, E> {
        Ok(Yaml::Switch(on))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Yaml, A::Error> {
        PairsVisitor.visit_map(map).map(Yaml::Map)
    }
}
