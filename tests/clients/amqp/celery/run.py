#!/usr/bin/env python3
"""Celery against the broker at AMQP (host:port): a worker of two processes, and what applications make of it. Results are kept in
SQLite, since chords need a backend that remembers them. With --record what becomes of the cases is written into expected.tsv: the control, run
with RabbitMQ."""

import datetime
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "lib"))
import broker
import control

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="sabir-celery-"))
os.environ["SALT"] = uuid.uuid4().hex[:8]
os.environ["RESULTS"] = str(FOLDER / "results.sqlite")
import celery
import tasks

LIMIT = 30


class Worker:
    """`celery worker` beside the cases."""

    def __init__(self):
        self.log = open(broker.LOGS / "celery-worker.log", "ab")
        name = f"w-{uuid.uuid4().hex[:6]}@%h"
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--loglevel=INFO", f"--hostname={name}"]
        self.process = subprocess.Popen(
            command, cwd=HERE, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=broker.die_with_parent
        )

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(LIMIT)


def got(result):
    return result.get(timeout=LIMIT, interval=0.05)


# Whether the worker has done something yet.
there = False


def is_there():
    global there
    assert got(tasks.add.delay(1, 1)) == 2
    there = True


def nobody():
    raise AssertionError("there is no worker")


def calls():
    results = [tasks.add.delay(n, n) for n in range(50)]
    assert [got(result) for result in results] == [2 * n for n in range(50)]


def values():
    for value in ("zażółć", [1, {"two": [3.5, None, True]}], "x" * 300_000, {}):
        assert got(tasks.echo.delay(value)) == value


def chain():
    assert got(celery.chain(tasks.add.s(1, 2), tasks.add.s(4), tasks.add.s(10))()) == 17


def group():
    assert got(celery.group(tasks.add.s(n, 1) for n in range(20))()) == list(range(1, 21))


def chord():
    assert got(celery.chord((tasks.add.s(n, n) for n in range(20)), tasks.total.s())()) == 380


def chord_in_a_chain():
    work = celery.chain(celery.group(tasks.add.s(n, 0) for n in range(5)), tasks.total.s(), tasks.add.s(100))
    assert got(work()) == 110


def retries():
    began = time.monotonic()
    assert got(tasks.stubborn.delay(3)) == 3
    assert time.monotonic() - began >= 0.5


def given_up():
    for task in (tasks.stubborn.delay(9), tasks.broken.delay()):
        try:
            got(task)
        except ValueError:
            assert task.state == "FAILURE"
            continue
        raise AssertionError("it has succeeded")


def later():
    """Countdowns and moments: what waits is held by the worker, and others overtake it."""
    began = time.time()
    in_two = tasks.moment.apply_async(countdown=2)
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    in_three = tasks.moment.apply_async(eta=at)
    assert got(tasks.moment.delay()) - began < 1.9
    assert 1.9 < got(in_two) - began < 4
    assert 2.9 < got(in_three) - began < 5


def expired():
    """Its time is up before a worker has it."""
    result = tasks.moment.apply_async(countdown=2, expires=1)
    try:
        got(result)
    except celery.exceptions.TaskRevokedError:
        return
    raise AssertionError("it ran")


def revoked():
    result = tasks.moment.apply_async(countdown=3)
    time.sleep(0.5)
    result.revoke()
    try:
        got(result)
    except celery.exceptions.TaskRevokedError:
        return
    raise AssertionError("it ran")


def remote_control():
    """Answers by broadcast and by a queue of one's own."""
    assert tasks.app.control.ping(timeout=5, limit=1)
    [stats] = tasks.app.control.inspect(timeout=5, limit=1).stats().values()
    assert stats["pool"]["max-concurrency"] == 2
    [queues] = tasks.app.control.inspect(timeout=5, limit=1).active_queues().values()
    assert [queue["name"] for queue in queues] == [tasks.app.conf.task_default_queue]


def a_task_that_kills_its_process():
    """It was not acknowledged, so it is done again."""
    path = FOLDER / "killed"
    assert got(tasks.killed_once.delay(str(path))) is True
    assert path.exists()


def a_worker_that_is_killed():
    """What it had begun and what it had reserved is done by the next one."""
    global worker
    results = [tasks.slow.delay(0.3, n) for n in range(12)]
    assert got(results[0]) == 0
    # the pool's processes too
    children = subprocess.run(["pgrep", "-P", str(worker.process.pid)], capture_output=True, text=True, check=True).stdout.split()
    worker.end(signal.SIGKILL)
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    worker = Worker()
    assert sorted(got(result) for result in results) == list(range(12))


def ends_when_asked():
    assert worker.end() == 0


CASES = [
    calls,
    values,
    chain,
    group,
    chord,
    chord_in_a_chain,
    retries,
    given_up,
    later,
    expired,
    revoked,
    remote_control,
    a_task_that_kills_its_process,
    a_worker_that_is_killed,
    ends_when_asked,
]


def main():
    global worker
    broker.LOGS.mkdir(parents=True, exist_ok=True)
    suite = control.suite("celery", control.Table(HERE / "expected.tsv", "rabbitmq"))
    worker = Worker()
    try:
        suite.case("worker-is-there", is_there, 2 * LIMIT)
        for function in CASES:
            suite.case(function.__name__.replace("_", "-"), function if there else nobody, 2 * LIMIT)
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        shutil.rmtree(FOLDER, ignore_errors=True)
    suite.end()


if __name__ == "__main__":
    main()
