"""A connection of AMQP 0-9-1 below pika: pika writes and reads the frames, and the test says which, so that it can send what no client
would, and hear at once what comes."""

import os
import socket
import struct
import time

from pika import BasicProperties, frame, spec

HEADER = b"AMQP\x00\x00\x09\x01"
PROPERTIES = {"product": "raw", "capabilities": {"authentication_failure_close": True, "basic.nack": True}}


class Closed(Exception):
    """The server has closed the socket."""


class Raw:
    """One socket to an address (host:port; that of the broker under test). What is read has to come within `limit` seconds."""

    def __init__(self, address=None, limit=30):
        host, port = (address or os.environ["AMQP"]).rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), limit)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(limit)
        self.limit = limit
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def frame(self):
        """The next frame, heartbeats too."""
        while True:
            consumed, found = frame.decode_frame(self.buffer)
            if found is not None:
                self.buffer = self.buffer[consumed:]
                return found
            self.more()

    def more(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("the socket was closed")
        self.buffer += data

    def ended(self):
        """Waits until the server closes the socket, and returns what it has sent meanwhile."""
        try:
            while True:
                self.more()
        except Closed:
            return self.buffer

    def method(self, kind, channel=None):
        """The next method, which has to be of this kind; heartbeats are passed over."""
        deadline = time.monotonic() + self.limit
        while time.monotonic() < deadline:
            found = self.frame()
            if isinstance(found, frame.Heartbeat):
                continue
            assert isinstance(found, frame.Method), f"{kind.NAME} was expected, not {found}"
            assert isinstance(found.method, kind), f"{kind.NAME} was expected, not {found.method}"
            assert channel is None or found.channel_number == channel, f"on channel {found.channel_number}"
            return found.method
        raise AssertionError(f"no {kind.NAME} after {self.limit} s")

    def start(self):
        self.send(HEADER)
        return self.method(spec.Connection.Start)

    def secure(self, mechanism="PLAIN", response=b"\0guest\0guest"):
        """Answers the start, and returns what is offered."""
        self.write(0, spec.Connection.StartOk(PROPERTIES, mechanism, response, "en_US"))
        return self.method(spec.Connection.Tune)

    def log_in(self, frame_max=None, heartbeat=0, vhost="/"):
        self.start()
        tune = self.secure()
        self.frame_max = frame_max or tune.frame_max
        self.write(0, spec.Connection.TuneOk(tune.channel_max, self.frame_max, heartbeat))
        self.write(0, spec.Connection.Open(vhost, "", False))
        self.method(spec.Connection.OpenOk)
        return self

    def write(self, channel, method):
        self.send(frame.Method(channel, method).marshal())

    def open_channel(self, number):
        self.write(number, spec.Channel.Open(""))
        self.method(spec.Channel.OpenOk, number)
        return RawChannel(self, number)

    def closed(self):
        """The server's connection.close, answered."""
        close = self.method(spec.Connection.Close, 0)
        self.write(0, spec.Connection.CloseOk())
        return close

    def close(self):
        self.socket.close()


class RawChannel:
    """One channel of it."""

    def __init__(self, raw, number):
        self.raw, self.number = raw, number

    def write(self, method):
        self.raw.write(self.number, method)

    def expect(self, kind):
        return self.raw.method(kind, self.number)

    def call(self, method, kind):
        self.write(method)
        return self.expect(kind)

    def publish(self, exchange, key, body, immediate=False, mandatory=False, properties=None):
        method = spec.Basic.Publish(0, exchange, key, mandatory, immediate)
        head = frame.Header(self.number, len(body), properties or BasicProperties())
        most = self.raw.frame_max - 8
        parts = [frame.Body(self.number, body[at : at + most]).marshal() for at in range(0, len(body), most)]
        self.raw.send(b"".join([frame.Method(self.number, method).marshal(), head.marshal(), *parts]))

    def closed(self):
        """The server's channel.close, answered."""
        close = self.expect(spec.Channel.Close)
        self.write(spec.Channel.CloseOk())
        return close

    def closed_connection(self):
        return self.raw.closed()


def any_frame(kind, channel, payload, end=b"\xce"):
    """A frame of any kind, with any end."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end
