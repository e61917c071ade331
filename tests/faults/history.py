"""What clients saw, and what of it must not be.

Writers, readers and group members report here what happened to them, from their own threads; `problems` says what contradicts the
broker's promises:

- a record that was acknowledged is in the log, at the offset that the acknowledgement named;
- no record is in the log twice, each writer's records stand in the order in which they were sent, and once all writers have been
  answered there is none that no acknowledgement spoke of;
- an offset always shows the same record, and offsets run on without a gap;
- a group goes on where it committed: not before its last acknowledged commit, and not past what it has tried to commit.
"""

import collections
import dataclasses
import threading

# A record is known by its writer's name and its number among what this writer sent to this partition.
Record = collections.namedtuple("Record", "writer number")


@dataclasses.dataclass
class Partition:
    """What is known of one partition."""

    # offset -> Record, as anybody ever saw it there
    seen: dict = dataclasses.field(default_factory=dict)
    # Record -> offset, as acknowledged
    acknowledged: dict = dataclasses.field(default_factory=dict)
    # the next offset to be read by a group, as far as the broker has said yes, and as far as it was asked
    committed: int = 0
    commit_tried: int = 0
    # offsets that the group's members have read
    group_read: set = dataclasses.field(default_factory=set)
    # Record -> offset, as the whole log was read last
    log: dict = dataclasses.field(default_factory=dict)


class History:
    """Everything that clients saw of one topic in one run."""

    def __init__(self):
        self.lock = threading.Lock()
        self.partitions = collections.defaultdict(Partition)
        # (member, partition) -> the offset that it must read next; None after an assignment
        self.next = {}
        self.failed = collections.Counter()
        # kind -> what was found, in order and each thing once, however often the log is read
        self.found = {}

    def problem(self, kind, text):
        self.found.setdefault(kind, {})[text] = True

    def problems(self):
        """One line for each kind of broken promise, with the first as an example."""
        return [f"{kind} ({len(texts)} times): {next(iter(texts))}" for kind, texts in self.found.items()]

    def count(self, kind):
        return len(self.found.get(kind, ()))

    def report(self, kind, text):
        """A client has found something by itself."""
        with self.lock:
            self.problem(kind, text)

    # What writers report

    def acknowledged(self, partition, record, offset):
        """`offset` is None where the broker has not said it: a repeated batch has to be answered with its first offset too."""
        with self.lock:
            p = self.partitions[partition]
            if offset is None:
                self.problem("acknowledged without an offset", f"{record} in {partition}")
                p.acknowledged.setdefault(record, None)
                return
            before = p.acknowledged.setdefault(record, offset)
            if before != offset:
                self.problem("acknowledged twice", f"{record} in {partition} at {before} and {offset}")
            self.see(p, partition, offset, record)

    def gave_up(self, error):
        """A writer does not know what became of a record: it may be in the log, once."""
        with self.lock:
            self.failed[str(error)] += 1

    # What readers report

    def see(self, p, partition, offset, record):
        before = p.seen.setdefault(offset, record)
        if before != record:
            self.problem("an offset changed", f"partition {partition} offset {offset} was {before}, now {record}")

    def assigned(self, member, partition):
        with self.lock:
            self.next[member, partition] = None

    def read(self, member, partition, offset, record):
        """A group member has read a record."""
        with self.lock:
            p = self.partitions[partition]
            self.see(p, partition, offset, record)
            expected = self.next.get((member, partition))
            if expected is None:
                self.begins(p, member, partition, offset)
            elif offset != expected:
                self.problem("a reader jumped", f"{member} in partition {partition}: {offset} comes after {expected - 1}")
            p.group_read.add(offset)
            self.next[member, partition] = offset + 1

    def begins(self, p, member, partition, offset):
        if offset < p.committed:
            self.problem("read again after the commit", f"{member} begins partition {partition} at {offset}, {p.committed} was committed")
        if offset > p.commit_tried:
            self.problem("skipped by the group", f"{member} begins partition {partition} at {offset}, {p.commit_tried} was tried at most")

    def commit_tried(self, partition, offset):
        with self.lock:
            p = self.partitions[partition]
            p.commit_tried = max(p.commit_tried, offset)

    def commit_acknowledged(self, partition, offset):
        with self.lock:
            p = self.partitions[partition]
            p.committed = max(p.committed, offset)

    def committed_is(self, partition, offset):
        """What the broker answers when nobody is committing."""
        with self.lock:
            p = self.partitions[partition]
            if not p.committed <= offset <= p.commit_tried:
                text = f"partition {partition}: {offset}, but {p.committed} was acknowledged and {p.commit_tried} tried"
                self.problem("a committed offset is wrong", text)

    # The end

    def log_is(self, partition, log):
        """Judges the whole log of a partition: (offset, Record) in the order in which it is read."""
        with self.lock:
            p = self.partitions[partition]
            at, last = {}, {}
            expected = 0
            for offset, record in log:
                if offset != expected:
                    self.problem("a gap in the offsets", f"partition {partition}: {offset} comes after {expected - 1}")
                expected = offset + 1
                self.see(p, partition, offset, record)
                self.place(partition, offset, record, at, last)
            for record, offset in p.acknowledged.items():
                if record not in at:
                    self.problem("an acknowledged record is lost", f"{record} of partition {partition}, acknowledged at {offset}")
            p.log = at
            for offset in p.seen:
                if offset >= expected:
                    self.problem("a record that was read is lost", f"{p.seen[offset]} at {offset} of partition {partition}")
                    break

    def place(self, partition, offset, record, at, last):
        if record in at:
            self.problem("a record is in the log twice", f"{record} in partition {partition} at {at[record]} and {offset}")
        elif record.number < last.get(record.writer, -1):
            text = f"{record} in partition {partition} at {offset} after number {last[record.writer]}"
            self.problem("a writer's order is broken", text)
        at.setdefault(record, offset)
        last[record.writer] = max(record.number, last.get(record.writer, -1))

    def all_were_answered(self):
        """Where no writer was left without an answer, what is in the log was acknowledged."""
        with self.lock:
            for number, p in self.partitions.items():
                for record in p.log.keys() - p.acknowledged.keys() if not self.failed else ():
                    self.problem("a record that nobody sent", f"{record} of partition {number} at {p.log[record]}")

    def group_has_read_all(self):
        with self.lock:
            for number, p in self.partitions.items():
                missing = p.seen.keys() - p.group_read
                if missing:
                    self.problem("the group never read a record", f"partition {number} offset {min(missing)} of {len(missing)}")

    def group_is_behind(self):
        """Records that somebody saw in the log and the group has not read yet."""
        with self.lock:
            return sum(len(p.seen.keys() - p.group_read) for p in self.partitions.values())

    def counts(self):
        with self.lock:
            return {
                "acknowledged": sum(len(p.acknowledged) for p in self.partitions.values()),
                "in the log": sum(len(p.seen) for p in self.partitions.values()),
                "given up": sum(self.failed.values()),
                "committed": sum(p.committed for p in self.partitions.values()),
            }
