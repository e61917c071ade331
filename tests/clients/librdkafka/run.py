#!/usr/bin/env python3
"""librdkafka's own test runner against the broker at BOOTSTRAP, one case a process.

    run.py             the cases of expected.tsv whose scope is "now"
    run.py --later     the cases whose scope is "later": what is not built yet may fail, and is listed
    run.py CASE...     these
    run.py --record    all cases that need a broker (or those named), and writes what became of them into expected.tsv: the control,
                       run with Kafka

A case passes that ends as it does with Kafka: passed where Kafka passes, and passed or skipped where Kafka skips. Where Kafka
fails, nothing is asked, and the case is not run.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases

EXPECTED = HERE / "expected.tsv"
COLUMNS = "case\tkafka\tscope\tseconds\tremark"
# Most of them wait most of the time; many more at once would disturb each other.
AT_ONCE = 5
LIMIT = 150
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Expected:
    """A line of expected.tsv: what Kafka makes of a case, and whether Sabir must do so now, later, or has no part in it (none)."""

    case: str
    kafka: str
    scope: str
    seconds: float
    remark: str


def expected():
    lines = EXPECTED.read_text().splitlines()
    assert lines[0] == COLUMNS, f"{EXPECTED} has other columns than {COLUMNS!r}"
    rows = [line.split("\t") for line in lines[1:]]
    return [Expected(case, kafka, scope, float(seconds), remark) for case, kafka, scope, seconds, remark in rows]


def built():
    """The folder that the runner runs in."""
    return pathlib.Path(subprocess.run([HERE / "build.sh"], check=True, capture_output=True, text=True).stdout.strip())


def names(home):
    """The cases that need a broker, as the runner's own table names them."""
    table = re.findall(r"_TEST\((\w+),\s*([^;]*?)\),\n", (home / "test.c").read_text())
    return [name for name, flags in table if not re.search("TEST_F_LOCAL|TEST_F_MANUAL", flags) and name[0] == "0"]


def run(home, config, case):
    """(outcome, seconds, why it was skipped or failed)."""
    log = broker.LOGS / "librdkafka" / f"{case}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(
        os.environ,
        LD_LIBRARY_PATH=f"{home.parent}/src:{home.parent}/src-cpp",
        RDKAFKA_TEST_CONF=str(config),
        TEST_KAFKA_VERSION="4.3.1",
        # Matched as a substring; a case whose name begins with this one runs along.
        TESTS=case,
        BROKERS=os.environ["BOOTSTRAP"],
        KAFKA_PATH=str(HERE / "kafka"),
        KAFKA_JARS=str(broker.kafka_home()),
    )
    environment.pop("CI", None)
    began = time.monotonic()
    with open(log, "wb") as output:
        try:
            command = ["./test-runner", "-p1", "-L", "-Q"]
            subprocess.run(command, cwd=home, env=environment, stdout=output, stderr=output, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return "fail", time.monotonic() - began, f"not finished after {LIMIT} s"
    seconds = time.monotonic() - began
    outcome, reason = judge(case, COLOUR.sub("", log.read_text(errors="replace")))
    return outcome, seconds, reason


def judge(case, text):
    """What the runner's output says of a case. Its exit code says nothing: it is 0 if no case was chosen at all."""
    summary = re.search(rf"^\|\s*{case}\s*\|\s*(\w+)\s*\|[^|]*\|(.*)$", text, re.M)
    failure = re.search(r'^### Test "[^"]*" failed at (.*?) at .*\n(.*)$', text, re.M)
    if summary and summary[1] == "PASSED":
        return "pass", ""
    if summary and summary[1] == "SKIPPED":
        return "skip", summary[2].strip()
    if failure:
        return "fail", f"{failure[1]}: {failure[2]}"
    return "fail", summary[2].strip() if summary else "no word of the case in the runner's summary"


def run_all(home, config, chosen, ended):
    """Runs cases, the longest first, and hands each one's end to `ended(case, outcome, seconds, reason)`.

    Many cases have limits of a second or ten that others beside them can use up: what fails in company is run once more alone, and
    that counts. What it failed with at first is printed.
    """
    alone = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(run, home, config, case): case for case in chosen}
        for done in concurrent.futures.as_completed(running):
            case, (outcome, seconds, reason) = running[done], done.result()
            if outcome == "fail":
                print(f"{case} failed in company ({seconds:.1f} s): {reason}", flush=True)
                alone.append(case)
            else:
                ended(case, outcome, seconds, reason)
    for case in alone:
        ended(case, *run(home, config, case))
    for left in home.glob("stats_*.json"):
        left.unlink()


def record(home, config, chosen):
    before = {e.case: e for e in expected()} if EXPECTED.exists() else {}
    rows = dict(line.split("\t", 1) for line in EXPECTED.read_text().splitlines()[1:]) if before else {}

    def ended(case, outcome, seconds, reason):
        old = before.get(case)
        # What a skipped case says is the same each time; why a case fails was found out by hand and is kept.
        remark = old.remark if old and old.remark and old.kafka == outcome else reason
        rows[case] = f"{outcome}\t{old.scope if old else 'later'}\t{seconds:.0f}\t{remark}"
        print(case, rows[case], sep="\t", flush=True)

    run_all(home, config, chosen or names(home), ended)
    EXPECTED.write_text("\n".join([COLUMNS, *(f"{case}\t{rest}" for case, rest in sorted(rows.items()))]) + "\n")


def compare(home, config, chosen):
    suite = cases.Suite("librdkafka")
    by_case = {e.case: e for e in chosen}

    def ended(case, outcome, seconds, reason):
        kafka = by_case[case].kafka
        if outcome == "fail" and by_case[case].scope == "later":
            suite.record(case, "skip", seconds, f"not built yet ({by_case[case].remark or 'as it seems'}): {reason}")
        elif outcome == "skip" and kafka == "skip":
            suite.record(case, "skip", seconds, f"as with Kafka: {by_case[case].remark or reason}")
        elif outcome == "skip":
            suite.record(case, "fail", seconds, f"skipped, which Kafka does not make it do: {reason}")
        else:
            suite.record(case, outcome, seconds, reason)

    longest_first = sorted(chosen, key=lambda e: -e.seconds)
    run_all(home, config, [e.case for e in longest_first if e.kafka != "fail"], ended)
    suite.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--later", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("case", nargs="*")
    asked = parser.parse_args()
    home = built()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write(f"bootstrap.servers={os.environ['BOOTSTRAP']}\ntest.topic.random=true\n{os.environ.get('TEST_CONF', '')}\n")
        config.flush()
        if asked.record:
            record(home, config.name, asked.case)
            return
        scope = "later" if asked.later else "now"
        chosen = [e for e in expected() if (e.case in asked.case if asked.case else e.scope == scope)]
        unknown = set(asked.case) - {e.case for e in chosen}
        if unknown:
            sys.exit(f"not in {EXPECTED.name}: {', '.join(sorted(unknown))}")
        compare(home, config.name, chosen)


if __name__ == "__main__":
    main()
