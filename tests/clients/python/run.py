#!/usr/bin/env python3
"""kafka-python's own integration tests, unmodified, against the broker at BOOTSTRAP.

    run.py             all that Kafka does not fail
    run.py CASE...     these
    run.py --record    all, and writes what became of them into expected.tsv: the control, run with Kafka

Each of its modules is a process of its own, beside the others.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases
import control

FOLDER = "test/integration"
# What the tests are told of the broker: they ask for what this one has.
KAFKA_VERSION = "4.3.1"
LIMIT = 300
LOGS = broker.LOGS / "kafka-python"
# How often a case is run alone whose consumer has forgotten its subscription.
FORGETTING = 10


def installed():
    """The folder of the tests and their interpreter."""
    return pathlib.Path(subprocess.run([HERE / "install.sh"], check=True, capture_output=True, text=True).stdout.strip())


def node(case):
    """What pytest calls the case that the table calls `module/name` or `module/Class/name`."""
    module, *rest = case.split("/", 2)
    return f"{FOLDER}/test_{module}_integration.py::{'::'.join(rest)}"


def case_of(element):
    """The name of a case of pytest's report."""
    module, *within = re.fullmatch(r"test\.integration\.test_(\w+)_integration((?:\.\w+)*)", element.get("classname")).groups()
    return "/".join([module, *"".join(within).split(".")[1:], element.get("name")])


def outcome_of(element):
    """(outcome, reason) of a case of pytest's report."""
    for tag, outcome in (("failure", "fail"), ("error", "fail"), ("skipped", "skip")):
        found = element.find(tag)
        if found is not None:
            return outcome, (found.get("message") or "").partition("\n")[0]
    return "pass", ""


def run(home, label, *selected):
    """{case: (outcome, seconds, reason)} of one run of pytest."""
    report, log = LOGS / f"{label}.xml", LOGS / f"{label}.log"
    report.unlink(missing_ok=True)
    environment = dict(
        os.environ,
        KAFKA_URI=f"kafka://{os.environ['BOOTSTRAP']}",
        KAFKA_VERSION=KAFKA_VERSION,
        # where they would find a Kafka to start themselves; an empty one
        KAFKA_ROOT=str(home),
    )
    # Ends the one test that takes too long, and not all that follow it.
    command = [home / "python/bin/python", "-m", "pytest", f"--timeout={LIMIT}", "--timeout-method=signal", f"--junitxml={report}"]
    with open(log, "wb") as output:
        subprocess.run([*command, *selected], cwd=home / "suite", env=environment, stdout=output, stderr=output, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended without a report, see {log}")
    tests = xml.etree.ElementTree.parse(report).iter("testcase")
    return {case_of(t): (*outcome_of(t), float(t.get("time"))) for t in tests}


def run_all(home, left_out, ended, again=lambda case: True):
    """Runs all but some, and hands each case's end to `ended(case, outcome, seconds, reason)`.

    A few cases have limits of half a second or one, which those beside them can use up: what fails in company is run once more
    alone, if it is one for `again`, and that counts. What it failed with at first is told.
    """
    modules = sorted((home / "suite" / FOLDER).glob("test_*.py"))
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(len(modules)) as pool:
        def module(path):
            return run(home, path.stem, f"{FOLDER}/{path.name}", *(f"--deselect={node(case)}" for case in left_out))

        for done in concurrent.futures.as_completed([pool.submit(module, path) for path in modules]):
            for case, (outcome, reason, seconds) in done.result().items():
                if outcome == "fail" and again(case):
                    print(f"{case} failed in company ({seconds:.1f} s): {reason}", flush=True)
                    failed[case] = reason
                else:
                    ended(case, outcome, seconds, reason)
    for case, first in failed.items():
        outcome, seconds, reason = run_one(home, case)
        ended(case, outcome, seconds, f"alone; in company: {first}" if outcome == "pass" else reason)


def forgot(log):
    """Whether the client's log shows that it has subscribed, then had an answer about no topic, and asked no broker since.

    A consumer that subscribes while the metadata request of its start is under way takes that answer for one to its new topics
    (`ClusterMetadata.set_topics` has a note that says it is to do), and asks again after `metadata_max_age_ms`, 5 minutes. The
    sooner a broker answers, the likelier it is.
    """
    # a list, or the tuple that the consumer was made with
    *_, since = re.split(r"Updating subscribed topics to: [\[(]", log)
    return since != log and "topics: 0," in since and "Sending metadata request" not in since


def run_one(home, case):
    """(outcome, seconds, reason). Runs it again while it fails since its consumer forgot what it subscribed to, and tells so."""
    label = case.replace("/", "-")
    for _ in range(FORGETTING):
        outcome, reason, seconds = run(home, label, node(case)).get(case, ("fail", "there is no such case", 0))
        if outcome != "fail" or not forgot((LOGS / f"{label}.log").read_text(errors="replace")):
            break
        print(f"{case} failed ({seconds:.1f} s), its consumer forgot its subscription: {reason}", flush=True)
    return outcome, seconds, reason


def record(home, table):
    run_all(home, [], table.record)
    table.write()


def compare(home, table, chosen):
    suite = cases.Suite("kafka-python")
    failed_by_kafka = [e.case for e in table if e.original == "fail"]
    left = set(chosen) or {e.case for e in table if e.original != "fail"}

    def ended(case, outcome, seconds, reason):
        left.discard(case)
        outcome, reason = control.judge(table.rows.get(case), outcome, reason)
        suite.record(case, outcome, seconds, reason)

    def again(case):
        return case in table.rows and table.rows[case].scope == "now"

    if chosen:
        for case in chosen:
            ended(case, *run_one(home, case))
    else:
        for case in failed_by_kafka:
            suite.record(case, "skip", reason=f"Kafka fails it: {table.rows[case].remark}")
        run_all(home, failed_by_kafka, ended, again)
    for case in sorted(left):
        suite.record(case, "fail", reason="it is in the table, and was not run")
    suite.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("case", nargs="*")
    asked = parser.parse_args()
    home, table = installed(), control.Table(HERE / "expected.tsv")
    LOGS.mkdir(parents=True, exist_ok=True)
    if asked.record:
        record(home, table)
    else:
        compare(home, table, asked.case)


if __name__ == "__main__":
    main()
