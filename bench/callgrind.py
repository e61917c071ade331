#!/usr/bin/env python3
"""Counts the instructions of one produce, one fetch and one block of the journal, and compares them with those that were noted.

    bench/callgrind.py            compares with bench/callgrind.json; each case is a line of the results
    bench/callgrind.py --update   counts and writes them down: for a change that is meant to cost more or less; commit the file with it

The counts are callgrind's (valgrind --tool=callgrind), of the functions named `counted...` in two examples, on one thread, one request
after another: what else the machine does cannot be seen in them. The examples are built with a profile of their own: that
of `cargo test` (dev, opt-level 1), but compiled whole, since what is compiled incrementally depends on what was compiled before. The
absolute numbers are therefore higher than those of a release build, and only their changes mean something.

Another compiler makes other code, so that the counts hold for the one they were taken with: with any other each case is skipped, until
somebody has called it with --update.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/lib"))
from cases import Skip, Suite

NOTED = HERE / "callgrind.json"
# Of two runs of the same build, counts differ by less than a tenth of that.
TOLERANCE = 0.01
# Seconds for one command; building included.
LIMIT = 600
# case -> (package, example, how often)
CASES = {
    "produce-100b": ("sabir-kafka", "count_requests", 500),
    "produce-16k": ("sabir-kafka", "count_requests", 500),
    "fetch-100b": ("sabir-kafka", "count_requests", 500),
    "fetch-16k": ("sabir-kafka", "count_requests", 500),
    "append-100b": ("sabir-journal", "count_appends", 500),
    "append-100b-by-100": ("sabir-journal", "count_appends", 200),
    "append-64k": ("sabir-journal", "count_appends", 200),
}


def run(*command):
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def target_directory():
    return pathlib.Path(json.loads(run("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"))["target_directory"])


def build():
    """Folder of the examples."""
    wanted = {(package, example) for package, example, _ in CASES.values()}
    for package, example in sorted(wanted):
        run("cargo", "build", "--quiet", "--locked", "--profile", "counts", "-p", package, "--example", example)
    return target_directory() / "counts/examples"


def compiler():
    said = dict(line.split(": ", 1) for line in run("rustc", "-vV").splitlines() if ": " in line)
    return f"{said['release']} {said['host']}"


def count(examples, case):
    """Instructions of one repetition."""
    _package, example, times = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        run(
            # in turns: a thread that waits for another would otherwise now and then have the processor for a minute
            "valgrind", "--tool=callgrind", "--fair-sched=yes", "--collect-atstart=no", "--toggle-collect=*counted_*", f"--callgrind-out-file={out}",
            examples / example, case, str(times),
        )  # fmt: skip
        total = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M)
    return round(int(total[1]) / times)


def compare(examples, case, noted):
    if noted["compiler"] != compiler():
        raise Skip(f"the counts were taken with rustc {noted['compiler']}, this is {compiler()}: bench/callgrind.py --update")
    before, now = noted["instructions"][case], count(examples, case)
    change = now / before - 1
    print(f"      {case}: {now:,} instructions, {change:+.2%}", flush=True)
    if abs(change) > TOLERANCE:
        raise AssertionError(
            f"{now:,} instructions instead of {before:,}, {change:+.1%}; if that is meant, bench/callgrind.py --update writes it down"
        )


def update(examples):
    noted = {"compiler": compiler(), "instructions": {case: count(examples, case) for case in CASES}}
    NOTED.write_text(json.dumps(noted, indent=2) + "\n")
    print(NOTED.read_text(), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the counts down instead of comparing them")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="compare only these")
    asked = parser.parse_args()
    os.environ.setdefault("CARGO_TERM_COLOR", "never")
    examples = build()
    if asked.update:
        return update(examples)
    noted = json.loads(NOTED.read_text())
    suite = Suite("callgrind")
    for case in CASES:
        suite.case(case, lambda: compare(examples, case, noted), limit=120)
    suite.end()


if __name__ == "__main__":
    main()
