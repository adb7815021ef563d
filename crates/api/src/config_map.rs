//! Pools in a `ConfigMap`, for clusters where nobody may install resource definitions.
//!
//! ```yaml
//! address-pools:
//! - name: external
//!   protocol: layer2
//!   addresses:
//!   - 192.168.0.3/32
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `name` | what annotations call the pool; without commas and equals signs |
//! | `protocol` | `layer2`, or absent |
//! | `addresses` | CIDRs, ranges and single addresses |
//! | `routed` | whether a router has a route to the addresses, so that no node announces them; not in `MetalLB`'s |
//! | `spread` | `nodes`: all nodes that can serve an address; absent, or `none`: the one that announces it; not in `MetalLB`'s |
//! | `auto-assign` | whether Services that name no pool get addresses from it; absent means yes |
//! | `avoid-buggy-ips` | whether IPv4 addresses that end in .0 or .255 are never given out; absent means no |
//!
//! A name may be a word that YAML takes for something else, such as `1` or `yes`: it is read as it stands there. A key
//! with nothing behind it counts as absent.
//!
//! An entry with a mistake disables only itself, since a pool of which only a part is understood may do what its author
//! did not want. A text that is not YAML at all says nothing: whoever has read an earlier one goes by that.

mod yaml;

use std::collections::BTreeMap;

use arpeggio_ipam::{InvalidPool, Pool, PoolError, PoolName, parse_ranges};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource as _, ResourceExt as _};

use self::yaml::{Located, Pairs, Yaml};
use crate::{
    address_pool::{AnnounceRule, Spread},
    declaration::{Declaration, Origin, Remark, invalid},
    metallb,
    terms::Announcement,
};

/// The key of the list of pools.
const POOLS: &str = "address-pools";

/// The keys of one pool.
const POOL_KEYS: &str = "name, protocol, addresses, auto-assign, avoid-buggy-ips, routed, spread";

/// The same where `MetalLB`'s rules apply.
const METALLB_POOL_KEYS: &str = "name, protocol, addresses, auto-assign, avoid-buggy-ips";

/// Which rules apply to the addresses in a `ConfigMap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As in an `AddressPool`: host bits of a CIDR are refused.
    Ours,
    /// As in `MetalLB`, whose `ConfigMap` it is: host bits are masked, with a remark.
    MetalLb,
}

/// A text from which no pool can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; what was read from it before stays in force")]
pub struct Malformed {
    message: String,
}

/// What a `ConfigMap` declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declarations {
    /// Its pools, in the order of the text.
    pub pools: Vec<Declaration>,
    /// What its author should know.
    pub remarks: Vec<Remark>,
    /// Whether some entry has no name that can be read: it may be any pool that was there before.
    pub has_nameless: bool,
}

/// The pools in the value of `key`. A `ConfigMap` without any value has none.
///
/// # Errors
/// When it is not YAML or not a mapping, with line and column; when there are values under other keys only, be they keys of the
/// `ConfigMap` or of the text.
pub fn parse(object: &ConfigMap, key: &str, dialect: Dialect) -> Result<Declarations, Malformed> {
    let text = text_of(object, key)?;
    let mut documents = yaml::parse(text)?.into_iter();
    let mut reader = Reader { object, text, dialect, found: Declarations::default() };
    let document = documents.next().unwrap_or_default();
    if let Some(at) = documents.next().and_then(|second| second.location()) {
        reader.second_document(at)?;
    }
    let (mut has_pools, mut unknown) = (false, None);
    for (name, value) in document.0 {
        has_pools |= name.value == POOLS;
        match (name.value.as_str(), value.value) {
            (POOLS, Yaml::List(entries)) => entries.into_iter().for_each(|it| reader.entry(it)),
            (POOLS, Yaml::Null) => {}
            (POOLS, _) => {
                return Err(Malformed::at(&value.location, "address-pools must be a list"));
            }
            (other, _) => {
                reader.ignore(other, &name.location);
                if !METALLB_KEYS.contains(&other) {
                    unknown.get_or_insert((other.to_owned(), name.location));
                }
            }
        }
    }
    match unknown.filter(|_| !has_pools) {
        // What was meant is not known: a typing error must not take all pools away.
        Some((key, at)) => {
            let what = format!(
                "pools are listed under {POOLS}, and there is only the unknown key {key:?}"
            );
            Err(Malformed::at(&at, &what))
        }
        None => Ok(reader.found),
    }
}

/// The keys beside the pools that `MetalLB` has known.
const METALLB_KEYS: [&str; 3] = ["peers", "bgp-communities", "bfd-profiles"];

