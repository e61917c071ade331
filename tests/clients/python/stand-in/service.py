"""Stands in for the module of kafka-python's tests that runs brokers: here they are run by who runs the tests."""


class ExternalService:
    """A broker that runs already, and goes on."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        """Nothing to open."""

    def stop(self):
        """Nothing to stop."""

    def dump_logs(self):
        """Its logs are somewhere else."""

    def wait_for(self, _pattern, timeout=None):
        """It is ready."""
        return True


class SpawnedService:
    """A broker of a test's own, which there is none of."""

    def __init__(self, args, _env=None):
        raise RuntimeError(f"no broker is started here: {' '.join(map(str, args))}")
