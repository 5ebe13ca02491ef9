//! Statements: the simple protocol (text in, text out) and the extended one (parse, bind, execute).

use std::fmt::Debug;
use std::sync::{Arc, MutexGuard, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{Sink, SinkExt, StreamExt};
use kiro_ports::{Principal, SqlRequest};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_execution_response, send_query_response, send_ready_for_query};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::extendedquery::Execute;
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query as QueryMessage;

use super::copy::Form;
use super::session::{Command, split};
use super::settings::Settings;
use super::{Session, fault, wire};
use crate::Door;

/// What a statement does to the transaction. There are none: each statement sees the newest view.
fn after(command: &Command, before: TransactionStatus) -> TransactionStatus {
    match (command, before) {
        (Command::Begin, TransactionStatus::Idle) | (Command::RollbackTo, TransactionStatus::Error) => TransactionStatus::Transaction,
        (Command::Commit | Command::Rollback, _) => TransactionStatus::Idle,
        (_, before) => before,
    }
}

/// Answers the statements of one connection.
pub(super) struct Talk(pub(super) Arc<Session>);

impl Talk {
    fn who(&self) -> PgWireResult<&Principal> {
        self.0.who.get().ok_or_else(|| fault::fatal("28000", "no login came before"))
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, text: &str, parameters: Vec<Option<String>>) -> PgWireResult<SqlRequest> {
        let (who, as_of) = (self.who()?, self.settings().as_of());
        Ok(SqlRequest { parameters, as_of, user: who.name.clone(), ..SqlRequest::new(who.tenant.clone(), text) })
    }

    /// Does the work of a statement unless the client asks to cancel it.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        let Some((handle, _)) = self.0.registered.get() else { return work.await };
        let cancelled = handle.start_query().await;
        tokio::select! {
            result = work => result,
            Ok(()) = cancelled => Err(fault::error("57014", "the statement was cancelled at the client's request")),
        }
    }

    async fn run(&self, command: &Command, request: SqlRequest, format: &Format, status: TransactionStatus) -> PgWireResult<Response> {
        let has_failed = matches!(status, TransactionStatus::Error);
        if has_failed && !command.ends_failure() {
            return Err(fault::error("25P02", "the transaction has failed: statements are ignored until it ends"));
        }
        Ok(match command {
            Command::Ask | Command::Copy(_) => {
                let answer = self.0.shared.server.query.ask(request, Door::Psql).await.map_err(|e| fault::of_query(&e))?;
                Response::Query(wire::response(answer, format)?)
            }
            Command::Show(name) => Response::Query(wire::single(name, &self.settings().show(name)?)?),
            Command::Set(change) => {
                self.settings().set(&change.name, change.value.as_deref(), change.place)?;
                Response::Execution(Tag::new(change.tag))
            }
            Command::Reset(tag) => {
                self.settings().reset();
                Response::Execution(Tag::new(tag))
            }
            Command::Done(tag) => Response::Execution(Tag::new(tag)),
            Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Command::Commit if has_failed => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Command::Commit => Response::TransactionEnd(Tag::new("COMMIT")),
            Command::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Command::RollbackTo => Response::Execution(Tag::new("ROLLBACK")),
        })
    }

    async fn simple<C>(&self, client: &mut C, text: &str) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = split(text)?;
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for statement in statements {
            let status = client.transaction_status();
            let command = Command::of(statement.text).map_err(|e| fault::after(e, statement.before))?;
            let answer = self.run(&command, self.request(statement.text, Vec::new())?, &Format::UnifiedText, status).await;
            match (&command, answer.map_err(|e| fault::after(e, statement.before))?) {
                (Command::Copy(form), Response::Query(rows)) => copy_out(client, form, rows).await?,
                (_, Response::Query(rows)) => send_query_response(client, rows, true).await?,
                (_, Response::Execution(tag) | Response::TransactionStart(tag) | Response::TransactionEnd(tag)) => {
                    send_execution_response(client, tag).await?;
                }
                _ => return Err(fault::error("XX000", "an answer of an unknown kind")),
            }
            client.set_transaction_status(after(&command, status));
        }
        Ok(())
    }

    /// Copies the rows of a portal out, when that is what its statement asks for.
    async fn execute_copy<C>(&self, client: &mut C, portal: &str) -> PgWireResult<bool>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some(Entry::Value(portal)) = client.portal_store().get_portal(portal) else { return Ok(false) };
        let prepared = &portal.statement.statement;
        let Command::Copy(form) = &prepared.command else { return Ok(false) };
        client.set_state(PgWireConnectionState::QueryInProgress);
        let request = self.request(&prepared.text, parameters(&portal)?)?;
        let status = client.transaction_status();
        if let Response::Query(rows) = self.run(&prepared.command, request, &Format::UnifiedText, status).await? {
            copy_out(client, form, rows).await?;
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(true)
    }
}

/// Sends rows as lines.
async fn copy_out<C>(client: &mut C, form: &Form, mut rows: QueryResponse) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let fields = rows.row_schema();
    let (forced, count) = (form.forced(&fields)?, i16::try_from(fields.len()).unwrap_or(i16::MAX));
    let begin = CopyOutResponse::new(0, count, vec![0; fields.len()]);
    client.feed(PgWireBackendMessage::CopyOutResponse(begin)).await?;
    if let Some(header) = form.header(&fields) {
        client.feed(PgWireBackendMessage::CopyData(CopyData::new(header))).await?;
    }
    let mut sent = 0;
    while let Some(row) = rows.data_rows().next().await {
        client.feed(PgWireBackendMessage::CopyData(CopyData::new(form.row(&row?, &forced)))).await?;
        sent += 1;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    send_execution_response(client, Tag::new("COPY").with_rows(sent)).await
}

