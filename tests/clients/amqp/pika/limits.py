"""What ends a message's stay in a queue: its time, the queue's length, a consumer that rejects it; and priorities."""

import time

import pika
from cases import best_of_three
from client import Consumer, bodies, empty, get, publish, ready, refused, until


def time_of_the_queue(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-message-ttl": 1500})
    publish(channel, queue, 1, 2)
    assert bodies(channel, queue, 1) == ["1"]
    channel.connection.sleep(1.8)
    assert ready(channel, queue)[0] == 0
    empty(channel, queue)
    publish(channel, queue, 3)
    assert bodies(channel, queue, 1) == ["3"]


def time_of_the_message(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "soon", expiration="200")
    publish(channel, queue, "later", expiration="60000")
    publish(channel, queue, "never")
    channel.connection.sleep(0.5)
    found = [get(channel, queue, auto_ack=True) for _ in range(2)]
    assert [(body, properties.expiration) for _method, properties, body in found] == [(b"later", "60000"), (b"never", None)]


def the_shorter_of_the_two(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-message-ttl": 300})
    publish(channel, queue, "a", expiration="60000")
    publish(channel, queue, "b", expiration="100")
    channel.connection.sleep(0.7)
    empty(channel, queue)
    longer = case.queue(channel, "longer", arguments={"x-message-ttl": 60000})
    publish(channel, longer, "c", expiration="100")
    channel.connection.sleep(0.4)
    empty(channel, longer)


def no_time_at_all(case):
    """Delivered at once or never."""
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-message-ttl": 0})
    publish(channel, queue, "nobody is there")
    empty(channel, queue)
    consumer = Consumer(channel.connection.channel(), queue, auto_ack=True)
    publish(channel, queue, "somebody is")
    assert consumer.wait(1) == ["somebody is"]


def what_is_out_does_not_expire(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-message-ttl": 1500})
    publish(channel, queue, 1)
    method, _properties, _body = get(channel, queue)
    channel.connection.sleep(1.8)
    # it comes back too late
    channel.basic_nack(method.delivery_tag, requeue=True)
    until("it is gone", lambda: ready(channel, queue)[0] == 0)
    empty(channel, queue)


def dead_letters(case, channel, **arguments):
    """A queue whose dead letters go to a second one: (queue, dead)."""
    dead = case.queue(channel, "dead")
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead} | {k.replace("_", "-"): v for k, v in arguments.items()}
    return case.queue(channel, arguments=arguments), dead


def death(properties, reason, queue, count=1):
    """Asserts what the newest entry of x-death says, and returns it."""
    entry = properties.headers["x-death"][0]
    assert (entry["reason"], entry["queue"], entry["count"]) == (reason, queue, count), entry
    assert entry["exchange"] is not None and entry["routing-keys"] and entry["time"].year > 2020, entry
    return entry


def dead_when_rejected(case):
    channel = case.channel()
    queue, dead = dead_letters(case, channel)
    publish(channel, queue, "one", message_id="m", headers={"mine": 1})
    publish(channel, queue, "two", "three")
    first, second, third = (get(channel, queue)[0].delivery_tag for _ in range(3))
    channel.basic_reject(first, requeue=False)
    channel.basic_ack(second)
    channel.basic_nack(third, requeue=False)
    method, properties, body = get(channel, dead, auto_ack=True)
    assert (body, method.exchange, method.routing_key, method.redelivered) == (b"one", "", dead, False)
    assert properties.message_id == "m" and properties.headers["mine"] == 1
    entry = death(properties, "rejected", queue)
    assert (entry["exchange"], entry["routing-keys"]) == ("", [queue]), entry
    head = {name: properties.headers[f"x-first-death-{name}"] for name in ("reason", "queue", "exchange")}
    assert head == {"reason": "rejected", "queue": queue, "exchange": ""}, head
    assert bodies(channel, dead, 1) == ["three"]
    empty(channel, queue)


def dead_when_expired(case):
    channel = case.channel()
    queue, dead = dead_letters(case, channel, x_message_ttl=200)
    publish(channel, queue, "of the queue")
    publish(channel, queue, "its own", expiration="100")
    found = [get(channel, dead, auto_ack=True) for _ in range(2)]
    assert [body for _method, _properties, body in found] == [b"of the queue", b"its own"]
    assert "original-expiration" not in death(found[0][1], "expired", queue)
    # or it would expire there too
    assert found[1][1].expiration is None
    assert death(found[1][1], "expired", queue)["original-expiration"] == "100"


def dead_when_too_many(case):
    channel = case.channel()
    queue, dead = dead_letters(case, channel, x_max_length=2)
    publish(channel, queue, *range(5))
    found = [get(channel, dead, auto_ack=True) for _ in range(3)]
    assert [body for _method, _properties, body in found] == [b"0", b"1", b"2"]
    death(found[0][1], "maxlen", queue)
    assert bodies(channel, queue, 2) == ["3", "4"]


def dead_letters_keep_their_key(case):
    channel = case.channel()
    exchange = case.name("dlx")
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    queue = case.queue(channel, arguments={"x-dead-letter-exchange": exchange})
    dead = case.queue(channel, "dead")
    channel.queue_bind(dead, exchange, queue)
    publish(channel, queue, "x")
    channel.basic_reject(get(channel, queue)[0].delivery_tag, requeue=False)
    method, _properties, body = get(channel, dead, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == (exchange, queue, b"x")


def dead_letters_to_nowhere(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-dead-letter-exchange": case.name("absent")})
    publish(channel, queue, "x")
    channel.basic_reject(get(channel, queue)[0].delivery_tag, requeue=False)
    assert ready(channel, queue)[0] == 0
    assert channel.is_open


def retried(case):
    """Rejected, kept for a while, tried again: the history counts each turn."""
    channel = case.channel()
    work, wait = case.name("work"), case.name("wait")
    channel.queue_declare(work, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    channel.queue_declare(
        wait, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 100}
    )
    publish(channel, work, "x")
    for turn in range(1, 4):
        method, _properties, _body = get(channel, work)
        channel.basic_reject(method.delivery_tag, requeue=False)
        method, properties, body = get(channel, work)
        channel.basic_nack(method.delivery_tag, requeue=True)
        found = {(e["queue"], e["reason"]): e["count"] for e in properties.headers["x-death"]}
        assert found == {(wait, "expired"): turn, (work, "rejected"): turn}, found
        assert properties.headers["x-death"][0]["queue"] == wait
        assert properties.headers["x-first-death-queue"] == work


def a_circle_of_its_own(case):
    """A message that would go round without anybody's doing is dropped."""
    channel = case.channel()
    queue = case.name("circle")
    channel.queue_declare(
        queue, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, "x-message-ttl": 100}
    )
    publish(channel, queue, "x")
    until("it is gone", lambda: ready(channel, queue)[0] == 0)
    channel.connection.sleep(0.3)
    assert ready(channel, queue)[0] == 0
    # rejected, it may come again and again
    publish(channel, queue, "y", expiration="60000")
    for _ in range(3):
        channel.basic_reject(get(channel, queue)[0].delivery_tag, requeue=False)


def longest(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length": 3})
    publish(channel, queue, *range(10))
    assert ready(channel, queue)[0] == 3
    # what is out does not count
    held = [get(channel, queue)[0].delivery_tag for _ in range(2)]
    publish(channel, queue, 10, 11)
    assert ready(channel, queue)[0] == 3
    for tag in held:
        channel.basic_ack(tag)
    assert bodies(channel, queue, 3) == ["9", "10", "11"]


def given_back_to_a_full_queue(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length": 2})
    publish(channel, queue, 1, 2)
    held = get(channel, queue)[0].delivery_tag
    publish(channel, queue, 3)
    channel.basic_nack(held, requeue=True)
    until("two are left", lambda: ready(channel, queue)[0] == 2)
    assert bodies(channel, queue, 2) == ["2", "3"]


def largest(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length-bytes": 100})
    publish(channel, queue, "a" * 60, "b" * 40)
    assert ready(channel, queue)[0] == 2
    publish(channel, queue, "c")
    assert bodies(channel, queue, 2) == ["b" * 40, "c"]
    publish(channel, queue, "d" * 101)
    empty(channel, queue)


def refused_and_dead(case):
    channel = case.channel()
    queue, dead = dead_letters(case, channel, x_max_length=1, x_overflow="reject-publish-dlx")
    publish(channel, queue, 1)
    try:
        publish(channel, queue, 2)
    except pika.exceptions.NackError:
        pass
    else:
        raise AssertionError("it was confirmed")
    _method, properties, body = get(channel, dead, auto_ack=True)
    assert body == b"2"
    death(properties, "maxlen", queue)
    assert bodies(channel, queue, 1) == ["1"]


def priorities(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-priority": 5})
    for body, priority in (("a", None), ("b", 3), ("c", 5), ("d", 0), ("e", 3), ("f", 9), ("g", 1)):
        publish(channel, queue, body, **({} if priority is None else {"priority": priority}))
    found = [get(channel, queue) for _ in range(7)]
    # more than there is counts as the highest, and none as the lowest
    assert [body.decode() for _method, _properties, body in found] == ["c", "f", "b", "e", "g", "a", "d"]
    # what comes back has its place again
    for method, _properties, _body in found:
        channel.basic_nack(method.delivery_tag, requeue=True)
    assert bodies(channel, queue, 7) == ["c", "f", "b", "e", "g", "a", "d"]


def priorities_overtake(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-priority": 10})
    reader = channel.connection.channel()
    reader.basic_qos(prefetch_count=1)
    consumer = Consumer(reader, queue)
    publish(channel, queue, "first")
    consumer.wait(1)
    publish(channel, queue, "low", priority=1)
    publish(channel, queue, "high", priority=8)
    reader.basic_ack(1)
    consumer.wait(2)
    reader.basic_ack(2)
    assert consumer.wait(3) == ["first", "high", "low"]


def without_priorities(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "low", priority=1)
    publish(channel, queue, "high", priority=9)
    _method, properties, body = get(channel, queue, auto_ack=True)
    assert (body, properties.priority) == (b"low", 1)


QUORUM = {"x-queue-type": "quorum"}


def a_quorum_queue(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = channel.queue_declare(case.name("quorum"), durable=True, arguments=QUORUM).method.queue
    publish(channel, queue, *range(5), delivery_mode=2)
    until("all are there", lambda: ready(channel, queue)[0] == 5)
    reader = connection.channel()
    consumer = Consumer(reader, queue)
    consumer.wait(5)
    reader.basic_ack(2, multiple=True)
    reader.close()
    again = Consumer(connection.channel(), queue)
    assert again.wait(3) == ["2", "3", "4"]
    assert all(method.redelivered for method, _properties, _body in again.got)
    again.channel.basic_ack(0, multiple=True)
    for refusal in ({"exclusive": True, "durable": True}, {"durable": False}, {"durable": True, "auto_delete": True}):
        refused(406, lambda r=refusal: connection.channel().queue_declare(case.name("other"), arguments=QUORUM, **r))
    refused(406, lambda: connection.channel().queue_declare(queue, durable=True), "x-queue-type")
    channel.queue_delete(queue)


def delivered_too_often(case):
    connection = case.connection()
    channel = case.channel(connection)
    dead = case.queue(channel, "dead")
    arguments = QUORUM | {"x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue_declare(case.name("quorum"), durable=True, arguments=arguments).method.queue
    publish(channel, queue, "poison")
    for turn in range(3):
        method, properties, _body = get(channel, queue)
        counted = (properties.headers or {}).get("x-delivery-count", 0)
        assert (counted, method.redelivered) == (turn, turn > 0), (turn, counted)
        channel.basic_reject(method.delivery_tag, requeue=True)
    _method, properties, body = get(channel, dead, auto_ack=True)
    assert body == b"poison"
    death(properties, "delivery_limit", queue)
    empty(channel, queue)
    channel.queue_delete(queue)


def exact_times(case):
    """Not a second after they are due, whatever stands in the queue."""
    channel = case.channel()
    queue, dead = dead_letters(case, channel)
    consumer = Consumer(channel.connection.channel(), dead, auto_ack=True)

    def try_it():
        consumer.got.clear()
        began = time.monotonic()
        for body, expiration in (("a", 300), ("b", 350), ("c", 400)):
            publish(channel, queue, body, expiration=str(expiration))
        assert consumer.wait(3) == ["a", "b", "c"]
        took = time.monotonic() - began
        assert took > 0.4
        return took

    best_of_three(1.4, try_it)


CASES = [
    time_of_the_queue,
    time_of_the_message,
    the_shorter_of_the_two,
    no_time_at_all,
    what_is_out_does_not_expire,
    dead_when_rejected,
    dead_when_expired,
    dead_when_too_many,
    dead_letters_keep_their_key,
    dead_letters_to_nowhere,
    retried,
    a_circle_of_its_own,
    longest,
    given_back_to_a_full_queue,
    largest,
    refused_and_dead,
    priorities,
    priorities_overtake,
    without_priorities,
    a_quorum_queue,
    delivered_too_often,
    exact_times,
]
