//! SQL over a store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::{Stream, StreamExt};
use tidelog_core::{FileId, Holder, MemoryBudget};
use tidelog_store::{Engine, Head};
use url::Url;

use crate::catalog::StoreCatalog;
use crate::effort;
use crate::error::Error;
use crate::functions::{self, SeriesFunction};
use crate::policy::SqlPolicy;
use crate::pool::BudgetPool;
use crate::round_literals::RoundLiterals;
use crate::warm::WarmPushDowns;
use crate::{limits, rules};

/// Memory kept between a scan and the operator that takes its ordered rows, per partition.
const ORDERED_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Memory that a sort keeps for merging what it has spilled, per partition.
const MERGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Of what queries can have, either takes at most this part in all partitions together.
const BUFFERS_PART: usize = 8;
/// A partition with buffers of fewer bytes works on fewer rows at a time: merges hold several batches
/// of each of their inputs.
const SMALL_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const SMALL_BATCH_ROWS: usize = 2048;

/// How many sessions are kept for statements to come.
const IDLE_SESSIONS_MAX: usize = 8;

/// The catalog that a store appears as in SQL.
pub(crate) const CATALOG: &str = "store";
/// The schema whose tables are series.
pub(crate) const SERIES_SCHEMA: &str = "series";
/// The schema whose tables are the log.
pub(crate) const LOG_SCHEMA: &str = "tidelog";

/// Numbers that queries run with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueryOptions {
    /// How many partitions run at once. `None` is the number of cores.
    pub partitions: Option<usize>,
    /// Whether queries for the newest rows of each key leave out older rows while they read. The
    /// answers are the same either way.
    pub key_pruning: bool,
    /// What of a plan may be moved to the warm tier. The answers are the same whatever is set.
    pub warm: WarmPushDowns,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self { partitions: None, key_pruning: true, warm: WarmPushDowns::default() }
    }
}

impl QueryOptions {
    /// Sets how many partitions run at once. Default: the number of cores.
    #[must_use]
    pub fn with_partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions.max(1));
        self
    }

    /// Sets whether queries for the newest rows of each key leave out older rows while they read.
    /// Default: true.
    #[must_use]
    pub fn with_key_pruning(mut self, key_pruning: bool) -> Self {
        self.key_pruning = key_pruning;
        self
    }

    /// Sets what of a plan may be moved to the warm tier. Default: all that can be.
    #[must_use]
    pub fn with_warm(mut self, warm: WarmPushDowns) -> Self {
        self.warm = warm;
        self
    }
}

/// Queries over one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queries {
    engine: Engine,
    state: Arc<SessionState>,
    /// Sessions of statements that are planned, to be used again: making one copies every function.
    idle: Arc<Mutex<Vec<SessionState>>>,
    /// The logical rules of statements that need not all.
    plain_rules: Arc<Optimizer>,
    /// What every statement runs with.
    context: Arc<TaskContext>,
    /// How many partitions run at once, of what is planned from now on.
    partitions: Arc<AtomicUsize>,
    url: ObjectStoreUrl,
    /// What is read, if it is not the newest state.
    pinned: Option<Head>,
}

impl Queries {
    /// Queries over `engine`.
    ///
    /// # Errors
    /// If the runtime cannot be set up (temporary directory, memory).
    pub fn try_new(engine: Engine, options: &QueryOptions) -> Result<Self, Error> {
        let runtime = runtime(&engine)?;
        let url = register(&engine, &runtime)?;
        let state = SessionStateBuilder::new()
            .with_config(config(options, engine.memory()))
            .with_runtime_env(runtime)
            .with_default_features()
            .with_physical_optimizer_rules(rules::all(options.key_pruning))
            .with_analyzer_rules(analyzer_rules())
            .build();
        let context = state.task_ctx();
        let partitions = Arc::new(AtomicUsize::new(state.config().target_partitions()));
        let (state, idle) = (Arc::new(state), Arc::default());
        let plain_rules = Arc::new(effort::plain_rules());
        Ok(Self { engine, state, idle, plain_rules, context, partitions, url, pinned: None })
    }

