"""What Apache Kafka makes of each case of a suite: the table that Sabir's results are held against.

A case passes that ends as it does with Kafka: passed where Kafka passes, and passed or skipped where Kafka skips. Where Kafka fails,
nothing is asked. A case whose scope is "later" may fail, and is listed with its reason.
"""

import dataclasses
import pathlib

FIELDS = ("case", "kafka", "scope", "seconds", "remark")


@dataclasses.dataclass
class Expected:
    """What Kafka makes of a case, and whether Sabir must do so now, later, or has no part in it (none)."""

    case: str
    kafka: str
    scope: str
    # how long it took; what takes longest is run first
    seconds: float = 0
    # why it is skipped, fails, or has to wait
    remark: str = ""

    def line(self):
        return f"{self.case}\t{self.kafka}\t{self.scope}\t{self.seconds:.0f}\t{self.remark}"


class Table:
    """The file that keeps it, a line a case."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.rows = {e.case: e for e in self._read()} if self.path.exists() else {}

    def _read(self):
        head, *lines = self.path.read_text().splitlines()
        assert tuple(head.split("\t")) == FIELDS, f"{self.path} has other columns than {FIELDS}"
        for line in lines:
            case, kafka, scope, seconds, remark = line.split("\t")
            assert kafka in ("pass", "fail", "skip") and scope in ("now", "later", "none"), f"{self.path}: {line}"
            yield Expected(case, kafka, scope, float(seconds), remark)

    def __iter__(self):
        return iter(self.rows.values())

    def record(self, case, outcome, seconds, reason):
        """What Kafka has made of a case. Scopes are given by hand and kept, and so is why a case ends as it did before."""
        old = self.rows.get(case)
        remark = old.remark if old and old.remark and old.kafka == outcome else " ".join(reason.split())[:200]
        self.rows[case] = Expected(case, outcome, old.scope if old else "now", seconds, remark)
        print(self.rows[case].line(), flush=True)

    def write(self):
        lines = [e.line() for e in sorted(self, key=lambda e: e.case)]
        self.path.write_text("\n".join(["\t".join(FIELDS), *lines]) + "\n")


def judge(expected, outcome, reason):
    """(outcome, reason) as `./test` counts them."""
    if expected is None:
        return "fail", f"not in the table of what Kafka makes of it: {outcome} {reason}"
    if outcome == "fail" and expected.scope == "later":
        return "skip", f"not built yet ({expected.remark}): {reason}"
    if outcome == "skip" and expected.kafka == "skip":
        return "skip", f"as with Kafka: {expected.remark or reason}"
    if outcome == "skip":
        return "fail", f"skipped, which Kafka does not make it do: {reason}"
    return outcome, reason
