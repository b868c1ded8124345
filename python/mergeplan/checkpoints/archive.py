"""The zip archive that torch writes: where its records lie, by the archive's own directory.

Whoever packs a file anew puts its records elsewhere, and may compress them. What can be mapped is
stored as it is, in one piece, under a name that stands once.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mergeplan.checkpoints.lfs import refuse_pointer
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.reading import open_plain

_MAGIC = b"PK\x03\x04"
# How the format before torch 1.6 begins, behind pickle's version.
_OLD_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Magic, version, flags, method, time, date, checksum, two lengths; lengths of name and extra field.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 0x1
# Of the directory, and of the pickle: each has 100 to 150 bytes for a tensor.
_MOST_BYTES = 16 << 20
_CONVERT = "save it anew as safetensors: `from_pretrained`, then `save_pretrained`"
_STORE = "save it anew with `torch.save`, which stores weights as they are, or as safetensors"
_DAMAGED = "the file is damaged or was not copied to its end; fetch it again"
# Whatever zipfile finds wrong with an archive.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
)


@dataclass(frozen=True)
class Record:
    """Where one file of the archive lies."""

    offset: int
    n_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.n_bytes


class _Bounded(io.FileIO):
    """A file of which nobody reads more than a bound at once, whatever it says of itself."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_BYTES:
            raise ValueError(f"its directory has more than {_MOST_BYTES} bytes")
        return super().read(size) or b""


@contextmanager
def opened_archive(path: Path) -> Iterator["Archive"]:
    """A file that torch wrote, to be read inside.

    Raises:
        MissingInputError: There is no such file, or it was not fetched.
        InputError: It is no plain file, or no archive of torch's.
    """
    try:
        plain = open_plain(path)
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}") from error
    with plain, _Bounded(plain.fileno(), closefd=False) as file:
        refuse_pointer(path)
        yield Archive(path, file)


class Archive:
    """The records of a file that torch wrote, by name."""

    def __init__(self, path: Path, file: _Bounded) -> None:
        self._path, self._file = path, file
        self._refuse_other_formats()
        try:
            self._zip = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise self._damaged(error) from error
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.filename in self._infos:
                raise self._wrong(info.filename, "once in the archive", "it twice", _DAMAGED)
            self._infos[info.filename] = info
        roots = [n.removesuffix("/data.pkl") for n in self._infos if n.endswith("/data.pkl")]
        if len(roots) != 1 or f"{roots[0]}/constants.pkl" in self._infos:
            found = "a TorchScript program" if roots else "another zip archive"
            raise InputError(
                f"`{path}`: expected what `torch.save` writes, found {found}", _CONVERT
            )
        self._root = roots[0]
        if self._read("byteorder", b"little") != b"little":
            raise self._wrong("byteorder", "little", "another order of bytes", _CONVERT)

    @property
    def pickle(self) -> bytes:
        """The pickle that describes the tensors."""
        return self._read("data.pkl")

    def storages(self, keys: Iterable[str]) -> dict[str, Record]:
        """Where the storages with these keys lie, each in its own bytes.

        Raises:
            InputError: One is not there, or not as it is: compressed, encrypted, inside another.
        """
        found = {key: self._placed(f"{self._root}/data/{key}") for key in dict.fromkeys(keys)}
        end = 0
        for key, record in sorted(found.items(), key=lambda item: item[1].offset):
            if record.offset < end:
                raise self._wrong(f"data/{key}", "its own bytes", "another's", _DAMAGED)
            end = record.end
        return found

    def _placed(self, name: str) -> Record:
        info = self._infos.get(name)
        if info is None:
            raise self._wrong(name, "it in the archive", "none", _DAMAGED)
        try:
            self._file.seek(info.header_offset)
            header = self._file.read(_LOCAL.size)
            magic, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
        except _ZIP_ERRORS as error:
            raise self._damaged(error) from error
        if magic != _MAGIC:
            raise self._wrong(name, "its header", "other bytes", _DAMAGED)
        if (flags | info.flag_bits) & _ENCRYPTED:
            raise self._wrong(name, "plain bytes", "encrypted ones", _STORE)
        if method or info.compress_type or info.compress_size != info.file_size:
            raise self._wrong(name, "it stored", "it compressed", _STORE)
        record = Record(info.header_offset + _LOCAL.size + name_bytes + extra_bytes, info.file_size)
        if record.end > self._zip.start_dir:
            raise self._wrong(name, f"{record.n_bytes} bytes", "the archive's end", _DAMAGED)
        return record

    def _read(self, name: str, default: bytes | None = None) -> bytes:
        info = self._infos.get(f"{self._root}/{name}")
        if info is None and default is not None:
            return default
        try:
            # The directory may lie about the length, too.
            with self._zip.open(f"{self._root}/{name}") as record:
                raw = record.read(_MOST_BYTES + 1)
        except _ZIP_ERRORS as error:
            raise self._damaged(error) from error
        if len(raw) > _MOST_BYTES:
            raise self._wrong(name, f"at most {_MOST_BYTES} bytes", "more", _CONVERT)
        return raw

    def _refuse_other_formats(self) -> None:
        head = self._file.read(32)
        if _OLD_MAGIC in head:
            raise InputError(f"`{self._path}` was written by torch before 1.6", _CONVERT)
        if not head.startswith(_MAGIC):
            raise InputError(
                f"cannot read `{self._path}`: expected a zip archive, as `torch.save` writes",
                _CONVERT,
            )

    def _damaged(self, error: BaseException) -> InputError:
        return InputError(f"cannot read `{self._path}`: its archive is damaged: {error}", _DAMAGED)

    def _wrong(self, name: str, expected: str, found: str, hint: str) -> InputError:
        return InputError(
            f"`{self._path}`: record `{name[:100]}`: expected {expected}, found {found}", hint
        )
