#!/usr/bin/env python3
"""Every command of `sabir` against the broker at BOOTSTRAP, as a script uses it: JSON, texts of errors, exit codes.

The fields that docs/cli.md lists are the contract: a field that is not listed there, or is listed and never seen, is a failure.
"""

import ctypes
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import cases
import messages
from calls import (
    BOOTSTRAP, CONFIG, CONNECT, ENVIRONMENT, EXISTS, FAILED, KCAT, NOT_FOUND, OURS, REFUSED, SABIR, SALT, TIMEOUT, USAGE, answer,
    equal, fails, fields_are_as_documented, name, note, ok, on_a_terminal, publish, run, topic, values,
)  # fmt: skip


# ---- topics


def topics():
    one = name("topics")
    equal(answer("topic", "create", one, "-p", "3", "--dry-run"), [{"topic": one, "outcome": "would be created"}])
    assert one not in ok("topic", "list", "-o", "name").splitlines()
    equal(answer("topic", "create", one, "-p", "3", "-c", "retention.ms=3600000"), [{"topic": one, "outcome": "created"}])
    listed = [t for t in answer("topic", "list") if t["topic"] == one]
    equal([(t["partitions"], t["replicas"], t["internal"]) for t in listed], [(3, 1, False)])
    publish(one, "a", "b", partition="1")
    described = answer("topic", "describe", one)[0]
    equal([(p["partition"], p["start"], p["end"]) for p in described["partitions"]], [(0, 0, 0), (1, 0, 2), (2, 0, 0)])
    assert described["partitions"][0]["in_sync"] == [described["partitions"][0]["leader"]]
    fails(EXISTS, "topic", "create", one, says=["--if-not-exists"])
    equal(answer("topic", "create", one, "--if-not-exists")[0]["outcome"], "exists")
    table = ok("topic", "describe", one)
    assert "PARTITION" in table and "\x1b" not in table, table
    assert ok("topic", "describe", one, "-o", "yaml").startswith(f"- topic: {one}\n")
    loss = answer("topic", "delete", one, "--dry-run")
    equal(loss, [{"topic": one, "outcome": "would be deleted", "partitions": 3, "messages": 2}])
    equal(answer("topic", "delete", one)[0]["outcome"], "deleted")
    equal(answer("topic", "delete", one, "--if-exists"), [])


def partitions():
    one = topic("partitions", 2)
    equal(answer("topic", "add-partitions", one, "--total", "5", "--dry-run")[0]["outcome"], "would be changed")
    equal(len(answer("topic", "describe", one)[0]["partitions"]), 2)
    equal(answer("topic", "add-partitions", one, "--total", "5")[0]["outcome"], "changed")
    equal(len(answer("topic", "describe", one)[0]["partitions"]), 5)
    fails(REFUSED, "topic", "add-partitions", one, "--total", "5")
    fails(NOT_FOUND, "topic", "add-partitions", name("nothing"), "--total", "5", says=["sabir topic list"])


def settings():
    one = topic("settings")
    equal(answer("topic", "config", "show", one), [])
    changes = answer("topic", "config", "set", one, "retention.ms=3600000", "max.message.bytes=2000000", "--dry-run")
    equal([c["outcome"] for c in changes], ["would be set"] * 2)
    equal(answer("topic", "config", "show", one), [])
    answer("topic", "config", "set", one, "retention.ms=3600000", "max.message.bytes=2000000")
    own = {s["name"]: (s["value"], s["source"]) for s in answer("topic", "config", "show", one)}
    equal(own, {"retention.ms": ("3600000", "topic"), "max.message.bytes": ("2000000", "topic")})
    equal(answer("topic", "config", "unset", one, "retention.ms")[0]["outcome"], "unset")
    assert all(s["help"] for s in answer("topic", "config", "show", one))
    everything = {s["name"]: s["source"] for s in answer("topic", "config", "show", one, "--all")}
    equal((everything["retention.ms"], everything["max.message.bytes"]), ("default", "topic"))
    # All or none, and a word about what was meant.
    fails(REFUSED, "topic", "config", "set", one, "retention.ms=5", "retention.mss=1", says=["Did you mean `retention.ms`?", "--all"])
    equal({s["name"] for s in answer("topic", "config", "show", one)}, {"max.message.bytes"})
    fails(REFUSED, "topic", "config", "set", one, "retention.ms=soon")
    fails(USAGE, "topic", "config", "set", one, "retention.ms")
    fails(NOT_FOUND, "topic", "config", "show", name("nothing"), says=["there is no topic"])


