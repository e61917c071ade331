#!/usr/bin/env python3
"""What AMQP's clients write Kafka's read, and the other way round: pika and librdkafka against the broker at AMQP and BOOTSTRAP. There is
no original to hold this against."""

import os
import pathlib
import sys
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "lib"), str(HERE / "pika")]
import cases
import pika
from client import Case, Consumer, bodies, get, publish, ready, until
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

KAFKA = {"bootstrap.servers": os.environ["BOOTSTRAP"], "log_level": 1}
SALT = uuid.uuid4().hex[:8]


def name(what):
    return f"{what}-{SALT}"


def durable_queue(channel, what, **arguments):
    return channel.queue_declare(name(what), durable=True, arguments=arguments or None).method.queue


def read(topic, count, limit=30):
    """So many records of partition 0, from the first one kept."""
    consumer = KafkaConsumer({**KAFKA, "group.id": "unused", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found, deadline = [], time.monotonic() + limit
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records after {limit} s"
        message = consumer.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            found.append(message)
    consumer.close()
    return found


def headers(message):
    return {key: value.decode() for key, value in message.headers() or []}


def produce(topic, *values, settings=None, **options):
    """Sends these to partition 0."""
    errors = []
    producer = Producer({**KAFKA, "linger.ms": 20, **(settings or {})})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _m: error and errors.append(error), **options)
    assert producer.flush(10) == 0 and not errors, errors


def made(topic, partitions=1):
    admin = AdminClient(KAFKA)
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(10)
    return topic


def written_by_amqp(case):
    channel = case.channel()
    queue = durable_queue(channel, "from-amqp")
    properties = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", headers={"mine": "yes", "number": 7, "table": {"a": [1, 2]}}, delivery_mode=2,
        priority=3, correlation_id="c-1", reply_to="answers", message_id="m-1", timestamp=1_700_000_000, type="kind", app_id="app",
    )  # fmt: skip
    channel.basic_publish("", queue, b"body", properties)
    channel.basic_publish("", queue, b"plain")
    first, second = read(queue, 2)
    assert (first.value(), first.key(), first.offset()) == (b"body", None, 0)
    assert first.timestamp()[1] == 1_700_000_000_000
    found = headers(first)
    wanted = {
        "content-type": "text/plain", "content-encoding": "utf-8", "correlation-id": "c-1", "reply-to": "answers", "message-id": "m-1",
        "priority": "3", "mine": "yes", "number": "7", "amqp.type": "kind", "amqp.app-id": "app",
    }  # fmt: skip
    for key, value in wanted.items():
        assert found.get(key) == value, f"{key}: {found.get(key)!r} is not {value!r}, of {found}"
    assert found["table"].replace(" ", "") == '{"a":[1,2]}'
    assert second.value() == b"plain"
    # that it was read has taken nothing away
    assert ready(channel, queue) == (2, 0)
    assert bodies(channel, queue, 2) == ["body", "plain"]


def keys_of_routing(case):
    channel = case.channel()
    queue = durable_queue(channel, "routed")
    channel.queue_bind(queue, "amq.topic", f"{SALT}.#")
    channel.basic_publish("amq.topic", f"{SALT}.a.b", b"x")
    channel.basic_publish("amq.topic", f"{SALT}.a.b", b"y", pika.BasicProperties(headers={"key": "mine"}))
    one, two = read(queue, 2)
    assert (one.key(), two.key()) == (f"{SALT}.a.b".encode(), b"mine")
    assert (headers(one)["x-exchange"], headers(one)["x-routing-key"]) == ("amq.topic", f"{SALT}.a.b")


def written_by_kafka(case):
    """A producer's batches, compressed or not, are messages of the queue."""
    channel = case.channel()
    queue = durable_queue(channel, "from-kafka")
    sent = [("content-type", b"text/plain"), ("correlation-id", b"c"), ("reply-to", b"r"), ("message-id", b"m"), ("mine", b"yes"), ("raw", b"\xff")]
    produce(queue, b"one", key=b"k", headers=sent, timestamp=1_700_000_000_123)
    for codec in ("none", "gzip", "lz4", "zstd", "snappy"):
        produce(queue, *(f"{codec} {n}".encode() for n in range(50)), settings={"compression.type": codec})
    method, properties, body = get(channel, queue, auto_ack=True)
    assert (body, method.exchange, method.routing_key, method.redelivered) == (b"one", "", queue, False)
    assert (properties.content_type, properties.correlation_id, properties.reply_to, properties.message_id) == ("text/plain", "c", "r", "m")
    assert properties.timestamp == 1_700_000_000 and properties.headers["timestamp_in_ms"] == 1_700_000_000_123
    assert (properties.headers["key"], properties.headers["mine"], properties.headers["raw"]) == ("k", "yes", b"\xff")
    for codec in ("none", "gzip", "lz4", "zstd", "snappy"):
        assert bodies(channel, queue, 50) == [f"{codec} {n}" for n in range(50)]


