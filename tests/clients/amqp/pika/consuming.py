"""Consuming: acknowledgements, what comes again and in which order, how much may be out, and who gets what."""

import time

import pika
from cases import best_of_three
from client import Consumer, bodies, burst, disconnected, empty, get, publish, ready, refused, until
from amqp_wire import Raw


def taken(consumer):
    return [int(body) for body in consumer.bodies]


def acknowledged(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(10))
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    consumer.wait(10)
    assert taken(consumer) == list(range(10))
    assert consumer.tags() == list(range(1, 11))
    assert not any(method.redelivered for method, _properties, _body in consumer.got)
    # one, a few, and all that is left
    reader.basic_ack(3)
    reader.basic_ack(6, multiple=True)
    reader.basic_ack(0, multiple=True)
    reader.close()
    empty(channel, queue)


def what_is_not_acknowledged_comes_again(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(6))
    reader = connection.channel()
    Consumer(reader, queue).wait(6)
    reader.basic_ack(2)
    reader.basic_ack(5)
    reader.close()
    again = Consumer(connection.channel(), queue)
    again.wait(4)
    assert taken(again) == [0, 2, 3, 5]
    assert all(method.redelivered for method, _properties, _body in again.got)


def a_lost_connection_gives_back(case):
    channel = case.channel()
    queue = case.queue(channel, exclusive=False)
    publish(channel, queue, *range(4))
    raw = Raw().log_in()
    raw_channel = raw.open_channel(1)
    raw_channel.call(pika.spec.Basic.Consume(queue=queue), pika.spec.Basic.ConsumeOk)
    for _ in range(4):
        raw_channel.expect(pika.spec.Basic.Deliver)
        raw.frame(), raw.frame()
    assert ready(channel, queue) == (0, 1)
    raw.close()
    until("all are ready again", lambda: ready(channel, queue) == (4, 0))
    assert [(get(channel, queue, auto_ack=True)[0].redelivered) for _ in range(4)] == [True] * 4
    channel.queue_delete(queue)


def acknowledged_twice(case):
    connection = case.connection()
    queue = case.queue(connection.channel())
    channel = case.channel(connection)
    publish(channel, queue, 1, 2)
    tag = get(channel, queue)[0].delivery_tag
    channel.basic_ack(tag)
    channel.basic_ack(tag)
    refused(406, lambda: ready(channel, queue), "unknown delivery tag")
    for ask in (lambda c: c.basic_ack(99), lambda c: c.basic_nack(99), lambda c: c.basic_reject(99), lambda c: c.basic_ack(99, multiple=True)):
        channel = connection.channel()
        ask(channel)
        refused(406, lambda c=channel: ready(c, queue), "unknown delivery tag 99")


def nothing_to_acknowledge(case):
    """All that is out may be nothing."""
    channel = case.connection().channel()
    queue = case.queue(channel)
    channel.basic_ack(0, multiple=True)
    channel.basic_nack(0, multiple=True)
    assert ready(channel, queue) == (0, 0)


def acknowledged_automatically(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(5))
    reader = connection.channel()
    consumer = Consumer(reader, queue, auto_ack=True)
    assert consumer.wait(5) == ["0", "1", "2", "3", "4"]
    assert ready(channel, queue) == (0, 1)
    reader.basic_ack(1)
    refused(406, lambda: ready(reader, queue), "unknown delivery tag")
    empty(channel, queue)


def prefetch(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(10))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=3)
    consumer = Consumer(reader, queue)
    consumer.wait(3)
    consumer.quiet()
    assert ready(channel, queue) == (7, 1)
    reader.basic_ack(1)
    consumer.wait(4)
    consumer.quiet()
    reader.basic_ack(4, multiple=True)
    consumer.wait(7)
    consumer.quiet()
    reader.basic_nack(5, requeue=False)
    consumer.wait(8)
    assert taken(consumer) == list(range(8))


def prefetch_of_each_consumer(case):
    """What is set counts for the consumers that come later, each on its own."""
    connection = case.connection()
    channel = case.channel(connection)
    one, two = case.queue(channel, "one"), case.queue(channel, "two")
    for queue in (one, two):
        publish(channel, queue, *range(5))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=2)
    first = Consumer(reader, one)
    reader.basic_qos(prefetch_count=1)
    second = Consumer(reader, two)
    first.wait(2), second.wait(1)
    first.quiet(), second.quiet(0.1)


