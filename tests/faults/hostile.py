#!/usr/bin/env python3
"""Clients that mean harm, against a broker whose memory is measured.

The broker has small limits. Each case does what would take much more than they allow, while a well-behaved client goes on; the most
memory that the broker ever held meanwhile (VmHWM, which the kernel keeps) must stay within what the limits add up to.
"""

import contextlib
import pathlib
import random
import resource
import shutil
import socket
import struct
import sys
import threading
import time
import urllib.request
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
from wire import (
    API_VERSIONS,
    FETCH,
    JOIN_GROUP,
    METADATA,
    PRODUCE,
    Connection,
    array,
    batch,
    batch_around,
    blob,
    fetch,
    frame,
    produce,
    string,
)

MIB = 1 << 20
FRAME_MEMORY, TAIL_CACHE = 48 * MIB, 24 * MIB
# What the limits do not speak of: blocks that are being filled, what each I/O thread has in hand, the allocator's slack.
BESIDE = 96 * MIB
# What a connection may hold before it is counted against a limit.
EACH_CONNECTION = 128 << 10
# The members of all groups may bring so much together.
MEMBERS = 256 * MIB
# A client that does not get on is dropped after so many seconds.
PATIENCE = 4
SETTINGS = [
    f"net.frame_memory={FRAME_MEMORY}",
    f"data.tail_cache={TAIL_CACHE}",
    f"net.frame_timeout={PATIENCE}s",
    f"net.write_timeout={PATIENCE}s",
    "net.max_connections=4000",
]


class Target:
    """The broker under attack."""

    def __init__(self, folder):
        self.broker = brokers.make("sabir", folder / "data", "hostile-broker", 1, settings=SETTINGS)
        self.broker.start()
        self.idle = 0

    def prepare(self):
        """A topic of some records that the tail cache cannot hold."""
        piece = batch([random.Random(1).randbytes(900_000)])
        with Connection(self.broker.bootstrap) as connection:
            connection.create([("small", 1, {}), ("large", 1, {})])
            for _ in range(4 * TAIL_CACHE // len(piece)):
                connection.put("large", 0, piece)
        self.well_behaved()
        self.idle = self.broker.memory("VmRSS")

    def connect(self, timeout=30.0):
        host, port = self.broker.bootstrap.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout)

    def dropped(self, reason):
        metrics = urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=30).read().decode()
        name = f'sabir_dropped_connections_total{{protocol="kafka",reason="{reason}"}} '
        return next(int(float(line[len(name) :])) for line in metrics.splitlines() if line.startswith(name))

    def well_behaved(self):
        """One record goes round; how long that took."""
        began = time.monotonic()
        with Connection(self.broker.bootstrap) as connection:
            offset = connection.put("small", 0, batch([b"fine"]))
            assert b"fine" in connection.get("small", 0, offset), "a good record does not come back"
        return time.monotonic() - began

    @contextlib.contextmanager
    def measured(self, bound, what):
        """Meanwhile nothing that is not bounded may be held, and a well-behaved client gets on."""
        with open(f"/proc/{self.broker.pid}/clear_refs", "w") as clear:
            clear.write("5")  # VmHWM begins anew
        stop, slowest, failed = threading.Event(), [0.0], []

        def client():
            while not stop.is_set():
                try:
                    slowest[0] = max(slowest[0], self.well_behaved())
                except Exception as error:
                    failed.append(f"{type(error).__name__}: {error}")
                    return
                time.sleep(0.02)

        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
        peak = self.broker.memory("VmHWM")
        print(
            f"{what}: {peak / MIB:.0f} MiB at most, {self.idle / MIB:.0f} when idle, {(self.idle + bound) / MIB:.0f} allowed; "
            f"slowest round trip of a well-behaved client {slowest[0] * 1000:.0f} ms",
            flush=True,
        )
        assert self.broker.alive(), "the broker died"
        assert not failed, f"a well-behaved client failed: {failed[0]}"
        assert peak <= self.idle + bound, f"{peak / MIB:.0f} MiB are more than {(self.idle + bound) / MIB:.0f}"
        assert slowest[0] < PATIENCE + 3, f"a well-behaved client waited for {slowest[0]:.1f} s"


LIMITS = FRAME_MEMORY + TAIL_CACHE + BESIDE


def bound(connections, more=0):
    return LIMITS + connections * EACH_CONNECTION + more


def push(sockets, data, seconds):
    """Writes the same to all of them, each as far as it takes it, for so long or until all have been closed; how many have been."""
    left = {s: memoryview(data) for s in sockets}
    for s in sockets:
        s.setblocking(False)
    closed, until = 0, time.monotonic() + seconds
    while left and time.monotonic() < until:
        moved = False
        for s, rest in list(left.items()):
            try:
                sent = s.send(rest[: 1 << 20])
                moved = True
                left[s] = rest[sent:]
                if not left[s]:
                    del left[s]
            except BlockingIOError:
                pass
            except OSError:
                closed += 1
                del left[s]
        if not moved:
            time.sleep(0.02)
    return closed


def wait_closed(sockets, seconds):
    """Waits until the broker has closed all of them; what it says is not read."""
    left, until = set(sockets), time.monotonic() + seconds
    while left and time.monotonic() < until:
        for s in list(left):
            try:
                s.setblocking(False)
                if not s.recv(1 << 16):
                    left.discard(s)
            except BlockingIOError:
                pass
            except OSError:
                left.discard(s)
        time.sleep(0.02)
    return len(left)


@contextlib.contextmanager
def sockets(target, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(target.connect()) for _ in range(count)]


