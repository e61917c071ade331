#!/usr/bin/env python3
"""amqplib's own tests, unmodified, against the broker at AMQP (host:port). Its package is installed below the cache folder
(`need_amqplib` of tests/lib/install.sh); later versions are packed without their tests.

    run.py             all that RabbitMQ does not fail
    run.py CASE...     these
    run.py --record    all, and writes what became of them into expected.tsv: the control, run with RabbitMQ

About a third of them need no broker, and are run all the same.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "lib"))
import broker
import control

PACKAGE = broker.CACHE / "amqplib/node_modules/amqplib"
# Of one test and of each file of them, in milliseconds; the package's own is 1000, which a machine that has other things to do exceeds.
LIMIT = 90_000


def cases_of(lines):
    """(case, outcome, seconds, reason) of each test that the reporter tells of, named by the suites that it is in."""
    for line in lines:
        path, outcome, seconds, reason = json.loads(line)
        # A file counts as a test where it ends before its time, or has no suites.
        names = [name.rpartition("/")[2] if name.startswith("/") else name for name in path]
        # Its own helper goes on to look at a queue where the first look finds nothing, unawaited, and for ever once the test has taken the
        # message: such a file has all of its cases done, and ends when its time is up. A case that was not reached is missed in the table.
        if len(names) == 1 and names[0].endswith(".test.js") and "timed out" in reason:
            continue
        yield re.sub(r"\s+", " ", "/".join(names)), outcome, seconds, reason


def told_apart(found):
    """The same with a number behind a name that was there before."""
    seen = {}
    for name, *rest in found:
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} #{seen[name]}", *rest)


def run():
    """What became of all its tests."""
    report, log = broker.LOGS / "amqplib.jsonl", broker.LOGS / "amqplib.log"
    broker.LOGS.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = dict(os.environ, URL=f"amqp://{os.environ['AMQP']}", NODE_OPTIONS=f"--require {HERE / 'port.js'}")
    options = [f"--test-timeout={LIMIT}", f"--test-reporter={HERE / 'reporter.mjs'}", f"--test-reporter-destination={report}"]
    with open(log, "wb") as output:
        tests = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.glob("test/*.test.js"))
        subprocess.run(["node", "--test", *options, *tests], cwd=PACKAGE, env=environment, stdout=output, stderr=output, check=False)
    if not report.exists():
        raise RuntimeError(f"node ended without a report, see {log}")
    return told_apart(cases_of(report.read_text().splitlines()))


if __name__ == "__main__":
    control.main("amqplib", control.Table(HERE / "expected.tsv", "rabbitmq"), run)
