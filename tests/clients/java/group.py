#!/usr/bin/env python3
"""A Java consumer group of three against the broker at BOOTSTRAP: members come, are killed, come back and leave, while a producer
writes. Every record is read, a partition has one owner at a time, nothing that was committed is read again, and the assignment
settles."""

import collections
import os
import pathlib
import queue
import signal
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases
import program

BOOTSTRAP = os.environ["BOOTSTRAP"]
CLASSES = broker.CACHE / "java"
PARTITIONS = 6
# The shortest that Kafka allows.
SESSION = 6
# For one that is to be back before it is over: on a busy machine a member takes long to start.
LONG_SESSION = 45
SALT = f"{time.time_ns():x}"
COOPERATIVE = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
EAGER = "org.apache.kafka.clients.consumer.RangeAssignor"


def start(name, hear, *arguments):
    return program.Program(name, program.java(*arguments, heap="128m", path=f"{CLASSES}:"), hear)


class Group:
    """The members of one group and what they have said so far."""

    def __init__(self, name, assignor):
        self.label, self.name, self.assignor = name, f"{name}-{SALT}", assignor
        self.lock = threading.Lock()
        self.members = {}
        self.owned = {}
        self.changes = collections.Counter()
        self.fenced = set()
        self.problems = []
        # partition -> list of the values read, in the order in which they were read
        self.read = collections.defaultdict(list)
        self.committed = collections.Counter()
        self.fed = queue.Queue()
        self.feed = None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for one in [*self.members.values(), *([self.feed] if self.feed else [])]:
            if one.process.poll() is None:
                one.end(signal.SIGKILL)

    def start_feed(self, records, per_second):
        self.feed = start(
            f"{self.label}-feed", self.fed.put, "Feed", BOOTSTRAP, self.name, str(PARTITIONS), str(records), str(per_second)
        )
        line = self.fed.get(timeout=90)
        assert line == "created", line
        self.records = records

    def join(self, member, instance=None, session=SESSION):
        settings = [
            f"bootstrap.servers={BOOTSTRAP}",
            f"topic={self.name}",
            f"group.id={self.name}",
            f"client.id={member}",
            f"partition.assignment.strategy={self.assignor}",
            f"session.timeout.ms={session * 1000}",
            "heartbeat.interval.ms=500",
            "max.poll.records=50",
            *([f"group.instance.id={instance}"] if instance else []),
        ]
        with self.lock:
            self.owned[member] = set()
        self.members[member] = start(f"{self.label}-{member}", lambda line: self.heard(member, line), "Member", *settings)

    def kill(self, member):
        self.members.pop(member).end(signal.SIGKILL)
        with self.lock:
            return self.owned.pop(member)

    def leave(self, member):
        self.members.pop(member).end(signal.SIGTERM)
        with self.lock:
            del self.owned[member]

    def heard(self, member, line):
        what, _, rest = line.partition(" ")
        with self.lock:
            if what in ("assigned", "revoked", "lost", "owns"):
                numbers = {int(n) for n in rest.split(",") if n}
                self.moved(member, what, numbers)
            elif what == "read":
                partition, first, after, values = rest.split(" ")
                self.has_read(member, int(partition), int(first), int(after), [int(v) for v in values.split(",")])
            elif what == "committed":
                partition, offset = map(int, rest.split(" "))
                self.committed[partition] = max(self.committed[partition], offset)
            elif what == "fenced":
                self.fenced.add(member)

    def moved(self, member, what, numbers):
        if what == "assigned":
            self.changes[member] += 1
            for other, owned in self.owned.items():
                # A member that was told to give partitions back says so before the other is told that it has them.
                if other != member and owned & numbers:
                    self.problems.append(f"{member} gets {numbers} while {other} has {owned}")
            self.owned.setdefault(member, set()).update(numbers)
        elif what in ("revoked", "lost"):
            self.owned.setdefault(member, set()).difference_update(numbers)
        elif self.owned.get(member) != numbers:
            self.problems.append(f"{member} owns {numbers}, expected {self.owned.get(member)}")

    def has_read(self, member, partition, first, after, values):
        if first < self.committed[partition]:
            self.problems.append(f"{member} reads partition {partition} again from {first}, {self.committed[partition]} was committed")
        # There is nothing in this topic but the feed, so a record's number is its offset.
        if values != list(range(first, after)):
            self.problems.append(f"{member} reads partition {partition} from {first} to {after} and finds {values[:5]}…")
        self.read[partition] += values

    def settled(self, share):
        """Each member has its share of the partitions, and all are owned."""
        with self.lock:
            sizes = sorted(len(o) for o in self.owned.values())
            all_of_them = sorted(p for o in self.owned.values() for p in o)
        return sizes == sorted(share) and all_of_them == list(range(PARTITIONS))

    def wait(self, what, condition, limit):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                with self.lock:
                    progress = {p: len(set(v)) for p, v in self.read.items()}
                    raise AssertionError(f"{what}: not after {limit} s; owned {self.owned}, read {progress}, problems {self.problems}")
            time.sleep(0.05)

    def has_read_at_least(self, count):
        with self.lock:
            return sum(len(set(v)) for v in self.read.values()) >= count

    def all_read(self):
        """Waits for the end of the feed, and until everything was read."""
        last = self.fed.get(timeout=180)
        assert last == f"fed {self.records * PARTITIONS}", last
        self.wait("all is read", lambda: self.has_read_at_least(self.records * PARTITIONS), 90)
        for partition in range(PARTITIONS):
            missing = set(range(self.records)) - set(self.read[partition])
            assert not missing, f"partition {partition}: never read {sorted(missing)[:10]}"
        assert not self.problems, self.problems


