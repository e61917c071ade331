#!/usr/bin/env python3
"""One member of the consumer group that keeps the index: indexer.py BROKER INDEX

The index is a table of lines. Where a line stands (file and position) is its key, so that a line that is read again changes nothing;
what was written is committed to the index first and to the broker afterwards, so that none is left out.
"""

import json
import signal
import sqlite3
import sys

from confluent_kafka import Consumer, KafkaException

SCHEMA = """
create table if not exists lines(
    file text, position integer, level text, line text,
    partition integer, at integer,           -- where it stands in the topic
    primary key (file, position)
) without rowid;
create index if not exists by_level on lines(level, file, position);
create table if not exists repeated(n integer);  -- how often a line came again
"""


def level(line):
    return next((word for word in ("ERROR", "WARN", "INFO", "DEBUG") if f" {word} " in line), "OTHER")


def store(index, messages):
    """In one transaction; returns how many were new."""
    rows = []
    for m in messages:
        read = json.loads(m.value())
        rows.append((read["file"], int(read["offset"]), level(read["line"]), read["line"], m.partition(), m.offset()))
    with index:
        before = index.total_changes
        index.executemany("insert or ignore into lines values (?, ?, ?, ?, ?, ?)", rows)
        new = index.total_changes - before
        if new < len(rows):
            index.execute("insert into repeated values (?)", (len(rows) - new,))
    return new


def main():
    broker, path = sys.argv[1:]
    index = sqlite3.connect(path, timeout=30)
    index.execute("pragma journal_mode = wal")
    index.executescript(SCHEMA)
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "index",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "partition.assignment.strategy": "cooperative-sticky",
            "log_level": 1,
        }
    )
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    consumer.subscribe(["logs"])
    while running:
        messages = [m for m in consumer.consume(500, 0.2) if not m.error()]
        if not messages:
            continue
        store(index, messages)
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # The broker is away, or the partitions have moved: these lines are read again, and known by then.
            print(f"not committed: {error}", file=sys.stderr)
    consumer.close()


if __name__ == "__main__":
    main()
