#!/usr/bin/env python3
"""Kills a broker over and over, or cuts its power, under idempotent writers and a consumer group, and checks what is left.

    loop.py kill  [--kind sabir|kafka] [--disk pwrite|io_uring] [--times N] [--seed N]
    loop.py power …            needs root
    loop.py kill --must-lose   the run is sound only if something is lost: the test of the test

Whatever happened, at the end the writers have been answered and the group has read everything; then the broker is closed cleanly and
started once more, and the log is read from beginning to end.
"""

import argparse
import pathlib
import random
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import powercut
from confluent_kafka.admin import AdminClient, NewTopic
from history import History
from load import Member, Writer, committed, read_log

TOPIC, GROUP, PARTITIONS = "faults", "faults-group", 3
# Mostly small, some that fill a block, and some that are larger than one.
SMALL = [20] * 50 + [100] * 30 + [1000] * 15 + [20_000] * 4 + [300_000]
LARGE = [100] * 40 + [5000] * 10 + [3_000_000]
LOST, TWICE = "an acknowledged record is lost", "a record is in the log twice"
MOVED, AGAIN = "an offset changed", "read again after the commit"
# A fault says something if so many records were acknowledged since the one before. Three of four wait for them; the fourth comes when
# it comes, also upon clients that have not found the broker again.
AT_STAKE = 100
WAITING = 3 / 4
# Checkpoints come often, so that faults meet them, and starts begin at one.
SETTINGS = {"sabir": ["data.checkpoint_bytes=16MiB"], "kafka": []}


class Run:
    """One run: a broker, its clients, and what they saw."""

    def __init__(self, asked, folder):
        self.asked, self.random = asked, random.Random(asked.seed)
        self.mount = powercut.Mount(folder) if asked.fault == "power" else None
        data = (self.mount.path if self.mount else folder) / "data"
        name = f"faults-{asked.fault}-{asked.kind}-{asked.disk}"
        settings = SETTINGS[asked.kind] + asked.set
        self.broker = brokers.make(asked.kind, data, name, PARTITIONS, asked.disk, settings, asked.flush)
        self.history = History()
        self.starts = []
        # the group's members, and those that have walked away
        self.members, self.gone, self.joined = [], [], 0
        # before how many faults the group has got further, and how many records were acknowledged since the fault before
        self.commits, self.at_stake = 0, []

    def start(self):
        self.starts.append(self.broker.start())

    def clients(self):
        address = self.broker.bootstrap
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config={"max.message.bytes": str(8 << 20)})])[TOPIC].result(30)
        rate = self.asked.rate
        writers = [
            Writer("plain", self.history, address, TOPIC, PARTITIONS, rate, SMALL, "none"),
            Writer("packed", self.history, address, TOPIC, PARTITIONS, rate, SMALL, "lz4"),
            Writer("large", self.history, address, TOPIC, PARTITIONS, min(rate, 60), LARGE, "none"),
        ]
        for client in writers:
            client.start()
        self.members = [self.member() for _ in range(2)]
        deadline = time.monotonic() + 90
        while not self.history.counts()["committed"] and time.monotonic() < deadline:
            time.sleep(0.05)
        return writers

    def member(self):
        self.joined += 1
        member = Member(f"member-{self.joined}", self.history, self.broker.bootstrap, TOPIC, GROUP)
        member.start()
        return member

    def fault(self):
        if self.mount:
            self.mount.cut(self.broker)
        else:
            self.broker.kill()

    def faults(self):
        stalled = acknowledged = 0
        for number in range(self.asked.times):
            before = self.history.counts()["committed"]
            time.sleep(self.random.uniform(self.asked.least, self.asked.seconds))
            if number % 4 < 4 * WAITING:
                self.wait_for_acknowledgements(acknowledged + AT_STAKE)
            if stalled == 1:
                self.wait_for_commit(before)
            if self.random.random() < 0.3:
                self.change_members()
            counts = self.history.counts()
            commits = counts["committed"] > before
            self.commits += commits
            stalled = 0 if commits else stalled + 1
            self.at_stake.append(counts["acknowledged"] - acknowledged)
            acknowledged = counts["acknowledged"]
            self.fault()
            if self.random.random() < 0.2:
                self.during_recovery()
            self.start()
            print(f"{self.asked.fault} {number + 1}: ready again after {self.starts[-1]:.2f} s; {self.history.counts()}", flush=True)

    def wait_for_acknowledgements(self, enough):
        """librdkafka asks for metadata once a second while it has none, so that it may take that long until it writes again."""
        deadline = time.monotonic() + 90
        while self.history.counts()["acknowledged"] < enough:
            if time.monotonic() > deadline:
                self.history.report("the writers do not get on", f"fewer than {enough} acknowledged in 90 s without a fault")
                return
            time.sleep(0.01)

    def wait_for_commit(self, before):
        """A member that could not say that it leaves is missed only when its session times out, and each start begins to count anew:
        every second time it gets the seconds that it needs for that."""
        deadline = time.monotonic() + 90
        while self.history.counts()["committed"] <= before:
            if time.monotonic() > deadline:
                self.history.report("the group does not get on", f"no commit beyond {before} in 90 s without a fault")
                return
            time.sleep(0.1)

    def change_members(self):
        """One walks away and another one comes, a moment before the fault: in the middle of a rebalance, or soon after it."""
        self.members[0].walk_away()
        self.gone.append(self.members.pop(0))
        self.members.append(self.member())
        time.sleep(self.random.uniform(0, 0.5))

    def during_recovery(self):
        """A further fault while it recovers from the last one."""
        after = self.random.uniform(0, 1.5 * self.starts[-1])
        ready = self.broker.ready
        until = time.monotonic() + after
        # It counts as started as soon as it is to be killed again.
        self.broker.ready = lambda: time.monotonic() >= until
        try:
            self.broker.start()
        finally:
            self.broker.ready = ready
        self.fault()

    def settle(self, writers):
        for writer in writers:
            writer.finish()
        for writer in writers:
            writer.ended(120)
        deadline = time.monotonic() + 120
        while self.history.group_is_behind() and time.monotonic() < deadline:
            time.sleep(0.1)
        for member in self.members:
            member.finish()
        for member in self.members + self.gone:
            member.ended(60)

    def judge(self):
        """Everything is read back, once as it stands and once after a clean close."""
        for again in (False, True):
            if again:
                code = self.broker.stop()
                if code not in (0, 143 if self.asked.kind == "kafka" else 0):
                    self.history.report("no clean close", str(code))
                self.start()
            for partition in range(PARTITIONS):
                self.history.log_is(partition, read_log(self.broker.bootstrap, TOPIC, partition))
            for partition, offset in committed(self.broker.bootstrap, TOPIC, PARTITIONS, GROUP).items():
                self.history.committed_is(partition, offset)
        self.history.all_were_answered()
        self.history.group_has_read_all()

    def go(self):
        self.start()
        writers = self.clients()
        self.faults()
        time.sleep(0.5)
        self.settle(writers)
        self.judge()

    def end(self):
        if self.broker.alive():
            self.broker.kill()
        if self.mount:
            self.mount.remove()


