"""What the cases of pika share: connections that are closed when a case ends, names of its own, and what it waits for."""

import contextlib
import os
import time
import uuid

import pika
from amqp_wire import Raw
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

HOST, PORT = os.environ["AMQP"].rsplit(":", 1)
GUEST = pika.PlainCredentials("guest", "guest")


def parameters(**options):
    """Those of a connection; a case that waits for an answer that does not come fails, and does not hang."""
    settings = {"credentials": GUEST, "heartbeat": 60, "blocked_connection_timeout": 60, "socket_timeout": 30} | options
    return pika.ConnectionParameters(HOST, int(PORT), **settings)


class Case:
    """What one case opens."""

    def __init__(self):
        self.open = []
        self.salt = uuid.uuid4().hex[:8]

    def name(self, what):
        """A name that no other case has."""
        return f"{what}-{self.salt}"

    def connection(self, **options):
        connection = pika.BlockingConnection(parameters(**options))
        self.open.append(connection)
        return connection

    def channel(self, connection=None):
        """A channel on which what is published is confirmed before the call returns."""
        channel = (connection or self.connection()).channel()
        channel.confirm_delivery()
        return channel

    def queue(self, channel, what="queue", *, exclusive=True, **options):
        """Declares a queue and says how it is called; it goes with its connection unless a case wants otherwise."""
        return channel.queue_declare(self.name(what), exclusive=exclusive, **options).method.queue

    def close(self):
        for connection in reversed(self.open):
            with contextlib.suppress(AMQPError):
                connection.close()


def publish(channel, queue, *bodies, exchange="", **properties):
    """Publishes these, each confirmed."""
    for body in bodies:
        channel.basic_publish(exchange, queue, str(body).encode(), pika.BasicProperties(**properties) if properties else None)


def burst(queue, bodies, exchange="", **properties):
    """Publishes many at once, over a connection of its own, and returns when all are confirmed."""
    raw = Raw().log_in()
    channel = raw.open_channel(1)
    channel.call(pika.spec.Confirm.Select(nowait=False), pika.spec.Confirm.SelectOk)
    count = 0
    for count, body in enumerate(bodies, 1):
        channel.publish(exchange, queue, str(body).encode(), properties=pika.BasicProperties(**properties))
    waiting = set(range(1, count + 1))
    while waiting:
        ack = channel.expect(pika.spec.Basic.Ack)
        waiting -= {tag for tag in waiting if tag <= ack.delivery_tag} if ack.multiple else {ack.delivery_tag}
    raw.close()


def until(what, condition, limit=30):
    """Waits for a condition, and returns what it has said then."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not after {limit} s"
        time.sleep(0.02)
    return found


def get(channel, queue, limit=30, auto_ack=False):
    """The next message, which may be a moment away: (method, properties, body)."""
    return until(f"a message in {queue}", lambda: (found := channel.basic_get(queue, auto_ack))[0] and found, limit)


def empty(channel, queue):
    """Asserts that nothing is there to be had."""
    method, _properties, body = channel.basic_get(queue, True)
    assert method is None, f"{queue} still has {body!r}"


def bodies(channel, queue, count=None):
    """Takes so many messages, or all that are there, and returns what is in them."""
    found = []
    while count is None or len(found) < count:
        _method, _properties, body = get(channel, queue, auto_ack=True) if count else channel.basic_get(queue, True)
        if body is None:
            return found
        found.append(body.decode())
    return found


def ready(channel, queue):
    """How many messages the queue says are ready, and how many consumers it has."""
    found = channel.queue_declare(queue, passive=True).method
    return found.message_count, found.consumer_count


class Consumer:
    """Keeps what is delivered; acknowledges only when it is told to."""

    def __init__(self, channel, queue, **options):
        self.channel, self.got, self.cancelled = channel, [], False
        channel.add_on_cancel_callback(self.told)
        self.tag = channel.basic_consume(queue, self.take, **options)

    def take(self, _channel, method, properties, body):
        self.got.append((method, properties, body.decode()))

    def told(self, _frame):
        self.cancelled = True

    @property
    def bodies(self):
        return [body for _method, _properties, body in self.got]

    def tags(self):
        return [method.delivery_tag for method, _properties, _body in self.got]

    def wait(self, count, limit=30):
        """Waits until it has so many, and returns what is in them."""
        deadline = time.monotonic() + limit
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} delivered after {limit} s: {self.bodies[:5]}"
            self.channel.connection.process_data_events(0.05)
        return self.bodies

    def quiet(self, seconds=0.3):
        """Asserts that nothing more comes for a while."""
        before = len(self.got)
        self.channel.connection.sleep(seconds)
        assert len(self.got) == before, f"delivered although it must not be: {self.bodies[before:]}"


def refused(code, ask, *words):
    """Asserts that a request closes its channel with this code, and that the text has these words."""
    return _closed(ChannelClosedByBroker, code, ask, words)


def disconnected(code, ask, *words):
    """The same of a request that costs the connection."""
    return _closed(ConnectionClosedByBroker, code, ask, words)


def _closed(kind, code, ask, words):
    try:
        ask()
    except kind as error:
        assert error.reply_code == code, f"{code} was expected, not {error.reply_code} {error.reply_text}"
        for word in words:
            assert word in error.reply_text, f"{word!r} is not in {error.reply_text!r}"
        return error.reply_text
    raise AssertionError(f"{code} was expected, and nothing was refused")
