"""`sabir message`, against the broker at BOOTSTRAP."""

import json
import subprocess

from calls import BOOTSTRAP, ENVIRONMENT, FAILED, KCAT, NOT_FOUND, SABIR, USAGE, answer, equal, fails, lines, name, note, ok, publish, run, topic, values


def messages():
    one = topic("messages")
    receipt = answer("message", "publish", one, "first", "--key", "k", "-H", "source=web", "-H", "empty=")
    equal(receipt, [{"topic": one, "partition": 0, "offset": 0}])
    publish(one, "a:second", "b:third", **{"key-separator": ":"})
    ok("message", "publish", one, "--tombstone", "--key", "b")
    first, *rest = lines("message", "read", one)
    equal((first["topic"], first["offset"], first["key"], first["value"]), (one, 0, "k", "first"))
    equal(first["headers"], [{"name": name, "value": value, "value_base64": None} for name, value in (("source", "web"), ("empty", ""))])
    equal([(m["key"], m["value"]) for m in rest], [("a", "second"), ("b", "third"), ("b", None)])
    equal(values(one, "--offset", "1", "--limit", "2"), ["second", "third"])
    equal(values(one, "--last", "3", "--count", "1"), ["second"])
    equal(values(one, "--since", "-1h", "-n", "2"), ["first", "second"])
    equal(values(one, "--since", first["timestamp"], "-n", "1"), ["first"])
    equal(values(one, "--since", "2100-01-01"), [])
    equal(values(one, "--until", "-1h"), [])
    fails(NOT_FOUND, "message", "read", one, "--offset", "9", says=["has no offset 9"])
    fails(NOT_FOUND, "message", "read", one, "-p", "1", says=["has no partition 1", "sabir topic describe"])


def filters():
    one = topic("filters", 2)
    ok("message", "publish", one, "status=200 fine", "--key", "a", "-H", "source=web", "-p", "0")
    ok("message", "publish", one, "status=503 down", "--key", "b", "-H", "source=app", "-p", "0")
    ok("message", "publish", one, "status=500 up", "--key", "a", "-H", "other=1", "-p", "1")
    ok("message", "publish", one, "--tombstone", "--key", "c", "-p", "1")
    for arguments, expected in [
        (["--key", "a"], {"status=200 fine", "status=500 up"}),
        (["--key", "z"], set()),
        (["--header", "source"], {"status=200 fine", "status=503 down"}),
        (["--header", "source=web"], {"status=200 fine"}),
        (["--header", "source=web", "--header", "other"], set()),
        (["--contains", "="], {"status=200 fine", "status=503 down", "status=500 up"}),
        (["--contains", "5.."], set()),
        (["--matches", r"=5\d\d "], {"status=503 down", "status=500 up"}),
        (["--matches", "status", "--key", "a", "-p", "0"], {"status=200 fine"}),
    ]:
        equal(set(values(one, *arguments)), expected)
    equal(len(values(one, "--matches", "status", "--limit", "2")), 2)
    fails(USAGE, "message", "read", one, "--matches", "(")


def forms():
    one = topic("forms")
    binary = subprocess.run([SABIR, "message", "publish", one, "--whole"], input=b"\x00\xff\x1b[31mred", env=ENVIRONMENT, capture_output=True)
    equal(binary.returncode, 0)
    ok("message", "publish", one, "plain", "--key", "k")
    odd, plain = lines("message", "read", one)
    equal((odd["value_base64"], odd["key"], plain["value"]), ("AP8bWzMxbXJlZA==", None, "plain"))
    kcat_key = subprocess.run([KCAT, "-b", BOOTSTRAP, "-P", "-t", one, "-p", "0", "-K:", "-H", "h=\udcfe"], input=b"\xfd:v", capture_output=True)
    equal(kcat_key.returncode, 0)
    third = lines("message", "read", one, "--offset", "2")[0]
    equal((third["key_base64"], third["headers"][0].get("value_base64")), ("/Q==", "/g=="))
    shown = ok("message", "read", one, "-n", "1")
    assert "(10 bytes, not text)" in shown and "\x1b" not in shown, shown
    dumped = ok("message", "read", one, "-n", "1", "-o", "hex").splitlines()
    equal(dumped[1].split("  ")[2:4], ["00000000", "00 ff 1b 5b 33 31 6d 72 65 64"])
    equal(ok("message", "read", one, "--offset", "1", "-n", "1", "-o", "raw"), "plain\n")


