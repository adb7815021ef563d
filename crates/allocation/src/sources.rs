//! What the controller reads apart from Services, `AddressPool`s and locks, converted once and told to the
//! [`Index`](crate::Index) when something of it has changed.
//!
//! | kind | for |
//! |---|---|
//! | `ConfigMap`, `IPAddressPool`, `L2Advertisement` | further pools |
//! | `Namespace` | labels that pools' rules select |
//! | `Node` | addresses that are never given out; where pods are |
//! | session `Lease` | what nodes report of their interfaces: more such addresses |
//! | `ServiceCIDR` | where cluster addresses of Services are |

mod config_map;
mod metallb;
mod namespaces;
mod surroundings;

pub use self::{config_map::PoolFile, metallb::MetalLb, surroundings::Surroundings};
