//! How old objects and commits are.
//!
//! An age is the difference of two times that the store itself gives, so no machine's clock decides.

use std::time::Duration;

use futures::stream::TryStreamExt;
use tidelog_core::CommitVersion;
use tidelog_storage::object_store::{ObjectMeta, ObjectStore};

use super::expire::store_time;
use crate::error::Error;
use crate::fetch::store_error;
use crate::log::Log;

/// Ages at one moment.
#[derive(Debug, Clone)]
pub struct Ages {
    now: ObjectMeta,
    /// The commits that are there, in ascending order.
    commits: Vec<(CommitVersion, ObjectMeta)>,
}

impl Ages {
    /// How long ago an object was put.
    #[must_use]
    pub fn of_object(&self, object: &ObjectMeta) -> Duration {
        (self.now.last_modified - object.last_modified).to_std().unwrap_or_default()
    }

    /// How long ago a commit landed, at least: of one that has expired it is only known that it is older
    /// than those that are there.
    #[must_use]
    pub fn of_commit(&self, commit: CommitVersion) -> Duration {
        let at = self.commits.partition_point(|(version, _)| *version < commit);
        self.commits.get(at).map(|(_, meta)| self.of_object(meta)).unwrap_or_default()
    }
}

impl Log {
    /// How old objects and commits are now. It writes an object of a few bytes and lists the commits.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn ages(&self) -> Result<Ages, Error> {
        let objects = self.objects();
        let now = store_time(objects).await?;
        let directory = objects.prefix.clone().join("_delta_log");
        let fail = |source| store_error("listing", &directory, source);
        let listed = objects.store.list(Some(&directory));
        let metas: Vec<ObjectMeta> = listed.try_collect().await.map_err(fail)?;
        let number = |meta: &ObjectMeta| {
            let name = meta.location.filename()?.strip_suffix(".json")?;
            name.parse().ok().map(CommitVersion::new)
        };
        let mut commits: Vec<(CommitVersion, ObjectMeta)> =
            metas.into_iter().filter_map(|meta| Some((number(&meta)?, meta))).collect();
        commits.sort_by_key(|(version, _)| *version);
        Ok(Ages { now, commits })
    }
}
