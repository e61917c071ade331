#!/usr/bin/env python3
"""A disk that is full to its last byte, under a real `sabir serve`: deletes make room, again and again; checkpoints are not lost for
ever; a start on it works with either way to the disk. Needs root: file systems of its own are mounted, where only this process sees them.

    tests/limits/full.py [CASE...]
"""

import contextlib
import os
import pathlib
import shutil
import socket
import struct
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import mounts
import wire
from amqp_wire import Closed, Raw
from pika import BasicProperties, spec

MIB = 1 << 20
# Eight segments of 64 MiB are there from the start; six more fit.
SIZE = 930 * MIB
# Seven segments: one journal has three, and takes four.
TOO_SMALL = 500 * MIB
BATCH = wire.batch([b"x" * 1000] * 900)
STORAGE_FULL = "error 56"


class Small:
    """A small file system, and a broker that has nothing else."""

    def __init__(self, kind, disk, size=SIZE):
        self.folder = brokers.scratch(f"full-{kind}")
        self.mounted = self.folder / "mounted"
        self.mounted.mkdir()
        if kind == "tmpfs":
            mounts.mount_memory(self.mounted, size)
        else:
            mounts.mount_image(self.mounted, self.folder / "image", size + 40 * MIB)
        self.probe = brokers.free_ports(1)[0]
        own = [f"probe.listen=127.0.0.1:{self.probe}"]
        settings = ["data.shards=1", "data.keep_free=1MiB", "data.retention_interval=1s", *own]
        self.broker = brokers.Sabir(self.mounted / "data", f"full-{kind}-{disk}", disk, settings)

    def __enter__(self):
        self.broker.start()
        return self

    def __exit__(self, *_error):
        if self.broker.process:
            self.broker.kill()
        mounts.unmount(self.mounted)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self):
        return wire.Connection(self.broker.bootstrap)

    def free(self):
        stat = os.statvfs(self.mounted)
        return stat.f_bavail * stat.f_frsize

    def fill_with_records(self, topics):
        """Writes until it is refused; how often it was not."""
        taken = 0
        with self.client() as client:
            while True:
                try:
                    client.put(topics[taken % len(topics)], 0, BATCH)
                except wire.Refused as refused:
                    assert STORAGE_FULL in str(refused), refused
                    return taken
                taken += 1

    def fill_the_rest(self):
        """Somebody else takes every byte that is left, and what the file system or the broker lets go of meanwhile."""
        until = time.monotonic() + 60
        while True:
            with open(self.mounted / "foreign", "ab", buffering=0) as file:
                for size in (MIB, 4096, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"y" * size)
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())
            left = self.free()
            if left == 0:
                return
            assert time.monotonic() < until, f"{left} bytes are left"

    @contextlib.contextmanager
    def taking_what_comes_free(self):
        """Meanwhile another program takes every byte as it comes free."""
        over = threading.Event()

        def take():
            with open(self.mounted / "taken", "ab", buffering=0) as file:
                while not over.is_set():
                    for size in (MIB, 4096):
                        with contextlib.suppress(OSError):
                            while not over.is_set():
                                file.write(b"y" * size)
                    time.sleep(0.001)

        taker = threading.Thread(target=take)
        taker.start()
        try:
            yield
        finally:
            over.set()
            taker.join()

    def commit(self, group, topic, partitions, metadata):
        """Commits positions from outside the group's members; the first error."""
        positions = [struct.pack(">iq", partition, 1) + wire.string(metadata) for partition in partitions]
        body = wire.string(group) + struct.pack(">i", -1) + wire.string("") + struct.pack(">q", -1)
        with self.client() as client:
            answer = client.call(8, 2, body + wire.array([wire.string(topic) + wire.array(positions)]))
        at = 4 + 2 + len(topic) + 4
        errors = (struct.unpack_from(">ih", answer, at + 6 * number)[1] for number in range(len(partitions)))
        return next(filter(None, errors), 0)

    def delete_topic(self, name):
        with self.client() as client:
            answer = client.call(20, 1, wire.array([wire.string(name)]) + struct.pack(">i", 30_000))
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name))
        assert error == 0, f"DeleteTopics answers error {error}"

    def delete_records(self, name):
        one = wire.string(name) + wire.array([struct.pack(">iq", 0, -1)])
        with self.client() as client:
            answer = client.call(21, 1, wire.array([one]) + struct.pack(">i", 30_000))
        (error,) = struct.unpack_from(">h", answer, len(answer) - 2)
        assert error == 0, f"DeleteRecords answers error {error}"

    def expect_writes(self, topic, within=90):
        """Records are taken again, by itself."""
        until = time.monotonic() + within
        while True:
            try:
                with self.client() as client:
                    return client.put(topic, 0, BATCH)
            except wire.Refused as refused:
                if time.monotonic() > until:
                    raise AssertionError(f"still refused after {within} s: {refused}; the log ends:\n{self.broker.log_end(8)}") from None
                time.sleep(0.2)

    def readiness(self):
        """What `/readyz` says of a node that takes requests."""
        with urllib.request.urlopen(f"http://{self.broker.admin}/readyz", timeout=10) as answer:
            return answer.read().decode()

    def expect_ready(self, holds, within=60):
        until = time.monotonic() + within
        while not holds(text := self.readiness()):
            assert time.monotonic() < until, text
            time.sleep(0.1)

    def make_topics(self, *names):
        with self.client() as client:
            client.create([(name, 1, {"max.message.bytes": "4000000"}) for name in names])


