"""What is not served, asked by kafka-python: run by ../refusals.py with the interpreter that has it. Prints what cases.py relays."""

import logging
import os
import sys
import time
import traceback

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.admin import (
    ACLFilter, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePatternFilter, ResourceType,
)

BOOTSTRAP = {"bootstrap_servers": os.environ["BOOTSTRAP"]}
SASL = {
    "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "p",
}
LIMIT = 20


def refused(error, call):
    try:
        found = call()
    except error as refusal:
        return str(refusal)
    raise AssertionError(f"not refused: {found}")


def transactions():
    producer = KafkaProducer(**BOOTSTRAP, transactional_id=f"t-{time.time_ns():x}")
    assert "ClusterAuthorizationFailed" in refused(errors.KafkaError, producer.init_transactions)
    producer.close(timeout=1)


def listings():
    admin = KafkaAdminClient(**BOOTSTRAP)
    resources = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    everything = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, resources)
    assert "Authorizer" in refused(errors.SecurityDisabledError, lambda: admin.describe_acls(everything))
    assert not admin.describe_user_scram_credentials(), "users"
    assert not any(admin.list_transactions().values()), "transactions"
    admin.close()


def sasl():
    """The error that it raises names nothing; its log does."""
    logged = Logged()
    logging.getLogger("kafka").addHandler(logged)
    for make in (KafkaAdminClient, KafkaProducer, KafkaConsumer):
        # Whatever a broker answers to a login, it tries again until this time is over.
        logged.lines.clear()
        refused(errors.KafkaError, lambda: make(**BOOTSTRAP, **SASL, bootstrap_timeout_ms=1000))
        assert any("IllegalSaslState" in line for line in logged.lines), (make, logged.lines)


class Logged(logging.Handler):
    """What a client logs."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def case(name, run):
    began = time.monotonic()
    try:
        run()
        reason = ""
    except Exception as error:
        traceback.print_exc()
        reason = repr(error)
    seconds = time.monotonic() - began
    if seconds > LIMIT:
        reason = reason or f"it took longer than {LIMIT} s"
    print("case", f"kafka-python-{name}", "fail" if reason else "pass", f"{seconds:.1f}", " ".join(reason.split()), sep="\t", flush=True)


def main():
    if os.environ["BROKER_KIND"] != "kafka":
        case("transactions", transactions)
        # the control has an authorizer
        case("listings", listings)
    case("sasl", sasl)
    print("cases\tend", flush=True)


if __name__ == "__main__":
    sys.exit(main())
