"""Files of a bundle, compared with the manifest before a byte of them is used."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from pathlib import Path

from glnet_infer.bundle.records import FileRecord
from glnet_infer.errors import BundleError
from glnet_infer.files import open_regular
from glnet_infer.forks import OfThisProcess

_BLOCK, _LARGEST_READ = 1 << 20, 1 << 30


class CheckedFile(OfThisProcess):
    """An open file that was found to be what the manifest records.

    It stays open, so that what is read later is what was checked, even if the bundle was replaced or deleted meanwhile.
    (Windows does not let an open file be replaced.)

    Args:
        directory: The bundle's.
        record: The file's.

    Raises:
        BundleError: The file is missing, or is no longer what it was when the bundle was made.
    """

    def __init__(self, directory: Path, record: FileRecord) -> None:
        self.path = directory / record.file
        self.record = record
        try:
            if not self.path.is_file():
                raise BundleError(
                    f"The bundle {directory} is incomplete.",
                    why=f"{record.file} is missing",
                    fix="copy the whole directory, or export the checkpoint again",
                )
            self._file = open_regular(self.path)
            weakref.finalize(self, self._file.close)  # Python would warn of a file that nobody closes
            self._reading = threading.Lock()
            self._state = self._look()
            if self._state[0] != record.bytes:
                raise self._changed(f"it has {self._state[0]} bytes, and had {record.bytes}")
            digest = hashlib.sha256()
            while block := self._file.read(_BLOCK):
                digest.update(block)
        except OSError as error:
            raise BundleError(f"{self.path} was not read.", why=str(error.strerror), fix="check its permissions") from error
        self._compare(digest.hexdigest())

    def read(self) -> bytes:
        """The whole content.

        Raises:
            BundleError: It was written over since it was checked, or cannot be read any more.
        """
        try:
            content = self._content()
            unchanged = self._look() == self._state
        except OSError as error:
            raise BundleError(f"{self.path} was not read.", why=str(error.strerror), fix="open the bundle again") from error
        if not unchanged:  # hashed once more only then: a tenth of a second for the weights of w32
            self._compare(hashlib.sha256(content).hexdigest())
        return content

    def _content(self) -> bytes:
        """Not more than was recorded and a byte, by which it shows that there is more."""
        most = self.record.bytes + 1
        if not hasattr(os, "pread"):
            with self._reading:
                self._file.seek(0)
                return self._file.read(most)
        # A forked process has the same place in the file: whoever moved it would take the other's bytes away.
        blocks, read = [], 0
        while read < most and (block := os.pread(self._file.fileno(), min(most - read, _LARGEST_READ), read)):
            blocks.append(block)
            read += len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _look(self) -> tuple[int, int, int]:
        """What changes when a file is written over: its size and its times."""
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _compare(self, sha256: str) -> None:
        if sha256 != self.record.sha256:
            raise self._changed(f"its SHA-256 is {sha256[:12]}..., and was {self.record.sha256[:12]}...")

    def _changed(self, why: str) -> BundleError:
        return BundleError(
            f"{self.path} is not the file that the manifest describes.",
            why=why,
            fix="copy the bundle again, or export the checkpoint again; files of two bundles do not mix",
        )


def check_file(directory: Path, record: FileRecord) -> Path:
    """The path of a recorded file.

    Raises:
        BundleError: The file is missing, or is no longer what it was when the bundle was made.
    """
    return CheckedFile(directory, record).path


def record_file(path: Path) -> FileRecord:
    """The record of a file as it is now."""
    digest = hashlib.sha256()
    size = 0
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return FileRecord(path.name, digest.hexdigest(), size)