def deletes_make_room(kind, disk):
    """Three times over, with not a byte left, each kind of delete; then killed and started again."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "emptied", "aged", "kept")
        assert small.fill_with_records(["gone", "emptied", "aged"]) > 200
        small.fill_the_rest()
        small.delete_topic("gone")
        small.delete_records("emptied")
        small.delete_records("aged")
        small.expect_writes("kept")
        for name in ("emptied", "aged"):
            assert small.fill_with_records([name]) > 30
            small.fill_the_rest()
            small.delete_records(name)
            end = small.expect_writes("kept")
        small.fill_with_records(["aged"])
        small.broker.kill()
        small.broker.start()
        small.delete_topic("aged")
        assert small.expect_writes("kept") > end


def commits_leave_room_for_deletes(kind, disk):
    """Positions with all the metadata they may have, before the disk is full and then until they are refused; deletes make room all the same."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "kept")
        with small.client() as client:
            client.create([("read", 5_000, {})])
        metadata = "m" * 4_000
        pieces = [range(first, first + 100) for first in range(0, 5_000, 100)]
        for piece in pieces[:20]:
            assert small.commit("before", "read", piece, metadata) == 0
        small.fill_with_records(["gone"])
        with small.taking_what_comes_free():
            small.fill_the_rest()
            committed = 0
            for number in range(400):
                error = small.commit(f"then-{number // len(pieces)}", "read", pieces[number % len(pieces)], metadata)
                committed += error == 0
                if error:
                    break
            assert error, f"{committed * 100} positions were taken, and none refused"
            small.delete_topic("gone")
            small.expect_writes("kept")
        small.broker.kill()
        small.broker.start()
        small.expect_writes("kept")


def starts_when_full(kind, disk):
    """Stopped and started with not a byte left."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "kept")
        small.fill_with_records(["gone"])
        small.fill_the_rest()
        code = small.broker.stop()
        assert code == 0, f"it ended with {code}"
        small.fill_the_rest()
        small.broker.start()
        assert small.free() == 0
        # Whatever was full stays so, and reads go on.
        with small.client() as client:
            assert client.get("gone", 0, 0)
        small.delete_topic("gone")
        small.expect_writes("kept")
        code = small.broker.stop()
        assert code == 0, f"it ended with {code}"


def space_comes_back(kind, disk):
    """Full, nothing deleted, and then somebody else makes room."""
    with Small(kind, disk) as small:
        small.make_topics("t")
        (small.mounted / "foreign").write_bytes(b"z" * (200 * MIB))
        small.fill_with_records(["t"])
        (small.mounted / "foreign").unlink()
        small.expect_writes("t")


MAKE_ROOM = "takes deletes, which make room"
MAKE_NONE = "takes deletes. They make no room while any record is kept, for its journal lacks segments: give the disk more space"


def says_that_deletes_help(kind, disk):
    """And they do."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "kept")
        small.fill_with_records(["gone"])
        small.expect_ready(lambda text: text.startswith("ready\nshard 1: its disk is full") and MAKE_ROOM in text)
        small.delete_topic("gone")
        small.expect_ready(lambda text: text == "ready\n")
        small.expect_writes("kept")