def tail():
    one = topic("tail")
    publish(one, "old", "older")
    command = [SABIR, "message", "tail", one, "--last", "1", "-n", "2", "-o", "json"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        seen = [json.loads(following.stdout.readline())]
        ok("message", "publish", one, "new", "-H", "h=1")
        seen.append(json.loads(following.stdout.readline()))
        equal(([m["value"] for m in seen], following.wait(10)), (["older", "new"], 0))
        note("message tail", seen)
    finally:
        following.kill()
        following.wait()
    equal(len(ok("message", "tail", one, "--since", "-1h", "--contains", "old", "-n", "2").splitlines()), 2)


def without_keys():
    one = topic("without-keys", 3)

    def counts():
        return [p["end"] for p in answer("topic", "describe", one)[0]["partitions"]]

    ok("message", "publish", one, stdin="".join(f"line {n}\n" for n in range(60_000)))
    found = counts()
    assert sum(found) == 60_000 and min(found) > 15_000, found
    # One at a time, by processes of their own.
    two = topic("one-by-one", 3)
    for n in range(30):
        ok("message", "publish", two, str(n))
    found = [p["end"] for p in answer("topic", "describe", two)[0]["partitions"]]
    assert sum(found) == 30 and min(found) > 0, found


def partitions_that_are_not_there():
    one = name("not-there")
    fails(NOT_FOUND, "message", "publish", one, "x", "-p", "7", says=["there is no topic"])
    assert one not in ok("topic", "list", "-o", "name").splitlines()
    two = topic("has-one")
    fails(NOT_FOUND, "message", "publish", two, "x", "-p", "7", says=["has no partition 7"])


def json_there_and_back():
    one, two = topic("json-from"), topic("json-to")
    ok("message", "publish", one, 'quotes " and \n lines', "--key", "k", "-H", "h=1", "-H", "h=2")
    ok("message", "publish", one, "--tombstone", "--key", "gone")
    subprocess.run([SABIR, "message", "publish", one, "--json"], input=b'{"headers": [{"name": "none", "value": null}], "value": ""}\n', env=ENVIRONMENT, check=True, capture_output=True)
    equal(lines("message", "read", one, "--last", "1")[0]["headers"], [{"name": "none", "value": None, "value_base64": None}])
    subprocess.run([SABIR, "message", "publish", one, "--whole"], input=b"\x00\xff", env=ENVIRONMENT, check=True, capture_output=True)
    written = ok("message", "read", one, "-o", "json")
    ok("message", "publish", two, "--json", stdin=written)

    def content(where):
        return [{k: v for k, v in m.items() if k not in ("topic", "timestamp", "timestamp_ms")} for m in lines("message", "read", where)]

    equal(content(two), content(one))
    fails(FAILED, "message", "publish", two, "--json", stdin='{"value": null}\nno\n', says=["line 2 is no message", "were published"])
    shown = ok("message", "read", one, "-f", r"%t:%p:%o:%k:%K:%S:%h\n", "-n", "2")
    equal(shown, f"{one}:0:0:k:1:20:h=1,h=2\n{one}:0:1:gone:4:-1:\n")
    fails(USAGE, "message", "read", one, "-f", "%x", says=["means nothing"])


def beyond_the_end():
    one = topic("beyond", 2)
    publish(one, *"abc", partition="0")
    publish(one, "d", partition="1")
    done = run("message", "read", one, "--offset", "2", "-o", "value")
    equal((done.returncode, done.stdout), (0, "c\n"))
    assert f"note: {one}-1 ends at 1" in done.stderr, done.stderr
    fails(NOT_FOUND, "message", "read", one, "--offset", "9", says=["no partition of", "has offset 9"])
    for wanted in (["-p", "0", "--offset", "3"], ["--since", "2100-01-01"]):
        done = run("message", "read", one, *wanted)
        assert done.returncode == 0 and done.stdout == "" and "note: " in done.stderr, done
    # What is there is read without a word.
    equal(run("message", "read", one).stderr, "")


def a_reader_that_goes_away():
    one = topic("head")
    publish(one, *"abc")
    for command in (["tail", one], ["read", one, "--follow"], ["tail", one, "-o", "json"]):
        line = f"{SABIR} message {' '.join(command)} | head -1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        equal((done.returncode, done.stderr, len(done.stdout.splitlines())), (0, "", 1))
