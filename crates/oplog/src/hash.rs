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

/// The hash of bytes that come piece by piece.
#[derive(Default)]
pub struct Hasher128(XxHash3_128);

impl Hasher128 {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The hash of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> Hash128 {
        Hash128(self.0.finish_128())
    }
}

impl fmt::Debug for Hasher128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher128({})", self.finish())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
        for step in [1, 7, 240, 241, 1024, 69_999, 70_000] {
            let mut hasher = Hasher128::default();
            bytes.chunks(step).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), Hash128::of(&bytes), "{step}");
        }
        assert_eq!(Hasher128::default().finish(), Hash128::of(b""));
    }
}
