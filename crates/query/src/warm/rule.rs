//! Which parts of a plan are moved to the warm tier, and why others are not.
//!
//! The rule runs when filters have gone down to the scans, and before partial and final aggregates,
//! sorts and their limits are brought into their last places. It looks for, from the top:
//!
//! - a partial aggregate over a scan: the newest row of each key, if that is all it wants; else its
//!   states by keys and buckets of time. Where all files are warm and one request answers all, it is the
//!   final aggregate above as well;
//! - a sort with a limit over a scan: the first rows;
//! - a scan in no particular order: its rows.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::update_expr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;

use super::cold::{Cold, over};
use super::deal::is_one_call;
use super::exec::{Moved, WarmScanExec};
use super::held::{Divided, Held, Place, table_schema};
use super::request::{Asked, Question};
use super::switches::WarmPushDowns;
use super::why_not::WhyNot;
use crate::rules::{scan_of, wants_newest, with_input};
use crate::scan::facts::is_clean;
use crate::scan::source::SeriesSource;

/// Moves what it can to the warm tier.
#[derive(Debug)]
pub(crate) struct WarmPushDown;

impl PhysicalOptimizerRule for WarmPushDown {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let switches = WarmPushDowns::of(config);
        if switches.is_none() {
            return Ok(plan);
        }
        let above =
            Above { switches: &switches, in_time_order: false, why_not: None, is_tried: false };
        Ok(rewritten(&plan, &above)?.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        "WarmPushDown"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What is known of what stands above a node.
#[derive(Clone)]
struct Above<'a> {
    switches: &'a WarmPushDowns,
    /// Whether it may want its rows in the order that a scan has by itself.
    in_time_order: bool,
    /// Why it was not moved itself.
    why_not: Option<WhyNot>,
    /// Whether it is an aggregate that was looked at with the one below.
    is_tried: bool,
}

/// The one or two steps of an aggregate over one input.
struct Steps<'a> {
    /// The final one, if it is right above.
    last: Option<&'a Arc<dyn ExecutionPlan>>,
    /// The first one.
    node: &'a Arc<dyn ExecutionPlan>,
    aggregate: &'a AggregateExec,
}

impl<'a> Steps<'a> {
    fn of(plan: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let aggregate = plan.downcast_ref::<AggregateExec>()?;
        let is_last =
            matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
        let below = aggregate.input().downcast_ref::<AggregateExec>().filter(|_| is_last);
        Some(match below.filter(|below| *below.mode() == AggregateMode::Partial) {
            Some(below) => Self { last: Some(plan), node: aggregate.input(), aggregate: below },
            None => Self { last: None, node: plan, aggregate },
        })
    }

    /// The steps over another input of the first.
    fn over(&self, moved: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        match self.last {
            Some(last) => over(last, moved),
            None => Ok(moved),
        }
    }

    /// The columns of which each group takes the value that its newest row has, if that is all.
    fn newest_columns(
        &self,
        column: &impl Fn(&Arc<dyn PhysicalExpr>) -> Option<String>,
    ) -> Option<Vec<String>> {
        let groups = self.aggregate.group_expr().expr().iter().map(|(expr, _)| column(expr));
        let values = self.aggregate.aggr_expr().iter().map(|aggregate| {
            match aggregate.expressions().as_slice() {
                [value] => column(value),
                _ => None,
            }
        });
        groups.chain(values).collect()
    }
}

/// The plan with what can be moved, or `None` if nothing can.
fn rewritten(
    plan: &Arc<dyn ExecutionPlan>,
    above: &Above<'_>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut below = above.clone();
    if let Some(scan) = Scan::below(plan, 0) {
        return scan.rows(above);
    }
    if let Some(steps) = Steps::of(plan).filter(|_| !above.is_tried) {
        below.in_time_order = !wants_no_order(steps.node);
        below.why_not = None;
        below.is_tried = steps.last.is_some();
        if let Some(scan) = Scan::below(steps.node, 1) {
            match scan.aggregate(&steps, above.switches)? {
                Ok(moved) => return Ok(Some(moved)),
                Err(why_not) => below.why_not = Some(why_not),
            }
        }
    } else if above.is_tried {
        below.is_tried = false;
    } else if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let scan = Scan::below(plan, 1);
        below.in_time_order = scan.as_ref().is_none_or(|scan| scan.leads_by_time(sort));
        below.why_not = None;
        if let (Some(scan), Some(fetch)) = (scan, sort.fetch()) {
            match scan.top_k(sort, fetch, above.switches)? {
                Ok(input) => return over(plan, input).map(Some),
                Err(why_not) => below.why_not = Some(why_not),
            }
        }
    } else if !wants_no_order(plan) {
        below.in_time_order = true;
    }
    let mut changed = false;
    let mut children = Vec::new();
    for child in plan.children() {
        let child = match rewritten(child, &below)? {
            Some(moved) => {
                changed = true;
                moved
            }
            None => Arc::clone(child),
        };
        children.push(child);
    }
    if !changed {
        return Ok(None);
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(children, options).map(Some)
}

