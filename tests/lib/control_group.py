"""The memory there is, the machine's or that of this process's control groups; and groups of a test's own, of version 2 or 1, whichever
counts memory here. Those need root.
"""

import contextlib
import os
import pathlib
import time

import cases

MOUNTED = pathlib.Path("/sys/fs/cgroup")


class Group:
    """One whose processes share so much memory."""

    def __init__(self, folder, version):
        self.folder, self.version = folder, version

    def bound(self, memory):
        names = ("memory.max", "memory.swap.max") if self.version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        (self.folder / names[0]).write_text(str(memory))
        # Without swap, where the kernel counts that.
        with contextlib.suppress(OSError):
            (self.folder / names[1]).write_text("0" if self.version == 2 else str(memory))

    def command(self, command):
        """The same command, in the group before it begins."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def killed(self):
        """Processes that the kernel has ended since the group had no memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return int(self.lines(name)["oom_kill"])

    def lines(self, name):
        return dict(line.split() for line in (self.folder / name).read_text().splitlines())

    def figures(self):
        names = ("memory.max", "memory.peak") if self.version == 2 else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        here = [name for name in names if (self.folder / name).exists()]
        return ", ".join([f"version {self.version}", *(f"{name} {(self.folder / name).read_text().strip()}" for name in here)])

    def remove(self):
        """Once its processes have ended, of which the kernel takes leave a moment later."""
        until = time.monotonic() + 10
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def parents():
    """(folder, version) of where a group may be made: this process's own group, and those above it."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, version = MOUNTED / "memory", 1
        elif not controllers:
            top, version = MOUNTED, 2
        else:
            continue
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(top) and folder.is_dir():
                yield folder, version


def limits():
    """Bytes that the groups of this process have, as far as they have bounds."""
    for folder, version in parents():
        with contextlib.suppress(OSError, ValueError):
            yield int((folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).read_text())


def machine(key):
    """A figure of the machine's memory in bytes, by the name that the kernel has for it."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def memory():
    """Bytes of memory that this process may use."""
    return min([machine("MemTotal"), *limits()])


def make(parent, version):
    """A group there; None if its memory would not be counted."""
    if version == 2:
        # Refused where processes are in the group itself.
        with contextlib.suppress(OSError):
            (parent / "cgroup.subtree_control").write_text("+memory")
    folder = parent / f"sabir-test-{os.getpid()}"
    folder.mkdir()
    if (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).exists():
        return Group(folder, version)
    folder.rmdir()
    return None


@contextlib.contextmanager
def of(memory):
    """A group of so many bytes, for as long as the `with` goes on."""
    if os.getuid():
        raise cases.Skip("making a control group needs root")
    group, refused = None, "none counts memory"
    for parent, version in parents():
        try:
            group = make(parent, version)
        except OSError as error:
            refused = str(error)
        if group:
            break
    if not group:
        raise cases.Skip(f"no control group can be made: {refused}")
    try:
        group.bound(memory)
        yield group
    finally:
        group.remove()