def loses_a_member(assignor):
    with Group(f"loses-{assignor.rsplit('.', 1)[1]}", assignor) as group:
        group.start_feed(2000, 1000 * PARTITIONS // 6)
        group.join("a", session=LONG_SESSION)
        group.join("b")
        group.join("c", session=LONG_SESSION)
        group.wait("three share six partitions", lambda: group.settled([2, 2, 2]), 90)
        group.wait("something is read", lambda: group.has_read_at_least(300), 60)
        group.kill("b")
        group.wait("two share six partitions", lambda: group.settled([3, 3]), SESSION + 30)
        group.join("d", session=LONG_SESSION)
        group.wait("three share them again", lambda: group.settled([2, 2, 2]), 60)
        group.leave("a")
        # Who leaves says so: nobody waits for its session to time out.
        group.wait("two share them after one has left", lambda: group.settled([3, 3]), LONG_SESSION - 5)
        group.all_read()


def cooperative_keeps_what_stays():
    """A third member takes two partitions; the other four are never given back."""
    with Group("keeps", COOPERATIVE) as group:
        group.start_feed(400, 1000)
        group.join("a")
        group.join("b")
        group.wait("two share six partitions", lambda: group.settled([3, 3]), 90)
        with group.lock:
            before = {m: set(o) for m, o in group.owned.items()}
        group.join("c")
        group.wait("three share them", lambda: group.settled([2, 2, 2]), 60)
        with group.lock:
            kept = [before[m] & group.owned[m] for m in "ab"]
        assert [len(k) for k in kept] == [2, 2], f"before {before}, now {group.owned}"
        group.all_read()


def static_member_returns():
    """A member with an instance id is killed and back before its session times out: nobody else notices."""
    with Group("static", COOPERATIVE) as group:
        group.start_feed(1000, 1000)
        for member in "abc":
            group.join(member, instance=f"instance-{member}", session=LONG_SESSION)
        group.wait("three share six partitions", lambda: group.settled([2, 2, 2]), 90)
        time.sleep(1)
        with group.lock:
            before = dict(group.changes)
        had = group.kill("b")
        group.join("b", instance="instance-b")
        group.wait("the same partitions are back", lambda: group.settled([2, 2, 2]), LONG_SESSION - 5)
        with group.lock:
            assert group.owned["b"] == had, f"it had {had}, now {group.owned['b']}"
            assert [group.changes[m] for m in "ac"] == [before[m] for m in "ac"], "the others were disturbed"
        # One that does not come back is replaced when its session times out, which is the one that it came back with.
        group.kill("b")
        group.wait("two share six partitions", lambda: group.settled([3, 3]), SESSION + 30)
        group.all_read()


def static_member_is_fenced():
    """A second member with the same instance id takes the first one's place."""
    with Group("fenced", COOPERATIVE) as group:
        group.start_feed(200, 1000)
        group.join("a", instance="instance")
        group.wait("one has all partitions", lambda: group.settled([6]), 90)
        group.wait("something is read", lambda: group.has_read_at_least(100), 60)
        with group.lock:
            group.owned["a"] = set()
        group.join("b", instance="instance")
        group.wait("the first is fenced", lambda: "a" in group.fenced, 60)
        group.members.pop("a").ended()
        with group.lock:
            del group.owned["a"]
        group.wait("the second has all partitions", lambda: group.settled([6]), 60)
        group.all_read()


def main():
    suite = cases.Suite("java-group")
    program.build(CLASSES, "Member", "Feed")
    suite.case("eager-loses-a-member", lambda: loses_a_member(EAGER), 120)
    suite.case("cooperative-loses-a-member", lambda: loses_a_member(COOPERATIVE), 120)
    suite.case("cooperative-keeps-what-stays", cooperative_keeps_what_stays, 90)
    suite.case("static-member-returns", static_member_returns, 120)
    suite.case("static-member-is-fenced", static_member_is_fenced, 90)
    suite.end()


if __name__ == "__main__":
    main()
