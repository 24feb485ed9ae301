"""Named arrays in one file: complete or not there, with a checksum, without pickle.

The file is what `numpy.load(path, allow_pickle=False)` reads: an uncompressed zip with one .npy for each
entry. Beside the caller's entries there are `expunge.schema` (the version of what the entries mean),
`expunge.kind` (what they describe) and, last, `expunge.sha256`: the SHA-256 of each entry's name and of the
SHA-256 of its .npy, which holds dtype, shape and bytes. This frame is the same in every version; only what
the entries mean changes.

The checksum finds accidents. It is no protection against a forger, who writes a checksum of his own. But
nothing else is read than what `write` writes, byte for byte, and what there is beside the values is either
fixed or checked: no entry is compressed, encrypted or larger than it says, and nothing hides between or after
the entries.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import re
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SCHEMA, _KIND, _SHA256 = "expunge.schema", "expunge.kind", "expunge.sha256"
_FIRST = f"{_SCHEMA}.npy".encode()
_NAME_AT = 30  # where a zip keeps the name of its first entry
_MODE = 0o600

_LOCAL = struct.Struct("<5H3L2H")  # what follows the signatures, as zipfile writes it
_WIDE_SIZES = struct.Struct("<2H2Q")
_CENTRAL = struct.Struct("<6H3L5H2L")
_END, _END64, _LOCATOR = struct.Struct("<4H2LH"), struct.Struct("<Q2H2L4Q"), struct.Struct("<LQL")
_ELSEWHERE = 0xFFFFFFFF  # in place of a number that stands among the extra bytes
_VERSIONS, _SYSTEMS = (20, 45), (0, 3)  # without and with sizes of 8 bytes; Windows and all others
_PLAIN = (0, 0, 0, 0x21)  # no flags, no compression, the first of January 1980
_ATTRIBUTES = 0o600 << 16
_NPY = b"\x93NUMPY\1\0"
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufcSU][0-9]{1,10})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,19},|[0-9]{1,19}(?:, [0-9]{1,19}){1,63})?)\), \} *\n"
)


@dataclass(frozen=True)
class Streamed:
    """An array that is written piece by piece, and never there as a whole.

    Attributes
    ----------
    dtype : np.dtype
    shape : tuple of int
    chunks : callable
        Gives contiguous arrays of this dtype which, one after the other, are its values in C order.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[NDArray[Any]]]


def write(
    path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, ArrayLike | Streamed]
) -> None:
    """Writes arrays to a file of exactly that name; no .npz is appended.

    Whatever happens, `path` holds what it held before or all of the new: the new file is written beside it,
    under a name like .expunge-1f2e3d4c5b6a7988.tmp, and renamed once it is on the disk. Only a killed process
    or machine, or three interrupts at one moment, leave that other file behind; it can be deleted. No array
    is copied as a whole.

    Both are their owner's alone from the first byte on (mode 0600, or less under a stricter umask), also
    where the file that is replaced was open to others. A symbolic link stays one; its target is replaced or,
    as by `open`, made. What is no regular file is not replaced.

    Parameters
    ----------
    path : str or os.PathLike
    kind : str
        What the arrays describe; `read` asks for it.
    version : int
        Schema version of the arrays of this kind.
    arrays : mapping of str to array or Streamed
        Bool, numbers, text or bytes, of any shape and order. Names are ASCII words joined by dots, such as
        "X.indptr"; those that begin with "expunge." are taken.

    Raises
    ------
    TypeError
        If an array holds objects, or anything else that only pickle could store. Nothing was written.
    ValueError
        If a name is not one. Nothing was written.
    OSError
        If the file cannot be written, or `path` is a folder, a FIFO, a socket, a device, or a link to one of
        these or in a circle: nothing was written. Where only the folder failed to reach the disk, after the
        renaming, the new file is in place, and may be the old one again after a loss of power.
    """
    entries: dict[str, NDArray[Any] | Streamed] = {_SCHEMA: np.array(version), _KIND: np.array(kind)}
    entries |= {name: _checked(name, values) for name, values in arrays.items()}
    target = _target(path)
    temporary = target.with_name(f".expunge-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(temporary, "xb", opener=_private) as file:
                _write_entries(file, entries)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # where a second interrupt came before the first one's
        interrupt = error.__context__  # which zipfile, closed between two of its steps, hides in a ValueError
        if isinstance(error, ValueError) and isinstance(interrupt, KeyboardInterrupt):
            raise interrupt from None
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):  # a name nobody gave
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
    _sync_folder(target.parent)