    /// The same queries, all of which read `head`.
    #[doc(hidden)]
    #[must_use]
    pub fn pinned_to(&self, head: Head) -> Self {
        Self { pinned: Some(head), ..self.clone() }
    }

    /// The same queries, of which only this is moved to the warm tier.
    #[must_use]
    pub fn with_warm(&self, warm: &WarmPushDowns) -> Self {
        let mut state = (*self.state).clone();
        state.config_mut().options_mut().extensions.insert(warm.clone());
        Self { state: Arc::new(state), idle: Arc::default(), ..self.clone() }
    }

    /// What a read or statement that begins now sees.
    pub(crate) async fn head(&self) -> Result<Head, Error> {
        match &self.pinned {
            Some(head) => Ok(head.clone()),
            None => Ok(self.engine.head().await?),
        }
    }

    /// The store underneath.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// What every statement runs with.
    pub(crate) fn context(&self) -> &Arc<TaskContext> {
        &self.context
    }

    /// Whether the newest rows of keys may be asked of the warm tier.
    pub(crate) fn moves_newest(&self) -> bool {
        WarmPushDowns::of(self.state.config_options()).warm_last
    }

    /// A session to plan with.
    pub(crate) fn state(&self) -> SessionState {
        self.with_partitions((*self.state).clone())
    }

    /// Sets how many partitions run at once in what is planned from now on, for all clones; `None`
    /// is the number of cores.
    pub fn set_partitions(&self, partitions: Option<usize>) {
        let partitions = partitions.unwrap_or_else(cores).max(1);
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    fn with_partitions(&self, mut state: SessionState) -> SessionState {
        let partitions = self.partitions.load(Ordering::Relaxed);
        // Changing a session's options copies them.
        if state.config().target_partitions() != partitions {
            state.config_mut().options_mut().execution.target_partitions = partitions;
        }
        state
    }

    /// Plans and starts one statement. All its tables are read at the same commit.
    ///
    /// # Errors
    /// If the statement is too large, not allowed, wrong, or names what is not there.
    pub async fn sql(&self, sql: &str, policy: SqlPolicy) -> Result<QueryStream, Error> {
        let plan = self.plan(sql, policy).await?;
        QueryStream::start(plan, &self.context)
    }

    /// Plans one statement.
    async fn plan(&self, sql: &str, policy: SqlPolicy) -> Result<Arc<dyn ExecutionPlan>, Error> {
        limits::check(sql)?;
        let head = self.head().await?;
        let statement =
            self.state.sql_to_statement(sql, &self.state.config_options().sql_parser.dialect)?;
        let calls = functions::calls(&statement)?;
        let mut resolved = HashMap::new();
        for call in calls {
            let table = self.resolve(&head, &call).await?;
            resolved.insert(call, table);
        }
        let mut state = self.statement_state(head, resolved);
        // Planning is long stretches of computation: off the runtime's own threads with it.
        let (runtime, queries) = (tokio::runtime::Handle::current(), self.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let planned = runtime.block_on(async {
                let plan: LogicalPlan = state.statement_to_plan(statement).await?;
                policy.check(&plan)?;
                queries.physical(&mut state, &plan).await
            });
            queries.put_back(state);
            planned
        });
        planned.await.map_err(|error| Error::Execution { message: error.to_string() })?
    }

    /// The physical plan of a statement.
    async fn physical(
        &self,
        state: &mut SessionState,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let is_plain = effort::is_plain(plan)?;
        let passes = if is_plain { 1 } else { self.state.config_options().optimizer.max_passes };
        // Changing a session's options copies them.
        if state.config_options().optimizer.max_passes != passes {
            state.config_mut().options_mut().optimizer.max_passes = passes;
        }
        if !is_plain {
            return Ok(state.create_physical_plan(plan).await?);
        }
        let plan = effort::optimized(plan, state, &self.plain_rules)?;
        Ok(state.query_planner().create_physical_plan(&plan, state).await?)
    }

