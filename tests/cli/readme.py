#!/usr/bin/env python3
"""README.md's commands, taken from the page and run: what is shown below them must be what they print."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import broker as brokers
import cases

README = (REPOSITORY / "README.md").read_text()
SABIR = os.environ.get("SABIR_BIN") or str(REPOSITORY / "target/debug/sabir")
STEPS = ["Look first", "Start", "Make a topic", "Produce", "Consume", "See the lag", "Go back in time", "Change what is kept", "Stop"]


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def steps():
    """(name, commands, what is shown below them) of each step."""
    pattern = r"^\*\*(.+?)\.?\*\*.*?^```sh\n(.*?)^```(?:\n\n```text\n(.*?)^```)?"
    return re.findall(pattern, section("An operator's first ten minutes"), re.M | re.S)


def plain(line):
    """A line without what differs from run to run: times, and how wide columns are."""
    return " ".join(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line).split())


class Shell:
    """One shell for all steps, as a reader has it."""

    def __init__(self, folder):
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "sabir").symlink_to(SABIR)
        port, admin = brokers.free_ports(2)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SABIR")} | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            # Only where the broker listens is not as on the page: another may run on this machine.
            "SABIR__KAFKA__LISTEN": f"127.0.0.1:{port}",
            "SABIR__ADMIN__LISTEN": f"127.0.0.1:{admin}",
            "SABIR_ADDRESS": f"127.0.0.1:{port}",
        }
        # a session of its own: whatever is left of it can be ended at once
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=brokers.die_with_parent,
        )

    def run(self, commands):
        """What the commands print, and the code of the last that failed."""
        lines = "".join(f"{line} || code=$?\n" if not line.endswith("&") else f"{line}\n" for line in commands.splitlines())
        self.process.stdin.write(f"code=0\n{lines}echo; echo ENDED $code\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if line.startswith("ENDED "):
                return "".join(said), int(line.split()[1])
            said.append(line)
        raise RuntimeError(f"the shell ended: {''.join(said)}")

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def two_promised_commands():
    promised = re.findall(r"^```sh\n(.*?)\n```", section("Try it"), re.M | re.S)
    assert promised == ["cargo run --locked -p sabir-cli -- dev", "./test"], promised
    went = subprocess.run(
        [SABIR, "dev", "--once", "--set", "kafka.listen=127.0.0.1:0", "--set", "net.default_listen=off", "--set", "admin.listen=off"], capture_output=True, text=True, timeout=90
    )
    assert went.returncode == 0 and "<- read back" in went.stdout, went
    listed = subprocess.run(["./test", "--list"], cwd=REPOSITORY, capture_output=True, text=True, timeout=90)
    assert listed.returncode == 0 and "readme" in listed.stdout.split(), listed


def what_is_not_there_is_said_first():
    """Where a reader decides, with a pointer to the table of all that there is."""
    parts = README.split("\n## ")[0].split("\n\n")
    said = next((part for part in parts if part.startswith("**Not there yet:**")), None)
    assert said, "what is missing has to stand where a reader decides"
    missing = [word for word in ("transactions", "compaction", "TLS", "SASL", "replication") if word not in said]
    assert not missing, f"{missing}: not named in {said}"
    pages = [(REPOSITORY / link).read_text() for link in re.findall(r"\]\(([^)#]+)\)", said)]
    assert any("| key | API |" in page for page in pages), f"no coverage table behind {said}"


def the_steps_are_there():
    found = [name for name, _, _ in steps()]
    assert found == STEPS, found
    commands = section("An operator's first ten minutes").count("```sh")
    assert commands == len(STEPS), f"{commands} blocks of commands, but {len(STEPS)} steps"


def step(shell, name, commands, shown):
    def run():
        said, code = shell.run(commands)
        # The doctor may find fault with this machine, and says so by its exit code.
        assert code == 0 or (name == "Look first" and code == 1), f"ended with {code}: {said}"
        if shown:
            compare(shown, said)
        check = CHECKS.get(name)
        if check:
            check(said)

    return run


def compare(shown, said):
    """The page shows all that was said, but for what `...` stands for."""
    parts = [[plain(line) for line in part.splitlines()] for part in re.split(r"^\.\.\.\n", shown, flags=re.M)]
    left = [plain(line) for line in said.rstrip().splitlines()]
    for number, part in enumerate(parts):
        # The first part begins where the output does; the others anywhere behind the one before.
        starts = [0] if number == 0 else range(len(left) + 1)
        start = next((at for at in starts if left[at : at + len(part)] == part), None)
        assert start is not None, f"the page shows {part}, which is not what came: {said}"
        left = left[start + len(part) :]
    assert len(parts) > 1 or not left, f"the page leaves out {left} without saying so"


def lag_after_the_reset(said):
    groups = json.loads(said[said.index("[\n") :])
    assert [(g["group"], g["lag"]) for g in groups] == [("billing", 3)], groups


CHECKS = {"Go back in time": lag_after_the_reset}


def main():
    folder = brokers.scratch("readme")
    shell = Shell(folder)
    try:
        suite.case("two-promised-commands", two_promised_commands)
        suite.case("what-is-not-there-is-said-first", what_is_not_there_is_said_first)
        suite.case("the-steps-are-there", the_steps_are_there)
        for name, commands, shown in steps():
            suite.case(name.lower().replace(" ", "-"), step(shell, name, commands, shown), 30)
    finally:
        shell.end()
        shutil.rmtree(folder, ignore_errors=True)
    suite.end()


suite = cases.Suite("readme")

if __name__ == "__main__":
    main()
