#!/usr/bin/env python3
"""Prometheus against `sabir serve` under a little load: what docs/metrics.md, docs/monitoring and the broker say must agree.

Needs prometheus and promtool, and confluent-kafka.
"""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/lib"))
import broker
import cases

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

MONITORING = REPOSITORY / "docs/monitoring"
PAGE = REPOSITORY / "docs/metrics.md"
# How long Prometheus looks on before it is asked: rates want several scrapes.
WATCH = 12


class Load:
    """Producers and consumers for as long as the block lasts: one group keeps up, one is behind, and some requests fail."""

    def __init__(self, bootstrap):
        self.client = {"bootstrap.servers": bootstrap}
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=part, daemon=True) for part in (self.produce, self.consume, self.fail)]

    def __enter__(self):
        admin = AdminClient(self.client)
        for made in admin.create_topics([NewTopic("load", 3, 1), NewTopic("idle", 1, 1)]).values():
            made.result(20)
        self.leave_a_group_behind()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join(20)

    def leave_a_group_behind(self):
        producer = Producer(self.client)
        for i in range(50):
            producer.produce("load", b"early", partition=i % 3)
        producer.flush(20)
        consumer = self.consumer("behind")
        got = 0
        while got < 20:
            got += len(consumer.consume(20, 10))
        consumer.commit(asynchronous=False)
        consumer.close()

    def consumer(self, group):
        consumer = Consumer({**self.client, "group.id": group, "auto.offset.reset": "earliest"})
        consumer.subscribe(["load"])
        return consumer

    def produce(self):
        producer = Producer({**self.client, "linger.ms": 5})
        while not self.ending.is_set():
            for i in range(20):
                producer.produce("load", b"x" * 200, key=str(i))
            producer.poll(0)
            time.sleep(0.05)
        producer.flush(20)

    def consume(self):
        consumer = self.consumer("keeps-up")
        while not self.ending.is_set():
            consumer.consume(100, 0.2)
        consumer.close()

    def fail(self):
        admin = AdminClient(self.client)
        while not self.ending.wait(0.5):
            with contextlib.suppress(KafkaException):
                admin.create_topics([NewTopic("load", 1, 1)])["load"].result(10)


