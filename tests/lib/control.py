"""What the original broker (Apache Kafka, RabbitMQ) makes of each case of a suite: the table that Sabir's results are held against.

A case passes that ends as it does with the original: passed where that passes, and passed or skipped where that skips. Where a client's
own case fails with the original, nothing is asked. A case whose scope is "later" may fail, and is listed with its reason.
"""

import dataclasses
import os
import pathlib
import sys

import cases

# what a reader calls it whose name heads the second column
ORIGINALS = {"kafka": "Kafka", "rabbitmq": "RabbitMQ"}


@dataclasses.dataclass
class Expected:
    """What the original makes of a case, and whether Sabir must do so now, later, or has no part in it (none)."""

    case: str
    original: str
    scope: str
    # how long it took; what takes longest is run first
    seconds: float = 0
    # why it is skipped, fails, or has to wait
    remark: str = ""

    def line(self):
        return f"{self.case}\t{self.original}\t{self.scope}\t{self.seconds:.0f}\t{self.remark}"


class Table:
    """The file that keeps it, a line a case."""

    def __init__(self, path, original="kafka"):
        self.path = pathlib.Path(path)
        self.original, self.name = original, ORIGINALS[original]
        self.fields = ("case", original, "scope", "seconds", "remark")
        self.rows = {e.case: e for e in self._read()} if self.path.exists() else {}

    def _read(self):
        head, *lines = self.path.read_text().splitlines()
        assert tuple(head.split("\t")) == self.fields, f"{self.path} has other columns than {self.fields}"
        for line in lines:
            case, original, scope, seconds, remark = line.split("\t")
            assert original in ("pass", "fail", "skip") and scope in ("now", "later", "none"), f"{self.path}: {line}"
            yield Expected(case, original, scope, float(seconds), remark)

    def __iter__(self):
        return iter(self.rows.values())

    def record(self, case, outcome, seconds, reason):
        """What the original has made of a case. Scopes are given by hand and kept, and so is why a case ends as it did before."""
        old = self.rows.get(case)
        remark = old.remark if old and old.remark and old.original == outcome else " ".join(reason.split())[:200]
        self.rows[case] = Expected(case, outcome, old.scope if old else "now", seconds, remark)
        print(self.rows[case].line(), flush=True)

    def write(self):
        lines = [e.line() for e in sorted(self, key=lambda e: e.case)]
        self.path.write_text("\n".join(["\t".join(self.fields), *lines]) + "\n")


def judge(expected, outcome, reason):
    """(outcome, reason) as `./test` counts them."""
    if expected is None:
        return "fail", f"not in the table of what the original makes of it: {outcome} {reason}"
    if outcome == "fail" and expected.scope == "none":
        return "skip", f"not for Sabir ({expected.remark}): {reason}"
    if outcome == "fail" and expected.scope == "later":
        return "skip", f"not built yet ({expected.remark}): {reason}"
    if outcome == "skip" and expected.original == "skip":
        return "skip", f"as with the original: {expected.remark or reason}"
    if outcome == "skip":
        return "fail", f"skipped, which the original does not make it do: {reason}"
    return outcome, reason


class Recording(cases.Suite):
    """A suite of our own that is run with the original: notes in the table what has become of its cases."""

    def __init__(self, name, table):
        super().__init__(name)
        self.table = table

    def record(self, case, outcome, seconds=0.0, reason=""):
        self.table.record(case, outcome, seconds, reason)

    def end(self):
        self.table.write()
        sys.exit(0)


class Compared(cases.Suite):
    """The same suite with Sabir. What the original fails is asked of Sabir all the same: the case says what is right, and the table's
    remark why the original is not."""

    def __init__(self, name, table):
        super().__init__(name)
        self.table = table

    def record(self, case, outcome, seconds=0.0, reason=""):
        expected = self.table.rows.get(case)
        if outcome == "fail" and expected and expected.original == "fail" and os.environ.get("BROKER") == self.table.original:
            outcome, reason = "skip", f"{self.table.name} fails it: {expected.remark}"
        else:
            outcome, reason = judge(expected, outcome, reason)
        super().record(case, outcome, seconds, reason)


def suite(name, table):
    """A suite of our own that is held against a table, or with --record makes it."""
    return (Recording if "--record" in sys.argv else Compared)(name, table)


def main(name, table, run):
    """The suite of a client whose tests run in one go: `run()` yields (case, outcome, seconds, reason) of each. With --record they
    are noted in the table, else held against it; with names, these only are counted."""
    if "--record" in sys.argv:
        for case in run():
            table.record(*case)
        table.write()
        return
    counted = cases.Suite(name)
    left = set(counted.chosen or table.rows)
    for case, outcome, seconds, reason in run():
        expected = table.rows.get(case)
        if counted.chosen and case not in counted.chosen:
            continue
        left.discard(case)
        if expected and expected.original == "fail":
            counted.record(case, "skip", reason=f"{table.name} fails it: {expected.remark}")
        else:
            outcome, reason = judge(expected, outcome, reason)
            counted.record(case, outcome, seconds, reason)
    for case in sorted(left):
        outcome, reason = judge(table.rows.get(case), "fail", "it is in the table, and was not run")
        counted.record(case, outcome, reason=reason)
    counted.end()
