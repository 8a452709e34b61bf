//! Bytes that a crash kept from getting their name.
//!
//! Nothing refers to them, so there is nothing to announce. Whoever is still writing holds them.

use tidelog_oplog::LOG_DIRECTORY;
use tidelog_storage::Staged;
use tidelog_storage::object_store;

use super::survey::Survey;
use super::{VacuumFile, VacuumReason, VacuumReport, node_of};
use crate::engine::Engine;
use crate::error::Error;
use crate::names::{DATA_DIRECTORY, is_of_log};

impl Engine {
    /// Finds what puts left that never ended, next to data files and in the log, and removes it if asked to.
    pub(super) async fn sweep_staged(
        &self,
        survey: &Survey,
        apply: bool,
        report: &mut VacuumReport,
    ) -> Result<(), Error> {
        for directory in [DATA_DIRECTORY, LOG_DIRECTORY] {
            let found = self.staged().abandoned(directory).await;
            let found = found.map_err(|error| failed("listing", directory, error))?;
            for staged in found.into_iter().filter(is_ours) {
                if survey.is_young(&staged.meta()) {
                    report.young.add(staged.size);
                } else if !apply || self.remove_staged(&staged).await? {
                    report.orphans.add(staged.size);
                    report.name(VacuumFile {
                        object: staged.name,
                        path: None,
                        bytes: staged.size,
                        reason: VacuumReason::Orphan,
                    });
                }
            }
        }
        Ok(())
    }

    async fn remove_staged(&self, staged: &Staged) -> Result<bool, Error> {
        let removed = self.staged().remove(staged).await;
        removed.map_err(|error| failed("deleting", &staged.name, error))
    }
}

fn is_ours(staged: &Staged) -> bool {
    node_of(&staged.target).is_some() || is_of_log(&staged.target)
}

fn failed(action: &'static str, object: &str, error: std::io::Error) -> Error {
    let source = Box::new(error);
    Error::store(action, object, object_store::Error::Generic { store: "directory", source })
}
