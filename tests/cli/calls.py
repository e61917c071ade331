"""How the cases call `sabir`: what a command prints, complains of and shows at a terminal; and the fields of JSON that docs/cli.md promises."""

import json
import os
import pathlib
import pty
import re
import select
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

BOOTSTRAP = os.environ["BOOTSTRAP"]
ADMIN = os.environ.get("BROKER_ADMIN", "")
SABIR = os.environ.get("SABIR_BIN") or str(REPOSITORY / "target/debug/sabir")
KCAT = os.environ.get("KCAT", "kcat")
OURS = os.environ.get("BROKER_KIND", "sabir") == "sabir"
SALT = f"{time.time_ns():x}"
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("SABIR")} | {"SABIR_ADDRESS": BOOTSTRAP} | ({"SABIR_ADMIN": ADMIN} if ADMIN else {})

FAILED, USAGE, CONNECT, NOT_FOUND, EXISTS, REFUSED, TIMEOUT, CONFIG = range(1, 9)


def run(*arguments, stdin="", limit=90, **environment):
    """A command that ended: exit code, stdout, stderr."""
    return subprocess.run(
        [SABIR, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=limit, env=ENVIRONMENT | environment
    )


def ok(*arguments, **options):
    """What a command that must succeed prints."""
    done = run(*arguments, **options)
    assert done.returncode == 0, f"sabir {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def fails(code, *arguments, says=(), **options):
    """What a command complains of that must end with this code."""
    done = run(*arguments, **options)
    assert done.returncode == code, f"{arguments}: {done.returncode}, not {code}: {done.stdout}{done.stderr}"
    assert done.stderr.startswith("error: "), done.stderr
    for text in says:
        assert text in done.stderr, f"{arguments}: no `{text}` in: {done.stderr}"
    return done.stderr


def answer(*arguments, **options):
    """The answer in JSON, whose fields are noted."""
    value = json.loads(ok(*arguments, "-o", "json", **options))
    note(command_of(arguments), value)
    return value


def lines(*arguments, **options):
    """Messages in JSON, whose fields are noted."""
    values = [json.loads(line) for line in ok(*arguments, "-o", "json", **options).splitlines()]
    note(command_of(arguments), values)
    return values


def equal(found, expected):
    assert found == expected, f"expected {expected!r}, found {found!r}"


def name(text):
    return f"cli-{text}-{SALT}"


def topic(text, partitions=1):
    ok("topic", "create", name(text), "-p", partitions)
    return name(text)


def publish(where, *values, **options):
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    ok("message", "publish", where, *arguments, stdin="".join(f"{value}\n" for value in values))


def values(*arguments):
    return ok("message", "read", *arguments, "-o", "value").splitlines()


# ---- the fields that are promised


def documented():
    """Of docs/cli.md: command -> its fields."""
    page = (REPOSITORY / "docs/cli.md").read_text()
    section = page.split("## Fields of JSON")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.M)
    return {command: set(re.findall(r"`([^`]+)`", fields)) for command, fields in rows}


DOCUMENTED = documented()
SEEN = {}


def command_of(arguments):
    words = [a for a in arguments if isinstance(a, str)]
    longest = [" ".join(words[:n]) for n in (3, 2, 1)]
    return next((c for c in longest if c in DOCUMENTED), longest[-1])


def fields(value, path=""):
    if isinstance(value, list):
        inner = [f for item in value for f in fields(item, path + "[]")]
        return inner if any(isinstance(item, (dict, list)) for item in value) else [path]
    if isinstance(value, dict):
        return [f for key, item in value.items() for f in fields(item, f"{path}.{key}" if path else key)]
    return [path]


def absent(value, path):
    """Whether a field is left out; null is there, and so is what would stand in an empty list."""
    if value is None or path in value:
        return False
    head, _, rest = path.partition(".")
    if head.removesuffix("[]") not in value:
        return True
    inner = value[head.removesuffix("[]")]
    return bool(rest) and any(absent(item, rest) for item in (inner if isinstance(inner, list) else [inner]))


def note(command, value):
    records = value if isinstance(value, list) else [value]
    for record in records:
        left_out = sorted(field for field in DOCUMENTED.get(command, ()) if absent(record, field))
        assert not left_out, f"{command} leaves out {left_out}: {record}"
    SEEN.setdefault(command, set()).update(f for record in records for f in fields(record))


def fields_are_as_documented():
    for command, found in SEEN.items():
        # An array that was empty once shows as itself; what is in it was seen another time.
        found = {f for f in found if f not in DOCUMENTED.get(command, ()) and not any(d.startswith(f"{f}[]") for d in DOCUMENTED.get(command, ()))}
        assert not found, f"docs/cli.md does not list {sorted(found)} of {command}"
    missing = {c: sorted(wanted - SEEN.get(c, set())) for c, wanted in DOCUMENTED.items()}
    missing = {c: m for c, m in missing.items() if m and (OURS or c.split()[0] not in ("connection", "definitions", "delayed", "dlq"))}
    assert not missing, f"listed in docs/cli.md and never seen: {missing}"


# ---- at a terminal


def on_a_terminal(arguments, typed, **environment):
    """Runs a command at a terminal and types; its exit code and all that the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(SABIR, [SABIR, *arguments], {k: v for k, v in ENVIRONMENT.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment)
    shown = b""
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(terminal, 4096)
            except OSError:
                break
            shown += piece
            if typed is not None and b"[y/N] " in shown:
                os.write(terminal, typed.encode() + b"\n")
                typed = None
            if not piece:
                break
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()
    finally:
        os.close(terminal)
