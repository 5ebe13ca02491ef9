//! The engine: one view, one catalog, one plan, one stream a question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider, TableFunction, TableProvider,
};
use datafusion::common::tree_node::Transformed;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{ExprSchemable, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Statement as Ast};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::future::BoxFuture;
use kiro_ports::{Clock, PortError, Snapshot, SqlAnswer, SqlEngine, SqlRequest, Views};
use kiro_schemas::{Fault, OffsetVector, Tenant};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Limits, Running, stream};
use crate::catalog::{CATALOG, Catalog, SCHEMA, Tables};
use crate::corrections::Kept;
use crate::functions::table_functions;
use crate::gate::{check_plan, check_statement, parse_one};
use crate::measured::{Measure, check_constants};
use crate::parameters::{bind, parameter_types};
use crate::provider::Cut;
use crate::system::System;
use crate::text::check_text;
use crate::threads::Threads;
use crate::tools::{self, replace_parts};
use crate::watch::{Wanted, watch};
use crate::{Error, Result, telemetry};

/// Opens the files of a version of a table as a table provider; an error when it cannot be read, or is of another adapter.
pub type Providers = Arc<dyn Fn(Arc<dyn Snapshot>) -> BoxFuture<'static, Result<Arc<dyn TableProvider>, PortError>> + Send + Sync>;

/// Through which door a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// HTTP and the program itself: DataFusion's SQL in PostgreSQL's dialect.
    Api,
    /// The psql wire: with `pg_catalog` and the rewrites that PostgreSQL's tools need.
    Psql,
}

/// Limits of the engine.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Bytes that one question may hold in sorts, joins and groups.
    pub memory: usize,
    /// Questions that run at a time; others wait.
    pub concurrent: usize,
    /// Threads that one question may use.
    pub partitions: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        let partitions = std::thread::available_parallelism().map_or(2, usize::from);
        Self { memory: 256 << 20, concurrent: 8, partitions: partitions.min(8) }
    }
}

/// What a statement takes and gives.
#[derive(Debug, Clone)]
pub struct Description {
    /// The types of `$1`, `$2`, ….
    pub parameters: Vec<DataType>,
    /// The columns of its answer.
    pub schema: SchemaRef,
}

/// Answers questions over the newest view.
pub struct Query {
    views: Arc<dyn Views>,
    providers: Providers,
    clock: Arc<dyn Clock>,
    config: QueryConfig,
    runtime: RuntimeEnv,
    plain: Arc<SessionState>,
    kept: Arc<Kept>,
    psql: SessionState,
    system: Option<Arc<dyn SchemaProvider>>,
    parser: PostgresCompatibilityParser,
    places: Arc<Semaphore>,
    threads: Threads,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Query {
    /// An engine over views.
    ///
    /// # Errors
    /// [`Error::Engine`] when the engine's own tables cannot be built.
    pub fn new(views: Arc<dyn Views>, providers: Providers, clock: Arc<dyn Clock>, config: QueryConfig) -> Result<Arc<Self>> {
        let engine = |e| Error::Engine(Box::new(e));
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk).build().map_err(engine)?;
        let (plain, kept) = (Arc::new(base_state(&config)), Arc::new(Kept::default()));
        let template = Catalog {
            tables: Arc::new(Tables {
                view: Arc::default(),
                providers: Arc::clone(&providers),
                cut: Cut { tenant: Tenant::default(), as_of: None },
                kept: Arc::clone(&kept),
                reader: Arc::clone(&plain),
            }),
            system: None,
        };
        let (psql, system) = psql_state(&plain, &template).map_err(engine)?;
        let places = Arc::new(Semaphore::new(config.concurrent.max(1)));
        let parser = PostgresCompatibilityParser::new();
        let threads = Threads::start(&config)?;
        Ok(Arc::new(Self { views, providers, clock, config, runtime, plain, kept, psql, system, parser, places, threads }))
    }

    /// Plans a question that came through a door and begins to answer it.
    ///
    /// # Errors
    /// Any of [`Error`]; also each batch of the answer may be one.
    pub async fn ask(self: &Arc<Self>, request: SqlRequest, door: Door) -> Result<SqlAnswer> {
        let answer = self.begin(request, door).await;
        if let Err(error) = &answer {
            telemetry::failed(error.code());
            tracing::debug!(%error, code = error.code(), "question refused");
        }
        answer
    }

    /// How many more questions could run.
    #[cfg(test)]
    pub(crate) fn free_places(&self) -> usize {
        self.places.available_permits()
    }

