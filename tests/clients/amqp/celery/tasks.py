"""What the workers of the Celery suite do. The broker is at AMQP (host:port), results are kept in the file that RESULTS names."""

import os
import time

import celery

app = celery.Celery("tasks", broker=f"amqp://guest:guest@{os.environ['AMQP']}//", backend=f"db+sqlite:///{os.environ['RESULTS']}")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=f"celery-{os.environ['SALT']}",
    task_acks_late=True,
    worker_prefetch_multiplier=2,
    task_default_delivery_mode="persistent",
    result_extended=True,
    broker_transport_options={"confirm_publish": True},
    # a worker's control queues go with it
    control_queue_ttl=30.0,
    control_queue_expires=30.0,
    # SQLite is one file for all
    database_engine_options={"connect_args": {"timeout": 30}},
    # looks for the end of a chord's header more often than each second
    result_chord_retry_interval=0.2,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=5)
def stubborn(self, fail):
    """Fails so many times before it succeeds, and says at which attempt that was."""
    if self.request.retries < fail:
        raise self.retry(countdown=0.2, exc=ValueError("not yet"))
    return self.request.retries


@app.task
def broken():
    raise ValueError("as it should")


@app.task
def moment():
    """When it ran."""
    return time.time()


@app.task
def echo(value):
    return value


@app.task
def slow(seconds, number):
    time.sleep(seconds)
    return number


@app.task(bind=True, reject_on_worker_lost=True)
def killed_once(self, path):
    """Takes its process with it the first time."""
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        os.kill(os.getpid(), 9)
    return bool(self.request.delivery_info.get("redelivered"))
