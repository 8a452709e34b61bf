//! What the backend is asked about the files of one table, and how its answer becomes columns of
//! the plan.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::cast::as_float64_array;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::batch_filter;
use datafusion::scalar::ScalarValue;
use tidelog_warm::{
    Aggregate, Bound, FetchOrder, Function, Group, Op, Output, Predicate, Request, SortKey,
    TimeRange,
};

use super::bucket::{Time, buckets, is_finer};
use super::held::{Held, Place, is_text};
use super::predicate::{Taken, wanted_keys};
use super::why_not::WhyNot;
use crate::scan::source::SeriesSource;

/// A request about the files of one table.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) held: Held,
    pub(super) request: Request,
    /// Where each column of the plan comes from.
    columns: Vec<From>,
    /// Which part of the keys may be wanted: so many, of so many.
    pub(super) keys: (usize, usize),
    /// What rows are to meet besides, once they are there.
    rest: Option<Rest>,
    /// How many rows are wanted at most.
    pub(super) limit: Option<usize>,
}

/// Where nothing narrows the rows but a filter that the backend does not take, more columns than these
/// beside those of the filter are left to files, which read them only of rows that pass.
const UNTESTED_MAX: usize = 2;

/// A filter of rows that the backend does not take.
#[derive(Debug, Clone)]
struct Rest {
    filter: Arc<dyn PhysicalExpr>,
    /// The columns of the plan, and those that only the filter wants.
    schema: SchemaRef,
}

