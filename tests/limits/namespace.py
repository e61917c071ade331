"""Another machine, as far as the network is concerned: a namespace that can be cut off so that nobody is told. Needs root and `ip`."""

import contextlib
import ctypes
import os
import shutil
import subprocess

import cases

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with one cable to ours."""

    def __init__(self):
        number = os.getpid()
        self.name, self.near, self.far = f"sabir-{number}", f"sb{number % 10**6}a", f"sb{number % 10**6}b"
        third = number % 250
        self.here, self.there = f"10.213.{third}.1", f"10.213.{third}.2"

    def __enter__(self):
        if os.getuid() or not shutil.which("ip"):
            raise cases.Skip("a network namespace needs root and ip (iproute2)")
        try:
            self.ip("netns", "add", self.name)
            self.ip("link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
        except subprocess.CalledProcessError as error:
            self.remove()
            raise cases.Skip(f"no network namespace can be made here: {error.stderr.strip()}") from None
        self.ip("addr", "add", f"{self.here}/30", "dev", self.near)
        self.ip("link", "set", self.near, "up")
        self.ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self.far)
        self.ip("-n", self.name, "link", "set", self.far, "up")
        return self

    def __exit__(self, *_error):
        self.remove()

    def remove(self):
        for command in (["link", "del", self.near], ["netns", "del", self.name]):
            subprocess.run(["ip", *command], capture_output=True, check=False)

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)

    @contextlib.contextmanager
    def inside(self):
        """Sockets that are made here are the other machine's, for as long as they live."""
        with open("/proc/self/ns/net") as ours, open(f"/run/netns/{self.name}") as theirs:
            enter(theirs)
            try:
                yield
            finally:
                enter(ours)

    def cut(self):
        """From now on what the other machine would answer gets lost on its way."""
        self.ip("-n", self.name, "route", "flush", "dev", self.far)
        self.ip("-n", self.name, "route", "add", "blackhole", f"{self.here}/32")


def enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
