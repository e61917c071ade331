"""The clients that run while a broker is killed: idempotent writers and the members of a consumer group, on confluent-kafka.

A record's value is `WRITER NUMBER CHECKSUM|PADDING`, so that whoever reads it knows what was sent.
"""

import random
import threading
import time
import zlib

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from history import Record

# The broker comes and goes: tries again soon, and keeps quiet about it.
RECONNECT = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "broker.address.family": "v4", "log_level": 1}
PADDING = random.Random(7).randbytes(4 << 20)


def value(writer, number, size):
    padding = PADDING[number % 1000 : number % 1000 + size]
    return b"%s %d %08x|" % (writer.encode(), number, zlib.crc32(padding)) + padding


def parse(data):
    """The record that a value says it is; ValueError if the bytes are not those that were sent."""
    head, _, padding = data.partition(b"|")
    writer, number, checksum = head.split(b" ")
    if zlib.crc32(padding) != int(checksum, 16):
        raise ValueError(f"the content of {head!r} is not what was sent")
    return Record(writer.decode(), int(number))


class Client(threading.Thread):
    """A thread that is asked to end by `finish`."""

    def __init__(self, name, history):
        super().__init__(name=name, daemon=True)
        self.history = history
        self.finishing = threading.Event()

    def run(self):
        try:
            self.work()
        except Exception as error:
            self.history.report("a client failed", f"{self.name}: {type(error).__name__}: {error}")

    def finish(self):
        self.finishing.set()

    def ended(self, limit):
        self.join(limit)
        if self.is_alive():
            self.history.report("a client did not end", self.name)


class Writer(Client):
    """Sends numbered records to every partition, at about `rate` a second, with an idempotent producer."""

    def __init__(self, name, history, bootstrap, topic, partitions, rate, sizes, compression):
        super().__init__(name, history)
        self.topic, self.rate, self.sizes = topic, rate, sizes
        self.settings = {
            **RECONNECT,
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": compression,
            "linger.ms": 2,
            "message.max.bytes": 8 << 20,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 200,
            "message.timeout.ms": 120_000,
            "queue.buffering.max.kbytes": 128 << 10,
        }
        self.next = dict.fromkeys(range(partitions), 0)
        self.producer = None
        self.lives = 0
        self.dead = False

    def work(self):
        random_size = random.Random(self.name)
        self.revive()
        began, sent = time.monotonic(), 0
        while not self.finishing.is_set():
            due = int((time.monotonic() - began) * self.rate)
            while sent < due and not self.dead:
                self.send(random_size.choice(self.sizes))
                sent += 1
            try:
                self.producer.poll(0.005)
            except KafkaException as error:
                self.failed(error.args[0])
            if self.dead:
                self.revive()
        if self.producer.flush(90):
            self.history.report("a writer was not answered", f"{self.name}: {len(self.producer)} records at the end")

    def revive(self):
        """A producer that has met a fatal error is of no use any more; records of the next one are numbered under a new name."""
        if self.producer is not None:
            self.producer.purge()
        self.lives += 1
        self.writer = f"{self.name}.{self.lives}"
        self.next = dict.fromkeys(self.next, 0)
        self.dead = False
        self.producer = Producer({**self.settings, "error_cb": self.failed})

    def failed(self, error):
        if error.fatal():
            self.dead = True
            self.history.report("an idempotent producer failed", f"{self.writer}: {error}")

    def send(self, size):
        partition = min(self.next, key=self.next.get)
        number = self.next[partition]
        record = Record(self.writer, number)

        def told(error, message):
            if error is None:
                self.history.acknowledged(partition, record, message.offset())
            else:
                self.history.gave_up(error)

        try:
            self.producer.produce(self.topic, value(self.writer, number, size), partition=partition, on_delivery=told)
            self.next[partition] += 1
        except BufferError:
            self.producer.poll(0.05)
        except KafkaException as error:
            self.failed(error.args[0])


