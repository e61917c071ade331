#!/usr/bin/env python3
"""What the memory there is makes of a `sabir serve` with the settings that it has by itself: who reads what was just written waits for no
disk; in a control group it takes and gives much more than goes into that. The latter needs root.

    tests/limits/tail_cache.py [CASE...]
"""

import contextlib
import gzip
import pathlib
import shutil
import struct
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import control_group
import wire

MIB = 1 << 20
TOPIC = "t"
PARTITIONS = 4
RECORDS = 300
BATCH = wire.batch([b"x" * 1000] * RECORDS)


class Node:
    """A broker with the settings that it has by itself; in a control group, if one is given."""

    def __init__(self, name, group=None):
        self.folder = brokers.scratch(name)
        self.broker = brokers.Sabir(self.folder / "data", name)
        if group:
            command = self.broker.command
            self.broker.command = lambda: group.command(command())

    def __enter__(self):
        self.broker.start()
        with self.client() as client:
            client.create([(TOPIC, PARTITIONS, {})])
        return self

    def __exit__(self, kind, *_error):
        alive, code = self.broker.alive(), self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert kind or (alive and code == 0), f"the broker ended with {code}: {self.broker.log_end()}"

    def client(self, source=None):
        return wire.Connection(self.broker.bootstrap, timeout=90, source=source)

    def metric(self, name):
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert found, f"there is no metric {name}"
        return sum(float(value) for _name, value in found)

    def write(self, total):
        """So many bytes, by a client a partition at once; how many batches each has."""
        each = total // len(BATCH) // PARTITIONS
        at_once(lambda partition, client: [client.put(TOPIC, partition, BATCH) for _ in range(each)], self)
        return each

    def read(self, batches):
        """All of it, by a client a partition at once that asks as Java's consumer and librdkafka do by default; every byte is looked at."""
        at_once(lambda partition, client: read_partition(client, partition, batches), self)


def at_once(work, node):
    """`work` with each partition and a connection for it."""
    failed = []

    def run(partition):
        try:
            with node.client() as client:
                work(partition, client)
        except Exception as error:
            failed.append(f"partition {partition}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


# A consumer's defaults: `fetch.max.wait.ms`, `fetch.min.bytes`, `fetch.max.bytes`, `max.partition.fetch.bytes` (librdkafka has other names
# for them).
DEFAULTS = struct.pack(">iiiib", -1, 500, 1, 50 * MIB, 0)
OF_PARTITION = MIB


def read_partition(client, partition, batches):
    """Whole batches come in their order, each as it was sent but for its offset and epoch."""
    read = 0
    while read < batches:
        wanted = struct.pack(">iqi", partition, read * RECORDS, OF_PARTITION)
        answer = client.call(wire.FETCH, 4, DEFAULTS + wire.array([wire.string(TOPIC) + wire.array([wanted])]))
        found = records(answer)
        whole = len(found) // len(BATCH)
        assert whole, f"nothing at {read * RECORDS}"
        for at in range(0, whole * len(BATCH), len(BATCH)):
            one = found[at : at + len(BATCH)]
            assert struct.unpack_from(">q", one) == (read * RECORDS,), f"another offset than {read * RECORDS}"
            assert one[16:] == BATCH[16:], f"another batch at {read * RECORDS}"
            read += 1


def records(answer):
    """The records of a Fetch 4 of one partition."""
    at = 4 + 4 + 2 + len(TOPIC) + 4
    _partition, error, _end, _stable, aborted = struct.unpack_from(">ihqqi", answer, at)
    assert error == 0, f"Fetch answers error {error}"
    at += 26 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, at)
    return answer[at + 4 : at + 4 + max(size, 0)]


