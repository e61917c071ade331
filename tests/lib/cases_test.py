#!/usr/bin/env python3
"""What the harness makes of a case that cannot be run here: named, and a failure where TEST_STRICT asks for all; and of a suite that is run in another
way: it is named so."""

import os
import pathlib
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import cases

ONE = """
import cases
def needs_more():
    raise cases.Skip("a machine of its own")
suite = cases.Suite("s")
suite.case("needs-more", needs_more)
suite.end()
"""
# Whoever runs them, these are told that they are not root.
NOT_ROOT = """
import os, sys
sys.path.insert(0, "tests/limits")
os.getuid = lambda: 1000
import {module}
{module}.main()
"""


def ran(program, **told):
    """The lines that a program's suite leaves behind, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "results.tsv"
        environment = os.environ | {"TEST_RESULTS": str(results), "TEST_LOGS": folder, "PYTHONPATH": "tests/lib"} | told
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        return [line.split("\t") for line in results.read_text().splitlines()], done.returncode


def outcomes(program, strict):
    """(case, outcome) of each line, and the exit code."""
    lines, code = ran(program, TEST_STRICT=strict)
    assert all("cannot be run here: " in line[4] for line in lines), lines
    return [(line[1], line[2]) for line in lines], code


def what_cannot_be_run_fails_where_all_must_be():
    assert outcomes(ONE, "1") == ([("needs-more", "skip")], 0)
    assert outcomes(ONE, "all") == ([("needs-more", "fail")], 1)


def full_and_frozen_disks_are_missed():
    for module in ("full", "frozen"):
        program = NOT_ROOT.format(module=module)
        assert outcomes(program, "1") == ([("all", "skip")], 0), module
        assert outcomes(program, "all") == ([("all", "fail")], 1), module


def a_variant_is_named_behind_the_suite():
    for variant, suite in (("", "s"), ("three-shards", "s-three-shards")):
        lines, _code = ran(ONE, TEST_STRICT="1", TEST_VARIANT=variant)
        assert [line[:2] for line in lines] == [[suite, "needs-more"]], lines


suite = cases.Suite("harness")

if __name__ == "__main__":
    suite.case("what-cannot-be-run-fails-where-all-must-be", what_cannot_be_run_fails_where_all_must_be)
    suite.case("a-variant-is-named-behind-the-suite", a_variant_is_named_behind_the_suite)
    suite.case("full-and-frozen-disks-are-missed", full_and_frozen_disks_are_missed)
    suite.end()
