"""Java programs beside a test: Kafka's own, and those compiled from the sources here."""

import pathlib
import subprocess
import threading

import broker

HERE = pathlib.Path(__file__).resolve().parent


def build(folder, *names):
    """Compiles these sources into the folder, unless that was done already."""
    sources = [HERE / f"{name}.java" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    built = [folder / f"{name}.class" for name in names]
    newest = max(source.stat().st_mtime for source in sources)
    if not all(one.exists() and one.stat().st_mtime >= newest for one in built):
        path = f"{broker.kafka_home()}/lib/*"
        subprocess.run(["javac", "-cp", path, "-d", str(folder), *map(str, sources)], check=True)


def java(*arguments, heap, path=""):
    """The command that runs a class with Kafka's jars, and those of `path`, which ends with a colon."""
    home = broker.kafka_home()
    machine = ["java", f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return [*machine, f"-Dlog4j2.configurationFile={home}/tools-log4j2.properties", "-cp", f"{path}{home}/lib/*", *arguments]


def old_java(classes, jars, *arguments):
    """The command that runs a compiled class with nothing but the jars of one version of Kafka's client."""
    return ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{classes}:{jars}/*", *arguments]


class Program:
    """A program whose lines are handed to a function as they come, and kept in a log."""

    def __init__(self, name, command, hear):
        self.hear = hear
        self.log = open(broker.LOGS / f"java-{name}.log", "ab")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, preexec_fn=broker.die_with_parent
        )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            self.log.write(line.encode())
            self.log.flush()
            self.hear(line.strip())

    def ended(self, limit=90):
        """Its exit code, once it and all that it has printed have come."""
        code = self.process.wait(limit)
        self.listener.join(5)
        return code

    def end(self, number):
        self.process.send_signal(number)
        return self.ended()