    async fn begin(self: &Arc<Self>, request: SqlRequest, door: Door) -> Result<SqlAnswer> {
        check_text(&request.sql)?;
        let (since, timeout) = (self.clock.now(), request.timeout);
        let deadline = Instant::now() + timeout;
        let limits = Limits { deadline, timeout, max_rows: request.max_rows, memory: self.config.memory };
        let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_elapsed| Error::Busy { ms: timeout.as_millis() })?.map_err(|_closed| Error::Lost)?;
        let (engine, wanted) = (Arc::clone(self), Arc::new(Wanted::default()));
        let watcher = Arc::clone(&wanted);
        let started = async move {
            let (state, plan, offsets) = engine.plan(&request, door).await?;
            let plan = bind(plan, &request.parameters)?;
            let (memory, batch) = (engine.config.memory, state.config_options().execution.batch_size.get());
            let plan = state.optimize(&plan).map_err(Error::of_plan)?;
            check_constants(&plan, batch, memory).map_err(|e| Error::of_run(e, memory))?;
            let physical = state.query_planner().create_physical_plan(&plan, &state).await.map_err(Error::of_plan)?;
            let width = memory / batch;
            let physical = watch(physical, &watcher, width).map_err(Error::of_plan)?;
            let schema = physical.schema();
            let rows = execute_stream(physical, state.task_ctx()).map_err(|e| Error::of_run(e, memory))?;
            Ok((schema, offsets, rows, place))
        };
        let (schema, offsets, rows, place) = self.within(deadline, timeout, started).await?;
        let running = Running { limits, wanted, clock: Arc::clone(&self.clock), since };
        Ok(SqlAnswer { schema, offsets, rows: stream(rows, &self.threads, place, running) })
    }

    /// What a statement takes and gives, without running it.
    ///
    /// # Errors
    /// As [`Query::ask`].
    pub async fn describe(self: &Arc<Self>, tenant: Tenant, sql: String, door: Door) -> Result<Description> {
        check_text(&sql)?;
        let engine = Arc::clone(self);
        let request = SqlRequest { timeout: Duration::from_secs(10), ..SqlRequest::new(tenant, sql) };
        let timeout = request.timeout;
        let planned = async move {
            let (_, plan, _) = engine.plan(&request, door).await?;
            Ok(Description { parameters: parameter_types(&plan)?, schema: Arc::new(plan.schema().as_arrow().clone()) })
        };
        self.within(Instant::now() + timeout, timeout, planned).await
    }

    /// Plans in a task of its own, so that a plan that never yields cannot outlive its time unnoticed.
    async fn within<T: Send + 'static>(
        &self,
        deadline: Instant,
        timeout: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match timeout_at(deadline, self.threads.spawn(work)).await {
            Err(_) => Err(Error::TimedOut { ms: timeout.as_millis() }),
            Ok(Err(_)) => Err(Error::Lost),
            Ok(Ok(result)) => result,
        }
    }

    async fn plan(&self, request: &SqlRequest, door: Door) -> Result<(SessionState, LogicalPlan, OffsetVector)> {
        let statement = match door {
            Door::Api => parse_one(&request.sql)?,
            Door::Psql => self.parse_psql(&request.sql)?,
        };
        check_statement(&statement)?;
        let view = self.views.view();
        let offsets = view.vector.clone();
        let cut = Cut { tenant: request.tenant.clone(), as_of: request.as_of };
        let (providers, kept, reader) = (Arc::clone(&self.providers), Arc::clone(&self.kept), Arc::clone(&self.plain));
        let tables = Arc::new(Tables { view, providers, cut, kept, reader });
        let (base, system) = match door {
            Door::Api => (self.plain.as_ref(), None),
            Door::Psql => (&self.psql, self.system.clone()),
        };
        let user = request.user.clone();
        let system = system.map(|tables| Arc::new(System { tables, user }) as Arc<dyn SchemaProvider>);
        let mut state = self.session(base, Catalog { tables, system })?;
        if door == Door::Psql {
            for function in tools::of_session(&request.user, request.as_of) {
                state.register_udf(function).map_err(|e| Error::Engine(Box::new(e)))?;
            }
        }
        let plan = state.statement_to_plan(statement).await.map_err(Error::of_plan)?;
        check_plan(&plan)?;
        Ok((state, without_nulls_first(plan).map_err(Error::of_plan)?, offsets))
    }

    fn parse_psql(&self, sql: &str) -> Result<Statement> {
        let replaced = replace_parts(sql);
        let mut statements = self.parser.parse(replaced.as_deref().unwrap_or(sql)).map_err(|e| Error::Syntax(e.to_string()))?;
        match (statements.len(), statements.pop()) {
            (1, Some(statement)) => Ok(Statement::Statement(Box::new(self.copied(statement)?))),
            (0, _) => Err(Error::Syntax("there is no statement".into())),
            (n, _) => Err(Error::Refused(format!("{n} statements in one text"))),
        }
    }

    /// The query whose rows a `COPY … TO STDOUT` copies; any other statement as it is. How they are written is the door's.
    fn copied(&self, statement: Ast) -> Result<Ast> {
        let Ast::Copy { source, to: true, target: CopyTarget::Stdout, .. } = statement else { return Ok(statement) };
        let query = match source {
            CopySource::Query(query) => Ast::Query(query),
            CopySource::Table { table_name, columns } => {
                let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
                let names = if names.is_empty() { "*".to_owned() } else { names.join(", ") };
                let parsed = self.parser.parse(&format!("SELECT {names} FROM {table_name}"));
                parsed.map_err(|e| Error::Syntax(e.to_string()))?.pop().ok_or_else(|| Error::Syntax("there is no table".into()))?
            }
        };
        Ok(self.parser.rewrite(query))
    }

    /// A session of its own for each question: nothing that one does is seen by another.
    fn session(&self, base: &SessionState, catalog: Catalog) -> Result<SessionState> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(self.config.memory));
        let measure = Arc::new(Measure { pool: Arc::clone(&pool) });
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.runtime).with_memory_pool(pool);
        let runtime = runtime.build_arc().map_err(|e| Error::Engine(Box::new(e)))?;
        let builder = SessionStateBuilder::new_from_existing(base.clone()).with_analyzer_rule(measure);
        let mut state = builder.with_catalog_list(catalogs(Arc::new(catalog))).with_runtime_env(runtime).build();
        let options = Arc::clone(state.config_options());
        let properties = state.execution_props_mut();
        properties.mark_start_execution(options);
        // What `now()` says; without it the engine refuses to run it.
        properties.query_execution_start_time = chrono::DateTime::from_timestamp_micros(self.clock.now().0);
        Ok(state)
    }
}

