//! What the API server checks by itself: rules in CEL, its expression language, with messages that say what to write.
//!
//! The API server bounds what rules may cost before it takes a definition: `format` costs what it is given, while a
//! string of unknown length that is joined with `+` counts as if it were of the greatest possible length.

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
            "'\"%s\" is not a name of interfaces: write one (eth0) or a pattern (en*, eth?), without spaces, \
             slashes, colons and commas'.format([self])",
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

/// The rules for one item, in CEL. The API server's `isIP` and `isCIDR` refuse zones, leading zeros and IPv4-mapped
/// IPv6 addresses, as the pool's own parser does.
fn item_rules() -> Vec<Value> {
    const RANGE: &str = "self.split('-').size() == 2 && self.split('-').all(end, isIP(end.trim()))";
    let shape = (
        format!("isIP(self) || isCIDR(self) || ({RANGE})"),
        "'\"%s\" is not an address: write a CIDR (192.168.1.240/28), a range \
         (192.168.1.240-192.168.1.250) or a single address'.format([self])",
    );
    let host_bits = (
        "!isCIDR(self) || cidr(self) == cidr(self).masked()".to_owned(),
        "'%s has host bits set: did you mean %s or %s?'.format([self, \
         self.split('/')[0] + (self.contains(':') ? '/128' : '/32'), string(cidr(self).masked())])",
    );
    let family = (
        format!(
            "!({RANGE}) || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()"
        ),
        "'%s mixes IPv4 and IPv6: write one range for each family'.format([self])",
    );
    [shape, host_bits, family].into_iter().map(|(when, message)| rule(when, message)).collect()
}
