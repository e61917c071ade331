"""Many at once: connections, queues, and what happens to some of them while others are at work."""

import contextlib
import random
import threading

import pika
from amqp_wire import Closed, Raw
from client import Consumer, bodies, burst, publish, ready, refused, until
from pika import frame, spec


def many_connections(case):
    connections = [case.connection() for _ in range(100)]
    queue = case.queue(connections[0].channel(), exclusive=False, auto_delete=True)
    for n, connection in enumerate(connections):
        publish(case.channel(connection), queue, n)
    assert bodies(case.channel(), queue, 100) == [str(n) for n in range(100)]
    case.channel().queue_delete(queue)


def connections_that_come_and_go(case):
    """Some say good-bye, and some are just gone, with a queue and a message of their own."""
    channel = case.channel()
    queue = case.queue(channel, exclusive=False)
    for n in range(150):
        raw = Raw().log_in()
        own = raw.open_channel(1)
        own.call(spec.Queue.Declare(queue=case.name(f"own-{n}"), exclusive=True), spec.Queue.DeclareOk)
        own.call(spec.Basic.Consume(queue=queue), spec.Basic.ConsumeOk)
        if n % 2:
            raw.write(0, spec.Connection.Close(200, "bye", 0, 0))
            raw.method(spec.Connection.CloseOk, 0)
        raw.close()
    until("none consumes", lambda: ready(channel, queue) == (0, 0))
    publish(channel, queue, "alive")
    assert bodies(channel, queue, 1) == ["alive"]
    refused(404, lambda: case.connection().channel().queue_declare(case.name("own-0"), passive=True))
    channel.queue_delete(queue)


def many_queues(case):
    channel = case.channel()
    for n in range(1000):
        channel.queue_declare(case.name(f"many-{n}"), durable=True)
    for n in range(0, 1000, 100):
        publish(channel, case.name(f"many-{n}"), n, delivery_mode=2)
        assert ready(channel, case.name(f"many-{n}")) == (1, 0)
    for n in range(1000):
        assert channel.queue_delete(case.name(f"many-{n}")).method.message_count == (n % 100 == 0)


def deleted_under_load(case):
    """Publishers go on, since what is unroutable is confirmed; consumers are told; and the name can be used again."""
    queue, done, errors = case.name("queue"), threading.Event(), []
    case.connection().channel().queue_declare(queue)

    def publishing():
        try:
            while not done.is_set():
                burst(queue, range(50))
        except Exception as error:
            errors.append(error)

    publishers = [threading.Thread(target=publishing) for _ in range(2)]
    for publisher in publishers:
        publisher.start()
    try:
        for _ in range(10):
            connection = case.connection()
            connection.channel().queue_declare(queue)
            consumer = Consumer(connection.channel(), queue, auto_ack=True)
            consumer.wait(100)
            case.connection().channel().queue_delete(queue)
            until("it is told", lambda: (connection.process_data_events(0.05), consumer.cancelled)[1])
    finally:
        done.set()
        for publisher in publishers:
            publisher.join(30)
    assert not errors, errors
    channel = case.channel()
    channel.queue_delete(queue)
    channel.queue_declare(queue, exclusive=True)
    publish(channel, queue, "new")
    assert bodies(channel, queue, 1) == ["new"]


def at_once_into_one_queue(case):
    """From many connections; each one's messages stay in their order, and none is lost."""
    queue = case.queue(case.connection().channel(), exclusive=False, auto_delete=True)
    threads = [threading.Thread(target=burst, args=(queue, [f"{t} {n}" for n in range(500)])) for t in range(8)]
    for thread in threads:
        thread.start()
    consumers = [Consumer(case.connection().channel(), queue, auto_ack=True) for _ in range(2)]

    def all_of_it():
        for consumer in consumers:
            consumer.channel.connection.process_data_events(0.02)
        return sum(len(consumer.got) for consumer in consumers) >= 4000

    until("all is read", all_of_it, 30)
    for thread in threads:
        thread.join(10)
    found = [body for consumer in consumers for body in consumer.bodies]
    assert sorted(found) == sorted(f"{t} {n}" for t in range(8) for n in range(500))
    for consumer in consumers:
        for t in range(8):
            numbers = [int(body.split()[1]) for body in consumer.bodies if body.startswith(f"{t} ")]
            assert numbers == sorted(numbers)


def noise(case):
    """Valid frames with some bytes changed, cut or doubled: each connection gets an answer or is closed, and the others do not notice."""
    rng = random.Random(11)
    good = [
        frame.Method(1, spec.Queue.Declare(queue="noise", exclusive=True, arguments={"x-max-length": 7, "t": {"l": [1, "two"]}})).marshal(),
        frame.Method(1, spec.Basic.Publish(0, "amq.topic", "a.b", False, False)).marshal()
        + frame.Header(1, 5, pika.BasicProperties(headers={"a": [1, {"b": None}]}, content_type="x", timestamp=7)).marshal()
        + frame.Body(1, b"hello").marshal(),
        frame.Method(1, spec.Basic.Consume(queue="noise", arguments={"x-priority": 3})).marshal(),
        frame.Method(1, spec.Basic.Ack(1, True)).marshal(),
        frame.Method(1, spec.Exchange.Declare(exchange="noise", type="topic", auto_delete=True)).marshal(),
    ]
    for _ in range(100):
        data = bytearray(b"".join(rng.sample(good, 3)))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(1, 9)]
                case 2:
                    data[at:at] = data[at : at + rng.randrange(1, 9)]
        raw = Raw().log_in()
        raw.open_channel(1)
        raw.socket.settimeout(0.5)
        # an answer, a close, or nothing, where it waits for the rest of a frame that says it is longer
        with contextlib.suppress(Closed, OSError):
            raw.send(bytes(data))
            raw.more()
        raw.close()
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "alive")
    assert bodies(channel, queue, 1) == ["alive"]


CASES = [
    many_connections,
    connections_that_come_and_go,
    many_queues,
    deleted_under_load,
    at_once_into_one_queue,
    noise,
]
