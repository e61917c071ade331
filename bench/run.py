#!/usr/bin/env python3
"""Measures Sabir beside Apache Kafka and RabbitMQ: the same client, the same machine, in turns.

    bench/run.py [--rounds N] [--scale S] [--cases CASE,...] [--write docs/benchmarks.md] [--against sync|os]
    bench/run.py --list

Sabir syncs each acknowledged record (its default) and Kafka leaves them in the page cache (its default), unless --against says that
Kafka must sync too. In each round, each case runs once against the one and once against the other, the order changing from round to
round; the figures are medians of the rounds, with the lowest and the highest. Beside what the client says: the broker's CPU seconds for
a million messages, its memory, and what it gave the disk for each byte of payload.

Cases of queues are run with RabbitMQ's PerfTest. What a confirm means there is the queue's kind: classic and quorum queues sync.

Wants `sabir` built with `cargo build --release`, Kafka's jars and PerfTest, which it brings by Maven, and for cases of queues RabbitMQ,
which it brings from Debian.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/lib"))
import broker as brokers
import perf_test
import plot
import wire
import report

# The flags of Kafka's own kafka-run-class, and the heap of its own start script.
KAFKA_JVM = (
    "java -Xms1g -Xmx1g -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
    "-XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15 -Djava.awt.headless=true"
).split()
TOOL_JVM = ["java", "-Xmx512m", *KAFKA_JVM[3:]]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process has used so far, its threads included."""

    cpu: float
    written: int

    def __sub__(self, before):
        return Usage(self.cpu - before.cpu, self.written - before.written)


def usage(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    io = dict(line.split(": ") for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines())
    # What it gave to the disk or, for Kafka, to the page cache on its way there.
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, int(io["write_bytes"]))


def resident_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+)", status, re.M)[1]) / 1024


class BenchKafka(brokers.Kafka):
    """Kafka as it is started in production."""

    def java(self, main, *arguments):
        command = super().java(main, *arguments)
        return [*KAFKA_JVM, *command[len(brokers.JVM) :]]


def run(command, limit=600):
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


class Sabir:
    """The native load generator."""

    name = "sabir bench"

    def __init__(self, binary):
        self.binary = binary

    def bench(self, broker, load, *options):
        command = [self.binary, "bench", load, "--address", broker.bootstrap, "--quiet", "-o", "json", *options]
        found = json.loads(run(command))
        latency = found["latency_ms"]
        return {
            "messages": found["messages"],
            "payload": found["bytes"],
            "msgs_per_s": found["messages_per_second"],
            "p50_ms": latency["p50"],
            "p99_ms": latency["p99"],
            "p999_ms": latency["p99.9"],
        }

    def produce(self, broker, topic, count, size, rate=None, options=()):
        # the same linger and batch size as the Java tool is given
        extra = [*(["--rate", str(rate)] if rate else []), *([] if "--linger" in options else ["--linger", "5ms"])]
        return self.bench(broker, "produce", "--topic", topic, "--count", str(count), "--size", str(size), *extra, *options)

    def consume(self, broker, topic, count, size):
        return self.bench(broker, "consume", "--topic", topic, "--count", str(count))


class Java:
    """Kafka's own load tools."""

    name = "Java"

    def tool(self, main, broker, *arguments):
        home = brokers.kafka_home()
        logging = f"-Dlog4j2.configurationFile={home}/tools-log4j2.properties"
        command = [*TOOL_JVM, logging, "-cp", f"{home}/lib/*", f"org.apache.kafka.tools.{main}"]
        return run([*command, "--bootstrap-server", broker.bootstrap, *arguments])

    def produce(self, broker, topic, count, size, rate=None, options=()):
        said = self.tool(
            "ProducerPerformance", broker, "--topic", topic, "--num-records", str(count), "--record-size", str(size),
            "--throughput", str(rate or -1), "--command-property", "linger.ms=5", "batch.size=16384", *options,
        )  # fmt: skip
        # N records sent, R records/sec (M MB/sec), A ms avg latency, X ms max latency, P ms 50th, P ms 95th, P ms 99th, P ms 99.9th.
        last = [line for line in said.splitlines() if "99.9th" in line][-1]
        numbers = [float(n) for n in re.findall(r"([\d.]+) (?:records|ms)", last)]
        sent, per_second, _mean, _max, p50, _p95, p99, p999 = numbers
        return {
            "messages": sent, "payload": sent * size, "msgs_per_s": per_second, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999,
        }  # fmt: skip

    def consume(self, broker, topic, count, size):
        said = self.tool(
            "ConsumerPerformance", broker, "--topic", topic, "--num-records", str(count), "--hide-header", "--timeout", "30000"
        )
        fields = [line for line in said.splitlines() if re.match(r"\d{4}-", line)][-1].split(", ")
        # the last figure is of the time without the group's start
        return {"messages": float(fields[4]), "payload": float(fields[4]) * size, "msgs_per_s": float(fields[9])}


