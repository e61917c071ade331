#!/usr/bin/env python3
"""RabbitMQ's PerfTest, unmodified, against the broker at AMQP (host:port), in the patterns that people run it in: what one side sends
the other gets. The figures are bench/'s business; here it is whether all of it arrives, and nothing is left. With --record what becomes of
the cases is written into perf_test.tsv: the control, run with RabbitMQ."""

import os
import pathlib
import re
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import control
import pika

HOME = pathlib.Path(os.environ.get("PEERS_HOME") or broker.CACHE / "peers") / "rabbitmq"
HOST, PORT = os.environ["AMQP"].rsplit(":", 1)
SALT = uuid.uuid4().hex[:8]
JVM = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
# It opens a thread for each of so many, and takes its time on a busy machine.
LIMIT = 240
CONFIRMS = ("--flag", "persistent", "--confirm", "100", "--qos", "200", "--multi-ack-every", "20", "--size", "1024")


def perf(*arguments):
    """Runs it to its end, which it finds by itself when all counts are reached."""
    command = [*JVM, "-cp", f"{HOME}/lib/*", "com.rabbitmq.perf.PerfTest", "--uri", f"amqp://guest:guest@{HOST}:{PORT}/%2f"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT, preexec_fn=broker.die_with_parent)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"it ended with {done.returncode}: {said[-500:]}"
    complaints = [line for line in said.splitlines() if re.search(r"\b(ERROR|WARN)\b|Exception|nack(ed)? [1-9]|returned: [1-9]", line)]
    assert not complaints, f"it complains: {complaints[:3]}"
    # what it cannot understand it answers with its usage, and 0
    assert re.search(r"(sending|receiving) rate avg: [1-9]", said), f"nothing was done: {said[:300]}"


def counts(producers, sent, consumers, received):
    """Each producer sends so many, and each consumer ends after so many."""
    limits = (("--pmessages", sent) if producers else ()), (("--cmessages", received) if consumers else ())
    return "--producers", producers, "--consumers", consumers, *limits[0], *limits[1]


def name(what):
    return f"perf-{what}-{SALT}"


def left(queue):
    """How many messages a queue has left; it is deleted."""
    connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT)))
    channel = connection.channel()
    count = channel.queue_declare(queue, passive=True).method.message_count
    channel.queue_delete(queue)
    connection.close()
    return count


def to_one_queue(what, producers, each, *arguments, consumers=1, per_consumer=None):
    """All that goes into a queue comes out of it."""
    queue = name(what)
    perf(*counts(producers, each, consumers, per_consumer or producers * each), "--queue", queue, "--auto-delete", "false", *arguments)
    found = left(queue)
    assert found == 0, f"{found} are left"


def persistent_with_confirms():
    to_one_queue("persistent", 2, 5000, *CONFIRMS)


def small_transient():
    to_one_queue("transient", 1, 50_000, "--autoack", "--size", 12)


def quorum_queue():
    to_one_queue("quorum", 2, 3000, "--quorum-queue", *CONFIRMS)


def one_by_one():
    """A confirm for each message, an acknowledgement for each, one out at a time."""
    to_one_queue("single", 1, 1000, "--confirm", 1, "--qos", 1, "--flag", "persistent")


def transactions():
    to_one_queue("transactions", 1, 2000, "--ptxsize", 50, "--ctxsize", 50)


def polling():
    to_one_queue("polling", 1, 1000, "--polling", "--qos", 10)


def global_prefetch():
    to_one_queue("global", 1, 3000, "--global-qos", 50, "--multi-ack-every", 10)


def priorities():
    to_one_queue("priorities", 1, 2000, "--queue-args", "x-max-priority=10", "--message-properties", "priority=5,contentType=text/plain")


def large_bodies():
    to_one_queue("large", 1, 40, "--size", 1_000_000, "--confirm", 5, "--flag", "persistent")


def mandatory():
    to_one_queue("mandatory", 1, 2000, "--flag", "mandatory", "--confirm", 50)


def at_a_rate():
    to_one_queue("rate", 1, 1500, "--rate", 500, "--confirm", 100, "--flag", "persistent")


def hundred_queues():
    pattern = ("--queue-pattern", f"{name('many')}-%d", "--queue-pattern-from", 1, "--queue-pattern-to", 100)
    perf(*counts(100, 50, 100, 50), *pattern, "--flag", "persistent", "--confirm", 10, "--qos", 10, "--multi-ack-every", 5)


def fan_out():
    """Each of the consumers has a queue of its own, and gets all."""
    exchange = ("--type", "fanout", "--exchange", name("fanout"))
    perf(*counts(1, 1000, 20, 1000), *exchange, "--flag", "persistent", "--confirm", 50, "--size", 1024)


def topic_exchange():
    exchange = ("--type", "topic", "--exchange", name("topic"), "--routing-key", "a.b.c")
    to_one_queue("topic", 1, 3000, *exchange)


def backlog():
    """First all is published, then all is read."""
    queue = name("backlog")
    common = ("--queue", queue, "--auto-delete", "false", "--flag", "persistent")
    perf(*counts(2, 10_000, 0, 0), *common, "--confirm", 500, "--size", 100)
    perf(*counts(0, 0, 1, 20_000), *common, "--qos", 1000, "--multi-ack-every", 100)
    found = left(queue)
    assert found == 0, f"{found} are left"


CASES = [
    persistent_with_confirms,
    small_transient,
    quorum_queue,
    one_by_one,
    transactions,
    polling,
    global_prefetch,
    priorities,
    large_bodies,
    mandatory,
    at_a_rate,
    hundred_queues,
    fan_out,
    topic_exchange,
    backlog,
]


def main():
    suite = control.suite("amqp-perf-test", control.Table(HERE / "perf_test.tsv", "rabbitmq"))
    for function in CASES:
        suite.case(function.__name__.replace("_", "-"), function, 2 * LIMIT)
    suite.end()


if __name__ == "__main__":
    main()
