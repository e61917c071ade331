"""The broker under test: Sabir, or the original as the control that shows what a client expects: Apache Kafka, RabbitMQ.

    python3 tests/lib/broker.py [--kind sabir|kafka|rabbitmq] [--partitions N] [--set KEY=VALUE]... -- COMMAND...

starts a fresh one, runs the command with BOOTSTRAP (host:port of Kafka's protocol), AMQP (host:port), BROKER_KIND, BROKER_PID and, of
Sabir, BROKER_ADMIN (http://host:port) in its environment, and ends it. From Python: `make(kind, data)`, then `start`, `kill`, `stop`.

What it takes from the environment: BROKER (the kind), SABIR_BIN, SABIR_CACHE (where the originals lie), TEST_LOGS, TEST_VARIANT (stands in the
names of logs).
"""

import argparse
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("SABIR_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'}/sabir")
LOGS = pathlib.Path(os.environ.get("TEST_LOGS") or REPOSITORY / "target/test-logs")


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """In the child: the kernel kills it when the harness ends, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker:
    """One broker with its data directory, started and ended as often as a test likes. Its address stays the same."""

    kind = ""
    # Seconds within which a start must succeed, recovery included.
    start_limit = 120

    def __init__(self, data, log_name):
        self.data = pathlib.Path(data)
        self.port, self.second_port, self.amqp_port = free_ports(3)
        self.process = None
        LOGS.mkdir(parents=True, exist_ok=True)
        variant = os.environ.get("TEST_VARIANT")
        self.log_path = LOGS / (f"{log_name}-{variant}.log" if variant else f"{log_name}.log")
        self.log_path.write_bytes(b"")

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def amqp(self):
        """Where AMQP clients find it."""
        return f"127.0.0.1:{self.amqp_port}"

    @property
    def pid(self):
        return self.process.pid

    def command(self):
        raise NotImplementedError

    def prepare(self):
        """What must happen once before the first start."""

    def ready(self):
        """Whether clients are served."""
        raise NotImplementedError

    def start(self):
        """Starts it and returns after how many seconds it was ready."""
        assert self.process is None, "it runs already"
        self.prepare()
        began = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        while not self.ready():
            code = self.process.poll()
            if code is not None:
                self.process = None
                raise RuntimeError(f"the broker ended with {code} while it started; the end of {self.log_path}:\n{self.log_end()}")
            if time.monotonic() - began > self.start_limit:
                self.kill()
                raise RuntimeError(f"the broker is not ready after {self.start_limit} s; the end of {self.log_path}:\n{self.log_end()}")
            time.sleep(0.01)
        return time.monotonic() - began

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.process.wait(90)
        self.process = None

    def stop(self, limit=60):
        """Asks it to end; that it does, in time and with code 0, is for the caller to judge by what this returns."""
        if self.process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(limit)
            self.process = None
            return code
        except subprocess.TimeoutExpired:
            self.kill()
            return "killed, since it had not ended in time"

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def memory(self, name):
        """Bytes by the kernel's name for them: VmRSS, what is resident now; VmHWM, the most that was."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{name}:"))

    def log_end(self, lines=15):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


class Sabir(Broker):
    """`sabir serve`."""

    kind = "sabir"
    start_limit = 90

    def __init__(self, data, log_name="sabir", disk="auto", settings=()):
        super().__init__(data, log_name)
        self.disk = disk
        self.settings = list(settings)
        self.binary = os.environ.get("SABIR_BIN") or str(REPOSITORY / "target/debug/sabir")

    @property
    def admin(self):
        return f"127.0.0.1:{self.second_port}"

    def command(self):
        settings = [
            "net.default_listen=off",
            f"kafka.listen=127.0.0.1:{self.port}",
            f"amqp.listen={self.amqp}",
            f"admin.listen={self.admin}",
            f"data.disk={self.disk}",
            *self.settings,
        ]
        return [self.binary, "serve", "--data", str(self.data), *(a for s in settings for a in ("--set", s))]

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


# A small JVM start, as the figures that count are taken by bench/ with Kafka's own flags.
JVM = ["java", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]


def kafka_home():
    """The folder of Kafka's jars; bench/peers/kafka.sh puts them there."""
    home = pathlib.Path(os.environ.get("PEERS_HOME") or CACHE / "peers") / "kafka"
    if not (home / ".installed").exists():
        install = subprocess.run(["bash", str(REPOSITORY / "bench/peers/kafka.sh"), "install"], capture_output=True, text=True)
        if install.returncode:
            raise RuntimeError(f"Kafka's jars cannot be had: {install.stderr}")
    return home


