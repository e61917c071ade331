#!/usr/bin/env python3
"""Memory that a load took is given back when it has ended, under a real `sabir serve`: large records, many connections that come and go.

    tests/limits/resident.py
"""

import pathlib
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
import wire

MIB = 1 << 20
TAIL_CACHE = 16 * MIB
# What a broker takes that has done nothing yet, caches that fill, and what allocators keep at hand.
ALLOWED = 30 * MIB + 2 * TAIL_CACHE + 40 * MIB
LARGE = wire.batch([bytes(20 * MIB)])
SIZES = [wire.batch([b"x" * size]) for size in (100, 5_000, 60_000, 300_000, 900_000)]


def worker(broker, number, until):
    rounds = 0
    while time.monotonic() < until:
        with wire.Connection(broker.bootstrap, timeout=60) as client:
            for batch in SIZES:
                client.put("t", number % 4, batch)
            if rounds % 4 == number % 4:
                end = client.put("t", number % 4, LARGE)
                client.get("t", number % 4, end, max_bytes=50 * MIB)
        rounds += 1


# Pooled buffers go when they were not wanted between two looks, half a minute apart, and what is free goes back to the system every half
# minute: that is a minute and a half at the most.
def memory_comes_back(seconds=40, settle=120):
    folder = brokers.scratch("resident")
    settings = [f"data.tail_cache={TAIL_CACHE // MIB}MiB", "data.shards=1", "topic.max_message=32MiB"]
    broker = brokers.Sabir(folder / "data", "resident", settings=settings)
    try:
        broker.start()
        before = broker.memory("VmRSS")
        with wire.Connection(broker.bootstrap) as client:
            client.create([("t", 4, {"max.message.bytes": str(32 * MIB), "retention.bytes": str(64 * MIB)})])
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=worker, args=(broker, n, until)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        loaded = broker.memory("VmRSS")
        end = time.monotonic() + settle
        while (after := broker.memory("VmRSS")) > ALLOWED and time.monotonic() < end:
            time.sleep(1)
        print(f"      resident: {before // MIB} MiB before, {loaded // MIB} under load, {after // MIB} later")
        assert after <= ALLOWED, f"{after // MIB} MiB are still resident {settle} s after the load; {ALLOWED // MIB} are allowed"
    finally:
        if broker.process:
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    suite = cases.Suite("resident")
    suite.case("memory-comes-back-after-large-records", memory_comes_back, limit=240)
    suite.end()


if __name__ == "__main__":
    main()
