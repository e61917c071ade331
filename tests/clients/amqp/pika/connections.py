"""Connections and channels: who is let in, what is negotiated, heartbeats, and what closes what."""

import struct
import time

import pika
from client import bodies, empty, parameters, publish, refused
from pika.exceptions import AMQPConnectionError
from amqp_wire import HEADER, Closed, Raw, any_frame

METHOD, HEAD, BODY, HEARTBEAT = 1, 2, 3, 8
spec = pika.spec


def what_it_says_of_itself(case):
    start = Raw().start()
    assert (start.version_major, start.version_minor) == (0, 9)
    offered = (set(str(start.mechanisms).strip("b'").split()), str(start.locales).strip("b'").split())
    assert {"PLAIN", "AMQPLAIN"} <= offered[0] and "en_US" in offered[1], offered
    assert {"product", "version", "platform", "capabilities"} <= set(start.server_properties), start.server_properties


def capabilities(case):
    """All that RabbitMQ's clients look for; what is said here the other cases hold it to."""
    offered = Raw().start().server_properties["capabilities"]
    wanted = (
        "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
        "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
    )  # fmt: skip
    missing = [name for name in wanted if offered.get(name) is not True]
    assert not missing, f"not offered: {missing}"


def another_protocol(case):
    """Whoever speaks something else is told what is spoken here."""
    for greeting in (b"AMQP\x01\x01\x00\x0a", b"AMQP\x00\x00\x08\x00", b"HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n"):
        raw = Raw()
        raw.send(greeting)
        assert raw.ended().startswith(HEADER), greeting


def a_wrong_password(case):
    raw = Raw()
    raw.start()
    raw.write(0, spec.Connection.StartOk(
        {"capabilities": {"authentication_failure_close": True}}, "PLAIN", b"\0guest\0wrong", "en_US"))  # fmt: skip
    close = raw.closed()
    assert close.reply_code == 403 and "ACCESS_REFUSED" in close.reply_text, close
    for user, password in (("guest", ""), ("nobody", "guest"), ("", "")):
        try:
            pika.BlockingConnection(parameters(credentials=pika.PlainCredentials(user, password)))
        except AMQPConnectionError:
            continue
        raise AssertionError(f"{user!r} was let in")


def mechanisms(case):
    raw = Raw()
    raw.start()
    login, password = b"guest", b"guest"
    table = b"\x05LOGINS" + struct.pack(">I", len(login)) + login + b"\x08PASSWORDS" + struct.pack(">I", len(password)) + password
    raw.secure("AMQPLAIN", table)
    raw = Raw()
    raw.start()
    raw.write(0, spec.Connection.StartOk({}, "NO-SUCH", b"", "en_US"))
    raw.ended()