def records():
    one = topic("records", 2)
    publish(one, *(f"old {n}" for n in range(5)), partition="0")
    time.sleep(0.02)
    between = f"{time.time():.3f}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(between))) + between[between.index(".") :] + "Z"
    time.sleep(0.02)
    publish(one, "new", partition="0")
    equal([(o["start"], o["end"], o["at"]) for o in answer("topic", "offsets", one)], [(0, 6, None), (0, 0, None)])
    equal([o["at"] for o in answer("topic", "offsets", one, "--at", moment)], [5, 0])
    equal([o["at"] for o in answer("topic", "offsets", one, "--at", "-1h", "-p", "0")], [0])
    would = answer("topic", "delete-records", one, "--before", moment, "--dry-run")
    equal([(c["start_before"], c["start"], c["messages"]) for c in would], [(0, 5, 5), (0, 0, 0)])
    equal(answer("topic", "offsets", one)[0]["start"], 0)
    equal(answer("topic", "delete-records", one, "--before", "2", "-p", "0")[0]["outcome"], "deleted")
    equal(values(one), ["old 2", "old 3", "old 4", "new"])
    fails(NOT_FOUND, "topic", "delete-records", one, "--before", "7", "-p", "0", says=["ends at 6"])
    fails(NOT_FOUND, "topic", "delete-records", one, "--before", "3", says=["--partition", "nothing was deleted"])
    equal(answer("topic", "offsets", one)[0]["start"], 2)
    answer("topic", "delete-records", one, "--before", moment)
    equal(values(one), ["new"])
    equal([c["messages"] for c in answer("topic", "delete-records", one, "--before", "latest")], [1, 0])
    equal(values(one), [])
    fails(USAGE, "topic", "delete-records", one, "--before", "earliest", says=["--before latest"])


# ---- groups


def group_without_members():
    one, group = topic("lag", 2), name("billing")
    publish(one, *"abcdef", partition="0")
    publish(one, *"xyz", partition="1")
    equal(ok("message", "read", one, "--group", group, "-p", "0", "--limit", "4", "-o", "value"), "a\nb\nc\nd\n")
    equal(ok("message", "read", one, "-g", group, "-p", "0", "-o", "value"), "e\nf\n")
    ok("message", "read", one, "-g", group, "-p", "1", "--key", "none")
    # What was looked at and did not fit is done with too.
    lag = answer("group", "lag", group)[0]
    equal((lag["lag"], [(p["partition"], p["committed"], p["end"]) for p in lag["partitions"]]), (0, [(0, 6, 6), (1, 3, 3)]))
    assert [g["state"] for g in answer("group", "list") if g["group"] == group] == ["Empty"]
    assert group in [g["group"] for g in answer("group", "lag")]
    described = answer("group", "describe", group)[0]
    equal((described["members"], described["lag"], described["partitions"][0]["member"]), ([], 0, None))

    def moved(*arguments):
        return {(p["topic"], p["partition"]): (p["before"], p["after"], p["clamped"]) for p in answer("group", "reset", group, *arguments)["partitions"]}

    equal(moved("--to", "earliest", "--dry-run"), {(one, 0): (6, 0, False), (one, 1): (3, 0, False)})
    equal(answer("group", "lag", group)[0]["lag"], 0)
    moved("--to", "earliest")
    equal(answer("group", "lag", group)[0]["lag"], 9)
    equal(moved("--topic", one, "-p", "0", "--to", "4"), {(one, 0): (0, 4, False)})
    equal(moved("--to", "5"), {(one, 0): (4, 5, False), (one, 1): (0, 3, True)})
    equal(moved("--by", "-2"), {(one, 0): (5, 3, False), (one, 1): (3, 1, False)})
    equal(moved("--to", "-1h"), {(one, 0): (3, 0, False), (one, 1): (1, 0, False)})
    equal(moved("--to", "2100-01-01T00:00:00Z"), {(one, 0): (0, 6, False), (one, 1): (0, 3, False)})
    equal(moved("--to", "latest"), {(one, 0): (6, 6, False), (one, 1): (3, 3, False)})
    assert "(the nearest there is)" in ok("group", "reset", group, "--to", "99", "--dry-run")
    for wrong in [["--to", "yesterday"], ["--by", "x"], [], ["--to", "1", "--by", "1"]]:
        fails(USAGE, "group", "reset", group, *wrong)
    fails(NOT_FOUND, "group", "reset", group, "--topic", name("lagg"), "--to", "latest", says=[f"Did you mean `{one}`?"])
    fails(NOT_FOUND, "group", "reset", group, "--topic", one, "-p", "2", "--to", "latest", says=["has no partition 2"])

    would = answer("group", "delete-offsets", group, "--topic", one, "-p", "1", "--dry-run")
    equal([(o["partition"], o["committed"], o["outcome"]) for o in would], [(1, 3, "would be deleted")])
    equal(answer("group", "delete-offsets", group, "--topic", one, "-p", "1")[0]["outcome"], "deleted")
    equal([p["partition"] for p in answer("group", "lag", group)[0]["partitions"]], [0])
    fails(NOT_FOUND, "group", "delete-offsets", group, "--topic", one, "-p", "1", says=["has committed nothing of", "sabir group lag"])
    equal(answer("group", "delete", group, "--dry-run"), [{"group": group, "outcome": "would be deleted"}])
    equal(answer("group", "delete", group), [{"group": group, "outcome": "deleted"}])
    for verb in (["describe"], ["lag"], ["delete"], ["reset", "--to", "latest"]):
        fails(NOT_FOUND, "group", verb[0], group, *verb[1:], says=[f"there is no group {group}", "sabir group list"])
    # A reset that names its topics makes the group.
    ok("group", "reset", group, "--topic", one, "--to", "earliest")
    fails(NOT_FOUND, "group", "lag", group[:-1], says=[f"Did you mean `{group}`?"])


