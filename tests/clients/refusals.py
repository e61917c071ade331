#!/usr/bin/env python3
"""What is not served is refused, by each client's own account, for good and at once, and the broker's log names it: librdkafka and
aiokafka here; kafka-python, franz-go, sarama and Kafka's own, from 2.1 on, in programs of theirs. Against Kafka only what it refuses as
well."""

import asyncio
import logging
import os
import pathlib
import re
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lib"), str(HERE / "java")]
import aiokafka
import broker
import cases
import program
import wire
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
SALT = f"{time.time_ns():x}"
LIMIT = 20
INIT_PRODUCER_ID, SASL_AUTHENTICATE, ALTER_CLIENT_QUOTAS, ALTER_USER_SCRAM_CREDENTIALS = 22, 36, 49, 51
CLUSTER_AUTHORIZATION_FAILED, ILLEGAL_SASL_STATE, UNSUPPORTED_VERSION = 31, 34, 35


def librdkafka_transactions():
    producer = Producer({**BOOTSTRAP, "transactional.id": f"txn-{SALT}"})
    try:
        producer.init_transactions(LIMIT)
    except KafkaException as error:
        assert error.args[0].fatal(), error
        assert "transactions are not served by this broker" in str(error), error
        return
    raise AssertionError("it is not refused")


def librdkafka_consumer_protocol():
    consumer = Consumer({**BOOTSTRAP, "group.id": f"g-{SALT}", "group.protocol": "consumer"})
    consumer.subscribe(["refusals"])
    message = consumer.poll(LIMIT)
    assert message and message.error().code() == KafkaError._FATAL, message
    assert "ConsumerGroupHeartbeat" in message.error().str(), message.error()
    consumer.close()


def librdkafka_sasl():
    errors = []
    producer = Producer({**BOOTSTRAP, **SASL, "error_cb": errors.append})
    began = time.monotonic()
    while not errors and time.monotonic() - began < LIMIT:
        producer.poll(0.1)
    assert errors[0].code() == KafkaError._AUTHENTICATION, errors
    assert "SASL state" in errors[0].str(), errors


def librdkafka_listings():
    admin = AdminClient(BOOTSTRAP)
    any_acl = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    # it does not show that it is refused
    assert admin.describe_acls(any_acl, request_timeout=LIMIT).result() == []
    assert admin.describe_user_scram_credentials(request_timeout=LIMIT).result() == {}


async def aio_refused(**settings):
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"], **settings)
    try:
        await producer.start()
    except aiokafka.errors.KafkaError as error:
        return repr(error)
    finally:
        await producer.stop()
    raise AssertionError("it is not refused")


def aiokafka_transactions():
    assert "ClusterAuthorizationFailed" in asyncio.run(aio_refused(transactional_id=f"txn-{SALT}"))


def aiokafka_sasl():
    """The error that it raises names nothing; its log does."""
    logged = Logged()
    logging.getLogger("aiokafka").addHandler(logged)
    said = aio_refused(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_plain_username="u", sasl_plain_password="p"
    )
    assert "Unable to bootstrap" in asyncio.run(said)
    assert any("IllegalSaslState" in line for line in logged.lines), logged.lines


