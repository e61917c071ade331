"""Queues: how they are declared, compared, deleted and purged, and when they go by themselves."""

import time

from client import Consumer, bodies, empty, get, publish, ready, refused, until


def server_named(case):
    channel = case.channel()
    first, second = (channel.queue_declare("", exclusive=True).method.queue for _ in range(2))
    assert first.startswith("amq.gen-") and first != second, (first, second)
    # an empty name means the queue that the channel has declared last
    publish(channel, second, "hello")
    assert channel.basic_get("", True)[2] == b"hello"


def declared_again(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, 1, 2, 3)
    assert ready(channel, queue) == (3, 0)
    Consumer(case.connection().channel(), case.queue(channel, "other", exclusive=False, auto_delete=True))
    assert ready(channel, case.name("other"))[1] == 1
    again = channel.queue_declare(queue, exclusive=True).method
    assert (again.message_count, again.consumer_count) == (3, 0)


def declared_otherwise(case):
    connection = case.connection()
    declared = {"x-max-length": 10, "x-message-ttl": 60000}
    queue = case.queue(connection.channel(), exclusive=False, durable=True, arguments=declared)

    def differs(word, durable=True, auto_delete=False, arguments=declared):
        channel = connection.channel()
        refused(406, lambda: channel.queue_declare(queue, durable=durable, auto_delete=auto_delete, arguments=arguments), word)

    differs("durable", durable=False)
    differs("auto_delete", auto_delete=True)
    differs("x-max-length", arguments=declared | {"x-max-length": 11})
    differs("x-message-ttl", arguments={"x-max-length": 10})
    differs("x-expires", arguments=declared | {"x-expires": 60000})
    connection.channel().queue_declare(queue, durable=True, arguments=declared)
    connection.channel().queue_delete(queue)


def numbers_of_any_size_are_equal(case):
    """An argument is a number, whichever of the table's types a client has sent it as."""
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length": 10})
    channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": 10 + (1 << 40) - (1 << 40)})
    refused(406, lambda: channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": 10 + (1 << 40)}), "x-max-length")


def unknown_arguments(case):
    """They are kept, and the declaration stands."""
    channel = case.channel()
    arguments = {"x-my-own": "yes", "note": 7, "nested": {"list": [1, "two", {"three": True}]}}
    queue = case.queue(channel, arguments=arguments)
    channel.queue_declare(queue, exclusive=True, arguments=arguments)


def passive(case):
    connection = case.connection()
    queue = case.queue(connection.channel())
    # what else the declaration says is not looked at
    connection.channel().queue_declare(queue, passive=True, durable=True)
    refused(404, lambda: connection.channel().queue_declare(case.name("absent"), passive=True), case.name("absent"))


def reserved_name(case):
    refused(403, lambda: case.channel().queue_declare("amq.mine"), "reserved")


def long_and_foreign_names(case):
    channel = case.channel()
    for name in ("q" * 246 + case.salt + "x", f"zażółć-gęślą-{case.salt}", f" with spaces / and * # % {case.salt}"):
        assert channel.queue_declare(name, exclusive=True).method.queue == name
        publish(channel, name, name)
        assert bodies(channel, name, 1) == [name]


def exclusive(case):
    owner, stranger = case.connection(), case.connection()
    queue = case.queue(owner.channel(), exclusive=True)
    for ask in (
        lambda c: c.queue_declare(queue, exclusive=True),
        lambda c: c.queue_declare(queue, passive=True),
        lambda c: c.basic_get(queue),
        lambda c: c.basic_consume(queue, lambda *_: None),
        lambda c: c.queue_purge(queue),
        lambda c: c.queue_bind(queue, "amq.direct", "k"),
        lambda c: c.queue_delete(queue),
    ):
        refused(405, lambda ask=ask: ask(stranger.channel()), queue)
    # anyone may publish to it, and its own connection may use it on any channel
    publish(case.channel(stranger), queue, "hello")
    assert bodies(owner.channel(), queue, 1) == ["hello"]


def exclusive_goes_with_its_connection(case):
    owner, other = case.connection(), case.connection()
    queue = case.queue(owner.channel(), exclusive=True)
    owner.close()

    def gone():
        try:
            case_channel = other.channel()
            case_channel.queue_declare(queue, passive=True)
        except Exception as error:
            return getattr(error, "reply_code", None) == 404
        return False

    until("the queue is gone", gone)


def auto_delete(case):
    connection = case.connection()
    queue = case.queue(connection.channel(), exclusive=False, auto_delete=True)
    time.sleep(0.2)
    # none has been there yet
    assert ready(connection.channel(), queue) == (0, 0)
    channel = connection.channel()
    one, two = Consumer(channel, queue), Consumer(channel, queue)
    channel.basic_cancel(one.tag)
    assert ready(channel, queue) == (0, 1)
    channel.basic_cancel(two.tag)
    refused(404, lambda: connection.channel().queue_declare(queue, passive=True))


def auto_delete_when_a_channel_closes(case):
    connection = case.connection()
    queue = case.queue(connection.channel(), exclusive=False, auto_delete=True)
    channel = connection.channel()
    Consumer(channel, queue)
    channel.close()

    def gone():
        try:
            connection.channel().queue_declare(queue, passive=True)
        except Exception as error:
            return getattr(error, "reply_code", None) == 404

    until("the queue is gone", gone)


def deleted(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel, exclusive=False)
    publish(channel, queue, 1, 2)
    assert channel.queue_delete(queue).method.message_count == 2
    refused(404, lambda: connection.channel().queue_declare(queue, passive=True))
    # what is not there is deleted already
    assert channel.queue_delete(queue).method.message_count == 0


def deleted_if_unused_and_if_empty(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel, exclusive=False)
    publish(channel, queue, 1)
    refused(406, lambda: connection.channel().queue_delete(queue, if_empty=True), "not empty")
    channel.queue_purge(queue)
    consumer = Consumer(channel, queue)
    refused(406, lambda: connection.channel().queue_delete(queue, if_unused=True), "in use")
    channel.basic_cancel(consumer.tag)
    channel.queue_delete(queue, if_unused=True, if_empty=True)
    refused(404, lambda: connection.channel().queue_declare(queue, passive=True))


def consumers_are_told_of_the_deletion(case):
    channel = case.channel()
    queue = case.queue(channel, exclusive=False)
    consumer = Consumer(channel, queue)
    publish(channel, queue, "hello")
    consumer.wait(1)
    case.connection().channel().queue_delete(queue)
    until("it is told", lambda: (channel.connection.process_data_events(0.05), consumer.cancelled)[1])
    assert channel.is_open


def declared_anew_after_the_deletion(case):
    channel = case.channel()
    queue = case.queue(channel, arguments={"x-max-length": 1})
    publish(channel, queue, "old")
    channel.queue_delete(queue)
    channel.queue_declare(queue, exclusive=True)
    empty(channel, queue)
    publish(channel, queue, "new", "newer")
    assert bodies(channel, queue, 2) == ["new", "newer"]


def purged(case):
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, *range(5))
    held, _properties, _body = get(channel, queue)
    # what is out stays out
    assert channel.queue_purge(queue).method.message_count == 4
    empty(channel, queue)
    channel.basic_nack(held.delivery_tag)
    assert bodies(channel, queue, 1) == ["0"]
    assert channel.queue_purge(queue).method.message_count == 0
    refused(404, lambda: channel.queue_purge(case.name("absent")))