def unfinished_frames(target):
    with target.measured(bound(300), "300 requests of 40 MB, begun"), sockets(target, 300) as open_ones:
        before = target.dropped("memory") + target.dropped("slow_writer")
        push(open_ones, struct.pack(">i", 40 * MIB) + bytes(MIB), 2)
        assert wait_closed(open_ones, 4 * PATIENCE + 30) == 0, "who never ends a request is not dropped"
        assert target.dropped("memory") + target.dropped("slow_writer") == before + 300


def impossible_sizes(target):
    with target.measured(bound(300), "300 frames of impossible sizes"):
        before = target.dropped("frame_size")
        for size in (-1, 0, -(1 << 31), (1 << 31) - 1, 101 * MIB) * 60:
            with target.connect() as s:
                s.sendall(struct.pack(">i", size))
                assert s.recv(1) == b"", f"a frame of {size} bytes is not refused"
        assert target.dropped("frame_size") == before + 300


def huge_counts(target):
    """Bodies that claim two thousand million of everything, in every API and version."""
    fills = (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\x07", b"\x7f", b"\xff")
    asked = 0
    with target.measured(bound(8), "counts that nothing bears out"):
        for api in range(80):
            for version in range(0, 19, 2):
                body = (fills[(api + version) % len(fills)] * (200_000 if version == 4 else 500))[: 200_000 if version == 4 else 500]
                with target.connect() as s:
                    s.sendall(frame(api, version, 1, b"\0" + body))
                    s.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionResetError):
                        while s.recv(1 << 16):
                            pass
                asked += 1
    print(f"{asked} requests")


def garbage(target):
    noise = random.Random(2)
    with target.measured(bound(300), "300 connections of noise"):
        for _ in range(300):
            with target.connect() as s, contextlib.suppress(ConnectionError, TimeoutError):
                s.settimeout(0.2)
                # half of it as a frame whose size is right, so that something is read of it
                data = noise.randbytes(noise.randrange(1, 65_536))
                s.sendall(data if noise.random() < 0.5 else struct.pack(">ihh", len(data) + 4, noise.randrange(64), noise.randrange(16)) + data)
                s.recv(1 << 16)


def bombs(target):
    """Half a megabyte that is half a gigabyte, with a count that makes the broker look inside."""
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(press.compress(bytes(MIB)) for _ in range(512)) + press.flush()
    request = frame(PRODUCE, 3, 1, produce("small", 0, batch_around(packed, 2 * len(packed), attributes=1)))
    with target.measured(bound(60), "60 gzip bombs of 512 MiB"), sockets(target, 60) as open_ones:
        for s in open_ones:
            s.sendall(request)
        for s in open_ones:
            s.settimeout(180)
            answer = s.recv(1 << 16)
            assert answer and struct.unpack_from(">h", answer, 4 + 4 + 4 + 7 + 4 + 4)[0] != 0, f"a bomb is taken: {answer}"


def unread_answers(target):
    """Each asks for what is not in memory any more, and reads none of it."""
    with target.measured(bound(60), "60 answers of 50 MB that nobody reads"), sockets(target, 60) as open_ones:
        before = target.dropped("slow_reader") + target.dropped("memory")
        push(open_ones, frame(FETCH, 4, 1, fetch("large", [(0, 0)], 50 * MIB, wait_ms=0)) * 3, 2)
        until = time.monotonic() + 60
        while target.dropped("slow_reader") + target.dropped("memory") == before and time.monotonic() < until:
            time.sleep(0.1)
        assert target.dropped("slow_reader") + target.dropped("memory") > before, "who reads nothing is not dropped"


def flood(target):
    """Requests without end, whose answers nobody reads."""
    requests = frame(METADATA, 1, 1, struct.pack(">i", -1)) * 2000 + frame(API_VERSIONS, 0, 1, b"") * 20_000
    with target.measured(bound(60), "60 connections that ask and never read"), sockets(target, 60) as open_ones:
        push(open_ones, requests * 20, 3)


def parked_fetches(target):
    """A few hundred kilobytes that name one partition over and over, and wait."""
    with Connection(target.broker.bootstrap) as connection:
        end = connection.offset("large", 0, -1)
    request = frame(FETCH, 4, 1, fetch("large", [(0, end)] * 14_000, MIB, wait_ms=60_000))
    with target.measured(bound(150), "150 fetches of 14,000 partitions that wait"), sockets(target, 150) as open_ones:
        push(open_ones, request, 5)
        time.sleep(3)


def members(target):
    """Each brings a megabyte to a group of its own."""
    def join(number):
        protocols = array([string("range") + blob(bytes(MIB))])
        group = string(f"hostile-{number}") + struct.pack(">ii", 6000, 6000)
        return frame(JOIN_GROUP, 2, 1, group + string("") + string("consumer") + protocols)

    with target.measured(bound(400, more=MEMBERS), "400 members with a megabyte each"), sockets(target, 400) as open_ones:
        for number, s in enumerate(open_ones):
            with contextlib.suppress(OSError):
                s.sendall(join(number))
        time.sleep(1)


def many_connections(target):
    with target.measured(bound(3000), "3,000 connections, half of them in the middle of a frame"), sockets(target, 3000) as open_ones:
        for s in open_ones[::2]:
            s.sendall(b"\0\0")
        time.sleep(1)


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    suite = cases.Suite("hostile")
    folder = brokers.scratch("hostile")
    target = Target(folder)
    try:
        target.prepare()
        for case in (
            unfinished_frames,
            impossible_sizes,
            huge_counts,
            garbage,
            bombs,
            unread_answers,
            flood,
            parked_fetches,
            many_connections,
            members,
        ):
            suite.case(case.__name__.replace("_", "-"), lambda case=case: case(target), 120)
        assert target.broker.stop() == 0, "no clean close"
    finally:
        if target.broker.alive():
            target.broker.kill()
        shutil.rmtree(folder, ignore_errors=True)
    suite.end()


if __name__ == "__main__":
    main()
