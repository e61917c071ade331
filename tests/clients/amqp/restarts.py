#!/usr/bin/env python3
"""What of AMQP's state is there again after the broker was stopped, and after it was killed; on pika, with a broker of its own.

    restarts.py [--kind sabir|rabbitmq] [--set KEY=VALUE]... [--record]

With --record what becomes of the cases is written into restarts.tsv: the control, run with RabbitMQ.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "lib"), str(HERE / "pika")]
import broker as brokers
import cases
import control
import pika

os.environ.setdefault("AMQP", "127.0.0.1:0")
import client
from client import Case, bodies, get, publish, ready, refused, until

QUORUM = {"x-queue-type": "quorum"}


class Stage:
    """One broker, set up before it ends and looked at when it is there again. Each topic is a pair: `before` and `after`."""

    def __init__(self, broker):
        self.broker = broker
        self.connect()

    def connect(self):
        client.HOST, client.PORT = self.broker.amqp.rsplit(":", 1)
        self.case = Case()
        self.connection = self.case.connection()

    def channel(self):
        return self.case.channel(self.connection)

    def plain(self):
        return self.connection.channel()

    def declare(self, queue, arguments=None, **options):
        self.channel().queue_declare(queue, **({"durable": True} | options), arguments=arguments)

    def again(self, how):
        """Ends the broker and starts it again."""
        self.ended = how
        if how == "killed":
            # what was acknowledged a moment ago is on its way yet
            time.sleep(1.2)
            self.broker.kill()
        else:
            code = self.broker.stop()
            assert code in brokers.CLEAN_ENDS[self.broker.kind], f"it ended with {code}"
        self.case.open.clear()
        self.broker.start()
        self.connect()


class Persistent:
    """Messages, in order, with all that belongs to them."""

    def before(self, stage):
        stage.declare("kept")
        channel = stage.channel()
        for n in range(100):
            publish(channel, "kept", n, delivery_mode=2, headers={"n": n}, message_id=f"m{n}")

    def after(self, stage):
        channel = stage.channel()
        assert ready(channel, "kept") == (100, 0)
        for n in range(100):
            method, properties, body = get(channel, "kept", auto_ack=True)
            assert (body, method.redelivered) == (b"%d" % n, False), (n, body, method)
            assert (properties.headers, properties.message_id, properties.delivery_mode) == ({"n": n}, f"m{n}", 2)
        refused(406, lambda: stage.plain().queue_declare("kept", durable=False), "durable")
        stage.declare("kept")


class Transient:
    """Queues that are not durable, and those of a connection, are gone."""

    def before(self, stage):
        stage.declare("passing", durable=False)
        stage.declare("mine", durable=False, exclusive=True)
        publish(stage.channel(), "passing", "lost", delivery_mode=2)

    def after(self, stage):
        for queue in ("passing", "mine"):
            refused(404, lambda q=queue: stage.plain().queue_declare(q, passive=True))
        # and the name is free, for a queue of any kind
        stage.declare("passing")
        assert bodies(stage.channel(), "passing") == []


class Settled:
    """What was acknowledged, rejected or purged does not come again; what was out comes again, with the mark."""

    def before(self, stage):
        stage.declare("settled")
        channel = stage.channel()
        publish(channel, "settled", *range(10), delivery_mode=2)
        tags = [get(channel, "settled")[0].delivery_tag for _ in range(7)]
        channel.basic_ack(tags[0])
        channel.basic_ack(tags[2])
        channel.basic_reject(tags[3], requeue=False)
        channel.basic_nack(tags[4], requeue=True)
        stage.declare("purged")
        publish(channel, "purged", *range(10), delivery_mode=2)
        channel.queue_purge("purged")
        publish(channel, "purged", "after", delivery_mode=2)

    def after(self, stage):
        channel = stage.channel()
        found = [get(channel, "settled", auto_ack=True) for _ in range(7)]
        assert [int(body) for _method, _properties, body in found] == [1, 4, 5, 6, 7, 8, 9]
        marks = {int(body): method.redelivered for method, _properties, body in found}
        # after a kill what may have been on its way is marked too
        unmarked = {n: False for n in (7, 8, 9)} if stage.ended == "stopped" else {}
        assert marks == marks | {1: True, 4: True, 5: True, 6: True} | unmarked, marks
        assert bodies(channel, "settled") == []
        assert bodies(channel, "purged") == ["after"]


class Topology:
    """Exchanges and bindings that are durable, and none that are not, or were taken away."""

    def before(self, stage):
        channel = stage.plain()
        channel.exchange_declare("lasting", "topic", durable=True)
        channel.exchange_declare("further", "fanout", durable=True)
        channel.exchange_declare("brief", "direct")
        channel.exchange_declare("removed", "direct", durable=True)
        for queue in ("bound", "unbound", "deleted"):
            stage.declare(queue)
            channel.queue_bind(queue, "lasting", "a.*")
        channel.queue_bind("bound", "further")
        channel.exchange_bind("further", "lasting", "far.#")
        channel.queue_unbind("unbound", "lasting", "a.*")
        channel.queue_delete("deleted")
        channel.exchange_delete("removed")

    def after(self, stage):
        channel = stage.channel()
        for exchange in ("brief", "removed"):
            refused(404, lambda e=exchange: stage.plain().exchange_declare(e, passive=True))
        refused(404, lambda: stage.plain().queue_declare("deleted", passive=True))
        publish(channel, "a.b", 1, exchange="lasting")
        publish(channel, "far.away", 2, exchange="lasting")
        assert bodies(channel, "bound", 2) == ["1", "2"]
        assert bodies(channel, "unbound") == []
        stage.declare("deleted")
        publish(channel, "a.b", 3, exchange="lasting")
        assert bodies(channel, "deleted") == []
        assert bodies(channel, "bound", 1) == ["3"]
        channel.exchange_declare("lasting", "topic", durable=True)
        channel.exchange_delete("lasting"), channel.exchange_delete("further")


class Limits:
    """Times go on, and dead letters, lengths and priorities are as they were."""

    def before(self, stage):
        channel = stage.channel()
        stage.declare("dead")
        stage.declare("timed", {"x-message-ttl": 2000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        stage.declare("ranked", {"x-max-priority": 5})
        stage.declare("short", {"x-max-length": 1})
        publish(channel, "timed", "late", delivery_mode=2)
        publish(channel, "dead", "there already", delivery_mode=2)
        for body, priority in (("low", 1), ("high", 4), ("middle", 2)):
            publish(channel, "ranked", body, priority=priority, delivery_mode=2)

    def after(self, stage):
        channel = stage.channel()
        assert bodies(channel, "ranked", 3) == ["high", "middle", "low"]
        refused(406, lambda: stage.plain().queue_declare("short", durable=True), "x-max-length")
        publish(channel, "short", 1, 2)
        assert bodies(channel, "short", 1) == ["2"]
        until("it is dead", lambda: ready(channel, "dead")[0] == 2)
        assert bodies(channel, "dead", 1) == ["there already"]
        _method, properties, body = get(channel, "dead", auto_ack=True)
        assert (body, properties.headers["x-death"][0]["queue"], properties.headers["x-death"][0]["reason"]) == (b"late", "timed", "expired")


class Counted:
    """How often a message of a quorum queue was given back."""

    def before(self, stage):
        stage.declare("counted", QUORUM | {"x-delivery-limit": 5})
        channel = stage.channel()
        publish(channel, "counted", "again", delivery_mode=2)
        for _ in range(3):
            channel.basic_reject(get(channel, "counted")[0].delivery_tag, requeue=True)
        until("it is ready", lambda: ready(channel, "counted")[0] == 1)

    def after(self, stage):
        channel = stage.channel()
        method, properties, body = get(channel, "counted")
        assert (body, method.redelivered, properties.headers["x-delivery-count"]) == (b"again", True, 3), (method, properties.headers)
        channel.basic_ack(method.delivery_tag)


class Redriven:
    """Dead letters that an operator has go back: each is in one of the two queues when the broker ends meanwhile, and all go back then."""

    COUNT = 2000

    def before(self, stage):
        if stage.broker.kind != "sabir":
            return
        self.url = f"http://{stage.broker.admin}/sabir/v1"
        stage.declare("buried")
        stage.declare("worked", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "buried"})
        channel = stage.channel()
        channel.queue_bind("worked", "amq.topic", "work.#")
        for n in range(self.COUNT):
            publish(channel, f"work.{n}", n, exchange="amq.topic", delivery_mode=2, message_id=f"m{n}")
        consumed = channel.consume("worked", inactivity_timeout=30)
        for _ in range(self.COUNT):
            channel.basic_reject(next(consumed)[0].delivery_tag, requeue=False)
        channel.cancel()
        until("all are dead", lambda: ready(channel, "buried")[0] == self.COUNT)
        publish(channel, "buried", "never dead", delivery_mode=2)
        counted = self.redrive(dry_run=True)
        assert counted["origins"] == [{"queue": "worked", "reason": "rejected", "messages": self.COUNT, "is_there": True}], counted
        assert (counted["moved"], counted["without_origin"]) == (0, 1), counted
        # a stop waits some seconds for its clients
        begun = self.redrive(per_second=100)
        assert begun["state"] == "running", begun
        until("some went back", lambda: self.ask("GET", f"/redrives/{begun['id']}")["moved"] > 0)

    def after(self, stage):
        if stage.broker.kind != "sabir":
            raise cases.Skip("it has no redrive")
        channel = stage.channel()
        waiting = lambda: ready(channel, "worked")[0] + ready(channel, "buried")[0]
        until("none is on its way", lambda: waiting() == self.COUNT + 1)
        there = ready(channel, "worked")[0]
        assert 0 < there < self.COUNT, "it ended in the middle"
        done = self.redrive()
        until("it is done", lambda: self.ask("GET", f"/redrives/{done['id']}")["state"] == "done")
        done = self.ask("GET", f"/redrives/{done['id']}")
        assert (done["moved"], done["without_origin"]) == (self.COUNT - there, 1), (there, done)
        assert ready(channel, "worked")[0] == self.COUNT
        for n in range(self.COUNT):
            method, properties, body = get(channel, "worked", auto_ack=True)
            assert (int(body), method.exchange, method.routing_key, properties.message_id) == (n, "amq.topic", f"work.{n}", f"m{n}"), (n, method)
            assert (properties.headers["x-death"][0]["queue"], properties.headers["x-death"][0]["count"]) == ("worked", 1)
        assert bodies(channel, "buried") == ["never dead"]
        # it may be given up once more
        publish(channel, "worked", "again", delivery_mode=2)
        for count in (1, 2):
            channel.basic_reject(get(channel, "worked")[0].delivery_tag, requeue=False)
            until("it is dead", lambda: ready(channel, "buried")[0] == 1)
            assert self.redrive(origin="worked")["moved"] == 1
        _method, properties, body = get(channel, "worked", auto_ack=True)
        assert (body, properties.headers["x-death"][0]["count"]) == (b"again", 2)

    def redrive(self, **wanted):
        return self.ask("POST", "/topics/buried/redrive", wanted)

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)


TOPICS = [Persistent, Transient, Settled, Topology, Limits, Counted, Redriven]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default=brokers.default_kind())
    parser.add_argument("--set", action="append", default=[], help="a setting in the broker's own words")
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    sys.argv[1:] = ["--record"] if asked.record else []
    suite = control.suite("amqp-restarts", control.Table(HERE / "restarts.tsv", "rabbitmq"))
    for how in ("stopped", "killed"):
        folder = brokers.scratch(f"amqp-restarts-{how}")
        broker = brokers.make(asked.kind, folder / "data", f"amqp-restarts-{how}", settings=asked.set)
        try:
            broker.start()
            run(suite, Stage(broker), how)
        finally:
            if broker.alive():
                broker.kill()
            shutil.rmtree(folder, ignore_errors=True)
    suite.end()


def run(suite, stage, how):
    topics = [topic() for topic in TOPICS]
    prepared = {}
    for topic in topics:
        try:
            topic.before(stage)
        except Exception as error:
            # told by its own case, below; a channel of it may be closed, and no other has to suffer
            prepared[topic] = error

    def after(topic):
        if topic in prepared:
            raise prepared[topic]
        topic.after(stage)

    stage.again(how)
    for topic in topics:
        name = f"{type(topic).__name__.lower()}-{how}"
        suite.case(name, lambda t=topic: after(t), 30)
    with contextlib.suppress(pika.exceptions.AMQPError):
        stage.case.close()


if __name__ == "__main__":
    main()
