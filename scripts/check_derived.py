#!/usr/bin/env python3
"""Counts the rows of a derived table without the product's code.

usage: check_derived.py LAKE_DIR TABLE KEY_COLUMN...

Prints one JSON object: "rows", "keys" (distinct keys), "repeats" (rows that stand more than once with the same key and
revision: two writers), "transactions". Exit 2: the table cannot be read.
"""

import json
import pathlib
import sys
from collections import Counter

from check_lake import Damaged, read_rows, replay


def main(lake, table, key):
    folder = pathlib.Path(lake) / "tables" / table
    try:
        _, files, transactions, _ = replay(folder / "_delta_log")
        rows = read_rows(folder, files, [*key, "_rev"])
    except (Damaged, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    counts = Counter(rows)
    repeats = sum(count - 1 for count in counts.values())
    keys = len({row[:-1] for row in rows})
    print(json.dumps({"rows": len(rows), "keys": keys, "repeats": repeats, "transactions": transactions}))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
