#!/usr/bin/env python3
"""Kills a broker over and over under publishers that wait for confirms and consumers that acknowledge, and checks what they saw.

    queues.py [--kind sabir|rabbitmq] [--times N] [--seed N] [--set data.shards=3] [--exchange] [--delay MS] [--expire MS] [--topics]

Whatever happened, at the end the queues are read until nothing is left; then the broker is closed cleanly and started once more, and
they are still empty.
"""

import argparse
import json
import pathlib
import random
import shutil
import sys
import threading
import time
import urllib.request
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import deliveries
from amqp_wire import Closed, Raw
from deliveries import Deliveries, Message
from pika import BasicProperties, frame, spec

QUEUES = ["faults-0", "faults-1", "faults-2"]
EXCHANGE = "faults"
SIZES = [20] * 50 + [100] * 30 + [1000] * 15 + [20_000] * 4 + [300_000]
PADDING = random.Random(7).randbytes(1 << 20)
PERSISTENT = BasicProperties(delivery_mode=2)
DELAYED = {"x-delayed-type": "direct"}
# A fault says something if so much was confirmed and acknowledged since the one before. Three of four wait for it; the fourth comes
# when it comes, also upon clients that have not found the broker again.
AT_STAKE = 50
WAITING = 3 / 4
# Checkpoints come often, so that faults meet them, and starts begin at one.
SETTINGS = {"sabir": ["data.checkpoint_bytes=8MiB"], "rabbitmq": []}


def content(publisher, number, size):
    padding = PADDING[number % 1000 : number % 1000 + size]
    return b"%s %d %08x|" % (publisher.encode(), number, zlib.crc32(padding)) + padding


def brief(queue):
    """The queue in which the messages of another one expire before they are that one's."""
    return f"{queue}-brief"


def parse(queue, body):
    """The message that a body says it is; ValueError if the bytes are not those that were sent."""
    head, _, padding = body.partition(b"|")
    publisher, number, checksum = head.split(b" ")
    if zlib.crc32(padding) != int(checksum, 16):
        raise ValueError(f"the content of {head!r} is not what was sent")
    return Message(queue, publisher.decode(), int(number))


class Client(threading.Thread):
    """A thread with a connection that it makes again whenever it is lost, until it is asked to end by `finish`."""

    def __init__(self, name, seen, address):
        super().__init__(name=name, daemon=True)
        self.seen, self.address = seen, address
        self.random = random.Random(name)
        self.finishing = threading.Event()
        self.connections = 0

    def run(self):
        while not self.finishing.is_set():
            raw = None
            try:
                raw = Raw(self.address).log_in()
                self.connections += 1
                self.work(raw.open_channel(1))
            except (OSError, Closed):
                time.sleep(0.05)
            except Exception as error:
                self.seen.report("a client failed", f"{self.name}: {type(error).__name__}: {error}")
                time.sleep(0.2)
            finally:
                if raw:
                    raw.close()

    def finish(self):
        self.finishing.set()

    def ended(self, limit):
        self.join(limit)
        if self.is_alive():
            self.seen.report("a client did not end", self.name)