def a_producer_says_priority_and_expiry(case):
    """A queue goes by what a producer's headers say, in batches of every codec; what makes no sense there is a header like any other. What is first
    in the queue goes when its time has come."""
    channel = case.channel()
    queue = durable_queue(channel, "ranked", **{"x-max-priority": 5, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("ended")})
    ended = durable_queue(channel, "ended")
    for codec in ("none", "gzip", "lz4", "zstd", "snappy"):
        soon = str(int(time.time() * 1000) + 500).encode()
        producer = Producer({**KAFKA, "linger.ms": 50, "compression.type": codec})
        for value, sent in [
            ("expires", [("expires-at", soon), ("priority", b"5")]), ("plain", []), ("low", [("priority", b"1")]), ("odd", [("priority", b"high")]),
            ("high", [("priority", b"x"), ("priority", b"9"), ("priority", b"1")]), ("later", [("expires-at", b"99999999999999")]),
        ]:  # fmt: skip
            producer.produce(queue, value.encode(), partition=0, headers=sent)
        assert producer.flush(10) == 0
        until(f"{codec}: the one has expired", lambda: ready(channel, ended)[0] == 1)
        assert bodies(channel, ended, 1) == ["expires"]
        assert bodies(channel, queue, 5) == ["high", "low", "plain", "odd", "later"], codec


def what_comes_twice(case):
    """A queue that drops what comes twice knows it by AMQP's `message_id` and by the header `message-id` of a producer's records alike."""
    channel = case.channel()
    channel.confirm_delivery()
    queue = durable_queue(channel, "twice", **{"x-dedup-window": 3_600_000})
    channel.basic_publish("", queue, b"one", pika.BasicProperties(message_id="1"))
    for codec in ("none", "zstd"):
        produce(queue, b"again", b"again", settings={"compression.type": codec}, headers=[("message-id", b"1")])
        produce(queue, codec.encode(), b"again", settings={"compression.type": codec}, headers=[("message-id", codec.encode())])
    channel.basic_publish("", queue, b"again", pika.BasicProperties(message_id="zstd"))
    channel.basic_publish("", queue, b"last")
    assert bodies(channel, queue, 4) == ["one", "none", "zstd", "last"]
    assert ready(channel, queue)[0] == 0


def tombstones(case):
    channel = case.channel()
    queue = durable_queue(channel, "tombstones")
    produce(queue, None, key=b"k")
    _method, properties, body = get(channel, queue, auto_ack=True)
    assert body == b"" and properties.headers["key"] == "k"
    channel.basic_publish("", queue, b"")
    [message] = read(queue, 1)
    assert message.value() == b"", "an empty body is no tombstone"


def a_consumer_is_woken_by_a_producer(case):
    queue = durable_queue(case.channel(), "woken")
    consumer = Consumer(case.connection().channel(), queue)
    produce(queue, b"1", b"2")
    assert consumer.wait(2) == ["1", "2"]
    consumer.channel.basic_ack(1)
    consumer.channel.close()
    method, _properties, body = get(case.channel(), queue, auto_ack=True)
    assert (body, method.redelivered) == (b"2", True)


def a_subscription_on_a_topic(case):
    """Acknowledged one by one, given back, and nothing changes for Kafka's consumers."""
    topic = made(name("topic"))
    produce(topic, *(b"%d" % n for n in range(10)))
    reader = case.connection().channel()
    reader.basic_qos(prefetch_count=4)
    consumer = Consumer(reader, topic)
    assert consumer.wait(4) == ["0", "1", "2", "3"]
    reader.basic_ack(2)
    reader.basic_nack(3, requeue=True)
    consumer.wait(6)
    assert "2" in consumer.bodies[4:] and "4" in consumer.bodies[4:]
    reader.close()
    channel = case.channel()
    until("the rest is ready", lambda: ready(channel, topic)[0] == 9)
    assert bodies(channel, topic, 9) == ["0", *(str(n) for n in range(2, 10))]
    assert [message.value() for message in read(topic, 10)] == [b"%d" % n for n in range(10)]
    produce(topic, b"later")
    assert bodies(channel, topic, 1) == ["later"]


