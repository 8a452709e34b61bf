//! The rows of a piece in memory, slice by slice.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{BatchCoalescer, filter_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::FilePruner;
use datafusion::physical_plan::metrics::Count;
use datafusion_datasource::morsel::Morsel;
use futures::StreamExt;
use futures::stream::BoxStream;

/// The rows of a piece that pass a predicate, projected, in batches.
///
/// One slice of the batch size is looked at after another, so that a scan that has enough stops
/// early and a predicate that grows sharper meanwhile (a top-k's) is used as it stands. What is
/// passed on is a copy, unless it is the whole piece: operators that count memory count all that a
/// slice points to, once for each slice.
pub(super) struct HotRows {
    rows: RecordBatch,
    /// Those still to be looked at.
    left: Range<usize>,
    schema: SchemaRef,
    batch_rows: usize,
    /// No more rows than these are wanted.
    limit: usize,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    projection: Vec<Arc<dyn PhysicalExpr>>,
    pruner: Option<FilePruner>,
    newest_first: bool,
    looked_at: Count,
    /// Rows that are to be passed on; none if whole slices are.
    gathered: Option<BatchCoalescer>,
}

impl fmt::Debug for HotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotRows").field("left", &self.left).finish_non_exhaustive()
    }
}

impl HotRows {
    /// The rows at `places` of `rows`, as batches of `schema` with `batch_rows` rows at most.
    pub(super) fn new(
        rows: RecordBatch,
        places: Range<usize>,
        schema: SchemaRef,
        batch_rows: usize,
    ) -> Self {
        let whole = places.len() == rows.num_rows() && places.len() <= batch_rows;
        let copies = !whole && !schema.fields().is_empty();
        let gathered = copies.then(|| BatchCoalescer::new(Arc::clone(&schema), batch_rows));
        Self {
            rows,
            left: places,
            schema,
            batch_rows,
            limit: usize::MAX,
            predicate: None,
            projection: Vec::new(),
            pruner: None,
            newest_first: false,
            looked_at: Count::new(),
            gathered,
        }
    }

    /// Does not wait for more rows than `limit` before some are passed on.
    pub(super) fn with_limit(self, limit: Option<usize>) -> Self {
        Self { limit: limit.unwrap_or(usize::MAX), ..self }
    }

    /// Passes on only rows for which this holds.
    pub(super) fn with_predicate(self, predicate: Option<Arc<dyn PhysicalExpr>>) -> Self {
        Self { predicate, ..self }
    }

    /// The columns to make of each row.
    pub(super) fn with_projection(self, projection: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self { projection, ..self }
    }

    /// Stops once this tells that no row can pass any more.
    pub(super) fn with_pruner(self, pruner: Option<FilePruner>) -> Self {
        Self { pruner, ..self }
    }

    /// Begins with the last slice; within a slice rows stay in their order.
    pub(super) fn with_newest_first(self, newest_first: bool) -> Self {
        Self { newest_first, ..self }
    }

    /// Counts the rows that are looked at.
    pub(super) fn with_looked_at(self, looked_at: Count) -> Self {
        Self { looked_at, ..self }
    }

    /// The next batch that is not empty.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.gathered.as_mut().and_then(|g| g.next_completed_batch()) {
                return Ok(Some(batch));
            }
            let Some(slice) = self.next_slice()? else { return self.rest() };
            let passed = self.passed(slice)?;
            match &mut self.gathered {
                _ if passed.num_rows() == 0 => {}
                Some(gathered) => {
                    gathered.push_batch(passed)?;
                    if gathered.get_buffered_rows() >= self.limit {
                        gathered.finish_buffered_batch()?;
                    }
                }
                None => return Ok(Some(passed)),
            }
        }
    }

    /// What is gathered when all has been looked at.
    fn rest(&mut self) -> Result<Option<RecordBatch>> {
        let Some(gathered) = &mut self.gathered else { return Ok(None) };
        gathered.finish_buffered_batch()?;
        Ok(gathered.next_completed_batch())
    }

    fn next_slice(&mut self) -> Result<Option<RecordBatch>> {
        let length = self.left.len().min(self.batch_rows);
        if length == 0 {
            return Ok(None);
        }
        if let Some(pruner) = &mut self.pruner
            && pruner.should_prune()?
        {
            self.left = 0..0;
            return Ok(None);
        }
        let offset = if self.newest_first {
            self.left.end -= length;
            self.left.end
        } else {
            self.left.start += length;
            self.left.start - length
        };
        self.looked_at.add(length);
        Ok(Some(self.rows.slice(offset, length)))
    }

    /// The rows of a slice that pass, projected.
    fn passed(&self, slice: RecordBatch) -> Result<RecordBatch> {
        let slice = match &self.predicate {
            Some(predicate) => filtered(slice, predicate)?,
            None => slice,
        };
        let rows = slice.num_rows();
        let columns = self.projection.iter().map(|expr| expr.evaluate(&slice)?.into_array(rows));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// The rows for which `predicate` holds; where it is null it does not.
fn filtered(rows: RecordBatch, predicate: &Arc<dyn PhysicalExpr>) -> Result<RecordBatch> {
    let holds = predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
    let holds = datafusion::common::cast::as_boolean_array(&holds)?;
    if holds.true_count() == rows.num_rows() {
        return Ok(rows);
    }
    Ok(filter_record_batch(&rows, holds)?)
}

impl Iterator for HotRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Morsel for HotRows {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        futures::stream::iter(*self).boxed()
    }
}
