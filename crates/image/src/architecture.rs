//! Processors, as OCI images name them.

use serde_json::{Value, json};

/// A processor that Arpeggio is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64 bit x86.
    Amd64,
    /// 64 bit ARM.
    Arm64,
    /// 32 bit ARM, version 7.
    Armv7,
}

impl Architecture {
    /// The processor that a program is for, by the head of its file (ELF: `e_ident` and `e_machine`). `None`: no
    /// program, or for none of these.
    pub fn of_program(file: &[u8]) -> Option<Self> {
        // All of them are little-endian.
        if !file.starts_with(b"\x7fELF") || file.get(5) != Some(&1) {
            return None;
        }
        match u16::from_le_bytes([*file.get(18)?, *file.get(19)?]) {
            62 => Some(Self::Amd64),
            183 => Some(Self::Arm64),
            40 => Some(Self::Armv7),
            _ => None,
        }
    }

    /// One word, for file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armv7 => "armv7",
        }
    }

    pub(crate) fn platform(self) -> Value {
        match self {
            Self::Amd64 | Self::Arm64 => json!({"os": "linux", "architecture": self.name()}),
            Self::Armv7 => json!({"os": "linux", "architecture": "arm", "variant": "v7"}),
        }
    }
}

impl Default for Architecture {
    /// This machine's.
    fn default() -> Self {
        match std::env::consts::ARCH {
            "aarch64" => Self::Arm64,
            "arm" => Self::Armv7,
            _ => Self::Amd64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_for_this_machine() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(Architecture::of_program(&program), Some(Architecture::default()));
    }

    #[test]
    fn what_is_no_program_is_for_no_processor() {
        for file in [&b""[..], b"#!/bin/sh", b"\x7fELF", &[0; 64]] {
            assert_eq!(Architecture::of_program(file), None);
        }
    }
}