    /// The session of one statement: names resolve in `head`, and it starts now.
    fn statement_state(&self, head: Head, resolved: functions::Resolved) -> SessionState {
        let catalogs = MemoryCatalogProviderList::new();
        let catalog = StoreCatalog::new(self.clone(), head);
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let idle = self.idle().pop().unwrap_or_else(|| (*self.state).clone());
        let mut state = self.with_partitions(idle);
        state.register_catalog_list(Arc::new(catalogs));
        let resolved = Arc::new(resolved);
        for name in functions::NAMES {
            state.register_udtf(name, Arc::new(SeriesFunction::new(name, Arc::clone(&resolved))));
        }
        state.mark_start_execution();
        state
    }

    /// Keeps the session of a statement for another one, without what it holds of the store.
    fn put_back(&self, mut state: SessionState) {
        state.register_catalog_list(Arc::clone(self.state.catalog_list()));
        for name in functions::NAMES {
            state.register_udtf(name, Arc::new(SeriesFunction::new(name, Arc::default())));
        }
        let mut idle = self.idle();
        if idle.len() < IDLE_SESSIONS_MAX {
            idle.push(state);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SessionState>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// DataFusion's rules, with ours before the coercion of types.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let ours: Arc<dyn AnalyzerRule + Send + Sync> = Arc::new(RoundLiterals);
    std::iter::once(ours).chain(Analyzer::new().rules).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn config(options: &QueryOptions, memory: &MemoryBudget) -> SessionConfig {
    let partitions = options.partitions.unwrap_or_else(cores);
    let memory = usize::try_from(memory.within_reach(Holder::Queries)).unwrap_or(usize::MAX);
    let buffer = memory / BUFFERS_PART / partitions;
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_default_catalog_and_schema(CATALOG, SERIES_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_option_extension(options.warm.clone());
    if buffer < SMALL_BUFFER_BYTES {
        config = config.with_batch_size(SMALL_BATCH_ROWS);
    }
    let settings = config.options_mut();
    settings.execution.parquet.pushdown_filters = true;
    settings.execution.parquet.enable_page_index = true;
    settings.execution.sort_pushdown_buffer_capacity = buffer.min(ORDERED_BUFFER_BYTES_MAX);
    settings.execution.sort_spill_reservation_bytes = buffer.min(MERGE_BYTES_MAX);
    config
}

fn runtime(engine: &Engine) -> Result<Arc<RuntimeEnv>, Error> {
    let pool = Arc::new(BudgetPool::new(engine.memory().clone()));
    Ok(RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?)
}

/// Makes the store's objects known to plans, under a name that no user can write.
fn register(engine: &Engine, runtime: &RuntimeEnv) -> Result<ObjectStoreUrl, Error> {
    let name = FileId::random(engine.env().randomness.as_ref());
    let text = format!("tidelog://{name}");
    let url = Url::parse(&text).map_err(|error| Error::invalid(error.to_string()))?;
    runtime.register_object_store(&url, Arc::clone(engine.object_store()));
    Ok(ObjectStoreUrl::parse(text)?)
}

/// The rows of a query, as they come.
pub struct QueryStream {
    stream: SendableRecordBatchStream,
    plan: Arc<dyn ExecutionPlan>,
}

impl QueryStream {
    pub(crate) fn start(
        plan: Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
    ) -> Result<Self, Error> {
        let stream = execute_stream(Arc::clone(&plan), Arc::clone(context))?;
        Ok(Self { stream, plan })
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The physical plan that runs.
    #[must_use]
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryStream").field("schema", &self.schema()).finish_non_exhaustive()
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(context);
        next.map(|next| next.map(|batch| batch.map_err(|error: DataFusionError| error.into())))
    }
}