#[async_trait]
impl SimpleQueryHandler for Talk {
    /// Statements run one after the other, and each answer is sent before the next is asked for.
    async fn on_query<C>(&self, client: &mut C, query: QueryMessage) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.who()?;
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        self.unless_cancelled(self.simple(client, &query.query)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.simple(client, query).await.map(|()| Vec::new())
    }
}

/// A parsed statement.
#[derive(Debug)]
pub(super) struct Prepared {
    text: String,
    command: Command,
    parameters: Vec<DataType>,
    schema: SchemaRef,
}

#[async_trait]
impl QueryParser for Talk {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let who = self.who()?;
        let statements = split(sql)?;
        let text = match statements.as_slice() {
            [] => return Ok(None),
            [one] => one.text.to_owned(),
            _ => return Err(fault::error("42601", "only one statement can be prepared at a time")),
        };
        let command = Command::of(&text)?;
        let (parameters, schema) = match &command {
            Command::Ask | Command::Copy(_) => {
                let described = self.0.shared.server.query.describe(who.tenant.clone(), text.clone(), Door::Psql).await;
                let described = described.map_err(|e| fault::of_query(&e))?;
                (described.parameters, if command == Command::Ask { described.schema } else { Arc::new(Schema::empty()) })
            }
            Command::Show(name) => (Vec::new(), Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]))),
            _ => (Vec::new(), Arc::new(Schema::empty())),
        };
        Ok(Some(Arc::new(Prepared { text, command, parameters, schema })))
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        statement.parameters.iter().map(wire::parameter).collect()
    }

    fn get_result_schema(&self, statement: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        wire::fields(&statement.schema, format.unwrap_or(&Format::UnifiedText))
    }
}

#[async_trait]
impl ExtendedQueryHandler for Talk {
    type Statement = Arc<Prepared>;
    type QueryParser = Talk;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.clone();
        let name = name.as_deref().unwrap_or(DEFAULT_NAME);
        let executed = async {
            if !self.execute_copy(client, name).await? {
                self._on_execute(client, message).await?;
            }
            Ok(())
        };
        let result = self.unless_cancelled(executed).await;
        if result.is_err() {
            // The portal holds the rows, and they their place among the running questions.
            client.portal_store().rm_portal(name);
        }
        result
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Self::Statement>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let request = self.request(&prepared.text, parameters(portal)?)?;
        let status = client.transaction_status();
        let response = self.run(&prepared.command, request, &portal.result_column_format, status).await?;
        if prepared.command == Command::RollbackTo {
            client.set_transaction_status(after(&prepared.command, status));
        }
        Ok(response)
    }
}

/// The values of a portal as text, whether they came as text or in binary.
fn parameters(portal: &Portal<Arc<Prepared>>) -> PgWireResult<Vec<Option<String>>> {
    let prepared = &portal.statement.statement;
    (0..portal.parameters.len())
        .map(|at| {
            let given = portal.statement.parameter_types.get(at).cloned().flatten();
            let kind = match given.filter(|t| *t != Type::UNKNOWN) {
                Some(given) => given,
                None => prepared.parameters.get(at).map_or(Ok(Type::TEXT), wire::parameter)?,
            };
            parameter(portal, at, &kind)
        })
        .collect()
}

fn parameter(portal: &Portal<Arc<Prepared>>, at: usize, kind: &Type) -> PgWireResult<Option<String>> {
    if !portal.parameter_format.is_binary(at) {
        let bytes = portal.parameters.get(at).cloned().flatten();
        let text = bytes.map(|bytes| String::from_utf8(bytes.to_vec()));
        return text.transpose().map_err(|_bytes| fault::error("22021", format!("parameter ${} is not UTF-8", at + 1)));
    }
    Ok(match *kind {
        Type::BOOL => portal.parameter::<bool>(at, kind)?.map(|v| v.to_string()),
        Type::INT2 => portal.parameter::<i16>(at, kind)?.map(|v| v.to_string()),
        Type::INT4 => portal.parameter::<i32>(at, kind)?.map(|v| v.to_string()),
        Type::INT8 => portal.parameter::<i64>(at, kind)?.map(|v| v.to_string()),
        Type::FLOAT4 => portal.parameter::<f32>(at, kind)?.map(|v| v.to_string()),
        Type::FLOAT8 => portal.parameter::<f64>(at, kind)?.map(|v| v.to_string()),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => portal.parameter::<String>(at, kind)?,
        Type::TIMESTAMPTZ => portal.parameter::<chrono::DateTime<chrono::FixedOffset>>(at, kind)?.map(|v| v.to_rfc3339()),
        Type::TIMESTAMP => portal.parameter::<chrono::NaiveDateTime>(at, kind)?.map(|v| v.format("%Y-%m-%dT%H:%M:%S%.f").to_string()),
        Type::DATE => portal.parameter::<chrono::NaiveDate>(at, kind)?.map(|v| v.to_string()),
        _ => return Err(fault::error("0A000", format!("a parameter of type {kind} in binary: send it as text"))),
    })
}
