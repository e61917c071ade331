#!/usr/bin/env python3
"""Kafka's own kafka-producer-perf-test and kafka-consumer-perf-test against the broker at BOOTSTRAP: what one writes, the other
reads. The figures are bench/'s business; here it is whether all of it arrives."""

import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib"))
import cases
import program

BOOTSTRAP = os.environ["BOOTSTRAP"]
SALT = f"{time.time_ns():x}"


def tool(name, *arguments, limit=180):
    command = program.java(f"org.apache.kafka.tools.{name}", "--bootstrap-server", BOOTSTRAP, *arguments, heap="256m")
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {said[-500:]}"
    # Both tools go on when a batch fails, and say so; they say too that the topic is only now being created.
    complaints = [line for line in said.splitlines() if re.search(r"\b(ERROR|WARN)\b|Exception", line)]
    complaints = [line for line in complaints if not line.endswith("=UNKNOWN_TOPIC_OR_PARTITION} (org.apache.kafka.clients.NetworkClient)")]
    assert not complaints, f"{name} complains: {complaints[:3]}"
    return done.stdout


def there_and_back(name, records, size, *properties):
    topic = f"perf-{name}-{SALT}"
    written = tool(
        "ProducerPerformance", "--topic", topic, "--num-records", str(records), "--record-size", str(size),
        "--throughput", "-1", "--command-property", "acks=all", *properties,
    )  # fmt: skip
    assert f"{records} records sent" in written.splitlines()[-1], written
    read = tool("ConsumerPerformance", "--topic", topic, "--num-records", str(records), "--hide-header", "--timeout", "20000")
    fields = [line for line in read.splitlines() if re.match(r"\d{4}-", line)][-1].split(", ")
    megabytes, count = float(fields[2]), int(fields[4])
    assert count == records, f"{count} of {records} records read"
    assert abs(megabytes - records * size / 2**20) < 0.01 * megabytes, f"{megabytes} MB read"


def main():
    suite = cases.Suite("java-perf")
    suite.case("100-bytes", lambda: there_and_back("100", 200_000, 100), 150)
    suite.case("1-kilobyte", lambda: there_and_back("1k", 50_000, 1024), 150)
    suite.case("lz4", lambda: there_and_back("lz4", 50_000, 1024, "compression.type=lz4"), 150)
    suite.case("large-batches", lambda: there_and_back("large", 50_000, 1024, "batch.size=524288", "linger.ms=20"), 150)
    suite.case("not-idempotent", lambda: there_and_back("plain", 50_000, 1024, "enable.idempotence=false", "acks=1"), 150)
    suite.end()


if __name__ == "__main__":
    main()
