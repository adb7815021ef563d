//! Pools in a `ConfigMap`: YAML by hand.

use arpeggio_api::config_map::{self, Dialect};
use arpeggio_ipam::{InvalidPool, Pool};
use k8s_openapi::api::core::v1::ConfigMap;

/// The key that the text stands under.
const KEY: &str = "config";

/// Any text is read or refused with words, in both dialects, and so is each entry of it.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let data = Some([(KEY.to_owned(), text)].into());
    let object = ConfigMap { data, ..ConfigMap::default() };
    for dialect in [Dialect::Ours, Dialect::MetalLb] {
        match config_map::parse(&object, KEY, dialect) {
            Ok(found) => found.pools.into_iter().for_each(|it| check_pool(it.pool)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A pool has addresses, and a name that an annotation can hold in a list.
fn check_pool(pool: Result<Pool, InvalidPool>) {
    match pool {
        Ok(pool) => {
            assert!(!pool.ranges.is_empty());
            assert!(!pool.name.as_str().is_empty());
            assert!(!pool.name.as_str().contains([',', '=']));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
