"""A client of Kafka's protocol without any manners of its own: requests byte by byte, on a plain socket.

A library would retry, reconnect and read on by itself, and hides how a batch was stored; what is here does just what it is told. All
messages are in versions without compact fields.
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS, CREATE_TOPICS = 0, 1, 2, 3, 18, 19
FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 10, 11, 12, 13, 14


def string(value):
    if value is None:
        return b"\xff\xff"
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def blob(value):
    return struct.pack(">i", len(value)) + value


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def frame(api, version, correlation, body, client="wire"):
    head = struct.pack(">hhi", api, version, correlation) + string(client)
    return struct.pack(">i", len(head) + len(body)) + head + body


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(value):
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def record(value, number=0):
    """One without a key, the `number`th of its batch."""
    body = b"\0" + varint(0) + varint(number) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(values):
    """A v2 batch, not compressed. Slow for much: the checksum is Python's own."""
    return batch_around(b"".join(record(value, number) for number, value in enumerate(values)), len(values))


def batch_around(records, count, attributes=0, producer=(-1, -1, -1)):
    """A v2 batch around these bytes, whatever they are; `producer` is an idempotent one's id, epoch and sequence."""
    now_ms = int(time.time() * 1000)
    summed = struct.pack(">hiqqqhii", attributes, count - 1, now_ms, now_ms, *producer, count) + records
    return struct.pack(">qiibI", 0, 9 + len(summed), -1, 2, crc32c(summed)) + summed


def create_topics(topics, timeout_ms=60_000):
    """CreateTopics 2; topics are (name, partitions, configuration)."""
    one = [
        string(name) + struct.pack(">ihi", partitions, 1, 0) + array([string(k) + string(v) for k, v in configs.items()])
        for name, partitions, configs in topics
    ]
    return array(one) + struct.pack(">i", timeout_ms) + b"\0"


def produce(topic, partition, data, acks=-1):
    """Produce 3 to 7."""
    body = array([string(topic) + array([struct.pack(">i", partition) + blob(data)])])
    return string(None) + struct.pack(">hi", acks, 30_000) + body


def fetch(topic, partitions, max_bytes, wait_ms=500, min_bytes=1):
    """Fetch 4; partitions are (partition, offset)."""
    wanted = array([struct.pack(">iqi", partition, offset, max_bytes) for partition, offset in partitions])
    return struct.pack(">iiiib", -1, wait_ms, min_bytes, max_bytes, 0) + array([string(topic) + wanted])


def metadata(topics=None):
    """Metadata 4, of all topics unless some are named; creates none."""
    names = struct.pack(">i", -1) if topics is None else array([string(name) for name in topics])
    return names + b"\0"


class Refused(Exception):
    """The broker answered with an error."""


class Connection:
    """A client that waits for each answer."""

    def __init__(self, address, timeout=45, receive_buffer=None, source=None):
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, api, version, body):
        self.correlation += 1
        self.socket.sendall(frame(api, version, self.correlation, body))

    def receive(self):
        (size,) = struct.unpack(">i", self.exactly(4))
        answer = self.exactly(size)
        assert struct.unpack_from(">i", answer)[0] == self.correlation, "an answer to another request"
        return answer[4:]

    def call(self, api, version, body):
        self.send(api, version, body)
        return self.receive()

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            data += piece
        return bytes(data)

    def create(self, topics):
        """Creates topics; (name, partitions, configuration) each."""
        answer = self.call(CREATE_TOPICS, 2, create_topics(topics))
        (count,) = struct.unpack_from(">i", answer, 4)
        at = 8
        for _ in range(count):
            name, at = take_string(answer, at)
            (error,) = struct.unpack_from(">h", answer, at)
            message, at = take_string(answer, at + 2)
            if error:
                raise Refused(f"{name} is not created: error {error}, {message}")

    def put(self, topic, partition, data):
        """Produces a batch; returns its offset."""
        answer = self.call(PRODUCE, 7, produce(topic, partition, data))
        _partition, error, offset = struct.unpack_from(">ihq", answer, 4 + 2 + len(topic.encode()) + 4)
        if error:
            raise Refused(f"Produce answers error {error}")
        return offset

    def offset(self, topic, partition, timestamp):
        """The first offset at or after a time; -2 stands for the earliest, -1 for the end."""
        asked = array([string(topic) + array([struct.pack(">iq", partition, timestamp)])])
        answer = self.call(LIST_OFFSETS, 1, struct.pack(">i", -1) + asked)
        _partition, error, _time, offset = struct.unpack_from(">ihqq", answer, 4 + 2 + len(topic.encode()) + 4)
        if error:
            raise Refused(f"ListOffsets answers error {error}")
        return offset

    def get(self, topic, partition, offset, max_bytes=4 << 20, wait_ms=500):
        """The bytes of the batches from the one with this offset on."""
        answer = self.call(FETCH, 4, fetch(topic, [(partition, offset)], max_bytes, wait_ms))
        at = 4 + 4 + 2 + len(topic.encode()) + 4
        _partition, error, _end, _stable, aborted = struct.unpack_from(">ihqqi", answer, at)
        if error:
            raise Refused(f"Fetch at {offset} answers error {error}")
        at += 26 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", answer, at)
        return answer[at + 4 : at + 4 + max(size, 0)]


def take_string(data, at):
    (size,) = struct.unpack_from(">h", data, at)
    return (None, at + 2) if size < 0 else (data[at + 2 : at + 2 + size].decode(), at + 2 + size)
