//! What a record holds, and its hash.

use bytes::Bytes;
use twox_hash::XxHash3_64;

/// The bytes of one record, in one or more pieces, with their hash.
///
/// The hash is computed here, so that those who append do it side by side, and the one thread that
/// writes does not.
#[derive(Debug, Clone)]
pub struct Payload {
    parts: Vec<Bytes>,
    length: u64,
    hash: u64,
}

impl Payload {
    /// Takes the pieces, which are written one after the other, and hashes them.
    #[must_use]
    pub fn new(parts: Vec<Bytes>) -> Self {
        let hash = match parts.as_slice() {
            [whole] => XxHash3_64::oneshot(whole),
            _ => hash_of(&parts),
        };
        let length = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts, length, hash }
    }

    /// Bytes in all pieces together.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn parts(&self) -> &[Bytes] {
        &self.parts
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

fn hash_of(parts: &[Bytes]) -> u64 {
    let mut hasher = PayloadHasher::default();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish()
}

/// The hash of a payload that comes piece by piece.
#[derive(Default)]
pub(crate) struct PayloadHasher(XxHash3_64);

impl PayloadHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        std::hash::Hasher::write(&mut self.0, bytes);
    }

    pub(crate) fn finish(&self) -> u64 {
        std::hash::Hasher::finish(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..5_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
        let whole = Payload::from(Bytes::from(bytes.clone()));
        for step in [1, 7, 64, 240, 241, 4_999, 5_000] {
            let parts = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
            let payload = Payload::new(parts);
            assert_eq!((payload.hash(), payload.length()), (whole.hash(), 5_000), "{step}");
        }
        assert_eq!(Payload::new(Vec::new()).hash(), Payload::from(Bytes::new()).hash());
    }
}
