//! Pools as their author declared them.

use alloc::{boxed::Box, collections::BTreeSet, string::String, vec::Vec};
use arpeggio_labels::{Labels, Selector, SelectorError};
use core::{net::IpAddr, time::Duration};

use crate::{
    names::PoolName,
    range::{AddressRange, Family, RangeError},
    request::Requester,
    sharing::SharingScope,
    space::{allowed, declared},
};

/// A named set of addresses, and who may have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique among pools of whatever origin.
    pub name: PoolName,
    /// Its addresses, as declared; they may overlap each other.
    pub ranges: Vec<AddressRange>,
    /// Addresses among them that are never given out.
    pub excluded: Vec<AddressRange>,
    /// Whether Services that name no pool get addresses from it.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are never given out.
    pub avoid_buggy_ips: bool,
    /// Who may have its addresses; `None`: everybody. A pool with rules is tried before pools without.
    pub rules: Option<AllocationRules>,
    /// For how long an address that was given back is given to nobody. Zero: not at all.
    pub cool_down: Duration,
    /// Whose Services may share one of its addresses.
    pub sharing: SharingScope,
    /// It is being deleted: who has addresses of it keeps them until it is gone, and nobody gets any.
    pub ends: bool,
}

/// Who may have addresses of a pool, and how eagerly it is used.
///
/// A Service fits when its namespace is one of `namespaces` or is selected by one of `namespace_selectors`, and one of
/// `service_selectors` selects it. Where a list is not given at all, nothing is asked in that respect. Selectors that
/// select nothing mean that nobody fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationRules {
    /// The lower, the earlier it is tried; 0 comes last.
    pub priority: u32,
    /// Namespaces, by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces, by their labels.
    pub namespace_selectors: Vec<Selector>,
    /// Services, by their labels.
    pub service_selectors: Vec<Selector>,
}

/// A pool that cannot be used. It keeps its name, so that whoever asks for it learns why it gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct InvalidPool {
    /// The pool.
    pub pool: PoolName,
    /// What is wrong with it.
    pub error: PoolError,
    /// For whom it says that it is: to others it is not named.
    pub audience: Audience,
}

/// For whom a pool is that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everybody.
    Everybody,
    /// Those whom these rules admit.
    Those(Box<AllocationRules>),
    /// Some of whom it is not understood who they are. It may be nobody who asks.
    Unreadable,
}

impl InvalidPool {
    /// A pool for everybody that cannot be used for this reason.
    pub fn new(pool: PoolName, error: PoolError) -> Self {
        Self { pool, error, audience: Audience::Everybody }
    }

    /// The same, for those whom these rules admit. Rules that are not understood admit nobody.
    #[must_use]
    pub fn is_for<E>(self, rules: Result<Option<AllocationRules>, E>) -> Self {
        let audience = match rules {
            Ok(None) => Audience::Everybody,
            Ok(Some(rules)) => Audience::Those(Box::new(rules)),
            Err(_) => Audience::Unreadable,
        };
        Self { audience, ..self }
    }

    /// Whether it is for `requester`, as far as that is understood.
    ///
    /// # Errors
    /// Which rule says that it is not.
    pub(crate) fn admits(&self, requester: &Requester) -> Result<(), Outsider> {
        match &self.audience {
            Audience::Everybody => Ok(()),
            Audience::Those(rules) => rules.admit(requester),
            Audience::Unreadable => Err(Outsider::Unreadable),
        }
    }
}

/// What is wrong with a pool's declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A pool without any address.
    #[error("it has no addresses: add some")]
    NoAddresses,
    /// One of its addresses, given or excluded, is not one.
    #[error("{list} {} of {of}: {error}", position + 1)]
    Address {
        /// What the list's items are: `address`, `excluded address`.
        list: &'static str,
        /// Which item is wrong, from 0.
        position: usize,
        /// How many items there are.
        of: usize,
        /// What is wrong with it.
        error: Box<RangeError>,
    },
    /// One of its selectors is not one.
    #[error("{field}: {error}")]
    Selector {
        /// Where it stands.
        field: String,
        /// What is wrong with it.
        error: SelectorError,
    },
    /// Another pool has the name already.
    #[error("another pool has the name \"{0}\": rename one of the two")]
    NameTaken(PoolName),
    /// Something that only its format can have, in words that say what to do.
    #[error("{0}")]
    Format(String),
}

