#!/usr/bin/env python3
"""What a power cut costs with each broker's default settings, and what with others: a table, from one run of the same load after the
other. Needs root, Kafka's jars and confluent-kafka (./test power-kafka brings them).

    table.py [--times CUTS] [--seconds LONGEST] [--write docs/power-cut.md]
"""

import argparse
import datetime
import os
import pathlib
import platform
import shutil
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import broker as brokers
import loop
import powercut

# name, kind, disk, settings, whether each append is flushed. Without a sync, direct writes would stay on this kind of disk.
ROWS = [
    ("Sabir, as it comes (`sync`, io_uring)", "sabir", "auto", [], False),
    ("Sabir, `data.disk=pwrite`", "sabir", "pwrite", [], False),
    ("Sabir, `data.disk=pwrite`, `data.durability=os`", "sabir", "pwrite", ["data.durability=os"], False),
    ("Kafka 4.3.1, as it comes", "kafka", "auto", [], False),
    ("Kafka 4.3.1, `log.flush.interval.messages=1`", "kafka", "auto", [], True),
]
BEGIN, END = "<!-- begin of what table.py writes -->", "<!-- end of what table.py writes -->"


def run(asked, kind, disk, settings, flush):
    """One run to its end, or to where it could not go on; the reason is the last of its remarks."""
    asked = argparse.Namespace(**vars(asked), fault="power", kind=kind, disk=disk, set=settings, flush=flush)
    folder = brokers.scratch(f"power-table-{kind}")
    done = loop.Run(asked, folder)
    remark = ""
    try:
        done.go()
    except Exception as error:
        remark = f"; ended with {type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        done.end()
        shutil.rmtree(folder, ignore_errors=True)
    loop.report(done)
    return done, remark


def row(name, done, remark):
    counts, found = done.history.counts(), done.history.count
    cells = [
        name,
        f"{counts['acknowledged']:,}",
        f"{found(loop.LOST):,}",
        f"{found(loop.TWICE):,}",
        f"{found(loop.MOVED):,}",
        f"{found(loop.AGAIN):,}",
        f"{statistics.median(done.starts[1:]):.2f} s, {max(done.starts[1:]):.2f} s{remark}",
    ]
    return "| " + " | ".join(cells) + " |"


def table(asked):
    lines = [
        f"Seen on {datetime.date.today()}, {os.cpu_count()} cores, Linux {'.'.join(platform.release().split('.')[:2])}, ext4 on a loop device; {asked.times} cuts, up to "
        f"{asked.seconds:g} s of load before each; seed {asked.seed}.",
        "",
        "| broker | acknowledged | of these lost | twice in the log | offsets that changed their record | read again though committed | "
        "ready again, median and longest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, *how in ROWS:
        print(f"==== {name}", flush=True)
        lines.append(row(name, *run(asked, *how)))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--least", type=float, default=5.0, help="the shortest time between two cuts")
    parser.add_argument("--seconds", type=float, default=10.0, help="the longest")
    parser.add_argument("--rate", type=int, default=2000, help="records a second and writer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=pathlib.Path, help="a file whose marked part is replaced")
    asked = parser.parse_args()
    lacking = powercut.missing()
    if lacking:
        sys.exit(lacking)
    write, text = asked.write, asked.write.read_text() if asked.write else ""
    del asked.write
    result = table(asked)
    print(result)
    if write:
        before, _, after = text.partition(BEGIN)
        write.write_text(f"{before}{BEGIN}\n{result}\n{END}{after.partition(END)[2]}")


if __name__ == "__main__":
    main()
