#!/usr/bin/env python3
"""Few descriptors (`ulimit -n`), under a real `sabir serve`: more segments than it may have files open are written, found again by a
start, and read; a flood of connections, to whichever port, takes nothing from those who write or ask whether it lives. And a limit on
file sizes (`ulimit -f`): what does not fit is named, and nothing dies of it.

    tests/limits/descriptors.py
"""

import contextlib
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire

BATCH = wire.batch([b"x" * 1000] * 900)
# 64 MiB each: more than there are descriptors.
SEGMENTS = 72


class Limited(brokers.Sabir):
    """A broker that may have so many descriptors, and files of so many KiB."""

    def __init__(self, name, disk, descriptors, file_kib="unlimited"):
        self.folder = brokers.scratch(f"descriptors-{name}")
        super().__init__(self.folder / "data", f"descriptors-{name}", disk, ["data.shards=1", "data.durability=os"])
        self.descriptors, self.file_kib = descriptors, file_kib

    def command(self):
        return ["bash", "-c", f'ulimit -n {self.descriptors} -f {self.file_kib}; exec "$0" "$@"', *super().command()]

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


def asked(broker, path):
    """Asks the admin port; how long the answer took."""
    began = time.monotonic()
    with urllib.request.urlopen(f"http://{broker.admin}{path}", timeout=30) as answer:
        assert answer.status == 200, answer.status
        answer.read()
    return time.monotonic() - began


def served(broker):
    """How long it took to serve a new client."""
    began = time.monotonic()
    with wire.Connection(broker.bootstrap) as new:
        new.put("t", 0, BATCH)
    return time.monotonic() - began


def idle_connections_to_the_admin_port(disk):
    for descriptors in (64, 80):
        began = time.monotonic()
        with Limited(f"admin-{descriptors}-{disk}", disk, descriptors) as broker, broker.client() as client:
            client.create([("t", 1, {"max.message.bytes": "4000000"})])
            idle = []
            for _ in range(300):
                with contextlib.suppress(OSError):
                    idle.append(socket.create_connection(("127.0.0.1", broker.second_port), 1))
            assert len(idle) > 200, f"{len(idle)} connections were made"
            for path in ("/livez", "/readyz", "/metrics"):
                cases.best_of_three(4, lambda path=path: asked(broker, path))
            cases.best_of_three(3, lambda: served(broker))
            assert client.get("t", 0, client.put("t", 0, BATCH))
            time.sleep(2)
            complaints = broker.log().count("cannot accept")
            # A listener says it once in ten seconds.
            most = 3 + 2 * int((time.monotonic() - began) / 10)
            assert complaints <= most, f"{complaints} lines say that nothing can be accepted"
            for one in idle:
                one.close()


def a_limit_on_file_sizes(disk):
    refused = Limited(f"size-start-{disk}", disk, 256, 10 << 10)
    with contextlib.suppress(RuntimeError), refused:
        raise AssertionError("it started, although no segment fits")
    shutil.rmtree(refused.folder, ignore_errors=True)
    log = refused.log()
    assert "segment-" in log and "10485760 bytes" in log, f"the file and the limit are named:\n{log}"
    with Limited(f"size-{disk}", disk, 256) as broker, broker.client() as client:
        client.create([("t", 1, {"max.message.bytes": "4000000"})])
        client.put("t", 0, BATCH)
        # Segments lie ready: the writes into them are beyond it, as well as new ones.
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
        taken, refusal = 0, None
        while refusal is None and taken < 500:
            try:
                client.put("t", 0, BATCH)
                taken += 1
            except wire.Refused as refused:
                refusal = refused
        assert refusal, f"{taken} batches were taken"
        assert broker.alive(), "it lives"
        assert client.get("t", 0, 0), "what was written is read"
        log = broker.log()
        assert "segment-" in log and "2097152 bytes" in log, f"the file and the limit are named:\n{log}"
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        broker.kill()
        broker.start()
        with broker.client() as again:
            assert again.put("t", 0, BATCH) >= taken * 900, "nothing acknowledged is lost"


def too_few_to_start():
    """However few there are, a start that needs more says so."""
    for descriptors in range(5, 17):
        with tempfile.TemporaryDirectory() as data:
            binary = os.environ.get("SABIR_BIN") or str(brokers.REPOSITORY / "target/debug/sabir")
            run = f'ulimit -n {descriptors}; exec "$0" serve --data "$1" --set kafka.listen=127.0.0.1:0 --set net.default_listen=off'
            done = subprocess.run(["bash", "-c", run, binary, data], capture_output=True, text=True, timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "open-file limit" in said and "panic" not in said, f"{descriptors}: {done.returncode}\n{said}"


def main():
    suite = cases.Suite("descriptors")
    suite.case("too-few-to-start", too_few_to_start, limit=240)
    for disk in ("pwrite", "io_uring"):
        for case in (
            more_segments_than_descriptors,
            a_flood_of_connections,
            idle_connections_to_the_admin_port,
            a_limit_on_file_sizes,
        ):
            name = f"{case.__name__.replace('_', '-')}-{disk.replace('_', '-')}"
            suite.case(name, lambda case=case, disk=disk: case(disk), limit=240)
    suite.end()


if __name__ == "__main__":
    main()
