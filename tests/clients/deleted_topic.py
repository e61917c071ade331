#!/usr/bin/env python3
"""How often consumers fetch when a topic is deleted under them, or deleted and made again: librdkafka here, Kafka's own, from 2.1 on, in
Deleted.java, franz-go in its own suite. With Kafka a fetch goes on waiting for the other partitions."""

import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lib"), str(HERE / "java")]
import broker
import cases
import program
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
SALT = f"{time.time_ns():x}"
SECONDS = 5
# A fetch waits half a second; some are answered before that, while the client learns what has happened.
FETCHES = 6 * SECONDS


class Reader:
    """A consumer that counts its fetches."""

    def __init__(self, topics):
        self.fetches = 0
        settings = {
            "group.id": "unused", "auto.offset.reset": "earliest", "statistics.interval.ms": 200, "stats_cb": self.count,
            "allow.auto.create.topics": False,
        }
        self.consumer = Consumer({**BOOTSTRAP, **settings})
        self.consumer.assign([TopicPartition(topic, 0) for topic in topics])

    def count(self, stats):
        self.fetches = sum(one["req"].get("Fetch", 0) for one in json.loads(stats)["brokers"].values())

    def read(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.consumer.poll(0.05)


def reads(names, again):
    admin = AdminClient(BOOTSTRAP)
    topics = [f"{name}-{again}-{SALT}" for name in names]
    for made in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        made.result()
    reader = Reader(topics)
    reader.read(2)
    admin.delete_topics(topics[:1])[topics[0]].result()
    if again:
        admin.create_topics([NewTopic(topics[0], 1, 1)])[topics[0]].result()
    before = reader.fetches
    reader.read(SECONDS)
    found = reader.fetches - before
    reader.consumer.close()
    print(f"{names} {again}: {found} fetches")
    assert found <= FETCHES, f"{found} fetches in {SECONDS} s"


def java():
    """The command for each version of Kafka's own client: the one of the control, and those that are installed beside it."""
    classes = broker.CACHE / "java-deleted"
    program.build(classes, "Cases", "Deleted")
    install = subprocess.run([HERE / "java/clients.sh"], check=True, capture_output=True, text=True)
    others = [line.split(" ", 1) for line in install.stdout.splitlines()]
    assert len(others) == 4, others
    return [
        program.java("Deleted", heap="256m", path=f"{classes}:"),
        *(program.old_java(classes, jars, "Deleted", version) for version, jars in others),
    ]


def main():
    suite = cases.Suite("deleted-topic")
    for names in (["a", "b"], ["c"]):
        shown = "-and-".join(names)
        suite.case(f"librdkafka-deleted-{shown}", lambda: reads(names, ""))
        suite.case(f"librdkafka-made-again-{shown}", lambda: reads(names, "again"))
    # They wait, nearly all of the time.
    suite.relay(*java(), preexec_fn=broker.die_with_parent)
    suite.end()


if __name__ == "__main__":
    main()
