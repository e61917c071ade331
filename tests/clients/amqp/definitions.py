#!/usr/bin/env python3
"""What pika declares at one broker goes to another one as a document (`sabir definitions`), and is there as if it had been declared there; with
brokers of its own. There is no original to hold this against.

    definitions.py [CASE...]
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from decimal import Decimal

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "lib"), str(HERE / "pika")]
import broker as brokers
import cases
import pika

os.environ.setdefault("AMQP", "127.0.0.1:0")
import client
from client import Case, bodies, empty, get, publish, ready, refused, until

suite = cases.Suite("amqp-definitions")
LISTS = ("topics", "queues", "exchanges", "bindings")

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 2}
SHORT = {"x-max-length": 2, "x-overflow": "reject-publish", "x-own": [1, {"a": b"\xff"}]}
DEAD = {"x-message-ttl": 200, "x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "late"}
QUEUES = {"plain": None, "quorum": QUORUM, "short": SHORT, "dying": DEAD, "dead-letters": None, "delayed": None}
EXCHANGES = {
    "events": ("topic", {"alternate-exchange": "rest"}, {}),
    "rest": ("fanout", None, {}),
    "dead": ("direct", None, {}),
    "inner": ("headers", None, {"internal": True}),
    "spread": ("x-consistent-hash", {"hash-header": "h"}, {}),
    "later": ("x-delayed-message", {"x-delayed-type": "direct"}, {}),
}
ALL_OF = {"x-match": "all", "n": 5, "price": Decimal("1.50"), "raw": b"\xff\x00"}


class Node:
    """A broker of its own, and who speaks to it."""

    def __init__(self, folder, name):
        self.broker = brokers.make("sabir", folder / name, f"amqp-definitions-{name}")
        self.broker.start()
        self.connect()

    def connect(self):
        client.HOST, client.PORT = self.broker.amqp.rsplit(":", 1)
        self.case = Case()
        self.connection = self.case.connection()

    def channel(self):
        return self.case.channel(self.connection)

    def plain(self):
        return self.connection.channel()

    def ask(self, query="", document=None):
        """The broker's answer to a document, or its own document as it is written."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://{self.broker.admin}/sabir/v1/definitions{query}", body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.code}: {error.read().decode()}") from None
        return text if document is None else json.loads(text)

    def end(self):
        with contextlib.suppress(pika.exceptions.AMQPError):
            self.case.close()
        if self.broker.alive():
            self.broker.kill()


@contextlib.contextmanager
def nodes(*names):
    folder = brokers.scratch("amqp-definitions")
    started = []
    try:
        for name in names:
            started.append(Node(folder, name))
        yield started
    finally:
        for node in started:
            node.end()
        shutil.rmtree(folder, ignore_errors=True)


def declare(channel):
    for name, arguments in QUEUES.items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    for name, (kind, arguments, options) in EXCHANGES.items():
        channel.exchange_declare(name, kind, durable=True, arguments=arguments, **options)


def bind(channel):
    channel.queue_bind("plain", "events", "a.*")
    channel.queue_bind("short", "events", "#.z")
    channel.exchange_bind("inner", "events", "in.#")
    channel.queue_bind("quorum", "inner", arguments=ALL_OF)
    channel.queue_bind("dead-letters", "rest")
    channel.queue_bind("dead-letters", "dead", "late")
    for queue, weight in (("plain", "2"), ("quorum", "1"), ("short", "3")):
        channel.queue_bind(queue, "spread", weight)
    channel.queue_bind("delayed", "later", "k")
    channel.queue_bind("plain", "amq.topic", "own.#")


def declare_what_goes(node):
    """What no document has."""
    channel = node.plain()
    channel.queue_declare("mine", exclusive=True)
    channel.queue_declare("brief", durable=True, auto_delete=True)
    channel.queue_declare("passing", durable=False)
    named = channel.queue_declare("", durable=True).method.queue
    channel.exchange_declare("transient", "fanout")
    for queue in ("mine", "brief", "passing", named):
        channel.queue_bind(queue, "events", "a.b")
    channel.queue_bind("plain", "transient")
    channel.exchange_bind("transient", "events", "#")
    return {"queues": ["mine", "brief", "passing", named], "exchanges": ["transient"]}


def spread(channel):
    """To which queue each of some headers leads."""
    went = []
    for n in range(40):
        publish(channel, "", n, exchange="spread", headers={"h": f"key-{n}"})
        found = [queue for queue in ("plain", "quorum", "short") if bodies(channel, queue)]
        assert len(found) == 1, found
        went += found
    return went


