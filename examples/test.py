#!/usr/bin/env python3
"""Each example, started as its page says, by an interpreter that has nothing but Python's own library: it sets up what it needs."""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/lib"))
import broker as brokers
import cases

# The least that an example can be made to do.
ARGUMENTS = {"log-collection": ["--lines", "300", "--seconds", "1"]}


def examples():
    found = sorted(path.name for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "_.")
    assert found == sorted(ARGUMENTS), f"what to run of {found}?"
    return found


def bare(folder):
    """The environment of a user who has Python, and no package of anybody's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True)
    told = ("EXAMPLE_IS_SET_UP", "PYTHON", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TEST_RESULTS", "TEST_LOGS", "TEST_VARIANT", "LOGS", "RSYSLOG_MODULES")
    environment = {k: v for k, v in os.environ.items() if k not in told}
    environment["PATH"] = f"{folder / 'bare/bin'}:{environment['PATH']}"
    lacks = subprocess.run(["python3", "-c", "import confluent_kafka"], env=environment, capture_output=True)
    assert lacks.returncode == 1 and b"ModuleNotFoundError" in lacks.stderr, lacks
    return environment


def sets_itself_up(name):
    folder = brokers.scratch(f"example-{name}")
    try:
        done = subprocess.run(
            [HERE / name / "run", *ARGUMENTS[name]], cwd="/", env=bare(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, preexec_fn=brokers.die_with_parent,
        )
        print("".join(f"    {line}" for line in done.stdout.splitlines(keepends=True)))
        passed = [line for line in done.stdout.splitlines() if line.startswith(f"ok    {name}/")]
        assert done.returncode == 0 and passed, f"it ended with {done.returncode}: {done.stdout[-300:]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


suite = cases.Suite("examples")

if __name__ == "__main__":
    for one in examples():
        suite.case(f"{one}-sets-itself-up", lambda one=one: sets_itself_up(one), 240)
    suite.end()