def says_that_deletes_do_not_help(kind, disk):
    """And they do not while a record is kept; more space does, by itself."""
    with Small(kind, disk, TOO_SMALL) as small:
        small.make_topics("gone", "emptied", "kept")
        with small.client() as client:
            client.put("kept", 0, wire.batch([b"kept"]))
        small.fill_with_records(["gone", "emptied"])
        small.delete_topic("gone")
        small.delete_records("emptied")
        # What deletes have freed is used some tenths of a second later.
        until = time.monotonic() + 3
        while time.monotonic() < until:
            full = small.readiness()
            assert MAKE_NONE in full and MAKE_ROOM not in full, full
        small.delete_records("kept")
        small.expect_ready(lambda text: text == "ready\n")
        small.fill_with_records(["kept"])
        assert MAKE_NONE in small.readiness(), small.readiness()
        mounts.run("mount", "-o", f"remount,size={SIZE}", str(small.mounted))
        small.expect_writes("kept")
        small.expect_ready(lambda text: text == "ready\n")


class Lines:
    """A client of the protocol of lines."""

    def __init__(self, port, name):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.answers = self.socket.makefile("r")
        assert self.ask(f"HELLO {name}").startswith("OK"), name

    def say(self, line):
        self.socket.sendall(f"{line}\n".encode())

    def answer(self):
        return self.answers.readline().strip()

    def ask(self, line):
        self.say(line)
        return self.answer()

    def expect(self, line):
        answer = self.ask(line)
        assert answer.startswith("OK"), f"{line}: {answer}"
        return answer


