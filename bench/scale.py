#!/usr/bin/env python3
"""What much of everything costs: partitions, connections, groups, cold data; and how long one message takes when there is little of it.

    bench/scale.py [--binary target/release/sabir] [--rounds N] [--data DIR] [FIGURE...]

FIGURE: partitions, topics, connections, groups, cold, slow-reader, latency; all, if none is named. Each is printed with what it is to be at
most (or at least), and the program ends with 1 if one is missed. `cold` and `slow-reader` write --gib (10) GiB into DIR, and delete them.
"""

import argparse
import collections
import contextlib
import itertools
import json
import mmap
import os
import pathlib
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/lib"))
import broker as brokers
import groups
import wire

MIB, GIB = 1 << 20, 1 << 30
# Topics that one request creates: its answer takes memory, too.
AT_ONCE = 1000
# Seconds after which the allocator has given back what requests took.
SETTLES = 15


class Bench:
    def __init__(self, asked):
        self.asked = asked
        self.missed = 0
        self.binary = str(pathlib.Path(asked.binary).resolve())
        self.root = pathlib.Path(asked.data) if asked.data else brokers.scratch("scale")

    @contextlib.contextmanager
    def node(self, *settings):
        """A broker on an empty folder, running."""
        folder = self.root / "data"
        shutil.rmtree(folder, ignore_errors=True)
        node = brokers.Sabir(folder, "scale", settings=settings)
        node.binary = self.binary
        try:
            node.start()
            yield node
        finally:
            if node.alive():
                node.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def shows(self, what, values, unit, most=None, least=None):
        """Prints the median of the values and the spread, and whether it is as it shall be."""
        middle = statistics.median(values)
        reached = (most is None or middle <= most) and (least is None or middle >= least)
        self.missed += not reached
        bound = f"at most {most:g}" if most is not None else f"at least {least:g}" if least is not None else "no bound"
        said = "" if most is least is None else ": reached" if reached else ": NOT REACHED"
        print(f"{what}: {middle:.3g} {unit} [{min(values):.3g}–{max(values):.3g}] ({bound}{said})", flush=True)

    def tool(self, node, load, *options):
        command = [self.binary, "bench", load, "--address", node.bootstrap, "--quiet", "-o", "json", *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
        return json.loads(done.stdout)

    def partitions(self):
        for topics, each in ((100, 1000), (1000, 100)):
            self.many(topics, each, most_mib=300)

    def topics(self):
        self.many(100_000, 1, most_mib=120)

    def many(self, topics, each, most_mib):
        created, made, again, ready = [], [], [], []
        last = f"topic-{topics - 1}"
        for _ in range(self.asked.rounds):
            with self.node() as node:
                connection = wire.Connection(node.bootstrap, timeout=120)
                began = time.monotonic()
                for first in range(0, topics, AT_ONCE):
                    some = range(first, min(first + AT_ONCE, topics))
                    connection.create([(f"topic-{n}", each, {}) for n in some])
                created.append(time.monotonic() - began)
                time.sleep(SETTLES)
                made.append(resident(node) / MIB)
                connection.put(last, each - 1, wire.batch([b"x"]))
                connection.close()
                node.kill()
                ready.append(node.start())
                again.append(resident(node) / MIB)
                connection = wire.Connection(node.bootstrap, timeout=120)
                assert connection.put(last, each - 1, wire.batch([b"x"])) == 1
                found = count_partitions(connection)
                assert found == topics * each, f"{found} partitions after the start"
                connection.close()
        name = f"{topics * each:,} partitions ({topics:,} topics of {each:,})"
        self.shows(f"{name}, created {AT_ONCE:,} topics a request", created, "s", most=10)
        self.shows(f"{name}, resident when made", made, "MiB", most=most_mib)
        self.shows(f"{name}, ready after kill -9", ready, "s", most=3)
        self.shows(f"{name}, resident after that", again, "MiB", most=most_mib)

    def connections(self):
        count = 10_000
        idle, asked = [], []
        for _ in range(self.asked.rounds):
            with self.node() as node:
                taken = []
                for _ in range(count):
                    taken.append(wire.Connection(node.bootstrap))
                taken[-1].call(wire.API_VERSIONS, 0, b"")
                idle.append(resident(node) / MIB)
                for one in taken:
                    one.call(wire.API_VERSIONS, 0, b"")
                asked.append(resident(node) / MIB)
                for one in taken:
                    one.close()
        self.shows(f"{count:,} connections that said nothing, resident", idle, "MiB", most=200)
        self.shows(f"{count:,} idle connections after a request each, resident", asked, "MiB", most=200)

    def groups(self):
        count = 1000
        formed, settled = [], []
        for _ in range(self.asked.rounds):
            with self.node() as node:
                first, again = groups.run(node.bootstrap, count)
                formed.append(first)
                settled.append(again)
        self.shows(f"{count:,} groups of two, from nothing (they wait 3 s for company)", formed, "s")
        self.shows(f"{count:,} groups of two, one leaves and one comes in each, heartbeats every 3 s", settled, "s", most=5)

    def fill(self, node, topic, gib):
        count = int(gib * GIB / (16 << 10))
        self.tool(node, "produce", "--topic", topic, "--partitions", 6, "--count", count, "--size", "16KiB", "--batch", "256KiB")
        return count

    def cold(self):
        with self.node("topic.retention=unlimited") as node:
            count = self.fill(node, "cold", self.asked.gib)
            rates, cpu, disk = [], [], []
            for _ in range(self.asked.rounds):
                # what was written last is in memory no longer
                node.stop()
                disk.append(disk_rate(node.data))
                node.start()
                before = cpu_seconds(node)
                began = time.monotonic()
                found = self.tool(node, "consume", "--topic", "cold", "--count", count, "--clients", self.asked.readers)
                rates.append(found["bytes"] / (time.monotonic() - began) / 1e9)
                cpu.append((cpu_seconds(node) - before) / (found["bytes"] / 1e9))
            self.shows(f"{self.asked.gib:g} GiB read cold", rates, "GB/s", least=1)
            self.shows("broker's CPU for that", cpu, "s a GB")
            self.shows("the disk itself", disk, "GB/s")

    def slow_reader(self):
        with self.node("topic.retention=unlimited") as node:
            self.fill(node, "cold", min(self.asked.gib, 4))
            alone, beside = [], []
            for number in range(2 * max(self.asked.rounds, 3)):
                with reading_slowly(node, "cold") if number % 2 else contextlib.nullcontext():
                    (beside if number % 2 else alone).append(self.tail(node))
            self.shows("a tail reader's p99 alone", alone, "ms")
            self.shows("beside a slow reader of cold data", beside, "ms")
            costs = (statistics.median(beside) / statistics.median(alone) - 1) * 100
            self.shows("what that costs its p99", [costs], "%", most=20)

    def tail(self, node):
        found = self.tool(node, "e2e", "--topic", "tail", "--rate", 1000, "--duration", f"{self.asked.seconds}s", "--warmup", "1s")
        return found["latency_ms"]["p99"]

    def latency(self):
        with self.node() as node:
            self.shows("end to end at 1,000 messages/s, sync: p99", [self.tail(node) for _ in range(self.asked.rounds)], "ms", most=2)


def resident(node):
    return int(pathlib.Path(f"/proc/{node.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disk_rate(folder, least=2 * GIB):
    """GB/s of the disk itself, from a journal that no broker has open: 1 MiB at a time, two reads at once, past the page cache, into
    memory that no processor's cache holds."""
    files = sorted(pathlib.Path(folder).glob("shard-*/journal/segment*"), key=os.path.getsize)[-(least >> 26) :]
    places = collections.deque((path, at) for path in files for at in range(0, os.path.getsize(path), MIB))
    total = len(places) * MIB
    opened = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in files}

    def read():
        memory = mmap.mmap(-1, 64 * MIB)
        into = itertools.cycle([memoryview(memory)[at : at + MIB] for at in range(0, len(memory), MIB)])
        with contextlib.suppress(IndexError):
            while True:
                path, at = places.popleft()
                os.preadv(opened[path], [next(into)], at)

    readers = [threading.Thread(target=read) for _ in range(2)]
    began = time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    taken = time.monotonic() - began
    for one in opened.values():
        os.close(one)
    return total / taken / 1e9


def cpu_seconds(node):
    fields = pathlib.Path(f"/proc/{node.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_partitions(connection):
    """Of all topics but the broker's own, by Metadata 1: each partition says its error, number, leader, replicas and those in sync."""
    answer = connection.call(wire.METADATA, 1, struct.pack(">i", -1))
    (brokers_listed,) = struct.unpack_from(">i", answer)
    at = 4
    for _ in range(brokers_listed):
        _host, at = wire.take_string(answer, at + 4)
        _rack, at = wire.take_string(answer, at + 4)
    (topics,) = struct.unpack_from(">i", answer, at + 4)
    at, found = at + 8, 0
    for _ in range(topics):
        _name, at = wire.take_string(answer, at + 2)
        internal, partitions = struct.unpack_from(">?i", answer, at)
        found += 0 if internal else partitions
        # one replica, in sync
        at += 5 + partitions * (2 + 4 + 4 + 8 + 8)
    return found


@contextlib.contextmanager
def reading_slowly(node, topic, per_second=40):
    """A reader of 1 MiB at a time, `per_second` times a second, through all partitions from their beginning."""
    enough = threading.Event()

    def read():
        connection = wire.Connection(node.bootstrap, timeout=60)
        offsets, at = [0] * 6, 0
        while not enough.is_set():
            data = connection.get(topic, at, offsets[at], MIB, wait_ms=0)
            offsets[at] = next_offset(data, offsets[at]) if data else 0
            at = (at + 1) % 6
            enough.wait(1 / per_second)
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        enough.set()
        reader.join()


def next_offset(data, offset):
    """The offset behind the last whole batch."""
    at = 0
    while at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if at + 12 + length > len(data):
            break
        (last,) = struct.unpack_from(">i", data, at + 23)
        offset, at = base + last + 1, at + 12 + length
    return offset


FIGURES = ["partitions", "topics", "connections", "groups", "latency", "cold", "slow-reader"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/sabir"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help="an existing folder for the broker's data, on the disk to be measured")
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--readers", type=int, default=2, help="connections that read cold data")
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement of latency")
    parser.add_argument("figures", nargs="*", metavar="FIGURE")
    asked = parser.parse_args()
    if unknown := set(asked.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bench = Bench(asked)
    load = os.getloadavg()[0]
    print(f"{pathlib.Path(asked.binary).name}, {os.cpu_count()} cores, load average {load:.1f} before; medians of {asked.rounds}", flush=True)
    try:
        for figure in asked.figures or FIGURES:
            getattr(bench, figure.replace("-", "_"))()
    finally:
        if not asked.data:
            shutil.rmtree(bench.root, ignore_errors=True)
    sys.exit(1 if bench.missed else 0)


if __name__ == "__main__":
    main()
