#!/usr/bin/env python3
"""The test of the test: each broken promise that history.py is there to find is shown to it once, beside a run without any."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import cases
from history import History, Record


def record(number, writer="w"):
    return Record(writer, number)


def sound_run():
    """Three records, acknowledged; read and committed by a member, which another one follows."""
    history = History()
    for i in range(3):
        history.acknowledged(0, record(i), i)
    history.assigned("a", 0)
    for i in range(2):
        history.read("a", 0, i, record(i))
    history.commit_tried(0, 2)
    history.commit_acknowledged(0, 2)
    history.assigned("b", 0)
    history.read("b", 0, 2, record(2))
    return history


def log(*numbers):
    return [(offset, record(number)) for offset, number in enumerate(numbers)]


def finds(kind, change, stored=log(0, 1, 2), times=1):
    def case():
        history = sound_run()
        change(history)
        history.log_is(0, stored)
        history.log_is(0, stored)
        history.all_were_answered()
        history.group_has_read_all()
        assert kind in history.found, f"not found; found {history.problems()}"
        assert history.count(kind) == times, f"counted {history.count(kind)} times: {history.problems()}"

    return case


def nothing(_history):
    pass


def nothing_wrong():
    history = sound_run()
    history.gave_up("timed out")
    # What was given up may be there all the same, and a commit that was not answered may count.
    history.commit_tried(0, 4)
    history.assigned("c", 0)
    history.read("c", 0, 3, record(3))
    history.committed_is(0, 4)
    history.committed_is(0, 2)
    history.log_is(0, log(0, 1, 2, 3))
    history.all_were_answered()
    history.group_has_read_all()
    assert not history.problems(), history.problems()


def reads_again(history):
    history.assigned("c", 0)
    history.read("c", 0, 1, record(1))


def skips(history):
    history.acknowledged(0, record(3), 3)
    history.assigned("c", 0)
    history.read("c", 0, 3, record(3))


def main():
    suite = cases.Suite("fault-checker")
    suite.case("nothing-wrong", nothing_wrong)
    suite.case("lost", finds("an acknowledged record is lost", nothing, log(0, 1)))
    suite.case("lost-in-the-middle", finds("an acknowledged record is lost", nothing, log(0, 2)))
    suite.case("read-and-lost", finds("a record that was read is lost", lambda h: h.read("b", 0, 3, record(3))))
    suite.case("twice", finds("a record is in the log twice", nothing, log(0, 1, 2, 1)))
    suite.case("unheard-of", finds("a record that nobody sent", nothing, log(0, 1, 2, 3)))
    suite.case("order", finds("a writer's order is broken", lambda h: h.gave_up("x"), log(0, 1, 2, 9, 8)))
    suite.case("gap", finds("a gap in the offsets", nothing, [*log(0, 1, 2), (4, record(3))]))
    suite.case("moved", finds("an offset changed", lambda h: h.read("b", 0, 3, record(4)), log(0, 1, 2, 3)))
    suite.case("acknowledged-elsewhere", finds("an offset changed", nothing, log(0, 2, 1), times=2))
    suite.case("acknowledged-twice", finds("acknowledged twice", lambda h: h.acknowledged(0, record(0), 7)))
    suite.case("no-offset", finds("acknowledged without an offset", lambda h: h.acknowledged(0, record(1), None)))
    suite.case("read-again", finds("read again after the commit", reads_again))
    suite.case("skipped", finds("skipped by the group", skips, log(0, 1, 2, 3)))
    suite.case("jumped", finds("a reader jumped", lambda h: h.read("b", 0, 5, record(5))))
    suite.case("never-read", finds("the group never read a record", lambda h: h.acknowledged(0, record(3), 3), log(0, 1, 2, 3)))
    suite.case("commit-lost", finds("a committed offset is wrong", lambda h: h.committed_is(0, 1)))
    suite.case("commit-invented", finds("a committed offset is wrong", lambda h: h.committed_is(0, 3)))
    suite.end()


if __name__ == "__main__":
    main()