def lag_again_and_again():
    one, group = topic("watched"), name("watcher")
    publish(one, *"abc")
    ok("message", "read", one, "-g", group, "--limit", "1")
    watching = subprocess.Popen([SABIR, "group", "lag", group, "--watch=100ms", "-o", "name"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        equal([watching.stdout.readline().strip() != "" for _ in range(3)], [True] * 3)
        watching.stdout.close()
        equal(watching.wait(10), 0)
    finally:
        watching.kill()
        watching.wait()


def group_with_members():
    one, group = topic("members", 2), name("readers")
    publish(one, *"abc", partition="0")
    command = [KCAT, "-b", BOOTSTRAP, "-u", "-G", group, "-X", "client.id=reader\x1b[31m", "-X", "group.instance.id=reader-1", "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=100", one]
    member = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        equal([member.stdout.readline() for _ in range(3)], ["a\n", "b\n", "c\n"])
        described = answer("group", "describe", group)[0]
        equal((described["state"], [m["client"] for m in described["members"]]), ("Stable", ["reader\x1b[31m"]))
        equal([(a["topic"], a["partition"]) for a in described["members"][0]["assigned"]], [(one, 0), (one, 1)])
        equal({p["member"] for p in described["partitions"]}, {described["members"][0]["member"]})
        shown = ok("group", "describe", group)
        assert "reader-1" in shown and "\x1b" not in shown, shown
        advice = ["has 1 member", "Stop its consumers first"]
        fails(REFUSED, "group", "reset", group, "--topic", one, "--to", "earliest", says=advice)
        fails(REFUSED, "group", "reset", group, "--topic", one, "--to", "earliest", "--dry-run", says=advice)
        fails(REFUSED, "group", "delete", group, says=advice)
        fails(REFUSED, "message", "read", one, "--group", group, says=["has members"])
        # What it reads is not let go, once it has committed.
        until = time.monotonic() + 60
        while not answer("group", "lag", group)[0]["partitions"] and time.monotonic() < until:
            time.sleep(0.1)
        fails(REFUSED, "group", "delete-offsets", group, "--topic", one, "-p", "0", says=["stop them first"])
        member.send_signal(signal.SIGTERM)
        member.wait(60)
    finally:
        member.kill()
        member.wait()


# ---- by way of the admin port


def definitions():
    one, other = name("defined"), name("defined-other")
    ok("topic", "create", one, "-p", "3", "-c", "retention.ms=3600000", "-c", "segment.bytes=1048576")
    ok("topic", "create", other, "-c", "compression.type=zstd")
    document = json.loads(ok("definitions", "export"))
    equal(document["version"], 1)
    ours = [t for t in document["topics"] if t["name"] in (one, other)]
    equal([t["name"] for t in ours], [one, other])
    equal((ours[0]["partitions"], ours[0]["config"]), (3, {"retention_ms": 3600000}))
    equal((ours[0]["kept_settings"]["segment.bytes"], ours[1]["config"]["compression"]), ("1048576", "zstd"))
    folder = pathlib.Path(os.environ.get("TEST_LOGS", "/tmp"))
    file = folder / f"cli-definitions-{SALT}.json"
    try:
        equal(ok("definitions", "export", "-o", file), "")
        equal(json.loads(file.read_text()), document)
        equal([f.name for f in folder.iterdir() if f.name.startswith(".sabir-")], [])
        equal({t["outcome"] for t in answer("definitions", "import", file)}, {"exists"})
        before = answer("topic", "config", "show", one)
        ok("topic", "delete", one)
        file.write_text(json.dumps({"version": 1, "topics": ours}))
        equal(answer("definitions", "import", file, "--dry-run"), [imported("topic", one, "would be created"), imported("topic", other, "exists")])
        assert one not in ok("topic", "list", "-o", "name").splitlines()
        equal(answer("definitions", "import", file)[0], imported("topic", one, "created"))
        equal(answer("topic", "config", "show", one), before)
        equal(len(answer("topic", "describe", one)[0]["partitions"]), 3)
        # What is there differently keeps all from being made.
        absent = dict(ours[0], name=name("absent"))
        file.write_text(json.dumps({"version": 1, "topics": [absent, dict(ours[0], partitions=4)]}))
        fails(EXISTS, "definitions", "import", file, says=[f'"{one}"', "partitions: 3 here, 4 in the document", "Nothing was created"])
        assert absent["name"] not in ok("topic", "list", "-o", "name").splitlines()
        equal(ok("definitions", "import", "-", "-o", "name", stdin=json.dumps({"version": 1, "topics": [absent]})), absent["name"] + "\n")
        file.write_text("{")
        fails(FAILED, "definitions", "import", file, says=["is no JSON"])
    finally:
        file.unlink(missing_ok=True)
    fails(FAILED, "definitions", "import", "/nowhere/at-all.json", says=["/nowhere/at-all.json"])
    fails(REFUSED, "definitions", "import", "-", stdin='{"version": 2, "topics": []}', says=["version"])
    for wrong in ("http://127.0.0.1:1", f"http://{BOOTSTRAP}"):
        fails(CONNECT, "definitions", "export", "--admin", wrong, says=[wrong, "SABIR_ADMIN", "admin.listen"])
    fails(USAGE, "definitions", "export", "--admin", "https://127.0.0.1", says=["http"])


def imported(kind, name, outcome):
    return {"kind": kind, "name": name, "topic": name if kind == "topic" else None, "outcome": outcome}


def definitions_of_queues():
    queue, source, other = name("queue"), name("source"), name("other")
    lists = {
        "queues": [{"name": queue, "queue": {"max_length": 5}}],
        "exchanges": [{"name": other, "kind": "fanout"}, {"name": source, "kind": "topic", "alternate": other}],
        "bindings": [
            {"source": source, "destination": {"queue": queue}, "key": "a.#"},
            {"source": source, "destination": {"exchange": other}},
        ],
    }
    document = json.dumps({"version": 1, "topics": [], **lists})
    named = [
        ("queue", queue),
        ("exchange", other),
        ("exchange", source),
        ("binding", f"{source} to queue {queue} by a.#"),
        ("binding", f"{source} to exchange {other}"),
    ]

    def ours():
        """What of ours is there."""
        there = json.loads(ok("definitions", "export"))
        is_ours = lambda entry: SALT in entry.get("name", entry.get("source", ""))
        return {name: found for name in lists if (found := [e for e in there.get(name, []) if is_ours(e)])}

    wanted = lambda outcome: [imported(kind, called, outcome) for kind, called in named]
    equal(answer("definitions", "import", "-", "--dry-run", stdin=document), wanted("would be created"))
    assert not any(queue in str(entry) for entry in ours().values()), "nothing was done"
    for outcome in ("created", "exists"):
        equal(answer("definitions", "import", "-", stdin=document), wanted(outcome))
        found = ours()
        equal(found["queues"][0]["queue"], {"max_length": 5})
        equal(found["exchanges"], lists["exchanges"])
        equal(found["bindings"], lists["bindings"])
    table = [line.split() for line in ok("definitions", "import", "-", "-o", "table", stdin=document).splitlines()]
    equal((table[0], table[1]), (["KIND", "NAME", "OUTCOME"], ["queue", queue, "exists"]))
    equal(ok("definitions", "import", "-", "-o", "name", stdin=document).splitlines(), [called for _kind, called in named])
    # What is there differently keeps all from being made.
    absent = {"name": name("absent"), "kind": "direct"}
    for differs, says in (
        ({"queues": [{"name": queue}]}, [queue, "max_length: 5 here, not set in the document"]),
        ({"exchanges": [absent, {"name": source, "kind": "direct"}]}, [source, "another type"]),
    ):
        differing = json.dumps({"version": 1, "topics": [], "exchanges": [absent]} | differs)
        fails(EXISTS, "definitions", "import", "-", stdin=differing, says=[*says, "Nothing was created"])
        assert absent["name"] not in str(ours()), "nothing was done"
    misspelt = json.dumps({"version": 1, "topics": [], "queue": []})
    fails(REFUSED, "definitions", "import", "-", stdin=misspelt, says=["unknown field `queue`"])


def namespaces():
    one, other, group = name("everywhere"), name("other-namespace"), name("elsewhere")
    within = ("--namespace", other)
    ok("topic", "create", one)
    ok("topic", "create", one, "-p", "2", "-c", "retention_ms=5", *within)
    equal(ok("topic", "list", "-o", "name", *within), one + "\n")
    equal([len(answer("topic", "describe", one, *asked)[0]["partitions"]) for asked in ((), within)], [1, 2])
    ok("topic", "add-partitions", one, "--total", "3", *within)
    ok("topic", "config", "unset", one, "retention_ms", *within)
    equal([p["end"] for p in answer("topic", "offsets", one, *within)], [0, 0, 0])
    ok("group", "reset", group, "--topic", one, "--to", "latest", *within)
    listed = answer("group", "list", *within)
    equal([(g["group"], g["protocol"], g["namespace"]) for g in listed], [(group, "kafka", other)])
    assert other in ok("group", "list", "--protocol", "kafka")
    equal(len(answer("group", "describe", group, *within)[0]["partitions"]), 3)
    equal(answer("group", "lag", *within)[0]["lag"], 0)
    fails(NOT_FOUND, "group", "describe", group, says=[f"no group {group}"])
    fails(REFUSED, "group", "list", "--protocol", "nothing", says=["nothing"])
    fails(REFUSED, "group", "reset", group, "--to", "-1h", *within, says=["no times"])
    ok("group", "delete-offsets", group, "--topic", one, "-p", "0", *within)
    ok("group", "delete", group, *within)
    ok("topic", "delete", one, *within)
    equal(len(answer("topic", "describe", one)[0]["partitions"]), 1)


def redrives():
    dead, work = name("dead"), name("work")
    gives_up = {"message_ttl_ms": 1, "dead_letter": {"exchange": "", "routing_key": dead}}
    queues = [{"name": dead, "queue": {}}, {"name": work, "queue": gives_up}]
    ok("definitions", "import", "-", stdin=json.dumps({"version": 1, "topics": [], "queues": queues}))
    publish(work, "a", "b", "c")
    publish(dead, "no dead letter")
    until = time.monotonic() + 60

    def three_are_dead():
        while (counted := answer("dlq", "redrive", dead, "--dry-run"))["wanted"] < 3:
            assert time.monotonic() < until, counted
            time.sleep(0.1)
        return counted

    counted = three_are_dead()
    origin = {"queue": work, "reason": "expired", "messages": 3, "is_there": True}
    equal((counted["state"], counted["moved"], counted["without_origin"], counted["origins"]), ("done", 0, 1, [origin]))
    assert "would go back" in ok("dlq", "redrive", dead, "--dry-run")
    for wanted, moved in ((["--reason", "rejected"], 0), (["--from", name("other")], 0), (["--from", work, "--limit", "2", "--rate", "50"], 2)):
        equal(answer("dlq", "redrive", dead, *wanted)["moved"], moved)
    # they expire there once more
    three_are_dead()
    begun = answer("dlq", "redrive", dead, "--namespace", "/", "--rate", "1", "--no-wait")
    equal(begun["state"], "running")
    fails(REFUSED, "dlq", "redrive", dead, says=["is running", "cancel"])
    equal(answer("dlq", "cancel", begun["id"]), [{"id": begun["id"], "outcome": "cancelled"}])
    while (shown := answer("dlq", "redrives")[-1])["state"] == "running":
        assert time.monotonic() < until, shown
        time.sleep(0.1)
    equal((shown["id"], shown["queue"], shown["state"]), (begun["id"], dead, "cancelled"))
    assert begun["id"] in ok("dlq", "ls", "-o", "name").split() and "cancelled" in ok("dlq", "ls")
    fails(REFUSED, "dlq", "cancel", begun["id"], says=["has ended", "cancelled"])
    fails(NOT_FOUND, "dlq", "redrive", name("nothing"))
    fails(NOT_FOUND, "dlq", "cancel", "999999")
    fails(REFUSED, "dlq", "redrive", topic("no-queue"), says=["no queue"])
    fails(USAGE, "dlq", "redrive", dead, "--rate", "0")
    fails(USAGE, "dlq", "redrive", dead, "--dry-run", "--no-wait", says=["cannot be used with"])
    code, asked = on_a_terminal(["dlq", "redrive", dead, "--limit", "1"], "n")
    assert code == FAILED and "[y/N]" in asked and "nothing was changed" in asked, asked


def delayed():
    """A load by AMQP has messages delayed for up to minutes, and ends before they are due."""
    queue = name("later")
    exchange, each = f"{queue}-delayed", 20
    equal(answer("delayed", "list", "--exchange", exchange), [])
    command = [SABIR, "--proto", "amqp", "--address", f"amqp://{os.environ['AMQP']}"]
    command += ["bench", "e2e", "--topic", queue, "-n", str(each), "--delay", "10m"]
    load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        until = time.monotonic() + 60
        while not (found := answer("delayed", "list", "--exchange", exchange)) or found[0]["messages"] < each - 2:
            assert time.monotonic() < until and load.poll() is None, (found, load.poll())
            time.sleep(0.1)
    finally:
        load.kill()
        load.wait()
    # One or two may be due by now.
    [shown] = answer("delayed", "list", "--exchange", exchange, "--namespace", "/")
    assert shown["exchange"] == exchange and 0 < shown["earliest_ms"] <= shown["latest_ms"], shown
    assert exchange in ok("delayed", "ls") and exchange in ok("delayed", "ls", "-o", "name").split()
    counted = answer("delayed", "delete", "--exchange", exchange, "--dry-run")[0]
    equal((counted["exchange"], counted["outcome"]), (exchange, "would be dropped"))
    code, asked = on_a_terminal(["delayed", "delete", "--exchange", exchange], "n")
    assert code == FAILED and "[y/N]" in asked and "nothing was changed" in asked, asked
    dropped = answer("delayed", "delete", "--exchange", exchange)[0]
    assert dropped["outcome"] == "dropped" and 0 < dropped["messages"] <= each, dropped
    equal(answer("delayed", "list", "--exchange", exchange), [])
    equal(answer("delayed", "delete", "--all")[0]["exchange"], None)
    fails(USAGE, "delayed", "delete")


def a_redrive_of_a_broker_that_starts_anew():
    """Its id is another's then: that one is not followed, and what was shown of it is gone from the terminal."""
    counted = ("read", "wanted", "moved", "refused", "waiting", "taken", "origin_gone", "without_origin", "unreadable")
    redrive = {"id": "1", "namespace": "/", "state": "running", "dry_run": False, "origins": []} | dict.fromkeys(counted, 1)
    redrive |= dict.fromkeys(("most", "origin", "reason", "per_second", "error"))

    class Restarted(http.server.BaseHTTPRequestHandler):
        def answer(self, queue):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps(redrive | {"queue": queue}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.answer("dead")

        def do_GET(self):
            self.answer("another")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Restarted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, shown = on_a_terminal(["dlq", "redrive", "dead", "--yes"], None, SABIR_ADMIN=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert code == FAILED and "started anew" in shown and "another" not in shown, shown
    assert "1 of 1 went back\r\x1b[K" in shown, repr(shown)


def connections():
    one, client = topic("connected"), name("client")
    command = [KCAT, "-b", BOOTSTRAP, "-C", "-t", one, "-q", "-X", f"client.id={client}"]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        until, found = time.monotonic() + 60, []
        # Its second connection, too, is that of a client once it has said so.
        while not (found and all(c["received_bytes"] and c["sent_bytes"] for c in found)) and time.monotonic() < until:
            time.sleep(0.1)
            found = answer("connection", "list", "--client", client)
        equal({(c["protocol"], c["client"], c["user"]) for c in found}, {("kafka", client, None)})
        assert all(c["local"] == BOOTSTRAP and c["received_bytes"] > 0 and c["sent_bytes"] > 0 for c in found), found
        ids = [c["id"] for c in found]
        equal(ok("connection", "ls", "--client", client, "-o", "name").split(), ids)
        assert client in ok("connection", "list") and "received bytes" in ok("connection", "show", ids[0])
        equal([c["id"] for c in answer("connection", "show", *ids)], ids)
        equal({c["outcome"] for c in answer("connection", "close", *ids, "--dry-run")}, {"would be closed"})
        equal([c["id"] for c in answer("connection", "list", "--client", client)][: len(ids)], ids)
        equal({c["outcome"] for c in answer("connection", "close", *ids)}, {"closed"})
        while ids[0] in ok("connection", "list", "-o", "name").split() and time.monotonic() < until:
            time.sleep(0.1)
        fails(NOT_FOUND, "connection", "show", ids[0], says=["sabir connection list"])
        fails(NOT_FOUND, "connection", "close", ids[0], says=["sabir connection list"])
        fails(REFUSED, "connection", "show", "x")
    finally:
        reader.kill()
        reader.wait()


# ---- the rest


def cluster():
    found = answer("cluster")
    equal([n["address"] for n in found["nodes"]], [BOOTSTRAP])
    assert found["cluster"], found


def benchmarks():
    where = name("bench")
    produced = answer("bench", "produce", "--topic", where, "-n", "2000", "--partitions", "2")
    equal((produced["messages"], produced["bytes"], produced["errors"]), (2000, 200_000, 0))
    equal(set(answer("bench", "consume", "--topic", where, "-n", "2000")), set(produced))
    # Fewer where the machine did something else.
    tries = [0]
    while tries[-1] < 450 and len(tries) <= 3:
        both = answer("bench", "e2e", "--topic", name(f"loop-{len(tries)}"), "-r", "500", "-t", "1s")
        tries.append(both["messages"])
    assert 450 <= tries[-1] <= 550, tries


def an_interrupted_benchmark():
    # A reader of all that is there waits for more until its time is over.
    read = topic("interrupted-reader")
    publish(read, *range(1000))
    loads = [["produce", "-r", "100"], ["produce"], ["e2e", "-r", "100"], ["produce", "-r", "0.1"]]
    loads = [[*load, "--topic", name("interrupted")] for load in loads] + [["consume", "--topic", read]]
    for load in loads:
        command = [SABIR, "bench", *load, "-t", "60s", "-o", "json"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        try:
            # It is at work then, on a busy machine as well.
            time.sleep(3)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
            running.wait()
        assert running.returncode == 0 and json.loads(out)["messages"] > 0, (load, running.returncode, out, err)
    equal(json.loads(out)["messages"], 1000)


def doctor():
    done = run("doctor", "--data", "/proc/nowhere", "--set", "kafka.listen=127.0.0.1:0", "--set", "net.default_listen=off", "-o", "json")
    found = {f["check"]: f for f in json.loads(done.stdout)}
    equal((done.returncode, found["disk sync"]["verdict"]), (FAILED, "bad"))
    assert found["disk sync"]["advice"] and "checks failed" in done.stderr, done.stderr
    note("doctor", list(found.values()))
    for check in ("io_uring", "kernel", "open files", "file size", "clock", "clock sync", "memory", "free space", "address"):
        assert found[check]["found"], check
    logs = os.environ.get("TEST_LOGS", "target")
    pathlib.Path(logs).mkdir(parents=True, exist_ok=True)
    good = run("doctor", "--data", f"{logs}/doctor-{SALT}", "--set", "kafka.listen=127.0.0.1:0", "--set", "net.default_listen=off", "-o", "json")
    bad = [f for f in json.loads(good.stdout) if f["verdict"] == "bad"]
    equal(good.returncode, 1 if bad else 0)
    for finding in json.loads(good.stdout):
        equal(bool(finding["advice"]), finding["verdict"] != "ok")


def configuration():
    file = pathlib.Path(os.environ.get("TEST_LOGS", "/tmp")) / f"cli-{SALT}.toml"
    file.write_text('[group]\nmax_session_timeout = "1h"\n')
    try:
        flags = ["--config", str(file), "--set", "data.open_bytes_max=4MiB"]
        held = {h["key"]: h for h in answer("config", *flags, SABIR__TOPIC__RETENTION="1h")}
        equal((held["group.max_session_timeout"]["value"], held["group.max_session_timeout"]["source"]), ("1h", str(file)))
        equal((held["data.open_bytes_max"]["value"], held["data.open_bytes_max"]["default"]), ("4MiB", "auto"))
        equal(held["data.open_bytes_max"]["source"], "--set data.open_bytes_max=4MiB")
        equal(held["topic.retention"]["source"], "environment variable SABIR__TOPIC__RETENTION")
        equal((held["node.id"]["value"], held["node.id"]["source"]), (1, None))
        equal(json.loads(ok("config", "show", *flags, "-o", "json"))[0], held["node.id"])
        again = ok("config", *flags, "-o", "toml")
        file.write_text(again)
        equal(len(answer("config", "--config", str(file))), len(held))
        assert "max_session_timeout" in ok("config") and "default" in ok("config")
        fails(CONFIG, "config", "--set", "group.max_sesion_timeout=1h", says=["did you mean `max_session_timeout`?", "(from --set"])
        fails(CONFIG, "serve", "--set", "grup.max_groups=1", says=["did you mean `group`?"])
    finally:
        file.unlink()
    equal({k["key"] for k in answer("config", "reference")}, set(held))
    # The page of a protocol names every key of its table.
    page = (REPOSITORY / "protocols/kafka/README.md").read_text()
    listed = page.split("The keys of the table `[kafka]` are")[1].split("\n\n")[0].split(":", 1)[1]
    equal(set(re.findall(r"`(\w+)`", listed)), {key.split(".")[1] for key in held if key.startswith("kafka.")})
    assert ok("config", "reference", "-o", "toml") == (REPOSITORY / "docs/sabir.toml").read_text(), "sabir config reference -o toml > docs/sabir.toml"
    assert ok("config", "reference") == (REPOSITORY / "docs/configuration.md").read_text(), "sabir config reference > docs/configuration.md"


def completions():
    for shell, starts in [("bash", "_sabir"), ("zsh", "#compdef sabir"), ("fish", "# Print an optspec")]:
        script = ok("completions", shell)
        assert starts in script[:200] and "add-partitions" in script, shell
    checked = subprocess.run(["bash", "-n"], input=ok("completions", "bash"), text=True, capture_output=True)
    equal((checked.returncode, checked.stderr), (0, ""))


def errors_say_what_to_do():
    one = topic("orders")
    meant = name("order")
    for arguments in [
        ["topic", "describe", meant],
        ["topic", "offsets", meant],
        ["topic", "delete", meant],
        ["topic", "delete-records", meant, "--before", "latest"],
        ["topic", "config", "set", meant, "retention.ms=1"],
        ["message", "read", meant],
        ["message", "tail", meant],
    ]:
        fails(NOT_FOUND, *arguments, says=[f"there is no topic {meant}", f"Did you mean `{one}`?"])
    for arguments in (["topic", "list"], ["group", "list"], ["message", "read", one], ["bench", "produce"]):
        fails(CONNECT, *arguments, "--address", "127.0.0.1:1", says=["127.0.0.1:1", "sabir dev", "--address", "SABIR_ADDRESS"])
    fails(USAGE, "topic", "list", "--proto", "kafak", says=["Did you mean `kafka`?"])
    fails(USAGE, "topic", "list", "-a", "kafak://127.0.0.1:1", says=["Did you mean `kafka`?"])
    assert one in ok("topic", "list", "-o", "name", "-a", f"kafka://{BOOTSTRAP}").splitlines()
    said = fails(USAGE, "topic", "lisst")
    assert "list" in said, said
    denied = fails(FAILED, "serve", "--data", "/proc/sabir", "--set", "net.default_listen=off", "--set", "admin.listen=off")
    assert "/proc/sabir" in denied, denied
    # Each heading has its own.
    usage = ok("message", "read", "--help")
    filters = usage.split("Filters:")[1].split("Connection:")[0]
    assert "--matches" in filters and "--output" not in filters and "--address" not in filters, usage
    # Nobody takes what is sent there: an answer that does not come up.
    mute = subprocess.Popen([sys.executable, "-c", "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\nimport time; time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    try:
        port = mute.stdout.readline().strip()
        fails(TIMEOUT, "topic", "list", "--timeout", "500ms", "--address", f"127.0.0.1:{port}", says=["--timeout"])
    finally:
        mute.kill()
        mute.wait()
    codes = re.findall(r"^\| (\d+) \|", (REPOSITORY / "docs/cli.md").read_text(), re.M)
    equal(codes, [str(n) for n in range(10)] + ["130"])


def version():
    """The commit that it was built from, unless git knew nothing of it."""
    said = ok("--version")
    found = re.fullmatch(r"sabir \d+\.\d+\.\d+ \(([0-9a-f]{12,40}|unknown)\)\n", said)
    assert found, said
    git = ["git", "-C", str(REPOSITORY)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode == 0:
        known = subprocess.run([*git, "cat-file", "-t", found[1]], capture_output=True, text=True)
        equal((found[1], known.stdout), (found[1], "commit\n"))


def commands(*above):
    """Every command, by what its help lists."""
    yield above
    listed = re.search(r"^Commands:\n((?:  .*\n)+)", ok(*above, "--help"), re.M)
    for one in re.findall(r"^  (\S+)", listed[1], re.M) if listed else []:
        if one != "help":
            yield from commands(*above, one)


def help_fits_a_terminal():
    every = list(commands())
    assert len(every) > 30 and ("topic", "config", "set") in every and ("bench", "e2e") in every, every
    wide = [
        (" ".join(command), line)
        for command in every
        for columns in ({"COLUMNS": "80"}, {"COLUMNS": "200"}, {})
        for line in ok(*command, "--help", **columns).split("Examples:")[0].splitlines()
        if len(line) > 80
    ]
    assert not wide, wide


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def as_others_are():
    """In the child: root, too, may do there only what the modes of files say."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def denied(code, *arguments, says):
    off = [part for setting in ("net.default_listen=off", "admin.listen=off") for part in ("--set", setting)]
    done = subprocess.run([SABIR, *arguments, *off], capture_output=True, text=True, timeout=90, env=ENVIRONMENT, preexec_fn=as_others_are)
    assert done.returncode == code, (arguments, done)
    error = done.stderr[done.stderr.find("error: ") :]
    for text in (*says, "ermission denied", "ls -ld", "chown"):
        assert text in error, f"no `{text}` in: {done.stderr}"


def permissions():
    """What the system does not let a user do comes with what to do about it, whatever it is that `serve` may not."""
    folder = pathlib.Path(os.environ.get("TEST_LOGS", "/tmp")).absolute() / f"cli-denied-{SALT}"
    folder.mkdir(parents=True)
    made, file = folder / "made", folder / "sabir.toml"
    try:
        # a data directory that is there already, first
        went = run("dev", "--once", "--data", made, "--set", "kafka.listen=127.0.0.1:0", "--set", "net.default_listen=off", "--set", "admin.listen=off")
        equal(went.returncode, 0)
        shard = made / "shard-0"
        for path in (made, made / "lock", shard, shard / "journal", shard / "journal/slots", shard / "pages.redb"):
            mode = path.stat().st_mode
            path.chmod(0)
            denied(FAILED, "serve", "--data", str(made), says=[str(made)])
            path.chmod(mode)
        file.write_text("")
        file.chmod(0)
        denied(CONFIG, "serve", "--config", str(file), says=[str(file)])
        folder.chmod(0o500)
        denied(FAILED, "serve", "--data", str(folder / "new"), says=[str(folder / "new")])
        denied(FAILED, "dev", "--once", "--data", str(folder / "new"), says=[str(folder / "new")])
    finally:
        folder.chmod(0o700)
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        shutil.rmtree(folder)


def questions():
    one = topic("questions")
    publish(one, "a", "b")
    code, shown = on_a_terminal(["topic", "delete", one], "n")
    assert code == FAILED and f"Delete {one} with 2 messages? [y/N]" in shown and "nothing was changed" in shown, shown
    code, shown = on_a_terminal(["topic", "delete-records", one, "--before", "1"], "")
    assert code == FAILED and "Delete 1 message of" in shown, shown
    equal(len(values(one)), 2)
    code, shown = on_a_terminal(["topic", "delete-records", one, "--before", "1", "--yes"], "")
    assert code == 0 and "[y/N]" not in shown, shown
    code, shown = on_a_terminal(["group", "reset", name("asked"), "--topic", one, "--to", "earliest"], "y")
    assert code == 0 and "to be 1 message behind? [y/N]" in shown, shown
    code, shown = on_a_terminal(["group", "delete", name("asked")], "yes")
    assert code == 0, shown
    code, shown = on_a_terminal(["topic", "delete", one], "y")
    assert code == 0 and one not in ok("topic", "list", "-o", "name"), shown


def colours():
    wrong = ["topic", "describe", name("nothing")]
    code, shown = on_a_terminal(wrong, "")
    assert code == NOT_FOUND and "\x1b[31m" in shown, repr(shown)
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, shown = on_a_terminal(wrong, "", **environment)
        assert code == NOT_FOUND and "\x1b" not in shown, repr(shown)
    code, shown = on_a_terminal(["doctor", "--set", "net.default_listen=off", "--data", "/proc/nowhere"], "")
    assert "\x1b[31mBAD" in shown and "\x1b[32mok" in shown, repr(shown)
    for arguments in (wrong, ["--help"], ["topic", "lisst"], ["doctor", "--data", "/proc/nowhere"]):
        done = run(*arguments)
        assert "\x1b" not in done.stdout + done.stderr, done


def main():
    suite.case("topics", topics)
    suite.case("partitions", partitions)
    suite.case("settings", settings)
    suite.case("records", records)
    suite.case("messages", messages.messages)
    suite.case("filters", messages.filters)
    suite.case("forms", messages.forms)
    suite.case("tail", messages.tail)
    suite.case("without-keys", messages.without_keys)
    suite.case("partitions-that-are-not-there", messages.partitions_that_are_not_there)
    suite.case("beyond-the-end", messages.beyond_the_end)
    suite.case("json-there-and-back", messages.json_there_and_back)
    suite.case("a-reader-that-goes-away", messages.a_reader_that_goes_away)
    suite.case("group-without-members", group_without_members)
    suite.case("group-with-members", group_with_members)
    suite.case("lag-again-and-again", lag_again_and_again)
    if OURS:
        suite.case("definitions", definitions)
        suite.case("definitions-of-queues", definitions_of_queues)
        suite.case("namespaces", namespaces)
        suite.case("redrives", redrives)
        suite.case("delayed", delayed)
        suite.case("a-redrive-of-a-broker-that-starts-anew", a_redrive_of_a_broker_that_starts_anew)
        suite.case("connections", connections)
    suite.case("cluster", cluster)
    suite.case("benchmarks", benchmarks)
    suite.case("an-interrupted-benchmark", an_interrupted_benchmark)
    suite.case("doctor", doctor)
    suite.case("configuration", configuration)
    suite.case("completions", completions)
    suite.case("errors-say-what-to-do", errors_say_what_to_do)
    suite.case("version", version)
    suite.case("help-fits-a-terminal", help_fits_a_terminal)
    suite.case("permissions", permissions)
    suite.case("questions", questions)
    suite.case("colours", colours)
    if not suite.chosen:
        suite.case("fields-are-as-documented", fields_are_as_documented)
    suite.end()


suite = cases.Suite("cli")

if __name__ == "__main__":
    main()
