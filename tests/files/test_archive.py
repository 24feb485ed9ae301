"""archive: what is read is what was written, bit for bit; a save that fails changes nothing."""

import errno
import hashlib
import os
import socket
import stat
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import ARRAYS, SMALL, assert_same, load, save
from scipy import sparse

from expunge.files import archive

posix = pytest.mark.skipif(os.name != "posix", reason="this is POSIX's")


def contents(folder):
    """name -> bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Round trips


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_bit_for_bit(name, tmp_path):
    save(tmp_path / "file", {name: ARRAYS[name]})
    assert_same(load(tmp_path / "file"), {name: ARRAYS[name]})


def test_many_arrays_come_back_in_their_order_with_their_memory_layout(tmp_path):
    save(tmp_path / "file", ARRAYS)
    found = load(tmp_path / "file")
    assert_same(found, ARRAYS)
    assert found["f_order"].flags.f_contiguous
    assert found["c_order"].flags.c_contiguous
    found["c_order"][0] = 0.0  # writable


def test_no_arrays_are_an_archive_too(tmp_path):
    save(tmp_path / "file", {})
    assert load(tmp_path / "file") == {}


def test_lists_and_numbers_are_written_as_arrays(tmp_path):
    save(tmp_path / "file", {"names": ["a", "bc"], "alpha": 0.5})
    assert_same(load(tmp_path / "file"), {"names": np.array(["a", "bc"]), "alpha": np.array(0.5)})


def test_numpy_reads_the_file_without_pickle(tmp_path):
    path = tmp_path / "model.npz"
    save(path, ARRAYS)
    with np.load(path, allow_pickle=False) as file:
        assert_same({name: file[name] for name in ARRAYS}, ARRAYS)
        assert file["expunge.kind"] == "unlearner"
        assert file["expunge.schema"] == 1
        assert set(file.files) == {*ARRAYS, "expunge.kind", "expunge.schema", "expunge.sha256"}


def test_the_checksum_is_the_documented_one(tmp_path):
    save(tmp_path / "file", ARRAYS)
    total = hashlib.sha256()
    with zipfile.ZipFile(tmp_path / "file") as file:
        *names, last = file.namelist()
        assert last == "expunge.sha256.npy"
        for name in names:
            total.update(name.encode() + b"\0" + hashlib.sha256(file.read(name)).digest())
    with np.load(tmp_path / "file", allow_pickle=False) as file:
        assert file["expunge.sha256"] == total.hexdigest()


def test_the_same_arrays_make_the_same_file_at_any_time(tmp_path, monkeypatch):
    save(tmp_path / "one")
    localtime = time.localtime
    monkeypatch.setattr(time, "localtime", lambda seconds=None: localtime(0.0))
    save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("kind_of_path", [str, Path])
def test_the_file_has_exactly_the_given_name(kind_of_path, tmp_path, monkeypatch):
    save(kind_of_path(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    save(kind_of_path("other.expunge"))
    assert set(contents(tmp_path)) == {"model", "other.expunge"}
    assert_same(load(kind_of_path("model")), SMALL)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda X: X[:, ::2]])
def test_no_array_is_copied_as_a_whole(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a large file and a slow disk
    X = layout(np.zeros((8192, 2048)))  # 128 or 64 MiB
    tracemalloc.start()
    try:
        save(tmp_path / "file", {"X": X})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


# What is refused


OBJECTS = {
    "objects": np.array([{}, None]),
    "ragged": np.array([[1], [1, 2]], dtype=object),
    "record": np.zeros(2, dtype=[("a", object)]),
    "variable_text": np.array(["a"], dtype=np.dtypes.StringDType()),
    "sparse": sparse.csr_array((2, 2)),
    "none": None,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_needs_pickle_is_refused_by_name_and_nothing_is_written(name, tmp_path):
    with pytest.raises(TypeError, match=f"entry '{name}' has dtype .* cannot be stored without pickle"):
        save(tmp_path / "file", {"fine": np.ones(3), name: OBJECTS[name]})
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "..", "a\0b", "a\\b", "é", "expunge.kind", "expunge.more", "a\n"]
)
def test_names_that_a_zip_may_change_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="cannot name an entry"):
        save(tmp_path / "file", {name: np.ones(3)})
    assert contents(tmp_path) == {}


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"coef,intercept\n1,2\n" * 99, bytes(2048)])
def test_foreign_files_are_called_foreign(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError) as raised:
        load(path)
    assert str(raised.value) == f"{path} is not an expunge file"


def test_an_npz_of_another_origin_is_called_foreign(tmp_path):
    np.savez(tmp_path / "file.npz", **SMALL)
    with pytest.raises(ValueError, match="is not an expunge file"):
        load(tmp_path / "file.npz")


def test_another_kind_or_version_is_refused_by_name(tmp_path):
    path = tmp_path / "file"
    save(path, version=3)
    assert_same(archive.read(path, "unlearner", range(1, 4)), SMALL)
    for kind, versions, message in [
        ("ridge", [3], "holds 'unlearner', expected 'ridge'"),
        (
            "unlearner",
            [1],
            "was written by a newer version (schema 3, this reads up to 1): upgrade expunge",
        ),
        (
            "unlearner",
            [4, 5],
            "was written by an older version (schema 3, this reads from 4): "
            "load it with the expunge that wrote it",
        ),
    ]:
        with pytest.raises(ValueError) as raised:
            archive.read(path, kind, versions)
        assert str(raised.value) == f"{path} {message}"


# Arrays that come in pieces


def test_an_array_in_pieces_makes_the_same_file(tmp_path):
    shapes = {"tall": (5, 3), "flat": (7,), "scalar": (), "empty": (0, 3), "cube": (2, 3, 4)}
    for dtype in (np.float64, np.float32, np.int32, bool, "U5", ">f8"):
        whole = {
            name: np.arange(np.prod(shape)).reshape(shape).astype(dtype) for name, shape in shapes.items()
        }
        pieces = {
            name: archive.Streamed(
                array.dtype,
                array.shape,
                lambda array=array: (array.ravel()[i : i + 2] for i in range(0, array.size, 2)),
            )
            for name, array in whole.items()
        }
        save(tmp_path / "whole", whole)
        save(tmp_path / "pieces", pieces)
        assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(
    "pieces",
    [[np.ones(2)], [np.ones(2), np.ones(2)], [], [np.ones(3, dtype=np.float32)], [np.ones(3, dtype=int)]],
)
def test_pieces_that_do_not_fit_leave_the_old_file_and_nothing_else(pieces, tmp_path):
    save(tmp_path / "file")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"entry 'a' (has dtype|holds)"):
        save(tmp_path / "file", {"a": archive.Streamed(np.dtype(float), (3,), lambda: pieces)})
    assert contents(tmp_path) == before


def test_pieces_that_need_pickle_or_a_name_are_refused(tmp_path):
    for name, dtype, error in [("a", object, TypeError), ("a", "U0", TypeError), ("a/b", float, ValueError)]:
        with pytest.raises(error):
            save(tmp_path / "file", {name: archive.Streamed(np.dtype(dtype), (0,), list)})
    assert contents(tmp_path) == {}


# A save that fails


def failing(error, after=0):
    calls = []

    def call(*_, **__):
        calls.append(None)
        if len(calls) > after:
            raise error

    return call


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize(
    ("module", "function"),
    [(np.lib.format, "write_array"), (os, "fsync"), (os, "replace")],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("old", [True, False], ids=["replacing", "new"])
def test_a_failing_save_leaves_the_old_file_and_nothing_else(
    old, module, function, error, tmp_path, monkeypatch
):
    if old:
        save(tmp_path / "file")
    before = contents(tmp_path)
    after = 2 if function == "write_array" else 0  # within the entries
    monkeypatch.setattr(module, function, failing(error, after))
    with pytest.raises(type(error)):
        save(tmp_path / "file", ARRAYS)
    assert contents(tmp_path) == before


def test_an_array_that_cannot_be_had_leaves_the_old_file_and_nothing_else(tmp_path):
    class Unwilling:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("no array today")

    save(tmp_path / "file")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="no array today"):
        save(tmp_path / "file", {"a": np.ones(3), "b": Unwilling()})
    assert contents(tmp_path) == before


def test_a_folder_that_is_not_there_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "no" / "file")
    assert contents(tmp_path) == {}


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync

    def record_fsync(handle):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def record_replace(*paths):
        calls.append("replace")
        replace(*paths)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("what a handle refers to cannot be asked for")
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    save(tmp_path / "file")
    assert calls == ["file", "replace", "folder"]


def failing_for_the_folder(code, monkeypatch):
    """fsync works for the file."""
    fsync = os.fsync
    calls = []

    def fail(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)


@posix
def test_a_folder_that_fails_to_reach_the_disk_is_reported(tmp_path, monkeypatch):
    save(tmp_path / "file", ARRAYS)
    failing_for_the_folder(errno.EIO, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        save(tmp_path / "file")
    assert_same(load(tmp_path / "file"), SMALL)
    assert list(contents(tmp_path)) == ["file"]


@posix
def test_a_file_system_without_fsync_of_folders_will_do(tmp_path, monkeypatch):
    failing_for_the_folder(errno.EINVAL, monkeypatch)
    save(tmp_path / "file")
    assert_same(load(tmp_path / "file"), SMALL)


def modes_seen(monkeypatch, folder):
    """The modes of all files in the folder, whenever something is written."""
    modes, write_array = set(), np.lib.format.write_array

    def record(*arguments, **options):
        modes.update(stat.S_IMODE(path.stat().st_mode) for path in folder.glob(".expunge-*"))
        write_array(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "write_array", record)
    return modes


@posix
@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o600), (0o077, 0o600), (0o000, 0o600), (0o277, 0o400)], ids=oct
)
def test_a_file_is_its_owners_alone_from_its_first_byte(umask, mode, tmp_path, monkeypatch):
    modes = modes_seen(monkeypatch, tmp_path)
    before = os.umask(umask)
    try:
        save(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode == stat.S_IFREG | mode
    assert modes == {mode}


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o777, 0o444])
def test_so_is_one_that_replaces_a_file_open_to_others(mode, tmp_path, monkeypatch):
    save(tmp_path / "file")
    (tmp_path / "file").chmod(mode)
    modes = modes_seen(monkeypatch, tmp_path)
    save(tmp_path / "file", ARRAYS)
    assert (tmp_path / "file").stat().st_mode == stat.S_IFREG | 0o600
    assert modes == {0o600}
    assert_same(load(tmp_path / "file"), ARRAYS)


@posix
def test_what_a_killed_save_leaves_is_its_owners_alone(tmp_path):
    def killed():
        os._exit(0)
        yield

    child = os.fork()
    if not child:
        save(tmp_path / "file", {"a": np.ones(9), "b": archive.Streamed(np.dtype(float), (3,), killed)})
    os.waitpid(child, 0)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".expunge-")
    assert left.stat().st_mode == stat.S_IFREG | 0o600


# What is not replaced


def fifo(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def files_in(folder):
    """What is there and when it was written; not when it was read."""
    found = {other: other.lstat() for other in folder.iterdir()}
    return {other: (at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns) for other, at in found.items()}


NO_FILES = {
    "FIFO": (fifo, "a FIFO is not replaced by a file: name another path"),
    "socket": (listening, "a socket is not replaced by a file: name another path"),
    "null": (lambda path: path.symlink_to("/dev/null"), "a device is not replaced by a file: name another"),
    "folder": (lambda path: path.mkdir(), "a folder is not replaced: name a file in it"),
    "circle": (lambda path: path.symlink_to(path), os.strerror(errno.ELOOP)),
}


@posix
@pytest.mark.parametrize("through", [False, True], ids=["itself", "link"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_replaced(kind, through, tmp_path, monkeypatch):
    make, message = NO_FILES[kind]
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("it")
    make(path)
    if through:
        Path("link").symlink_to(path)
    before = files_in(tmp_path)
    given = tmp_path / ("link" if through else "it")
    with pytest.raises(OSError, match=message) as raised:
        save(given)
    assert raised.value.filename == str(given)
    assert files_in(tmp_path) == before


@posix
@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/dev/tty", "/", "", ".", "/dev"])
def test_devices_and_folders_are_not_replaced(path):
    before = os.stat(path or ".").st_mode
    with pytest.raises(OSError):
        save(path)
    assert os.stat(path or ".").st_mode == before


@posix
def test_a_file_without_a_name_is_not_replaced(tmp_path):
    """As /dev/stdout may be."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files have no names here")
    read, write = os.pipe()
    with open(tmp_path / "gone", "wb") as file:
        os.unlink(tmp_path / "gone")
        for handle, message in [(read, "a FIFO"), (write, "a FIFO"), (file.fileno(), "has no name")]:
            with pytest.raises(OSError, match=message):
                save(f"/proc/self/fd/{handle}")
    os.close(read)
    os.close(write)
    assert contents(tmp_path) == {}


@posix
def test_a_link_to_no_file_makes_it_as_open_does(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "file").is_symlink()
    assert_same(load(tmp_path / "link"), SMALL)
    (tmp_path / "other").symlink_to(tmp_path / "no" / "file")
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "other")


@posix
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder" / "file")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    save(tmp_path / "link", ARRAYS)
    assert (tmp_path / "link").is_symlink()
    assert_same(load(tmp_path / "folder" / "file"), ARRAYS)