def read(path: str | os.PathLike[str], kind: str, versions: Collection[int]) -> dict[str, NDArray[Any]]:
    """The arrays of a file that `write` wrote, bit for bit, with their dtypes and shapes.

    The checksum is compared before any value is looked at. It is no protection against a forger, whose file
    costs no more memory than it is long. Every array is there once.

    Parameters
    ----------
    path : str or os.PathLike
    kind : str
        What the arrays should describe.
    versions : collection of int
        The schema versions that the caller understands.

    Returns
    -------
    dict of str to array
        In the order in which they were written.

    Raises
    ------
    ValueError
        If the file is not one of expunge, is damaged or incomplete, holds anything that `write` would not
        write, or is of another kind or version; the message names it.
    OSError
        If it cannot be opened: FileNotFoundError where there is none.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is {_what(path)}, not a file: copy what comes out of it to one")
        if file.read(_NAME_AT + len(_FIRST))[_NAME_AT:] != _FIRST:
            raise ValueError(f"{path} is not an expunge file")
        try:
            entries = _read_entries(file)
            written = _scalar(entries, _SCHEMA, "iu")
            found = _scalar(entries, _KIND, "U")
        except (ValueError, struct.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if found != kind:
        raise ValueError(f"{path} holds {found!r}, expected {kind!r}")
    if written > max(versions):
        raise ValueError(
            f"{path} was written by a newer version (schema {written}, this reads up to {max(versions)}): "
            "upgrade expunge"
        )
    if written not in versions:
        raise ValueError(
            f"{path} was written by an older version (schema {written}, this reads from {min(versions)}): "
            "load it with the expunge that wrote it"
        )
    return entries


def _what(path: str | os.PathLike[str]) -> str:
    """What a path that is no regular file names."""
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(os.stat(path).st_mode), "of an unknown kind")


def _target(path: str | os.PathLike[str]) -> Path:
    """The file that is to be replaced or made: where the links lead."""
    target = Path(os.path.realpath(path))
    try:
        mode = os.stat(path).st_mode  # of links in a circle an OSError, which says so
    except FileNotFoundError:
        if not target.is_dir():  # as "" would be
            return target
        raise
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is not replaced: name a file in it", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(
            errno.EINVAL, f"{_what(path)} is not replaced by a file: name another path", os.fspath(path)
        )
    if not target.exists():  # as of /dev/stdout where that is a file that was deleted
        raise OSError(errno.EINVAL, "what this leads to has no name: name a path that has", os.fspath(path))
    return target


def _private(path: str, flags: int) -> int:
    """Opens what others may not read, from its first byte on."""
    return os.open(path, flags, _MODE)


def _without_waiting(path: str, flags: int) -> int:
    """Opens, also a FIFO that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(name: str, values: ArrayLike | Streamed) -> NDArray[Any] | Streamed:
    """An array that needs no pickle, under a name that a zip keeps as it is."""
    if not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII) or name.startswith("expunge."):
        raise ValueError(f"{name!r} cannot name an entry")
    array = values if isinstance(values, Streamed) else np.asarray(values)
    if array.dtype.kind not in "biufcSU" or array.dtype.itemsize == 0:
        raise TypeError(f"entry {name!r} has dtype {array.dtype}, which cannot be stored without pickle")
    return array


class _Hashing:
    """Hashes what it passes on to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """To both."""
        self.sha256.update(data)
        return self._file.write(data)


def _write_array(file: _Hashing, name: str, array: NDArray[Any] | Streamed) -> None:
    """One .npy, the same bytes for an array and for its chunks."""
    if not isinstance(array, Streamed):
        np.lib.format.write_array(file, array, allow_pickle=False)
        return
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": tuple(map(int, array.shape))}
    np.lib.format.write_array_header_1_0(file, header)
    size = 0
    for chunk in array.chunks():
        size += chunk.size
        if chunk.dtype != array.dtype:
            raise ValueError(f"entry {name!r} has dtype {array.dtype}, but a part of {chunk.dtype}")
        file.write(chunk.reshape(-1).view(np.uint8).data)
    if size != math.prod(array.shape):
        raise ValueError(f"entry {name!r} holds {math.prod(array.shape)} values, but its parts {size}")


def _write_entries(file: IO[bytes], entries: Mapping[str, NDArray[Any] | Streamed]) -> None:
    """The zip, checksum included."""
    total = hashlib.sha256()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                hashing = _Hashing(member)
                _write_array(hashing, name, array)
            total.update(_summary(f"{name}.npy", hashing.sha256.digest()))
        checksum = zipfile.ZipInfo(f"{_SHA256}.npy")  # which by its name alone would get the time of day
        archive.writestr(checksum, _checksum_entry(total.hexdigest()))


def _summary(name: str, digest: bytes) -> bytes:
    """What the checksum covers of one entry; no name holds a zero byte."""
    return name.encode() + b"\0" + digest


def _checksum_entry(hexdigest: str) -> bytes:
    """The .npy with the checksum."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array(hexdigest), allow_pickle=False)
    return file.getvalue()