class Member(Client):
    """A group member that reads and commits what it has read, now and then. It may be told to leave without its last commit: whoever
    comes after it has to begin at the one before."""

    def __init__(self, name, history, bootstrap, topic, group):
        super().__init__(name, history)
        self.topic = topic
        self.last_commit = True
        # partition -> the offset that is to be committed next
        self.done = {}
        self.consumer = Consumer(
            {
                **RECONNECT,
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "client.id": name,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.message.max.bytes": 8 << 20,
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
                "check.crcs": True,
                "partition.assignment.strategy": "cooperative-sticky",
            }
        )

    def work(self):
        pause = random.Random(self.name)
        self.consumer.subscribe([self.topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)
        commit_at = time.monotonic()
        while not self.finishing.is_set():
            for message in self.consumer.consume(200, 0.05):
                self.take(message)
            if self.done and time.monotonic() >= commit_at:
                self.commit(list(self.done))
                commit_at = time.monotonic() + pause.uniform(0, 0.3)
        if self.last_commit:
            self.commit(list(self.done))
        self.consumer.close()

    def walk_away(self):
        self.last_commit = False
        self.finish()

    def assigned(self, _consumer, partitions):
        for p in partitions:
            self.history.assigned(self.name, p.partition)

    def revoked(self, _consumer, partitions):
        """The next owner begins where this one has committed: after this it must say no more of these."""
        if self.last_commit:
            self.commit([p.partition for p in partitions])
        self.lost(None, partitions)

    def lost(self, _consumer, partitions):
        for p in partitions:
            self.done.pop(p.partition, None)

    def take(self, message):
        if message.error():
            if message.error().code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._BAD_MSG):
                self.history.report("a reader was refused", f"{self.name}: {message.error()}")
            return
        try:
            record = parse(message.value())
        except ValueError as error:
            self.history.report("a record is damaged", f"partition {message.partition()} offset {message.offset()}: {error}")
            return
        self.history.read(self.name, message.partition(), message.offset(), record)
        self.done[message.partition()] = message.offset() + 1

    def commit(self, partitions):
        asked = [TopicPartition(self.topic, p, self.done.pop(p)) for p in partitions if p in self.done]
        if not asked:
            return
        for p in asked:
            self.history.commit_tried(p.partition, p.offset)
        try:
            done = self.consumer.commit(offsets=asked, asynchronous=False)
        except KafkaException:
            return  # whether it counts is not known: the broker was killed meanwhile, or the group has a new generation
        for p in done:
            if p.error is None:
                self.history.commit_acknowledged(p.partition, p.offset)


def patiently(ask):
    """What `ask()` answers, which may be told a few times to come again: a broker that has just started is not the leader yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask()
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def read_log(bootstrap, topic, partition):
    """(offset, Record) of all records of a partition, in the order in which they are read."""
    settings = {**RECONNECT, "bootstrap.servers": bootstrap, "group.id": "reader-of-the-log", "enable.partition.eof": True}
    settings |= {"auto.offset.reset": "error", "check.crcs": True, "fetch.message.max.bytes": 8 << 20, "enable.auto.commit": False}
    consumer = Consumer(settings)
    try:
        low, high = patiently(lambda: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20))
        if low != 0:
            raise RuntimeError(f"partition {partition} begins at {low}, and nobody has deleted anything")
        consumer.assign([TopicPartition(topic, partition, 0)])
        deadline, at = time.monotonic() + 120, 0
        while at < high:
            for message in consumer.consume(1000, 1.0):
                if message.error() is None:
                    yield message.offset(), parse(message.value())
                    at = message.offset() + 1
                elif message.error().code() != KafkaError._PARTITION_EOF:
                    raise RuntimeError(f"partition {partition} cannot be read: {message.error()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"partition {partition} is read up to {at} of {high} after 120 s")
    finally:
        consumer.close()


def committed(bootstrap, topic, partitions, group):
    """partition -> the group's committed offset; 0 if there is none."""
    consumer = Consumer({**RECONNECT, "bootstrap.servers": bootstrap, "group.id": group})
    try:
        found = patiently(lambda: consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=20))
        return {p.partition: max(p.offset, 0) for p in found}
    finally:
        consumer.close()
