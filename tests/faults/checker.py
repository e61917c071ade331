#!/usr/bin/env python3
"""The test of the test: each broken promise that history.py and deliveries.py are there to find is shown to them once, beside a run
without any."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import cases
import deliveries
from deliveries import Deliveries, Message
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


def message(number):
    return Message("q", "p", number)


class Clock:
    """A time that the case sets."""

    now = 0.0

    def __call__(self):
        return self.now


def sound_deliveries():
    """Four messages, confirmed; two of them acknowledged by a consumer whose connection is then cut, and the rest by another one."""
    clock = Clock()
    seen = Deliveries(clock)
    seen.confirmed([message(n) for n in range(4)])
    for n in range(3):
        seen.delivered("a.1", message(n), False)
    seen.acknowledged("a.1", [message(0), message(1)])
    clock.now = 5.0
    seen.left("a.1")
    seen.delivered("b.1", message(2), True)
    seen.delivered("b.1", message(3), False)
    seen.acknowledged("b.1", [message(2), message(3)])
    return seen, clock


def nothing_wrong_with_deliveries():
    seen, clock = sound_deliveries()
    clock.now = 5.9
    seen.killed()
    # this acknowledgement was on its way; the message in doubt may come or not
    seen.delivered("a.2", message(3), True)
    seen.delivered("a.2", message(9), False)
    seen.all_have_come()
    assert not seen.problems() and not seen.outstanding(), seen.problems()


def finds_delivery(kind, change):
    def case():
        seen, clock = sound_deliveries()
        clock.now = 10.0
        change(seen)
        seen.all_have_come()
        assert seen.count(kind) == 1 == len(seen.found), f"found {seen.problems()}"

    return case


def comes_long_after(seen):
    seen.killed()
    seen.delivered("a.2", message(3), True)


def main():
    suite = cases.Suite("fault-checker")
    suite.case("nothing-wrong-with-deliveries", nothing_wrong_with_deliveries)
    suite.case("message-lost", finds_delivery(deliveries.LOST, lambda s: s.confirmed([message(4)])))
    suite.case("message-again-after-a-cut", finds_delivery(deliveries.AGAIN, lambda s: s.delivered("a.2", message(1), True)))
    suite.case("message-again-after-a-kill", finds_delivery(deliveries.AGAIN, comes_long_after))
    suite.case("message-again-for-no-reason", finds_delivery(deliveries.AGAIN, lambda s: s.delivered("b.1", message(3), True)))
    suite.case("message-unmarked", finds_delivery(deliveries.UNMARKED, lambda s: [s.delivered(c, message(8), False) for c in ("c.1", "d.1")]))
    suite.case("message-out-of-order", finds_delivery(deliveries.ORDER, lambda s: [s.delivered("c.1", message(n), False) for n in (8, 7)]))
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
