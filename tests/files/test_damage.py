"""Damaged and forged archives are errors, whatever their checksums say."""

import hashlib
import os
import re
import struct
import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest
from archives import ARRAYS, SMALL, assert_same, load, save

from expunge.files import archive

posix = pytest.mark.skipif(os.name != "posix", reason="this is POSIX's")


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
