#!/usr/bin/env python3
"""KafkaJS against the broker at BOOTSTRAP. Its packages are installed below the cache folder (`need_kafkajs` of tests/lib/install.sh)."""

import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "lib"))
import broker
import cases


def main():
    suite = cases.Suite("kafkajs")
    environment = dict(
        os.environ, SALT=f"{time.time_ns():x}", NODE_PATH=str(broker.CACHE / "node" / "node_modules"), KAFKAJS_NO_PARTITIONER_WARNING="1"
    )
    suite.relay(["node", str(HERE / "kafkajs.js"), *suite.chosen], env=environment, preexec_fn=broker.die_with_parent)
    suite.end()


if __name__ == "__main__":
    main()
