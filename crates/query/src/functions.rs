//! The table functions `series(pattern [, 'as of'])` and `series_versions(path [, 'as of'])`.
//!
//! DataFusion calls table functions synchronously, but finding a series may read the log. So the
//! calls of a statement are found in its syntax tree and resolved beforehand; the functions then
//! only look up what was resolved.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    self, Expr as AstExpr, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, Value, Visit,
    Visitor,
};
use tidelog_core::{AsOf, PathPattern};
use tidelog_store::Head;

use crate::error::Error;
use crate::session::Queries;
use crate::table::{SeriesTable, Shape, TextColumns};

const SERIES: &str = "series";
const SERIES_VERSIONS: &str = "series_versions";

/// The names of the functions.
pub(crate) const NAMES: [&str; 2] = [SERIES, SERIES_VERSIONS];

/// One call with literal arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    function: &'static str,
    pattern: String,
    as_of: Option<String>,
}

/// The tables of a statement's calls.
pub(crate) type Resolved = HashMap<Call, Arc<SeriesTable>>;

impl Call {
    fn from_texts(
        function: &'static str,
        mut texts: Vec<String>,
    ) -> std::result::Result<Self, Error> {
        let as_of = if texts.len() == 2 { texts.pop() } else { None };
        match (texts.pop(), texts.is_empty()) {
            (Some(pattern), true) => Ok(Self { function, pattern, as_of }),
            _ => Err(usage(function)),
        }
    }
}

fn usage(function: &str) -> Error {
    Error::invalid(format!(
        "{function} takes a path or glob and, if you like, a point in history, both as text: \
         {function}('/a/*.series', 'v5')"
    ))
}

/// The calls in a statement.
pub(crate) fn calls(statement: &Statement) -> std::result::Result<Vec<Call>, Error> {
    let mut found = Calls(Vec::new());
    let flow = match statement {
        Statement::Statement(statement) => statement.visit(&mut found),
        Statement::Explain(explain) => return calls(&explain.statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut found),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(found.0),
    }
}

struct Calls(Vec<Call>);

impl Calls {
    fn add(&mut self, name: &ObjectName, args: &[FunctionArg]) -> std::result::Result<(), Error> {
        let text = name.to_string().to_ascii_lowercase();
        let Some(function) = NAMES.into_iter().find(|known| *known == text) else { return Ok(()) };
        let texts = args.iter().map(literal).collect::<Option<Vec<_>>>();
        let call = Call::from_texts(function, texts.ok_or_else(|| usage(function))?)?;
        if !self.0.contains(&call) {
            self.0.push(call);
        }
        Ok(())
    }
}

impl Visitor for Calls {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        let added = match factor {
            TableFactor::Table { name, args: Some(args), .. } => self.add(name, &args.args),
            TableFactor::Function { name, args, .. } => self.add(name, args),
            _ => Ok(()),
        };
        match added {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn literal(arg: &FunctionArg) -> Option<String> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(AstExpr::Value(ast::ValueWithSpan {
            value: Value::SingleQuotedString(text),
            ..
        }))) => Some(text.clone()),
        _ => None,
    }
}

impl Queries {
    pub(crate) async fn resolve(
        &self,
        head: &Head,
        call: &Call,
    ) -> std::result::Result<Arc<SeriesTable>, Error> {
        let store = |error: tidelog_store::Error| Error::Store(error);
        let as_of = match &call.as_of {
            Some(text) => text.parse::<AsOf>().map_err(|error| store(error.into()))?,
            None => AsOf::Head,
        };
        let pattern = PathPattern::parse(&call.pattern).map_err(|error| store(error.into()))?;
        let shape = match (call.function, pattern.as_path()) {
            (SERIES_VERSIONS, Some(_)) => Shape::Versions,
            (SERIES_VERSIONS, None) => return Err(usage(SERIES_VERSIONS)),
            (_, Some(_)) => Shape::Series,
            (_, None) => Shape::Glob,
        };
        let views = self.engine().series_matching(head, &pattern, &as_of).await?;
        let table = SeriesTable::try_new(
            self.engine().clone(),
            self.url().clone(),
            views,
            pattern.to_string(),
            shape,
            TextColumns::AsViews,
            &as_of,
        )?;
        Ok(Arc::new(table))
    }
}

/// One of the functions, within one statement.
#[derive(Debug)]
pub(crate) struct SeriesFunction {
    name: &'static str,
    resolved: Arc<Resolved>,
}

impl SeriesFunction {
    pub(crate) fn new(name: &'static str, resolved: Arc<Resolved>) -> Self {
        Self { name, resolved }
    }
}

impl TableFunctionImpl for SeriesFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let texts = args.exprs().iter().map(|expr| match expr {
            Expr::Literal(
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)),
                _,
            ) => Some(text.clone()),
            _ => None,
        });
        let texts = texts.collect::<Option<Vec<_>>>().ok_or_else(|| usage(self.name))?;
        let call = Call::from_texts(self.name, texts)?;
        match self.resolved.get(&call) {
            Some(table) => Ok(Arc::<SeriesTable>::clone(table)),
            None => Err(usage(self.name).into()),
        }
    }
}
