//! What controller and speaker share: API client, telemetry, health, events, shutdown.
//!
//! Nothing here knows about pools, addresses or locks. A binary starts with [`telemetry::init`], connects with
//! [`client::connect`], tells [`health::Health`] what it waits for, and serves it all with [`admin::Admin`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod arguments;
pub mod client;
pub mod credentials;
pub mod ending;
pub mod events;
pub mod failure;
pub mod files;
pub mod guarded;
pub mod health;
mod names;
mod printed_token;
mod proxy;
pub mod reach;
pub mod server_clock;
pub mod shutdown;
pub mod silent_nodes;
pub mod standstill;
pub mod table;
pub mod telemetry;
mod token_file;
pub mod turns;
pub mod unclear;
pub mod version;
pub mod wall_clock;
pub mod watch;
