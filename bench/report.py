"""The tables of docs/benchmarks.md."""

import datetime
import statistics

BEGIN, END = "<!-- measured by bench/run.py: begin -->", "<!-- measured by bench/run.py: end -->"
# What is shown of a run: key, heading, whether less is better.
COLUMNS = [
    ("msgs_per_s", "msg/s", False),
    ("p50_ms", "p50 ms", True),
    ("p99_ms", "p99 ms", True),
    ("confirm_p99_ms", "confirm p99 ms", True),
    ("drain_per_s", "drained/s", False),
    ("end_to_start", "rate at the end to that at the start", False),
    ("cpu", "CPU-s a million", True),
    ("rss_mib", "RSS MiB", True),
    ("written", "bytes written a byte", True),
]


def number(value):
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def line(found):
    return ", ".join(f"{heading} {number(found[key])}" for key, heading, _ in COLUMNS if key in found)


def spread(values):
    return f"{number(statistics.median(values))} [{number(min(values))}–{number(max(values))}]"


def values(runs, key):
    return [run[key] for run in runs if key in run]


def ratio(case, runs, key):
    """Sabir's median over the peer's; None where one of them has none."""
    sabir, peer = values(runs["sabir"], key), values(runs[case.peer], key)
    if not sabir or not peer or statistics.median(peer) == 0:
        return None
    return statistics.median(sabir) / statistics.median(peer)


def verdict(case, runs):
    """How Sabir stands to what was to be reached."""
    parts = []
    for key, wanted in case.targets.items():
        found = ratio(case, runs, key)
        _, heading, less = next(c for c in COLUMNS if c[0] == key)
        if found is None:
            parts.append(f"{heading}: not measured")
            continue
        reached = found <= wanted if less else found >= wanted
        parts.append(f"{heading} {found:.2f}x ({'≤' if less else '≥'} {wanted:.2f}: {'reached' if reached else '**not reached**'})")
    return "; ".join(parts)


CLIENTS = {
    "sabir": "`sabir bench`",
    "java": "Kafka's Java tools (producer-perf, consumer-perf)",
    "perf-test": "RabbitMQ's PerfTest",
    "sabir-queues": "`sabir bench --proto amqp`",
}


def shown(rows):
    """The columns in which some run of these has a figure."""
    return [column for column in COLUMNS if any(values(of_kind, column[0]) for _case, runs in rows for of_kind in runs.values())]


def tables(rows):
    out = []
    for client, name in CLIENTS.items():
        of_client = [(case, runs) for case, runs in rows if case.client == client]
        if not of_client:
            continue
        columns = shown(of_client)
        out += [f"### Client: {name}", ""]
        out += ["| case | broker | " + " | ".join(h for _, h, _ in columns) + " |", "| --- | --- |" + " --- |" * len(columns)]
        for case, runs in of_client:
            for kind in ("sabir", case.peer):
                cells = [spread(v) if (v := values(runs[kind], key)) else "–" for key, _, _ in columns]
                out.append(f"| {case.what if kind == 'sabir' else ''} | {kind} | " + " | ".join(cells) + " |")
        out.append("")
        for case, runs in of_client:
            if case.targets:
                out.append(f"- {case.what}: {verdict(case, runs)}")
        out.append("")
    return out


def page(rows, starts, recovery, asked, charts=()):
    day = datetime.date.today().isoformat()
    kafka = "leaves records in the page cache (its default)" if asked.against == "os" else "syncs each append"
    out = [
        BEGIN,
        f"Measured on {day} with `bench/run.py --rounds {asked.rounds} --scale {asked.scale:g} --against {asked.against}`. Sabir syncs what it "
        f"acknowledges; Kafka {kafka}. Medians of {asked.rounds} runs, [lowest–highest]; a ratio is Sabir's median over the peer's.",
        "",
        *tables(rows),
        *(f"![{title}](images/{path.name})" for path, title in charts),
        *([""] if charts else []),
        "### Start and memory",
        "",
        "| | |",
        "| --- | --- |",
        f"| start to ready, new data directory | {spread(starts['first'])} ms |",
        f"| start to ready, after a clean close (≤ 100) | {spread(starts['clean'])} ms |",
        f"| idle (≤ 30) | {spread(starts['idle_mib'])} MiB |",
    ]
    if recovery:
        out.append(f"| start to ready after kill -9, {asked.recovery:g} GiB of journal (≤ 3) | {spread(recovery)} s |")
    return "\n".join([*out, END])


def write(path, text):
    """Puts it between the marks; what else stands in the file stays."""
    old = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    head, found, rest = old.partition(BEGIN)
    if not found:
        raise SystemExit(f"{path} has no place for the figures: put {BEGIN} and {END} where they belong")
    path.write_text(head + text + rest.partition(END)[2])
