#!/usr/bin/env python3
"""install.sh with an apt-get that only says what it would do: what is on the machine stays on it."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import cases

# Says $PLAN when it is asked for one, and notes how it was called.
APT = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case " $* " in
  *" -s "*) printf '%s\\n' "$PLAN"; [[ $PLAN != *Remv* || " $* " != *" --no-remove "* ]] ;;
  *" download "*) echo archive >wanted.deb ;;
esac
"""
DPKG = """#!/usr/bin/env bash
echo "dpkg $*" >>"$CALLS"
mkdir -p "${@: -1}/usr/bin"
"""


def brought(plan, user):
    """The calls that bring a package, made by root or another user."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, text in (("apt-get", APT), ("dpkg", DPKG), ("id", f"#!/bin/sh\necho {user}\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "PLAN": plan,
            "LOGS": str(folder),
            "SABIR_CACHE": str(folder / "cache"),
        }
        script = "probe() { false; }; . tests/lib/install.sh; need_debian probe rsyslog"
        subprocess.run(["bash", "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, check=False, timeout=30)
        return (folder / "calls").read_text().splitlines()


def installs(calls):
    return [c for c in calls if " install " in c and " -s " not in f" {c} "]


def root_installs_what_takes_nothing_away():
    calls = brought("Inst rsyslog (8.0 Debian)", 0)
    assert len(installs(calls)) == 1 and "--no-remove" in installs(calls)[0], calls
    assert not any(c.startswith("dpkg") for c in calls), calls


def the_machines_logger_stays():
    for plan in (
        "Remv busybox-syslogd [1.37]\nInst rsyslog (8.0 Debian)",
        "Remv syslog-ng-core [4.8]\nRemv syslog-ng [4.8]\nInst rsyslog (8.0 Debian)",
        "Inst rsyslog [8.0] (8.1 Debian)",
    ):
        calls = brought(plan, 0)
        assert not installs(calls), calls
        assert any(c.startswith("dpkg -x") and "/cache/" in c for c in calls), calls


def others_unpack():
    calls = brought("Inst rsyslog (8.0 Debian)", 1000)
    assert not installs(calls) and any(c.startswith("dpkg -x") for c in calls), calls


def the_page_names_what_is_needed():
    page = (REPOSITORY / "README.md").read_text()
    code = (REPOSITORY / "test").read_text() + "".join(p.read_text() for p in sorted(REPOSITORY.glob("tests/**/*.sh")))
    needs = page.split("./test\n```")[1].split("## Run it")[0]
    for said, used in (("g++", "g++"), ("make", "make"), ("Maven", "mvn"), ("Go", "go build"), ("Python 3", "python3")):
        assert said in needs and used in code, said
    assert "cmake" not in needs.lower(), needs
    rust = re.search(r'rust-version = "([\d.]+)"', (REPOSITORY / "Cargo.toml").read_text())[1]
    assert f"Rust {rust}" in page and f"RUST={rust}\n" in code, rust


suite = cases.Suite("install")

if __name__ == "__main__":
    suite.case("root-installs-what-takes-nothing-away", root_installs_what_takes_nothing_away)
    suite.case("the-machines-logger-stays", the_machines_logger_stays)
    suite.case("others-unpack", others_unpack)
    suite.case("the-page-names-what-is-needed", the_page_names_what_is_needed)
    suite.end()
