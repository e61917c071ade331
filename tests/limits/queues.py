#!/usr/bin/env python3
"""AMQP clients that take much and give nothing back, against a real `sabir serve`: each costs bounded memory, and a well-behaved client
beside it notices nothing.

    tests/limits/queues.py [CASE...]
"""

import contextlib
import os
import pathlib
import shutil
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
from amqp_wire import Closed, Raw
from pika import BasicProperties, frame, spec

MIB = 1 << 20
FRAME_MEMORY = TAIL_CACHE = 32 * MIB
# Idle, with code, stacks, pools of buffers, a heap that has been used, and what all connections share.
BASE = 80 * MIB + FRAME_MEMORY + TAIL_CACHE
# What a connection may hold beside it.
EACH = 140 * 1024
QUEUE = "limits"


class Node:
    """A broker with a queue, and what is to be known of it from outside."""

    def __init__(self, name):
        self.folder = brokers.scratch(f"queue-limits-{name}")
        settings = [f"net.frame_memory={FRAME_MEMORY // MIB}MiB", f"data.tail_cache={TAIL_CACHE // MIB}MiB", "net.io_threads=2"]
        settings += ["net.write_timeout=2s", "net.frame_timeout=2s"]
        self.broker = brokers.make("sabir", self.folder / "data", f"queue-limits-{name}", settings=settings)

    def __enter__(self):
        self.broker.start()
        channel = self.channel()
        channel.call(spec.Queue.Declare(queue=QUEUE, durable=True), spec.Queue.DeclareOk)
        channel.raw.close()
        return self

    def __exit__(self, *_error):
        alive, code = self.broker.alive(), self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert alive and code == 0, f"the broker ended with {code}: {self.broker.log_end()}"

    def channel(self):
        return Raw(self.broker.amqp, limit=30).log_in().open_channel(1)

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.broker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def publish(self, count, size):
        """So many persistent messages, confirmed."""
        channel = self.channel()
        channel.call(spec.Confirm.Select(nowait=False), spec.Confirm.SelectOk)
        body, properties = b"x" * size, BasicProperties(delivery_mode=2)
        batch = max(1, min(1000, 4 * MIB // max(size, 1)))
        for first in range(0, count, batch):
            for _ in range(min(batch, count - first)):
                channel.publish("", QUEUE, body, properties=properties)
            while channel.expect(spec.Basic.Ack).delivery_tag < min(first + batch, count):
                pass
        channel.raw.close()

    def counted(self):
        channel = self.channel()
        found = channel.call(spec.Queue.Declare(queue=QUEUE, passive=True), spec.Queue.DeclareOk)
        channel.raw.close()
        return found.message_count

    def served(self):
        """Someone else declares, publishes and gets, in good time."""
        cases.best_of_three(2, self.serve)

    def serve(self):
        """How long that took."""
        began, channel = time.monotonic(), self.channel()
        channel.call(spec.Queue.Declare(queue="other", exclusive=True), spec.Queue.DeclareOk)
        channel.call(spec.Confirm.Select(nowait=False), spec.Confirm.SelectOk)
        channel.publish("", "other", b"hello")
        channel.expect(spec.Basic.Ack)
        channel.call(spec.Basic.Get(queue="other", no_ack=True), spec.Basic.GetOk)
        channel.raw.close()
        return time.monotonic() - began


def bounded(node, bound, seconds=0):
    """Looks at the broker's memory for a while."""
    most, until = node.resident(), time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.1)
        most = max(most, node.resident())
    print(f"      the broker's memory: {most / MIB:.0f} MiB, of at most {bound / MIB:.0f}", flush=True)
    assert most <= bound, f"the broker's memory is {most / MIB:.0f} MiB, above {bound / MIB:.0f}"


def never_acknowledged():
    """A consumer without a limit that takes all there is and keeps it: what is known of a message in flight is small."""
    with Node("never-acknowledged") as node:
        node.publish(100_000, 100)
        before = node.resident()
        channel = node.channel()
        channel.call(spec.Basic.Consume(queue=QUEUE), spec.Basic.ConsumeOk)
        got = 0
        while got < 100_000:
            got += isinstance(getattr(channel.raw.frame(), "method", None), spec.Basic.Deliver)
        bounded(node, before + 100_000 * 100 + 16 * MIB)
        node.served()
        channel.raw.close()
        until = time.monotonic() + 60
        while node.counted() != 100_000:
            assert time.monotonic() < until, f"{node.counted()} of 100,000 are back"
            time.sleep(0.1)


def never_read():
    """Consumers that take all and read nothing of it."""
    with Node("never-read") as node:
        node.publish(1000, 200_000)
        idle = []
        for _ in range(20):
            channel = node.channel()
            channel.call(spec.Basic.Consume(queue=QUEUE, no_ack=False), spec.Basic.ConsumeOk)
            idle.append(channel)
        bounded(node, BASE + 20 * 2 * MIB, seconds=4)
        node.served()
        for channel in idle:
            channel.raw.close()
        until = time.monotonic() + 60
        while node.counted() != 1000:
            assert time.monotonic() < until, f"{node.counted()} of 1,000 are back"
            time.sleep(0.1)


def never_finished():
    """Bodies that are announced and begun, by many channels."""
    with Node("never-finished") as node:
        part = frame.Body(1, b"x" * 100_000).marshal()
        raws = []
        for _ in range(50):
            raw = Raw(node.broker.amqp, limit=2).log_in()
            raw.open_channel(1)
            with contextlib.suppress(OSError, Closed):
                raw.send(frame.Method(1, spec.Basic.Publish(0, "", QUEUE, False, False)).marshal())
                raw.send(frame.Header(1, 100 * MIB, BasicProperties()).marshal())
                for _ in range(50):
                    raw.send(part)
            raws.append(raw)
        bounded(node, BASE + 50 * EACH, seconds=2)
        for raw in raws:
            raw.close()
        node.served()


def announced_beyond_measure():
    """Sizes that nobody could ever send."""
    with Node("announced") as node:
        for size in (1 << 40, (1 << 63) - 1, (1 << 64) - 1):
            raw = Raw(node.broker.amqp, limit=2).log_in()
            raw.open_channel(1)
            raw.send(frame.Method(1, spec.Basic.Publish(0, "", QUEUE, False, False)).marshal())
            payload = struct.pack(">HHQH", 60, 0, size, 0)
            raw.send(struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce")
            raw.send(frame.Body(1, b"a part").marshal())
            with contextlib.suppress(TimeoutError, Closed):
                raw.more()
            raw.close()
        bounded(node, BASE)
        node.served()


def idle_connections():
    """With a channel, and a consumer of a queue of their own."""
    with Node("idle") as node:
        before, raws = node.resident(), []
        for n in range(300):
            channel = node.channel()
            channel.call(spec.Queue.Declare(queue=f"idle-{n}", exclusive=True), spec.Queue.DeclareOk)
            channel.call(spec.Basic.Consume(queue=f"idle-{n}"), spec.Basic.ConsumeOk)
            raws.append(channel.raw)
        bounded(node, before + 300 * EACH)
        node.served()
        for raw in raws:
            raw.close()


CASES = [never_acknowledged, never_read, never_finished, announced_beyond_measure, idle_connections]


def main():
    suite = cases.Suite("queue-limits")
    for function in CASES:
        suite.case(function.__name__.replace("_", "-"), function, 120)
    suite.end()


if __name__ == "__main__":
    main()
