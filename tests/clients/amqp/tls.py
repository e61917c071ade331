#!/usr/bin/env python3
"""pika by TLS (amqps), unmodified: publishes with confirms, consumes, and shows a certificate where it has to."""

import pathlib
import shutil
import ssl
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib"))
import broker as brokers
import cases
import pika
from certificates import Authority

suite = cases.Suite("amqp-tls")
COUNT = 2000


def connect(port, authority, shows=None):
    context = ssl.create_default_context(cafile=str(authority.ca))
    if shows:
        context.load_cert_chain(*map(str, shows))
    options = pika.SSLOptions(context, "localhost")
    return pika.BlockingConnection(pika.ConnectionParameters("localhost", port, ssl_options=options, socket_timeout=10))


def round_trip(connection):
    channel = connection.channel()
    channel.queue_declare("tls", durable=True)
    channel.confirm_delivery()
    bodies = [b"%d" % number * (number % 50 + 1) for number in range(COUNT)]
    for body in bodies:
        channel.basic_publish("", "tls", body, pika.BasicProperties(delivery_mode=2))
    # one of more than a frame, and than TLS keeps
    large = bytes(range(256)) * 8192
    channel.basic_publish("", "tls", large)
    found = []
    for method, _, body in channel.consume("tls", inactivity_timeout=20):
        assert method, f"{len(found)} of {COUNT + 1} came"
        channel.basic_ack(method.delivery_tag)
        found.append(body)
        if len(found) > COUNT:
            break
    assert found == [*bodies, large], "others came than were published"
    connection.close()


def run(case, *settings, shows):
    folder = brokers.scratch(f"amqp-tls-{case}")
    authority = Authority(folder / "certificates")
    port = brokers.free_ports(1)[0]
    certificate, key = authority.certify("broker", "localhost", "127.0.0.1")
    # Of its own: the node has none.
    own = [f"amqp.tls_listen=127.0.0.1:{port}", f"amqp.tls_certificate={certificate}", f"amqp.tls_key={key}", f"amqp.tls_client_ca={authority.ca}"]
    broker = brokers.make("sabir", folder / "data", f"amqp-tls-{case}", settings=[*own, *settings])
    broker.start()
    try:
        round_trip(connect(port, authority, authority.certify("client", "client") if shows else None))
        if shows:
            try:
                connect(port, authority)
            except (pika.exceptions.AMQPConnectionError, ssl.SSLError):
                pass
            else:
                raise AssertionError("who showed no certificate was let in")
        assert broker.stop() == 0, "no clean close"
    finally:
        if broker.alive():
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


suite.case("confirms", lambda: run("confirms", shows=False), 120)
suite.case("mutual", lambda: run("mutual", "amqp.tls_client_auth=required", shows=True), 120)
suite.end()
