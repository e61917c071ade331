"""A well-behaved client in a process of its own: produces a record and reads it back, again and again, whatever others do."""

import multiprocessing
import time

import wire

TOPIC = "well"
PAUSE = 0.004
# Records that it gets through, however soon the others are done.
LEAST = 20


class Bystander:
    """Runs between `with` and its end; then `report` says how it fared."""

    def __init__(self, address):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=behave, args=(address, theirs), daemon=True)
        self.process.start()
        assert self.ours.poll(30) and self.ours.recv() == "at work", "the well-behaved client does not get on"

    def end(self):
        """Milliseconds that its requests took, sorted; raises what went wrong with it."""
        self.ours.send("enough")
        assert self.ours.poll(30), "the well-behaved client does not answer any more"
        result = self.ours.recv()
        self.process.join(10)
        if isinstance(result, Exception):
            raise result
        return sorted(result)

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _trace):
        if kind:
            self.process.kill()
            return
        took = self.took = self.end()
        print(
            f"      beside it: {len(took)} records, p50 {took[len(took) // 2]:.2f} ms, p99 {took[len(took) * 99 // 100]:.2f} ms, "
            f"longest {took[-1]:.1f} ms",
            flush=True,
        )


def behave(address, pipe):
    try:
        connection = wire.Connection(address)
        took = []
        record = wire.batch([b"x" * 100])
        while len(took) < LEAST or not pipe.poll():
            began = time.monotonic()
            offset = connection.put(TOPIC, 0, record)
            took.append((time.monotonic() - began) * 1000)
            found = connection.get(TOPIC, 0, offset)
            assert found[21:] == record[21:], "another record than the one that was produced"
            if len(took) == 1:
                pipe.send("at work")
            time.sleep(PAUSE)
        pipe.send(took)
    except Exception as error:
        pipe.send(RuntimeError(f"the well-behaved client suffered: {type(error).__name__}: {error}"))