def goes_to_an_empty_broker():
    with nodes("one", "two") as (one, two):
        channel = one.channel()
        declare(channel)
        bind(channel)
        gone = declare_what_goes(one)
        text = one.ask()
        document = json.loads(text)
        count = {name: len(document[name]) for name in LISTS}
        assert count == {"topics": 0, "queues": 6, "exchanges": 6, "bindings": 11}, count
        for query, outcome in (("?dry_run=true", "created"), ("", "created"), ("", "exists")):
            done = two.ask(query, document)
            told = [entry["outcome"] for name in LISTS for entry in done[name]]
            assert told == [outcome] * sum(count.values()), (query, told)
            assert (two.ask() == text) == (query == ""), "a dry run does nothing, and the others do all"
        for name in QUEUES:
            two.plain().queue_declare(name, passive=True)
        for name in EXCHANGES:
            two.plain().exchange_declare(name, passive=True)
        for name in gone["queues"]:
            refused(404, lambda q=name: two.plain().queue_declare(q, passive=True))
        for name in gone["exchanges"]:
            refused(404, lambda e=name: two.plain().exchange_declare(e, passive=True))
        # Declared once more as it is, and not otherwise.
        declare(two.channel())
        bind(two.channel())
        assert two.ask() == text, "nothing has come of that"
        refused(406, lambda: two.plain().queue_declare("short", durable=True), "x-max-length")
        refused(406, lambda: two.plain().exchange_declare("events", "direct", durable=True), "type")
        routes(two.channel())
        assert spread(two.channel()) == spread(one.channel()), "a header leads elsewhere"
        # It is nobody's: its clients may take it away.
        plain = two.plain()
        plain.exchange_delete("events"), plain.queue_delete("plain")


def routes(channel):
    publish(channel, "a.b", 1, exchange="events")
    assert bodies(channel, "plain", 1) == ["1"]
    publish(channel, "a.b.z", 2, 3, exchange="events")
    refused_third = False
    try:
        publish(channel, "a.b.z", 4, exchange="events")
    except pika.exceptions.NackError:
        refused_third = True
    assert refused_third and bodies(channel, "short", 2) == ["2", "3"], "its length is limited"
    publish(channel, "own.x", 5, exchange="amq.topic")
    assert bodies(channel, "plain", 1) == ["5"]
    publish(channel, "nobody's", 6, exchange="events")
    assert bodies(channel, "dead-letters", 1) == ["6"], "the alternate"
    wanted = {"n": 5, "price": Decimal("1.50"), "raw": b"\xff\x00"}
    publish(channel, "in.x", 7, exchange="events", headers=wanted | {"n": 6})
    publish(channel, "in.x", 8, exchange="events", headers=wanted)
    method, _properties, body = get(channel, "quorum")
    assert body == b"8"
    for _ in range(2):
        channel.basic_reject(method.delivery_tag, requeue=True)
        method, _properties, body = get(channel, "quorum")
    channel.basic_reject(method.delivery_tag, requeue=True)
    until("it came back too often", lambda: ready(channel, "quorum")[0] == 0)
    empty(channel, "quorum")
    publish(channel, "dying", 9)
    _method, properties, body = get(channel, "dead-letters", auto_ack=True)
    assert (body, properties.headers["x-death"][0]["queue"]) == (b"9", "dying")
    began = time.monotonic()
    publish(channel, "k", 10, exchange="later", headers={"x-delay": 300})
    assert bodies(channel, "delayed", 1) == ["10"] and time.monotonic() - began > 0.25, "it is delayed"


def goes_on_after_a_kill():
    """An import that is killed at some moment is completed by the same document, whatever of it was done."""
    queues = [{"name": f"q{n}", "queue": {"max_length": n + 1}} for n in range(1500)]
    exchanges = [{"name": f"e{n:04}", "kind": "topic"} for n in range(1500)]
    bindings = [{"source": f"e{n % 1500:04}", "destination": {"queue": f"q{n % 1500}"}, "key": f"k.{n}"} for n in range(4500)]
    document = {"version": 1, "topics": [], "queues": queues, "exchanges": exchanges, "bindings": bindings}
    cut, answers = [], []
    with nodes("killed") as (node,):
        while not answers:

            def give():
                with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
                    answers.append(node.ask("", document))

            giving = threading.Thread(target=give)
            giving.start()
            giving.join(0.1 + 0.04 * len(cut))
            node.broker.kill()
            giving.join()
            node.broker.start()
            there = json.loads(node.ask())
            cut.append([len(there.get(name, ())) for name in LISTS[1:]])
        print("queues, exchanges and bindings that were there after each kill:", cut)
        done = node.ask("", document)
        told = {entry["outcome"] for name in LISTS for entry in done[name]}
        assert told <= {"created", "exists"}, told
        there = json.loads(node.ask())
        order = lambda entry: json.dumps(entry, sort_keys=True)
        assert [entry["name"] for entry in there["queues"]] == sorted(queue["name"] for queue in queues)
        assert there["exchanges"] == exchanges
        assert sorted(there["bindings"], key=order) == sorted(bindings, key=order)
        node.connect()
        channel = node.channel()
        publish(channel, "k.7", "x", exchange="e0007")
        assert bodies(channel, "q7", 1) == ["x"]
        assert all(entry["outcome"] == "exists" for name in LISTS for entry in node.ask("", document)[name])


suite.case("to-an-empty-broker", goes_to_an_empty_broker, 60)
suite.case("completed-after-a-kill", goes_on_after_a_kill, 120)
suite.end()