/// What the owner of a Service is told of a pool that is invalid: why it is may tell of other namespaces.
pub(crate) const INVALID: &str =
    "it is not used, since it is invalid: the pool's conditions or events say why";

/// How a Service does not fit [`AllocationRules`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outsider {
    /// Its namespace is not among those that may.
    #[error(
        "its spec.allocation (of an IPAddressPool: spec.serviceAllocation) is not for namespace \"{0}\": add the namespace to \
         it, or name another pool"
    )]
    Namespace(String),
    /// The pool is for namespaces with certain labels, and those of its namespace cannot be read.
    #[error(
        "its spec.allocation.namespaceSelectors (of an IPAddressPool: spec.serviceAllocation.namespaceSelectors) select \
         namespaces, and the labels of namespace \"{0}\" cannot be read at present: wait, or name another pool"
    )]
    Unknown(String),
    /// The pool is invalid, and for whom it is cannot be understood.
    #[error("{}", INVALID)]
    Unreadable,
    /// Its labels are not selected.
    #[error(
        "its spec.allocation.serviceSelectors (of an IPAddressPool: spec.serviceAllocation.serviceSelectors) do not select \
         this Service: give the Service such labels, or name another pool"
    )]
    Labels,
}

impl Pool {
    /// A pool of `ranges` with every other property at its default: it assigns automatically, to everybody.
    pub fn new(name: PoolName, ranges: Vec<AddressRange>) -> Self {
        Self {
            name,
            ranges,
            excluded: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
            rules: None,
            cool_down: Duration::ZERO,
            sharing: SharingScope::default(),
            ends: false,
        }
    }

    /// A pool of addresses as people write them; see [`AddressRange`].
    ///
    /// # Errors
    /// When there are none, or the first item that is not an address range. A pool of which only a part is understood
    /// is not used at all: its author should see it at once, not when the other part is full.
    pub fn parse(name: PoolName, addresses: &[impl AsRef<str>]) -> Result<Self, InvalidPool> {
        match parse_ranges("address", addresses) {
            Ok(ranges) if ranges.is_empty() => Err(InvalidPool::new(name, PoolError::NoAddresses)),
            Ok(ranges) => Ok(Self::new(name, ranges)),
            Err(error) => Err(InvalidPool::new(name, error)),
        }
    }

    /// The addresses that it may give, as its ranges have them: without what is excluded or special, but with those that
    /// `avoid_buggy_ips` leaves out ([`is_buggy`]), without which a large range would be thousands of small ones.
    #[must_use]
    pub fn allowed(&self) -> Vec<AddressRange> {
        let of = |range: &AddressRange| {
            let family = range.family();
            let left = allowed(core::slice::from_ref(range), &self.excluded, family);
            let left = left.iter().map(|(first, last)| AddressRange::between(family, first, last));
            left.collect::<Vec<_>>()
        };
        self.ranges.iter().flat_map(of).collect()
    }

    /// Whether all its addresses are among those of `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        Family::ALL.into_iter().all(|family| {
            let mut more = declared(&self.ranges, family);
            declared(&other.ranges, family)
                .iter()
                .for_each(|(first, last)| more.subtract(first, last));
            more.lowest().is_none()
        })
    }

    /// Whether its rules let `requester` have its addresses.
    ///
    /// # Errors
    /// Which rule does not.
    pub fn admits(&self, requester: &Requester) -> Result<(), Outsider> {
        self.rules.as_ref().map_or(Ok(()), |rules| rules.admit(requester))
    }
}

/// Whether some machines take an address for that of a network or for everybody, which it is not: an IPv4 address that ends in
/// .0 or .255.
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if [0, 255].contains(&address.octets()[3]))
}

/// Addresses as people write them. `list` says what the items are, for the error: `address`, `excluded address`.
///
/// # Errors
/// The first item that is not an address range.
pub fn parse_ranges(
    list: &'static str,
    items: &[impl AsRef<str>],
) -> Result<Vec<AddressRange>, PoolError> {
    let item = |(position, text): (usize, &str)| {
        let wrong = |error: RangeError| {
            let error = Box::new(error);
            PoolError::Address { list, position, of: items.len(), error }
        };
        text.parse().map_err(wrong)
    };
    items.iter().map(AsRef::as_ref).enumerate().map(item).collect()
}

