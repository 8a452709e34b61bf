//! A predicate on key columns: whether a row may be the newest of its key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

use super::key_times::KeyTimes;

/// Whether no later row is known of a row's key, for rows that are not later than `bound`.
///
/// What is known only grows, so that an answer given early leaves out less, never too much.
#[derive(Debug)]
pub(super) struct MayBeNewest {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    times: Arc<KeyTimes>,
    bound: i64,
}

impl MayBeNewest {
    pub(super) fn new(keys: Vec<Arc<dyn PhysicalExpr>>, times: Arc<KeyTimes>, bound: i64) -> Self {
        Self { keys, times, bound }
    }
}

impl PartialEq for MayBeNewest {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
            && Arc::ptr_eq(&self.times, &other.times)
            && self.bound == other.bound
    }
}

impl Eq for MayBeNewest {}

impl Hash for MayBeNewest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.keys.hash(state);
        Arc::as_ptr(&self.times).hash(state);
        self.bound.hash(state);
    }
}

impl fmt::Display for MayBeNewest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_sql(f)
    }
}

impl PhysicalExpr for MayBeNewest {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let keys = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(batch.num_rows()));
        let kept = self.times.not_outdone(&keys.collect::<Result<Vec<_>>>()?, self.bound)?;
        Ok(ColumnarValue::Array(Arc::new(kept)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.keys.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self::new(children, Arc::clone(&self.times), self.bound)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "may_be_newest(")?;
        for (index, key) in self.keys.iter().enumerate() {
            write!(f, "{}{key}", if index > 0 { ", " } else { "" })?;
        }
        write!(f, ")")
    }
}
