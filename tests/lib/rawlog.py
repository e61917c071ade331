"""Reads a partition as it is stored: the headers of its v2 record batches, through a Fetch request written here byte by byte.

A client library hides what these checks are about: which codec a batch was stored with, which producer numbered it, whether offsets
run on without gaps.
"""

import dataclasses
import socket
import struct

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
HEADER = struct.Struct(">qiibIhiqqqhii")
FETCH, LIST_OFFSETS = 1, 2


@dataclasses.dataclass(frozen=True)
class Batch:
    """The header of a batch."""

    base_offset: int
    length: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    @property
    def codec(self):
        return CODECS.get(self.attributes & 7, f"unknown {self.attributes & 7}")

    @property
    def control(self):
        return bool(self.attributes & 0x20)

    @property
    def next_offset(self):
        return self.base_offset + self.last_offset_delta + 1


def text(value):
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class Connection:
    """A connection to the one node there is."""

    def __init__(self, bootstrap, timeout=30):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.correlation = 0

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.socket.close()

    def call(self, api, version, body):
        """The body of the answer to a request with the older, not flexible header."""
        self.correlation += 1
        request = struct.pack(">hhi", api, version, self.correlation) + text("rawlog") + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", self.exactly(4))
        answer = self.exactly(size)
        assert struct.unpack_from(">i", answer)[0] == self.correlation, "an answer to another request"
        return answer[4:]

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            data += piece
        return bytes(data)

    def offset(self, topic, partition, timestamp):
        """The first offset at or after a time; -2 stands for the earliest, -1 for the end."""
        body = struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, timestamp)
        answer = self.call(LIST_OFFSETS, 1, body)
        _partition, error, _time, offset = struct.unpack_from(">ihqq", answer, 4 + 2 + len(topic.encode()) + 4)
        if error:
            raise RuntimeError(f"ListOffsets answers error {error}")
        return offset

    def fetch(self, topic, partition, offset, max_bytes=4 << 20):
        """(high watermark, whole batches from the one with this offset on, as bytes)."""
        body = struct.pack(">iiiibi", -1, 500, 1, max_bytes, 0, 1) + text(topic)
        body += struct.pack(">iiqi", 1, partition, offset, max_bytes)
        answer = self.call(FETCH, 4, body)
        at = 4 + 4 + 2 + len(topic.encode()) + 4
        _partition, error, high_watermark, _stable, aborted = struct.unpack_from(">ihqqi", answer, at)
        if error:
            raise RuntimeError(f"Fetch at {offset} answers error {error}")
        at += 26 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", answer, at)
        return high_watermark, answer[at + 4 : at + 4 + max(size, 0)]


def batches(bootstrap, topic, partition=0):
    """The headers of all batches of a partition, from the earliest to the end as it was at the first answer."""
    with Connection(bootstrap) as connection:
        offset = connection.offset(topic, partition, -2)
        end = connection.offset(topic, partition, -1)
        while offset < end:
            _high_watermark, data = connection.fetch(topic, partition, offset)
            at, before = 0, offset
            while at + HEADER.size <= len(data):
                base, length, _epoch, magic, *fields = HEADER.unpack_from(data, at)
                if magic != 2:
                    raise RuntimeError(f"a batch with magic {magic} at offset {base}")
                if at + 12 + length > len(data):
                    break  # cut off by max_bytes
                batch = Batch(base, length, *fields)
                at += 12 + length
                if batch.next_offset > offset:
                    offset = batch.next_offset
                    yield batch
            if offset == before:
                raise RuntimeError(f"no whole batch in the answer at offset {offset}, before the end {end}")