/// Where a column of the plan comes from.
#[derive(Debug, Clone)]
enum From {
    /// This column of the answer.
    Answer(usize),
    /// The average of values of which there are so many as this column says, and this other one is the
    /// sum.
    Average(usize, usize),
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
        let taken = Taken::of(&held, self.table, self.source.predicate().as_ref());
        let rest = conjunction_opt(taken.rest);
        let mut names =
            self.source.column_names().ok_or_else(|| WhyNot::new("computed columns"))?;
        let mut more: Vec<Column> = rest.iter().flat_map(collect_columns).collect();
        more.sort_unstable_by_key(Column::index);
        let is_tested = |name: &&String| more.iter().any(|column| column.name() == **name);
        let beside = names.len() - names.iter().filter(is_tested).count();
        if let Some(why_not) = taken.why_not
            && taken.predicate.is_none()
            && beside > UNTESTED_MAX
        {
            return Err(why_not);
        }
        for column in more {
            if !names.iter().any(|name| name == column.name()) {
                names.push(column.name().to_owned());
            }
        }
        let (columns, wanted) = self.places(&held, &names)?;
        let rest = rest.map(|filter| self.rest(&filter, &names)).transpose()?;
        let limit = self.source.limit();
        // Only rows that meet all of it count as wanted.
        let found = limit.filter(|_| rest.is_none());
        let op = Op::Fetch { columns: wanted, order: FetchOrder::Stored, limit: found };
        let question = self.asked(held, op, columns, taken.predicate)?;
        Ok(Question { rest, limit, ..question })
    }

    /// A filter over the scan's table as one over some of its columns.
    fn rest(&self, filter: &Arc<dyn PhysicalExpr>, names: &[String]) -> Result<Rest, WhyNot> {
        let fields = names.iter().map(|name| self.table.field_with_name(name).cloned());
        let fields = fields.collect::<Result<Vec<_>, _>>();
        let cannot = |_| WhyNot::new(format!("the filter {filter}"));
        let schema = Arc::new(Schema::new(fields.map_err(|_| WhyNot::not_held("of a filter"))?));
        let filter = reassign_expr_columns(Arc::clone(filter), &schema).map_err(cannot)?;
        Ok(Rest { filter, schema })
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

    /// Some columns of the newest row of each key.
    pub(super) fn last_of(&self, held: Held, names: &[String]) -> Result<Question, WhyNot> {
        self.named(held, names, |columns| Op::LastPerKey { columns, keys: None })
    }

    fn rows(&self, held: Held, op: impl FnOnce(Vec<usize>) -> Op) -> Result<Question, WhyNot> {
        let names = self.source.column_names().ok_or_else(|| WhyNot::new("computed columns"))?;
        self.named(held, &names, op)
    }

    fn named(
        &self,
        held: Held,
        names: &[String],
        op: impl FnOnce(Vec<usize>) -> Op,
    ) -> Result<Question, WhyNot> {
        let (columns, wanted) = self.places(&held, names)?;
        self.question(held, op(wanted), columns)
    }

    /// Where columns of the scan's table come from, and which are asked for.
    fn places(&self, held: &Held, names: &[String]) -> Result<(Vec<From>, Vec<usize>), WhyNot> {
        let (mut wanted, mut columns) = (Vec::new(), Vec::with_capacity(names.len()));
        for name in names {
            columns.push(match held.place(self.table, name)? {
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
        Ok((columns, wanted))
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
                columns.push(From::Answer(state));
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
        let taken = Taken::of(&held, self.table, self.source.predicate().as_ref());
        match taken.why_not {
            None => self.asked(held, op, columns, taken.predicate),
            Some(why_not) => Err(why_not),
        }
    }

    fn asked(
        &self,
        held: Held,
        op: Op,
        columns: Vec<From>,
        filter: Option<Predicate>,
    ) -> Result<Question, WhyNot> {
        let mut request = Request::new(op).with_time(self.time(&held)?);
        if let (Op::LastPerKey { keys, .. }, Some(filter)) = (&mut request.op, &filter) {
            *keys = wanted_keys(filter, held.table.spec().keys());
        }
        request.filter = filter;
        // What the backend will say when it is asked.
        let bound = Bound::try_new(&held.table, &held.segments(), &request)?;
        let keys = bound.part_of_keys(&held.table);
        Ok(Question { held, request, columns, keys, rest: None, limit: None })
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
    /// The same question about an aggregate, of which each group is answered once and whole: its values
    /// instead of partial states. `None` if they are not what `schema` has.
    pub(super) fn finished(mut self, schema: &Schema) -> Option<Self> {
        let Op::Aggregate { group, aggregates } = &self.request.op else { return None };
        let grouped = schema.fields().len().checked_sub(aggregates.len())?;
        self.columns.truncate(grouped);
        let mut state = group.len();
        for (aggregate, field) in aggregates.iter().zip(&schema.fields()[grouped..]) {
            let types = state_types(&self.held, *aggregate);
            // Of an average the sum is the last one, of the type of the average.
            if types.last() != Some(field.data_type()) {
                return None;
            }
            self.columns.push(match aggregate.function {
                Function::Avg => From::Average(state, state + 1),
                _ => From::Answer(state),
            });
            state += types.len();
        }
        Some(self)
    }

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
        let Some(rest) = &self.rest else { return self.in_columns(answer, schema) };
        let rows = batch_filter(&self.in_columns(answer, &rest.schema)?, &rest.filter)?;
        let shown = rows.columns()[..schema.fields().len()].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), shown, &options)?)
    }

    /// How many rows the backend need find at most, if so many are still wanted.
    pub(super) fn limit_asked(&self, left: Option<usize>) -> Option<usize> {
        left.filter(|_| self.rest.is_none())
    }

    /// What rows are to meet besides what the backend is asked for, for plans.
    pub(super) fn rest(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.rest.as_ref().map(|rest| &rest.filter)
    }

    fn in_columns(&self, answer: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = answer.num_rows();
        let columns = self.columns.iter().zip(schema.fields()).map(|(from, field)| {
            let array: ArrayRef = match from {
                From::Answer(column) => Arc::clone(answer.column(*column)),
                From::Average(count, sum) => average(answer.column(*count), answer.column(*sum))?,
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

/// Sums divided by how many values they are of; null where there are none.
fn average(counts: &ArrayRef, sums: &ArrayRef) -> Result<ArrayRef> {
    let counts = cast(counts, &DataType::Float64)?;
    let (counts, sums) = (as_float64_array(&counts)?, as_float64_array(sums)?);
    let averages = sums.iter().zip(counts.values()).map(|(sum, count)| Some(sum? / count));
    Ok(Arc::new(averages.collect::<Float64Array>()))
}
