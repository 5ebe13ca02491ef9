//! Faults as PostgreSQL's clients know them: a severity, an SQLSTATE, a text and our code as detail.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use kiro_schemas::Fault;
use pgwire::error::{ErrorInfo, PgWireError};

use crate::Error;

/// What the engine says when a name that is cast to an object id (`'x'::regproc::oid`) names nothing.
const NO_OBJECT: &str = "Column 'oid' is declared as non-nullable but contains null values";

/// An error with its SQLSTATE.
pub(super) fn error(state: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), state.into(), message.into())))
}

/// An error that ends the connection.
pub(super) fn fatal(state: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), state.into(), message.into())))
}

/// The error with its place counted from the beginning of the whole text.
pub(super) fn after(error: PgWireError, before: usize) -> PgWireError {
    let PgWireError::UserError(mut info) = error else { return error };
    let place = info.position.as_deref().and_then(|place| place.parse::<usize>().ok());
    info.position = place.map(|place| (place + before).to_string());
    PgWireError::UserError(info)
}

/// What a question met before its first row.
pub(super) fn of_query(error: &Error) -> PgWireError {
    match error {
        Error::Plan(source) => with_code(of_plan(source), error),
        other => of_fault(other),
    }
}

/// What a question met while its rows were read.
pub(super) fn of_fault(fault: &impl Fault) -> PgWireError {
    let told = fault.to_string();
    if told.contains(NO_OBJECT) {
        return error("42704", "there is no table, function or type of that name");
    }
    let state = match fault.code() {
        "KIR-0406" if told.contains("Divide by zero") => "22012",
        "KIR-0406" if told.contains("Cast error") || told.contains("Parser error") => "22P02",
        code => of_code(code),
    };
    with_code(state, fault)
}

fn with_code(state: &str, fault: &impl Fault) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), state.into(), fault.to_string());
    info.detail = Some(fault.code().into());
    PgWireError::UserError(Box::new(info))
}

fn of_plan(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::Plan(text) if text.contains("table") && text.contains("not found") => "42P01",
        DataFusionError::Plan(text) if text.contains("Invalid function") => "42883",
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::DivideByZero => "22012",
            _ => "42804",
        },
        DataFusionError::NotImplemented(_) => "0A000",
        _ => "42804",
    }
}

fn of_code(code: &str) -> &'static str {
    match code {
        "KIR-0401" => "54001",
        "KIR-0402" => "42601",
        "KIR-0403" => "25006",
        "KIR-0404" => "42804",
        "KIR-0405" => "22P02",
        "KIR-0406" => "22000",
        "KIR-0407" => "53200",
        "KIR-0408" => "57014",
        "KIR-0409" => "54000",
        "KIR-0410" => "53000",
        "KIR-0411" => "58030",
        _ => "XX000",
    }
}