fn text_of<'a>(object: &'a ConfigMap, key: &str) -> Result<&'a str, Malformed> {
    if let Some(text) = object.data.as_ref().and_then(|data| data.get(key)) {
        return Ok(text);
    }
    // There kubectl puts a file that is not UTF-8.
    if object.binary_data.as_ref().is_some_and(|data| data.contains_key(key)) {
        let message = "it is in binaryData, since it is no UTF-8: save the file as UTF-8";
        return Err(Malformed { message: message.to_owned() });
    }
    let texts = object.data.iter().flat_map(BTreeMap::keys);
    let others: Vec<&str> = texts
        .chain(object.binary_data.iter().flat_map(BTreeMap::keys))
        .map(String::as_str)
        .collect();
    if others.is_empty() {
        return Ok("");
    }
    let others = others.join(", ");
    let message = format!("there is no such key, but {others}: rename the one with the pools");
    Err(Malformed { message })
}

impl Malformed {
    fn at(location: &yaml::Location, what: &str) -> Self {
        Self { message: format!("{what} at {location}") }
    }
}

struct Reader<'a> {
    object: &'a ConfigMap,
    text: &'a str,
    dialect: Dialect,
    found: Declarations,
}

impl Reader<'_> {
    /// What stands after the first document counts nowhere: `MetalLB` has passed it over, and who writes for us may mean it.
    fn second_document(&mut self, at: yaml::Location) -> Result<(), Malformed> {
        match self.dialect {
            Dialect::Ours => Err(Malformed::at(&at, "remove the --- before what begins")),
            Dialect::MetalLb => {
                let message = format!(
                    "what begins at {at} is ignored, as MetalLB does: remove the --- before it if it is to count"
                );
                self.found.remarks.push(Remark { reason: "UnknownKey", message });
                Ok(())
            }
        }
    }

    /// A key beside the pools may be meant for another program.
    fn ignore(&mut self, key: &str, at: &yaml::Location) {
        let message = if METALLB_KEYS.contains(&key) {
            format!("{key} at {at} is ignored: addresses are announced at layer 2 only")
        } else {
            format!("unknown key {key:?} at {at} is ignored: pools are listed under {POOLS}")
        };
        self.found.remarks.push(Remark { reason: "UnknownKey", message });
    }

    fn entry(&mut self, entry: Located<Yaml>) {
        let line = entry.location.line();
        let mut announcement = Announcement::Everywhere;
        let pool = match entry.value {
            Yaml::Map(pairs) => self.pool(pairs, line).map(|(pool, how)| {
                announcement = how;
                pool
            }),
            _ => Err(invalid(nameless(line), "an entry must have the keys name and addresses")),
        };
        let origin = Origin::ConfigMap {
            namespace: self.object.namespace().unwrap_or_default(),
            name: self.object.name_any(),
            line,
        };
        let created: Option<Time> = self.object.creation_timestamp();
        let object = self.object.object_ref(&());
        let probing = true;
        let version = self.object.resource_version();
        let generation = version.and_then(|version| version.parse().ok());
        let declaration = Declaration {
            origin,
            object,
            generation,
            created,
            pool,
            announcement,
            probing,
            ends: self.object.metadata.deletion_timestamp.is_some(),
        };
        self.found.has_nameless |= is_nameless(&declaration);
        self.found.pools.push(declaration);
    }

    /// A pool, and how it is announced.
    fn pool(&mut self, pairs: Pairs, line: u64) -> Result<(Pool, Announcement), InvalidPool> {
        let name = pool_name(&pairs, line, self.text)?;
        let wrong = |why: String| invalid(name.clone(), why);
        let mut pool = Pool::new(name.clone(), Vec::new());
        let (mut routed, mut spread) = (false, Spread::None);
        for (key, value) in pairs.0 {
            match key.value.as_str() {
                "name" => {}
                "protocol" => check_protocol(&value, self.text).map_err(wrong)?,
                "addresses" => {
                    let items = texts(value, self.text).map_err(wrong)?;
                    pool.ranges = self
                        .ranges(&items)
                        .map_err(|error| InvalidPool::new(name.clone(), error))?;
                }
                "auto-assign" => pool.auto_assign = switch(&key, &value).map_err(wrong)?,
                "avoid-buggy-ips" => pool.avoid_buggy_ips = switch(&key, &value).map_err(wrong)?,
                "routed" if self.dialect == Dialect::Ours => {
                    routed = switch(&key, &value).map_err(wrong)?;
                }
                "spread" if self.dialect == Dialect::Ours => {
                    spread = spread_of(&value, self.text).map_err(wrong)?;
                }
                "bgp-advertisements" if self.dialect == Dialect::MetalLb => {
                    check_bgp(&value).map_err(wrong)?;
                }
                other => {
                    let (at, known) = (key.location, self.pool_keys());
                    let why = format!("unknown key {other:?} at {at}: there are {known}");
                    return Err(wrong(why));
                }
            }
        }
        if pool.ranges.is_empty() {
            return Err(InvalidPool::new(name, PoolError::NoAddresses));
        }
        Ok((pool, announcement(routed, spread).map_err(wrong)?))
    }

    fn pool_keys(&self) -> &'static str {
        match self.dialect {
            Dialect::Ours => POOL_KEYS,
            Dialect::MetalLb => METALLB_POOL_KEYS,
        }
    }

    fn ranges(&mut self, items: &[String]) -> Result<Vec<arpeggio_ipam::AddressRange>, PoolError> {
        match self.dialect {
            Dialect::Ours => parse_ranges("address", items),
            Dialect::MetalLb => metallb::ranges(items, &mut self.found.remarks),
        }
    }
}

