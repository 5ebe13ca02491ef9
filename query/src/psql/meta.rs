//! What psql's own commands show, `COPY … TO STDOUT`, and the session's setting, each by the real psql.

use super::tests::{Running, error, said, start};

async fn shows(running: &Running, command: &str, parts: &[&str]) {
    let told = said(running, &[command]).await;
    for part in parts {
        assert!(told.contains(part), "{command} shows {told:?}, not {part:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_with_a_plus_are_answered() {
    let running = start(true, 10).await;
    for (command, parts) in [
        ("\\dt+", vec!["public|pipeline_runs|table|kirolinter"]),
        ("\\d+ pipeline_runs", vec!["run_id|text", "attempt|bigint", "started_at|timestamp with time zone"]),
        ("\\du", vec!["loopback|"]),
        ("\\du+", vec!["loopback|"]),
        ("\\l+", vec!["kirolinter|kirolinter|UTF-8"]),
        ("\\dn+", vec!["public|"]),
        ("\\df", vec![]),
        ("\\df+", vec![]),
        ("\\dT", vec![]),
        ("\\dT+", vec![]),
        ("\\dv+", vec![]),
        ("\\di+", vec![]),
        ("SELECT current_user", vec!["loopback"]),
        ("SELECT session_user", vec!["loopback"]),
    ] {
        shows(&running, command, &parts).await;
    }
}

/// Whoever may log in may read each table, and nothing else: that is what PostgreSQL's letters say.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_those_of_the_role() {
    for (running, user) in [(start(true, 10).await, "loopback"), (start(false, 10).await, "reader")] {
        let row = format!("public|pipeline_runs|table|{user}=r/kirolinter||");
        for command in ["\\dp", "\\z", "\\dp pipeline_runs", "\\z pipeline*", "\\dp public.*"] {
            let told = said(&running, &[command]).await;
            assert!(told.lines().any(|line| line == row), "{command}: {told}");
        }
        assert_eq!(said(&running, &["\\dp nothing"]).await, "");
        for command in ["\\ddp", "\\ddp public"] {
            assert_eq!(said(&running, &[command]).await, "", "{command}: there are no default privileges");
        }
    }
}

/// What psql 15 knows and what there is none of here: an empty answer, or an error that says so, as PostgreSQL gives it.
#[tokio::test(flavor = "multi_thread")]
async fn other_commands_are_answered() {
    let running = start(true, 10).await;
    for (command, parts) in [
        ("\\l", vec!["kirolinter|kirolinter|UTF-8"]),
        ("\\dn", vec!["public|kirolinter"]),
        ("\\dn+", vec!["public|kirolinter"]),
        ("\\dg", vec!["loopback|"]),
        ("\\conninfo", vec!["database \"kirolinter\" as user \"reader\" on host \"127.0.0.1\""]),
        ("\\encoding", vec!["UTF8"]),
        ("\\dt public.*", vec!["public|pipeline_runs|table"]),
        ("\\di", vec![]),
        ("\\ds", vec![]),
        ("\\ds+", vec![]),
        ("\\dm", vec![]),
        ("\\dm+", vec![]),
        ("\\dE", vec![]),
        ("\\dT int*", vec![]),
        ("\\dD", vec![]),
        ("\\dy", vec![]),
        ("\\drds", vec![]),
        ("\\dc", vec![]),
        ("\\db", vec![]),
        ("\\dx", vec![]),
        ("\\dF", vec![]),
    ] {
        shows(&running, command, &parts).await;
    }
    assert!(error(&running, "SELECT 'nothing'::pg_catalog.regproc::pg_catalog.oid").await.contains("42704"));
    for (command, told) in [
        ("\\sf now", "functions are built in"),
        ("\\sf nothing", "there is no table, function or type of that name"),
        ("\\sv pipeline_runs", "is not a view"),
        ("\\sv nothing", "there is no table, function or type of that name"),
    ] {
        let error = error(&running, command).await;
        assert!(error.contains(told), "{command}: {error}");
    }
}

/// Names of tokens are for administrators.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_the_own_one_only() {
    let running = start(false, 10).await;
    assert_eq!(said(&running, &["SELECT rolname, rolsuper FROM pg_catalog.pg_roles"]).await, "reader|f");
    assert!(!said(&running, &["\\du"]).await.contains("neighbour"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_out() {
    let running = start(true, 10).await;
    for (sql, told) in [
        ("COPY (SELECT run_id, branch, NULL FROM pipeline_runs ORDER BY 1) TO STDOUT", "1\tmain\t\\N\n2\tit's\t\\N"),
        ("COPY pipeline_runs (run_id) TO STDOUT WITH (FORMAT csv, HEADER)", "run_id\n1\n2"),
        ("COPY (SELECT 1 AS a, 'x,y' AS b, NULL AS c, '' AS d, 'q\"q' AS e) TO STDOUT CSV HEADER", "a,b,c,d,e\n1,\"x,y\",,\"\",\"q\"\"q\""),
        ("COPY (SELECT E'a\\tb\\\\c\\nd', true, 1.5::double precision) TO STDOUT", "a\\tb\\\\c\\nd\tt\t1.5"),
        ("COPY (SELECT 1 AS a, 'x' AS b) TO STDOUT (FORMAT csv, DELIMITER ';', FORCE_QUOTE (b))", "1;\"x\""),
        ("COPY (SELECT NULL AS a, 'NULL' AS b) TO STDOUT (FORMAT csv, NULL 'NULL')", "NULL,\"NULL\""),
        ("COPY (SELECT 1 WHERE false) TO STDOUT", ""),
        ("\\copy (SELECT run_id FROM pipeline_runs ORDER BY 1) TO STDOUT WITH CSV", "1\n2"),
        ("COPY (SELECT 'it''s ''''' AS a) TO STDOUT", "it's ''"),
    ] {
        assert_eq!(said(&running, &[sql]).await, told, "{sql}");
    }
    let file = tempfile::tempdir().expect("a directory");
    let path = file.path().join("runs.csv");
    said(&running, &[&format!("\\copy pipeline_runs (run_id) TO '{}' CSV HEADER", path.display())]).await;
    assert_eq!(std::fs::read_to_string(path).expect("a file"), "run_id\n1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_the_limits_and_the_gate() {
    let running = start(true, 10).await;
    let many = "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 3) b";
    for (sql, state) in [
        (format!("COPY ({many}) TO STDOUT"), "54000"),
        ("COPY (SELECT 1/0) TO STDOUT".to_owned(), "22012"),
        ("COPY nothing TO STDOUT".to_owned(), "42P01"),
        ("COPY pipeline_runs (nothing) TO STDOUT".to_owned(), "42703"),
        ("COPY (DELETE FROM pipeline_runs) TO STDOUT".to_owned(), "25006"),
        ("COPY pipeline_runs TO '/tmp/kiro-hostile.csv'".to_owned(), "25006"),
        ("COPY pipeline_runs TO PROGRAM 'cat'".to_owned(), "25006"),
        ("COPY pipeline_runs FROM '/etc/passwd'".to_owned(), "25006"),
        ("COPY pipeline_runs FROM STDIN".to_owned(), "25006"),
        ("COPY (SELECT 1) TO STDOUT (FORMAT binary)".to_owned(), "0A000"),
        ("COPY (SELECT 1) TO STDOUT (DELIMITER 'x')".to_owned(), "22023"),
        ("COPY (SELECT 1) TO STDOUT (FORMAT csv, FORCE_QUOTE (b))".to_owned(), "42703"),
    ] {
        let told = error(&running, &sql).await;
        assert!(told.contains(state), "{sql}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_asks_as_of_a_time() {
    let running = start(true, 10).await;
    let count = "SELECT count(*) FROM pipeline_runs_events";
    let set = "SET kirolinter.as_of = '1970-01-01T00:00:00.000001Z'";
    let show = "SHOW kirolinter.as_of";
    let current = "SELECT current_setting('kirolinter.as_of')";
    let told = said(&running, &[count, set, show, count, current, "RESET kirolinter.as_of", show, count]).await;
    assert_eq!(told, "2\nSET\n1970-01-01T00:00:00.000001Z\n1\n1970-01-01T00:00:00.000001Z\nRESET\n\n2");
    let session = "SET SESSION kirolinter.as_of TO '1970-01-01T00:00:00.000001Z'";
    let told = said(&running, &[set, "DISCARD ALL", count, session, count]).await;
    assert_eq!(told, "SET\nDISCARD ALL\n2\nSET\n1");
    let wrong = error(&running, "SELECT 1; SET kirolinter.as_of = 'yesterday'").await;
    assert!(wrong.contains("22023") && wrong.contains("LINE 1: SELECT 1; SET kirolinter.as_of = 'yesterday'"), "{wrong}");
    let caret = wrong.lines().find(|line| line.trim_end().ends_with('^')).map(|line| line.find('^'));
    assert_eq!(caret, Some(Some("LINE 1: SELECT 1; SET kirolinter.as_of = ".len())), "{wrong}");
    for (sql, state) in [
        ("SET kirolinter.nothing = 1", "42704"),
        ("SET datafusion.execution.batch_size = 1", "42704"),
        ("SET ROLE admin", "42601"),
        ("SET LOCAL kirolinter.as_of = '2026-01-01T00:00:00Z'", "0A000"),
    ] {
        let told = error(&running, sql).await;
        assert!(told.contains(state), "{sql}: {told}");
    }
}

/// # Source
/// grafana/grafana, `postgresMetaQuery.ts` and `macros.go` of its PostgreSQL data source: what the query editor sends, and what the
/// macros of a panel become.
#[tokio::test(flavor = "multi_thread")]
async fn what_grafana_sends_is_answered() {
    let running = start(true, 10).await;
    let path = "quote_ident(table_schema) IN (\n SELECT\n CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END\n FROM\n \
                generate_series(\n array_lower(string_to_array(current_setting('search_path'),','),1),\n \
                array_upper(string_to_array(current_setting('search_path'),','),1)\n ) as i,\n \
                string_to_array(current_setting('search_path'),',') s\n )";
    let hidden = "('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache', 'timescaledb_experimental')";
    let tables = format!(
        "SELECT CASE WHEN {path} THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \
         \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN {hidden} \
         ORDER BY CASE WHEN {path} THEN 0 ELSE 1 END, 1"
    );
    let columns = |table: &str| {
        format!(
            "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns WHERE CASE WHEN \
             array_length(parse_ident('{table}'),1) = 2 THEN quote_ident(table_schema) = (parse_ident('{table}'))[1] AND \
             quote_ident(table_name) = (parse_ident('{table}'))[2] ELSE quote_ident(table_name) = '{table}' AND {path} END"
        )
    };
    let schemas = format!("SELECT schema_name AS \"name\" FROM information_schema.schemata WHERE schema_name NOT IN {hidden} ORDER BY 1");
    let of_schema = "SELECT quote_ident(table_name) AS \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) = 'public'";
    for (sql, part) in [
        (schemas.as_str(), "public"),
        (of_schema, "pipeline_runs"),
        (tables.as_str(), "pipeline_runs\n"),
        (columns("pipeline_runs").as_str(), "started_at|timestamp with time zone"),
        (columns("public.pipeline_runs").as_str(), "started_at|timestamp with time zone"),
        ("SELECT extract(epoch from recorded_at) as \"time\", run_id FROM pipeline_runs ORDER BY 1", "1"),
        (
            "SELECT floor(extract(epoch from recorded_at)/0.5)*0.5 AS \"time\", count(*) FROM pipeline_runs WHERE recorded_at BETWEEN \
             '1970-01-01T00:00:00Z' AND '1970-01-01T00:00:00.5Z' GROUP BY 1 ORDER BY 1",
            "0|2",
        ),
        ("SELECT floor((attempt)/300)*300 AS \"time\", count(*) FROM pipeline_runs WHERE attempt >= -1 AND attempt <= 5 GROUP BY 1", "0|2"),
        ("SELECT '1970-01-01T00:00:00Z', run_id FROM pipeline_runs WHERE attempt >= -1000000000 AND attempt <= 5000000000", "1"),
        ("SELECT 1", "1"),
    ] {
        let told = said(&running, &[sql]).await;
        assert!(told.contains(part), "{sql} says {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floats_are_spelled_as_postgresql_does() {
    let running = start(true, 10).await;
    let values = ["'Infinity'", "'-Infinity'", "'NaN'", "(-1 * 0.0)", "1e15", "123456789012345.0", "1.5e-7", "0.0001", "100000.0", "1e300"];
    let columns: Vec<String> = values.iter().enumerate().map(|(at, value)| format!("{value}::double precision AS c{at}")).collect();
    let told = said(&running, &[&format!("SELECT {}", columns.join(", "))]).await;
    assert_eq!(told, "Infinity|-Infinity|NaN|-0|1e+15|123456789012345|1.5e-07|0.0001|100000|1e+300");
}
