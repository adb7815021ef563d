//! What controller and speaker share: client, telemetry, health, shutdown.
