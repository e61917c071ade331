"""Bar charts of the runs, as SVG: Sabir's and the peer's medians side by side, with a line from the lowest to the highest run."""

import statistics
from xml.sax.saxutils import escape

import report

# file name -> (key of a run, title)
CHARTS = {
    "throughput": ("msgs_per_s", "Messages a second (longer is better)"),
    "cpu": ("cpu", "Broker CPU seconds for a million messages (shorter is better)"),
    "p99": ("p99_ms", "99th percentile of latency at a fixed rate, ms (shorter is better)"),
}
COLOURS = {"sabir": "#1f6f8b", "kafka": "#b08968", "rabbitmq": "#d9772b"}
NAMES = {"sabir": "Sabir", "kafka": "Apache Kafka", "rabbitmq": "RabbitMQ"}
LABELS, BARS, NUMBERS, ROW, HEAD = 300, 380, 100, 46, 64


def shown(name, case):
    """Without a rate, latency says how long the client's queue is; with one, throughput says what was asked for."""
    return {"throughput": not case.rate, "p99": bool(case.rate), "cpu": True}[name]


def bar(y, kind, values, most):
    """One bar, its spread and its number."""
    scale = BARS / most
    median = statistics.median(values)
    low, high = LABELS + min(values) * scale, LABELS + max(values) * scale
    middle = y + 8
    return [
        f'<rect x="{LABELS}" y="{y}" width="{max(median * scale, 1):.1f}" height="16" fill="{COLOURS[kind]}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" stroke="#000" stroke-opacity="0.55"/>',
        f'<text x="{max(high, LABELS) + 8:.1f}" y="{y + 13}">{escape(report.number(median))}</text>',
    ]


def chart(title, key, rows):
    width, height = LABELS + BARS + NUMBERS, HEAD + ROW * len(rows) + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for at, kind in enumerate(kind for kind in COLOURS if any(kind in runs for _case, runs in rows)):
        name = NAMES[kind]
        x = 12 + 110 * at
        out += [f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[kind]}"/>', f'<text x="{x + 18}" y="47">{name}</text>']
    for at, (case, runs) in enumerate(rows):
        y = HEAD + ROW * at
        # each case has a scale of its own: what counts is how the two stand to each other
        most = max(max(report.values(of_kind, key)) for of_kind in runs.values())
        client = {"sabir": "sabir bench", "java": "Java", "perf-test": "PerfTest", "sabir-queues": "sabir bench"}[case.client]
        out.append(f'<text x="{LABELS - 10}" y="{y + 14}" text-anchor="end">{escape(case.what)}</text>')
        out.append(f'<text x="{LABELS - 10}" y="{y + 31}" text-anchor="end" fill="#666" font-size="11">{client}</text>')
        out += bar(y, "sabir", report.values(runs["sabir"], key), most)
        out += bar(y + 18, case.peer, report.values(runs[case.peer], key), most)
    return "\n".join([*out, "</svg>", ""])


def write(folder, rows):
    """Draws what there are figures for into a folder; gives the files with their titles."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (key, title) in CHARTS.items():
        drawn = [(case, runs) for case, runs in rows if shown(name, case) and all(report.values(of_kind, key) for of_kind in runs.values())]
        if drawn:
            path = folder / f"benchmark-{name}.svg"
            path.write_text(chart(title, key, drawn))
            written.append((path, title))
    return written