impl AllocationRules {
    fn admit(&self, requester: &Requester) -> Result<(), Outsider> {
        self.admit_namespace(requester)?;
        if !self.service_selectors.is_empty()
            && !any_matches(&self.service_selectors, &requester.labels)
        {
            return Err(Outsider::Labels);
        }
        Ok(())
    }

    fn admit_namespace(&self, requester: &Requester) -> Result<(), Outsider> {
        let everywhere = self.namespaces.is_empty() && self.namespace_selectors.is_empty();
        if everywhere || self.namespaces.contains(&requester.namespace) {
            return Ok(());
        }
        let namespace = requester.namespace.clone();
        match &requester.namespace_labels {
            Some(labels) if any_matches(&self.namespace_selectors, labels) => Ok(()),
            None if !self.namespace_selectors.is_empty() => Err(Outsider::Unknown(namespace)),
            _ => Err(Outsider::Namespace(namespace)),
        }
    }
}

fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_wrong_item_is_named() {
        let items = ["10.0.0.1", "10.0.0.9-10.0.0.5"];
        let error = Pool::parse("home".into(), &items).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address 2 of 2: 10.0.0.9-10.0.0.5 starts after its end: did you mean 10.0.0.5-10.0.0.9?"
        );
        let none: [&str; 0] = [];
        let error = Pool::parse("home".into(), &none).unwrap_err();
        assert_eq!(error.to_string(), "it has no addresses: add some");
    }

    fn requester() -> Requester {
        Requester {
            namespace: "shop".into(),
            namespace_labels: Some(Labels::from([("tier".into(), "front".into())])),
            labels: Labels::from([("app".into(), "web".into())]),
        }
    }

    fn label(key: &str, value: &str) -> Vec<Selector> {
        Vec::from([Selector::default().with_label(key, value).unwrap()])
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_admit_who_fits_every_kind_that_is_given() {
        let (here, elsewhere) = (names(&["shop"]), names(&["bank"]));
        let rules = |namespaces: &BTreeSet<String>, by_label, services| AllocationRules {
            priority: 0,
            namespaces: namespaces.clone(),
            namespace_selectors: by_label,
            service_selectors: services,
        };
        let none = || Vec::<Selector>::new();
        let outside = Err(Outsider::Namespace("shop".into()));
        let table = [
            (rules(&names(&[]), none(), none()), Ok(())),
            (rules(&here, none(), none()), Ok(())),
            (rules(&elsewhere, none(), none()), outside.clone()),
            (rules(&elsewhere, label("tier", "front"), none()), Ok(())),
            (rules(&names(&[]), label("tier", "back"), none()), outside.clone()),
            (rules(&here, none(), label("app", "web")), Ok(())),
            (rules(&here, none(), label("app", "db")), Err(Outsider::Labels)),
            (rules(&elsewhere, none(), label("app", "web")), outside),
        ];
        for (rules, expected) in table {
            assert_eq!(rules.admit(&requester()), expected, "{rules:?}");
        }
    }

    #[test]
    fn a_namespace_whose_labels_are_unknown_is_selected_by_none() {
        let unknown = Requester { namespace_labels: None, ..requester() };
        let without =
            Vec::from([Selector::default().with_expression("tenant", "DoesNotExist", []).unwrap()]);
        let rules = |namespaces: &[&str], namespace_selectors| AllocationRules {
            namespaces: names(namespaces),
            namespace_selectors,
            ..AllocationRules::default()
        };
        let not_known = Err(Outsider::Unknown("shop".into()));
        let table = [
            (rules(&[], Vec::new()), Ok(())),
            (rules(&["shop"], label("tier", "front")), Ok(())),
            (rules(&["bank"], Vec::new()), Err(Outsider::Namespace("shop".into()))),
            (rules(&["bank"], label("tier", "front")), not_known.clone()),
            (rules(&[], without), not_known),
        ];
        for (rules, expected) in table {
            assert_eq!(rules.admit(&unknown), expected, "{rules:?}");
        }
    }
}