def virtual_host(case):
    raw = Raw()
    raw.start()
    tune = raw.secure()
    raw.write(0, spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
    raw.write(0, spec.Connection.Open(case.name("absent"), "", False))
    close = raw.closed()
    assert close.reply_code == 530 and case.name("absent") in close.reply_text, close


def negotiated(case):
    raw = Raw()
    raw.start()
    tune = raw.secure()
    assert tune.frame_max == 131072 and tune.channel_max == 2047 and tune.heartbeat == 60, tune
    raw.close()
    for frame_max in (4096, 8192, 131072):
        raw = Raw().log_in(frame_max=frame_max)
        raw.open_channel(1)
        raw.close()


def more_than_was_offered(case):
    raw = Raw()
    raw.start()
    tune = raw.secure()
    raw.write(0, spec.Connection.TuneOk(tune.channel_max, tune.frame_max * 2, 0))
    raw.write(0, spec.Connection.Open("/", "", False))
    try:
        assert raw.closed().reply_code in (501, 530)
    except Closed:
        pass


def large_things_are_parted(case):
    """No frame is larger than the client has agreed to."""
    channel = case.channel()
    queue = case.queue(channel, exclusive=False, auto_delete=True)
    publish(channel, queue, "x" * 10_000)
    raw = Raw().log_in(frame_max=4096)
    raw_channel = raw.open_channel(1)
    raw_channel.call(spec.Basic.Get(queue=queue), spec.Basic.GetOk)
    head = raw.frame()
    assert head.body_size == 10_000
    got = 0
    while got < 10_000:
        part = raw.frame().fragment
        assert 0 < len(part) <= 4088, len(part)
        got += len(part)
    raw.close()
    channel.queue_delete(queue)


def heartbeats(case):
    """They come, and a client from which none do is missed."""
    raw = Raw().log_in(heartbeat=1)
    began, beats = time.monotonic(), 0
    try:
        while time.monotonic() - began < 30:
            assert isinstance(raw.frame(), pika.frame.Heartbeat)
            beats += 1
    except Closed:
        pass
    assert beats >= 1 and 1.5 < time.monotonic() - began < 30, f"{beats} in {time.monotonic() - began:.1f} s"


def kept_alive_by_heartbeats(case):
    connection = case.connection(heartbeat=1)
    channel = case.channel(connection)
    queue = case.queue(channel)
    connection.sleep(5)
    publish(channel, queue, "still here")
    assert bodies(channel, queue, 1) == ["still here"]


def any_traffic_is_as_good(case):
    raw = Raw().log_in(heartbeat=1)
    channel = raw.open_channel(1)
    for _ in range(14):
        time.sleep(0.3)
        channel.write(spec.Basic.Qos(0, 1, False))
    raw.write(0, spec.Connection.Close(200, "bye", 0, 0))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = raw.frame()
        if isinstance(found, pika.frame.Method) and isinstance(found.method, spec.Connection.CloseOk):
            return
    raise AssertionError("no close-ok")


def no_heartbeats(case):
    raw = Raw().log_in(heartbeat=0)
    time.sleep(3)
    raw.open_channel(1)
    raw.close()


def closed_by_the_client(case):
    raw = Raw().log_in()
    raw.open_channel(7)
    raw.write(0, spec.Connection.Close(200, "bye", 0, 0))
    raw.method(spec.Connection.CloseOk, 0)
    raw.close()


def an_error_costs_its_channel_alone(case):
    connection = case.connection()
    good, bad = case.channel(connection), connection.channel()
    queue = case.queue(good)
    publish(good, queue, "before")
    refused(404, lambda: bad.queue_declare(case.name("absent"), passive=True), "NOT_FOUND")
    assert connection.is_open and good.is_open
    publish(good, queue, "after")
    assert bodies(good, queue, 2) == ["before", "after"]


def a_closed_channels_number_is_free(case):
    raw = Raw().log_in()
    for _ in range(3):
        channel = raw.open_channel(5)
        channel.write(spec.Queue.Declare(queue=case.name("absent"), passive=True))
        # what was sent before the close was read is passed over
        channel.write(spec.Queue.Declare(queue=case.name("absent"), passive=True))
        close = channel.closed()
        assert (close.reply_code, close.class_id, close.method_id) == (404, 50, 10)
    channel = raw.open_channel(5)
    channel.call(spec.Channel.Close(200, "bye", 0, 0), spec.Channel.CloseOk)
    raw.open_channel(5)
    raw.close()


def many_channels(case):
    connection = case.connection()
    channels = [connection.channel() for _ in range(500)]
    queue = case.queue(channels[0])
    for n, channel in enumerate(channels):
        publish(channel, queue, n)
    # each in its own order; among each other in any
    assert sorted(bodies(channels[-1], queue, 500), key=int) == [str(n) for n in range(500)]
    for channel in channels:
        channel.close()


def channel_numbers(case):
    raw = Raw().log_in()
    raw.write(9, spec.Queue.Declare(queue="x", exclusive=True))
    assert raw.closed().reply_code == 504
    raw = Raw().log_in()
    raw.open_channel(1)
    raw.write(1, spec.Channel.Open(""))
    assert raw.closed().reply_code == 504


def costs_the_connection(data, *codes):
    """Asserts that these bytes, on an open connection with an open channel 1, are answered by a close with one of these codes."""
    raw = Raw().log_in()
    raw.open_channel(1)
    raw.send(data)
    close = raw.closed()
    assert close.reply_code in codes, f"{close.reply_code} {close.reply_text}"
    raw.ended()


def frames_out_of_shape(case):
    costs_the_connection(any_frame(HEARTBEAT, 0, b"", end=b"\x00"), 501)
    costs_the_connection(any_frame(7, 1, b"what"), 501, 505)
    costs_the_connection(any_frame(HEARTBEAT, 1, b""), 501, 505)
    costs_the_connection(struct.pack(">BHI", BODY, 1, 1 << 30) + b"x" * 64, 501)


def frames_out_of_place(case):
    head = pika.frame.Header(1, 10, pika.BasicProperties()).marshal()
    body = pika.frame.Body(1, b"0123456789").marshal()
    method = pika.frame.Method(1, spec.Basic.Publish(0, "", "k", False, False)).marshal()
    costs_the_connection(head, 505)
    costs_the_connection(body, 505)
    costs_the_connection(method + body, 505)
    costs_the_connection(method + method, 505)
    costs_the_connection(method + head + head, 505)
    costs_the_connection(method + head + pika.frame.Method(1, spec.Basic.Qos(0, 1, False)).marshal(), 505)


def more_body_than_announced(case):
    method = pika.frame.Method(1, spec.Basic.Publish(0, "", "k", False, False)).marshal()
    head = pika.frame.Header(1, 3, pika.BasicProperties()).marshal()
    costs_the_connection(method + head + pika.frame.Body(1, b"four").marshal(), 501, 505)


def arguments_cut_off(case):
    # queue.declare with a name that is longer than the frame
    costs_the_connection(any_frame(METHOD, 1, struct.pack(">HHH", 50, 10, 0) + b"\xffshort"), 501, 502)
    # a table that ends beyond the arguments
    costs_the_connection(any_frame(METHOD, 1, struct.pack(">HHH", 50, 10, 0) + b"\x01q\x00" + struct.pack(">I", 1000) + b"\x01k"), 501, 502)


def methods_that_do_not_exist(case):
    """RabbitMQ closes the socket without a word; the specification's code is better."""
    costs_the_connection(any_frame(METHOD, 1, struct.pack(">HH", 50, 99)), 540, 503)
    costs_the_connection(any_frame(METHOD, 1, struct.pack(">HH", 777, 10)), 540, 503)


def methods_of_the_server(case):
    """What only a server sends."""
    ok = pika.frame.Method(1, spec.Queue.DeclareOk("q", 1, 1)).marshal()
    costs_the_connection(ok, 503, 540)


def nested_without_end(case):
    """A table in a table in a table: refused, or taken, but nobody falls."""
    table = b""
    for _ in range(6000):
        entry = b"\x01k" + b"F" + struct.pack(">I", len(table)) + table
        table = entry
    arguments = struct.pack(">I", len(table)) + table
    name = case.name("deep").encode()
    payload = struct.pack(">HHH", 50, 10, 0) + bytes([len(name)]) + name + b"\x08" + arguments
    raw = Raw().log_in()
    raw.open_channel(1)
    raw.send(any_frame(METHOD, 1, payload))
    try:
        found = raw.frame()
    except Closed:
        found = None
    assert found is None or found.method.NAME in ("Connection.Close", "Channel.Close", "Queue.DeclareOk"), found
    channel = case.channel()
    queue = case.queue(channel)
    publish(channel, queue, "alive")
    assert bodies(channel, queue, 1) == ["alive"]


def silence_before_the_login(case):
    """Frames before the header, and a login that is larger than it may be."""
    raw = Raw()
    raw.send(any_frame(HEARTBEAT, 0, b""))
    raw.ended()
    raw = Raw()
    raw.start()
    raw.send(struct.pack(">BHI", METHOD, 0, 1 << 20) + b"x" * 8192)
    raw.ended()


def a_body_that_never_comes(case):
    """The channel waits for the rest; the others go on."""
    raw = Raw().log_in()
    waiting, other = raw.open_channel(1), raw.open_channel(2)
    waiting.write(spec.Basic.Publish(0, "", "k", False, False))
    raw.send(pika.frame.Header(1, 1 << 20, pika.BasicProperties()).marshal())
    raw.send(pika.frame.Body(1, b"a part").marshal())
    other.call(spec.Queue.Declare(queue=case.name("q"), exclusive=True), spec.Queue.DeclareOk)
    raw.close()
    channel = case.channel()
    queue = case.queue(channel)
    empty(channel, queue)


CASES = [
    what_it_says_of_itself,
    capabilities,
    another_protocol,
    a_wrong_password,
    mechanisms,
    virtual_host,
    negotiated,
    more_than_was_offered,
    large_things_are_parted,
    heartbeats,
    kept_alive_by_heartbeats,
    any_traffic_is_as_good,
    no_heartbeats,
    closed_by_the_client,
    an_error_costs_its_channel_alone,
    a_closed_channels_number_is_free,
    many_channels,
    channel_numbers,
    frames_out_of_shape,
    frames_out_of_place,
    more_body_than_announced,
    arguments_cut_off,
    methods_that_do_not_exist,
    methods_of_the_server,
    nested_without_end,
    silence_before_the_login,
    a_body_that_never_comes,
]
