"""Reads a partition as it is stored: the headers of its v2 record batches.

A client library hides what these checks are about: which codec a batch was stored with, which producer numbered it, whether offsets
run on without gaps.
"""

import dataclasses
import struct

from wire import Connection

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
HEADER = struct.Struct(">qiibIhiqqqhii")


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


def batches(bootstrap, topic, partition=0):
    """The headers of all batches of a partition, from the earliest to the end as it was at the first answer."""
    with Connection(bootstrap) as connection:
        offset = connection.offset(topic, partition, -2)
        end = connection.offset(topic, partition, -1)
        while offset < end:
            data = connection.get(topic, partition, offset)
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