class Prometheus:
    """A real one, with the rules that docs/monitoring has."""

    def __init__(self, folder, scraped):
        self.folder = pathlib.Path(folder)
        self.scraped = scraped
        self.address = f"127.0.0.1:{broker.free_ports(1)[0]}"

    def __enter__(self):
        shutil.copy(MONITORING / "alerts.yml", self.folder)
        config = (MONITORING / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:15672", self.scraped)
        config = config.replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s")
        assert self.scraped in config and "evaluation" in config
        (self.folder / "prometheus.yml").write_text(config)
        with open(broker.LOGS / "prometheus-server.log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.folder}/prometheus.yml",
                    f"--storage.tsdb.path={self.folder}/data",
                    f"--web.listen-address={self.address}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=broker.die_with_parent,
            )
        deadline = time.monotonic() + 90
        while not self.ready():
            assert self.process.poll() is None, "prometheus has ended; see prometheus-server.log"
            assert time.monotonic() < deadline, "prometheus is not ready after 90 s"
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["error"]) from None

    def query(self, expression):
        """The values that an expression has now."""
        return [value for _, value in self.series(expression)]

    def series(self, expression):
        """The labels and value of each series that an expression has now."""
        return [(one["metric"], float(one["value"][1])) for one in self.get("query", query=expression)["result"]]


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def scrape(admin, accept=OPENMETRICS):
    request = urllib.request.Request(f"http://{admin}/metrics", headers={"accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers, answer.read().decode()


def exposed(admin):
    """Name and kind of every metric family that /metrics prints."""
    _, text = scrape(admin)
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def documented():
    """Name and kind of every metric that the page lists: rows that begin `| `name` | kind |`."""
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a metric stands twice on the page"
    return dict(rows)


def the_page_lists_what_is_printed(admin):
    page, found = documented(), {}
    for name, kind in exposed(admin).items():
        found[name + {"counter": "_total", "info": "_info"}.get(kind, "")] = kind
    assert page == found, (
        f"not on the page: {sorted(found.items() - page.items())}; not printed: {sorted(page.items() - found.items())}"
    )


def the_text_is_openmetrics(admin):
    headers, text = scrape(admin)
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"), headers
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    sample = re.compile(r'^[a-z_:][a-z0-9_:]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})? [-+0-9.eEInfNa]+$')
    families, seen = set(), set()
    for line in lines[:-1]:
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in families, f"{name} is declared twice"
            families.add(name)
        elif not line.startswith("#"):
            assert sample.match(line), line
            key = line.rsplit(" ", 1)[0]
            assert key not in seen, f"{key} stands twice"
            seen.add(key)


def the_older_text_passes_promtool(admin):
    """What `curl .../metrics | promtool check metrics` sees."""
    for accept in (None, "*/*", "text/plain; version=0.0.4"):
        headers, text = scrape(admin, accept)
        assert headers["content-type"].startswith("text/plain; version=0.0.4"), headers
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


def reasons_of_drops():
    """The labels that the code has: every protocol's, and the front ends' own."""
    common = (REPOSITORY / "crates/net/src/driver/ending.rs").read_text()
    own = "".join(path.read_text() for path in sorted(REPOSITORY.glob("protocols/*/src/server/**/*.rs")))
    labels = re.findall(r'Self::\w+ => "(\w+)",', common) + re.findall(r'OwnReason::new\(\s*"(\w+)"', own)
    assert len(labels) > 10, labels
    return set(labels)


def the_page_lists_every_reason(admin):
    """Labels that count why a connection was closed: as the code has them, as they are printed, and as the page says."""
    section = PAGE.read_text().split("### Why connections are closed")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert len(rows) == len(set(rows)), f"twice on the page: {rows}"
    _, text = scrape(admin)
    printed = set(re.findall(r'^sabir_dropped_connections_total\{.*reason="(\w+)"', text, re.MULTILINE))
    assert set(rows) == printed == reasons_of_drops(), (sorted(rows), sorted(printed), sorted(reasons_of_drops()))


def promtool_is_content():
    for what in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run(["promtool", *what], cwd=MONITORING, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        ["promtool", "test", "rules", str(REPOSITORY / "tests/admin/alerts_test.yml")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alerts_speak_of_what_there_is(prometheus):
    """A misspelt metric makes an alert that never fires."""
    known = set(prometheus.get("label/__name__/values"))
    rules = prometheus.get("rules")["groups"][0]["rules"]
    assert len(rules) > 10, rules
    for rule in rules:
        assert rule["health"] == "ok", rule
        names = set(re.findall(r"\b(?:sabir|process|kafka)_[a-z_]+|\bup\b", rule["query"]))
        assert names, rule["query"]
        assert names <= known, f"{rule['name']}: there is no {sorted(names - known)}"


def nothing_is_alarming(prometheus):
    # what is pending may be the machine's doing, such as another process that fills the disk just now
    alerts = [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"]
    assert not alerts, alerts


def panels():
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    assert all(v["name"] in ("datasource", "instance") for v in dashboard["templating"]["list"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def as_grafana_would(expression):
    """The expression with the variables' values in it."""
    filled = expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
    assert "$" not in filled, filled
    return filled


def every_panel_shows_something(prometheus):
    count, wrong = 0, []
    for title, expression in panels():
        count += 1
        values = prometheus.query(as_grafana_would(expression))
        if not any(value == value for value in values):
            wrong.append(f"{title}: {expression}: {values}")
    assert count > 40, f"only {count} queries"
    assert not wrong, f"{len(wrong)} of {count} show nothing: " + "; ".join(wrong)


# Panels that are looked for by name, the metric that each shows, and a label by which it tells its series apart.
NAMED_PANELS = {
    "Request latency, median": ("sabir_request_seconds_bucket", "api", {"Produce", "Fetch"}),
    "Request latency, 99th percentile": ("sabir_request_seconds_bucket", "api", {"Produce", "Fetch"}),
    "Bytes in, by topic": ("sabir_topic_received_bytes_total", "topic", {"load"}),
    "Bytes out, by topic": ("sabir_topic_sent_bytes_total", "topic", {"load"}),
}


def panels_are_there_by_name(prometheus):
    shown = {}
    for title, expression in panels():
        shown.setdefault(title, []).append(expression)
    for title, (metric, label, expected) in NAMED_PANELS.items():
        assert any(metric in expression for expression in shown.get(title, [])), f"{title}: {shown.get(title)} does not show {metric}"
        found = [one for expression in shown[title] for one in prometheus.series(as_grafana_would(expression))]
        named = {labels.get(label) for labels, value in found if value > 0}
        assert expected <= named, f"{title}: by {label} there is {found}"


def figures_are_right(prometheus):
    """What is known of the load is what Prometheus has."""
    assert prometheus.query("sabir_ready") == [1]
    assert prometheus.query('sabir_topic_partitions{topic="load"}') == [3]
    assert prometheus.query('kafka_topic_partitions{topic="load"}') == [3]
    assert prometheus.query('kafka_topic_partition_current_offset{topic="idle",partition="0"}') == [0]
    assert prometheus.query('sabir_group_members{group="keeps-up"}') == [1]
    assert prometheus.query('kafka_consumergroup_members{consumergroup="behind"}') == [0]
    # of one scrape, so that what is produced meanwhile does not matter
    for difference in (
        'sum(sabir_group_lag{group="behind"}) - sum(kafka_consumergroup_lag{consumergroup="behind"} >= 0)',
        'sum(kafka_consumergroup_lag_sum{consumergroup="behind"}) - sum(kafka_consumergroup_lag{consumergroup="behind"} >= 0)',
        'sum(kafka_topic_partition_current_offset{topic="load"}) - sum(sabir_topic_kept_records{topic="load"})',
    ):
        # two parts of one page are a moment apart
        (value,) = prometheus.query(difference)
        assert abs(value) <= 200, f"{difference} = {value}"
    (lag,) = prometheus.query('sum(sabir_group_lag{group="behind"})')
    assert lag >= 30, lag
    (failed,) = prometheus.query('sum(sabir_requests_total{api="CreateTopics",error="TOPIC_ALREADY_EXISTS"})')
    assert failed >= 1, failed
    (rate,) = prometheus.query("sum(rate(sabir_appended_records_total[10s]))")
    assert 20 < rate < 2000, rate


def main():
    suite = cases.Suite("prometheus")
    if broker.default_kind() != "sabir":
        suite.record("suite", "skip", reason="Kafka's broker has no such port")
        suite.end()
    suite.case("promtool", promtool_is_content)
    data = broker.scratch("prometheus")
    node = broker.make("sabir", data / "data", "prometheus-broker")
    try:
        node.start()
        with Load(node.bootstrap), Prometheus(data, node.admin) as prometheus:
            time.sleep(WATCH)
            suite.case("openmetrics", lambda: the_text_is_openmetrics(node.admin))
            suite.case("older-text", lambda: the_older_text_passes_promtool(node.admin))
            suite.case("reasons", lambda: the_page_lists_every_reason(node.admin))
            suite.case("page", lambda: the_page_lists_what_is_printed(node.admin))
            suite.case("figures", lambda: figures_are_right(prometheus))
            suite.case("dashboard", lambda: every_panel_shows_something(prometheus))
            suite.case("dashboard-by-name", lambda: panels_are_there_by_name(prometheus))
            suite.case("alerts", lambda: alerts_speak_of_what_there_is(prometheus))
            suite.case("quiet", lambda: nothing_is_alarming(prometheus))
    finally:
        node.stop()
        shutil.rmtree(data, ignore_errors=True)
    suite.end()


if __name__ == "__main__":
    main()
