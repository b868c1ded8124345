"""A real disk that fails: ext4 on a loop device, whose image lies where room can be taken away.

A block that finds no room in the image is a failed write of the device, as of a disk that dies. Of
an image that is cut, blocks cannot be read. What is in the image at some moment is what a machine
finds that lost its power then.
"""

import os
import subprocess
from pathlib import Path

_IMAGE_BYTES = 192 << 20


class FailingDisk:
    """A mounted disk; needs root."""

    def __init__(self, folder: Path) -> None:
        self._back = folder / "back"
        self._image = self._back / "image"
        self.mount_point = folder / "disk"
        for path in (self._back, self.mount_point):
            path.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", "size=1g", "none", self._back)
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        lazy = "lazy_itable_init=1,lazy_journal_init=1"
        _run("mkfs.ext4", "-q", "-E", lazy, "-J", "size=4", self._image)
        self._mount()

    def leave_room(self, n_bytes: int) -> None:
        """From now on writes fail that need more than so many bytes of new blocks."""
        self._resize(self._image.stat().st_blocks * 512 + n_bytes)

    def repair(self) -> None:
        """Give the disk its room back, and look at it as a machine does that is switched on."""
        self._resize(1 << 30)
        self._again()

    def cut_power(self) -> None:
        """Forget what the disk was not made to keep."""
        now = self._image.with_name("now")
        _run("cp", "--sparse=always", self._image, now)
        _run("umount", self.mount_point)
        now.replace(self._image)
        self._check()
        self._mount()

    def lose_half(self) -> None:
        """Let reads fail, of whatever lies in the upper part of the disk."""
        _run("umount", self.mount_point)
        self._mount()
        _run("cp", "--sparse=always", self._image, self._image.with_name("kept"))
        os.truncate(self._image, self._image.stat().st_size // 16)

    def remove(self) -> None:
        """Unmount all."""
        for path in (self.mount_point, self._back):
            subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)

    def _again(self) -> None:
        _run("umount", self.mount_point)
        self._check()
        self._mount()

    def _check(self) -> None:
        done = subprocess.run(["fsck.ext4", "-y", self._image], capture_output=True, check=False)
        assert done.returncode in (0, 1), done.stdout

    def _mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.mount_point)

    def _resize(self, n_bytes: int) -> None:
        # A tmpfs counts in pages.
        _run("mount", "-o", f"remount,size={n_bytes // 4096 * 4 + 4}k", self._back)


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"`{' '.join(map(str, words))}`: {done.stderr.strip()}")


def why_not(folder: Path) -> str:
    """Why there can be no such disk; empty where there can."""
    try:
        FailingDisk(folder / "probe")
    except OSError as error:
        return str(error)
    finally:
        for name in ("disk", "back"):
            path = folder / "probe" / name
            subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)
    return ""
