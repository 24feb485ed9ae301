"""Arrays to archive, and archives to compare."""

import numpy as np

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
