//! What PostgreSQL's tools ask for besides tables: functions about the session, and statements that the engine cannot plan.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use kiro_schemas::Micros;

use crate::catalog::CATALOG;

/// The version that tools see.
pub(crate) const SERVER_VERSION: &str = "16.6 (KiroLinter)";

/// Parts of statements that tools send, with what is put in their place.
const REPLACED: &[(&str, &str)] = &[
    // Grafana: the schemas of the search path.
    (
        "SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END FROM generate_series( \
         array_lower(string_to_array(current_setting('search_path'),','),1), \
         array_upper(string_to_array(current_setting('search_path'),','),1)) as i, \
         string_to_array(current_setting('search_path'),',') s",
        "'public'",
    ),
    // psql's \du: the roles that a role is a member of.
    (
        "ARRAY(SELECT b.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles b ON (m.roleid = b.oid) \
         WHERE m.member = r.oid)",
        "'{}'",
    ),
    // psql's \d+: the options of a table, and of where its long values are kept.
    ("pg_catalog.array_to_string(c.reloptions || array(select 'toast.' || x from pg_catalog.unnest(tc.reloptions) x), ', ')", "NULL"),
    // psql's \dT: whether a type is that of the rows of a table.
    ("(SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)", "false"),
    // psql's \dT+: the values of an enumeration. There is none.
    (
        "pg_catalog.array_to_string(ARRAY(SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid \
         ORDER BY e.enumsortorder), E'\\n')",
        "NULL",
    ),
    // psql's +: who else may use a thing. Tokens decide, not grants.
    ("pg_catalog.array_to_string(n.nspacl, E'\\n')", "NULL"),
    ("pg_catalog.array_to_string(t.typacl, E'\\n')", "NULL"),
    ("pg_catalog.array_to_string(p.proacl, E'\\n')", "NULL"),
    ("pg_catalog.array_to_string(d.datacl, E'\\n')", "NULL"),
    // psql's \dp: what the role may do with a table, which is to read it; no column or row is kept from it otherwise.
    ("pg_catalog.array_to_string(c.relacl, E'\\n')", "current_user || '=r/kirolinter'"),
    (
        "pg_catalog.array_to_string(ARRAY( SELECT attname || E':\\n  ' || pg_catalog.array_to_string(attacl, E'\\n  ') \
         FROM pg_catalog.pg_attribute a WHERE attrelid = c.oid AND NOT attisdropped AND attacl IS NOT NULL ), E'\\n')",
        "NULL",
    ),
    (
        "pg_catalog.array_to_string(ARRAY( SELECT polname || CASE WHEN NOT polpermissive THEN E' (RESTRICTIVE)' ELSE '' \
         END || CASE WHEN polcmd != '*' THEN E' (' || polcmd::pg_catalog.text || E'):' ELSE E':' END || CASE WHEN \
         polqual IS NOT NULL THEN E'\\n  (u): ' || pg_catalog.pg_get_expr(polqual, polrelid) ELSE E'' END || CASE WHEN \
         polwithcheck IS NOT NULL THEN E'\\n  (c): ' || pg_catalog.pg_get_expr(polwithcheck, polrelid) ELSE E'' END || \
         CASE WHEN polroles <> '{0}' THEN E'\\n  to: ' || pg_catalog.array_to_string( ARRAY( SELECT rolname FROM \
         pg_catalog.pg_roles WHERE oid = ANY (polroles) ORDER BY 1 ), E', ') ELSE E'' END FROM pg_catalog.pg_policy pol \
         WHERE polrelid = c.oid), E'\\n')",
        "NULL",
    ),
    // psql's \ddp and \drds: there are no defaults and no settings of others.
    ("pg_catalog.array_to_string(d.defaclacl, E'\\n')", "NULL"),
    ("pg_catalog.array_to_string(setconfig, E'\\n')", "NULL"),
    // psql's \dD and \dy: there are no domains and no triggers.
    (
        "pg_catalog.array_to_string(ARRAY( SELECT pg_catalog.pg_get_constraintdef(r.oid, true) FROM \
         pg_catalog.pg_constraint r WHERE t.oid = r.contypid ), ' ')",
        "NULL",
    ),
    ("pg_catalog.array_to_string(array(select x from pg_catalog.unnest(evttags) as t(x)), ', ')", "NULL"),
    // psql's \sv: the options of a view. There is none.
    (
        "pg_catalog.array_remove(pg_catalog.array_remove(c.reloptions,'check_option=local'),'check_option=cascaded') AS \
         reloptions, CASE WHEN 'check_option=local' = ANY (c.reloptions) THEN 'LOCAL'::text WHEN 'check_option=cascaded' \
         = ANY (c.reloptions) THEN 'CASCADED'::text ELSE NULL END AS checkoption",
        "NULL AS reloptions, NULL AS checkoption",
    ),
];

