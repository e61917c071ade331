"""A file system on which the power can be cut: ext4 on a loop device. Needs root.

A cut stops the broker, shuts the file system down without flushing anything (EXT4_IOC_SHUTDOWN with NOLOGFLUSH), kills the broker and
mounts again. Dirty pages and the file system's uncommitted journal are gone, as after a power cut: a missing fsync of a file or of its
folder shows. What a direct write has put on the device stays even without a flush: a disk's own volatile cache is for the simulated
disk to lose.
"""

import fcntl
import os
import signal
import struct
import subprocess
import time

EXT4_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2


def sh(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def missing():
    """Why it cannot be done here, or None."""
    if os.geteuid() != 0:
        return "needs root, for a file system on a loop device"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices here"
    return None


class Mount:
    """ext4 in a file of `size`, mounted at `folder`/mount."""

    def __init__(self, folder, size="6G"):
        self.image, self.path = folder / "image", folder / "mount"
        self.path.mkdir(parents=True)
        sh("truncate", "-s", size, str(self.image))
        self.device = sh("losetup", "--find", "--show", str(self.image))
        try:
            sh("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device)
            self.mount()
        except RuntimeError:
            sh("losetup", "-d", self.device)
            raise

    def mount(self):
        sh("mount", self.device, str(self.path))

    def unmount(self):
        for _ in range(50):
            try:
                return sh("umount", str(self.path))
            except RuntimeError as error:
                if "busy" not in str(error):
                    raise
                time.sleep(0.1)
        raise RuntimeError(f"{self.path} stays busy")

    def cut(self, broker):
        """The power goes, and comes back; the broker has to be started."""
        broker.signal(signal.SIGSTOP)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(folder)
        broker.kill()
        self.unmount()
        self.mount()

    def remove(self):
        self.unmount()
        sh("losetup", "-d", self.device)
        self.image.unlink()
