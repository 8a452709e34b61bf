//! What the backend is asked about the files of one table, and how its answer becomes columns of
//! the plan.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{cast, is_null, nullif};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::scalar::ScalarValue;
use tidelog_warm::{
    Aggregate, Bound, FetchOrder, Function, Group, Op, Output, Request, SortKey, TimeRange,
};

use super::bucket::{Time, buckets, is_finer};
use super::held::{Held, Place, is_text};
use super::predicate::predicate;
use super::why_not::WhyNot;
use crate::scan::source::SeriesSource;

/// A request about the files of one table.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) held: Held,
    pub(super) request: Request,
    /// Where each column of the plan comes from.
    columns: Vec<From>,
}

/// Where a column of the plan comes from.
#[derive(Debug, Clone)]
enum From {
    /// This column of the answer.
    Answer(usize),
    /// This column of the answer, null where this other one is.
    AnswerIf(usize, usize),
    /// Nowhere: it is the same in all rows.
    Constant(ScalarValue),
}

/// What questions are about: a scan, and the plain columns that it yields.
pub(super) struct Asked<'a> {
    pub(super) source: &'a SeriesSource,
    pub(super) table: &'a Schema,
}

impl Asked<'_> {
    /// All rows of the scan, or as many as it wants.
    pub(super) fn fetch(&self, held: Held) -> Result<Question, WhyNot> {
        let limit = self.source.limit();
        self.rows(held, |columns| Op::Fetch { columns, order: FetchOrder::Stored, limit })
    }

    /// The first `k` rows by columns of the scan's table.
    pub(super) fn top_k(
        &self,
        held: Held,
        order: &[(String, bool, bool)],
        k: usize,
    ) -> Result<Question, WhyNot> {
        let order = order.iter().map(|(column, descending, nulls_first)| {
            let column = held.column(self.table, column)?;
            Ok(SortKey { column, descending: *descending, nulls_first: *nulls_first })
        });
        let order = order.collect::<Result<Vec<_>, WhyNot>>()?;
        self.rows(held, |columns| Op::TopK { order, k, columns })
    }

    /// The newest row of each key.
    pub(super) fn last(&self, held: Held) -> Result<Question, WhyNot> {
        self.rows(held, |columns| Op::LastPerKey { columns, keys: None })
    }

    fn rows(&self, held: Held, op: impl FnOnce(Vec<usize>) -> Op) -> Result<Question, WhyNot> {
        let names = self.source.column_names().ok_or_else(|| WhyNot::new("computed columns"))?;
        let (mut wanted, mut columns) = (Vec::new(), Vec::with_capacity(names.len()));
        for name in names {
            columns.push(match held.place(self.table, &name)? {
                Place::Column(column) => {
                    let known = wanted.iter().position(|known| *known == column);
                    From::Answer(known.unwrap_or_else(|| {
                        wanted.push(column);
                        wanted.len() - 1
                    }))
                }
                Place::Constant(value) => From::Constant(value),
            });
        }
        self.question(held, op(wanted), columns)
    }

    /// The partial states of an aggregate; `below` gives its expressions over the scan's table.
    pub(super) fn aggregate(
        &self,
        held: Held,
        aggregate: &AggregateExec,
        below: impl Fn(&Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, WhyNot>,
    ) -> Result<Question, WhyNot> {
        let schema = aggregate.schema();
        let types = schema.fields().iter().map(|field| field.data_type());
        let mut states = types.skip(aggregate.group_expr().expr().len());
        let (mut group, mut columns) = (Vec::new(), Vec::new());
        for (expr, _) in aggregate.group_expr().expr() {
            columns.push(match self.group(&held, &below(expr)?)? {
                By::Constant(value) => From::Constant(value),
                By::Group(by) => {
                    group.push(by);
                    From::Answer(group.len() - 1)
                }
            });
        }
        let (mut aggregates, mut state) = (Vec::new(), group.len());
        for expr in aggregate.aggr_expr() {
            let asked = self.function(&held, expr, &below)?;
            for found in state_types(&held, asked) {
                if states.next() != Some(&found) {
                    return Err(WhyNot::new(format!("{} of another type", expr.name())));
                }
                // A group without values has no count either, or it would have an average.
                columns.push(match found {
                    DataType::UInt64 if asked.function == Function::Avg => {
                        From::AnswerIf(state, state + 1)
                    }
                    _ => From::Answer(state),
                });
                state += 1;
            }
            aggregates.push(asked);
        }
        if states.next().is_some() {
            return Err(WhyNot::new("states that are not known"));
        }
        self.question(held, Op::Aggregate { group, aggregates }, columns)
    }

    fn group(&self, held: &Held, expr: &Arc<dyn PhysicalExpr>) -> Result<By, WhyNot> {
        let column = expr.downcast_ref::<Column>().map(Column::name);
        let time = self.source.facts().roles.time.as_ref();
        if let Some(column) = column.filter(|column| time.is_none_or(|time| time.name != *column)) {
            return Ok(match held.place(self.table, column)? {
                Place::Column(column) => By::Group(Group::Key(column)),
                Place::Constant(value) => By::Constant(value),
            });
        }
        let (Some(time), Some(range)) = (time, held.range()) else {
            return Err(WhyNot::new(format!("groups by {expr}")));
        };
        let field = self.table.field_with_name(&time.name);
        let data_type = field.map_err(|_| WhyNot::not_held(&time.name))?.data_type();
        let time = Time { name: &time.name, unit: time.unit, data_type, range };
        let buckets = buckets(expr, time)?;
        Ok(By::Group(Group::TimeBucket { origin: buckets.origin, width: buckets.width }))
    }

    fn function(
        &self,
        held: &Held,
        expr: &AggregateFunctionExpr,
        below: impl Fn(&Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, WhyNot>,
    ) -> Result<Aggregate, WhyNot> {
        let cannot = || WhyNot::new(format!("the function {}", expr.name()));
        let function = match expr.fun().name() {
            "count" => Function::Count,
            "sum" => Function::Sum,
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            _ => return Err(cannot()),
        };
        if expr.is_distinct() || !expr.order_bys().is_empty() {
            return Err(cannot());
        }
        let args = expr.expressions();
        let [arg] = args.as_slice() else { return Err(cannot()) };
        let arg = below(arg)?;
        if let Some(literal) = arg.downcast_ref::<Literal>() {
            let counts = function == Function::Count && !literal.value().is_null();
            return if counts { Ok(Aggregate::ROWS) } else { Err(cannot()) };
        }
        let (name, cast_to) = match arg.downcast_ref::<CastExpr>() {
            Some(cast) => (column_name(cast.expr()), Some(cast.cast_type())),
            None => (column_name(&arg), None),
        };
        let column = held.column(self.table, name.ok_or_else(cannot)?)?;
        let own = held.table.spec().schema().field(column).data_type();
        match cast_to {
            _ if matches!(function, Function::Min | Function::Max) && is_text(own) => Err(cannot()),
            Some(to) if !is_summed_as(function, own, to) => Err(cannot()),
            _ => Ok(Aggregate::of(function, column)),
        }
    }

    fn question(&self, held: Held, op: Op, columns: Vec<From>) -> Result<Question, WhyNot> {
        let filter = predicate(&held, self.table, self.source.predicate().as_ref())?;
        let mut request = Request::new(op).with_time(self.time(&held)?);
        request.filter = filter;
        // What the backend will say when it is asked.
        Bound::try_new(&held.table, &held.segments(), &request)?;
        Ok(Question { held, request, columns })
    }

    /// The range of event time that is wanted, in the unit of the table.
    fn time(&self, held: &Held) -> Result<TimeRange, WhyNot> {
        let Some(cut) = self.source.cut() else { return Ok(TimeRange::ALL) };
        let spec = held.table.spec();
        let role = self.source.facts().roles.time.as_ref();
        let role = role.ok_or_else(|| WhyNot::new("no common time column"))?;
        if held.column(self.table, &role.name)? != spec.time() {
            return Err(WhyNot::new("another time column"));
        }
        let (first, last) =
            (cut.range.start().ceil_to(role.unit), cut.range.end().floor_to(role.unit));
        Ok(match first <= last {
            true => TimeRange::from_inclusive(first, last),
            false => TimeRange::new(0, 0),
        })
    }
}

/// What rows are grouped by.
enum By {
    Constant(ScalarValue),
    Group(Group),
}

fn column_name(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    expr.downcast_ref::<Column>().map(Column::name)
}

/// Whether a function takes values of one type for what they are cast to anyway.
fn is_summed_as(function: Function, from: &DataType, to: &DataType) -> bool {
    match function {
        Function::Sum => match to {
            DataType::Int64 => from.is_signed_integer(),
            DataType::UInt64 => from.is_unsigned_integer(),
            DataType::Float64 => *from == DataType::Float32,
            _ => false,
        },
        Function::Avg => {
            let number = from.is_integer() || matches!(from, DataType::Float32 | DataType::Float64);
            number && *to == DataType::Float64
        }
        _ => false,
    }
}

/// The types of the columns of a state, see [`Function`].
fn state_types(held: &Held, aggregate: Aggregate) -> Vec<DataType> {
    let schema = held.table.spec().schema();
    let own = aggregate.column.map(|column| schema.field(column).data_type());
    match (aggregate.function, own) {
        (Function::Avg, _) => vec![DataType::UInt64, DataType::Float64],
        (Function::Sum, Some(own)) if own.is_signed_integer() => vec![DataType::Int64],
        (Function::Sum, Some(own)) if own.is_unsigned_integer() => vec![DataType::UInt64],
        (Function::Sum, _) => vec![DataType::Float64],
        (Function::Min | Function::Max, Some(own)) => vec![own.clone()],
        _ => vec![DataType::Int64],
    }
}

impl Question {
    /// The batches of an answer, in the columns of the plan.
    pub(super) fn batches(&self, output: Output, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        match output {
            Output::Rows(batches) => {
                batches.iter().map(|batch| self.batch(batch, schema)).collect()
            }
            Output::Partial(batch) => Ok(vec![self.batch(&batch, schema)?]),
            Output::Count(_) => Err(DataFusionError::Internal("a count was not asked for".into())),
        }
    }

    fn batch(&self, answer: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = answer.num_rows();
        let columns = self.columns.iter().zip(schema.fields()).map(|(from, field)| {
            let array: ArrayRef = match from {
                From::Answer(column) => Arc::clone(answer.column(*column)),
                From::AnswerIf(column, other) => {
                    nullif(answer.column(*column), &is_null(answer.column(*other))?)?
                }
                From::Constant(value) => value.to_array_of_size(rows)?,
            };
            let (found, wanted) = (array.data_type(), field.data_type());
            if found == wanted {
                return Ok(array);
            }
            if is_text(found) && is_text(wanted) || is_finer(found, wanted) {
                return Ok(cast(&array, wanted)?);
            }
            let message = format!("{} is {found} where {wanted} is expected", field.name());
            Err(DataFusionError::Internal(message))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}