/// What to call a pool that has no usable name; no annotation can name it.
fn nameless(line: u64) -> PoolName {
    PoolName::from(format!("(line {line})"))
}

/// Whether a pool has no name that can be read.
pub fn is_nameless(pool: &Declaration) -> bool {
    matches!(pool.origin, Origin::ConfigMap { line, .. } if *pool.name() == nameless(line))
}

fn pool_name(pairs: &Pairs, line: u64, text: &str) -> Result<PoolName, InvalidPool> {
    let Some(value) = pairs.get("name") else {
        return Err(invalid(nameless(line), "it has no name: give it one"));
    };
    let at = &value.location;
    match value.word(text) {
        None => Err(invalid(nameless(line), format!("its name at {at} must be one word"))),
        Some(name) if name.trim().is_empty() => {
            Err(invalid(nameless(line), format!("its name at {at} is empty: give it one")))
        }
        Some(name) if name.trim() != name || name.contains([',', '=']) => {
            let why = format!(
                "its name at {at} has a comma, an equals sign or spaces around it: remove them"
            );
            Err(invalid(name.into(), why))
        }
        Some(name) => Ok(name.into()),
    }
}

/// An absent protocol, or an empty one, is `layer2`.
fn check_protocol(value: &Located<Yaml>, text: &str) -> Result<(), String> {
    let at = value.location;
    match value.word(text) {
        Some("" | "layer2") => Ok(()),
        Some(protocol) => Err(format!(
            "protocol {protocol:?} at {at} is not supported: addresses are announced at layer 2 only, write layer2"
        )),
        None => Err(format!("protocol at {at} must be layer2")),
    }
}

/// `MetalLB` takes an empty list beside `protocol: layer2`.
fn check_bgp(value: &Located<Yaml>) -> Result<(), String> {
    match &value.value {
        Yaml::Null => Ok(()),
        Yaml::List(items) if items.is_empty() => Ok(()),
        _ => Err(format!(
            "bgp-advertisements at {}: addresses are announced at layer 2 only, remove them",
            value.location
        )),
    }
}

/// An absent value, or an empty one, is `none`.
fn spread_of(value: &Located<Yaml>, text: &str) -> Result<Spread, String> {
    let at = value.location;
    match value.word(text) {
        Some("") => Ok(Spread::None),
        Some(word) => Spread::named(word)
            .ok_or_else(|| format!("spread {word:?} at {at} is not known: write nodes or none")),
        None => Err(format!("spread at {at} must be nodes or none")),
    }
}

fn announcement(routed: bool, spread: Spread) -> Result<Announcement, String> {
    match (routed, spread) {
        (true, Spread::Nodes) => {
            Err("routed says that no node announces the addresses, and spread which nodes serve \
             them: remove one of both"
                .to_owned())
        }
        (true, Spread::None) => Ok(Announcement::Routed),
        (false, Spread::None) => Ok(Announcement::Everywhere),
        (false, Spread::Nodes) => {
            Ok(Announcement::ByRules(vec![AnnounceRule { spread, ..AnnounceRule::default() }]))
        }
    }
}

/// The items of a list; none where nothing stands.
fn texts(value: Located<Yaml>, text: &str) -> Result<Vec<String>, String> {
    let items = match value.value {
        Yaml::List(items) => items,
        Yaml::Null => Vec::new(),
        _ => return Err(format!("addresses at {} must be a list", value.location)),
    };
    let word = |item: Located<Yaml>| match item.word(text) {
        Some(word) if !word.is_empty() => Ok(word.to_owned()),
        _ => Err(format!("the address at {} is none", item.location)),
    };
    items.into_iter().map(word).collect()
}

fn switch(key: &Located<String>, value: &Located<Yaml>) -> Result<bool, String> {
    match value.value {
        Yaml::Switch(on) => Ok(on),
        // Nothing is what it is without the key.
        Yaml::Null => Ok(key.value == "auto-assign"),
        _ => Err(format!("{} at {} must be true or false", key.value, value.location)),
    }
}

#[cfg(test)]
mod tests;