class Publisher(Client):
    """Publishes numbered messages, persistent ones, in bursts, each of which it has confirmed before the next. What a lost connection
    leaves unconfirmed is in doubt: it may come or not."""

    def __init__(self, name, seen, address, exchange, asked):
        super().__init__(name, seen, address)
        self.exchange, self.delay, self.rate, self.expires = exchange, asked.delay, asked.rate, asked.expire > 0
        delay = asked.delay
        self.properties = BasicProperties(delivery_mode=2, headers={"x-delay": delay}) if delay else PERSISTENT
        if asked.topics:
            # all of one publisher's messages are in one partition
            self.properties = BasicProperties(delivery_mode=2, headers={"key": name})
        self.number = 0

    def work(self, channel):
        channel.call(spec.Confirm.Select(nowait=False), spec.Confirm.SelectOk)
        tag = 0
        while not self.finishing.is_set():
            began, burst = time.monotonic(), self.random.randrange(1, 2 * self.rate // 20)
            sent = {}
            for _ in range(burst):
                tag += 1
                sent[tag] = self.send(channel)
            self.confirmed(channel, sent)
            time.sleep(max(0, 0.05 - (time.monotonic() - began)))

    def send(self, channel):
        """Publishes one, and says as which messages it will come."""
        number, self.number = self.number, self.number + 1
        body = content(self.name, number, self.random.choice(SIZES))
        queues = QUEUES if self.exchange else [QUEUES[number % len(QUEUES)]]
        to = brief(queues[0]) if self.expires else queues[0]
        channel.publish(EXCHANGE if self.exchange or self.delay else "", to, body, properties=self.properties)
        return [Message(queue, self.name, number) for queue in queues]

    def confirmed(self, channel, sent):
        while sent:
            method = channel.raw.frame().method
            if not isinstance(method, spec.Basic.Ack):
                self.seen.report(deliveries.REFUSED, f"{self.name}: {method}")
                raise Closed("refused")
            tags = [tag for tag in sent if tag <= method.delivery_tag] if method.multiple else [method.delivery_tag]
            self.seen.confirmed([message for tag in tags for message in sent.pop(tag)])


class Consumer(Client):
    """Consumes one queue. It acknowledges what it gets, one by one or many together, gives some back, and leaves now and then with some
    in its hands."""

    def __init__(self, name, seen, address, queue):
        super().__init__(name, seen, address)
        self.queue = queue

    def work(self, channel):
        self.life = f"{self.name}.{self.connections}"
        try:
            self.consume(channel)
            if self.finishing.is_set() or self.random.random() < 0.7:
                self.leave(channel)
                return
        except (OSError, Closed):
            self.seen.left(self.life)
            raise
        self.seen.left(self.life)

    def consume(self, channel):
        channel.call(spec.Basic.Qos(0, self.random.choice([5, 50, 200]), False), spec.Basic.QosOk)
        channel.call(spec.Basic.Consume(queue=self.queue), spec.Basic.ConsumeOk)
        channel.raw.socket.settimeout(0.2)
        held = {}
        until = time.monotonic() + self.random.uniform(0.3, 3)
        while time.monotonic() < until or self.finishing.is_set():
            try:
                held.update([self.take(channel)])
            except TimeoutError:
                self.answer(channel, held, all_of_them=True)
                if self.finishing.is_set():
                    return
            if len(held) > self.random.randrange(1, 100):
                self.answer(channel, held)

    def leave(self, channel):
        """In the orderly way: once the close is answered, all that was acknowledged has arrived. What comes meanwhile is not looked at."""
        channel.raw.socket.settimeout(10)
        channel.write(spec.Channel.Close(200, "bye", 0, 0))
        while not isinstance(getattr(channel.raw.frame(), "method", None), spec.Channel.CloseOk):
            pass

    def take(self, channel):
        """The next delivery: (tag, message). A time-out comes between two of them, or else breaks the connection off."""
        method = channel.raw.frame().method
        if not isinstance(method, spec.Basic.Deliver):
            self.seen.report(deliveries.REFUSED, f"{self.name}: {method}")
            raise Closed("refused")
        channel.raw.socket.settimeout(10)
        head, body = channel.raw.frame(), b""
        while len(body) < head.body_size:
            body += channel.raw.frame().fragment
        channel.raw.socket.settimeout(0.2)
        try:
            message = parse(self.queue, body)
        except ValueError as error:
            self.seen.report(deliveries.DAMAGED, f"{self.queue}: {error}")
            raise Closed("damaged") from error
        self.seen.delivered(self.life, message, method.redelivered)
        return method.delivery_tag, message

    def answer(self, channel, held, all_of_them=False):
        """Acknowledges some, and gives one of twenty back."""
        tags = sorted(held)
        if not all_of_them and self.random.random() < 0.5:
            self.random.shuffle(tags)
            tags = tags[: len(tags) // 2]
            for tag in tags:
                self.one(channel, tag, held)
        elif tags:
            channel.write(spec.Basic.Ack(tags[-1], True))
            self.seen.acknowledged(self.life, [held.pop(tag) for tag in tags])

    def one(self, channel, tag, held):
        if self.random.random() < 0.05:
            channel.write(spec.Basic.Nack(tag, False, True))
            held.pop(tag)
        else:
            channel.write(spec.Basic.Ack(tag, False))
            self.seen.acknowledged(self.life, [held.pop(tag)])


class Run:
    """One run: a broker, its clients, and what they saw."""

    def __init__(self, asked, folder):
        self.asked, self.random = asked, random.Random(asked.seed)
        settings = SETTINGS[asked.kind] + asked.set
        self.broker = brokers.make(asked.kind, folder / "data", f"queues-{asked.kind}", disk=asked.disk, settings=settings)
        self.seen = Deliveries()
        self.starts, self.at_stake = [], []

    def start(self):
        self.starts.append(self.broker.start())

    def make_topics(self):
        """Topics that are no queues; their subscriptions are made by who consumes them first."""
        for topic in QUEUES:
            body = json.dumps({"name": topic, "partitions": 3}).encode()
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(f"http://{self.broker.admin}/sabir/v1/topics", body, headers), timeout=10).close()

    def declare(self):
        if self.asked.topics:
            return self.make_topics()
        channel = Raw(self.broker.amqp).log_in().open_channel(1)
        for queue in QUEUES:
            channel.call(spec.Queue.Declare(queue=queue, durable=True), spec.Queue.DeclareOk)
            if self.asked.expire:
                arguments = {"x-message-ttl": self.asked.expire, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
                channel.call(spec.Queue.Declare(queue=brief(queue), durable=True, arguments=arguments), spec.Queue.DeclareOk)
        if self.asked.exchange or self.asked.delay:
            of = {"type": "x-delayed-message", "arguments": DELAYED} if self.asked.delay else {"type": "fanout"}
            channel.call(spec.Exchange.Declare(exchange=EXCHANGE, durable=True, **of), spec.Exchange.DeclareOk)
            for queue in QUEUES:
                channel.call(spec.Queue.Bind(queue=queue, exchange=EXCHANGE, routing_key=queue), spec.Queue.BindOk)
        channel.raw.close()

    def clients(self):
        address, asked = self.broker.amqp, self.asked
        publishers = [Publisher(f"publisher-{n}", self.seen, address, asked.exchange and n == 0, asked) for n in range(2)]
        consumers = [Consumer(f"{queue}-{n}", self.seen, address, queue) for queue in QUEUES for n in range(2)]
        for client in publishers + consumers:
            client.start()
        return publishers, consumers

    def faults(self):
        before = self.seen.counts()
        for number in range(self.asked.times):
            time.sleep(self.random.uniform(self.asked.least, self.asked.seconds))
            if number % 4 < 4 * WAITING:
                self.wait_for_stake(before)
            now = self.seen.counts()
            self.at_stake.append(min(now[what] - before[what] for what in now))
            before = now
            self.seen.killed()
            self.broker.kill()
            self.start()
            print(f"kill {number + 1}: ready again after {self.starts[-1]:.2f} s; {self.seen.counts()}", flush=True)

    def wait_for_stake(self, before):
        deadline = time.monotonic() + 90
        while min(count - before[what] for what, count in self.seen.counts().items()) < AT_STAKE:
            if time.monotonic() > deadline:
                self.seen.report("the clients do not get on", f"{before} and, 90 s without a kill later, {self.seen.counts()}")
                return
            time.sleep(0.01)

    def settle(self, publishers, consumers):
        """Publishers end first, and consumers when they have acknowledged all that was confirmed."""
        time.sleep(1)
        for publisher in publishers:
            publisher.finish()
        for publisher in publishers:
            publisher.ended(60)
        deadline = time.monotonic() + 120
        while self.seen.outstanding() and time.monotonic() < deadline:
            time.sleep(0.1)
        for consumer in consumers:
            consumer.finish()
        for consumer in consumers:
            consumer.ended(60)

    def empty(self, when):
        """Nothing is left in any queue, and nobody holds anything."""
        raw = Raw(self.broker.amqp).log_in()
        channel = raw.open_channel(1)
        for queue in QUEUES + [brief(queue) for queue in QUEUES if self.asked.expire]:
            found = channel.call(spec.Queue.Declare(queue=queue, passive=True), spec.Queue.DeclareOk)
            if found.message_count:
                self.seen.report("a queue is not empty", f"{queue} has {found.message_count} {when}")
        raw.close()

    def judge(self):
        self.empty("at the end")
        code = self.broker.stop()
        if code not in brokers.CLEAN_ENDS[self.asked.kind]:
            self.seen.report("no clean close", str(code))
        self.start()
        self.empty("after a clean close")
        self.seen.all_have_come()

    def go(self):
        self.start()
        self.declare()
        clients = self.clients()
        time.sleep(1)
        self.faults()
        self.settle(*clients)
        self.judge()

    def end(self):
        if self.broker.alive():
            self.broker.kill()


def report(run):
    """Also of a run that could not go on."""
    starts, stake = sorted(run.starts[1:]), sorted(run.at_stake)
    print(f"{run.seen.counts()}")
    if starts and stake:
        print(f"confirmed and acknowledged since the kill before: at least {stake[0]}, median {stake[len(stake) // 2]}")
        print(f"ready again: median {starts[len(starts) // 2]:.2f} s, longest {starts[-1]:.2f} s")
    for problem in run.seen.problems():
        print(f"  {problem}")
    sys.stdout.flush()


def verdict(run):
    problems = run.seen.problems()
    assert not problems, "; ".join(problems)
    assert sum(stake >= AT_STAKE for stake in run.at_stake) >= WAITING * run.asked.times, f"too little was done between the kills: {run.at_stake}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default=brokers.default_kind())
    parser.add_argument("--disk", default="auto")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--least", type=float, default=0.5, help="the shortest time between two kills")
    parser.add_argument("--seconds", type=float, default=2.5, help="the longest")
    parser.add_argument("--rate", type=int, default=600, help="messages a second and publisher")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--set", action="append", default=[], help="a setting in the broker's own words")
    parser.add_argument("--exchange", action="store_true", help="one publisher's messages go to all queues, by way of an exchange")
    parser.add_argument("--delay", type=int, default=0, help="an exchange keeps all messages back, for so many milliseconds each")
    parser.add_argument("--expire", type=int, default=0, help="all messages expire after so many milliseconds, and are dead-lettered to where they are consumed")
    parser.add_argument("--topics", action="store_true", help="the queues are topics of three partitions, consumed by subscriptions")
    parser.add_argument("--keep", action="store_true", help="keep the data when it fails")
    asked = parser.parse_args()
    if asked.exchange + (asked.delay > 0) + (asked.expire > 0) + asked.topics > 1:
        parser.error("--exchange, --delay, --expire or --topics")
    sys.argv[1:] = []
    suite = cases.Suite("queue-faults")
    settings = "".join(f"-{s.split('=')[1]}" for s in asked.set)
    name = f"kill-{asked.kind}-{asked.disk}{settings}{'-exchange' if asked.exchange else ''}{'-delay' if asked.delay else ''}{'-expire' if asked.expire else ''}{'-topics' if asked.topics else ''}-{asked.times}"
    print(f"queue-faults/{name}: seed {asked.seed}", flush=True)

    def case():
        folder = brokers.scratch(name)
        run = Run(asked, folder)
        try:
            try:
                run.go()
            finally:
                report(run)
            verdict(run)
        finally:
            if not (asked.keep and sys.exc_info()[0]):
                run.end()
                shutil.rmtree(folder, ignore_errors=True)

    suite.case(name, case, 240 + 20 * asked.times)
    suite.end()


if __name__ == "__main__":
    main()
