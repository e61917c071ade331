"""Publishing: confirms, returns, what is refused, and that a message arrives as it was sent."""

import datetime
import decimal

import pika
from client import Consumer, bodies, empty, get, publish, ready, refused, until
from pika.exceptions import NackError, UnroutableError
from amqp_wire import Raw


def confirmed(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, *range(300))
    assert ready(channel, queue) == (300, 0)
    assert bodies(channel, queue, 300) == [str(n) for n in range(300)]


def confirmed_in_a_burst(case):
    """Each message is confirmed once, in any grouping."""
    raw = Raw().log_in()
    queue = case.queue(case.channel(), exclusive=False, auto_delete=True)
    channel = raw.open_channel(1)
    channel.call(pika.spec.Confirm.Select(nowait=False), pika.spec.Confirm.SelectOk)
    for n in range(2000):
        channel.publish("", queue, b"%d" % n)
    outstanding = set(range(1, 2001))
    while outstanding:
        ack = channel.expect(pika.spec.Basic.Ack)
        told = {tag for tag in outstanding if tag <= ack.delivery_tag} if ack.multiple else {ack.delivery_tag}
        assert told <= outstanding and told, f"confirmed again: {ack}"
        outstanding -= told
    raw.close()
    other = case.channel()
    assert ready(other, queue)[0] == 2000
    other.queue_delete(queue)


def tags_begin_with_one_after_select(case):
    raw = Raw().log_in()
    channel = raw.open_channel(1)
    channel.publish("", case.name("nobody"), b"before")
    channel.call(pika.spec.Confirm.Select(nowait=False), pika.spec.Confirm.SelectOk)
    channel.publish("", case.name("nobody"), b"after")
    assert channel.expect(pika.spec.Basic.Ack).delivery_tag == 1
    raw.close()


def seen_on_the_same_channel(case):
    """Without a confirm too, what a channel gets comes after what it has published."""
    channel = case.connection().channel()
    queue = case.queue(channel)
    for n in range(50):
        publish(channel, queue, n)
        method, _properties, body = channel.basic_get(queue, True)
        assert method is not None and body == b"%d" % n, f"message {n} is not there: {body}"
    publish(channel, queue, *range(20))
    until("all are counted", lambda: ready(channel, queue)[0] == 20)
    assert channel.queue_purge(queue).method.message_count == 20


def unroutable_is_confirmed(case):
    channel = case.channel()
    publish(channel, case.name("nobody"), "lost")
    publish(channel, case.name("nothing"), "lost", exchange="amq.direct")


def mandatory(case):
    channel = case.channel()
    queue = case.queue(channel)
    channel.basic_publish("", queue, b"arrives", mandatory=True)
    assert bodies(channel, queue, 1) == ["arrives"]
    properties = pika.BasicProperties(message_id="seven", headers={"a": 1})
    try:
        channel.basic_publish("amq.topic", case.name("nobody"), b"comes back", properties, mandatory=True)
    except UnroutableError as error:
        [back] = error.messages
    else:
        raise AssertionError("it was not returned")
    assert (back.method.reply_code, back.method.reply_text) == (312, "NO_ROUTE"), back.method
    assert (back.method.exchange, back.method.routing_key) == ("amq.topic", case.name("nobody"))
    assert (back.properties.message_id, back.properties.headers, back.body) == ("seven", {"a": 1}, b"comes back")


def returned_without_confirms(case):
    channel = case.connection().channel()
    back = []
    channel.add_on_return_callback(lambda _channel, method, _properties, body: back.append((method.reply_code, body)))
    for n in range(3):
        channel.basic_publish("", case.name("nobody"), b"%d" % n, mandatory=True)
    until("all are back", lambda: (channel.connection.process_data_events(0.05), len(back) == 3)[1])
    assert back == [(312, b"0"), (312, b"1"), (312, b"2")]


def immediate(case):
    """RabbitMQ has given it up."""
    raw = Raw().log_in()
    channel = raw.open_channel(1)
    channel.publish("", case.name("nobody"), b"", immediate=True)
    assert channel.closed_connection().reply_code == 540


def to_what_is_not_there(case):
    channel = case.channel()
    refused(404, lambda: publish(channel, "k", "x", exchange=case.name("absent")), case.name("absent"))


def to_an_internal_exchange(case):
    connection = case.connection()
    channel = case.channel(connection)
    exchange = case.name("internal")
    channel.exchange_declare(exchange, "fanout", internal=True, auto_delete=True)
    refused(403, lambda: publish(channel, "k", "x", exchange=exchange), exchange)
    connection.channel().exchange_delete(exchange)


TABLE = {
    "text": "zażółć",
    "bytes": b"\x00\xff\xfe",
    "yes": True,
    "no": False,
    "small": 7,
    "negative": -7,
    "large": 1 << 40,
    "nothing": None,
    "price": decimal.Decimal("12.34"),
    "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    "list": [1, "two", [3], {"four": 5}],
    "table": {"in": {"it": {"again": "x"}}},
    "empty list": [],
    "empty table": {},
}


def properties_arrive(case):
    channel = case.channel()
    queue = case.queue(channel)
    sent = pika.BasicProperties(
        content_type="text/plain", content_encoding="gzip", headers=TABLE, delivery_mode=2, priority=3, correlation_id="c",
        reply_to="r", expiration="60000", message_id="m", timestamp=1_700_000_000, type="t", user_id="guest", app_id="a", cluster_id="u",
    )  # fmt: skip
    channel.basic_publish("", queue, b"body", sent)
    _method, got, body = get(channel, queue, auto_ack=True)
    assert body == b"body"
    got.headers["when"] = got.headers["when"].replace(tzinfo=datetime.timezone.utc)
    # pika makes text of bytes that are text, and bytes of those that are not
    for name, value in vars(sent).items():
        assert getattr(got, name) == value, f"{name}: {getattr(got, name)!r} is not {value!r}"


