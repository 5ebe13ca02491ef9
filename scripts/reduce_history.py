#!/usr/bin/env python3
"""Reduces CI histories of public data sets to the facts that the demo uses: reduce_history.py FOLDER [OUT]

FOLDER holds dl-cibuild/dataset/*.csv and gha-pulumi/runs.csv as deploy/demo/SOURCES.md names them; OUT is deploy/demo/history.
Times become RFC 3339 in UTC, rows are sorted by them, names of people are left out. The same input gives the same bytes.
"""
import csv
import gzip
import io
import sys
from datetime import datetime
from pathlib import Path

PROJECTS = ["graylog2-server", "ruby", "sonarqube"]
NUMBERS = """git_prev_commit_resolution_status gh_team_size gh_num_commit_comments git_diff_src_churn git_diff_test_churn
gh_diff_files_added gh_diff_files_deleted gh_diff_files_modified gh_diff_tests_added gh_diff_tests_deleted gh_diff_src_files
gh_diff_doc_files gh_diff_other_files gh_sloc gh_test_lines_per_kloc gh_test_cases_per_kloc gh_asserts_cases_per_kloc""".split()
TRAVIS = ["tr_build_id", "gh_build_started_at", "build_Failed", "gh_is_pr", *NUMBERS]
# The runs of pulumi end here but for one week half a year later, which is left out.
GAP = "2025-07-01"
ACTIONS = ["run_id", "run_attempt", "workflow", "conclusion", "created_at", "run_started_at", "updated_at"]


def utc(text):
    """A time of the data sets (UTC without saying so) as RFC 3339; hours may lack their leading zero."""
    text = text.strip().removesuffix("Z").replace("T", " ")
    form = "%Y-%m-%d %H:%M:%S" if text.count(":") == 2 else "%Y-%m-%d %H:%M"
    return datetime.strptime(text, form).strftime("%Y-%m-%dT%H:%M:%SZ")


def reduce(source, target, columns, times, until="9999"):
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in times:
            row[name] = utc(row[name])
    rows = [row for row in rows if row[times[-1]] < until]
    rows.sort(key=lambda row: (row[times[-1]], int(row[columns[0]])))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    target.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    print(f"{target}: {len(rows)} rows, {target.stat().st_size} bytes")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent.parent / "deploy/demo/history"
    out.mkdir(parents=True, exist_ok=True)
    for project in PROJECTS:
        reduce(folder / f"dl-cibuild/dataset/{project}.csv", out / f"{project}.csv.gz", TRAVIS, ["gh_build_started_at"])
    reduce(folder / "gha-pulumi/runs.csv", out / "pulumi.csv.gz", ACTIONS, ["created_at", "run_started_at", "updated_at"], GAP)


main()
