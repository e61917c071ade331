#!/usr/bin/env python3
"""Clients by TLS: librdkafka and the Java client's own tools, unmodified, and the commands of `sabir`.

Each case starts a broker of its own.
"""

import os
import pathlib
import shutil
import signal
import ssl
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import cases
from certificates import Authority
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

suite = cases.Suite("tls")


class Node:
    """A broker that speaks TLS beside plain text, for the time of a `with`."""

    def __init__(self, name, *settings):
        self.folder = brokers.scratch(f"tls-{name}")
        self.authority = Authority(self.folder / "certificates")
        self.port = brokers.free_ports(1)[0]
        certificate, key = self.authority.certify("broker", "localhost", "127.0.0.1")
        own = [f"kafka.tls_listen=127.0.0.1:{self.port}", f"tls.certificate={certificate}", f"tls.key={key}", f"tls.client_ca={self.authority.ca}"]
        self.broker = brokers.make("sabir", self.folder / "data", f"tls-{name}", settings=[*own, *settings])

    def __enter__(self):
        self.broker.start()
        return self

    def __exit__(self, *_):
        stopped = self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert stopped == 0, f"no clean close: {stopped}"

    @property
    def bootstrap(self):
        return f"localhost:{self.port}"

    def client(self, **more):
        return {"bootstrap.servers": self.bootstrap, "security.protocol": "ssl", "ssl.ca.location": str(self.authority.ca), **more}

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def publish(settings, count, topic="tls"):
    producer, failed = Producer(settings), []
    for number in range(count):
        producer.produce(topic, b"%d" % number * 100, on_delivery=lambda error, _: failed.append(error) if error else None)
        producer.poll(0)
    assert producer.flush(30) == 0, "not all were acknowledged"
    assert not failed, failed[0]


