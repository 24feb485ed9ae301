"""Receipts: JSON that says what an Update did, and names rows and columns only under the caller's key.

docs/data.md lists the fields. Codes and hashes are SHA-256, or HMAC-SHA256 under the key, of
``expunge.WHAT:MESSAGE`` with WHAT one of rows, columns, names, ids, state and receipt. So no code can stand
for another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
from collections.abc import Hashable, Mapping
from functools import cache
from math import isfinite
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy
import sklearn

from ._arrays import Float
from ._core import build_info
from ._numbers import power_of_two_above
from .engine.row_names import canonical, names_given
from .models.adopt import problem_of
from .models.base import theta_of
from .problem import outputs_of
from .requests import Named

if TYPE_CHECKING:
    from .release import Certificate

__all__ = ["find", "state_hash", "verify"]

VERSION, READABLE = 2, (1, 2)
SHORTEST_KEY = 16  # bytes


class Record(NamedTuple):
    """An Update's memory of its request, by reference: a receipt hashes and formats it later.

    It holds no cells, labels or weights, and no rows that came by value. An Update keeps it as a plain tuple,
    which is made in less time.
    """

    requests: list[Named]
    before: Float  # theta; nobody changes it in place
    after: Float
    model: Mapping[str, Any]  # see Problem.described
    promise: Any  # engine.state.Promise
    attached: bool
    versions: Mapping[str, str]
    model_before: Mapping[str, Any] | None = None  # None: as after


@cache
def versions() -> dict[str, str]:
    """The versions that results depend on."""
    from . import __version__  # does not exist yet while the package is being imported

    build = build_info()
    return {
        "expunge": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit_learn": sklearn.__version__,
        "eigen": build["eigen"],
        "compiler": build["compiler"],
        "isa": build["isa"],
    }


def issue(
    update: Mapping[str, Any],
    record: Record,
    key: bytes | None,
    certificate: Certificate | None,
    note: str | None,
) -> str:
    """The receipt of an update with these fields; see :meth:`expunge.Update.receipt`."""
    if key is not None:
        check_key(key)
    if not (note is None or isinstance(note, str)):
        raise TypeError(f"note must be text, got {type(note).__name__}")
    measured = update["residual"] is not None
    content = {
        "expunge.receipt": VERSION,
        "versions": record.versions,
        "model": _described(record.model, record.after),
        "requests": [_request(named, key) for named in record.requests],
        "rows_touched": update["rows_touched"],
        "features_revoked": update["features_revoked"],
        "attached": record.attached,
        "method": update["method"],
        "hessian": update["hessian"],
        "tau": update["tau"],
        "tolerance": record.promise.tolerance,
        "within": record.promise.within,
        "residual": _kept(update["residual"], update["settled"]),
        "residual_bound": _kept(update["residual_bound"], update["settled"] and measured),
        "distance": _kept(update["distance"], update["settled"] and measured),
        "settled": update["settled"],
        "since_anchor": update["since_anchor"],
        "passes": update["passes"],
        "state": {
            "before": _state(record.model_before or record.model, record.before, key),
            "after": _state(record.model, record.after, key),
        },
        "certificate": None if certificate is None else _plain(certificate),
        "note": note,
    }
    seal = None if key is None else _code("receipt", _canonical(content), key)
    return json.dumps({**content, "hmac": seal}, allow_nan=False)


def _kept(residual: float | None, settled: bool) -> float | None:
    """A residual or its bound, rounded up to a power of two unless it was measured after iterations.

    All digits of another one would tell of rows that left.
    """
    if residual is None or not isfinite(residual):
        return None
    return residual if settled else power_of_two_above(residual)


def state_hash(model: Any, key: bytes | None = None) -> str:
    """The hash of a fitted model, by which receipts identify it.

    It is over kind, alpha, fit_intercept, the numbers of classes and features, and every bit of theta. A
    receipt under the same key holds it in `state`: as `after` if its update left this model, as `before` if
    its update started from this model. Without a key, whoever can compute a model bit for bit can tell
    whether it was this one.

    Parameters
    ----------
    model : fitted Ridge or LogisticRegression, of expunge or of scikit-learn
    key : bytes, optional
        16 or more.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not accepted; the key is not bytes, or is too short.

    Examples
    --------
    >>> import json
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    >>> receipt = json.loads(un.apply(ex.RemoveRows([0])).receipt())
    >>> receipt["state"]["after"] == ex.receipts.state_hash(un.model)
    True
    """
    if key is not None:
        check_key(key)
    return _state(problem_of(model).described, theta_of(model), key)


def verify(receipt: str, key: bytes) -> dict[str, Any]:
    """The content of a receipt whose HMAC shows that it was made with this key and not changed since.

    Parameters
    ----------
    receipt : str
        From :meth:`expunge.Update.receipt`. White space and the order of fields may have changed.
    key : bytes

    Returns
    -------
    dict
        The receipt, from JSON.

    Raises
    ------
    ValueError
        The receipt was changed, was made with another key or without one, or has a newer version; or this is
        no receipt.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y, key = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0], b"0123456789abcdef"
    >>> receipt = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0])).receipt(key)
    >>> ex.receipts.verify(receipt, key)["requests"][0]["rows"]
    1
    """
    check_key(key)
    content = _parsed(receipt)
    seal = content.pop("hmac", None)
    if seal is None:
        raise ValueError("the receipt carries no HMAC: it was made without a key, and anybody can change it")
    if not (isinstance(seal, str) and seal.isascii()) or not hmac.compare_digest(
        seal, _code("receipt", _canonical(content), key)
    ):
        raise ValueError("the receipt was changed, or made with another key")
    return {**content, "hmac": seal}


def find(
    receipt: str,
    key: bytes,
    *,
    row: int | None = None,
    column: int | str | None = None,
    id: Hashable | None = None,
) -> list[dict[str, Any]]:
    """The requests of a verified receipt that named this row, column and id, as far as these are given.

    Parameters
    ----------
    receipt : str
    key : bytes
        The key that the receipt was made with.
    row : int, optional
        The row's number at that time: :meth:`expunge.Unlearner.attach` numbers rows anew.
    column : int or str, optional
        Position or name.
    id : hashable, optional
        Of requests that named rows by `ids`, and of rows that were added.

    Returns
    -------
    list of dict
        Entries of `requests` in the receipt; empty if none named it. (A revocation names no rows.)

    Raises
    ------
    ValueError
        As :func:`verify`; nothing to find is given; or the receipt cannot tell, because rows that came
        by value have no numbers, and columns of plain arrays no names.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y, key = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0], b"0123456789abcdef"
    >>> receipt = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0])).receipt(key)
    >>> [request["kind"] for request in ex.receipts.find(receipt, key, row=0)]
    ['RemoveRows']
    >>> ex.receipts.find(receipt, key, row=1)
    []
    """
    content = verify(receipt, key)
    requests: list[dict[str, Any]] = content["requests"]
    wanted = {}
    if row is not None:
        if not content["attached"]:
            raise ValueError(
                "the rows of this receipt came by value, without numbers: an Unlearner without rows made it"
            )
        wanted["rows_hmac"] = _code("rows", str(index(row)), key)
    if isinstance(column, str):
        if any("columns" in request and "names_hmac" not in request for request in requests):
            raise ValueError("the columns have no names in this receipt: give a position")
        wanted["names_hmac"] = _code("names", column, key)
    elif column is not None:
        wanted["columns_hmac"] = _code("columns", str(index(column)), key)
    if id is not None:
        wanted["ids_hmac"] = _code("ids", canonical(names_given([id], "id")[0]), key)
    if not wanted:
        raise ValueError("say what to find: row=, column= or id=")
    return [
        request
        for request in requests
        if all(code in request.get(field, ()) for field, code in wanted.items())
    ]


def _request(named: Named, key: bytes | None) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for what, members in named.items():
        if isinstance(members, int | str):
            entry[what] = members
            continue
        if what != "names":  # there are as many as columns
            entry[what] = len(members)
        if key is not None:  # sorted, so that their order tells nothing
            code = canonical if what == "ids" else str
            entry[f"{what}_hmac"] = sorted(_code(what, code(member), key) for member in members)
    return entry


def _described(model: Mapping[str, Any], theta: Float) -> dict[str, Any]:
    outputs = outputs_of(model["classes"] or 0)
    return {**model, "n_features": theta.size // outputs - int(model["fit_intercept"])}


def _state(model: Mapping[str, Any], theta: Float, key: bytes | None) -> str:
    described = _canonical(_described(model, theta)).encode()
    return _code("state", described + b"\n" + theta.astype("<f8").tobytes(), key)


def _code(what: str, message: str | bytes, key: bytes | None) -> str:
    """A hash in hexadecimal digits, under the key if there is one."""
    if isinstance(message, str):
        message = message.encode(errors="surrogatepass")
    message = f"expunge.{what}:".encode() + message
    return (hashlib.sha256(message) if key is None else hmac.new(key, message, "sha256")).hexdigest()


def _canonical(content: Mapping[str, Any]) -> str:
    """JSON that depends on the values alone, not on their order."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(certificate: Certificate) -> Any:
    """A certificate's values in the types that JSON knows."""
    if not hasattr(certificate, "as_dict"):
        raise TypeError(f"certificate must have a method as_dict(), got {type(certificate).__name__}")
    values = certificate.as_dict()
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise type(error)(f"certificate.as_dict() does not go into JSON: {error}") from None


def check_key(key: bytes) -> None:
    if not isinstance(key, bytes):
        raise TypeError(
            f"key must be bytes, got {type(key).__name__}: secrets.token_bytes(32) makes one, and "
            "bytes.fromhex reads one that is kept as text"
        )
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"key has {len(key)} bytes, expected {SHORTEST_KEY} or more: secrets.token_bytes(32) makes one"
        )


def _parsed(receipt: str) -> dict[str, Any]:
    try:
        content = json.loads(receipt, object_pairs_hook=_each_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not a receipt: {error}") from None
    if not isinstance(content, dict) or "expunge.receipt" not in content:
        raise ValueError("this is not a receipt: it has no field expunge.receipt")
    if content["expunge.receipt"] not in READABLE:
        raise ValueError(
            f"the receipt has version {content['expunge.receipt']!r}, this expunge reads {VERSION}: update it"
        )
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that has a name twice is an error, as readers differ in which value they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