def expires_when_idle(case):
    connection = case.connection()
    channel = case.channel(connection)
    idle = case.queue(channel, "idle", exclusive=False, arguments={"x-expires": 1000})
    used = case.queue(channel, "used", exclusive=False, arguments={"x-expires": 1000})
    consumer = Consumer(channel, used)
    connection.sleep(3)
    refused(404, lambda: connection.channel().queue_declare(idle, passive=True))
    assert ready(channel, used) == (0, 1)
    channel.basic_cancel(consumer.tag)
    connection.sleep(3)
    refused(404, lambda: connection.channel().queue_declare(used, passive=True))


def bad_arguments(case):
    connection = case.connection()
    for name, value in (
        ("x-message-ttl", -1),
        ("x-message-ttl", "soon"),
        ("x-expires", 0),
        ("x-expires", "soon"),
        ("x-max-length", -1),
        ("x-max-length", "many"),
        ("x-max-length-bytes", -1),
        ("x-overflow", "spill"),
        ("x-max-priority", 256),
        ("x-max-priority", -1),
        ("x-queue-type", "heap"),
        ("x-dead-letter-exchange", 7),
        ("x-dead-letter-routing-key", "without-an-exchange"),
        ("x-single-active-consumer", "yes"),
        ("x-queue-mode", "eager"),
    ):
        channel = connection.channel()
        arguments = {name: value}
        refused(406, lambda: channel.queue_declare(case.name("bad"), exclusive=True, arguments=arguments), name)


def arguments_of_another_kind(case):
    """What the kind of queue does not know is refused, and not forgotten."""
    connection = case.connection()
    classic = {"x-delivery-limit": 3}
    refused(406, lambda: connection.channel().queue_declare(case.name("classic"), exclusive=True, arguments=classic), "x-delivery-limit")
    quorum = {"x-queue-type": "quorum", "x-queue-mode": "lazy"}
    refused(406, lambda: connection.channel().queue_declare(case.name("quorum"), durable=True, arguments=quorum), "x-queue-mode")
    case.queue(connection.channel(), arguments={"x-queue-type": "classic", "x-queue-version": 2})


CASES = [
    server_named,
    declared_again,
    declared_otherwise,
    numbers_of_any_size_are_equal,
    unknown_arguments,
    passive,
    reserved_name,
    long_and_foreign_names,
    exclusive,
    exclusive_goes_with_its_connection,
    auto_delete,
    auto_delete_when_a_channel_closes,
    deleted,
    deleted_if_unused_and_if_empty,
    consumers_are_told_of_the_deletion,
    declared_anew_after_the_deletion,
    purged,
    expires_when_idle,
    bad_arguments,
    arguments_of_another_kind,
]
