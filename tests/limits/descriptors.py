#!/usr/bin/env python3
"""Few descriptors (`ulimit -n`), under a real `sabir serve`: more segments than it may have files open are written, found again by a
start, and read; a flood of connections takes nothing from those who write.

    tests/limits/descriptors.py
"""

import contextlib
import pathlib
import shutil
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire

BATCH = wire.batch([b"x" * 1000] * 900)
# 64 MiB each: more than there are descriptors.
SEGMENTS = 72


class Limited(brokers.Sabir):
    """A broker that may have so many descriptors."""

    def __init__(self, name, disk, descriptors):
        self.folder = brokers.scratch(f"descriptors-{name}")
        super().__init__(self.folder / "data", f"descriptors-{name}", disk, ["data.shards=1", "data.durability=os"])
        self.descriptors = descriptors

    def command(self):
        return ["bash", "-c", f'ulimit -n {self.descriptors}; exec "$0" "$@"', *super().command()]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        if self.process:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self):
        return wire.Connection(self.bootstrap)

    def segments(self):
        return len(list(self.data.glob("shard-1/journal/segment-*")))

    def log(self):
        return self.log_path.read_text(errors="replace")


def more_segments_than_descriptors(disk):
    with Limited(f"segments-{disk}", disk, 64) as broker:
        with broker.client() as client:
            client.create([("t", 1, {"max.message.bytes": "4000000"})])
            while broker.segments() < SEGMENTS:
                for _ in range(20):
                    end = client.put("t", 0, BATCH)
            assert client.get("t", 0, 0), "the oldest records are read"
        broker.kill()
        broker.start()
        with broker.client() as client:
            for offset in range(0, end, 40_000):
                assert client.get("t", 0, offset), f"offset {offset} is read"
            assert client.put("t", 0, BATCH) > end
        code = broker.stop()
        assert code == 0, f"it ended with {code}"
        broker.start()
        with broker.client() as client:
            assert client.get("t", 0, end)


def a_flood_of_connections(disk):
    with Limited(f"flood-{disk}", disk, 96) as broker, broker.client() as client:
        client.create([("t", 1, {"max.message.bytes": "4000000"})])
        flood = []
        until = time.monotonic() + 15
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                flood.append(socket.create_connection(("127.0.0.1", broker.port), 1))
            if len(flood) > 300:
                flood.pop(0).close()
            if len(flood) % 5 == 0:
                client.put("t", 0, BATCH)
        for one in flood:
            one.close()
        end = client.put("t", 0, BATCH)
        assert client.get("t", 0, end)
        assert "journal has stopped" not in broker.log()
        lines = broker.log().count("\n")
        assert lines < 200, f"{lines} lines of log"


def main():
    suite = cases.Suite("descriptors")
    for disk in ("pwrite", "io_uring"):
        for case in (more_segments_than_descriptors, a_flood_of_connections):
            name = f"{case.__name__.replace('_', '-')}-{disk.replace('_', '-')}"
            suite.case(name, lambda case=case, disk=disk: case(disk), limit=240)
    suite.end()


if __name__ == "__main__":
    main()
