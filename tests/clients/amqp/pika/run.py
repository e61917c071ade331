#!/usr/bin/env python3
"""pika against the broker at AMQP (host:port): cases of our own, by topic.

    run.py             all
    run.py CASE...     these: `queues/exclusive`
    run.py --record    all, and writes what became of them into expected.tsv: the control, run with RabbitMQ

A case that RabbitMQ 3.10 fails asserts what later versions or the specification say, as its remark in the table tells.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "lib"))
import client
import connections
import consuming
import control
import crowds
import exchanges
import limits
import publishing
import queues
import transactions

TOPICS = [queues, exchanges, publishing, consuming, limits, transactions, connections, crowds]
LIMIT = 60


def run(function):
    case = client.Case()
    try:
        function(case)
    finally:
        case.close()


def main():
    suite = control.suite("amqp-pika", control.Table(HERE / "expected.tsv", "rabbitmq"))
    for topic in TOPICS:
        for function in topic.CASES:
            name = f"{topic.__name__}/{function.__name__.replace('_', '-')}"
            suite.case(name, lambda f=function: run(f), LIMIT)
    suite.end()


if __name__ == "__main__":
    main()
