"""archive: what is read is what was written, bit for bit, or an error; a save that fails changes nothing."""

import errno
import hashlib
import os
import time
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from expunge import archive

MATRIX = np.random.default_rng(0).standard_normal((6, 5))
ARRAYS = {
    "c_order": MATRIX,
    "f_order": np.asfortranarray(MATRIX),
    "strided": MATRIX[::2, ::-1],
    "not_aligned": np.frombuffer(b"\0" + MATRIX.tobytes(), dtype=np.uint8)[1:].view(np.float64),
    "float32": MATRIX.astype(np.float32),
    "big_endian": MATRIX.astype(">f8"),
    "complex": MATRIX + 1j,
    "special": np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    "signalling_nan": np.array([0x7FF0000000000001], dtype=np.uint64).view(np.float64),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "int64": np.array([2**63 - 1, -(2**63)]),
    "bool": np.array([[True], [False]]),
    "text": np.array(["", "a", "\N{SNOWMAN}\N{GRINNING FACE}"]),
    "bytes": np.array([b"ab", b""]),
    "scalar": np.array(2.5),
    "scalar_text": np.array("ridge"),
    "empty": np.empty((0, 3)),
    "empty_text": np.empty(0, dtype="U4"),
    "broadcast": np.broadcast_to(np.arange(3.0), (4, 3)),
    "five_axes": np.arange(32).reshape(2, 2, 2, 2, 2),
}
SMALL = {"theta": np.array([1.5, -2.0]), "rows": np.arange(3)}


posix = pytest.mark.skipif(os.name != "posix", reason="this is POSIX's")


def assert_same(found, expected):
    """Names, order, dtypes, shapes and bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert type(found[name]) is np.ndarray
        assert found[name].dtype.str == array.dtype.str
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


def save(path, arrays=SMALL, kind="unlearner", version=1):
    archive.write(path, kind, version, arrays)


def load(path):
    return archive.read(path, "unlearner", [1])


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


# Damage


def is_refused(path):
    """Whether reading raises a ValueError, which names the file; if not, it reads what was written."""
    try:
        found = load(path)
    except ValueError as error:
        message = str(error)
    else:
        assert_same(found, SMALL)
        return False
    assert message.startswith((f"{path} is damaged: ", f"{path} is not an expunge file"))
    return True


def test_every_truncation_is_an_error(tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert is_refused(path)


def test_a_flipped_bit_is_an_error_or_carries_nothing(tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    refused = []
    for bit in np.random.default_rng(1).choice(8 * len(whole), 4000, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        refused.append(is_refused(path))
    assert 0.75 < np.mean(refused) < 1.0  # the rest are timestamps and the like


def test_wrong_bytes_are_an_error_or_carry_nothing(tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    refused = []
    for _ in range(2000):
        start, length = rng.integers(len(whole)), int(rng.integers(1, 40))
        wrong = [bytes(length), b"\xff" * length, rng.bytes(length)][rng.integers(3)]
        path.write_bytes((whole[:start] + wrong + whole[start + length :])[: len(whole)])
        refused.append(is_refused(path))
    assert np.mean(refused) > 0.75


def rewritten(path, change):
    """The file with its list of (name, bytes) changed, every CRC right."""
    with zipfile.ZipFile(path) as file:
        entries = change([(name, file.read(name)) for name in file.namelist()])
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries:
            file.writestr(name, content)


def npy(array):
    file = BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


CHANGES = {
    "missing": lambda entries: [entry for entry in entries if entry[0] != "rows.npy"],
    "missing_kind": lambda entries: [entry for entry in entries if entry[0] != "expunge.kind.npy"],
    "missing_checksum": lambda entries: entries[:-1],
    "more": lambda entries: [*entries, ("more.npy", npy(np.ones(2)))],
    "more_that_is_no_array": lambda entries: [*entries, ("more", b"text")],
    "renamed": lambda entries: [(name.replace("rows", "lines"), content) for name, content in entries],
    "another_order": lambda entries: [entries[0], *entries[:0:-1]],
    "another_shape": lambda entries: [
        (name, content.replace(b"(3,), ", b"(1,3),")) for name, content in entries
    ],
    "another_dtype": lambda entries: [(name, content.replace(b"<f8", b"<i8")) for name, content in entries],
    "another_value": lambda entries: [
        (name, npy(np.array([1.5, 2.0])) if name == "theta.npy" else content) for name, content in entries
    ],
    "pickle": lambda entries: [
        (name, npy(np.array([None])) if name == "theta.npy" else content) for name, content in entries
    ],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_that_a_crc_does_not_see_are_damage(change, tmp_path):
    path = tmp_path / "file"
    save(path)
    before = path.read_bytes()
    rewritten(path, change)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match="is damaged: "):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["theta.npy", "expunge.kind.npy", "expunge.sha256.npy"])
def test_two_entries_of_one_name_are_damage(name, tmp_path):
    path = tmp_path / "file"
    save(path)
    rewritten(path, lambda entries: [*entries, (name, dict(entries)[name])])
    with pytest.raises(ValueError, match="is damaged: it has two entries of one name"):
        load(path)


def test_an_archive_within_an_archive_does_not_stand_for_it(tmp_path):
    """zipfile finds the inner one where the outer one is cut off behind it."""
    save(tmp_path / "inner")
    inner = (tmp_path / "inner").read_bytes()
    save(tmp_path / "outer", {"inner": np.frombuffer(inner, dtype=np.uint8)})
    outer = (tmp_path / "outer").read_bytes()
    (tmp_path / "cut").write_bytes(outer[: outer.index(inner) + len(inner)])
    with pytest.raises(ValueError, match="is damaged: it does not begin with its first entry"):
        load(tmp_path / "cut")


def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    save(tmp_path / "file")
    monkeypatch.setattr(np.lib.format, "read_array", no_memory)
    with pytest.raises(MemoryError):
        load(tmp_path / "file")


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


@posix
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_are_those_of_open(umask, tmp_path):
    before = os.umask(umask)
    try:
        save(tmp_path / "file")
        with open(tmp_path / "opened", "wb"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "opened").stat().st_mode


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_replaced_file_keeps_its_permissions(mode, tmp_path):
    save(tmp_path / "file")
    (tmp_path / "file").chmod(mode)
    save(tmp_path / "file", ARRAYS)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert_same(load(tmp_path / "file"), ARRAYS)


@posix
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder" / "file")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    save(tmp_path / "link", ARRAYS)
    assert (tmp_path / "link").is_symlink()
    assert_same(load(tmp_path / "folder" / "file"), ARRAYS)