/// The one setting that changes answers: as of when they are given.
pub(crate) const AS_OF: &str = "kirolinter.as_of";

/// The value of a setting, in a session that asks as of a time or of now.
pub(crate) fn setting(name: &str, as_of: Option<Micros>) -> Option<String> {
    match name {
        AS_OF => Some(as_of.map(|time| time.to_string()).unwrap_or_default()),
        other => fixed(other).map(str::to_owned),
    }
}

fn fixed(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => SERVER_VERSION,
        "server_version_num" => "160006",
        "server_encoding" | "client_encoding" => "UTF8",
        "search_path" => "public",
        "timezone" | "time zone" => "UTC",
        "datestyle" => "ISO, YMD",
        "intervalstyle" => "postgres",
        "standard_conforming_strings" | "transaction_read_only" | "default_transaction_read_only" | "integer_datetimes" => "on",
        "is_superuser" | "in_hot_standby" => "off",
        "transaction isolation level" | "transaction_isolation" | "default_transaction_isolation" => "repeatable read",
        "statement_timeout" => "30s",
        "lock_timeout" | "idle_in_transaction_session_timeout" => "0",
        "max_identifier_length" => "63",
        "bytea_output" => "hex",
        "extra_float_digits" => "1",
        "application_name" => "",
        _ => return None,
    })
}

/// The text with the parts of tools replaced; `None` when there is none of them.
pub(crate) fn replace_parts(sql: &str) -> Option<String> {
    // Literals stay as they are written: the text is put together from the tokens again.
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).with_unescape(false).tokenize().ok()?;
    let mut solid: Vec<Token> = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    let mut is_changed = false;
    for (part, instead) in REPLACED {
        let wanted = Tokenizer::new(&PostgreSqlDialect {}, part).with_unescape(false).tokenize().ok()?;
        let wanted: Vec<Token> = wanted.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
        while let Some(at) = solid.windows(wanted.len()).position(|window| window == wanted) {
            solid.splice(at..at + wanted.len(), [Token::make_word(instead, None)]);
            is_changed = true;
        }
    }
    is_changed.then(|| solid.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// The functions that tell about a session.
pub(crate) fn of_session(user: &str, as_of: Option<Micros>) -> Vec<Arc<ScalarUDF>> {
    let names = ["session_user", "current_user", "user"].map(|name| {
        let user = user.to_owned();
        Function::new(name, DataType::Utf8, move |_| Ok(user.as_str().into()))
    });
    let setting = Function::new("current_setting", DataType::Utf8, move |arguments| current_setting(arguments, as_of));
    names.into_iter().chain([setting]).map(|function| Arc::new(ScalarUDF::new_from_impl(function))).collect()
}

/// The functions of the psql door.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let nothing: fn(&[ScalarValue]) -> Result<ScalarValue> = |_| Ok(ScalarValue::Utf8(None));
    let yes: fn(&[ScalarValue]) -> Result<ScalarValue> = |_| Ok(ScalarValue::Boolean(Some(true)));
    let mut all = vec![
        Function::new("version", DataType::Utf8, |_| Ok(format!("PostgreSQL {SERVER_VERSION}").into())),
        Function::new("pg_get_userbyid", DataType::Utf8, |_| Ok(CATALOG.into())),
        Function::new("pg_size_pretty", DataType::Utf8, size_pretty),
        Function::new("pg_get_functiondef", DataType::Utf8, |_| {
            exec_err!("functions are built in and have no definition that could be shown")
        }),
        Function::new("pg_is_in_recovery", DataType::Boolean, |_| Ok(ScalarValue::Boolean(Some(false)))),
    ];
    // A table is files in an object store and rows in memory; nobody adds them up.
    let sizes = ["pg_table_size", "pg_database_size", "pg_relation_size", "pg_total_relation_size", "pg_indexes_size"];
    all.extend(sizes.map(|name| Function::new(name, DataType::Int64, |_| Ok(ScalarValue::Int64(None)))));
    let visible = [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_opclass_is_visible",
        "pg_operator_is_visible",
        "pg_conversion_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
    ];
    all.extend(visible.map(|name| Function::new(name, DataType::Boolean, yes)));
    let descriptions = [
        "obj_description",
        "col_description",
        "shobj_description",
        "pg_get_function_result",
        "pg_get_function_arguments",
        "pg_get_function_sqlbody",
        "pg_tablespace_location",
        "pg_get_viewdef",
    ];
    all.extend(descriptions.map(|name| Function::new(name, DataType::Utf8, nothing)));
    all.into_iter().map(|function| Arc::new(ScalarUDF::new_from_impl(function))).collect()
}

