#!/usr/bin/env python3
"""A disk that does not answer, under a real `sabir serve`: /readyz says so within seconds, SIGTERM ends the broker in its time all the
same, and nothing acknowledged is lost. Needs root: a file system of its own is mounted and frozen, where only this process sees it.

    tests/limits/frozen.py [CASE...]
"""

import pathlib
import shutil
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import mounts
import wire

SIZE = 930 << 20
# A disk that has not finished a read or a write for so long is shown as one that does not answer.
STALLED = 5
DRAIN = 5
# How long nothing is written before something is, to see whether the disk answers, and how often that is looked.
IDLE, LOOK = 5, 1
# What a busy machine adds.
SLACK = 10
BATCH = wire.batch([b"x" * 100])


class Node:
    """A broker on a disk that can be frozen."""

    def __init__(self, disk):
        self.folder = brokers.scratch("frozen")
        self.mounted = self.folder / "mounted"
        self.mounted.mkdir()
        mounts.mount_image(self.mounted, self.folder / "image", SIZE)
        settings = ["data.shards=1", "data.keep_free=1MiB", f"net.drain={DRAIN}s"]
        self.broker = brokers.Sabir(self.mounted / "data", f"frozen-{disk}", disk, settings)
        self.disk = mounts.Freezer(self.mounted)

    def __enter__(self):
        self.broker.start()
        with wire.Connection(self.broker.bootstrap) as client:
            client.create([("t", 1, {})])
            assert client.put("t", 0, BATCH) == 0
        return self

    def __exit__(self, *_error):
        self.disk.thaw()
        if self.broker.process:
            self.broker.kill()
        self.disk.close()
        mounts.unmount(self.mounted)
        shutil.rmtree(self.folder, ignore_errors=True)

    def asks(self, path):
        """The code and text of an answer of the admin port, which never has to be waited for: not for two seconds, of three times."""
        for number in range(3):
            try:
                with urllib.request.urlopen(f"http://{self.broker.admin}/{path}", timeout=2) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError:
                if number == 2:
                    raise
        return None

    def freeze_under_a_write(self):
        """The connection of somebody who waits for a record to be written."""
        client = wire.Connection(self.broker.bootstrap, timeout=60)
        self.disk.freeze()
        client.send(wire.PRODUCE, 7, wire.produce("t", 0, BATCH))
        return client

    def is_not_ready_within(self, most):
        frozen = time.monotonic()
        while (answer := self.asks("readyz"))[0] == 200:
            waited = time.monotonic() - frozen
            assert waited < most + SLACK, f"/readyz says 200 after {waited:.1f} s"
            self.lives()
            time.sleep(0.1)
        print(f"not ready {time.monotonic() - frozen:.1f} s after it was frozen")
        assert answer[0] == 503 and "its disk has not finished a read or write for" in answer[1], answer
        self.lives()

    def is_ready_again(self):
        self.disk.thaw()
        until = time.monotonic() + 30
        while (answer := self.asks("readyz"))[0] != 200:
            assert time.monotonic() < until, f"not ready again: {answer}"
            time.sleep(0.1)

    def lives(self):
        assert self.asks("livez")[0] == 200
        assert "sabir_disk_wait_seconds" in self.asks("metrics")[1]

    def stops(self, within):
        """Asks it to end; how long it took until it was done with all but what the kernel holds of it."""
        before, began = self.broker.log_path.stat().st_size, time.monotonic()
        self.broker.signal(brokers.signal.SIGTERM)
        while not self.has_stopped(before):
            waited = time.monotonic() - began
            assert waited < within, f"not ended {waited:.1f} s after SIGTERM:\n{self.broker.log_end()}"
            time.sleep(0.05)
        return time.monotonic() - began

    def has_stopped(self, before):
        """Whether it has said so, and its first thread has ended: others may be within a write, which no signal ends."""
        said = self.broker.log_path.read_bytes()[before:].decode(errors="replace")
        state = pathlib.Path(f"/proc/{self.broker.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return ": stopped" in said and state == "Z"

    def comes_back(self):
        """With the disk back the process is gone at once, and what it had acknowledged is read."""
        self.disk.thaw()
        code = self.broker.stop(30)
        assert code == 0, f"it ended with {code}"
        self.broker.start()
        with wire.Connection(self.broker.bootstrap) as client:
            assert client.get("t", 0, 0)
            assert client.put("t", 0, BATCH) >= 1


def is_not_ready(disk):
    with Node(disk) as node:
        with node.freeze_under_a_write() as writer:
            node.is_not_ready_within(STALLED)
            node.is_ready_again()
            # and whoever waited is answered
            writer.receive()
            assert writer.offset("t", 0, -1) == 2


def is_not_ready_at_rest(disk):
    """Nobody writes anything, before or meanwhile."""
    with Node(disk) as node:
        time.sleep(3)
        node.disk.freeze()
        node.is_not_ready_within(IDLE + LOOK + STALLED)
        node.is_ready_again()
        with wire.Connection(node.broker.bootstrap) as client:
            assert client.put("t", 0, BATCH) == 1


def ends_under_a_write(disk):
    with Node(disk) as node:
        with node.freeze_under_a_write():
            time.sleep(0.5)
            print(f"ended after {node.stops(DRAIN + SLACK):.1f} s")
        node.comes_back()


def ends_at_rest(disk):
    with Node(disk) as node:
        node.disk.freeze()
        print(f"ended after {node.stops(DRAIN + SLACK):.1f} s")
        node.comes_back()


def main():
    suite = cases.Suite("frozen-disk")
    try:
        mounts.own_namespace()
    except cases.Skip as skip:
        suite.record("all", cases.cannot_be_run(), reason=f"cannot be run here: {skip}")
        return suite.end()
    for disk in ("pwrite", "io_uring"):
        for case in (is_not_ready, is_not_ready_at_rest, ends_under_a_write, ends_at_rest):
            name = f"{case.__name__.replace('_', '-')}-{disk.replace('_', '-')}"
            suite.case(name, lambda case=case, disk=disk: case(disk), limit=80)
    suite.end()


if __name__ == "__main__":
    main()