fn wants_no_order(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.required_input_ordering().iter().all(Option::is_none)
}

/// A scan of files of which some are warm, and what stands between it and a node above.
struct Scan {
    source: SeriesSource,
    /// Projections, from the top.
    between: Vec<Arc<dyn ExecutionPlan>>,
    divided: Divided,
}

type Attempt<T> = Result<std::result::Result<T, WhyNot>>;

impl Scan {
    /// The scan `depth` nodes and some projections below a plan; `None` if there is none, or no file
    /// of it is warm.
    fn below(plan: &Arc<dyn ExecutionPlan>, depth: usize) -> Option<Self> {
        let top = match depth {
            0 => plan,
            _ => match plan.children().as_slice() {
                [child] => *child,
                _ => return None,
            },
        };
        let (source, between) = scan_of(top)?;
        if depth == 0 && !between.is_empty() || !source.facts().engine.warm().is_on() {
            return None;
        }
        let divided = Divided::of(&source)?;
        Some(Self { source, between, divided })
    }

    /// The scan with its warm files fetched from memory, or with a word on why they are not.
    fn rows(self, above: &Above<'_>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let asked = if above.in_time_order {
            Err(WhyNot::new("rows are wanted in order"))
        } else if !above.switches.warm_scan {
            Err(WhyNot::switched_off())
        } else {
            self.ask(|asked, held| asked.fetch(held))
        };
        match asked {
            Ok(questions) => {
                let why_not = above.why_not.clone();
                let moved = self.moved(questions, "fetch".to_owned(), why_not)?;
                self.beside_others(moved).map(Some)
            }
            Err(why_not) => {
                let why_not = above.why_not.clone().unwrap_or(why_not);
                let files = self.divided.files();
                let note = format!("{files} of its files, not used: {why_not}");
                Ok(Some(self.source.with_warm_note(note).into_exec()))
            }
        }
    }

    /// An aggregate with what can be moved of it.
    fn aggregate(
        self,
        steps: &Steps<'_>,
        switches: &WarmPushDowns,
    ) -> Attempt<Arc<dyn ExecutionPlan>> {
        let (node, aggregate) = (steps.node, steps.aggregate);
        let plain = *aggregate.mode() == AggregateMode::Partial
            && aggregate.group_expr().is_single()
            && aggregate.filter_expr().iter().all(Option::is_none);
        if !plain {
            return Ok(Err(WhyNot::new("an aggregate with a filter, grouping sets or one step")));
        }
        let newest = match switches.warm_last {
            true => self.newest(aggregate),
            false => Err(WhyNot::switched_off()),
        };
        if let Ok(questions) = newest {
            if let Some(moved) = self.whole_newest(steps)? {
                return Ok(Ok(moved));
            }
            let moved = self.moved(questions, "newest row of each key".to_owned(), None)?;
            let newest = over(node, with_input(moved, &self.between)?)?;
            return steps.over(self.beside(newest, node)?).map(Ok);
        }
        if !switches.warm_aggregate {
            return Ok(Err(WhyNot::switched_off()));
        }
        let below = |expr: &Arc<dyn PhysicalExpr>| self.resolved(expr);
        let asked = self.ask(|asked, held| asked.aggregate(held, aggregate, below));
        let questions = match asked {
            Ok(questions) => questions,
            Err(why_not) => return Ok(Err(why_not)),
        };
        if let Some(moved) = self.whole(steps, &questions)? {
            return Ok(Ok(moved));
        }
        let operator = aggregate_words(aggregate);
        let above = [vec![Arc::clone(node)], self.between.clone()].concat();
        let moved = Moved {
            questions,
            cold: self.cold(above)?,
            schema: node.schema(),
            operator,
            not_more: None,
            is_whole: false,
        };
        steps.over(self.beside(Arc::new(WarmScanExec::new(moved)), node)?).map(Ok)
    }

    /// What both steps of an aggregate make of the rows, where one request answers all.
    fn whole(
        &self,
        steps: &Steps<'_>,
        questions: &[Question],
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some((last, [question])) = steps.last.zip(Some(questions)) else { return Ok(None) };
        let partitions = self.source.facts().partitions;
        if !self.divided.others.is_empty() || !is_one_call(questions, partitions) {
            return Ok(None);
        }
        let Some(question) = question.clone().finished(&last.schema()) else { return Ok(None) };
        let operator = format!("whole {}", aggregate_words(steps.aggregate));
        self.moved_whole(steps, last, question, operator).map(Some)
    }

    /// The newest row of each key as both steps of an aggregate show it, where these are all rows that
    /// there are, and groups are keys.
    fn whole_newest(&self, steps: &Steps<'_>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let column = |expr: &Arc<dyn PhysicalExpr>| column_name(&self.resolved(expr).ok()?);
        let names = steps.newest_columns(&column);
        let (Some(last), Some(names), [held]) = (steps.last, names, self.divided.held.as_slice())
        else {
            return Ok(None);
        };
        let (spec, table) = (held.table.spec(), table_schema(&self.source));
        let groups = &names[..steps.aggregate.group_expr().expr().len()];
        let is_group = |key: &usize| {
            groups.iter().any(|group| held.place(&table, group) == Ok(Place::Column(*key)))
        };
        if !self.divided.others.is_empty() || !spec.keys().iter().all(is_group) {
            return Ok(None);
        }
        match self.ask(|asked, held| asked.last_of(held, &names)).as_deref() {
            Ok([question]) => {
                let operator = "whole newest row of each key".to_owned();
                self.moved_whole(steps, last, question.clone(), operator).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn moved_whole(
        &self,
        steps: &Steps<'_>,
        last: &Arc<dyn ExecutionPlan>,
        question: Question,
        operator: String,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let one: Arc<dyn ExecutionPlan> =
            Arc::new(CoalescePartitionsExec::new(Arc::clone(steps.node)));
        let steps = vec![Arc::clone(last), one, Arc::clone(steps.node)];
        let moved = Moved {
            questions: vec![question],
            cold: self.cold([steps, self.between.clone()].concat())?,
            schema: last.schema(),
            operator,
            not_more: None,
            is_whole: true,
        };
        Ok(Arc::new(WarmScanExec::new(moved)))
    }

    /// The newest row of each key, if that is all that an aggregate wants.
    fn newest(&self, aggregate: &AggregateExec) -> std::result::Result<Vec<Question>, WhyNot> {
        let not = || WhyNot::new("not the newest of keys");
        let column = |expr: &Arc<dyn PhysicalExpr>| column_name(&self.resolved(expr).ok()?);
        let groups = aggregate.group_expr().expr();
        let groups = groups.iter().map(|(expr, _)| column(expr)).collect::<Option<Vec<_>>>();
        let (groups, time) = groups.zip(self.source.facts().roles.time.as_ref()).ok_or_else(not)?;
        let wanted = |expr: &Arc<AggregateFunctionExpr>| {
            wants_newest(expr, &groups, &time.name, &column)
                && (self.has_no_ties() || self.takes_any_tie(expr, &groups))
        };
        if aggregate.aggr_expr().is_empty() || !aggregate.aggr_expr().iter().all(wanted) {
            return Err(not());
        }
        let table = table_schema(&self.source);
        let by_keys = |held: &Held| {
            let spec = held.table.spec();
            groups.iter().all(|group| match held.place(&table, group) {
                Ok(Place::Column(column)) => spec.key_position(column).is_some(),
                Ok(Place::Constant(_)) => true,
                Err(_) => false,
            })
        };
        if !self.divided.held.iter().all(by_keys) {
            return Err(not());
        }
        self.ask(|asked, held| asked.last(held))
    }

    /// Whether no two warm rows of a key share a time.
    fn has_no_ties(&self) -> bool {
        self.divided.held.len() == 1 && is_clean(&self.divided.scan_files())
    }

    /// Whether an aggregate does not tell apart rows of a group that share a time.
    fn takes_any_tie(&self, expr: &AggregateFunctionExpr, groups: &[String]) -> bool {
        let column = |expr: &Arc<dyn PhysicalExpr>| column_name(&self.resolved(expr).ok()?);
        let others = expr
            .order_bys()
            .iter()
            .filter(|sort| column(&sort.expr).is_none_or(|column| !groups.contains(&column)));
        others.count() <= 1
    }

    /// What a sort with a limit is given: the first of the warm rows, and all others.
    fn top_k(
        self,
        sort: &SortExec,
        fetch: usize,
        switches: &WarmPushDowns,
    ) -> Attempt<Arc<dyn ExecutionPlan>> {
        if !switches.warm_top_k {
            return Ok(Err(WhyNot::switched_off()));
        }
        if self.leads_by_time(sort) && !self.divided.others.is_empty() {
            return Ok(Err(WhyNot::new("rows are wanted in order, and not all are warm")));
        }
        let order = sort.expr().iter().map(|key| {
            let column = column_name(&self.resolved(&key.expr)?);
            let column = column.ok_or_else(|| WhyNot::new(format!("an order by {}", key.expr)))?;
            Ok((column, key.options.descending, key.options.nulls_first))
        });
        let asked = order.collect::<std::result::Result<Vec<_>, WhyNot>>();
        let asked =
            asked.and_then(|order| self.ask(|asked, held| asked.top_k(held, &order, fetch)));
        let questions = match asked {
            Ok(questions) => questions,
            Err(why_not) => return Ok(Err(why_not)),
        };
        let order: Vec<String> = sort.expr().iter().map(ToString::to_string).collect();
        let operator = format!("top-k: fetch={fetch}, order=[{}]", order.join(", "));
        let moved = self.moved(questions, operator, None)?;
        let input = self.beside_others(moved)?;
        with_input(input, &self.between).map(Ok)
    }

    /// Whether a sort begins with the time column, which a scan may be in order of by itself.
    fn leads_by_time(&self, sort: &SortExec) -> bool {
        let first = self.resolved(&sort.expr().first().expr);
        first.ok().and_then(|expr| column_name(&expr)).is_none_or(|column| {
            self.source.facts().roles.time.as_ref().is_none_or(|time| time.name == column)
        })
    }

    /// An expression over what stands above the scan as one over the scan's table.
    fn resolved(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
    ) -> std::result::Result<Arc<dyn PhysicalExpr>, WhyNot> {
        let resolve = || -> Result<Arc<dyn PhysicalExpr>> {
            let lost = || DataFusionError::Internal(format!("{expr} is not over its input"));
            let mut resolved = Arc::clone(expr);
            for node in &self.between {
                let projection = node.downcast_ref::<ProjectionExec>().ok_or_else(lost)?;
                resolved = update_expr(&resolved, projection.expr(), true)?.ok_or_else(lost)?;
            }
            self.source.over_table(&resolved)
        };
        resolve().map_err(|_| WhyNot::new(format!("the expression {expr}")))
    }

    /// The same question about each table.
    fn ask(
        &self,
        question: impl Fn(&Asked<'_>, Held) -> std::result::Result<Question, WhyNot>,
    ) -> std::result::Result<Vec<Question>, WhyNot> {
        if self.divided.held.is_empty() {
            return Err(WhyNot::new("rows are deduplicated"));
        }
        let table = table_schema(&self.source);
        let asked = Asked { source: &self.source, table: &table };
        self.divided.held.iter().map(|held| question(&asked, held.clone())).collect()
    }

    /// A node that yields rows of the scan.
    fn moved(
        &self,
        questions: Vec<Question>,
        operator: String,
        not_more: Option<WhyNot>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.source.projected_schema()?;
        let cold = self.cold(Vec::new())?;
        let moved = Moved { questions, cold, schema, operator, not_more, is_whole: false };
        Ok(Arc::new(WarmScanExec::new(moved)))
    }

    fn cold(&self, above: Vec<Arc<dyn ExecutionPlan>>) -> Result<Cold> {
        let source = match self.divided.others.is_empty() {
            true => self.source.clone(),
            false => self.source.with_files(self.divided.scan_files())?,
        };
        Ok(Cold::new(source, above))
    }

    /// Rows of warm files beside the scan of the others.
    fn beside_others(&self, moved: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if self.divided.others.is_empty() {
            return Ok(moved);
        }
        let others = self.source.with_files(self.divided.others.clone())?.into_exec();
        UnionExec::try_new(vec![moved, others])
    }

    /// What `node` makes of warm files beside what it makes of the others.
    fn beside(
        &self,
        moved: Arc<dyn ExecutionPlan>,
        node: &Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.divided.others.is_empty() {
            return Ok(moved);
        }
        let others = self.source.with_files(self.divided.others.clone())?.into_exec();
        let others = over(node, with_input(others, &self.between)?)?;
        UnionExec::try_new(vec![moved, others])
    }
}

fn aggregate_words(aggregate: &AggregateExec) -> String {
    let by = aggregate.group_expr().expr().iter().map(|(_, name)| name.as_str());
    let of = aggregate.aggr_expr().iter().map(|expr| expr.name());
    let (by, of): (Vec<_>, Vec<_>) = (by.collect(), of.collect());
    format!("aggregate: by=[{}], aggr=[{}]", by.join(", "), of.join(", "))
}

fn column_name(expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
    expr.downcast_ref::<Column>().map(|column| column.name().to_owned())
}
