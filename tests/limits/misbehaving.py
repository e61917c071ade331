#!/usr/bin/env python3
"""Clients that misbehave, against a real `sabir serve`: each costs bounded memory, is dropped after the documented time, is counted in
/metrics and named in the log, and a well-behaved client beside it notices nothing.

    tests/limits/misbehaving.py [--long] [CASE...]

--long: as many of them as a large installation would see.
"""

import contextlib
import functools
import os
import pathlib
import random
import resource
import selectors
import shutil
import socket
import struct
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire
from bystander import TOPIC, Bystander
from namespace import Namespace

LONG = "--long" in sys.argv
MIB = 1 << 20
FRAME_TIMEOUT = WRITE_TIMEOUT = 2
KEEPALIVE = 1
FRAME_MEMORY = TAIL_CACHE = 32 * MIB
CONNECTIONS = 10_000
# Idle, with code, stacks, pools of buffers and a heap that has been used.
BASE = 80 * MIB
# What a connection may hold beside the memory that all share: 64 KiB each way, and what the process needs to know of it.
EACH = 140 * 1024
# Decoded arrays and their answer, on each of two I/O threads.
DECODING = 2 * 128 * MIB
# Bytes for which whoever sends or reads them has a second more.
SLOWEST = 256 << 10
# What a reader asks for that takes nothing.
UNREAD = 2 * MIB
# Beyond the documented times: timers, a machine that does other things, and the test's own clients.
SLACK = 24


class Node:
    """A broker with short patience, and what is to be known of it from outside."""

    def __init__(self, name, *settings, address="127.0.0.1"):
        self.folder = brokers.scratch(f"misbehaving-{name}")
        patience = [
            f"net.frame_timeout={FRAME_TIMEOUT}s",
            f"net.write_timeout={WRITE_TIMEOUT}s",
            f"net.keepalive={KEEPALIVE}s",
            f"net.frame_memory={FRAME_MEMORY // MIB}MiB",
            f"data.tail_cache={TAIL_CACHE // MIB}MiB",
            f"net.max_connections={CONNECTIONS}",
            "net.io_threads=2",
            "kafka.max_request=16MiB",
            *settings,
        ]
        self.broker = brokers.make("sabir", self.folder / "data", f"misbehaving-{name}", settings=patience)
        if address != "127.0.0.1":
            self.broker.settings += [f"kafka.listen={address}:{self.broker.port}", "kafka.anonymous=true"]
        self.address = f"{address}:{self.broker.port}"

    def __enter__(self):
        self.broker.start()
        connection = self.connect()
        connection.create([(TOPIC, 1, {})])
        connection.close()
        return self

    def __exit__(self, *_error):
        alive, code = self.broker.alive(), self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert alive and code == 0, f"the broker ended with {code}: {self.broker.log_end()}"

    def connect(self, **options):
        return wire.Connection(self.address, **options)

    def sockets(self, count, receive_buffer=None):
        """Connections without anything said."""
        return [self.connect(receive_buffer=receive_buffer).socket for _ in range(count)]

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.broker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), 0)

    def dropped(self, reason):
        return self.metric(f'sabir_dropped_connections_total{{protocol="kafka",reason="{reason}"}}')

    def open(self):
        return self.metric('sabir_connections{protocol="kafka"}')

    def logged(self, text):
        assert text in self.broker.log_path.read_text(errors="replace"), f"the log says nothing of {text!r}"

    def wait(self, what, met, limit):
        until = time.monotonic() + limit
        while not met():
            assert time.monotonic() < until, f"{what} has not come about within {limit} s"
            time.sleep(0.05)


def bounded(found, bound, what="the broker's memory"):
    print(f"      {what}: {found / MIB:.0f} MiB, of at most {bound / MIB:.0f}", flush=True)
    assert found <= bound, f"{what} is {found / MIB:.0f} MiB, above {bound / MIB:.0f}"


class Peak:
    """The most memory that was seen."""

    def __init__(self, node):
        self.node, self.most = node, 0

    def look(self):
        self.most = max(self.most, self.node.resident())


def closed(sockets, limit, meanwhile=lambda: None, every=0.05, began=None):
    """Seconds from `began` (now) until each of the sockets was closed by the broker; what comes before that is read and forgotten."""
    began, left, ended = began or time.monotonic(), len(sockets), []
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        while left:
            assert time.monotonic() - began < limit, f"{left} of {len(sockets)} are still open after {limit} s"
            for key, _ in selector.select(every):
                try:
                    over = not key.fileobj.recv(1 << 16)
                except ConnectionError:
                    over = True
                if over:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    ended.append(time.monotonic() - began)
                    left -= 1
            meanwhile()
    return ended


