//! What the API server checks by itself: rules in CEL, its expression language, with messages that say what to write.
//!
//! They use what Kubernetes 1.29 knows. It has no `isIP` and no `format` yet, so addresses are told by regular expressions.
//!
//! The API server bounds what rules may cost before it takes a definition. A string of unknown length that is joined with
//! `+` counts as if it were of the greatest possible length, and so do the results of `split` and `string`. Those of
//! `substring` count as what they are cut from, and the last `replace` of a message may put in whatever it likes.

use std::borrow::Cow;

use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{AddressItem, InterfacePattern};

/// Longest item of `spec.addresses`: two IPv6 addresses and what may stand between them.
const LONGEST_ITEM: u32 = 96;

/// Longest pattern of an interface's name, which itself has 15 characters at most (`IFNAMSIZ`).
const LONGEST_PATTERN: u32 = 32;

/// A rule with an expression as its message.
fn rule(rule: impl Into<String>, message: &str) -> Value {
    json!(Rule::new(rule).message(Message::Expression(message.to_owned())))
}

impl JsonSchema for InterfacePattern {
    fn schema_name() -> Cow<'static, str> {
        "InterfacePattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let shape = rule(
            r"self.matches('^[^\\s/:,]+$')",
            "'\"' + self + '\" is not a name of interfaces: write one (eth0) or a pattern (en*, eth?), without spaces, \
             slashes, colons and commas'",
        );
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_PATTERN,
            "x-kubernetes-validations": [shape],
        })
    }
}

impl JsonSchema for AddressItem {
    fn schema_name() -> Cow<'static, str> {
        "AddressItem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LONGEST_ITEM,
            "x-kubernetes-validations": item_rules(),
        })
    }
}

/// The schema of `status.conditions`, a list of [`Condition`](k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition).
pub(super) struct Conditions;

impl JsonSchema for Conditions {
    fn schema_name() -> Cow<'static, str> {
        "Conditions".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                "properties": {
                    "lastTransitionTime": {
                        "type": "string",
                        "format": "date-time",
                        "description": "When the status changed last.",
                    },
                    "message": {
                        "type": "string",
                        "description": "What a person should know, and what to do.",
                    },
                    "observedGeneration": {
                        "type": "integer",
                        "format": "int64",
                        "description": "The metadata.generation of the pool that this was said of.",
                    },
                    "reason": {
                        "type": "string",
                        "description": "Why the status is what it is, in one word for programs.",
                    },
                    "status": {
                        "type": "string",
                        "description": "Whether it is so: True, False or Unknown.",
                    },
                    "type": { "type": "string", "description": "What this is about, in one word for programs." },
                },
            },
        })
    }
}

/// The rules for one item, in CEL. They refuse zones, leading zeros and IPv4 addresses in IPv6 clothes, as the pool's own
/// parser does. What only the parser tells: host bits of an IPv6 CIDR, and ranges that run backwards.
fn item_rules() -> Vec<Value> {
    [shape(), host_bits(), family()].into()
}

/// An IPv4 address: four numbers from 0 to 255 without leading zeros.
fn ipv4() -> String {
    const NUMBER: &str = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
    format!(r"({NUMBER}\.){{3}}{NUMBER}")
}

/// The length of an IPv4 CIDR's prefix.
const IPV4_LENGTH: &str = r"/(3[0-2]|[12]?\d)";

/// The length of an IPv6 CIDR's prefix.
const IPV6_LENGTH: &str = r"/(12[0-8]|1[01]\d|[1-9]?\d)";

/// A group of an IPv6 address; letters of both cases are alike.
const GROUP: &str = r"[\da-f]{1,4}";

/// An IPv6 address: eight groups, or fewer and one `::`. Its end is not written as an IPv4 address.
fn ipv6() -> String {
    // With `::` after so many groups, there is room for so many more.
    let shortened = (1..=6).map(|before| {
        let after = 7 - before;
        format!("({GROUP}:){{{before}}}(:{GROUP}){{1,{after}}}")
    });
    let others = [
        format!("({GROUP}:){{7}}{GROUP}"),
        format!("({GROUP}:){{1,7}}:"),
        format!(":((:{GROUP}){{1,7}}|:)"),
    ];
    shortened.chain(others).collect::<Vec<_>>().join("|")
}

/// A CIDR, a range or a single address, IPv4 and IPv6.
fn item() -> String {
    let (ipv4, ipv6) = (ipv4(), ipv6());
    let single_or_cidr = format!(r"{ipv4}({IPV4_LENGTH})?|({ipv6})({IPV6_LENGTH})?");
    let range = format!(r"\s*({ipv4}|{ipv6})\s*-\s*({ipv4}|{ipv6})\s*");
    format!("(?i)^({single_or_cidr}|{range})$")
}

/// What in an item is an IPv4 address in IPv6 clothes (`::ffff:0:0/96`), if the item has the right shape.
fn mapped_ipv4() -> String {
    const ZERO: &str = "0{1,4}";
    let in_full = format!("({ZERO}:){{5}}ffff:");
    let shortened = format!(r"(:|({ZERO}:)+):({ZERO}:)*ffff:{GROUP}:{GROUP}($|[\s/-])");
    format!(r"(?i)(^|[\s-])({in_full}|{shortened})")
}

