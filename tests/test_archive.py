"""archive: what is read is what was written, bit for bit, or an error; a save that fails changes nothing."""

import errno
import hashlib
import os
import re
import socket
import stat
import struct
import time
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from expunge.files import archive

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


def test_a_flipped_bit_of_any_byte_is_an_error(tmp_path):
    path = tmp_path / "file"
    save(path, {"a": np.ones(1)})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in range(len(whole)):
        for bit in rng.choice(8, 1).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(ValueError, match=re.escape(str(path))):
                load(path)


def test_wrong_bytes_are_an_error(tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    refused = []
    for _ in range(1000):
        start, length = rng.integers(len(whole)), int(rng.integers(1, 40))
        wrong = [bytes(length), b"\xff" * length, rng.bytes(length)][rng.integers(3)]
        path.write_bytes((whole[:start] + wrong + whole[start + length :])[: len(whole)])
        refused.append(is_refused(path))
    assert np.mean(refused) > 0.9  # the rest changed nothing


def rewritten(path, change):
    """The file with its list of (name, bytes) changed, every CRC right."""
    with zipfile.ZipFile(path) as file:
        zip_of(path, change([(name, file.read(name)) for name in file.namelist()]))


def zip_of(path, entries, **how):
    """A zip of these (name, bytes) that looks as those of expunge do; `how` is set in each ZipInfo."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries:
            member = zipfile.ZipInfo(name)
            for key, value in how.items():
                setattr(member, key, value)
            file.writestr(member, content)


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
    with pytest.raises(ValueError, match="is damaged: it is incomplete"):
        load(tmp_path / "cut")


def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    save(tmp_path / "file")
    monkeypatch.setattr(archive.np, "empty", no_memory)
    with pytest.raises(MemoryError):
        load(tmp_path / "file")


# Forged files, whose checksums are right


def forged(path, arrays=None, **how):
    """A file of these .npy with the right checksum; `how` is set in each ZipInfo."""
    first = {"expunge.schema": npy(np.array(1)), "expunge.kind": npy(np.array("unlearner"))}
    entries = [(f"{name}.npy", content) for name, content in (first | (arrays or {})).items()]
    total = hashlib.sha256()
    for name, content in entries:
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    zip_of(path, [*entries, ("expunge.sha256.npy", npy(np.array(total.hexdigest())))], **how)


def header(descr="'<f8'", fortran_order="False", shape="(3,)", *, more=""):
    """What stands in front of the values of a .npy; a change is not padded anew."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, {more}}}"
    text = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


THREE = np.arange(3.0).tobytes()


def test_forged_files_are_read_where_nothing_is_wrong_with_them(tmp_path):
    forged(tmp_path / "file", {"a": header() + THREE})
    assert_same(load(tmp_path / "file"), {"a": np.arange(3.0)})
    with np.load(tmp_path / "file") as file:
        assert file["a"].tolist() == [0.0, 1.0, 2.0]


ZIPS = {
    "deflated": {"compress_type": zipfile.ZIP_DEFLATED},
    "bzip2": {"compress_type": zipfile.ZIP_BZIP2},
    "lzma": {"compress_type": zipfile.ZIP_LZMA},
    "comments": {"comment": b"hidden"},
    "extra": {"extra": struct.pack("<2H4s", 0xCAFE, 4, b"more")},
    "extra_as_long_as_sizes": {"extra": struct.pack("<2H16s", 0xCAFE, 16, b"more")},
    "another_time": {"date_time": (2020, 1, 1, 0, 0, 0)},
    "another_system": {"create_system": 7},
    "another_mode": {"external_attr": 0o777 << 16},
    "internal": {"internal_attr": 1},
}


@pytest.mark.parametrize("name", ZIPS)
def test_zips_other_than_ours_are_refused_whatever_their_checksum(name, tmp_path):
    path = tmp_path / "file"
    forged(path, {"a": npy(np.zeros(999))}, **ZIPS[name])
    with np.load(path) as file:
        assert file["a"].sum() == 0.0
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged: ")):
        load(path)


def altered(path, number, field, value, *, central):
    """Field `field` of the header of an entry, or of its line in the directory, set."""
    whole, at = bytearray(path.read_bytes()), 0
    begin, frame = (b"PK\1\2", "<4s6H3L5H2L") if central else (b"PK\3\4", "<4s5H3L2H")
    for _ in range(number + 1):
        at = whole.index(begin, at) + 1
    fields = list(struct.unpack_from(frame, whole, at - 1))
    fields[field] = value
    struct.pack_into(frame, whole, at - 1, *fields)
    path.write_bytes(whole)


@pytest.mark.parametrize("value", [0, 1, 8, 2**15, 2**16 - 1])
@pytest.mark.parametrize("central", [False, True])
def test_no_field_of_a_zip_says_anything_else(central, value, tmp_path):
    for field in range(1, 17 if central else 11):
        path = tmp_path / "file"
        save(path)
        before = path.read_bytes()
        altered(path, 2, field, value, central=central)
        if path.read_bytes() != before:
            with pytest.raises(ValueError, match=r" is damaged: "):
                load(path)


def inserted(where):
    """Bytes put in front of the first `where`, all offsets behind them moved along."""

    def change(whole, more=b"hidden"):
        at = whole.index(where) if where else len(whole)
        changed = bytearray(whole[:at] + more + whole[at:])
        end = changed.rindex(b"PK\5\6")
        size, offset = struct.unpack_from("<2L", changed, end + 12)
        if where == b"PK\5\6":
            struct.pack_into("<L", changed, end + 12, size + len(more))
        elif where:
            struct.pack_into("<L", changed, end + 16, offset + len(more))
            line = offset + len(more)
            while changed[line : line + 4] == b"PK\1\2":
                lengths = struct.unpack_from("<3H", changed, line + 28)
                old = struct.unpack_from("<L", changed, line + 42)[0]
                struct.pack_into("<L", changed, line + 42, old + len(more) * (old >= at))
                line += 46 + sum(lengths)
        return bytes(changed)

    return change


HIDDEN = {
    "in_front": inserted(b"PK\3\4"),
    "between_entries": lambda whole: inserted(whole[whole.index(b"PK\3\4", 9) :][:80])(whole),
    "before_the_directory": inserted(b"PK\1\2"),
    "behind_the_directory": inserted(b"PK\5\6"),
    "behind_the_end": inserted(b""),
    "a_zero_behind_the_end": lambda whole: whole + b"\0",
    "comment": lambda whole: whole[:-2] + struct.pack("<H", 6) + b"hidden",
    "twice": lambda whole: whole + whole,
    "another_count": lambda whole: whole[:-14] + struct.pack("<2H", 1, 1) + whole[-10:],
    "another_disk": lambda whole: whole[:-18] + struct.pack("<H", 1) + whole[-16:],
    "wide_end_that_lies": lambda whole: (
        whole[:-22]
        + struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, 9, 9)
        + struct.pack("<4sLQL", b"PK\6\7", 0, len(whole) - 22, 1)
        + whole[-22:]
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_hides_between_or_behind_the_entries(name, tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    path.write_bytes(HIDDEN[name](whole))
    assert len(path.read_bytes()) > len(whole) or name.startswith("another")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load(path)


@pytest.mark.parametrize(
    "name", ["a/b.npy", "../a.npy", "/a.npy", "a", "a.txt", "\N{SNOWMAN}.npy", "a b.npy"]
)
def test_entries_of_other_names_are_refused(name, tmp_path):
    path = tmp_path / "file"
    save(path)
    rewritten(path, lambda entries: [*entries[:-1], (name, npy(np.ones(1))), entries[-1]])
    with pytest.raises(ValueError, match=" cannot name an entry"):
        load(path)


@pytest.mark.parametrize("limit", [0, 100, 400])
def test_files_as_of_more_than_2_gib_are_read(limit, tmp_path, monkeypatch):
    """zipfile then writes sizes of 8 bytes, here for less."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    save(tmp_path / "file", ARRAYS)
    assert b"PK\6\6" in (tmp_path / "file").read_bytes()
    assert_same(load(tmp_path / "file"), ARRAYS)
    monkeypatch.undo()
    rng, whole = np.random.default_rng(0), (tmp_path / "file").read_bytes()
    for bit in rng.choice(8 * 2000, 400, replace=False):
        changed = bytearray(whole)
        changed[-1 - bit // 8] ^= 1 << (bit % 8)
        (tmp_path / "file").write_bytes(changed)
        with pytest.raises(ValueError, match="is damaged: "):
            load(tmp_path / "file")


def test_files_with_sizes_twice_are_read(tmp_path):
    """As Python 3.11.3 and older wrote them."""
    path = tmp_path / "file"
    save(path)
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    for i, member in enumerate(members[:-1]):
        altered(path, i, 1, 20, central=False)
        altered(path, i, 7, member.file_size, central=False)
        altered(path, i, 8, member.file_size, central=False)
    assert_same(load(path), SMALL)


HEADERS = {
    "more_numbers": header(shape="(4,)"),
    "fewer_numbers": header(shape="(2,)"),
    "none": header(shape="(0,)"),
    "scalar": header(shape="()"),
    "1e15": header(shape="(1000000000000000,)"),
    "1e15_twice": header(shape="(1000000000, 1000000000, 1000000000)"),
    "wraps": header(shape=f"({2**62 + 3},)"),
    "wraps_to_none": header(shape="(4294967296, 4294967296, 0, 3)"),
    "negative": header(shape="(-3,)"),
    "minus_minus": header(shape="(-1, -3)"),
    "no_tuple": header(shape="3"),
    "list": header(shape="[3]"),
    "float": header(shape="(3.0,)"),
    "true": header(shape="(True, 3)"),
    "no_comma": header(shape="(3)"),
    "text": header(shape="('3',)"),
    "missing": header(shape="(3,), ").replace(b"'shape'", b"'shade'"),
    "more": header(more="'more': 1"),
    "65_axes": header(shape="(" + "1, " * 64 + "3)"),
    "10000_axes": header(shape="(" + "1, " * 9999 + "3)"),
    "nested": header(shape="(" * 5000),
    "minuses": header(shape="-" * 5000 + "3"),
    "call": header(shape="__import__('os')"),
    "order": header(fortran_order="1"),
    "order_text": header(fortran_order="'False'"),
    "object": header("'|O'"),
    "object8": header("'|O8'"),
    "void": header("'|V8'"),
    "void_whole": header("'|V24'", shape="()"),
    "date": header("'<M8[s]'"),
    "span": header("'<m8[us]'"),
    "record": header("[('a', '<f8')]"),
    "record_of_objects": header("[('a', '|O')]"),
    "subarray": header("('<f8', (3,))", shape="()"),
    "subarray_text": header("'(3,)<f8'", shape="()"),
    "f3": header("'<f3'", shape="(8,)"),
    "f0": header("'<f0'"),
    "no_text": header("'<U0'"),
    "no_bytes": header("'|S0'", shape="(1000000000000000,)"),
    "long_text": header("'<U9999999999'", shape="(1,)"),
    "native": header("'=f8'"),
    "no_order": header("'|f8'"),
    "name": header("'float64'"),
    "half_a_character": header("'<U3'", shape="(2, 2)"),
    "binary_2": b"\x93NUMPY\2\0" + header()[8:],
    "version_9": b"\x93NUMPY\x09\0" + header()[8:],
    "magic": b"\x93NUMPX\1\0" + header()[8:],
    "header_beyond": header()[:8] + b"\xff\xff" + header()[10:],
    "header_none": header()[:8] + b"\0\0",
    "pickle": b"\x80\4N.",
    "nothing": None,
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused_before_memory_is_taken(name, tmp_path):
    path, content = tmp_path / "file", HEADERS[name]
    forged(path, {"a": b"" if content is None else content + THREE})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=re.escape(f"{path} is damaged: ")):
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("'|b1'", shape="(24,)") + THREE, "truth values"),
        (header("'<U6'", shape="(1,)") + b"\xff" * 24, "characters"),
        (header("'>U6'", shape="(1,)") + b"\0\x11\0\0" * 6, "characters"),
    ],
    ids=["bool", "text", "big_endian_text"],
)
def test_bytes_that_are_no_values_are_refused(content, message, tmp_path):
    forged(tmp_path / "file", {"a": content})
    with pytest.raises(ValueError, match=f"is damaged: a has {message}"):
        load(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("schema", np.array([1])),
        ("schema", np.array(1.0)),
        ("schema", np.array("1")),
        ("schema", np.array(True)),
        ("kind", np.array(["unlearner"])),
        ("kind", np.array(b"unlearner")),
        ("kind", np.array(3)),
    ],
)
def test_a_kind_or_a_version_of_another_kind_is_damage(name, array, tmp_path):
    forged(tmp_path / "file", {f"expunge.{name}": npy(array)})
    with pytest.raises(ValueError, match=f"is damaged: expunge.{name} is not one value"):
        load(tmp_path / "file")


@posix
@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "file"
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is a {kind}, not a file"):
        load(path)


def test_reading_holds_every_array_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    save(tmp_path / "file", {"X": np.zeros((2048, 2048)), "y": np.asfortranarray(np.zeros((1024, 1024)))})
    tracemalloc.start()
    try:
        load(tmp_path / "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 41 * 2**20  # of 40


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
    before = {other: other.lstat() for other in tmp_path.iterdir()}
    given = tmp_path / ("link" if through else "it")
    with pytest.raises(OSError, match=message) as raised:
        save(given)
    assert raised.value.filename == str(given)
    assert {other: other.lstat() for other in tmp_path.iterdir()} == before


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
