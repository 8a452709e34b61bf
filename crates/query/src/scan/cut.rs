//! A range of event time as a predicate of its own, and which predicates a scan takes.

use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use tidelog_core::{EventTime, TimeRange};
use tidelog_oplog::{FileRow, StatValue};

use super::files::scalar;
use super::reader::CheckedReaders;
use super::source::SeriesSource;
use super::tiers::TieredSource;
use crate::time_filter::{TimeBounds, TimeColumn, physical_bounds};

/// A range of event time outside which rows do not pass.
///
/// It is kept apart from other predicates, because most files lie inside it whole: only those that
/// it cuts evaluate it row by row.
#[derive(Debug, Clone)]
pub(crate) struct TimeCut {
    pub(crate) range: TimeRange,
    /// The same as an expression over the table schema.
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
}

impl TimeCut {
    pub(super) fn cuts(&self, file: &PartitionedFile) -> bool {
        file.extension::<Arc<FileRow>>().is_none_or(|row| !self.range.covers(&row.range))
    }
}

impl SeriesSource {
    /// The range of event time outside which rows do not pass, if some file crosses it.
    pub(crate) fn cut(&self) -> Option<&TimeCut> {
        let crossed = |cut: &&TimeCut| self.facts.by_time.iter().any(|file| cut.cuts(&file.file));
        self.cut.as_ref().filter(crossed)
    }

    pub(super) fn is_cut(&self, file: &PartitionedFile) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.cuts(file))
    }

    /// The scan of other groups, with the cut among its predicates or not.
    pub(super) fn config_with(&self, groups: Vec<FileGroup>, cut: bool) -> Result<FileScanConfig> {
        let mut config = self.config.clone();
        config.file_groups = groups;
        if let Some(cut) = self.cut.as_ref().filter(|_| cut) {
            let source = TieredSource::of(&config)?;
            let predicate = self.predicate();
            // A range of time keeps most rows of the pages that it touches. A predicate on others may
            // drop them all, and what was fetched beside would be fetched in vain.
            let source = match &predicate {
                None => source.with_readers(Arc::new(self.readers_of_projected()?)),
                Some(_) => source.clone(),
            };
            let all = predicate.into_iter().chain([Arc::clone(&cut.predicate)]);
            let source = source.with_predicate(conjunction(all)).within(cut.range);
            config.file_source = Arc::new(source);
        }
        Ok(config)
    }

    /// The same scan of rows from the first to the last of some times, in the unit of the time column;
    /// `None` if it has none of these.
    pub(crate) fn between(&self, first: i64, last: i64) -> Result<Option<Self>> {
        let lost = || DataFusionError::Internal("a scan has no time column".to_owned());
        let time = self.facts.roles.time.as_ref().ok_or_else(lost)?;
        let table = self.config.file_source.table_schema().table_schema();
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(&time.name, table)?);
        let data_type = table.field_with_name(&time.name)?.data_type();
        let bound = |value: i64, op: Operator| -> Result<Arc<dyn PhysicalExpr>> {
            let value = scalar(&StatValue::Int(value), data_type).ok_or_else(lost)?;
            let literal = Arc::new(Literal::new(value));
            Ok(Arc::new(BinaryExpr::new(Arc::clone(&column), op, literal)))
        };
        let predicate = conjunction([bound(first, Operator::GtEq)?, bound(last, Operator::LtEq)?]);
        let event_time = |value| EventTime::from_unit(value, time.unit);
        let start = event_time(first).unwrap_or(EventTime::MIN);
        let end = event_time(last).unwrap_or(EventTime::MAX);
        let Ok(range) = TimeRange::try_new(start, end) else { return Ok(None) };
        let cut = match &self.cut {
            None => TimeCut { range, predicate },
            Some(cut) => match cut.range.intersect(&range) {
                Some(range) => {
                    let both = [Arc::clone(&cut.predicate), predicate];
                    TimeCut { range, predicate: conjunction(both) }
                }
                None => return Ok(None),
            },
        };
        Ok(Some(Self { cut: Some(cut), ..self.clone() }))
    }

    fn readers_of_projected(&self) -> Result<CheckedReaders> {
        let projection = self.projection()?;
        let columns = projection.iter().flat_map(|expr| collect_columns(&expr.expr));
        let names = columns.map(|column| column.name().to_owned()).collect();
        Ok(CheckedReaders::new(self.facts.readers.clone()).with_columns(names))
    }

    /// The parallel scan as two: the files that are cut, and those that are not.
    pub(super) fn divided(&self) -> Result<(FileScanConfig, FileScanConfig)> {
        let divide = |cut: bool| {
            let groups = self.config.file_groups.iter().map(|group| {
                let files = group.iter().filter(|file| self.is_cut(file) == cut);
                FileGroup::new(files.cloned().collect())
            });
            self.config_with(groups.collect(), cut)
        };
        Ok((divide(true)?, divide(false)?))
    }

    /// Takes a filter over the output into the cut, if it is a range of event time.
    pub(super) fn take_time(&mut self, filter: &Arc<dyn PhysicalExpr>) -> Result<bool> {
        let Some(time) = &self.facts.roles.time else { return Ok(false) };
        let column = TimeColumn { name: &time.name, unit: time.unit };
        let table = self.config.file_source.table_schema().table_schema();
        let unprojected = self.projection()?.unproject_expr(filter)?;
        let predicate = reassign_expr_columns(unprojected, table)?;
        let Some(TimeBounds::Range(range)) = physical_bounds(&predicate, column) else {
            return Ok(false);
        };
        self.cut = Some(match self.cut.take() {
            None => TimeCut { range, predicate },
            Some(cut) => match cut.range.intersect(&range) {
                Some(range) => {
                    TimeCut { range, predicate: conjunction([cut.predicate, predicate]) }
                }
                None => {
                    self.cut = Some(cut);
                    return Ok(false);
                }
            },
        });
        Ok(true)
    }

    /// Whether a filter over the output may be evaluated before deduplication.
    pub(super) fn may_push(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        if !self.is_dirty() {
            return true;
        }
        collect_columns(filter).into_iter().all(|column| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(column);
            self.table_column(&column)
                .is_some_and(|name| self.is_time(&name) || self.facts.roles.keys.contains(&name))
        })
    }
}