#[async_trait]
impl SqlEngine for Query {
    async fn query(self: Arc<Self>, request: SqlRequest) -> Result<SqlAnswer, PortError> {
        self.ask(request, Door::Api).await.map_err(PortError::of)
    }
}

/// Nulls come first where an order is descending, as in PostgreSQL. Where a column has none, the engine need not look for them:
/// the bound of a top-k then is a plain comparison, which leaves out files and row groups.
fn without_nulls_first(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let plan = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Sort(mut sort) = node else { return Ok(Transformed::no(node)) };
        for by in &mut sort.expr {
            by.nulls_first &= by.expr.nullable(sort.input.schema().as_ref())?;
        }
        Ok(Transformed::yes(LogicalPlan::Sort(sort)))
    });
    plan.map(|plan| plan.data)
}

/// One catalog and no other.
pub(crate) fn catalogs(catalog: Arc<dyn CatalogProvider>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), catalog);
    Arc::new(list)
}

fn base_state(config: &QueryConfig) -> SessionState {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.partitions)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = session.options_mut();
    options.execution.enable_recursive_ctes = false;
    options.execution.skip_physical_aggregate_schema_check = true;
    options.execution.parquet.pushdown_filters = true;
    // The other form of a union lets no filter of a top-k through to the files.
    options.optimizer.prefer_existing_union = true;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    let functions: HashMap<String, Arc<TableFunction>> =
        table_functions().into_iter().map(|(name, f)| (name.to_owned(), Arc::new(TableFunction::new(name.to_owned(), f)))).collect();
    SessionStateBuilder::new()
        .with_config(session)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(SessionStateDefaults::default_scalar_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_functions(functions)
        .build()
}

type PsqlState = (SessionState, Option<Arc<dyn SchemaProvider>>);

/// The state of the psql door. `pg_catalog` is built once, over tables without rows, so that its object ids stay the same.
fn psql_state(plain: &SessionState, template: &Catalog) -> datafusion::error::Result<PsqlState> {
    let (tables, holder) = (Arc::clone(&template.tables), MemoryCatalogProvider::new());
    holder.register_schema(SCHEMA, tables)?;
    let state = SessionStateBuilder::new_from_existing(plain.clone()).with_catalog_list(catalogs(Arc::new(holder))).build();
    let context = SessionContext::new_with_state(state);
    setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|e| *e)?;
    for function in tools::functions() {
        context.register_udf(function.as_ref().clone());
    }
    let system = context.catalog(CATALOG).and_then(|c| c.schema("pg_catalog"));
    Ok((context.state(), system))
}
