"""Cases: what `./test` counts. A case is a function that returns, or raises and so has failed.

Each prints one line, and writes one into the file that TEST_RESULTS names: suite, case, outcome, seconds and reason, with tabs
between.
"""

import os
import signal
import subprocess
import sys
import time
import traceback


class Skip(Exception):
    """The case cannot be run here; the text says why. `./test` lists it."""


class Expired(Exception):
    """The case took longer than it may."""


def expired(_signal, _frame):
    raise Expired()


class Suite:
    """Runs cases one after another and remembers how they ended."""

    def __init__(self, name):
        self.name = name
        self.failed = 0
        self.chosen = [a for a in sys.argv[1:] if not a.startswith("-")]

    def record(self, case, outcome, seconds=0.0, reason=""):
        """Outcome: pass, fail or skip."""
        reason = " ".join(reason.split())[:500]
        shown = {"pass": "ok  ", "fail": "FAIL", "skip": "skip"}[outcome]
        print(f"{shown}  {self.name}/{case} ({seconds:.1f} s){': ' if reason else ''}{reason}", flush=True)
        self.failed += outcome == "fail"
        results = os.environ.get("TEST_RESULTS")
        if results:
            with open(results, "a") as file:
                file.write(f"{self.name}\t{case}\t{outcome}\t{seconds:.1f}\t{reason}\n")

    def case(self, name, function, limit=60):
        """Runs `function()` for at most `limit` seconds."""
        if self.chosen and name not in self.chosen:
            return
        began = time.monotonic()
        signal.signal(signal.SIGALRM, expired)
        signal.alarm(limit)
        try:
            function()
            outcome, reason = "pass", ""
        except Skip as skip:
            outcome, reason = "skip", str(skip)
        except Expired:
            outcome, reason = "fail", f"not finished after {limit} s"
            traceback.print_exc()
        except Exception as error:
            outcome, reason = "fail", f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            signal.alarm(0)
        self.record(name, outcome, time.monotonic() - began, reason)

    def relay(self, command, **options):
        """Runs a program that has cases of its own. Each ends with a line `case`, name, outcome, seconds and reason, and the last
        line is `cases`, `end`, so that one that stops halfway is seen; tabs between. What else it prints is passed on."""
        began, whole = time.monotonic(), False
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        for line in program.stdout:
            match line.rstrip("\n").split("\t"):
                case ["case", name, outcome, seconds, reason]:
                    self.record(name, outcome, float(seconds), reason)
                case ["cases", "end"]:
                    whole = True
                case _:
                    print(line, end="", flush=True)
        code = program.wait()
        if not whole or code != 0:
            self.record("to-the-end", "fail", time.monotonic() - began, f"the program with the cases ended with {code}")

    def end(self):
        """Leaves the program: 1 if a case has failed."""
        sys.stdout.flush()
        sys.exit(1 if self.failed else 0)