def just_written():
    """Some 600 MB, or three quarters of the cache of a machine with less memory, which is a quarter of that."""
    memory = control_group.memory()
    if control_group.machine("MemAvailable") < memory // 4:
        raise cases.Skip("memory is short: the cache may give way")
    with Node("just-written") as node:
        limit = node.metric("sabir_tail_cache_limit_bytes")
        batches = node.write(min(600 * 10**6, memory // 4 * 3 // 4))
        written = batches * PARTITIONS * len(BATCH)
        node.read(batches)
        figures = {name: node.metric(f"sabir_{name}") for name in ("read_memory_bytes_total", "read_disk_bytes_total", "disk_reads_total")}
        print(f"      {written / MIB:.0f} MiB under a cache of {limit / MIB:.0f}: {figures}", flush=True)
        assert figures["read_disk_bytes_total"] == figures["disk_reads_total"] == 0, figures
        assert figures["read_memory_bytes_total"] >= written, figures


def control_group_of_128_mib():
    """Its memory is seen, and it takes and gives more than twice that while the kernel ends nothing in it."""
    with control_group.of(128 * MIB) as group, Node("control-group", group) as node:
        limit = node.metric("sabir_tail_cache_limit_bytes")
        assert limit <= 32 * MIB, f"the cache may take {limit / MIB:.0f} MiB"
        try:
            batches = node.write(320 * 10**6)
            node.read(batches)
        finally:
            assert group.killed() == 0, f"the kernel has killed {group.killed()} processes: {group.figures()}"
        read = node.metric("sabir_read_memory_bytes_total") + node.metric("sabir_read_disk_bytes_total")
        assert read >= batches * PARTITIONS * len(BATCH), read
        print(f"      a cache of {limit / MIB:.0f} MiB; {group.figures()}", flush=True)


LEVEL = "zstd-22"
ZEROS = 100 * MIB
NAMED = 400_000


def of_zeros():
    """A batch of one record of so many zeros, in 100 KB."""
    body = b"\0" + wire.varint(0) + wire.varint(0) + wire.varint(-1) + wire.varint(ZEROS) + bytes(ZEROS) + wire.varint(0)
    return wire.batch_around(gzip.compress(wire.varint(len(body)) + body), 1, 1)


def more_than_it_seems():
    """Beside a full cache a small batch that comes to much, and a request of very many batches, take no more than the group has."""
    with control_group.of(256 * MIB) as group, Node("seems", group) as node:
        try:
            node.write(100 * MIB)
            with node.client() as client:
                client.create([(LEVEL, 1, {"max.message.bytes": str(50 * MIB), "compression.type": "zstd", "compression.zstd.level": "22"})])
                client.put(LEVEL, 0, of_zeros())
            one = wire.batch([b""])
            named = b"".join(struct.pack(">i", at % PARTITIONS) + wire.blob(one) for at in range(NAMED))
            head = struct.pack(">hhii", -1, -1, 30_000, 1)
            with node.client() as client:
                try:
                    client.call(wire.PRODUCE, 7, head + wire.string(TOPIC) + struct.pack(">i", NAMED) + named)
                except OSError:
                    print("      closed", flush=True)
            with node.client() as client:
                client.put(TOPIC, 0, BATCH)
        finally:
            assert group.killed() == 0, f"the kernel has killed {group.killed()} processes: {group.figures()}"
        print(f"      {group.figures()}", flush=True)


ADDRESSES = 8
# A batch of a few KiB that comes to as many MiB, and how many of it are in a request: it takes a processor for many seconds.
INFLATED = 8 * MIB
BATCHES = 1000
LASTS = 15
# A client beside them waited until their requests were late, which is after 30 s.
BESIDE = 10


def beside_long_requests():
    """While clients of several addresses have the workers busy, and hold the memory for frames, a client that brings a large batch has its turn."""
    record = b"\0" + wire.varint(0) + wire.varint(0) + wire.varint(-1) + wire.varint(INFLATED) + bytes(INFLATED) + wire.varint(0)
    bomb = wire.batch_around(gzip.compress(wire.varint(len(record)) + record), 1, 1)
    named = b"".join(struct.pack(">i", at % PARTITIONS) + wire.blob(bomb) for at in range(BATCHES))
    request = struct.pack(">hhii", -1, -1, 30_000, 1) + wire.string("bombs") + struct.pack(">i", BATCHES) + named
    until = time.monotonic() + LASTS

    def attack(node, number):
        with contextlib.suppress(OSError), node.client(f"127.0.1.{number + 1}") as client:
            while time.monotonic() < until:
                client.call(wire.PRODUCE, 7, request)

    with control_group.of(256 * MIB) as group, Node("long-requests", group) as node:
        try:
            with node.client() as client:
                client.create([("bombs", PARTITIONS, {"max.message.bytes": str(50 * MIB)}), ("beside", 1, {"compression.type": "zstd"})])
            attacks = [threading.Thread(target=attack, args=(node, number)) for number in range(ADDRESSES)]
            for thread in attacks:
                thread.start()
            time.sleep(2)
            longest, count = 0, 0
            with node.client("127.0.2.1") as client:
                while time.monotonic() < until:
                    began = time.monotonic()
                    client.put("beside", 0, BATCH)
                    longest, count = max(longest, time.monotonic() - began), count + 1
            for thread in attacks:
                thread.join()
        finally:
            assert group.killed() == 0, f"the kernel has killed {group.killed()} processes: {group.figures()}"
        print(f"      {count} batches beside them, the longest {longest * 1000:.0f} ms; {group.figures()}", flush=True)
        assert longest < BESIDE, f"a batch waited {longest:.1f} s"


def main():
    suite = cases.Suite("tail-cache")
    suite.case("just-written-records-come-from-memory", just_written, limit=120)
    suite.case("a-control-group-of-128-mib", control_group_of_128_mib, limit=120)
    suite.case("requests-that-come-to-more-than-they-seem", more_than_it_seems, limit=120)
    suite.case("a-large-batch-beside-long-requests", beside_long_requests, limit=120)
    suite.end()


if __name__ == "__main__":
    main()
