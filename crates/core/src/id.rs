//! Random identifiers. User text never becomes an object key: ids do.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::env::Randomness;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random (version 4) id drawn from `randomness`.
            pub fn random(randomness: &dyn Randomness) -> Self {
                let mut bytes = [0_u8; 16];
                randomness.fill(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Wraps an existing UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// Parses the hyphenated text form.
            ///
            /// # Errors
            /// If `text` is not a UUID.
            pub fn parse(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }
    };
}

id! {
    /// A node of the tree. It survives a rename; a path created again after removal is a new node.
    NodeId
}

impl NodeId {
    /// The root directory, present in every store.
    pub const ROOT: Self = Self(Uuid::nil());
}

id! {
    /// A data file.
    FileId
}

id! {
    /// A write-ahead log. Its sequence numbers never begin again.
    WalId
}

id! {
    /// A caller's write: repeating an append with the same transaction id is idempotent.
    TransactionId
}