/// It is a CIDR, a range or a single address, and no IPv4 address in IPv6 clothes.
fn shape() -> Value {
    rule(
        format!("self.matches(r'{}') && !self.matches(r'{}')", item(), mapped_ipv4()),
        "'\"' + self + '\" is not an address: write a CIDR (192.168.1.240/28), a range \
         (192.168.1.240-192.168.1.250) or a single address'",
    )
}

/// The numbers of an IPv4 CIDR, in CEL: those of its address, and then the length of its prefix.
const NUMBERS: &str = r"self.findAll(r'\d+').map(number, int(number))";

/// By which number a number of an address must be divisible when the prefix covers so many of its eight bits.
const DIVISORS: &str = "[256, 128, 64, 32, 16, 8, 4, 2]";

/// An IPv4 CIDR begins with its first address.
fn host_bits() -> Value {
    let divisor = format!("{DIVISORS}[n[4] > 8 * i ? n[4] - 8 * i : 0]");
    let all_divisible = format!("[0, 1, 2, 3].all(i, n[4] >= 8 * i + 8 || n[i] % {divisor} == 0)");
    rule(
        format!(
            "!self.matches(r'^{}{IPV4_LENGTH}$') || [{NUMBERS}].all(n, {all_divisible})",
            ipv4()
        ),
        &network_that_is_meant(),
    )
}

/// The message for host bits. Up to the number where the prefix ends, the network reads as the address; that number is
/// rounded down, and all after it are 0.
fn network_that_is_meant() -> String {
    let dot = "self.indexOf('.')";
    let starts =
        format!("[0, {dot} + 1, self.indexOf('.', {dot} + 1) + 1, self.lastIndexOf('.') + 1]");
    let message = format!(
        "(self + ' has host bits set: did you mean ' + self.substring(0, self.indexOf('/')) + '/32 or ' + \
         self.substring(0, {starts}[n[4] / 8]) + '#' + '.0.0.0'.substring(n[4] / 8 * 2) + \
         self.substring(self.indexOf('/')) + '?')"
    );
    let rounded = format!("n[n[4] / 8] - n[n[4] / 8] % {DIVISORS}[n[4] % 8]");
    format!("[{NUMBERS}].map(n, {message}.replace('#', string({rounded})))[0]")
}

/// Both ends of a range are of one family.
fn family() -> Value {
    const IPV4: &str = r"\s*[\d.]+\s*";
    const IPV6: &str = r"\s*[\da-f]*:[\da-f:]*\s*";
    rule(
        format!("!self.matches(r'(?i)^({IPV4}-{IPV6}|{IPV6}-{IPV4})$')"),
        "self + ' mixes IPv4 and IPv6: write one range for each family'",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use arpeggio_ipam::{AddressRange, RangeError};
    use proptest::{collection::vec, prelude::*, sample::select};
    use regex::Regex;

    use super::*;

    static ITEM: LazyLock<Regex> = LazyLock::new(|| Regex::new(&item()).unwrap());
    static MAPPED_IPV4: LazyLock<Regex> = LazyLock::new(|| Regex::new(&mapped_ipv4()).unwrap());

    /// Whether the pool's own parser finds addresses in an item, be they good ones or not.
    fn is_read(item: &str) -> bool {
        match item.parse::<AddressRange>() {
            Ok(_) => true,
            Err(error) => matches!(
                error,
                RangeError::HostBits { .. }
                    | RangeError::MixedFamilies { .. }
                    | RangeError::StartAfterEnd { .. }
                    | RangeError::ContainsMappedIpv4 { .. }
            ),
        }
    }

    /// What only the parser accepts: spaces around a single address, and an IPv4 address as the end of an IPv6 address.
    fn is_for_the_parser_alone(item: &str) -> bool {
        let spaced = !item.contains('-') && item != item.trim();
        spaced || item.split(['-', '/']).any(|it| it.contains('.') && it.contains(':'))
    }

    fn ipv6_like() -> impl Strategy<Value = String> {
        let group = select(vec!["0", "0000", "1", "db8", "ffff", "FFFF", "c0a8"]);
        (vec(group, 0..=9), 0..12usize).prop_map(|(groups, shortened_at)| {
            let (before, after) = groups.split_at(shortened_at.min(groups.len()));
            let shortened = format!("{}::{}", before.join(":"), after.join(":"));
            if shortened_at > 9 { groups.join(":") } else { shortened }
        })
    }

    fn ipv4_like() -> impl Strategy<Value = String> {
        let number = select(vec![
            "0", "00", "7", "07", "10", "99", "192", "199", "249", "255", "256", "300",
        ]);
        vec(number, 3..=5).prop_map(|numbers| numbers.join("."))
    }

    fn address_like() -> impl Strategy<Value = String> {
        prop_oneof![ipv4_like(), ipv6_like(), "[0-9]{1,3}([.][0-9]{1,3}){3}", "[0-9a-f:.%]{0,12}"]
    }

    fn item_like() -> impl Strategy<Value = String> {
        prop_oneof![
            address_like(),
            (address_like(), "[+]?[0-9]{0,3}").prop_map(|(it, length)| format!("{it}/{length}")),
            (address_like(), " ?- ?|[ /-]", address_like()).prop_map(|(a, b, c)| a + &b + &c),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn the_api_server_and_the_parser_agree(item in item_like()) {
            let accepted = ITEM.is_match(&item) && !MAPPED_IPV4.is_match(&item);
            prop_assert!(accepted == is_read(&item) || is_for_the_parser_alone(&item), "{item:?}");
        }
    }
}
