#!/usr/bin/env python3
"""Kafka's own tools against the broker at BOOTSTRAP: those of its operators inside one JVM (Admin.java), and VerifiableProducer with
two VerifiableConsumers of a group, one of which is killed."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases
import program

BOOTSTRAP = os.environ["BOOTSTRAP"]
CLASSES = broker.CACHE / "java-admin"
SALT = f"{time.time_ns():x}"
PARTITIONS = 3
RECORDS = 2000
SESSION = 6


def java(*arguments, path=""):
    return program.java(*arguments, heap="256m", path=path)


class Verifiable(program.Program):
    """VerifiableProducer or VerifiableConsumer: each line that it prints is an event in JSON."""

    def __init__(self, kind, name, *arguments):
        self.events = []
        self.lock = threading.Lock()
        command = java(f"org.apache.kafka.tools.Verifiable{kind}", "--bootstrap-server", BOOTSTRAP, *arguments)
        super().__init__(f"admin-{name}", command, self.heard)

    def heard(self, line):
        if line.startswith("{"):
            with self.lock:
                self.events.append(json.loads(line))

    def named(self, name):
        with self.lock:
            return [event for event in self.events if event["name"] == name]


def wait(what, condition, limit=60):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {limit} s"
        time.sleep(0.05)


def owned(consumer):
    """What a consumer has, by what it has been given and has given back."""
    partitions = set()
    with consumer.lock:
        for event in consumer.events:
            if event["name"] == "partitions_assigned":
                partitions |= {p["partition"] for p in event["partitions"]}
            elif event["name"] == "partitions_revoked":
                partitions -= {p["partition"] for p in event["partitions"]}
    return partitions


def verifiable_tools():
    """Two consumers read what a producer writes; one is killed, and the other goes on from what was committed."""
    topic, group = f"verifiable-{SALT}", f"verifiable-{SALT}"
    subprocess.run(
        java("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", topic, "--partitions", str(PARTITIONS)),
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    reading = ["--topic", topic, "--group-id", group, "--session-timeout", str(SESSION * 1000), "--reset-policy", "earliest"]
    consumers = [Verifiable("Consumer", f"consumer-{name}", *reading) for name in "ab"]
    programs = list(consumers)
    try:
        wait("both have partitions", lambda: all(owned(c) for c in consumers))
        assert sorted([*owned(consumers[0]), *owned(consumers[1])]) == list(range(PARTITIONS)), [owned(c) for c in consumers]
        # without keys all of it might go to one partition
        keys = ["--repeating-keys", "30", "--acks", "-1"]
        producer = Verifiable("Producer", "producer", "--topic", topic, "--max-messages", str(RECORDS), "--throughput", "500", *keys)
        programs.append(producer)
        wait("both have read", lambda: all(c.named("records_consumed") for c in consumers))
        killed, left = consumers
        killed.end(9)
        wait("the other has all partitions", lambda: owned(left) == set(range(PARTITIONS)), SESSION + 20)
        wait("the producer is done", lambda: producer.named("tool_data"), 60)
        assert producer.process.wait(30) == 0
        said = producer.named("tool_data")[0]
        assert (said["sent"], said["acked"]) == (RECORDS, RECORDS), said
        assert not producer.named("producer_send_error"), producer.named("producer_send_error")[:3]
        written = collections.Counter(e["partition"] for e in producer.named("producer_send_success"))
        wait("all is read", lambda: read_of(consumers) == written)
        again = overlap(consumers)
        assert not again, f"committed by one and read by the other again: {again}"
        failed = [e for c in consumers for e in c.named("offsets_committed") if not e["success"]]
        assert not failed, failed
        assert left.end(15) in (0, 143)
    finally:
        for one in programs:
            if one.process.poll() is None:
                one.end(9)


def read_of(consumers):
    """How many offsets of each partition anybody has read."""
    offsets = collections.defaultdict(set)
    for event in (e for c in consumers for e in c.named("records_consumed")):
        for part in event["partitions"]:
            offsets[part["partition"]] |= set(range(part["minOffset"], part["maxOffset"] + 1))
    return {partition: len(seen) for partition, seen in offsets.items()}


def overlap(consumers):
    """What was read below an offset that the one who was killed had committed, by the other who came after."""
    killed, left = consumers
    committed = collections.Counter()
    for event in killed.named("offsets_committed"):
        for part in event["offsets"]:
            committed[part["partition"]] = max(committed[part["partition"]], part["offset"])
    first = {}
    for event in left.named("records_consumed"):
        for part in event["partitions"]:
            first.setdefault(part["partition"], part["minOffset"])
    return {p: (first[p], offset) for p, offset in committed.items() if p in first and first[p] < offset}


def main():
    suite = cases.Suite("java-admin")
    program.build(CLASSES, "Admin", "Cases", "Data", "Tool")
    tools = [name for name in suite.chosen if name != "verifiable-producer-and-consumers"]
    if tools or not suite.chosen:
        suite.relay(java("Admin", SALT, *tools, path=f"{CLASSES}:"), preexec_fn=broker.die_with_parent)
    suite.case("verifiable-producer-and-consumers", verifiable_tools, 120)
    suite.end()


if __name__ == "__main__":
    main()
