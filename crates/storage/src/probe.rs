//! Proof that a store lets only the first of two creating puts win.
//!
//! The operation log is safe only on such a store, so the proof is made when a store is initialized
//! and on a handle's first write, with a fresh key each time.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tidelog_core::{FileId, Randomness};

use crate::error::Error;

/// Puts one new object under `prefix` twice; the second put must be refused and change nothing.
///
/// # Errors
/// [`Error::NoPutIfAbsent`] if the second put wins, [`Error::Store`] if the store fails.
pub async fn put_if_absent(
    store: &dyn ObjectStore,
    prefix: &Path,
    randomness: &dyn Randomness,
) -> Result<(), Error> {
    let path = prefix.clone().join(format!("probe-{}", FileId::random(randomness)));
    let fail = |source| Error::Store { action: "probing conditional puts", source };
    store.put_opts(&path, "first".into(), PutMode::Create.into()).await.map_err(fail)?;
    let second = store.put_opts(&path, "second".into(), PutMode::Create.into()).await;
    let verdict = match second {
        Err(
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
        ) => match store.get(&path).await.map_err(fail)?.bytes().await.map_err(fail)?.as_ref() {
            b"first" => Ok(()),
            _ => Err(Error::NoPutIfAbsent),
        },
        Ok(_) => Err(Error::NoPutIfAbsent),
        Err(error) => Err(fail(error)),
    };
    // A probe left behind is a few bytes under a name that nobody reads.
    let _ = store.delete(&path).await;
    verdict
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use tidelog_core::env::SystemRandomness;

    use super::*;
    use crate::DurableLocal;

    #[tokio::test]
    async fn local_and_memory_stores_pass() {
        let dir = tempfile::tempdir().unwrap();
        let local = DurableLocal::open(dir.path()).unwrap();
        let prefix = Path::from("_oplog");
        put_if_absent(&local, &prefix, &SystemRandomness).await.unwrap();
        put_if_absent(&InMemory::new(), &prefix, &SystemRandomness).await.unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("_oplog")).unwrap().count(), 0);
    }
}