def read(settings, count, topic="tls"):
    consumer = Consumer({**settings, "group.id": "tls", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found, until = [], time.monotonic() + 30
    while len(found) < count and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            found.append(message.value())
    consumer.close()
    assert found == [b"%d" % number * 100 for number in range(count)], f"{len(found)} of {count}, or others"


def a_group_reads_what_was_published():
    with Node("group") as node:
        publish(node.client(), 20_000)
        read(node.client(), 20_000)
        # Clients are told the address that they came by: that of TLS here, and the plain one there.
        tls = AdminClient(node.client()).list_topics(timeout=10).brokers
        plain = AdminClient({"bootstrap.servers": node.broker.bootstrap}).list_topics(timeout=10).brokers
        assert [b.port for b in tls.values()] == [node.port], tls
        assert [b.port for b in plain.values()] == [node.broker.port], plain


def java_reads_what_was_published():
    with Node("java") as node:
        properties = node.folder / "client.properties"
        properties.write_text(f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={node.authority.ca}\n")
        jars = f"{brokers.kafka_home()}/lib/*"

        def tool(main, *arguments, **options):
            command = [*brokers.JVM, "-cp", jars, f"org.apache.kafka.tools.{main}", "--bootstrap-server", node.bootstrap, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        lines = "".join(f"line {number}\n" for number in range(1000))
        tool("ConsoleProducer", "--topic", "java", "--command-config", str(properties), input=lines)
        options = ["--topic", "java", "--from-beginning", "--max-messages", "1000", "--timeout-ms", "20000"]
        got = tool("consumer.ConsoleConsumer", *options, "--command-config", str(properties))
        assert got == lines, got[:200]


def refused(settings):
    """What librdkafka says of a broker that it cannot speak with."""
    said = []
    client = AdminClient({**settings, "error_cb": lambda error: said.append(str(error)), "log_level": 0})
    try:
        client.list_topics(timeout=5)
    except KafkaException as error:
        client.poll(0)
        return f"{error}; {said}"
    raise AssertionError("it was let in")


def clients_show_a_certificate_where_they_have_to():
    with Node("mutual", "tls.client_auth=required") as node:
        certificate, key = node.authority.certify("client", "client")
        shows = {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key)}
        publish(node.client(**shows), 100)
        foreign = Authority(node.folder / "foreign").certify("client", "client")
        refused(node.client())
        refused(node.client(**{"ssl.certificate.location": str(foreign[0]), "ssl.key.location": str(foreign[1])}))
        assert node.metric("sabir_failed_tls_handshakes_total") >= 2


def who_speaks_something_else_is_told_so():
    with Node("else") as node:
        assert "_TRANSPORT" in refused({"bootstrap.servers": node.bootstrap})
        refused(node.client(**{"bootstrap.servers": node.broker.bootstrap}))
        untrusting = {"bootstrap.servers": node.bootstrap, "security.protocol": "ssl"}
        assert "certificate" in refused(untrusting), "its error names the certificate"
        assert node.metric("sabir_failed_tls_handshakes_total") >= 2
        log = node.broker.log_path.read_text()
        assert "does the client speak plain text?" in log or "does it know the certificate's authority?" in log, "it is in the log"
        publish(node.client(), 10)


def shown(node):
    """The certificate that is shown now."""
    context = ssl.create_default_context(cafile=str(node.authority.ca))
    with socket.create_connection(("localhost", node.port), 5) as connection:
        with context.wrap_socket(connection, server_hostname="localhost") as secured:
            return secured.getpeercert(binary_form=True)


def other_certificates_are_shown_without_a_restart():
    with Node("reload") as node:
        before = shown(node)
        going_on = Producer(node.client())
        going_on.produce("tls", b"before")
        assert going_on.flush(20) == 0
        node.authority.certify("broker", "localhost", "127.0.0.1")
        node.broker.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while shown(node) == before and time.monotonic() < until:
            time.sleep(0.05)
        assert shown(node) != before, "the new certificate is not shown after SIGHUP"
        going_on.produce("tls", b"after")
        assert going_on.flush(20) == 0
        # And when nobody says so: it is looked every ten seconds.
        before = shown(node)
        node.authority.certify("broker", "localhost", "127.0.0.1")
        until = time.monotonic() + 40
        while shown(node) == before and time.monotonic() < until:
            time.sleep(0.2)
        assert shown(node) != before, "the new certificate is not shown after a while"


def sabir(node, *arguments, code=0, lines=None, environment=None):
    """What a command says: on stdout, or, where it is to fail with that code, on stderr."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("SABIR_") or key == "SABIR_BIN"}
    done = subprocess.run(
        [node.broker.binary, *arguments], input=lines, capture_output=True, text=True, timeout=60, env={**known, **(environment or {})}
    )
    assert done.returncode == code, f"{arguments}: {done.returncode} instead of {code}: {done.stdout} {done.stderr}"
    return done.stderr if code else done.stdout


def the_commands_speak_tls():
    amqp = brokers.free_ports(1)[0]
    with Node("commands", f"amqp.tls_listen=127.0.0.1:{amqp}") as node:
        ca = ["--tls-ca", str(node.authority.ca)]
        at = ["--address", f"kafkas://{node.bootstrap}", *ca]
        lines = "".join(f"line {number}\n" for number in range(5_000))
        sabir(node, "topic", "create", "secured", *at)
        sabir(node, "message", "publish", "secured", *at, lines=lines)
        assert sabir(node, "message", "read", "secured", "-o", "value", *at) == lines
        assert f":{node.port}" in sabir(node, "cluster", *at), "it goes on at the address that it is told of"
        sabir(node, "bench", "produce", "--count", "20000", "--size", "1KiB", "--topic", "load", "-q", *at)
        # The same by variables, by options without a protocol's name, and of AMQP.
        variables = {"SABIR_ADDRESS": node.bootstrap, "SABIR_TLS": "1", "SABIR_TLS_CA": str(node.authority.ca)}
        assert "secured" in sabir(node, "topic", "list", environment=variables)
        assert sabir(node, "message", "read", "secured", "-o", "value", "-a", f"localhost:{amqp}", "--proto", "amqp", *ca) == lines
        said = sabir(node, "message", "read", "absent", "-a", f"amqps://localhost:{amqp}", *ca, code=4)
        assert "absent" in said, said
        assert "secured" in sabir(node, "topic", "list", "-a", f"kafkas://{node.bootstrap}", "--tls-insecure")
        # What is wrong is said.
        foreign = Authority(node.folder / "foreign")
        for options, code, words in (
            (["-a", f"kafkas://{node.bootstrap}", "--tls-ca", str(foreign.ca)], 3, "its certificate is not good here"),
            (["-a", f"kafkas://127.0.0.2:{node.port}", *ca], 3, "127.0.0.2"),
            (["-a", f"kafkas://{node.broker.bootstrap}", *ca], 3, "TLS"),
            (["-a", f"kafka://{node.bootstrap}"], 3, node.bootstrap),
            (["-a", f"kafkas://{node.bootstrap}", "--tls-ca", "/absent.pem"], 2, "/absent.pem"),
            (["-a", f"kafkas://{node.bootstrap}", "--tls-cert", str(node.authority.ca)], 2, "--tls-key"),
        ):
            said = sabir(node, "topic", "list", "--timeout", "5s", *options, code=code)
            assert words in said, said


def the_commands_show_a_certificate():
    with Node("identity", "tls.client_auth=required") as node:
        certificate, key = node.authority.certify("client", "client")
        at = ["-a", f"kafkas://{node.bootstrap}", "--tls-ca", str(node.authority.ca), "--timeout", "5s"]
        sabir(node, "topic", "create", "mutual", *at, "--tls-cert", str(certificate), "--tls-key", str(key))
        said = sabir(node, "topic", "list", *at, code=3)
        assert "certificate" in said, said


suite.case("commands", the_commands_speak_tls)
suite.case("commands-identity", the_commands_show_a_certificate)
suite.case("group", a_group_reads_what_was_published)
suite.case("java", java_reads_what_was_published, 120)
suite.case("mutual", clients_show_a_certificate_where_they_have_to)
suite.case("something-else", who_speaks_something_else_is_told_so)
suite.case("reload", other_certificates_are_shown_without_a_restart, 120)
suite.end()