class Logged(logging.Handler):
    """What a client logs."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def beyond_these_clients():
    """What is refused and none of these clients comes to ask for: they stop at an earlier refusal, or cannot ask."""
    quota = wire.array([wire.string("user") + wire.string("u")]) + wire.array([wire.string("request_percentage") + struct.pack(">d?", 1, False)])
    # The compact form, from which a header has tags, too: nobody is deleted, one is inserted.
    user = b"\0\1\2" + b"\2u" + struct.pack(">bi", 1, 4096) + b"\5salt" + b"\5pass" + b"\0\0"
    for api, version, body, at, error in (
        (INIT_PRODUCER_ID, 1, wire.string(f"txn-{SALT}") + struct.pack(">i", 60_000), 4, CLUSTER_AUTHORIZATION_FAILED),
        (SASL_AUTHENTICATE, 0, wire.blob(b"\0u\0p"), 0, ILLEGAL_SASL_STATE),
        (ALTER_CLIENT_QUOTAS, 0, wire.array([quota]) + b"\0", 8, UNSUPPORTED_VERSION),
        (ALTER_USER_SCRAM_CREDENTIALS, 0, user, 8, UNSUPPORTED_VERSION),
    ):
        with wire.Connection(os.environ["BOOTSTRAP"], timeout=LIMIT) as client:
            answer = client.call(api, version, body)
        found = struct.unpack_from(">h", answer, at)[0]
        assert found == error, f"API {api}: error {found}, not {error}, in {answer}"


# The APIs whose refusals clients have asked for, and the words by which each client goes in the log.
LOGGED = {
    "FindCoordinator": ["rdkafka", "aiokafka", "kafka-python", "kgo", "sarama", "producer-"],
    "ConsumerGroupHeartbeat": ["rdkafka", "consumer-"],
    "DescribeAcls": ["rdkafka", "kafka-python", "kgo", "sarama", "adminclient-"],
    "CreateAcls": ["sarama"],
    "DeleteAcls": ["adminclient-"],
    "InitProducerId": ["wire"],
    "SaslAuthenticate": ["wire"],
    "AlterClientQuotas": ["wire"],
    "AlterUserScramCredentials": ["wire"],
    "SaslHandshake": ["rdkafka", "aiokafka", "kafka-python", "kgo", "sarama"],
}


def the_log_names_each_api():
    log = pathlib.Path(os.environ["BROKER_LOG"]).read_text(errors="replace")
    refused = [line for line in log.splitlines() if " is refused: " in line]
    for api, clients in LOGGED.items():
        lines = [line for line in refused if re.search(rf"\b{api} is refused", line)]
        missing = [client for client in clients if not any(f'client="{client}' in line for line in lines)]
        assert not missing, f"{api} was refused to {missing}, and the log does not say so: {lines}"
    # Each of these clients asks for both over one connection.
    listed, deleted = (sum(f"{api} is refused" in line and "adminclient-" in line for line in refused) for api in ("DescribeAcls", "DeleteAcls"))
    assert listed == deleted, f"{listed} listings and {deleted} deletions of ACLs were logged"


def old_java(suite):
    """Kafka's own client as it was, in the versions that are installed."""
    install = subprocess.run([HERE / "java/clients.sh"], check=True, capture_output=True, text=True)
    classes = broker.CACHE / "java-old-refusals"
    program.build(classes, "Cases", "OldRefusals")
    for version, jars in (line.split(" ", 1) for line in install.stdout.splitlines()):
        suite.relay(program.old_java(classes, jars, "OldRefusals", version), preexec_fn=broker.die_with_parent)


def kafka_python(suite):
    install = subprocess.run([HERE / "python/install.sh"], check=True, capture_output=True, text=True)
    home = pathlib.Path(install.stdout.strip())
    command = [home / "python/bin/python", HERE / "python/refusals.py"]
    environment = dict(os.environ, PYTHONPATH=str(home / "suite"))
    suite.relay(command, env=environment, preexec_fn=broker.die_with_parent)


def main():
    suite = cases.Suite("refusals")
    if os.environ["BROKER_KIND"] != "kafka":
        suite.case("librdkafka-transactions", librdkafka_transactions, 2 * LIMIT)
        suite.case("librdkafka-consumer-protocol", librdkafka_consumer_protocol, 2 * LIMIT)
        suite.case("aiokafka-transactions", aiokafka_transactions, 2 * LIMIT)
    suite.case("librdkafka-sasl", librdkafka_sasl, 2 * LIMIT)
    suite.case("librdkafka-listings", librdkafka_listings, 2 * LIMIT)
    suite.case("aiokafka-sasl", aiokafka_sasl, 2 * LIMIT)
    environment = dict(os.environ, SALT=SALT)
    suite.relay([str(broker.CACHE / "go" / "refusals")], env=environment, preexec_fn=broker.die_with_parent)
    classes = broker.CACHE / "java-refusals"
    program.build(classes, "Cases", "Refusals")
    suite.relay(program.java("Refusals", heap="256m", path=f"{classes}:"), preexec_fn=broker.die_with_parent)
    old_java(suite)
    kafka_python(suite)
    if os.environ["BROKER_KIND"] != "kafka":
        suite.case("beyond-these-clients", beyond_these_clients)
        suite.case("the-log-names-each-api", the_log_names_each_api)
    suite.end()


if __name__ == "__main__":
    main()