def a_subscription_on_several_partitions(case):
    """Each partition in its order; nothing that was acknowledged comes again, and nothing else is lost."""
    topic = made(name("spread"), 3)
    producer = Producer({**KAFKA, "linger.ms": 20})
    for n in range(90):
        producer.produce(topic, b"%d" % n, partition=n % 3)
    assert producer.flush(10) == 0
    reader = case.connection().channel()
    reader.basic_qos(prefetch_count=30)
    consumer = Consumer(reader, topic)
    consumer.wait(30)
    seen = [int(body) for body in consumer.bodies[:30]]
    for partition in range(3):
        of = [n for n in seen if n % 3 == partition]
        assert of == sorted(of), of
    for tag in range(1, 31, 2):
        reader.basic_ack(tag)
    done = {n for at, n in enumerate(seen) if at % 2 == 0}
    reader.close()
    channel = case.channel()
    until("the rest is ready", lambda: ready(channel, topic)[0] == 75)
    assert sorted(int(body) for body in bodies(channel, topic, 75)) == sorted(set(range(90)) - done)


def dead_letters_of_a_topic(case):
    """Rejected by a consumer of a topic, published where the subscription says."""
    topic = made(name("source"))
    channel = case.channel()
    dead = durable_queue(channel, "dead")
    produce(topic, b"good", b"bad", b"better")
    reader = case.connection().channel()
    arguments = {"x-subscription": "strict", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    consumer = Consumer(reader, topic, arguments=arguments)
    consumer.wait(3)
    reader.basic_reject(2, requeue=False)
    until("it is dead-lettered", lambda: ready(channel, dead)[0] == 1)
    _method, properties, body = get(channel, dead, auto_ack=True)
    assert body == b"bad" and properties.headers["x-death"][0]["queue"] == topic, properties.headers
    assert [message.value() for message in read(topic, 3)] == [b"good", b"bad", b"better"]


def published_to_a_topic(case):
    """By its name, and by a binding."""
    topic = made(name("target"))
    channel = case.channel()
    publish(channel, topic, "directly")
    channel.queue_bind(topic, "amq.topic", f"{SALT}.to.topic")
    publish(channel, f"{SALT}.to.topic", "bound", exchange="amq.topic")
    first, second = read(topic, 2)
    assert (first.value(), second.value()) == (b"directly", b"bound")
    assert second.key() == f"{SALT}.to.topic".encode()


def kafka_keeps_its_hands_off(case):
    """A queue is not deleted, repartitioned or trimmed by another protocol's client."""
    channel = case.channel()
    queue = durable_queue(channel, "kept")
    publish(channel, queue, *range(5), delivery_mode=2)
    admin = AdminClient(KAFKA)
    for ask in (
        lambda: admin.delete_topics([queue])[queue].result(10),
        lambda: admin.create_partitions([NewPartitions(queue, 4)])[queue].result(10),
        lambda: next(iter(admin.delete_records([TopicPartition(queue, 0, 3)]).values())).result(10),
    ):
        try:
            ask()
        except KafkaException:
            continue
        raise AssertionError("it was done")
    assert bodies(channel, queue, 5) == ["0", "1", "2", "3", "4"]


CASES = [
    written_by_amqp,
    keys_of_routing,
    written_by_kafka,
    a_producer_says_priority_and_expiry,
    what_comes_twice,
    tombstones,
    a_consumer_is_woken_by_a_producer,
    a_subscription_on_a_topic,
    a_subscription_on_several_partitions,
    dead_letters_of_a_topic,
    published_to_a_topic,
    kafka_keeps_its_hands_off,
]


def main():
    suite = cases.Suite("amqp-crossing")
    for function in CASES:

        def run(function=function):
            case = Case()
            try:
                function(case)
            finally:
                case.close()

        suite.case(function.__name__.replace("_", "-"), run)
    suite.end()


if __name__ == "__main__":
    main()
