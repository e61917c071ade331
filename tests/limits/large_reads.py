#!/usr/bin/env python3
"""Many consumers of large messages at once, under a real `sabir serve`: what they read takes bounded memory, and each has all of its own.

    tests/limits/large_reads.py [CASE...]
"""

import os
import pathlib
import shutil
import sys
import threading
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire
from amqp_wire import Raw
from pika import BasicProperties, spec

MIB = 1 << 20
CONSUMERS, LARGE = 40, 10 * MIB
# As in a control group of 256 MiB.
FRAME_MEMORY, TAIL_CACHE = 32 * MIB, 64 * MIB
# The code, stacks, pools of buffers, and what is written and not yet on the disk; slow readers of the newest blocks hold half as much again as these.
ALLOWED = 60 * MIB + FRAME_MEMORY + TAIL_CACHE * 3 // 2


class Node:
    def __init__(self, name):
        self.folder = brokers.scratch(f"large-reads-{name}")
        settings = [f"net.frame_memory={FRAME_MEMORY // MIB}MiB", f"data.tail_cache={TAIL_CACHE // MIB}MiB", "topic.max_message=32MiB"]
        settings += ["data.open_bytes_max=8MiB", "topic.retention_size=512MiB"]
        self.broker = brokers.make("sabir", self.folder / "data", f"large-reads-{name}", settings=settings)

    def __enter__(self):
        self.broker.start()
        return self

    def __exit__(self, kind, _error, _trace):
        alive = self.broker.alive()
        peak = self.broker.memory("VmHWM") if alive else 0
        code = self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert alive and code == 0, f"the broker ended with {code}: {self.broker.log_end()}"
        print(f"      resident: {peak // MIB} MiB at the most")
        assert kind or peak <= ALLOWED, f"{peak // MIB} MiB were resident; {ALLOWED // MIB} are allowed"

    def channel(self, limit=60):
        return Raw(self.broker.amqp, limit=limit).log_in().open_channel(1)

    def queues(self, count, messages, body):
        """So many queues, each of which has all of the messages."""
        channel = self.channel()
        channel.call(spec.Exchange.Declare(exchange="all", type="fanout", durable=True), spec.Exchange.DeclareOk)
        for number in range(count):
            channel.call(spec.Queue.Declare(queue=f"q{number}", durable=True), spec.Queue.DeclareOk)
            channel.call(spec.Queue.Bind(queue=f"q{number}", exchange="all"), spec.Queue.BindOk)
        self.published(channel, "all", "", messages, body)

    @staticmethod
    def published(channel, exchange, key, messages, body):
        channel.call(spec.Confirm.Select(nowait=False), spec.Confirm.SelectOk)
        for _ in range(messages):
            channel.publish(exchange, key, body, properties=BasicProperties(delivery_mode=2))
            channel.expect(spec.Basic.Ack)
        channel.raw.close()


def at_once(count, work):
    """Has all done at the same time; what fails is raised."""
    failed = []

    def run(number):
        try:
            work(number)
        except Exception as error:  # pylint: disable=broad-except
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def has_come(raw, size):
    """Reads so many bytes beside what is buffered, without looking at them."""
    left = size - len(raw.buffer)
    raw.buffer = b""
    while left > 0:
        data = raw.socket.recv(min(left, MIB))
        assert data, "the socket was closed"
        left -= len(data)


def consumed(node, queue, size, prefetch=1):
    channel = node.channel()
    if prefetch:
        channel.call(spec.Basic.Qos(prefetch_count=prefetch), spec.Basic.QosOk)
    channel.call(spec.Basic.Consume(queue=queue), spec.Basic.ConsumeOk)
    has_come(channel.raw, size)
    channel.raw.close()


def consumers_of_large_messages():
    with Node("consumers") as node:
        node.queues(CONSUMERS, 2, os.urandom(MIB) * 10)
        at_once(CONSUMERS, lambda number: consumed(node, f"q{number}", LARGE))
        at_once(CONSUMERS, lambda number: consumed(node, f"q{number}", 2 * LARGE, prefetch=0))


def consumers_that_do_not_read():
    """They hold up those that do no longer than they may take to read."""
    with Node("unread") as node:
        node.queues(CONSUMERS, 2, os.urandom(MIB) * 10)
        channels = []
        for number in range(CONSUMERS):
            channel = node.channel()
            channel.call(spec.Basic.Consume(queue=f"q{number}"), spec.Basic.ConsumeOk)
            channels.append(channel)
        time.sleep(2)
        served = node.channel()
        served.call(spec.Queue.Declare(queue="small"), spec.Queue.DeclareOk)
        node.published(served, "", "small", 1, b"small")
        at_once(1, lambda _: consumed(node, "small", 10))
        for channel in channels:
            channel.raw.close()
        at_once(CONSUMERS, lambda number: consumed(node, f"q{number}", LARGE))


def fetches_of_large_batches():
    with Node("fetches") as node:
        with wire.Connection(node.broker.bootstrap) as client:
            client.create([("t", 1, {})])
            batch = wire.batch([os.urandom(MIB) * 10])
            for _ in range(10):
                client.put("t", 0, batch)

        def fetch(number):
            with wire.Connection(node.broker.bootstrap, timeout=60) as one:
                for round_ in range(2):
                    assert len(one.get("t", 0, (number + round_) % 10, max_bytes=50 * MIB)) >= LARGE

        at_once(CONSUMERS, fetch)


def messages_of_the_other_protocol():
    """What is rebuilt or unpacked for its readers waits as well."""
    with Node("crossing") as node:
        node.queues(1, 4, os.urandom(MIB) * 10)
        records = wire.record(bytes(20 * MIB))
        packed = wire.batch_around(zlib_gzip(records), 1, attributes=1)
        with wire.Connection(node.broker.bootstrap) as client:
            client.create([("packed", 1, {}), ("plain", 1, {})])
            client.put("packed", 0, packed)
            client.put("plain", 0, wire.batch([os.urandom(MIB) * 10]))

        def fetch(number):
            with wire.Connection(node.broker.bootstrap, timeout=60) as one:
                for _ in range(60):
                    if len(one.get("q0", 0, number % 4, max_bytes=50 * MIB)) >= LARGE:
                        return
                raise AssertionError("it was never given")

        at_once(CONSUMERS // 2, fetch)
        for topic, size in (("plain", LARGE), ("packed", 20 * MIB)):
            at_once(CONSUMERS // 2, lambda number: subscribed(node, topic, f"{topic}-{number}", size))


def subscribed(node, topic, name, size):
    channel = node.channel()
    channel.call(spec.Basic.Qos(prefetch_count=1), spec.Basic.QosOk)
    consume = spec.Basic.Consume(queue=topic, arguments={"x-subscription": name, "x-stream-offset": "first"})
    channel.call(consume, spec.Basic.ConsumeOk)
    has_come(channel.raw, size)
    channel.raw.close()


def zlib_gzip(data):
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


CASES = [consumers_of_large_messages, consumers_that_do_not_read, fetches_of_large_batches, messages_of_the_other_protocol]


def main():
    suite = cases.Suite("large-reads")
    for function in CASES:
        suite.case(function.__name__.replace("_", "-"), function, 60)
    suite.end()


if __name__ == "__main__":
    main()