def checkpoints(run):
    """From how many different checkpoints Sabir has started."""
    found = re.findall(r" recovered shard=(\d+) checkpoint=([1-9]\d*) ", run.broker.log_path.read_text(errors="replace"))
    return len(set(found))


def report(run):
    counts, starts, stake = run.history.counts(), sorted(run.starts[1:]), sorted(run.at_stake)
    middle = len(starts) // 2
    print(f"{counts}")
    print(f"acknowledged since the fault before: at least {stake[0]}, median {stake[middle]}, {sum(s >= AT_STAKE for s in stake)} times {AT_STAKE} or more")
    print(f"{run.commits} of {len(stake)} faults after the group had got further, {run.joined} members, {checkpoints(run)} checkpoints started from")
    print(f"ready again: median {starts[middle]:.2f} s, longest {starts[-1]:.2f} s")
    for name, kind in (("lost", LOST), ("twice in the log", TWICE), ("read again though committed", AGAIN)):
        print(f"{name}: {run.history.count(kind)}")
    for problem in run.history.problems():
        print(f"  {problem}")
    sys.stdout.flush()


def verdict(run):
    report(run)
    times, problems, lost = run.asked.times, run.history.problems(), run.history.count(LOST)
    if run.asked.must_lose:
        assert lost, "nothing was lost, where something must have been"
        return
    assert not problems, "; ".join(problems)
    assert not run.history.failed, f"writers gave up: {dict(run.history.failed)}"
    # that nothing went wrong counts for little where nothing was at stake
    assert sum(stake >= AT_STAKE for stake in run.at_stake) >= WAITING * times, f"too little was written between the faults: {run.at_stake}"
    assert run.commits >= times / 2, f"the group got further before {run.commits} faults only"
    if run.asked.kind == "sabir":
        assert checkpoints(run) >= times / 4, f"it has started from {checkpoints(run)} checkpoints only"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=["kill", "power"])
    parser.add_argument("--kind", default=brokers.default_kind())
    parser.add_argument("--disk", default="auto")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--least", type=float, default=0.2, help="the shortest time between two faults")
    parser.add_argument("--seconds", type=float, default=1.0, help="the longest")
    parser.add_argument("--rate", type=int, default=2000, help="records a second and writer")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--set", action="append", default=[], help="a setting in the broker's own words")
    parser.add_argument("--flush", action="store_true", help="Kafka only: sync each append")
    parser.add_argument("--must-lose", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the data when it fails")
    asked = parser.parse_args()
    sys.argv[1:] = []
    suite = cases.Suite("faults")
    settings = "".join(f"-{s.split('=')[1]}" for s in asked.set)
    name = f"{asked.fault}-{asked.kind}-{asked.disk}{settings}{'-flush' if asked.flush else ''}-{asked.times}"
    print(f"faults/{name}: seed {asked.seed}", flush=True)

    def case():
        lacking = powercut.missing() if asked.fault == "power" else None
        if lacking:
            raise cases.Skip(lacking)
        folder = brokers.scratch(name)
        run = Run(asked, folder)
        try:
            run.go()
            verdict(run)
        finally:
            if not (asked.keep and sys.exc_info()[0]):
                run.end()
                shutil.rmtree(folder, ignore_errors=True)

    suite.case(name, case, 240 + 20 * asked.times)
    suite.end()


if __name__ == "__main__":
    main()
