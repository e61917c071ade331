#!/usr/bin/env python3
"""kcat against the broker at BOOTSTRAP: what goes in comes out, in every way that kcat has of putting it in and getting it out."""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import cases
import rawlog

BOOTSTRAP = os.environ["BOOTSTRAP"]
# None where the broker is another one's.
ADMIN = os.environ.get("BROKER_ADMIN")
KCAT = os.environ.get("KCAT", "kcat")
SALT = f"{time.time_ns():x}"


def kcat(*arguments, stdin=None, limit=90):
    """What kcat prints; it must succeed."""
    done = subprocess.run(
        [KCAT, "-b", BOOTSTRAP, *arguments], input=stdin, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kcat {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def topic(name):
    return f"kcat-{name}-{SALT}"


def produce(name, lines, *arguments):
    kcat("-P", "-t", name, "-p", "0", *arguments, stdin="".join(f"{line}\n" for line in lines))


def consume(name, *arguments):
    """All lines from the beginning, unless the arguments say otherwise."""
    start = () if "-o" in arguments else ("-o", "beginning")
    return kcat("-C", "-t", name, "-p", "0", "-e", "-q", "-X", "check.crcs=true", *start, *arguments).splitlines()


def equal(found, expected):
    assert found == expected, f"expected {shown(expected)}, found {shown(found)}"


def shown(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}… ({len(text)} characters)"


def round_trip():
    name, lines = topic("round"), [f"line {i}" for i in range(1000)]
    produce(name, lines)
    equal(consume(name), lines)


def offsets_run_on():
    name = topic("offsets")
    for part in range(3):
        produce(name, [f"{part}-{i}" for i in range(50)])
    equal(consume(name, "-f", "%o\n"), [str(i) for i in range(150)])


def codec(which):
    def case():
        name, lines = topic(which), [f"a line that compresses well, a line that compresses well {i}" for i in range(500)]
        produce(name, lines, "-z", which)
        equal(consume(name), lines)
        stored = {batch.codec for batch in rawlog.batches(BOOTSTRAP, name)}
        equal(stored, {which})

    return case


def all_codecs_in_one_partition():
    name, lines = topic("mixed"), []
    for which in ("gzip", "none", "snappy", "lz4", "none", "zstd"):
        part = [f"{which} {i} {'x' * 100}" for i in range(100)]
        produce(name, part, "-z", which)
        lines += part
    equal(consume(name), lines)


def from_an_offset():
    name = topic("from")
    produce(name, [str(i) for i in range(100)])
    equal(consume(name, "-o", "37", "-c", "3"), ["37", "38", "39"])
    equal(consume(name, "-o", "-5"), ["95", "96", "97", "98", "99"])
    equal(consume(name, "-o", "end"), [])


def by_timestamp():
    name = topic("time")
    produce(name, ["old 1", "old 2"])
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    produce(name, ["new 1", "new 2"])
    equal(consume(name, "-o", f"s@{middle}"), ["new 1", "new 2"])
    equal(consume(name, "-o", "s@0", "-o", f"e@{middle}"), ["old 1", "old 2"])
    equal(kcat("-Q", "-t", f"{name}:0:{middle}").split(), [name, "[0]", "offset", "2"])
    equal(kcat("-Q", "-t", f"{name}:0:-1").split(), [name, "[0]", "offset", "4"])
    equal(kcat("-Q", "-t", f"{name}:0:-2").split(), [name, "[0]", "offset", "0"])


def headers():
    name = topic("headers")
    produce(name, ["with"], "-H", "a=1", "-H", "b=two words", "-H", "a=again", "-H", "empty=")
    produce(name, ["without"])
    found = [json.loads(line) for line in consume(name, "-J")]
    equal(found[0]["headers"], ["a", "1", "b", "two words", "a", "again", "empty", ""])
    equal([m["payload"] for m in found], ["with", "without"])
    assert "headers" not in found[1], found[1]


def keys_and_nulls():
    name = topic("keys")
    produce(name, ["k1:v1", "k2:", ":v3"], "-K:", "-Z")
    found = [(m["key"], m["payload"]) for m in map(json.loads, consume(name, "-J"))]
    equal(found, [("k1", "v1"), ("k2", None), (None, "v3")])


def idempotent():
    name, lines = topic("idempotent"), [f"line {i}" for i in range(2000)]
    produce(name, lines, "-X", "enable.idempotence=true", "-X", "batch.num.messages=100")
    equal(consume(name), lines)
    stored = list(rawlog.batches(BOOTSTRAP, name))
    assert all(b.producer_id >= 0 for b in stored), "a batch without a producer id"
    equal([b.base_sequence for b in stored], [b.base_offset for b in stored])


def acks(which):
    def case():
        name, lines = topic(f"acks{which}"), [f"line {i}" for i in range(200)]
        produce(name, lines, "-X", f"acks={which}")
        # Nothing is answered to acks=0, so the last of it may still be under way.
        deadline = time.monotonic() + 30
        while which == "0" and len(consume(name)) < len(lines) and time.monotonic() < deadline:
            time.sleep(0.05)
        equal(consume(name), lines)

    return case


def large_records():
    name, lines = topic("large"), [c * 900_000 for c in "abc"]
    produce(name, lines)
    equal(consume(name), lines)


def too_large_a_record():
    name = topic("too-large")
    produce(name, ["small"])
    try:
        produce(name, ["x" * 1_500_000], "-X", "message.max.bytes=3000000")
    except RuntimeError as error:
        assert "Message size too large" in str(error) or "MSG_SIZE_TOO_LARGE" in str(error), error
    else:
        raise AssertionError("a record over max.message.bytes was taken")
    equal(consume(name), ["small"])


def consumer_group():
    name, group = topic("group"), f"kcat-group-{SALT}"
    produce(name, [str(i) for i in range(10)])
    options = ("-e", "-q", "-X", "auto.offset.reset=earliest")
    equal(kcat("-G", group, *options, name).split(), [str(i) for i in range(10)])
    produce(name, ["10", "11"])
    equal(kcat("-G", group, *options, name).split(), ["10", "11"])


def metadata():
    name = topic("metadata")
    produce(name, ["x"])
    found = json.loads(kcat("-L", "-J", "-t", name))
    equal([b["name"] for b in found["brokers"]], [BOOTSTRAP])
    equal([t["topic"] for t in found["topics"]], [name])
    assert all(p["leader"] == found["brokers"][0]["id"] for p in found["topics"][0]["partitions"]), found
    assert name in {t["topic"] for t in json.loads(kcat("-L", "-J"))["topics"]}


def longer_names_than_kafka_has():
    """As another protocol makes them. Some clients end over names of more bytes than Kafka has (librdkafka over 512): those are not shown, the others are."""
    for name in (f"{SALT} odd", *(f"{SALT}{length}".ljust(length, "x") for length in (250, 400, 1024)), f"{SALT}".ljust(120, " ")):
        body = json.dumps({"name": name}).encode()
        request = urllib.request.Request(f"{ADMIN}/sabir/v1/topics", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=20).close()
    shown_as = f"escaped..{SALT}_20odd"
    listed = {t["topic"] for t in json.loads(kcat("-L", "-J"))["topics"]}
    assert shown_as in listed and max(map(len, listed)) <= 249, listed
    lines = [f"line {i}" for i in range(100)]
    produce(shown_as, lines)
    equal(consume(shown_as), lines)


def tail_of_a_growing_partition():
    name = topic("tail")
    produce(name, ["0"])
    reader = subprocess.Popen(
        [KCAT, "-b", BOOTSTRAP, "-C", "-t", name, "-p", "0", "-u", "-q", "-c", "20"], stdout=subprocess.PIPE, text=True
    )
    try:
        for i in range(1, 20):
            produce(name, [str(i)])
        found, _ = reader.communicate(timeout=60)
        equal(found.split(), [str(i) for i in range(20)])
    finally:
        reader.kill()


def main():
    suite = cases.Suite("kcat")
    suite.case("round-trip", round_trip)
    suite.case("offsets-run-on", offsets_run_on)
    for which in ("gzip", "snappy", "lz4", "zstd"):
        suite.case(f"codec-{which}", codec(which))
    suite.case("codecs-in-one-partition", all_codecs_in_one_partition)
    suite.case("from-an-offset", from_an_offset)
    suite.case("by-timestamp", by_timestamp)
    suite.case("headers", headers)
    suite.case("keys-and-nulls", keys_and_nulls)
    suite.case("idempotent", idempotent)
    for which in ("0", "1", "all"):
        suite.case(f"acks-{which}", acks(which))
    suite.case("large-records", large_records)
    suite.case("too-large-a-record", too_large_a_record)
    suite.case("consumer-group", consumer_group)
    suite.case("metadata", metadata)
    if ADMIN:
        suite.case("longer-names", longer_names_than_kafka_has)
    suite.case("tail", tail_of_a_growing_partition)
    suite.end()


if __name__ == "__main__":
    main()
