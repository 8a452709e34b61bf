//! How much planning a statement is worth.
//!
//! DataFusion applies its logical rules again and again until a pass changes nothing. That last pass finds
//! nothing by definition, and takes a good part of the time of a small statement. What other rules
//! open up for a rule that has had its turn are joins, subqueries, unions, limits and the like; where there
//! are none, the first pass does all there is to do, and many rules need not look.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::Optimizer;

/// Rules about what plain statements do not have.
const NOT_OF_PLAIN: [&str; 14] = [
    "rewrite_set_comparison",
    "optimize_unions",
    "unions_to_filter",
    "replace_distinct_aggregate",
    "eliminate_join",
    "decorrelate_predicate_subquery",
    "scalar_subquery_to_join",
    "decorrelate_lateral_join",
    "extract_equijoin_predicate",
    "eliminate_cross_join",
    "eliminate_limit",
    "filter_null_join_keys",
    "eliminate_outer_join",
    "push_down_limit",
];

/// The logical rules that plain statements need.
pub(crate) fn plain_rules() -> Optimizer {
    let mut optimizer = Optimizer::new();
    optimizer.rules.retain(|rule| !NOT_OF_PLAIN.contains(&rule.name()));
    optimizer
}

/// The logical plan that is to be carried out of a plain statement, to which the rules are applied as often
/// as `state` says: once is enough.
pub(crate) fn optimized(
    plan: &LogicalPlan,
    state: &SessionState,
    plain_rules: &Optimizer,
) -> Result<LogicalPlan> {
    // It tells what each of all the rules makes of its statement.
    if matches!(plan, LogicalPlan::Explain(_)) {
        return state.optimize(plan);
    }
    let analyzed =
        state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    plain_rules.optimize(analyzed, state, |_, _| {})
}

/// Whether a statement asks one table for all that there is, without statements within it.
pub(crate) fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    Ok(!plan.exists(|node| Ok(!is_plain_node(node)?))?)
}

fn is_plain_node(node: &LogicalPlan) -> Result<bool> {
    let is_plain = match node {
        LogicalPlan::TableScan(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Analyze(_) => true,
        LogicalPlan::Explain(explain) => is_plain(&explain.plan)?,
        _ => false,
    };
    let mut asks_another = false;
    node.apply_expressions(|expr| {
        asks_another |= expr.exists(|part| {
            let is_query =
                matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
            Ok(is_query)
        })?;
        Ok(if asks_another { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(is_plain && !asks_another)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn context(passes: usize) -> SessionContext {
        let mut config = SessionConfig::new();
        config.options_mut().optimizer.max_passes = passes;
        let context = SessionContext::new_with_config(config);
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("time", time, false),
            Field::new("host", DataType::Utf8View, true),
            Field::new("usage", DataType::Float64, true),
            Field::new("count", DataType::Int64, true),
        ]);
        let table = EmptyTable::new(Arc::new(schema));
        context.register_table("cpu", Arc::new(table)).unwrap();
        context
    }

    async fn plan(context: &SessionContext, statement: &str) -> LogicalPlan {
        context.state().create_logical_plan(statement).await.unwrap()
    }

    #[tokio::test]
    async fn of_plain_statements_the_first_pass_does_all() {
        let (one, many) = (context(1), context(8));
        for statement in [
            "SELECT * FROM cpu",
            "SELECT usage + 1, upper(host) FROM cpu WHERE count * 2 > 4 + 4 AND NOT (usage <= 3)",
            "SELECT * FROM cpu WHERE (host = 'a' AND usage > 1) OR (host = 'a' AND usage < 0)",
            "SELECT * FROM cpu WHERE host IN ('a') OR host IN ('b', 'c') ORDER BY time DESC",
            "SELECT host FROM cpu WHERE time >= '2024-01-01' AND 1 = 1",
            "SELECT * FROM cpu WHERE 1 = 2",
            "SELECT * FROM cpu WHERE usage BETWEEN 1 AND 2 AND usage BETWEEN 1 AND 2",
            "SELECT count(*), max(time), min(usage) FROM cpu WHERE host LIKE 'a%'",
            "SELECT date_bin(INTERVAL '1 minute', time) AS bucket, host, avg(usage), max(usage) \
             FROM cpu WHERE time < '2024-01-01' GROUP BY bucket, host ORDER BY bucket",
            "SELECT host, count(*) FROM cpu GROUP BY host HAVING count(*) > 3 ORDER BY 2 DESC",
            "SELECT host, count(DISTINCT count) FROM cpu GROUP BY host",
            "SELECT host, sum(usage + 1), sum(usage + 1) * 2 FROM cpu GROUP BY host",
            "SELECT CASE WHEN usage > 1 THEN 'a' ELSE 'b' END AS kind, count(*) FROM cpu GROUP BY kind",
            "SELECT last_value(usage ORDER BY time) FROM cpu WHERE host IS NOT NULL",
            "SELECT 1 FROM (SELECT host, usage FROM cpu) WHERE usage > 1 ORDER BY usage",
        ] {
            let asked = plan(&one, statement).await;
            assert!(is_plain(&asked).unwrap(), "{statement}");
            let once = optimized(&asked, &one.state(), &plain_rules()).unwrap();
            let often = many.state().optimize(&plan(&many, statement).await).unwrap();
            assert_eq!(once.display_indent().to_string(), often.display_indent().to_string());
        }
    }

    #[test]
    fn rules_that_plain_statements_do_not_need_are_rules() {
        assert_eq!(plain_rules().rules.len() + NOT_OF_PLAIN.len(), Optimizer::new().rules.len());
    }

    #[tokio::test]
    async fn statements_within_statements_are_planned_until_nothing_changes() {
        let context = context(3);
        for statement in [
            "SELECT * FROM cpu a JOIN cpu b ON a.host = b.host",
            "SELECT * FROM cpu UNION ALL SELECT * FROM cpu",
            "SELECT * FROM cpu WHERE host IN (SELECT host FROM cpu)",
            "SELECT * FROM cpu WHERE usage > (SELECT max(usage) FROM cpu)",
            "SELECT * FROM cpu ORDER BY time DESC LIMIT 5",
            "SELECT host, row_number() OVER (PARTITION BY host ORDER BY time) FROM cpu",
            "EXPLAIN SELECT * FROM cpu UNION ALL SELECT * FROM cpu",
        ] {
            assert!(!is_plain(&plan(&context, statement).await).unwrap(), "{statement}");
        }
        let plain = plan(&context, "EXPLAIN ANALYZE SELECT * FROM cpu").await;
        assert!(is_plain(&plain).unwrap());
    }
}
