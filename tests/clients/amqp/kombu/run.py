#!/usr/bin/env python3
"""kombu's own integration tests for AMQP, unmodified, against the broker at AMQP (host:port).

    run.py             all that RabbitMQ does not fail
    run.py CASE...     these
    run.py --record    all, and writes what became of them into expected.tsv: the control, run with RabbitMQ
"""

import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "lib"))
import broker
import control

TESTS = "t/integration/test_py_amqp.py"
LIMIT = 180


def outcome_of(element):
    """(outcome, reason) of a case of pytest's report."""
    for tag, outcome in (("failure", "fail"), ("error", "fail"), ("skipped", "skip")):
        found = element.find(tag)
        if found is not None:
            return outcome, (found.get("message") or "").partition("\n")[0]
    return "pass", ""


def run():
    """What became of all its tests."""
    home = pathlib.Path(subprocess.run([HERE.parent / "install.sh"], check=True, capture_output=True, text=True).stdout.strip())
    report, log = broker.LOGS / "kombu.xml", broker.LOGS / "kombu.log"
    broker.LOGS.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    host, port = os.environ["AMQP"].rsplit(":", 1)
    environment = dict(os.environ, RABBITMQ_HOST=host, RABBITMQ_5672_TCP=port)
    # Its own settings would have it write coverage and styles that are not installed here.
    command = [home / "python/bin/python", "-m", "pytest", "-p", "no:cacheprovider", f"--timeout={LIMIT}", f"--junitxml={report}", TESTS]
    with open(log, "wb") as output:
        subprocess.run(command, cwd=home / "kombu", env=environment, stdout=output, stderr=output, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended without a report, see {log}")
    for test in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{test.get('classname').rpartition('.')[2].removeprefix('test_PyAMQP')}/{test.get('name').removeprefix('test_')}"
        outcome, reason = outcome_of(test)
        yield name, outcome, float(test.get("time")), reason


if __name__ == "__main__":
    control.main("kombu", control.Table(HERE / "expected.tsv", "rabbitmq"), run)