def no_properties_and_empty_ones(case):
    channel = case.channel()
    queue = case.queue(channel)
    channel.basic_publish("", queue, b"none")
    channel.basic_publish("", queue, b"empty", pika.BasicProperties(headers={}, content_type="", correlation_id=""))
    none, empty_ones = (get(channel, queue, auto_ack=True)[1] for _ in range(2))
    assert all(value is None for value in vars(none).values()), vars(none)
    assert (empty_ones.headers, empty_ones.content_type, empty_ones.correlation_id, empty_ones.reply_to) == ({}, "", "", None)


def bodies_of_all_sizes(case):
    """Around the size of a frame too, which is parted and put together again on its way."""
    connection = case.connection(frame_max=8192)
    channel = case.channel(connection)
    queue = case.queue(channel)
    sizes = [0, 1, 8183, 8184, 8185, 2 * 8184, 2 * 8184 + 1, 131_063, 131_064, 1 << 20, 5_000_001]
    whole = bytes(n * 31 % 251 for n in range(5021)) * 1000
    for size in sizes:
        channel.basic_publish("", queue, whole[:size])
    wide = case.connection(frame_max=131_072).channel()
    for size in sizes[: len(sizes) // 2]:
        assert get(channel, queue, auto_ack=True)[2] == whole[:size], size
    shared = case.queue(channel, "shared", exclusive=False, auto_delete=True)
    for size in sizes:
        channel.basic_publish("", shared, whole[:size])
        assert get(wide, shared, auto_ack=True)[2] == whole[:size], size
    for size in sizes[len(sizes) // 2 :]:
        assert get(channel, queue, auto_ack=True)[2] == whole[:size], size
    channel.queue_delete(shared)


def whose_user_it_is(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "mine", user_id="guest")
    refused(406, lambda: publish(channel, queue, "forged", user_id="somebody"), "user_id")


def bad_expiration(case):
    connection = case.connection()
    queue = case.queue(connection.channel())
    for expiration in ("soon", "-1", "1.5", ""):
        refused(406, lambda e=expiration: publish(case.channel(connection), queue, "x", expiration=e), "expiration")


def copies(case):
    """CC and BCC: further routing keys, of which the second kind is not shown."""
    channel = case.channel()
    to, cc, bcc = (case.queue(channel, what) for what in ("to", "cc", "bcc"))
    channel.basic_publish("", to, b"x", pika.BasicProperties(headers={"CC": [cc, to], "BCC": [bcc], "other": 1}))
    for queue in (to, cc, bcc):
        _method, properties, _body = get(channel, queue, auto_ack=True)
        assert properties.headers == {"CC": [cc, to], "other": 1}, properties.headers
        empty(channel, queue)
    refused(406, lambda: publish(channel, to, "x", headers={"CC": "not a list"}), "CC")


def a_full_queue_refuses(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    publish(channel, queue, 1, 2)
    try:
        publish(channel, queue, 3)
    except NackError:
        pass
    else:
        raise AssertionError("it was confirmed")
    assert bodies(channel, queue, 2) == ["1", "2"]
    publish(channel, queue, 4)
    assert bodies(channel, queue, 1) == ["4"]


def one_of_many_queues_refuses(case):
    """Not all have taken it, so it is refused; who has room keeps it."""
    channel = case.channel()
    exchange = case.name("fan")
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    full = case.queue(channel, "full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    free = [case.queue(channel, f"free-{n}") for n in range(20)]
    for queue in (*free[:10], full, *free[10:]):
        channel.queue_bind(queue, exchange)
    try:
        publish(channel, "", 1, exchange=exchange)
    except NackError:
        pass
    else:
        raise AssertionError("it was confirmed")
    for queue in free:
        assert bodies(channel, queue, 1) == ["1"]


def to_a_hundred_queues(case):
    channel = case.channel()
    queues = [case.queue(channel, f"fan-{n}") for n in range(100)]
    exchange = case.name("fan")
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    for queue in queues:
        channel.queue_bind(queue, exchange)
    publish(channel, "", "a", "b", exchange=exchange)
    for queue in queues:
        assert bodies(channel, queue, 2) == ["a", "b"]


def while_it_is_consumed(case):
    """A channel that publishes and is delivered to at once."""
    channel = case.channel()
    queue = case.queue(channel)
    consumer = Consumer(channel, queue, auto_ack=True)
    for n in range(200):
        publish(channel, queue, n)
    assert consumer.wait(200) == [str(n) for n in range(200)]


CASES = [
    confirmed,
    confirmed_in_a_burst,
    tags_begin_with_one_after_select,
    seen_on_the_same_channel,
    unroutable_is_confirmed,
    mandatory,
    returned_without_confirms,
    immediate,
    to_what_is_not_there,
    to_an_internal_exchange,
    properties_arrive,
    no_properties_and_empty_ones,
    bodies_of_all_sizes,
    whose_user_it_is,
    bad_expiration,
    copies,
    a_full_queue_refuses,
    one_of_many_queues_refuses,
    to_a_hundred_queues,
    while_it_is_consumed,
]
