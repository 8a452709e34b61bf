//! The 128-bit content hash that every stored object is checked against.

use std::fmt;
use std::str::FromStr;

use twox_hash::XxHash3_128;

/// XXH3-128 of some bytes. It finds damage; it is no protection against an attacker who can write
/// to the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash128(u128);

impl Hash128 {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes))
    }

    /// The low 32 bits, for tables of many hashes.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
    pub const fn short(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash128({self})")
    }
}

impl FromStr for Hash128 {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}
