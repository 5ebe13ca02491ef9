#!/usr/bin/env python3
"""Moves histories by whole weeks so that they end now: shift_history.py FOLDER OUT

Reads FOLDER/*.csv.gz, writes OUT/*.csv and OUT/shift.json. Each file has its own shift: as many whole weeks as keep everything
in it at least an hour in the past. Hours of the day and weekdays stay true. Times are the cells that read 2026-01-31T09:40:00Z.
"""
import csv
import gzip
import json
import re
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

FORM = "%Y-%m-%dT%H:%M:%SZ"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
WEEK = timedelta(weeks=1)


def read(text):
    return datetime.strptime(text, FORM).replace(tzinfo=timezone.utc)


def shift(source, target, until):
    with gzip.open(source, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    newest = max(cell for row in rows for cell in row if TIME.fullmatch(cell))
    by = (until - read(newest)) // WEEK * WEEK
    move = lambda cell: (read(cell) + by).strftime(FORM) if TIME.fullmatch(cell) else cell
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([move(cell) for cell in row] for row in rows)
    return {"file": source.name, "rows": len(rows) - 1, "days": by.days, "newest_was": newest, "newest_is": move(newest)}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    shifts = []
    for source in sorted(folder.glob("*.csv.gz")):
        done = shift(source, out / source.name.removesuffix(".gz"), now - timedelta(hours=1))
        shifts.append(done)
        print(f"  {done['file']:24} {done['rows']:>6} runs, moved by {done['days'] // 7} weeks: ended {done['newest_was'][:10]}, now ends {done['newest_is'][:10]}")
    if not shifts:
        sys.exit(f"no *.csv.gz in {folder}")
    (out / "shift.json").write_text(json.dumps({"shifted_at": now.strftime(FORM), "files": shifts}, indent=2) + "\n")


main()