class Kafka(Broker):
    """Apache Kafka, one KRaft node. `flush` makes it sync each append, which it does not do by itself."""

    kind = "kafka"

    def __init__(self, data, log_name="kafka", flush=False, settings=()):
        super().__init__(data, log_name)
        self.home = kafka_home()
        self.flush = flush
        self.settings = list(settings)

    @property
    def properties(self):
        return self.data / "server.properties"

    def java(self, main, *arguments):
        config = f"-Dlog4j2.configurationFile={self.home}/broker-log4j2.properties"
        return [*JVM, config, "-cp", f"{self.home}/lib/*", main, *arguments]

    def prepare(self):
        if self.properties.exists():
            return
        self.data.mkdir(parents=True, exist_ok=True)
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.bootstrap.servers=127.0.0.1:{self.second_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.second_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.second_port}",
            "inter.broker.listener.name=PLAINTEXT",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={self.data}/log",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            # so that ACLs can be listed and made; they keep nobody out
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "allow.everyone.if.no.acl.found=true",
            # A broker that was killed is let in again only when the controller has missed it.
            "broker.session.timeout.ms=3000",
            "broker.heartbeat.interval.ms=500",
            *(["log.flush.interval.messages=1"] if self.flush else []),
            *self.settings,
        ]
        self.properties.write_text("\n".join(lines) + "\n")
        format_storage = self.java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(self.properties)
        )
        done = subprocess.run(format_storage, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage cannot be formatted: {done.stdout}{done.stderr}")
        # Nobody's power is cut in the second in which he has set his broker up.
        subprocess.run(["sync", "--file-system", str(self.data)], check=True)

    def command(self):
        return self.java("kafka.Kafka", str(self.properties))

    def ready(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


class RabbitMq(Broker):
    """RabbitMQ, one node without its management API. bench/peers/rabbitmq.sh knows how it is run."""

    kind = "rabbitmq"
    peer = REPOSITORY / "bench/peers/rabbitmq.sh"

    def __init__(self, data, log_name="rabbitmq"):
        super().__init__(data, log_name)
        self.names_port = free_ports(1)[0]

    def command(self):
        places = {
            "PEERS_DATA": str(self.data),
            "RABBITMQ_PORT": str(self.amqp_port),
            "RABBITMQ_DIST_PORT": str(self.second_port),
            "RABBITMQ_EPMD_PORT": str(self.names_port),
            "RABBITMQ_MANAGEMENT_PORT": "off",
        }
        return ["env", *(f"{name}={value}" for name, value in places.items()), "bash", str(self.peer), "run"]

    def ready(self):
        """It listens before it serves: what answers is the protocol's first frame."""
        try:
            with socket.create_connection(("127.0.0.1", self.amqp_port), 1) as connection:
                connection.settimeout(5)
                connection.sendall(b"AMQP\0\0\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False


# What both are set up with. Consumers that start together are dealt their partitions together, and one that starts alone is not kept
# waiting for long. It is looked for expired records as often as Kafka does by default: cases that write records of long ago must find
# them a moment later.
SABIR_SETTINGS = ["group.initial_rebalance_delay=500ms", "data.retention_interval=5m"]
KAFKA_SETTINGS = ["group.initial.rebalance.delay.ms=500"]


# A JVM that ends by a signal says 143; a broker that drains and closes says 0.
CLEAN_ENDS = {"sabir": (0,), "kafka": (0, 143), "rabbitmq": (0,)}


def make(kind, data, log_name=None, partitions=1, disk="auto", settings=(), flush=False, min_session_ms=6000):
    """A broker that is not started yet. `partitions` is what an auto-created topic gets."""
    if kind == "sabir":
        own = [f"kafka.num_partitions={partitions}", f"group.min_session_timeout={min_session_ms}ms", *SABIR_SETTINGS]
        return Sabir(data, log_name or "sabir", disk, [*own, *settings])
    if kind == "kafka":
        own = [f"num.partitions={partitions}", f"group.min.session.timeout.ms={min_session_ms}", *KAFKA_SETTINGS]
        return Kafka(data, log_name or "kafka", flush, [*own, *settings])
    if kind == "rabbitmq":
        return RabbitMq(data, log_name or "rabbitmq")
    raise ValueError(f"no such broker: {kind}")


def default_kind():
    return os.environ.get("BROKER") or "sabir"


def scratch(name):
    """A new folder for a broker's data, on the disk that holds the logs: /tmp may be memory, which is no test of a disk."""
    LOGS.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=LOGS))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default=default_kind(), choices=["sabir", "kafka", "rabbitmq"])
    parser.add_argument("--name", default="broker", help="the name of its log file")
    parser.add_argument("--partitions", type=int, default=1, help="of an auto-created topic")
    parser.add_argument("--min-session", type=int, default=6000, help="the shortest session timeout of a group's member, in ms")
    parser.add_argument("--disk", default="auto")
    parser.add_argument("--set", action="append", default=[], help="a setting in the broker's own words")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    data = scratch(asked.name)
    broker = make(asked.kind, data / "data", f"{asked.name}-broker", asked.partitions, asked.disk, asked.set, min_session_ms=asked.min_session)
    try:
        broker.start()
        environment = dict(os.environ, BOOTSTRAP=broker.bootstrap, AMQP=broker.amqp, BROKER_KIND=broker.kind, BROKER_PID=str(broker.pid))
        environment["BROKER_LOG"] = str(broker.log_path)
        if asked.kind == "sabir":
            environment["BROKER_ADMIN"] = f"http://{broker.admin}"
        code = subprocess.run(asked.command, env=environment).returncode
        if not broker.alive():
            print(f"the broker died meanwhile; the end of {broker.log_path}:\n{broker.log_end()}", file=sys.stderr)
            code = code or 1
        ended = broker.stop()
        if ended not in CLEAN_ENDS[broker.kind]:
            print(f"the broker did not close cleanly: {ended}; the end of {broker.log_path}:\n{broker.log_end()}", file=sys.stderr)
            code = code or 1
    finally:
        if broker.alive():
            broker.kill()
        shutil.rmtree(data, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
