#!/usr/bin/env python3
"""Records that have gone bad on the disk, under a real `sabir serve`: `sabir message read` ends with an error and its exit code, every
client gets Kafka's error for that partition alone, and the log, /readyz and /metrics name it without a flood of lines.

    tests/faults/damaged.py [CASE...]
"""

import contextlib
import json
import mmap
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire

# Stands in one place of one file, and nowhere else.
MARK = b"this record goes bad" * 400
# What somebody between client and broker changes.
SENT, ARRIVES = b"as it was sent", b"as it arrives."
CORRUPT_MESSAGE = "error 2"
FAILED, REFUSED = 1, 6
# A few tries, a moment apart, and a command's start.
TRIES = 60
FETCHES = 300


class Tamper:
    """Stands between clients and a broker, and changes what comes back."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.broker = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            broker = socket.create_connection(("127.0.0.1", self.broker))
            for source, sink in ((client, broker), (broker, client)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 20):
                sink.sendall(piece.replace(SENT, ARRIVES))
            sink.shutdown(socket.SHUT_WR)


class Node:
    """A broker one of whose records has gone bad: `orders`, partition 1, offset 1."""

    def __init__(self):
        self.folder = brokers.scratch("damaged")
        self.tamper = Tamper()
        settings = ["data.shards=1", "log.format=json", f"kafka.advertise=127.0.0.1:{self.tamper.port}"]
        self.broker = brokers.Sabir(self.folder / "data", "damaged", settings=settings)
        self.tamper.broker = self.broker.port

    def __enter__(self):
        self.broker.start()
        with self.client() as client:
            client.create([("orders", 2, {}), ("changed", 1, {})])
            client.put("orders", 0, wire.batch([b"fine"]))
            for value in (b"good", MARK, b"behind"):
                client.put("orders", 1, wire.batch([value]))
        # What was read or written lately is in memory; after this nothing is.
        assert self.broker.stop() == 0
        self.broker.start()
        self.spoil()
        with self.client() as client:
            client.put("changed", 0, wire.batch([SENT]))
        return self

    def __exit__(self, *_error):
        if self.broker.process:
            self.broker.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self):
        return wire.Connection(self.broker.bootstrap)

    def spoil(self):
        """Flips a bit in the middle of the marked record."""
        for path in self.broker.data.rglob("*"):
            if path.is_file() and path.stat().st_size:
                with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as bytes:
                    at = bytes.find(MARK)
                    if at >= 0:
                        bytes[at + len(MARK) // 2] ^= 8
                        bytes.flush()
                        return os.fsync(file.fileno())
        raise AssertionError("the record stands in no file")

    def fetch(self, partition, offset):
        with self.client() as client:
            return client.get("orders", partition, offset, wait_ms=0)

    def sabir(self, *arguments, address=None):
        """A command against it: exit code, stdout, stderr."""
        address = address or f"127.0.0.1:{self.tamper.port}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SABIR_")}
        command = [self.broker.binary, *arguments, "--address", address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TRIES)
        return done.returncode, done.stdout, done.stderr

    def asks(self, path):
        with urllib.request.urlopen(f"http://{self.broker.admin}/{path}", timeout=5) as answer:
            return answer.read().decode()

    def logged(self):
        return [json.loads(line) for line in self.broker.log_path.read_text().splitlines() if line.startswith("{")]


def commands_end_with_an_error(node):
    for command, shown in (
        (["read", "orders", "-p", "1"], "good\n"),
        (["read", "orders", "-p", "1", "--follow"], "good\n"),
        (["tail", "orders", "-p", "1", "--offset", "0"], "good\n"),
        (["read", "orders", "-p", "1", "--offset", "1"], ""),
        (["read", "orders", "--group", "readers", "-p", "1"], "good\n"),
    ):
        code, out, err = node.sabir("message", *command, "-o", "value")
        assert (code, out) == (REFUSED, shown), (command, code, out, err)
        assert err.startswith("error: ") and "CORRUPT_MESSAGE" in err and "orders-1, offset 1" in err, err
        behind = "group reset readers --topic orders --partition 1 --to 2" if "--group" in command else "--partition 1 --offset 2"
        assert behind in err, err
    # What stands behind it, and beside it, is read.
    assert node.sabir("message", "read", "orders", "-p", "1", "--offset", "2", "-o", "value") == (0, "behind\n", "")
    assert node.sabir("message", "read", "orders", "-p", "0", "-o", "value") == (0, "fine\n", "")


def a_reader_by_amqp_is_told_that_one_did_not_come(node):
    """The topic is read by a subscription: what stands behind the damage comes, and the command waits for no more."""
    command = ["message", "read", "orders", "--proto", "amqp", "-o", "value"]
    # The first time makes the subscription.
    node.sabir(*command, address=node.broker.amqp)
    for attempt in range(3):
        code, out, err = node.sabir(*command, address=node.broker.amqp)
        assert (code, sorted(out.splitlines())) == (REFUSED, ["behind", "fine", "good"]), (attempt, code, out, err)
        assert err.startswith("error: 1 message of orders did not come"), err


def bytes_that_changed_on_their_way_end_it_too(node):
    code, out, err = node.sabir("message", "read", "changed", "-o", "value")
    assert (code, out) == (FAILED, ""), (code, out, err)
    assert err.startswith("error: ") and "changed-0" in err, err


def clients_get_kafkas_error(node):
    for _ in range(3):
        try:
            found = node.fetch(1, 1)
        except wire.Refused as refused:
            assert CORRUPT_MESSAGE in str(refused), refused
        else:
            raise AssertionError(f"{len(found)} bytes of damaged records were given out")
    # the batch before it is served, and so is the partition beside it
    assert b"good" in node.fetch(1, 0) and b"fine" in node.fetch(0, 0)


def the_log_names_it_once_in_a_while(node):
    """However often it is asked for, over one connection or many."""
    before = len(node.logged())
    began = time.monotonic()
    for _ in range(FETCHES):
        with contextlib.suppress(wire.Refused):
            node.fetch(1, 1)
    with node.client() as client:
        for _ in range(FETCHES):
            with contextlib.suppress(wire.Refused):
                client.get("orders", 1, 1, wait_ms=0)
    minutes = 1 + int((time.monotonic() - began) // 60)
    told = [line for line in node.logged() if line["message"] == "records cannot be read"]
    assert told, f"none of {len(node.logged())} lines says it"
    for line in told:
        assert (line["topic"], line["partition"], str(line["offset"])) == ("orders", 1, "1"), line
    more = node.logged()[before:]
    assert len([line for line in more if line in told]) <= minutes, told
    assert len(more) <= 10 * minutes, f"{len(more)} lines for {2 * FETCHES} fetches, the last of them {more[-3:]}"


def health_and_a_metric_show_it(node):
    with contextlib.suppress(wire.Refused):
        node.fetch(1, 1)
    said = node.asks("readyz")
    assert "topic orders, partition 1: the records at offset 1 cannot be read: they are corrupt" in said, said
    figures = [line.rsplit(" ", 1) for line in node.asks("metrics").splitlines() if line and line[0] != "#"]
    values = {name: float(value) for name, value in figures}
    assert sum(v for name, v in values.items() if name.startswith("sabir_unreadable_partitions{")) == 1, values
    assert sum(v for name, v in values.items() if name.startswith("sabir_corrupt_batches_total{")) >= 1, values
    assert sum(v for name, v in values.items() if name.startswith("sabir_shard_stopped{")) == 0, values


def main():
    suite = cases.Suite("damaged-records")
    with Node() as node:
        for case in (
            commands_end_with_an_error,
            a_reader_by_amqp_is_told_that_one_did_not_come,
            bytes_that_changed_on_their_way_end_it_too,
            clients_get_kafkas_error,
            the_log_names_it_once_in_a_while,
            health_and_a_metric_show_it,
        ):
            suite.case(case.__name__.replace("_", "-"), lambda case=case: case(node), limit=90)
        suite.case("it-ends-as-usual", lambda: ended(node.broker.stop()))
    suite.end()


def ended(code):
    assert code == 0, f"it ended with {code}"


if __name__ == "__main__":
    main()
