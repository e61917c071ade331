#!/usr/bin/env python3
"""Requests whose batches take long to look at, or come to much more than was sent: whoever shares their I/O thread waits for less than
a second, and memory stays bounded.

    tests/limits/batches.py [CASE...]
"""

import contextlib
import pathlib
import random
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import packed
import wire
from bystander import TOPIC, Bystander

MIB = 1 << 20
# As many batches as a client can put into some megabytes.
MANY = 37_000
WIDE = 3000
# How long a well-behaved client waits at the most, in milliseconds: one processor of two may be anyone's.
PATIENCE = 1000
INVALID_RECORD = 87
HIGHEST = (("zstd", "22"), ("gzip", "9"))
AT_ONCE = 4
# Batches that are slow to compress share half of `net.frame_memory`, and no more than this. One of them takes three fifths of it.
SLOW_BATCHES = 256 * MIB
TAIL_CACHE = 32 * MIB
SETTINGS = ["net.io_threads=1", f"data.tail_cache={TAIL_CACHE // MIB}MiB", "net.frame_memory=512MiB"]

RECORD = wire.record(b"x" * 20)
SMALL = {
    "plain": wire.batch_around(RECORD, 1),
    "gzip": wire.batch_around(packed.gzip(RECORD), 1, packed.GZIP),
    "snappy": wire.batch_around(packed.snappy(RECORD), 1, packed.SNAPPY),
    "lz4": wire.batch_around(packed.lz4(RECORD), 1, packed.LZ4),
    "zstd": wire.batch_around(packed.zstd(RECORD), 1, packed.ZSTD),
}


def produce(topic, data, partitions):
    """Produce 7: the same batch for each of these partitions."""
    batches = wire.array([struct.pack(">i", partition) + wire.blob(data) for partition in partitions])
    return wire.string(None) + struct.pack(">hi", -1, 30_000) + wire.array([wire.string(topic) + batches])


def errors(answer, topic):
    """How often a Produce answered which error."""
    at = 4 + 2 + len(topic)
    (count,) = struct.unpack_from(">i", answer, at)
    found = [struct.unpack_from(">h", answer, at + 4 + 30 * i + 4)[0] for i in range(count)]
    return {error: found.count(error) for error in set(found)}


class Node:
    """A broker with one I/O thread, which all its clients share."""

    def __init__(self):
        self.folder = brokers.scratch("batches")
        self.broker = brokers.make("sabir", self.folder / "data", "batches-broker", settings=SETTINGS)

    def __enter__(self):
        self.broker.start()
        topics = [(TOPIC, 1, {}), ("one", 1, {}), ("wide", WIDE, {})]
        topics += [(codec, 1, {"compression.type": codec}) for codec in ("gzip", "uncompressed")]
        topics += [(f"{codec}-{level}", 1, {"compression.type": codec, f"compression.{codec}.level": level}) for codec, level in HIGHEST]
        with wire.Connection(self.broker.bootstrap) as connection:
            connection.create(topics)
        return self

    def __exit__(self, *_error):
        alive, code = self.broker.alive(), self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert alive and code == 0, f"the broker ended with {code}: {self.broker.log_end()}"

    def take(self, topic, data, partitions, error=0, clients=1):
        """Has a request taken, beside a client that is well-behaved; the most memory that it took, of up to three times."""
        took = []

        def try_it():
            memory, longest = self.take_once(topic, data, partitions, error, clients)
            took.append(memory)
            return longest

        cases.best_of_three(PATIENCE, try_it)
        return max(took)

    def take_once(self, topic, data, partitions, error, clients=1):
        """That memory, and the milliseconds that the other one waited at the most. As many clients send the request at once."""
        with open(f"/proc/{self.broker.pid}/clear_refs", "w") as clear:
            clear.write("5")  # VmHWM begins anew
        before = self.broker.memory("VmRSS")
        request = produce(topic, data, partitions)
        with contextlib.ExitStack() as opened, Bystander(self.broker.bootstrap) as beside:
            connections = [opened.enter_context(wire.Connection(self.broker.bootstrap, timeout=60)) for _ in range(clients)]
            for connection in connections:
                connection.send(wire.PRODUCE, 7, request)
            answers = [connection.receive() for connection in connections]
        for answer in answers:
            assert errors(answer, topic) == {error: len(partitions)}, errors(answer, topic)
        return self.broker.memory("VmHWM") - before, beside.took[-1]


