"""What publishers and consumers of queues saw, and what of it must not be.

- A message that was confirmed is delivered, in each queue that it was for, with the content that was sent.
- A message that was acknowledged does not come again, unless the acknowledgement was on its way when the broker was killed or the
  connection was cut: one that was sent a second before has arrived, and so has each that came before an answer on its channel.
- A message that comes a second time is marked as redelivered.
- What comes for the first time comes in the order in which its publisher has sent it.
"""

import collections
import dataclasses
import threading
import time

# A message is known by the queue, its publisher's name and its number among this one's.
Message = collections.namedtuple("Message", "queue publisher number")

LOST, AGAIN = "a confirmed message is lost", "acknowledged, and delivered again"
UNMARKED, ORDER = "delivered again without the mark", "delivered out of order"
DAMAGED, REFUSED = "a message is damaged", "a message was refused"
# Seconds after which an acknowledgement has arrived.
ON_ITS_WAY = 1.0


@dataclasses.dataclass
class Fate:
    """What became of one message."""

    confirmed: bool = False
    deliveries: int = 0
    # when it was acknowledged last, and by whom
    acknowledged: float | None = None
    consumer: str = ""


class Deliveries:
    """Everything that clients saw in one run."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.lock = threading.Lock()
        self.fates = collections.defaultdict(Fate)
        self.kills = []
        # consumer -> when its connection was cut, if it was
        self.cut = {}
        # (consumer, publisher) -> the highest number that it had unmarked
        self.highest = {}
        self.found = {}
        self.confirmed_count = self.acknowledged_count = 0

    def report(self, kind, text):
        with self.lock:
            self.problem(kind, text)

    def problem(self, kind, text):
        self.found.setdefault(kind, []).append(text)

    def problems(self):
        """One line for each kind of broken promise, with the first as an example."""
        return [f"{kind} ({len(texts)} times): {texts[0]}" for kind, texts in self.found.items()]

    def count(self, kind):
        return len(self.found.get(kind, ()))

    def killed(self):
        with self.lock:
            self.kills.append(self.clock())

    def left(self, consumer):
        """Its connection has ended, and not in the orderly way."""
        with self.lock:
            self.cut[consumer] = self.clock()

    def confirmed(self, messages):
        with self.lock:
            for message in messages:
                self.fates[message].confirmed = True
            self.confirmed_count += len(messages)

    def delivered(self, consumer, message, redelivered):
        """A consumer, whose name it has for one connection alone, has been delivered a message."""
        with self.lock:
            fate = self.fates[message]
            fate.deliveries += 1
            if fate.deliveries > 1 and not redelivered:
                self.problem(UNMARKED, f"{message}, delivery {fate.deliveries}")
            if fate.acknowledged is not None:
                self.after_acknowledgement(message, fate)
            if not redelivered:
                self.in_order(consumer, message)

    def after_acknowledgement(self, message, fate):
        """The acknowledgement may have been lost on its way."""
        ends = [*self.kills, *([self.cut[fate.consumer]] if fate.consumer in self.cut else [])]
        end = min((e for e in ends if e >= fate.acknowledged), default=None)
        if end is None:
            self.problem(AGAIN, f"{message}, and nothing has happened since")
        elif end - fate.acknowledged > ON_ITS_WAY:
            self.problem(AGAIN, f"{message}, acknowledged {end - fate.acknowledged:.2f} s before the end")

    def in_order(self, consumer, message):
        key = (consumer, message.queue, message.publisher)
        if message.number <= self.highest.get(key, -1):
            self.problem(ORDER, f"{message} after {self.highest[key]}")
        self.highest[key] = message.number

    def acknowledged(self, consumer, messages):
        """Called when it was sent: nobody answers."""
        with self.lock:
            for message in messages:
                self.fates[message].acknowledged = self.clock()
                self.fates[message].consumer = consumer
            self.acknowledged_count += len(messages)

    def counts(self):
        with self.lock:
            return {"confirmed": self.confirmed_count, "acknowledged": self.acknowledged_count}

    def outstanding(self):
        """How many confirmed messages nobody has acknowledged yet."""
        with self.lock:
            return sum(fate.confirmed and fate.acknowledged is None for fate in self.fates.values())

    def all_have_come(self):
        """At the end, when the queues are empty."""
        with self.lock:
            for message, fate in self.fates.items():
                if fate.confirmed and not fate.deliveries:
                    self.problem(LOST, str(message))
