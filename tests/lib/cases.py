"""Cases: what `./test` counts. A case is a function that returns, or raises and so has failed.

Each prints one line, and writes one into the file that TEST_RESULTS names: suite, case, outcome, seconds and reason, with tabs
between. A suite that is run in another way than its own (TEST_VARIANT: with three data shards) has that behind its name.
"""

import os
import signal
import subprocess
import sys
import time
import traceback


class Skip(Exception):
    """The case cannot be run here; the text says why. `./test` lists it, and with TEST_STRICT=all it has failed."""


def cannot_be_run():
    """How a case ends that cannot be run here: where all must be, it has failed, or no one would miss it."""
    return "fail" if os.environ.get("TEST_STRICT") == "all" else "skip"


class Expired(Exception):
    """The case took longer than it may."""


def expired(_signal, _frame):
    raise Expired()


# The limits of cases are what they need several times over. A machine that is slow, or that others use as well, has so many times that.
PATIENCE = 3


def best_of_three(bound, measure):
    """Measures up to three times how long something takes, until that is below `bound`: another process may have taken the processor from
    one try, and what is slow by itself is slow in all of them."""
    took = []
    while len(took) < 3:
        took.append(measure())
        if took[-1] < bound:
            return
    raise AssertionError(f"it took {', '.join(f'{one:.3f}' for one in took)} instead of {bound}")


class Suite:
    """Runs cases one after another and remembers how they ended."""

    def __init__(self, name):
        variant = os.environ.get("TEST_VARIANT")
        self.name = f"{name}-{variant}" if variant else name
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(sys.modules["__main__"].__doc__)
            sys.exit()
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
        """Runs `function()` for at most `PATIENCE` times `limit` seconds."""
        if self.chosen and name not in self.chosen:
            return
        limit *= PATIENCE
        began = time.monotonic()
        signal.signal(signal.SIGALRM, expired)
        signal.alarm(limit)
        try:
            function()
            outcome, reason = "pass", ""
        except Skip as skip:
            outcome, reason = cannot_be_run(), f"cannot be run here: {skip}"
        except Expired:
            outcome, reason = "fail", f"not finished after {limit} s"
            traceback.print_exc()
        except Exception as error:
            outcome, reason = "fail", f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            signal.alarm(0)
        self.record(name, outcome, time.monotonic() - began, reason)

    def relay(self, *commands, **options):
        """Runs programs that have cases of their own, all at once. Each case ends with a line `case`, name, outcome, seconds and reason,
        and a program with `cases`, `end`, so that one that stops halfway is seen; tabs between. What else they print is passed on."""
        programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) for command in commands]
        for program in programs:
            self.hear(program)

    def hear(self, program):
        """Takes down the cases of one that runs."""
        began, whole = time.monotonic(), False
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
