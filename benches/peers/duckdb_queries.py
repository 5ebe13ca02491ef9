#!/usr/bin/env python3
"""DuckDB on the files of a Delta table: duckdb_queries.py TABLE QUERIES.sql TIMES. A line of JSON: the table, then each question."""
import json
import statistics
import sys
import time
from pathlib import Path

import duckdb
from deltalake import DeltaTable

table, queries, times = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8"), int(sys.argv[3])
files = sorted(DeltaTable(str(table)).file_uris())
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
connection.execute(
    f"create view pipeline_runs as select * from read_parquet([{listed}]) "
    "qualify row_number() over (partition by tenant, source, run_id, attempt order by _rev desc) = 1"
)
print(json.dumps({"files": len(files), "runs": connection.execute("select count(*) from pipeline_runs").fetchone()[0]}))
for part in queries.split(";"):
    if not part.strip():
        continue
    took = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        rows = connection.execute(part).fetchall()
        took.append(time.perf_counter() - begin)
    print(json.dumps({"rows": len(rows), "seconds": statistics.median(took[1:])}))
