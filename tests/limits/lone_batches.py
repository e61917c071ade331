#!/usr/bin/env python3
"""A topic of a million batches of one record each, each in a block of its own, under a real `sabir serve`: after a restart, and after
one that has to replay, it is read whole with the largest fetches that clients ask for by default.

    tests/limits/lone_batches.py [--batches=N]
"""

import pathlib
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire

# franz-go's and kafka-python's, Java's, librdkafka's; and what a partition is given by Java and librdkafka.
MAX_BYTES = {"48-MiB": 48 << 20, "50-MiB": 50 << 20, "52-MiB": 52 << 20, "1-MiB": 1 << 20}


def write(broker, count):
    """One request after the other: batches that wait together would share a block."""
    data = wire.batch([b"x" * 20])
    with wire.Connection(broker.bootstrap) as client:
        client.create([("lone", 1, {"retention.ms": "-1"})])
        request = wire.frame(wire.PRODUCE, 7, 1, wire.produce("lone", 0, data, acks=1))
        for offset in range(count):
            client.socket.sendall(request)
            (size,) = struct.unpack(">i", client.exactly(4))
            answer = client.exactly(size)
            _partition, error, at = struct.unpack_from(">ihq", answer, 4 + 4 + 2 + len("lone") + 4)
            assert (error, at) == (0, offset), (error, at, offset)


def read_whole(broker, count, max_bytes):
    with wire.Connection(broker.bootstrap, timeout=60) as client:
        offset = fetches = 0
        while offset < count:
            before, data, at = offset, client.get("lone", 0, offset, max_bytes), 0
            while at + 12 <= len(data):
                base, size = struct.unpack_from(">qi", data, at)
                assert base == offset, f"offset {base} where {offset} is next"
                offset, at = offset + 1, at + 12 + size
            fetches += 1
            assert offset > before, f"nothing is read at {offset}"
    print(f"    {count} in {fetches} fetches of {max_bytes >> 20} MiB")


def main():
    suite = cases.Suite("lone-batches")
    count = next((int(a.removeprefix("--batches=")) for a in sys.argv if a.startswith("--batches=")), 1_000_000)
    folder = brokers.scratch("lone-batches")
    broker = brokers.Sabir(folder / "data", "lone-batches", "auto", ["data.shards=1", "data.durability=os", "data.tail_cache=1MiB"])
    try:
        broker.start()
        suite.case("written", lambda: write(broker, count), limit=2400)
        broker.kill()
        broker.start()
        suite.case("after-a-kill-50-MiB", lambda: read_whole(broker, count, 50 << 20), limit=600)
        for name, max_bytes in MAX_BYTES.items():
            assert broker.stop() == 0, "it does not end in order"
            broker.start()
            suite.case(f"after-a-stop-{name}", lambda most=max_bytes: read_whole(broker, count, most), limit=600)
        assert broker.stop() == 0, "it does not end in order"
    finally:
        if broker.alive():
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)
    suite.end()


if __name__ == "__main__":
    main()