def waits_end(kind, disk):
    """A client that waits for something is told in time that nothing came, and what comes later is not for one that has gone."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "kept")
        waits, goes = Lines(small.probe, "waits"), Lines(small.probe, "goes")
        works = Lines(small.probe, "works")
        works.expect("QUEUE work")
        for number in range(3):
            works.expect(f"PUBLISH work 0 {number}")
        waits.say("TAKE q 30000")
        goes.say("TAKE q 600000")
        began = time.monotonic()
        small.fill_with_records(["gone"])
        small.fill_the_rest()
        took = time.monotonic() - began
        assert took < 25, f"the disk was full after {took:.0f} s: too late to be waited on"
        goes.answers.close()
        goes.socket.close()
        assert waits.answer() == "NIL"
        assert 28 < time.monotonic() - began < 45, "it is told in time"
        refused = waits.ask("PUT q lost")
        assert refused.startswith("ERR"), f"the disk is full: {refused}"
        assert works.ask("PUBLISH work 0 more").startswith("ERR"), "it is full for records, too"
        for end in ("DONE", "RETURN", "DONE"):
            lease = works.expect("LEASE work 60000").split()[1]
            works.expect(f"{end} work {lease}")
        small.delete_topic("gone")
        small.expect_writes("kept")
        later = Lines(small.probe, "later")
        later.say("TAKE q 60000")
        assert waits.ask("PUT q one") == "OK"
        assert later.answer() == "OK one", "it is not given to the client that has gone"


class Tasks:
    """A queue `tasks` whose messages come there by another way after so long: `delayed`, or `dead` out of another queue that gives them up."""

    AFTER_MS = 15_000

    def __init__(self, small, way):
        self.address, self.sent = small.broker.amqp, 0
        self.channel = Raw(self.address, limit=5).log_in().open_channel(1)
        self.channel.call(spec.Queue.Declare(queue="tasks", durable=True), spec.Queue.DeclareOk)
        self.exchange, self.key, headers = "", "waits", None
        if way == "delayed":
            self.exchange, self.key, headers = "delays", "tasks", {"x-delay": self.AFTER_MS}
            declare = spec.Exchange.Declare(exchange="delays", type="x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"})
            self.channel.call(declare, spec.Exchange.DeclareOk)
            self.channel.call(spec.Queue.Bind(queue="tasks", exchange="delays", routing_key="tasks"), spec.Queue.BindOk)
        else:
            arguments = {"x-message-ttl": self.AFTER_MS, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "tasks"}
            self.channel.call(spec.Queue.Declare(queue="waits", durable=True, arguments=arguments), spec.Queue.DeclareOk)
        self.channel.call(spec.Confirm.Select(nowait=False), spec.Confirm.SelectOk)
        self.properties = BasicProperties(delivery_mode=2, headers=headers)

    def publish(self, size):
        """A message; whether it was confirmed."""
        self.channel.publish(self.exchange, self.key, struct.pack(">I", self.sent) + os.urandom(size), properties=self.properties)
        try:
            self.channel.expect(spec.Basic.Ack)
        except (TimeoutError, Closed, AssertionError):
            self.channel.raw.close()
            return False
        self.sent += 1
        return True

    def arrived(self, within):
        """Waits until all that were confirmed are in `tasks`, or for so long; how many are."""
        until = time.monotonic() + within
        channel = Raw(self.address, limit=30).log_in().open_channel(1)
        while True:
            count = channel.call(spec.Queue.Declare(queue="tasks", passive=True), spec.Queue.DeclareOk).message_count
            if count >= self.sent or time.monotonic() > until:
                channel.raw.close()
                return count
            time.sleep(0.2)

    def purged(self):
        """How many messages of the queue that gives them up a purge drops."""
        channel = Raw(self.address, limit=30).log_in().open_channel(1)
        return channel.call(spec.Queue.Purge(queue="waits"), spec.Queue.PurgeOk).message_count

    def consumed(self, within):
        """Takes messages until all that were confirmed are here, each once, or for so long; whether they all came."""
        channel = Raw(self.address, limit=30).log_in().open_channel(1)
        until, got = time.monotonic() + within, []
        while len(got) < self.sent and time.monotonic() < until:
            channel.write(spec.Basic.Get(queue="tasks"))
            answer = channel.raw.frame().method
            if isinstance(answer, spec.Basic.GetEmpty):
                time.sleep(0.1)
                continue
            head, body = channel.raw.frame(), b""
            while len(body) < head.body_size:
                body += channel.raw.frame().fragment
            got.append(struct.unpack_from(">I", body)[0])
            channel.write(spec.Basic.Ack(delivery_tag=answer.delivery_tag))
        channel.raw.close()
        # One that was not confirmed may be there.
        assert len(set(got)) == len(got) and max(got, default=0) <= self.sent, sorted(got)
        return len(set(got) & set(range(self.sent))) == self.sent


def small_ones_go_on(kind, disk, way):
    """A few small messages, one in each segment or more, hold all of them: they go where they go on the full disk, and deletes make room."""
    with Small(kind, disk) as small:
        small.make_topics("gone", "kept")
        tasks = Tasks(small, way)
        with small.client() as client, contextlib.suppress(wire.Refused):
            for number in range(10_000):
                if number % 30 == 0:
                    assert tasks.publish(100)
                client.put("gone", 0, BATCH)
        small.fill_the_rest()
        assert tasks.consumed(within=90), "they do not come"
        small.delete_topic("gone")
        small.expect_writes("kept")


def large_ones_go_on(kind, disk, way):
    """They alone have filled the disk, and all of them come though nothing is deleted: where one is copied the space of others that were has come free."""
    with Small(kind, disk) as small:
        small.make_topics("kept")
        tasks = Tasks(small, way)
        while tasks.publish(400_000):
            pass
        assert tasks.sent > 300, f"{tasks.sent} filled it"
        small.fill_the_rest()
        arrived = tasks.arrived(within=120)
        assert arrived >= tasks.sent, f"{arrived} of {tasks.sent} have come: {small.readiness()}"
        assert tasks.consumed(within=90), "they are not there"
        small.expect_writes("kept")


def huge_ones_wait(kind, disk):
    """What takes more than 512 KiB is not copied on a full disk: that it waits is told, and a purge of its queue drops it."""
    with Small(kind, disk) as small:
        small.make_topics("kept")
        tasks = Tasks(small, "dead")
        while tasks.publish(700_000):
            pass
        small.fill_the_rest()
        # One that was not confirmed may be there.
        waiting = [f"There wait for room: {count} dead letters" for count in (tasks.sent, tasks.sent + 1)]
        small.expect_ready(lambda text: any(line in text for line in waiting))
        with urllib.request.urlopen(f"http://{small.broker.admin}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        assert any(f'sabir_waiting_dead_letters{{shard="1"}} {count}' in metrics for count in (tasks.sent, tasks.sent + 1))
        assert tasks.purged() >= tasks.sent
        small.expect_writes("kept")
        small.expect_ready(lambda text: text == "ready\n")


def delayed_ones_hold(kind, disk):
    """A few messages that are due in days lie in each segment: it is said that deletes of records make no room, and for how long."""
    with Small(kind, disk) as small:
        small.make_topics("gone")
        tasks = Tasks(small, "delayed")
        tasks.properties = BasicProperties(delivery_mode=2, headers={"x-delay": 5 * 86_400_000})
        with small.client() as client, contextlib.suppress(wire.Refused):
            for number in range(10_000):
                if number % 20 == 0:
                    assert tasks.publish(100)
                client.put("gone", 0, BATCH)
        small.fill_the_rest()
        held = f"each segment of its journal holds some of {tasks.sent} delayed messages, the last of which is due in 4 d 23 h"

        def says_so(text):
            return held in text and MAKE_ROOM not in text

        small.expect_ready(says_so)
        small.delete_topic("gone")
        # What deletes have freed is used some tenths of a second later.
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert says_so(small.readiness()), small.readiness()


def main():
    suite = cases.Suite("full-disk")
    try:
        mounts.own_namespace()
    except cases.Skip as skip:
        suite.record("all", cases.cannot_be_run(), reason=f"cannot be run here: {skip}")
        return suite.end()
    for kind in ("tmpfs", "ext4"):
        for disk in ("pwrite", "io_uring"):
            for case in (deletes_make_room, commits_leave_room_for_deletes, starts_when_full, space_comes_back, waits_end):
                name = f"{case.__name__.replace('_', '-')}-{kind}-{disk.replace('_', '-')}"
                suite.case(name, lambda case=case, kind=kind, disk=disk: case(kind, disk), limit=180)
    for case, kind, disk in ((small_ones_go_on, "tmpfs", "io_uring"), (large_ones_go_on, "ext4", "pwrite")):
        for way in ("delayed", "dead"):
            name = f"{way}-{case.__name__.replace('_', '-')}-{kind}-{disk.replace('_', '-')}"
            suite.case(name, lambda case=case, kind=kind, disk=disk, way=way: case(kind, disk, way), limit=300)
    for case, kind, disk in ((huge_ones_wait, "tmpfs", "io_uring"), (delayed_ones_hold, "tmpfs", "pwrite")):
        name = f"{case.__name__.replace('_', '-')}-{kind}-{disk.replace('_', '-')}"
        suite.case(name, lambda case=case, kind=kind, disk=disk: case(kind, disk), limit=300)
    for case in (says_that_deletes_help, says_that_deletes_do_not_help):
        suite.case(case.__name__.replace("_", "-"), lambda case=case: case("tmpfs", "auto"), limit=90)
    suite.end()


if __name__ == "__main__":
    main()