class SabirQueues:
    """The native load generator, with queues: it publishes and reads at once."""

    name = "sabir bench --proto amqp"

    def __init__(self, binary):
        self.binary = binary

    def run(self, broker, case, scale):
        seconds = max(int(case.pattern.seconds * scale), 2 * perf_test.WARM)
        own = ["--proto", "amqp", "--address", broker.amqp, "--topic", f"bench-{uuid.uuid4().hex[:8]}", "--quiet", "-o", "json"]
        length = ["--duration", f"{seconds}s", "--warmup", f"{perf_test.WARM}s", "--size", str(case.size)]
        found = json.loads(run([self.binary, "bench", "e2e", *own, *length, *case.pattern.flags]))
        latency = found["latency_ms"]
        # what is counted begins behind the warm-up, and the broker's time before it
        share = seconds / (seconds - perf_test.WARM)
        return {
            "messages": found["messages"] * share,
            "payload": found["bytes"] * share,
            "msgs_per_s": found["messages_per_second"],
            "p50_ms": latency["p50"],
            "p99_ms": latency["p99"],
        }


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure, and by how much Sabir shall be better."""

    name: str
    client: str
    what: str
    load: str
    count: int
    size: int
    rate: int = 0
    options: tuple = ()
    partitions: int = 6
    # column -> (at least so many times the peer's, or at most)
    targets: dict = dataclasses.field(default_factory=dict)
    peer: str = "kafka"
    # of a case of queues, for which a load is run by time: how, and to how many queues each message goes
    pattern: perf_test.Pattern | None = None
    fan_out: int = 1


PRODUCE, CONSUME = {"msgs_per_s": 2.0, "cpu": 1 / 8}, {"msgs_per_s": 1.8, "cpu": 1 / 2}
JAVA_PRODUCE, JAVA_CONSUME = {"msgs_per_s": 1.3, "cpu": 1 / 8}, {"msgs_per_s": 1.2, "cpu": 1 / 2}
FIXED = {"p99_ms": 1 / 3}
SINGLE = ("--batch", "100B", "--linger", "0ms")
CASES = [
    Case("produce-100b", "sabir", "produce 100 B", "produce", 5_000_000, 100, targets=PRODUCE),
    Case("produce-1k", "sabir", "produce 1 KiB", "produce", 2_000_000, 1024, targets=PRODUCE),
    Case("produce-1k-lz4", "sabir", "produce 1 KiB, lz4", "produce", 2_000_000, 1024, options=("--compression", "lz4")),
    Case("produce-256-partitions", "sabir", "produce 100 B to 256 partitions", "produce", 5_000_000, 100, partitions=256),
    Case("consume-1k", "sabir", "consume 1 KiB", "consume", 2_000_000, 1024, targets=CONSUME),
    Case("rate-1k", "sabir", "produce 1 KiB at 20,000/s", "produce", 300_000, 1024, rate=20_000, targets=FIXED),
    Case("single-100b", "sabir", "produce 100 B at 20,000/s, one a batch", "produce", 200_000, 100, rate=20_000, options=SINGLE),
    Case("java-produce-100b", "java", "produce 100 B", "produce", 5_000_000, 100, targets=JAVA_PRODUCE),
    Case("java-produce-1k", "java", "produce 1 KiB", "produce", 2_000_000, 1024, targets=JAVA_PRODUCE),
    Case("java-consume-1k", "java", "consume 1 KiB", "consume", 2_000_000, 1024, targets=JAVA_CONSUME),
    Case("java-rate-1k", "java", "produce 1 KiB at 20,000/s", "produce", 300_000, 1024, rate=20_000, targets=FIXED),
]


def queues(name, what, size, flags, targets, backlog=0, rate=0, fan_out=1):
    """A case of queues."""
    pattern = perf_test.Pattern(tuple(flags.split()), backlog=backlog)
    return Case(name, "perf-test", what, "queues", backlog, size, rate, targets=targets, peer="rabbitmq", pattern=pattern, fan_out=fan_out)


def own_queues(name, what, size, flags, targets):
    """The same with the native load generator."""
    pattern = perf_test.Pattern(tuple(flags.split()))
    return Case(name, "sabir-queues", what, "queues", 0, size, targets=targets, peer="rabbitmq", pattern=pattern)


CONFIRMED = "-f persistent -c 200 -q 200 -A 100"
MANY = "-qp QUEUE-%d -qpf 1 -qpt 100 -f persistent"
CASES += [
    queues("queue-persistent-1k", "persistent, confirms, 1 KiB, 2 + 2", 1024, f"-x 2 -y 2 -u QUEUE {CONFIRMED}", {"msgs_per_s": 5.0, "cpu": 1 / 10}),
    queues("queue-quorum-1k", "the same, quorum queue", 1024, f"-x 2 -y 2 -u QUEUE -qq {CONFIRMED}", {"msgs_per_s": 4.0, "cpu": 1 / 10}),
    queues("queue-transient-12b", "transient, auto-ack, 12 B, 1 + 1", 12, "-x 1 -y 1 -u QUEUE -a", {"msgs_per_s": 3.0}),
    queues("queue-100", "100 queues, 100 + 100, 1 KiB", 1024, f"-x 100 -y 100 {MANY} -c 50 -q 50 -A 10", {"msgs_per_s": 5.0}),
    queues(
        "queue-fan-out-100", "fan-out to 100 queues, 1 KiB", 1024, f"-x 1 -y 100 -t fanout -e QUEUE {MANY} -c 50 -q 100 -A 50",
        {"msgs_per_s": 10.0}, fan_out=100,
    ),
    queues(
        "queue-rate-1k", "persistent, confirms, 1 KiB at 2,000/s, 1 + 1", 1024, f"-x 1 -y 1 -u QUEUE -r 2000 {CONFIRMED}",
        {"confirm_p99_ms": 1 / 3}, rate=2000,
    ),
    queues("queue-backlog", "backlog of 100 B, then drained", 100, "-u QUEUE", {"drain_per_s": 5.0}, backlog=1_000_000),
    own_queues("own-queue-persistent-1k", "persistent, confirms, 1 KiB, 2 + 2", 1024, "--clients 2", {"msgs_per_s": 8.0, "cpu": 1 / 10}),
    own_queues(
        "own-queue-transient-12b", "transient, auto-ack, 12 B, 1 + 1", 12, "--clients 1 --transient --confirm 0 --prefetch 0", {"msgs_per_s": 3.0},
    ),
]  # fmt: skip


class Bench:
    """The brokers and the clients, side by side."""

    def __init__(self, asked):
        self.asked = asked
        self.binary = os.environ.get("SABIR_BIN") or str(brokers.REPOSITORY / "target/release/sabir")
        os.environ["SABIR_BIN"] = self.binary
        self.clients = {"sabir": Sabir(self.binary), "java": Java()}
        self.folder = brokers.scratch("bench")
        self.clients["perf-test"] = perf_test.PerfTest(self.folder)
        self.clients["sabir-queues"] = SabirQueues(self.binary)
        self.rows = []

    def broker(self, kind, name):
        data = self.folder / kind
        shutil.rmtree(data, ignore_errors=True)
        if kind == "sabir":
            return brokers.Sabir(data, f"bench-{name}-sabir", self.asked.disk)
        if kind == "rabbitmq":
            return brokers.RabbitMq(data, f"bench-{name}-rabbitmq")
        return BenchKafka(data, f"bench-{name}-kafka", flush=self.asked.against == "sync", settings=["num.partitions=6"])

    def once(self, kind, case):
        """One run of one case against a fresh broker."""
        broker = self.broker(kind, case.name)
        broker.start()
        try:
            return self.measured_queues(broker, case) if case.pattern else self.measured(broker, case)
        finally:
            if broker.stop() not in brokers.CLEAN_ENDS[kind]:
                print(f"{kind} did not close cleanly in {case.name}", flush=True)
            shutil.rmtree(self.folder / kind, ignore_errors=True)

    def measured(self, broker, case):
        client = self.clients[case.client]
        count = max(int(case.count * self.asked.scale), 1000)
        self.create(broker, "measured", case.partitions)
        self.create(broker, "warm", case.partitions)
        # Both sides are warm before anything counts.
        warm = max(count // 5, 1000)
        client.produce(broker, "warm", warm, case.size, options=case.options)
        if case.load == "consume":
            self.clients["sabir"].produce(broker, "measured", count, case.size)
            client.consume(broker, "warm", warm, case.size)
        before = usage(broker.pid)
        if case.load == "consume":
            found = client.consume(broker, "measured", count, case.size)
        else:
            found = client.produce(broker, "measured", count, case.size, case.rate or None, case.options)
        return self.with_usage(broker, found, before)

    def measured_queues(self, broker, case):
        """Processor time is that of the whole run over all its messages, the client's warm-up included."""
        before = usage(broker.pid)
        return self.with_usage(broker, self.clients[case.client].run(broker, case, self.asked.scale), before)

    def with_usage(self, broker, found, before):
        found["rss_mib"] = resident_mib(broker.pid)
        used = self.settled(broker, before)
        found["cpu"] = used.cpu * 1e6 / found["messages"]
        found["written"] = used.written / found["payload"]
        return found

    def settled(self, broker, before):
        """What it has used once its work for this load is done: until the page cache has been written, which costs Kafka nothing,
        a byte that it gave away is counted already."""
        time.sleep(0.5)
        return usage(broker.pid) - before

    def create(self, broker, topic, partitions):
        run([self.binary, "topic", "create", topic, "--address", broker.bootstrap, "--partitions", str(partitions)])
        # Kafka answers before its partitions are there.
        deadline = time.monotonic() + 30
        for partition in range(partitions):
            while not self.there(broker, topic, partition):
                assert time.monotonic() < deadline, f"partition {partition} of {topic} is not there after 30 s"
                time.sleep(0.05)

    def there(self, broker, topic, partition):
        try:
            with wire.Connection(broker.bootstrap) as connection:
                return connection.offset(topic, partition, -1) >= 0
        except (wire.Refused, ConnectionError):
            return False

    def case(self, case):
        runs = {"sabir": [], case.peer: []}
        for round in range(self.asked.rounds):
            for kind in ("sabir", case.peer) if round % 2 == 0 else (case.peer, "sabir"):
                found = self.once(kind, case)
                runs[kind].append(found)
                print(f"{case.name} {round + 1} {kind}: {report.line(found)}", flush=True)
        self.rows.append((case, runs))

    def start_times(self):
        """Milliseconds from exec to ready with an empty folder and with a clean one, and the memory of a broker that does nothing."""
        found = {"first": [], "clean": [], "idle_mib": []}
        for _ in range(self.asked.rounds):
            broker = self.broker("sabir", "start")
            found["first"].append(broker.start() * 1000)
            broker.stop()
            found["clean"].append(broker.start() * 1000)
            time.sleep(1)
            found["idle_mib"].append(resident_mib(broker.pid))
            broker.stop()
        print(f"start: {({k: round(statistics.median(v), 1) for k, v in found.items()})}", flush=True)
        return found

    def recovery(self):
        """Seconds from exec to ready after kill -9, with so many GiB of journal."""
        broker = self.broker("sabir", "recovery")
        broker.start()
        try:
            self.create(broker, "measured", 6)
            count = int(self.asked.recovery * (1 << 30) / (16 << 10))
            Sabir(self.binary).bench(
                broker, "produce", "--topic", "measured", "--count", str(count), "--size", "16KiB", "--batch", "256KiB"
            )
            times = []
            for _ in range(3):
                broker.kill()
                times.append(broker.start())
            print(f"recovery: {times}", flush=True)
            return times
        finally:
            broker.stop()
            shutil.rmtree(self.folder / "sabir", ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of messages")
    parser.add_argument("--cases", help="these only, with commas between them")
    parser.add_argument("--against", choices=["os", "sync"], default="os", help="what Kafka's acknowledgement means")
    parser.add_argument("--disk", default="auto", help="Sabir's disk: auto, io_uring or pwrite")
    parser.add_argument("--recovery", type=float, default=10, help="GiB of journal for the recovery; 0 leaves it out")
    parser.add_argument("--json", help="write all single figures into this file")
    parser.add_argument("--write", help="write the tables between the marks in this file, and the charts into images beside it")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(case.name for case in CASES))
        return
    chosen = [case for case in CASES if not asked.cases or case.name in asked.cases.split(",")]
    bench = Bench(asked)
    try:
        starts = bench.start_times()
        recovery = bench.recovery() if asked.recovery else None
        for case in chosen:
            bench.case(case)
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    if asked.json:
        everything = {"starts": starts, "recovery": recovery, "cases": {case.name: runs for case, runs in bench.rows}}
        pathlib.Path(asked.json).write_text(json.dumps(everything, indent=1) + "\n")
    target = pathlib.Path(asked.write) if asked.write else None
    charts = plot.write(target.parent / "images", bench.rows) if target else []
    page = report.page(bench.rows, starts, recovery, asked, charts)
    print(page)
    if target:
        report.write(target, page)


if __name__ == "__main__":
    main()
