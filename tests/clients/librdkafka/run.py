#!/usr/bin/env python3
"""librdkafka's own test runner against the broker at BOOTSTRAP, one case a process.

    run.py             the cases of expected.tsv whose scope is "now"
    run.py --later     the cases whose scope is "later": what is not built yet may fail, and is listed
    run.py CASE...     these
    run.py --record    all cases that need a broker (or those named), and writes what became of them into expected.tsv: the control,
                       run with Kafka

What a case is held against is the table of tests/lib/control.py, in expected.tsv. What Kafka fails is not run.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases
import control

# Most of them wait most of the time, so many run at once, but only as many as leave the machine some air.
FEWEST, MOST = 3, 14
AIR = 0.4
LIMIT = 300
# A case waits, alone, so many times as long as it says for what is to happen: it has the times of a machine that does nothing else.
PATIENCE = "test.timeout.multiplier=3"
# Settings of the client that one case is run with, here and in the control. This one asks for a single queued message and seeks ten
# times; each time that the client finds more in its queue than asked for, it waits for this long (a second, untold) before it fetches:
# up to 9.0 s with Kafka in 60 runs, of the 10 s that the case has.
SETTINGS = {"0059_bsearch": "fetch.queue.backoff.ms=10"}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def built():
    """The folder that the runner runs in."""
    return pathlib.Path(subprocess.run([HERE / "build.sh"], check=True, capture_output=True, text=True).stdout.strip())


def names(home):
    """The cases that need a broker, as the runner's own table names them."""
    table = re.findall(r"_TEST\((\w+),\s*([^;]*?)\),\n", (home / "test.c").read_text())
    return [name for name, flags in table if not re.search("TEST_F_LOCAL|TEST_F_MANUAL", flags) and name[0] == "0"]


def run(home, config, case, where="company"):
    """(outcome, seconds, why it was skipped or failed)."""
    log = broker.LOGS / "librdkafka" / f"{case}-{where}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    own = log.with_suffix(".conf")
    own.write_text(f"{config}{SETTINGS.get(case, '')}\n{PATIENCE if where == 'alone' else ''}\n")
    environment = dict(
        os.environ,
        LD_LIBRARY_PATH=f"{home.parent}/src:{home.parent}/src-cpp",
        RDKAFKA_TEST_CONF=str(own),
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


def clock():
    """(time that no processor had anything to do, time of all processors), both since the machine was started."""
    ticks = [int(t) for t in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def company(pool, home, config, chosen):
    """Runs cases in this order, many at once, and yields (case, what `run` says) as they end."""
    waiting, running, before = list(chosen), {}, clock()
    while waiting or running:
        time.sleep(0.3)
        for future in [f for f in running if f.done()]:
            yield running.pop(future), future.result()
        now = clock()
        idle, total = now[0] - before[0], now[1] - before[1]
        before = now
        if waiting and (len(running) < FEWEST or len(running) < MOST and idle > AIR * total):
            case = waiting.pop(0)
            running[pool.submit(run, home, config, case)] = case


def delete_topics():
    """Takes away what cases have left: those that subscribe to patterns would find it."""
    tool = [HERE / "kafka/bin/kafka-topics.sh", "--bootstrap-server", os.environ["BOOTSTRAP"]]
    environment = dict(os.environ, KAFKA_JARS=str(broker.kafka_home()))
    subprocess.run([*tool, "--delete", "--if-exists", "--topic", "rdkafkatest.*"], env=environment, check=True, capture_output=True, timeout=LIMIT)


def run_all(home, config, chosen, ended, again=lambda case: True):
    """Runs cases, and hands each one's end to `ended(case, outcome, seconds, reason)`.

    Many cases have limits of a second or ten that others beside them can use up: what fails in company is run once more alone, if
    it is one for `again`, and that counts. What it failed with at first is told.
    """
    alone = {}
    with concurrent.futures.ThreadPoolExecutor(MOST) as pool:
        for case, (outcome, seconds, reason) in company(pool, home, config, chosen):
            if outcome == "fail" and again(case):
                print(f"{case} failed in company ({seconds:.1f} s): {reason}", flush=True)
                alone[case] = reason
            else:
                ended(case, outcome, seconds, reason)
    for case, first in alone.items():
        delete_topics()
        outcome, seconds, reason = run(home, config, case, "alone")
        ended(case, outcome, seconds, f"alone; in company: {first}" if outcome == "pass" else reason)
    for left in home.glob("stats_*.json"):
        left.unlink()


def record(home, config, table, chosen):
    run_all(home, config, chosen or names(home), table.record)
    table.write()


def compare(home, config, table, chosen):
    suite = cases.Suite("librdkafka")

    def ended(case, outcome, seconds, reason):
        outcome, reason = control.judge(table.rows[case], outcome, reason)
        suite.record(case, outcome, seconds, reason)

    for e in chosen:
        if e.original == "fail":
            suite.record(e.case, "skip", reason=f"Kafka fails it: {e.remark}")
    longest_first = sorted((e for e in chosen if e.original != "fail"), key=lambda e: -e.seconds)
    run_all(home, config, [e.case for e in longest_first], ended, again=lambda case: table.rows[case].scope == "now")
    suite.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--later", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("case", nargs="*")
    asked = parser.parse_args()
    home, table = built(), control.Table(HERE / "expected.tsv")
    config = f"bootstrap.servers={os.environ['BOOTSTRAP']}\ntest.topic.random=true\n{os.environ.get('TEST_CONF', '')}\n"
    if asked.record:
        record(home, config, table, asked.case)
        return
    scope = "later" if asked.later else "now"
    chosen = [e for e in table if (e.case in asked.case if asked.case else e.scope == scope)]
    unknown = set(asked.case) - {e.case for e in chosen}
    if unknown:
        sys.exit(f"not in {table.path}: {', '.join(sorted(unknown))}")
    compare(home, config, table, chosen)


if __name__ == "__main__":
    main()
