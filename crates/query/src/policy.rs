//! What a statement may do.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, WriteOp};

use crate::error::Error;

/// What statements may do besides reading series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SqlPolicy {
    /// Query, `EXPLAIN` and `INSERT INTO` a series; no definitions, files, network or settings.
    #[default]
    Restricted,
    /// Whatever DataFusion can do, with local files: for the command line, where the user is the
    /// owner of the process.
    Unrestricted,
}

impl SqlPolicy {
    /// Refuses a plan with a part that is not allowed.
    pub(crate) fn check(self, plan: &LogicalPlan) -> Result<(), Error> {
        if self == Self::Unrestricted {
            return Ok(());
        }
        let mut refused = None;
        plan.apply_with_subqueries(|node| {
            refused = refusal(node);
            Ok(if refused.is_some() {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })
        .map_err(Error::from)?;
        match refused {
            Some(what) => Err(Error::NotAllowed { what }),
            None => Ok(()),
        }
    }
}

fn refusal(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::Ddl(ddl) => Some(ddl.name().to_owned()),
        LogicalPlan::Copy(_) => Some("COPY".to_owned()),
        LogicalPlan::Statement(statement) => Some(statement.name().to_owned()),
        LogicalPlan::Dml(dml) if dml.op != WriteOp::Insert(InsertOp::Append) => {
            Some(dml.op.name().to_owned())
        }
        _ => None,
    }
}
