#!/usr/bin/env python3
"""Two Go clients against the broker at BOOTSTRAP, a small program each: franz-go and segmentio/kafka-go."""

import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases

PROGRAMS = ("franz", "segmentio")


def main():
    suite = cases.Suite("go-clients")
    environment = dict(os.environ, SALT=f"{time.time_ns():x}")
    for program in PROGRAMS:
        chosen = [name for name in suite.chosen if name.startswith(program)]
        if chosen or not suite.chosen:
            built = broker.CACHE / "go" / program
            suite.relay([str(built), *chosen], env=environment, preexec_fn=broker.die_with_parent)
    suite.end()


if __name__ == "__main__":
    main()