fn current_setting(arguments: &[ScalarValue], as_of: Option<Micros>) -> Result<ScalarValue> {
    let Some(name) = arguments.first().and_then(|name| name.try_as_str().flatten()) else { return Ok(ScalarValue::Utf8(None)) };
    let may_be_missing = matches!(arguments.get(1), Some(ScalarValue::Boolean(Some(true))));
    match setting(&name.to_lowercase(), as_of) {
        None if !may_be_missing => exec_err!("there is no setting {name:?}"),
        value => Ok(ScalarValue::Utf8(value)),
    }
}

/// # Source
/// PostgreSQL 16, "Database Object Size Functions": kB, MB, … from 10 of them on, rounded half up.
fn size_pretty(arguments: &[ScalarValue]) -> Result<ScalarValue> {
    let size = arguments.first().map_or(Ok(ScalarValue::Int64(None)), |size| size.cast_to(&DataType::Int64))?;
    let ScalarValue::Int64(Some(mut size)) = size else { return Ok(ScalarValue::Utf8(None)) };
    let mut units = ["bytes", "kB", "MB", "GB", "TB", "PB"].into_iter().peekable();
    while let Some(unit) = units.next() {
        if size.unsigned_abs() < 10 * 1024 || units.peek().is_none() {
            return Ok(format!("{size} {unit}").into());
        }
        size = (size + 512 * size.signum()) / 1024;
    }
    Ok(ScalarValue::Utf8(None))
}

/// A function of single values that says the same all through a statement.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    answer: Answer,
}

/// Two are the same when they do the same; within a statement the name tells it.
struct Answer(Box<Given>);

/// What a function makes of its arguments.
type Given = dyn Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync;

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

impl PartialEq for Answer {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Answer {}

impl std::hash::Hash for Answer {
    fn hash<H: std::hash::Hasher>(&self, _state: &mut H) {}
}

impl Function {
    /// A function of any arguments.
    pub(crate) fn new(
        name: &'static str,
        returns: DataType,
        answer: impl Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync + 'static,
    ) -> Self {
        let signature = Signature::one_of(
            vec![datafusion::logical_expr::TypeSignature::Nullary, datafusion::logical_expr::TypeSignature::VariadicAny],
            Volatility::Stable,
        );
        Self { name, signature, returns, answer: Answer(Box::new(answer)) }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = if args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) { 1 } else { args.number_rows };
        let arrays: Vec<ArrayRef> = args.args.into_iter().map(|a| a.into_array(rows)).collect::<Result<_>>()?;
        let row = |at| -> Result<ScalarValue> {
            let values: Vec<ScalarValue> = arrays.iter().map(|a| ScalarValue::try_from_array(a, at)).collect::<Result<_>>()?;
            (self.answer.0)(&values)
        };
        if rows == 1 && args.number_rows != 1 {
            return Ok(ColumnarValue::Scalar(row(0)?));
        }
        let values: Vec<ScalarValue> = (0..rows).map(row).collect::<Result<_>>()?;
        if values.is_empty() {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns)));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}
