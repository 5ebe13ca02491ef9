#!/usr/bin/env python3
"""Recounts a lake without the product's code: replays the Delta logs by hand and reads the Parquet files with pyarrow.

usage: check_lake.py LAKE_DIR [--dense]

For each events table it prints the rows, the distinct (topic, partition, offset) and the transaction of each application.
A row of the log may give several events, also in one table; a repeat is a row whose place in the log and event id both
stand twice. Exit 1: a repeat, a row at or beyond its transaction, a damaged log; with --dense also an offset below all
transactions of its partition that is in no events table and no dead letter. Exit 2: nothing to check.
"""

import json
import pathlib
import re
import sys
import urllib.parse
from collections import Counter, defaultdict

import pyarrow.parquet as pq

PLACE = ["_topic", "_partition", "_offset"]


class Damaged(Exception):
    pass


def replay(log):
    """The live files and transactions of the newest version."""
    commits = sorted(p for p in log.iterdir() if re.fullmatch(r"\d{20}\.json", p.name))
    checkpoints = sorted(p for p in log.iterdir() if re.fullmatch(r"\d{20}\.checkpoint\.parquet", p.name))
    files, transactions, columns, version = {}, {}, [], -1

    def apply(action):
        nonlocal columns
        if action.get("add"):
            files[action["add"]["path"]] = True
        if action.get("remove"):
            files.pop(action["remove"]["path"], None)
        if action.get("txn"):
            transactions[action["txn"]["appId"]] = action["txn"]["version"]
        if action.get("metaData"):
            columns = [f["name"] for f in json.loads(action["metaData"]["schemaString"])["fields"]]

    if checkpoints:
        version = int(checkpoints[-1].name[:20])
        for action in pq.read_table(checkpoints[-1]).to_pylist():
            if not action.get("remove"):
                apply(action)
    for path in commits:
        number = int(path.name[:20])
        if number <= version:
            continue
        if number != version + 1:
            raise Damaged(f"{log}: version {version + 1} is missing")
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        if not lines:
            raise Damaged(f"{path} is empty")
        try:
            for line in lines:
                apply(json.loads(line))
        except ValueError as error:
            raise Damaged(f"{path}: {error}") from error
        version = number
    return version, list(files), transactions, columns


def read_rows(folder, files, wanted):
    rows = []
    for name in files:
        path = folder / urllib.parse.unquote(name)
        if not path.exists():
            raise Damaged(f"{path} is in the log and not on the disk")
        table = pq.ParquetFile(path).read(columns=wanted)
        rows.extend(zip(*(table.column(c).to_pylist() for c in wanted)))
    return rows


def bounds(transactions):
    """{(topic, partition): next} from application ids that end in /topic/partition."""
    found = {}
    for app, next_offset in transactions.items():
        parts = app.split("/")
        if len(parts) >= 2 and parts[-1].isdigit():
            at = (parts[-2], int(parts[-1]))
            found[at] = min(found.get(at, next_offset), next_offset)
    return found


def check_table(folder, problems):
    """(offsets by partition, next by partition), or None when the rows of the table have no place in the log."""
    version, files, transactions, columns = replay(folder / "_delta_log")
    if not set(PLACE) <= set(columns):
        return None
    wanted = PLACE + [c for c in ("event_id",) if c in columns]
    rows = read_rows(folder, files, wanted)
    places = {row[:3] for row in rows}
    print(f"{folder.name}: version {version}, {len(files)} files, rows {len(rows)}, distinct (topic, partition, offset) {len(places)}")
    for app, next_offset in sorted(transactions.items()):
        print(f"  txn {app} = {next_offset}")
    repeats = [row for row, count in Counter(rows).items() if count > 1]
    if repeats:
        problems.append(f"{folder.name}: {len(repeats)} rows stand more than once, such as {repeats[0]}")
    limits = bounds(transactions)
    beyond = [row for row in places if row[2] >= limits.get(row[:2], 0)]
    if beyond:
        problems.append(f"{folder.name}: {len(beyond)} rows at or beyond their transaction, such as {beyond[0]}")
    offsets = defaultdict(set)
    for topic, partition, offset in places:
        offsets[(topic, partition)].add(offset)
    return offsets, limits


def check_dense(offsets, limits, problems):
    for at, nexts in sorted(limits.items()):
        end = min(nexts)
        missing = [o for o in range(end) if o not in offsets[at]]
        print(f"{at[0]}/{at[1]}: {end - len(missing)} of {end} offsets below the least transaction")
        if missing:
            problems.append(f"{at[0]}/{at[1]}: {len(missing)} offsets are nowhere, such as {missing[0]}")


def main(arguments):
    folders = [a for a in arguments if not a.startswith("--")]
    if len(folders) != 1 or set(arguments) - set(folders) - {"--dense"}:
        print(__doc__, file=sys.stderr)
        return 2
    problems, checked = [], 0
    offsets, limits = defaultdict(set), defaultdict(list)
    for log in sorted(pathlib.Path(folders[0]).glob("tables/*/_delta_log")):
        try:
            found = check_table(log.parent, problems)
        except Damaged as damage:
            problems.append(str(damage))
            checked += 1
            continue
        if found is None:
            continue
        checked += 1
        for at, places in found[0].items():
            offsets[at] |= places
        for at, next_offset in found[1].items():
            limits[at].append(next_offset)
    if "--dense" in arguments:
        check_dense(offsets, limits, problems)
    for problem in problems:
        print(f"PROBLEM {problem}")
    if not checked:
        print("no events table found", file=sys.stderr)
        return 2
    print("ok" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
