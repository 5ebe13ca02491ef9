#!/usr/bin/env python3
"""Kafka to Delta with Bytewax: bytewax_delta.py BROKERS TOPIC FOLDER. Prints the rows written, then waits for a line."""
import json
import sys
from datetime import datetime

import bytewax.operators as op
import pyarrow as pa
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main
from deltalake import write_deltalake

BROKERS, TOPIC, FOLDER = sys.argv[1:4]
# As many rows as the product commits at a time, about.
ROWS = 50_000
TEXT = ["source", "subject_id", "transition", "pipeline", "outcome", "branch", "commit_sha", "trigger"]
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT]
    + [("duration_ms", pa.int64()), ("time", pa.timestamp("us", tz="UTC")), ("attributes", pa.map_(pa.string(), pa.string()))]
    + [("_partition", pa.int32()), ("_offset", pa.int64())]
)
written = 0


def parse(messages):
    for message in messages:
        event = json.loads(message.value)
        fields = event["fields"]
        yield {
            **{name: event.get(name) or fields.get(name) for name in TEXT},
            "duration_ms": fields["duration_ms"],
            "time": datetime.fromisoformat(event["time"]),
            "attributes": list(event["attributes"].items()),
            "_partition": message.partition,
            "_offset": message.offset,
        }


class Append(StatelessSinkPartition):
    def __init__(self):
        self.rows = []

    def write_batch(self, items):
        self.rows.extend(items)
        if len(self.rows) >= ROWS:
            self.flush()

    def flush(self):
        global written
        if self.rows:
            write_deltalake(FOLDER, pa.Table.from_pylist(self.rows, schema=SCHEMA), mode="append")
            written += len(self.rows)
            self.rows = []

    def close(self):
        self.flush()


class Delta(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Append()


flow = Dataflow("kafka_to_delta")
source = KafkaSource(brokers=[BROKERS], topics=[TOPIC], tail=False, batch_size=10_000)
messages = op.input("kafka", flow, source)
op.output("delta", op.flat_map_batch("parse", messages, parse), Delta())
cluster_main(flow, [], 0)
print(written, flush=True)
sys.stdin.readline()
