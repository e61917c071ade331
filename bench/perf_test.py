"""RabbitMQ's PerfTest as the client of bench/run.py: one run of a pattern, and the figures of its lines, one a second."""

import csv
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/lib"))
import broker as brokers

JVM = ["java", "-Xmx2g", "com.rabbitmq.perf.PerfTest"]
# Seconds at the beginning that do not count: the client's JVM and both sides' buffers get warm.
WARM = 5
# Of each line: the time, rates a second, and latencies in microseconds.
TIME, SENT, CONFIRMED, RECEIVED, P50, P99, CONFIRM_P99 = 1, 2, 4, 6, 8, 11, 16


@dataclasses.dataclass(frozen=True)
class Pattern:
    """How it is run: flags of its own, in which QUEUE stands for a name that is new in each run."""

    flags: tuple
    seconds: int = 25
    # of a backlog: so many are published, and then read
    backlog: int = 0


def home():
    """The folder of its jars; bench/peers/rabbitmq.sh puts them there."""
    folder = pathlib.Path(os.environ.get("PEERS_HOME") or brokers.CACHE / "peers") / "rabbitmq"
    subprocess.run(["bash", str(HERE / "peers/rabbitmq.sh"), "tools"], check=True, capture_output=True)
    return folder


def number(text):
    return float(text) if text else 0.0


class Lines:
    """What it has written of a run."""

    def __init__(self, path):
        with open(path, newline="") as file:
            _head, *lines = csv.reader(file)
        self.lines = [[number(cell) if at else cell for at, cell in enumerate(line)] for line in lines]

    def warm(self, column):
        """The values of a column after the warm-up."""
        return [line[column] for line in self.lines if line[TIME] > WARM + 0.5]

    def rate(self, column):
        return statistics.mean(self.warm(column) or [0.0])

    def total(self, column):
        """Messages in the whole run."""
        before, sum_ = 0.0, 0.0
        for line in self.lines:
            sum_ += line[column] * (line[TIME] - before)
            before = line[TIME]
        return sum_

    def milliseconds(self, column):
        """The median second's; None where there are none."""
        found = [value for value in self.warm(column) if value > 0]
        return statistics.median(found) / 1000 if found else None

    def busy(self, column):
        """The rates of the seconds between the first and the last that has some."""
        rates = [line[column] for line in self.lines]
        at = [n for n, rate in enumerate(rates) if rate > 0]
        return rates[at[0] : at[-1] + 1] if at else []


class PerfTest:
    """The client."""

    name = "PerfTest"

    def __init__(self, folder):
        self.folder = folder

    def once(self, broker, flags):
        """One run to its end: its lines."""
        path = self.folder / "perf-test.csv"
        path.unlink(missing_ok=True)
        java, *rest = JVM
        command = [java, rest[0], "-cp", f"{home()}/lib/*", rest[1], "--uri", f"amqp://guest:guest@{broker.amqp}/%2f", "-o", str(path), *flags]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1200)
        if done.returncode or not path.exists():
            raise RuntimeError(f"{' '.join(map(str, command))}: {(done.stdout + done.stderr)[-2000:]}")
        return Lines(path)

    def run(self, broker, case, scale):
        """The figures of a case."""
        pattern = case.pattern
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        flags = [flag.replace("QUEUE", queue) for flag in pattern.flags]
        if pattern.backlog:
            return self.backlog(broker, case, flags, int(pattern.backlog * scale))
        lines = self.once(broker, [*flags, "-s", case.size, "-z", max(int(pattern.seconds * scale), 2 * WARM)])
        received = lines.total(RECEIVED)
        if not received:
            raise RuntimeError(f"{case.name}: nothing was received")
        # of a fan-out each message is received many times, and of one that falls behind too few
        rate = lines.rate(RECEIVED) if case.fan_out > 1 else min(lines.rate(SENT), lines.rate(RECEIVED))
        found = {
            "messages": received,
            "payload": lines.total(SENT) * case.size,
            "msgs_per_s": rate,
            "p50_ms": lines.milliseconds(P50),
            "p99_ms": lines.milliseconds(P99),
            "confirm_p99_ms": lines.milliseconds(CONFIRM_P99),
        }
        return {key: value for key, value in found.items() if value is not None}

    def backlog(self, broker, case, flags, count):
        """All is published before anything is read."""
        common = [*flags, "-s", case.size, "-f", "persistent", "-ad", "false"]
        published = self.once(broker, [*common, "-x", 2, "-y", 0, "-c", 500, "-C", count // 2]).busy(CONFIRMED)
        drained = self.once(broker, [*common, "-x", 0, "-y", 1, "-q", 1000, "-A", 100, "-D", count // 2 * 2]).busy(RECEIVED)
        tenth = max(len(published) // 10, 1)
        return {
            "messages": count // 2 * 2,
            "payload": count // 2 * 2 * case.size,
            "msgs_per_s": statistics.mean(published),
            "drain_per_s": statistics.mean(drained),
            "end_to_start": statistics.mean(published[-tenth:]) / statistics.mean(published[:tenth]),
        }
