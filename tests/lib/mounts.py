"""File systems of a test's own, of which nobody else knows. Needs root."""

import contextlib
import ctypes
import fcntl
import os
import subprocess
import sys

import cases

CLONE_NEWNS = 0x20000
LIBC = ctypes.CDLL(None, use_errno=True)
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def own_namespace():
    """What is mounted from now on is seen by this process and its children alone."""
    if os.getuid():
        raise cases.Skip("mounting a small file system needs root")
    if LIBC.unshare(CLONE_NEWNS):
        raise cases.Skip(f"no mount namespace can be had: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise cases.Skip(f"{' '.join(command)}: {done.stderr.strip()}")


def mount_memory(place, size):
    """A tmpfs of so many bytes."""
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))


def mount_image(place, image, size):
    """ext4 in a file of so many bytes."""
    with open(image, "wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    run("mount", "-o", "loop", str(image), str(place))


def unmount(place):
    subprocess.run(["umount", "-l", str(place)], check=False)


class Freezer:
    """Has a file system answer no write until it is thawed, which happens by itself after a while: whoever waits for a frozen one
    cannot be killed."""

    LIMIT = 90
    THAW = f"import fcntl, os, sys, time; time.sleep({LIMIT}); fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), {FITHAW}, 0)"

    def __init__(self, place):
        self.folder = os.open(place, os.O_RDONLY)
        self.frozen = False
        # in a session of its own: it lives on when the test is ended from outside
        self.guard = subprocess.Popen([sys.executable, "-c", self.THAW, str(place)], stderr=subprocess.DEVNULL, start_new_session=True)

    def freeze(self):
        fcntl.ioctl(self.folder, FIFREEZE, 0)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self.frozen = False
            # the guard may have been faster
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.folder, FITHAW, 0)

    def close(self):
        self.thaw()
        self.guard.kill()
        self.guard.wait()
        os.close(self.folder)