def prefetch_of_the_channel(case):
    connection = case.connection()
    channel = case.channel(connection)
    one, two = case.queue(channel, "one"), case.queue(channel, "two")
    for queue in (one, two):
        publish(channel, queue, *range(5))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=3, global_qos=True)
    consumers = [Consumer(reader, queue) for queue in (one, two)]

    def out():
        return sum(len(consumer.got) for consumer in consumers)

    until("three are out", lambda: (connection.process_data_events(0.05), out() >= 3)[1])
    consumers[0].quiet(), consumers[1].quiet(0.1)
    assert out() == 3
    reader.basic_ack(2, multiple=True)
    until("two more are", lambda: (connection.process_data_events(0.05), out() >= 5)[1])
    consumers[0].quiet(), consumers[1].quiet(0.1)
    assert out() == 5


def prefetch_is_nothing_to_automatic_ones(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(50))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=1)
    Consumer(reader, queue, auto_ack=True).wait(50)


def prefetch_of_bytes(case):
    disconnected(540, lambda: case.connection().channel().basic_qos(prefetch_size=1000), "prefetch_size")


def given_back_in_order(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(8))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=5)
    consumer = Consumer(reader, queue)
    consumer.wait(5)
    reader.basic_cancel(consumer.tag)
    reader.basic_nack(5, multiple=True, requeue=True)
    # the places where they were, and not the end
    assert bodies(channel, queue, 8) == [str(n) for n in range(8)]


def given_back_to_its_place(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, *range(5))
    first, second, third = (get(channel, queue)[0] for _ in range(3))
    channel.basic_reject(second.delivery_tag, requeue=True)
    method, _properties, body = get(channel, queue)
    assert (body, method.redelivered) == (b"1", True)
    channel.basic_reject(method.delivery_tag, requeue=True)
    channel.basic_nack(first.delivery_tag, requeue=True)
    channel.basic_ack(third.delivery_tag)
    found = [get(channel, queue, auto_ack=True) for _ in range(4)]
    assert [body for _method, _properties, body in found] == [b"0", b"1", b"3", b"4"]
    assert [method.redelivered for method, _properties, _body in found] == [True, True, False, False]


def given_back_to_the_same_consumer(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "again")
    reader = channel.connection.channel()
    consumer = Consumer(reader, queue)
    for time_round in range(1, 6):
        consumer.wait(time_round)
        method = consumer.got[-1][0]
        assert method.redelivered == (time_round > 1), f"round {time_round}"
        reader.basic_nack(method.delivery_tag, requeue=True)


def rejected(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, *range(6))
    tags = [get(channel, queue)[0].delivery_tag for _ in range(6)]
    channel.basic_reject(tags[0], requeue=False)
    channel.basic_nack(tags[2], multiple=True, requeue=False)
    channel.basic_nack(tags[3], requeue=False)
    channel.basic_nack(0, multiple=True, requeue=True)
    assert bodies(channel, queue, 2) == ["4", "5"]
    empty(channel, queue)


def got_one_by_one(case):
    channel = case.channel()
    queue = case.queue(channel)
    empty(channel, queue)
    publish(channel, queue, "a", "b", "c")
    found = [channel.basic_get(queue) for _ in range(3)]
    assert [method.message_count for method, _properties, _body in found] == [2, 1, 0]
    assert [body for _method, _properties, body in found] == [b"a", b"b", b"c"]
    assert (found[0][0].exchange, found[0][0].routing_key) == ("", queue)
    empty(channel, queue)
    channel.basic_ack(found[1][0].delivery_tag)
    channel.close()
    assert bodies(channel.connection.channel(), queue, 2) == ["a", "c"]
    connection = channel.connection
    refused(404, lambda: connection.channel().basic_get(case.name("absent")), case.name("absent"))


def recovered(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(4))
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    consumer.wait(4)
    reader.basic_ack(2)
    reader.basic_recover(requeue=True)
    consumer.wait(7)
    assert taken(consumer)[4:] == [0, 2, 3]
    assert all(method.redelivered for method, _properties, _body in consumer.got[4:])
    disconnected(540, lambda: connection.channel().basic_recover(requeue=False), "requeue=false")


def exclusively(case):
    connection = case.connection()
    channel = connection.channel()
    queue = case.queue(channel)
    consumer = Consumer(channel, queue, exclusive=True)
    refused(403, lambda: Consumer(connection.channel(), queue), "exclusive")
    refused(403, lambda: Consumer(connection.channel(), queue, exclusive=True), "exclusive")
    channel.basic_cancel(consumer.tag)
    Consumer(connection.channel(), queue)
    refused(403, lambda: Consumer(connection.channel(), queue, exclusive=True), "exclusive")