def small(node, codec):
    node.take("one", SMALL[codec], [0] * MANY)
    node.take("wide", SMALL[codec], range(WIDE))


def made_anew(node, topic):
    """Small batches that are given another codec, one after another."""
    for codec, data in SMALL.items():
        node.take(topic, data, [0] * (MANY // 4))


def members_of_nothing(node):
    """A member or a frame is 9 to 20 bytes that have a decoder set up. Of gzip's there is one in a batch that every client reads."""
    gzip = packed.gzip(b"") * 20_000 + packed.gzip(RECORD)
    zstd = packed.zstd(b"") * 60_000 + packed.zstd(RECORD)
    node.take("one", wire.batch_around(gzip, 1, packed.GZIP), [0] * 40, error=INVALID_RECORD)
    node.take("one", wire.batch_around(zstd, 1, packed.ZSTD), [0] * 40)


def records_of_nothing(node):
    records = b"".join(wire.record(b"", number) for number in range(20_000))
    node.take("one", wire.batch_around(records, 20_000), [0] * 100)
    node.take("one", wire.batch_around(packed.gzip(records), 20_000, packed.GZIP), [0] * 300)


def more_than_was_sent(node):
    """A hundred kilobytes that come to a gigabyte in the codec that their topic wants."""
    zeros = 1_000_000
    data = wire.batch_around(packed.zstd(a_record_of(zeros), zeros + 1, window=20), 1, packed.ZSTD)
    took = node.take("uncompressed", data, [0] * 1000)
    print(f"      {took / MIB:.0f} MiB", flush=True)
    # What may wait for the disk, what is on its way there, the tail cache, and the allocator's slack.
    assert took < 200 * MIB, f"{took / MIB:.0f} MiB"


def a_record_of(value):
    """What stands before the value of the only record of a batch, which has so many bytes; behind it is a zero."""
    body = b"\0" + wire.varint(0) + wire.varint(0) + wire.varint(-1) + wire.varint(value)
    return wire.varint(len(body) + value + 1) + body


def of_zeros():
    """28 MiB, nearly all of them zeros, in little: what is slow to compress at Zstandard's highest level is at their beginning."""
    chance = random.Random(7)
    slow = b"".join(bytes([chance.randrange(256)]) * chance.randrange(1, 2000) for _ in range(100))
    content = a_record_of(28 * MIB) + slow + bytes(28 * MIB - len(slow) + 1)
    return wire.batch_around(packed.gzip(content, level=1), 1, packed.GZIP)


def of_four_letters():
    """A megabyte that gzip's highest level takes half a second for and more."""
    letters = bytes(b"acgt"[byte & 3] for byte in random.Random(7).randbytes(10**6))
    return wire.batch([letters])


def four_at_once(topic, data):
    """In a topic whose codec they do not have and that wants its highest level."""
    # What is stored is less than was sent.
    allowed = SLOW_BATCHES + 2 * AT_ONCE * len(data)
    with Node() as node:
        took = node.take(topic, data, [0], clients=AT_ONCE)
    print(f"      {len(data) >> 10} KiB sent by each, {took / MIB:.0f} MiB of {allowed / MIB:.0f} taken", flush=True)
    assert took < allowed, f"{took / MIB:.0f} MiB"


def main():
    suite = cases.Suite("batches")
    with Node() as node:
        for codec in SMALL:
            suite.case(f"small-{codec}", lambda codec=codec: small(node, codec), limit=120)
        for topic in ("gzip", "uncompressed"):
            suite.case(f"small-made-{topic}", lambda topic=topic: made_anew(node, topic), limit=120)
        suite.case("members-of-nothing", lambda: members_of_nothing(node), limit=120)
        suite.case("records-of-nothing", lambda: records_of_nothing(node), limit=120)
        suite.case("more-than-was-sent", lambda: more_than_was_sent(node), limit=120)
    for name, made in (("zstd-22", of_zeros), ("gzip-9", of_four_letters)):
        suite.case(f"four-at-once-{name}", lambda name=name, made=made: four_at_once(name, made()), limit=120)
    suite.end()


if __name__ == "__main__":
    main()
