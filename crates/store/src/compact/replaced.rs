//! Rows that a later version has replaced, told apart from those that stand.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, not};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use tidelog_core::TreePath;

use crate::error::Error;
use crate::prepare::same_as_next;
use crate::series_schema::SeriesSchema;

/// Takes rows in the order of files; of those with equal event time and key the last stands, and each
/// other was replaced by the one after it.
pub(super) struct Replaced {
    path: TreePath,
    schema: SeriesSchema,
    /// Rows whose last one may be replaced by what comes next.
    held: Option<RecordBatch>,
}

/// Rows told apart.
pub(super) struct Apart {
    /// Those that stand.
    pub(super) standing: RecordBatch,
    /// Those that were replaced, with `__until`.
    pub(super) replaced: RecordBatch,
}

impl Replaced {
    pub(super) fn new(path: TreePath, schema: SeriesSchema) -> Self {
        Self { path, schema, held: None }
    }

    /// Adds rows; returns those of before, told apart.
    pub(super) fn next(&mut self, rows: RecordBatch) -> Result<Option<Apart>, Error> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let first = rows.slice(0, 1);
        let Some(held) = self.held.replace(rows) else { return Ok(None) };
        self.apart(&held, Some(&first)).map(Some)
    }

    /// The last rows, told apart.
    pub(super) fn finish(&mut self) -> Result<Option<Apart>, Error> {
        self.held.take().map(|held| self.apart(&held, None)).transpose()
    }

    fn apart(&self, rows: &RecordBatch, next: Option<&RecordBatch>) -> Result<Apart, Error> {
        let fail = |error: ArrowError| Error::Encode {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        let count = rows.num_rows();
        let versions = |rows: &RecordBatch| {
            let version = self.schema.columns().fields().len();
            rows.column(version).as_primitive::<Int64Type>().values().clone()
        };
        let mut is_replaced = same_as_next(&self.path, &self.schema, rows)?;
        let mut until: Vec<i64> = versions(rows).iter().skip(1).copied().collect();
        let last = match next {
            Some(next) => {
                let seam = concat_batches(rows.schema_ref(), [&rows.slice(count - 1, 1), next]);
                let seam = seam.map_err(fail)?;
                let same = same_as_next(&self.path, &self.schema, &seam)?;
                same.first().copied().unwrap_or(false)
            }
            None => false,
        };
        is_replaced.push(last);
        until.push(next.and_then(|next| versions(next).first().copied()).unwrap_or_default());
        let is_replaced = BooleanArray::from(is_replaced);
        let standing =
            filter_record_batch(rows, &not(&is_replaced).map_err(fail)?).map_err(fail)?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(until)));
        let all = RecordBatch::try_new(self.schema.superseded_columns(), columns).map_err(fail)?;
        let replaced = filter_record_batch(&all, &is_replaced).map_err(fail)?;
        Ok(Apart { standing, replaced })
    }
}
