#!/usr/bin/env python3
"""What the first message costs somebody who has just cloned the repository: README.md's first command, with nothing built, until its
message has gone round.

    bench/first_message.py [--most SECONDS]

prints the CPU seconds of all that took part (cargo, the compilers, the broker), and ends with 1 if they are more than five minutes. It
clones what is committed. What cargo has downloaded before is not downloaded again: that takes a network, and next to no CPU.
"""

import argparse
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import broker as brokers
import cases

# Ends once the message is back, and takes no port that another may have.
ONCE = ["--once", "--set", "kafka.listen=127.0.0.1:0", "--set", "net.default_listen=off", "--set", "admin.listen=off"]


def first_command():
    page = (REPOSITORY / "README.md").read_text()
    return re.search(r"^```sh\n(cargo run .*)\n```", page.split("\n## Try it\n")[1], re.M)[1].split()


def clean(folder):
    """An environment in which cargo builds as it does by default, and nothing that was built before."""
    ours = re.compile(r"SABIR|RUSTFLAGS|RUSTC|CARGO_(BUILD|PROFILE|INCREMENTAL|TARGET|ENCODED)")
    environment = {k: v for k, v in os.environ.items() if not ours.match(k)}
    return environment | {"CARGO_TARGET_DIR": str(folder / "target"), "RUSTC_WRAPPER": ""}


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder):
    """CPU seconds and seconds by the clock."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    before, began = cpu_seconds(), time.monotonic()
    done = subprocess.run([*first_command(), *ONCE], cwd=clone, env=clean(folder), capture_output=True, text=True)
    assert done.returncode == 0 and "<- read back" in done.stdout, f"it ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}"
    return cpu_seconds() - before, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=300)
    most = parser.parse_args().most
    sys.argv[1:] = []
    suite = cases.Suite("first-message")
    folder = brokers.scratch("first-message")

    def case():
        cpu, clock = measure(folder)
        print(f"the first message after {cpu:.0f} s of CPU, {clock:.0f} s by the clock on {os.cpu_count()} processors")
        assert cpu <= most, f"{cpu:.0f} s of CPU, and may take {most:.0f}"

    try:
        suite.case("within-five-minutes-of-cpu", case, 3500)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    suite.end()


if __name__ == "__main__":
    main()
