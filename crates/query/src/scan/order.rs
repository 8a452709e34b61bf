//! The orders of event time that a scan can take on.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::source::DataSource;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::SortOrderPushdownResult;

use super::files::Part;
use super::layout::{MERGE_WIDTH_MAX, Purpose, Segment, Ties, join_runs, segments};
use super::source::{Layout, SeriesSource};

impl SeriesSource {
    /// The same scan as one stream in order of event time; `None` if it would have to merge more
    /// than is sensible, or has no common time column.
    pub(crate) fn into_ordered(self) -> Option<Self> {
        self.facts.roles.time.as_ref()?;
        let purpose = Purpose { ties: self.ties(), dedup: self.facts.roles.dedup, ordered: true };
        let segments = join_runs(segments(self.facts.by_time.clone(), purpose));
        let width = |segment: &Segment| match segment {
            Segment::Run(_) => 1,
            Segment::Cluster(chains) => chains.len(),
        };
        if segments.iter().map(width).max() > Some(MERGE_WIDTH_MAX) {
            return None;
        }
        let layout = Layout::Segments { partitions: vec![segments], ordered: true };
        Some(Self { layout, ..self })
    }

    /// Whether files are sorted on the way, so that the plan may as well do it: it knows the limit.
    pub(super) fn sorts_files(&self) -> bool {
        let Layout::Segments { partitions, .. } = &self.layout else { return false };
        partitions.iter().flatten().any(|segment| match segment {
            Segment::Run(_) => false,
            Segment::Cluster(chains) => {
                chains.iter().flatten().any(|file| file.part == Part::Sorted)
            }
        })
    }

    pub(super) fn ties(&self) -> Ties {
        if self.facts.roles.ordered_ties || self.facts.roles.dedup {
            Ties::Ordered
        } else {
            Ties::Any
        }
    }

    /// Whether rows in the order of segments are in this order.
    pub(super) fn satisfies_ascending(&self, order: &[PhysicalSortExpr]) -> bool {
        let mut wanted = order.iter();
        let ascending = |expr: &PhysicalSortExpr| !expr.options.descending;
        let leads = wanted.next().is_some_and(|first| {
            ascending(first) && self.table_column(&first.expr).is_some_and(|c| self.is_time(&c))
        });
        if !leads || order.len() > 1 && !self.facts.roles.ordered_ties {
            return false;
        }
        let mut keys = self.facts.roles.keys.iter();
        wanted.all(|next| {
            let key = keys.next();
            ascending(next)
                && next.options.nulls_first
                && key.is_some()
                && self.table_column(&next.expr).as_ref() == key
        })
    }

    /// Newest file first, row groups backwards; the plan keeps its sort, which can stop early.
    pub(super) fn descending(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        if self.facts.by_time.is_empty() {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let files: Vec<_> = self.facts.by_time.iter().map(|f| f.file.clone()).collect();
        let mut config = self.config.clone();
        config.file_groups = vec![FileGroup::new(files)];
        match config.try_pushdown_sort(order)? {
            SortOrderPushdownResult::Inexact { inner }
            | SortOrderPushdownResult::Exact { inner } => {
                let newest_first = Self { layout: Layout::NewestFirst, ..self.clone() };
                Ok(SortOrderPushdownResult::Inexact { inner: newest_first.wrap(&inner)? })
            }
            SortOrderPushdownResult::Unsupported => Ok(SortOrderPushdownResult::Unsupported),
        }
    }

    /// What holds of the rows of an ordered chain: time, and keys where ties are ordered by them.
    pub(super) fn ordered(&self, plain: EquivalenceProperties) -> EquivalenceProperties {
        let options = SortOptions { descending: false, nulls_first: true };
        let shown = |name: &str| -> Option<PhysicalSortExpr> {
            let fields = plain.schema().fields().iter().enumerate();
            let mut columns = fields.map(|(index, field)| Column::new(field.name(), index));
            let column = columns.find(|column| {
                let column: Arc<dyn PhysicalExpr> = Arc::new(column.clone());
                self.table_column(&column).as_deref() == Some(name)
            })?;
            Some(PhysicalSortExpr::new(Arc::new(column), options))
        };
        let roles = &self.facts.roles;
        // Keys order rows of equal time, but only as far as all keys before them are there to see.
        let keys = roles.keys.iter().filter(|_| roles.ordered_ties).map_while(|key| shown(key));
        let time = roles.time.as_ref().and_then(|time| shown(&time.name));
        let orderings: Vec<LexOrdering> = time
            .and_then(|time| LexOrdering::new(std::iter::once(time).chain(keys)))
            .into_iter()
            .collect();
        let mut ordered = plain;
        ordered.add_orderings(orderings);
        ordered
    }
}