def consumer_tags(case):
    connection = case.connection()
    raw = Raw().log_in()
    queue = case.queue(connection.channel(), exclusive=False, auto_delete=True)
    one, two = raw.open_channel(1), raw.open_channel(2)
    consume = pika.spec.Basic.Consume
    named = one.call(consume(queue=queue), pika.spec.Basic.ConsumeOk).consumer_tag
    assert named.startswith("amq.ctag-"), named
    mine = one.call(consume(queue=queue, consumer_tag="mine"), pika.spec.Basic.ConsumeOk).consumer_tag
    assert mine == "mine"
    # a tag is its channel's own
    two.call(consume(queue=queue, consumer_tag="mine"), pika.spec.Basic.ConsumeOk)
    one.write(consume(queue=queue, consumer_tag="mine"))
    close = one.closed_connection()
    assert close.reply_code == 530 and "mine" in close.reply_text, close


def cancelled(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    publish(channel, queue, 1)
    consumer.wait(1)
    reader.basic_cancel(consumer.tag)
    publish(channel, queue, 2)
    consumer.quiet()
    # what it has is still its channel's, to be acknowledged or not
    assert ready(channel, queue) == (1, 0)
    reader.basic_ack(1)
    reader.close()
    assert bodies(channel, queue) == ["2"]


def cancelled_though_nobody_consumes(case):
    raw = Raw().log_in()
    channel = raw.open_channel(1)
    ok = channel.call(pika.spec.Basic.Cancel("nobody", False), pika.spec.Basic.CancelOk)
    assert ok.consumer_tag == "nobody"
    raw.close()


def in_turns(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    consumers = [Consumer(connection.channel(), queue, auto_ack=True) for _ in range(4)]
    publish(channel, queue, *range(100))
    until("all is read", lambda: (connection.process_data_events(0.05), sum(len(c.got) for c in consumers) == 100)[1])
    assert [len(c.got) for c in consumers] == [25] * 4, [len(c.got) for c in consumers]
    for consumer in consumers:
        assert taken(consumer) == sorted(taken(consumer))


def the_idle_one_gets_it(case):
    """Who has as many as it may is passed over."""
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    busy, idle = connection.channel(), connection.channel()
    busy.basic_qos(prefetch_count=1), idle.basic_qos(prefetch_count=1)
    held = Consumer(busy, queue)
    publish(channel, queue, 0)
    held.wait(1)
    other = Consumer(idle, queue)
    for n in range(1, 20):
        publish(channel, queue, n)
        other.wait(n)
        idle.basic_ack(n)
    assert len(held.got) == 1


def consumers_priorities(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    low, high = connection.channel(), connection.channel()
    low.basic_qos(prefetch_count=10), high.basic_qos(prefetch_count=3)
    lower = Consumer(low, queue)
    higher = Consumer(high, queue, arguments={"x-priority": 10})
    publish(channel, queue, *range(5))
    higher.wait(3), lower.wait(2)
    assert taken(higher) == [0, 1, 2] and taken(lower) == [3, 4]
    high.basic_ack(3, multiple=True)
    publish(channel, queue, 5)
    higher.wait(4)
    lower.quiet()
    refused(406, lambda: Consumer(connection.channel(), queue, arguments={"x-priority": "high"}), "x-priority")


def a_single_active_consumer(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel, arguments={"x-single-active-consumer": True})
    readers = [connection.channel() for _ in range(3)]
    first, second, third = (Consumer(reader, queue) for reader in readers)
    publish(channel, queue, *range(4))
    first.wait(4)
    second.quiet(), third.quiet(0.1)
    readers[0].basic_ack(2, multiple=True)
    readers[0].close()
    # what the first has left, and from now on all
    second.wait(2)
    publish(channel, queue, 4)
    second.wait(3)
    assert taken(second) == [2, 3, 4]
    third.quiet()


def a_single_active_consumer_that_cancels(case):
    """RabbitMQ 3.10 leaves what is ready with nobody until the channel closes; it has to be handed over at once."""
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel, arguments={"x-single-active-consumer": True})
    leaving = connection.channel()
    leaving.basic_qos(prefetch_count=2)
    first, second = Consumer(leaving, queue), Consumer(connection.channel(), queue)
    publish(channel, queue, *range(4))
    first.wait(2)
    leaving.basic_cancel(first.tag)
    leaving.basic_ack(2, multiple=True)
    second.wait(2)
    assert taken(second) == [2, 3]


def many_in_flight(case):
    """A channel that closes with thousands out gives them back, in order."""
    connection = case.connection()
    queue = case.queue(connection.channel())
    burst(queue, range(10_000))
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    consumer.wait(10_000, limit=30)
    assert taken(consumer) == list(range(10_000))
    reader.close()
    again = Consumer(connection.channel(), queue, auto_ack=True)
    again.wait(10_000, limit=30)
    assert taken(again) == list(range(10_000))
    assert all(method.redelivered for method, _properties, _body in again.got)


def many_in_flight_are_acknowledged_singly(case):
    """In an order of their own, with some given back in between."""
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(300))
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    consumer.wait(300)
    tags = sorted(consumer.tags(), key=lambda tag: tag * 7919 % 300)
    for n, tag in enumerate(tags):
        if n % 10:
            reader.basic_ack(tag)
    reader.close()
    assert bodies(channel, queue, 30) == sorted((str(tag - 1) for tag in tags[::10]), key=int)
    empty(channel, queue)


def from_what_is_not_there(case):
    refused(404, lambda: Consumer(case.connection().channel(), case.name("absent")), case.name("absent"))


def flow(case):
    channel = case.connection().channel()
    assert channel.flow(True) is True
    disconnected(540, lambda: channel.flow(False), "active=false")


def direct_reply(case):
    """An answer by way of no queue, to whoever has asked."""
    connection = case.connection()
    asker, answerer = connection.channel(), case.connection().channel()
    queue = case.queue(answerer)
    answers = Consumer(asker, "amq.rabbitmq.reply-to", auto_ack=True)
    asker.basic_publish("", queue, b"?", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"))
    _method, properties, _body = get(answerer, queue, auto_ack=True)
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to."), properties.reply_to
    answerer.basic_publish("", properties.reply_to, b"!", pika.BasicProperties(correlation_id=properties.correlation_id))
    assert answers.wait(1) == ["!"]
    assert answers.got[0][1].correlation_id == "1"
    # asked for whether it is there, as a server does before it begins to work
    answerer.queue_declare(properties.reply_to, passive=True)


def direct_reply_misused(case):
    connection = case.connection()
    refused(406, lambda: Consumer(connection.channel(), "amq.rabbitmq.reply-to"), "reply")
    channel = case.channel(connection)
    queue = case.queue(connection.channel())
    refused(406, lambda: publish(channel, queue, "?", reply_to="amq.rabbitmq.reply-to"), "reply")


def counts(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, *range(7))
    reader = connection.channel()
    reader.basic_qos(prefetch_count=3)
    Consumer(reader, queue).wait(3)
    assert ready(channel, queue) == (4, 1)
    reader.basic_ack(1)
    until("one more is out", lambda: (connection.process_data_events(0.05), ready(channel, queue) == (3, 1))[1])
    reader.close()
    until("all are back but one", lambda: ready(channel, queue) == (6, 0))


def a_late_message_reaches_a_waiting_consumer(case):
    connection = case.connection()
    queue = case.queue(connection.channel())
    consumer = Consumer(connection.channel(), queue, auto_ack=True)
    connection.sleep(0.5)
    other = case.channel(connection)

    def try_it():
        consumer.got.clear()
        began = time.monotonic()
        publish(other, queue, "now")
        consumer.wait(1)
        return time.monotonic() - began

    best_of_three(1, try_it)


CASES = [
    acknowledged,
    what_is_not_acknowledged_comes_again,
    a_lost_connection_gives_back,
    acknowledged_twice,
    nothing_to_acknowledge,
    acknowledged_automatically,
    prefetch,
    prefetch_of_each_consumer,
    prefetch_of_the_channel,
    prefetch_is_nothing_to_automatic_ones,
    prefetch_of_bytes,
    given_back_in_order,
    given_back_to_its_place,
    given_back_to_the_same_consumer,
    rejected,
    got_one_by_one,
    recovered,
    exclusively,
    consumer_tags,
    cancelled,
    cancelled_though_nobody_consumes,
    in_turns,
    the_idle_one_gets_it,
    consumers_priorities,
    a_single_active_consumer,
    a_single_active_consumer_that_cancels,
    many_in_flight,
    many_in_flight_are_acknowledged_singly,
    from_what_is_not_there,
    flow,
    direct_reply,
    direct_reply_misused,
    counts,
    a_late_message_reaches_a_waiting_consumer,
]