def in_time(ended, promised):
    print(f"      {len(ended)} dropped after {min(ended):.1f} to {max(ended):.1f} s, promised for {promised}", flush=True)
    assert min(ended) > promised * 0.5, f"dropped after {min(ended):.1f} s, although they have {promised}"
    assert max(ended) < promised + SLACK, f"dropped only after {max(ended):.1f} s instead of {promised}"


def slow_writers(node):
    """A byte a moment, and a size without anything behind it."""
    count = 1000 if LONG else 100
    before, peak = node.dropped("slow_writer"), Peak(node)
    began, dripping, silent = time.monotonic(), node.sockets(count), node.sockets(count)
    for one in silent + dripping:
        one.sendall(struct.pack(">i", MIB))

    def drip():
        for one in dripping:
            with contextlib.suppress(OSError):
                one.send(b"x")
        peak.look()

    ended = closed(dripping + silent, FRAME_TIMEOUT + SLACK, drip, every=0.2, began=began)
    in_time(ended, FRAME_TIMEOUT)
    bounded(peak.most, BASE + TAIL_CACHE + 2 * count * EACH)
    node.wait("the count of slow writers", lambda: node.dropped("slow_writer") >= before + 2 * count, SLACK)
    node.logged("net.frame_timeout")


def unfinished_frames(node):
    """Large requests of which a part comes: they share the memory for frames, and who finds none left is dropped."""
    count, each = (1000 if LONG else 150), MIB
    before, peak = node.dropped("memory") + node.dropped("slow_writer"), Peak(node)
    part = struct.pack(">i", 8 * MIB) + b"x" * each
    sockets = node.sockets(count)
    for one in sockets:
        one.settimeout(0.02)
        # Nothing more is read from those whose turn has not come.
        with contextlib.suppress(OSError):
            one.sendall(part)
        peak.look()
        # What little a frame has that waits for its turn is counted beside it, in a quarter as much.
        assert node.metric("sabir_frame_memory_bytes") <= FRAME_MEMORY * 5 // 4
    # With 64 KiB, with 256 KiB and with all that has come of it one may wait until the time of others is over, and has its own from then on.
    longest = sum(FRAME_TIMEOUT + arrived // SLOWEST for arrived in (64 << 10, 256 << 10, each, each))
    ended = closed(sockets, longest + SLACK, peak.look)
    print(f"      {len(ended)} dropped, the last after {max(ended):.1f} s, of at most {longest}", flush=True)
    bounded(peak.most, BASE + TAIL_CACHE + FRAME_MEMORY + count * EACH)
    node.wait("the count", lambda: node.dropped("memory") + node.dropped("slow_writer") >= before + count, SLACK)
    node.logged("net.frame_memory")
    node.wait("the memory is given back", lambda: node.metric("sabir_frame_memory_bytes") == 0, SLACK)


def never_reads(node):
    """Who asks for megabytes and reads nothing: of records, of what is in memory and of what is not, and of metadata without end."""
    connection = node.connect()
    connection.create([("bulk", 1, {}), *((f"filler-{n}", 200, {}) for n in range(10))])
    bulk = wire.batch([random.Random(n).randbytes(1000) for n in range(900)])
    for _ in range(2 * TAIL_CACHE // len(bulk)):
        connection.put("bulk", 0, bulk)
    count = 500 if LONG else 100
    before, peak = node.dropped("slow_reader") + node.dropped("memory"), Peak(node)
    fetching, asking = node.sockets(count, 4096), node.sockets(count // 5, 4096)
    for one in fetching:
        # more than the system's own buffers take
        one.sendall(wire.frame(wire.FETCH, 4, 1, wire.fetch("bulk", [(0, 0)], UNREAD)) * 20)
    pipelined = wire.frame(wire.METADATA, 4, 1, wire.metadata()) * 1000
    for one in asking:
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.send(pipelined)
    # Nobody is unread before the system's own buffers are full, and to fill them with metadata takes its time. As many are sent records at a time
    # as there is memory for their batches; the others wait until these are dropped.
    rounds = count * len(bulk) / (FRAME_MEMORY / 2)
    until = max(WRITE_TIMEOUT + UNREAD / SLOWEST, rounds * (WRITE_TIMEOUT + len(bulk) / SLOWEST)) + 3 * SLACK

    # A socket that is not read cannot show that it was closed: the broker's own count does.
    def all_dropped():
        peak.look()
        return node.dropped("slow_reader") + node.dropped("memory") >= before + len(fetching) + len(asking)

    node.wait("all are dropped", all_dropped, until)
    bounded(peak.most, BASE + TAIL_CACHE + FRAME_MEMORY + 2 * count * EACH)
    node.logged("net.write_timeout")
    for one in fetching + asking:
        one.close()
    node.wait("the memory is given back", lambda: node.metric("sabir_frame_memory_bytes") == 0, SLACK)
    # Who reads gets all of it, as before.
    got = sum(len(connection.get("bulk", 0, offset, 16 * MIB)) for offset in (0, 900, 1800))
    assert got > 3 * len(bulk)
    connection.close()


def garbage(node):
    """What is no request at all: refused at once."""
    dice = random.Random(7)
    head = struct.Struct(">hhi")
    sent = {
        "frame_size": [struct.pack(">i", size) for size in (-1, 0, -(2**31), 2**31 - 1, 16 * MIB + 1)],
        "header": [wire.blob(b"\0"), wire.blob(head.pack(18, 0, 7) + b"\0\x09me")],
        "unknown_api": [wire.blob(head.pack(api, 0, 7) + b"\xff\xff") for api in (-1, 4, 5, 93, 999, 32767)],
        "unknown_version": [wire.blob(head.pack(api, version, 7) + b"\xff\xff\0") for api, version in ((1, 3), (1, 99), (3, -1), (12, 99))],
        "body": [wire.blob(head.pack(3, 4, 7) + b"\xff\xff" + count) for count in (b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0")],
    }
    # An HTTP request and a TLS hello begin with sizes that no request has, and are known by them.
    sent["foreign"] = [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"x" * 512]
    for reason, frames in sent.items():
        before = node.dropped(reason)
        sockets = node.sockets(len(frames))
        for one, frame in zip(sockets, frames):
            one.sendall(frame)
        closed(sockets, SLACK)
        node.wait(f"the count of {reason}", lambda: node.dropped(reason) >= before + len(frames), SLACK)
    node.logged("connection closed: it sent a frame of -1 bytes")
    node.logged("connection closed: it sent what looks like TLS")
    node.logged("a request of API 999, which is not served here")
    for _ in range(2000 if LONG else 200):
        one = node.connect()
        with contextlib.suppress(OSError):
            one.socket.sendall(dice.randbytes(dice.randrange(1, 3000)))
        one.close()


def arrays_without_end(node):
    """Requests that are small on the wire and large in memory, of every API."""
    peak = Peak(node)
    head = struct.Struct(">hhi")
    names = 16 * MIB // 2 - 100
    # An empty name takes two bytes of the frame, and far more of whoever decodes it.
    many_names = struct.pack(">i", names) + b"\0\0" * names
    refused = lambda: node.dropped("body") + node.dropped("memory")
    before = refused()
    hurtful = wire.blob(head.pack(3, 1, 7) + b"\xff\xff" + many_names)
    sockets = node.sockets(16 if LONG else 8)
    for one in sockets:
        one.sendall(hurtful)
        peak.look()
    closed(sockets, 4 * SLACK, peak.look)
    node.wait("the count", lambda: refused() >= before + len(sockets), SLACK)
    # As many as are decoded, each answered with an error of its own.
    fewer = 700_000
    answered = wire.blob(head.pack(3, 1, 7) + b"\xff\xff" + struct.pack(">i", fewer) + b"\0\0" * fewer)
    for one in (readers := node.sockets(4)):
        one.sendall(answered)
        peak.look()
    for one in readers:
        one.settimeout(60)
        with contextlib.suppress(ConnectionError):
            (size,) = struct.unpack(">i", one.recv(4, socket.MSG_WAITALL) or b"\0\0\0\0")
            while size > 0 and (piece := one.recv(min(size, MIB))):
                size -= len(piece)
                peak.look()
        one.close()
    for api in range(80):
        for version in range(12):
            for body in (b"\xff" * 300, b"\x7f" * 300, b"\0" * 300, b"\0\x7f\xff\xff\xff\x01"):
                one = node.connect()
                with contextlib.suppress(OSError):
                    one.socket.sendall(wire.blob(head.pack(api, version, 7) + b"\xff\xff\0" + body))
                    one.socket.shutdown(socket.SHUT_WR)
                one.close()
            if not LONG and version >= 2:
                break
        peak.look()
    bounded(peak.most, BASE + TAIL_CACHE + FRAME_MEMORY + DECODING + 16 * 16 * MIB // 4)


def half_open(node):
    """Peers that vanish without a word: idle ones, and one that waits for records."""
    with Namespace() as network, Node("half-open", address=network.here) as far:
        before = far.dropped("vanished")
        with network.inside():
            gone = [far.connect() for _ in range(10)]
        for one in gone[:5]:
            one.call(wire.API_VERSIONS, 0, b"")
        for one in gone[5:]:
            # in the middle of a long wait
            one.send(wire.FETCH, 4, wire.fetch(TOPIC, [(0, 0)], MIB, wait_ms=120_000))
        time.sleep(0.3)
        network.cut()
        began = time.monotonic()
        far.wait("all are missed", lambda: far.dropped("vanished") >= before + len(gone), 2 * KEEPALIVE + 2 + SLACK)
        print(f"      missed after {time.monotonic() - began:.1f} s", flush=True)
        far.logged("net.keepalive")
        assert far.open() == 0


def ten_thousand(_node):
    """As many connections as there may be, and some more: idle, and idle after a request; then dropped for idling."""
    idle = 40
    # Ten thousand probes a second would be lost in part, and who answers them be missed.
    with Node("many", f"net.idle_timeout={idle}s", "net.keepalive=60s") as node:
        with Bystander(node.address):
            before = node.resident()
            began = time.monotonic()
            # one is the bystander's
            sockets = node.sockets(CONNECTIONS - 1)
            node.wait("all are open", lambda: node.open() == CONNECTIONS, SLACK)
            bounded(node.resident() - before, 200 * MIB, "what 10,000 connections cost")
            late = node.sockets(5)
            closed(late, SLACK)
            assert node.metric('sabir_refused_connections_total{protocol="kafka"}') == len(late)
            node.logged("net.max_connections is reached")
            versions = wire.frame(wire.API_VERSIONS, 0, 1, b"")
            for one in sockets:
                one.sendall(versions)
            for one in sockets:
                (size,) = struct.unpack(">i", one.recv(4, socket.MSG_WAITALL))
                assert len(one.recv(size, socket.MSG_WAITALL)) == size
            last = time.monotonic()
            print(f"      opened and answered within {last - began:.1f} s", flush=True)
            bounded(node.resident() - before, 200 * MIB, "what they cost after a request")
            ended = closed(sockets, idle + 2 * SLACK)
            assert max(ended) < idle + SLACK, f"idle for {max(ended):.1f} s"
            node.wait("the count", lambda: node.dropped("idle") >= len(sockets), SLACK)
            node.logged("net.idle_timeout")
            node.connect().call(wire.API_VERSIONS, 0, b"")


def raise_open_files():
    wanted = CONNECTIONS + 500
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (ValueError, OSError):
            raise cases.Skip(f"needs {wanted} open files, and may have {hard} (ulimit -Hn)") from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def lives(node):
    """Within two seconds, of three times."""

    def asked():
        began = time.monotonic()
        with urllib.request.urlopen(f"http://{node.broker.admin}/livez", timeout=30) as answer:
            assert answer.status == 200, answer.status
        return time.monotonic() - began

    cases.best_of_three(2, asked)


def admin_port():
    """Connections that say nothing, and readers that do not read: probes are answered, memory is bounded, and a scrape goes through."""
    with Node("admin") as node:
        host, port = node.broker.admin.rsplit(":", 1)
        address = (host, int(port))
        node.connect().create([(f"{i:05}-{'x' * 100}", 1, {}) for i in range(2000)])
        idle = [socket.create_connection(address) for _ in range(200)]
        lives(node)
        size, before, peak = len(scrape(node)), node.resident(), Peak(node)
        assert size > MIB, f"/metrics has only {size} bytes"
        unread = []
        for _ in range(100):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(address)
            one.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            unread.append(one)
            peak.look()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            lives(node)
            peak.look()
            time.sleep(0.1)
        assert len(scrape(node)) > MIB
        # What all answers may take, one in the making several times over, and the heap's slack.
        bounded(peak.most - before, 16 * MIB + 6 * size + 16 * MIB, "what unread answers take")
        for one in idle + unread:
            one.close()


def scrape(node):
    with urllib.request.urlopen(f"http://{node.broker.admin}/metrics", timeout=60) as answer:
        return answer.read()


def main():
    suite = cases.Suite("misbehaving-long" if LONG else "misbehaving")
    with contextlib.suppress(cases.Skip):
        raise_open_files()
    with Node("shared") as node:

        def beside(misbehave):
            """Runs it beside a well-behaved client, and sees that the broker is as good as before."""
            with Bystander(node.address):
                misbehave(node)
            node.connect().call(wire.API_VERSIONS, 0, b"")

        for misbehave in (slow_writers, unfinished_frames, never_reads, garbage, arrays_without_end, half_open):
            suite.case(misbehave.__name__.replace("_", "-"), functools.partial(beside, misbehave), limit=360 if LONG else 120)
    suite.case("admin-port", admin_port, limit=120)
    suite.case("ten-thousand", lambda: (raise_open_files(), ten_thousand(None)), limit=120)
    suite.end()


if __name__ == "__main__":
    main()