class _Member(NamedTuple):
    """Where an entry is in a zip."""

    name: str
    offset: int  # of its header
    content: int  # of its .npy
    size: int
    crc: int


def _exactly(file: IO[bytes], size: int) -> bytes:
    """The next bytes."""
    found = file.read(size)
    if len(found) < size:
        raise ValueError("it is incomplete")
    return found


def _members(file: IO[bytes]) -> list[_Member]:
    """The entries of a zip in which every byte is either an entry's or as `write` leaves it.

    It is read from its start: zipfile, which looks for the end, finds zips within other files, and passes
    over what lies between its entries.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    members: list[_Member] = []
    while (signature := _exactly(file, 4)) == b"PK\3\4":
        members.append(_member(file, end))
        file.seek(members[-1].content + members[-1].size)
    if len({member.name for member in members}) < len(members):
        raise ValueError("it has two entries of one name")
    directory = file.tell() - 4
    for member in members:
        if signature != b"PK\1\2" or not _is_listed(file, member):
            raise ValueError(f"its directory has another {member.name}")
        signature = _exactly(file, 4)
    _check_end(file, signature, len(members), directory)
    if file.read(1):
        raise ValueError("it has bytes behind its end")
    return members


def _member(file: IO[bytes], end: int) -> _Member:
    """The entry whose header begins, behind its signature, here."""
    offset = file.tell() - 4
    version, *plain, crc, packed, size, n_name, n_extra = _LOCAL.unpack(_exactly(file, _LOCAL.size))
    name = _exactly(file, n_name).decode("ascii", "replace")
    if not re.fullmatch(r"\w+(\.\w+)*\.npy", name, re.ASCII):
        raise ValueError(f"{name[:50]!r} cannot name an entry")
    if tuple(plain) != _PLAIN or version not in _VERSIONS:
        raise ValueError(f"{name} is compressed, encrypted or not as expunge writes it")
    extra, sizes = _exactly(file, n_extra), (packed, size)
    if extra:
        if n_extra != _WIDE_SIZES.size:
            raise ValueError(f"{name} has extra bytes")
        *frame, size, packed = _WIDE_SIZES.unpack(extra)
        if frame != [1, 16] or sizes not in ((packed, size), (_ELSEWHERE, _ELSEWHERE)):
            raise ValueError(f"{name} has extra bytes, which are not its size")
    content = file.tell()
    if packed != size:
        raise ValueError(f"{name} has two sizes")
    if size > end - content:
        raise ValueError("it is incomplete")
    return _Member(name, offset, content, size, crc)


def _is_listed(file: IO[bytes], member: _Member) -> bool:
    """Whether the directory says here, behind a signature, what the entry itself says."""
    made_by, version, *fields = _CENTRAL.unpack(_exactly(file, _CENTRAL.size))
    *plain, crc, packed, size, n_name, n_extra, n_comment, disk, internal, external, offset = fields
    told = ((size, member.size), (packed, member.size), (offset, member.offset))
    wide = [value for field, value in told if field == _ELSEWHERE]
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    return (
        made_by & 0xFF in _VERSIONS
        and made_by >> 8 in _SYSTEMS
        and version in _VERSIONS
        and tuple(plain) == _PLAIN
        and crc == member.crc
        and packed == size
        and size in (member.size, _ELSEWHERE)
        and offset in (member.offset, _ELSEWHERE)
        and (n_comment, disk, internal, external) == (0, 0, 0, _ATTRIBUTES)
        and n_extra == len(extra)
        and _exactly(file, n_name) == member.name.encode()
        and _exactly(file, n_extra) == extra
    )


def _check_end(file: IO[bytes], signature: bytes, n: int, directory: int) -> None:
    """Raises unless a zip of n entries ends here, whose directory begins there."""
    begins = file.tell() - 4
    numbers = [n, n, begins - directory, directory]
    told = [min(number, 2**16 - 1 if i < 2 else _ELSEWHERE) for i, number in enumerate(numbers)]
    if signature == b"PK\6\6":
        expected = _END64.pack(44, 45, 45, 0, 0, *numbers) + b"PK\6\7" + _LOCATOR.pack(0, begins, 1)
        if _exactly(file, len(expected)) != expected:
            raise ValueError("its directory is not where it says")
        signature = _exactly(file, 4)
    elif told != numbers:
        raise ValueError("its directory is larger than it says")
    if signature != b"PK\5\6" or _exactly(file, _END.size) != _END.pack(0, 0, *told, 0):
        raise ValueError("its directory is not where it says, or has a comment")


def _read_entries(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays, once all of them are those that were written."""
    *members, last = _members(file)
    total, found = hashlib.sha256(), {}
    for member in members:
        header, array = _content(file, member)
        entry = hashlib.sha256(header)
        entry.update(_bytes_of(array).data)
        total.update(_summary(member.name, entry.digest()))
        found[member.name.removesuffix(".npy")] = array
    expected = _checksum_entry(total.hexdigest())
    if last.name != f"{_SHA256}.npy" or last.size != len(expected):
        raise ValueError("it does not end with its checksum")
    header, array = _content(file, last)
    if header + array.tobytes() != expected:
        raise ValueError("checksum differs")
    for name, array in found.items():
        _check_values(name, array)
    return found


