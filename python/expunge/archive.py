"""Named arrays in one file: complete or not there, with a checksum, without pickle.

The file is what `numpy.load(path, allow_pickle=False)` reads: an uncompressed zip with one .npy for each
entry. Beside the caller's entries there are `expunge.schema` (the version of what the entries mean),
`expunge.kind` (what they describe) and, last, `expunge.sha256`: the SHA-256 of each entry's name and of the
SHA-256 of its .npy, which holds dtype, shape and bytes. This frame is the same in every version; only what
the entries mean changes.

The checksum finds accidents. It is no protection against a forger, who writes a checksum of his own.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SCHEMA, _KIND, _SHA256 = "expunge.schema", "expunge.kind", "expunge.sha256"
_FIRST = f"{_SCHEMA}.npy".encode()
_NAME_AT = 30  # where a zip keeps the name of its first entry


def write(path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, ArrayLike]) -> None:
    """Writes arrays to a file of exactly that name; no .npz is appended.

    Whatever happens, `path` holds what it held before or all of the new: the new file is written beside it,
    under a name like .expunge-1f2e3d4c5b6a7988.tmp, and renamed once it is on the disk. Only a killed process
    or machine leaves that other file behind, which can be deleted. Permissions are those that
    `open(path, "wb")` gives. A symbolic link stays one; its target is replaced. No array is copied as a
    whole.

    Parameters
    ----------
    path : str or os.PathLike
    kind : str
        What the arrays describe; `read` asks for it.
    version : int
        Schema version of the arrays of this kind.
    arrays : mapping of str to array
        Bool, numbers, text or bytes, of any shape and order. Names are ASCII words joined by dots, such as
        "X.indptr"; those that begin with "expunge." are taken.

    Raises
    ------
    TypeError
        If an array holds objects, or anything else that only pickle could store. Nothing was written.
    ValueError
        If a name is not one. Nothing was written.
    OSError
        If the file cannot be written. Where only the folder failed to reach the disk, after the renaming, the
        new file is in place, and may be the old one again after a loss of power.
    """
    entries = {_SCHEMA: np.array(version), _KIND: np.array(kind)}
    entries |= {name: _checked(name, values) for name, values in arrays.items()}
    target = Path(os.path.realpath(path))
    # not by mkstemp: open() respects the umask, which cannot be asked for without changing it for all threads
    temporary = target.with_name(f".expunge-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if target.exists():
                shutil.copymode(target, temporary)  # before there is anything to be read
            _write_entries(file, entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def read(path: str | os.PathLike[str], kind: str, versions: Collection[int]) -> dict[str, NDArray[Any]]:
    """The arrays of a file that `write` wrote, bit for bit, with their dtypes and shapes.

    The checksum is compared before anything is interpreted. It is no protection against a forger.

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
        If the file is not one of expunge, is damaged or incomplete, or is of another kind or version; the
        message names it.
    OSError
        If it cannot be opened: FileNotFoundError where there is none.
    """
    with open(path, "rb") as file:
        if file.read(_NAME_AT + len(_FIRST))[_NAME_AT:] != _FIRST:
            raise ValueError(f"{path} is not an expunge file")
        try:
            with zipfile.ZipFile(file) as archive:
                _verify(archive)
                entries = {name.removesuffix(".npy"): _load(archive, name) for name in archive.namelist()}
            del entries[_SHA256]
            written = int(entries.pop(_SCHEMA))
            found = str(entries.pop(_KIND))
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises a dozen classes, from struct.error to EOFError
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


def _checked(name: str, values: ArrayLike) -> NDArray[Any]:
    """An array that needs no pickle, under a name that a zip keeps as it is."""
    if not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII) or name.startswith("expunge."):
        raise ValueError(f"{name!r} cannot name an entry")
    array = np.asarray(values)
    if array.dtype.kind not in "biufcSU":
        raise TypeError(f"entry {name!r} has dtype {array.dtype}, which cannot be stored without pickle")
    return array


class _Hashing:
    """Hashes what it passes on to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """To both."""
        self.sha256.update(data)
        return self._file.write(data)


def _write_entries(file: IO[bytes], entries: Mapping[str, NDArray[Any]]) -> None:
    """The zip, checksum included."""
    total = hashlib.sha256()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                hashing = _Hashing(member)
                np.lib.format.write_array(hashing, array, allow_pickle=False)
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


def _verify(archive: zipfile.ZipFile) -> None:
    """Raises unless the entries are those that were written; interprets none of them."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ValueError("it has two entries of one name")
    if archive.infolist()[0].header_offset != 0:  # zipfile also finds a zip at the end of another file
        raise ValueError("it does not begin with its first entry")
    total = hashlib.sha256()
    for name in names:
        if name != f"{_SHA256}.npy":
            entry = hashlib.sha256()
            with archive.open(name) as member:
                while chunk := member.read(1 << 20):
                    entry.update(chunk)
            total.update(_summary(name, entry.digest()))
    expected = _checksum_entry(total.hexdigest())
    with archive.open(f"{_SHA256}.npy") as member:
        if member.read(len(expected) + 1) != expected:
            raise ValueError("checksum differs")


def _load(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One entry."""
    with archive.open(name) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array


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