def _content(file: IO[bytes], member: _Member) -> tuple[bytes, NDArray[Any]]:
    """Of a .npy: what is before its values, and the array, which has as many bytes as there are."""
    file.seek(member.content)
    begin = _exactly(file, min(member.size, len(_NPY) + 2))
    length = int.from_bytes(begin[len(_NPY) :], "little")
    if len(begin) + length > member.size or begin[: len(_NPY)] != _NPY:
        raise ValueError(f"{member.name} is not an array")
    header = begin + _exactly(file, length)
    array = _empty(member.name, header, member.size - len(header))
    values = _bytes_of(array)
    if file.readinto(values.data) != values.size:  # type: ignore[attr-defined]
        raise ValueError("it is incomplete")
    if zlib.crc32(values.data, zlib.crc32(header)) != member.crc:
        raise ValueError(f"the CRC of {member.name} differs")
    return header, array


def _empty(name: str, header: bytes, size: int) -> NDArray[Any]:
    """The array that this header is of, which must have so many bytes."""
    told = _HEADER.fullmatch(header, len(_NPY) + 2)
    if told is None:
        raise ValueError(f"{name} is not an array of numbers or text")
    descr, fortran_order, sizes = told[1].decode(), told[2] == b"True", told[3].decode()
    shape = tuple(int(length) for length in sizes.split(",") if length)
    try:
        dtype = np.dtype(descr)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{name} has no dtype: {error}") from error
    count = math.prod(shape)
    if dtype.str != descr or not dtype.itemsize or count * dtype.itemsize != size:
        raise ValueError(f"{name} has {size} bytes, which are not {shape} of {descr}")
    return np.empty(count, dtype).reshape(shape, order="F" if fortran_order else "C")


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Those of a contiguous array, in their order; no copy."""
    return array.reshape(-1, order="A").view(np.uint8)


def _check_values(name: str, array: NDArray[Any]) -> None:
    """Raises if some bytes are no value of the dtype: NumPy trusts them."""
    if array.dtype.kind == "b" and _bytes_of(array).max(initial=0) > 1:
        raise ValueError(f"{name} has truth values other than 0 and 1")
    if array.dtype.kind == "U":
        characters = _bytes_of(array).view(array.dtype.str[0] + "u4")
        if characters.max(initial=0) > 0x10FFFF:
            raise ValueError(f"{name} has characters that are none")


def _scalar(entries: dict[str, NDArray[Any]], name: str, kinds: str) -> Any:
    """Takes one value, of one of these kinds of dtype, out of the entries."""
    array = entries.pop(name, None)
    if array is None or array.shape or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is not one value")
    return array.item()


def _sync_folder(folder: Path) -> None:
    """A renaming lasts once its folder is on the disk; Windows opens no folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what a file system without this says
            raise
    finally:
        os.close(handle)
