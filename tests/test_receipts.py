"""Receipts: they say what was asked and done, no more, and cannot be changed unseen."""

import copy
import dataclasses
import hashlib
import hmac
import json
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.exceptions import NotFittedError
from unlearning import (
    METHODS,
    by_value,
    each_intercept,
    each_kind,
    each_loss,
    each_method,
    inside,
    make_data,
    request_from,
    requests_for,
    step_of,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import receipts

KEY, OTHER = b"0123456789abcdef", b"0123456789abcdeg"
X, Y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 4.0]


def small(**promise):
    return ex.Unlearner(ex.Ridge().fit(X, Y), X, Y, **promise)


def code(what, message, key=KEY):
    return hmac.new(key, f"expunge.{what}:{message}".encode(), hashlib.sha256).hexdigest()


def codes(what, messages):
    return sorted(code(what, message) for message in messages)


def read(update, key=KEY):
    return json.loads(update.receipt(key))


def leaves(content, path=""):
    """(path, value) of all that is no object and no list; a list's members share a path."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(content, list):
        for value in content:
            yield from leaves(value, path + "[]")
    else:
        yield path, content


# What was asked


def expected(data, requests):
    """`requests` of a receipt under KEY, for requests to `data`."""
    entries = []
    for request in requests:
        entry = {"kind": type(request).__name__}
        if isinstance(request, ex.AddRows):
            rows = range(len(data.y), len(data.y) + len(request.y))
            entry |= {"rows": len(rows), "rows_hmac": codes("rows", rows)}
        elif hasattr(request, "rows"):
            rows = np.arange(len(data.y))[request.rows]
            entry |= {"rows": len(rows), "rows_hmac": codes("rows", rows)}
        if hasattr(request, "columns"):
            columns = np.arange(len(data.kept))[request.columns]
            entry |= {"columns": len(columns), "columns_hmac": codes("columns", columns)}
        entries.append(entry)
        data = data.after(request)
    return entries


def counted(entries):
    return [{name: value for name, value in entry.items() if "hmac" not in name} for entry in entries]


@each_loss
@each_kind
def test_every_request_is_named_by_kind_counts_and_codes(kind, loss):
    data, requests = make_data(loss), requests_for(loss)[kind]
    update = unlearner(data, loss, True).apply(requests)
    entries = expected(data, requests)
    assert read(update)["requests"] == entries
    assert read(update, None)["requests"] == counted(entries)


@each_kind
def test_rows_by_value_are_counted(kind):
    data, requests = make_data("squared"), requests_for("squared")[kind]
    edits = by_value(data, requests)
    update = unlearner(data, "squared", True).detach().apply(edits)
    receipt = read(update)
    assert receipt["attached"] is False
    for edit, entry in zip(edits, receipt["requests"], strict=True):
        match edit:
            case ex.Edit():
                before, after = (0 if side is None else len(side[1]) for side in (edit.before, edit.after))
                assert entry == {"kind": "Edit", "before": before, "after": after}
            case ex.AddRows():
                assert entry == {"kind": "AddRows", "rows": len(edit.y)}
            case ex.RevokeFeatures():
                k, positions = len(edit.columns), codes("columns", edit.columns)
                assert entry == {"kind": "RevokeFeatures", "columns": k, "columns_hmac": positions}


def test_no_request_and_no_row_are_said_to_be_none():
    un = small()
    assert read(un.apply([]))["requests"] == []
    nothing = {"kind": "RemoveRows", "rows": 0, "rows_hmac": []}
    assert read(un.apply(ex.RemoveRows([])))["requests"] == [nothing]


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_named_columns_are_known_by_position_and_by_name(detached):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.standard_normal((20, 4)), columns=["age", "income", "größe", "2"])
    un = ex.Unlearner(ex.Ridge().fit(frame, frame.sum(axis=1)), frame, frame.sum(axis=1))
    if detached:
        un.detach()
    first = un.apply(ex.RevokeFeatures("income"))
    second = un.apply([ex.RevokeFeatures("größe"), ex.RevokeFeatures([3])])
    entries = [*read(first)["requests"], *read(second)["requests"]]
    for entry, position, name in zip(entries, (1, 2, 3), ("income", "größe", "2"), strict=True):
        assert entry == {
            "kind": "RevokeFeatures",
            "columns": 1,
            "columns_hmac": [code("columns", position)],
            "names_hmac": [code("names", name)],
        }
    receipt = second.receipt(KEY)
    assert receipts.find(receipt, KEY, column="2") == receipts.find(receipt, KEY, column=3) == [entries[2]]
    assert receipts.find(receipt, KEY, column=2) == [entries[1]]
    assert receipts.find(receipt, KEY, column="income") == receipts.find(receipt, KEY, column="3") == []


def test_the_order_in_which_rows_were_given_does_not_show():
    one, other = (read(small().apply(ex.CorrectLabels(rows, 1.0))) for rows in ([0, 2, 1], [1, 2, 0]))
    assert one["requests"] == other["requests"]


@pytest.mark.parametrize("what", ["rows", "columns", "mask"])
def test_an_array_that_its_owner_changes_later_leaves_the_receipt_alone(what):
    given = np.array([True, False, True]) if what == "mask" else np.array([0, 2])
    data = make_data("squared", n=3, d=3)
    un = unlearner(data, "squared", True)
    update = un.apply(
        ex.CorrectValues([1], given, 0.5) if what == "columns" else ex.CorrectLabels(given, [0.5, 1.5])
    )
    before = update.receipt(KEY)
    given[:] = given[::-1] if what == "mask" else 1
    assert update.receipt(KEY) == before
    name = "columns" if what == "columns" else "rows"
    assert read(update)["requests"][0][f"{name}_hmac"] == codes(name, [0, 2])


# What was done


AS_IN_UPDATE = [
    *("method", "hessian", "tau", "residual", "residual_bound", "distance", "settled", "since_anchor"),
    *("passes", "rows_touched", "features_revoked"),
]


@each_loss
@each_method
@pytest.mark.parametrize("kind", ["remove_rows", "revoke_feature"])
def test_what_the_update_says_is_in_the_receipt(kind, method, loss):
    data = make_data(loss)
    un = unlearner(data, loss, True, tolerance=1e-3)
    update = un.apply(requests_for(loss)[kind], **method)
    receipt = read(update)
    for name in ("residual", "residual_bound", "distance"):
        # Their digits may be those of a row: the next power of two.
        value = getattr(update, name)
        if value is not None and not (update.settled and update.residual is not None):
            assert receipt[name] == (2.0 ** np.ceil(np.log2(value)) if value < np.inf else None)
            receipt[name] = value
    for name in AS_IN_UPDATE:
        assert receipt[name] == getattr(update, name), name
        assert type(receipt[name]) is type(getattr(update, name)), name
    assert (receipt["tolerance"], receipt["within"]) == (1e-3, None)
    assert receipt["attached"] is True
    assert receipt["model"] == {
        "kind": type(un.model).__name__,
        "alpha": un.model.alpha,
        "fit_intercept": True,
        "classes": 2 if loss == "logistic" else None,
        "n_features": un.model.n_features_in_,
    }


def test_the_software_is_that_of_the_process_that_applied_the_request():
    build = ex.build_info()
    update = small().apply(ex.RemoveRows([0]))
    versions = read(update)["versions"]
    assert versions["expunge"] == ex.__version__
    assert versions["numpy"] == np.__version__
    assert (versions["isa"], versions["eigen"], versions["compiler"]) == (
        build["isa"],
        build["eigen"],
        build["compiler"],
    )
    assert all(isinstance(version, str) for version in versions.values())


PROMISES = [{}, {"tolerance": 1e-3}, {"within": 0.5}, {"tolerance": 1e-3, "within": 0.5}]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_promise_is_that_of_the_request(promise):
    """What was not asked for is null; 0.01 standard errors are promised where nothing was."""
    un = small(**promise)
    update = un.apply(ex.RemoveRows([0]))
    inside(un).tolerance = 1.0
    receipt, promised = read(update), promise or {"within": 0.01}
    for name in ("tolerance", "within"):
        assert receipt[name] == promised.get(name), name


def test_a_receipt_depends_on_the_update_alone():
    texts = {small().apply(ex.RemoveRows([1])).receipt(key) for key in (KEY, KEY, None, None)}
    assert len(texts) == 2


def test_an_infinite_bound_is_null():
    update = small().apply(ex.RemoveRows([0]))
    vars(update)["residual_bound"] = np.inf
    assert read(update)["residual_bound"] is None


@dataclasses.dataclass
class Certificate:
    values: object

    def as_dict(self):
        return self.values


def test_a_certificate_and_a_note_go_along_under_the_seal():
    update = small().apply(ex.RemoveRows([0]))
    values = {"epsilon": 0.1, 10: "ten", 9: ("a", None)}
    receipt = update.receipt(KEY, Certificate(values), note="case 7: ü")
    content = receipts.verify(receipt, KEY)
    assert content["certificate"] == {"epsilon": 0.1, "10": "ten", "9": ["a", None]}
    assert content["note"] == "case 7: ü"
    for one, other in (("0.1", "0.2"), ("case 7", "case 8")):
        with pytest.raises(ValueError, match="was changed"):
            receipts.verify(receipt.replace(one, other), KEY)


def test_what_does_not_go_into_a_receipt_is_refused():
    update = small().apply(ex.RemoveRows([0]))
    with pytest.raises(TypeError, match=r"certificate must have a method as_dict\(\), got dict"):
        update.receipt(KEY, {"epsilon": 1})
    with pytest.raises(TypeError, match=r"does not go into JSON.*ndarray"):
        update.receipt(KEY, Certificate({"theta": np.zeros(2)}))
    with pytest.raises(ValueError, match="does not go into JSON"):
        update.receipt(KEY, Certificate({"epsilon": float("nan")}))
    with pytest.raises(TypeError, match="note must be text, got int"):
        update.receipt(KEY, note=7)


# The schema


def documented():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.split("\n## Receipts\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_documented_fields_are_those_there_are():
    pandas = pytest.importorskip("pandas")
    if not (Path(__file__).parents[1] / "docs").is_dir():
        pytest.skip("docs/ is not beside the tests")
    frame = pandas.DataFrame(np.eye(4) + 1.0, columns=list("abcd"))
    model = ex.Ridge().fit(frame, Y)
    un = ex.Unlearner(model, frame, Y, ids=list("wxyz"))
    added = ex.AddRows(frame[:1], Y[:1], ids=["v"])
    updates = [un.apply([ex.CorrectValues([0], ["a"], 0.0), added, ex.RemoveRows(3)])]
    updates += [un.detach().apply([ex.Edit(before=(np.eye(4)[1:2] + 1.0, Y[1:2])), ex.RevokeFeatures("b")])]
    labels = [0, 1, 0, 1]
    model = ex.LogisticRegression(class_weight={0: 2.0}).fit(frame, labels)
    updates += [ex.Unlearner(model, frame, labels).apply(ex.CorrectLabels(0, 1))]
    for model in (ex.LinearSVC(), ex.TweedieRegressor(), linear_model.PoissonRegressor()):
        updates += [ex.Unlearner(model.fit(frame, labels), frame, labels).apply(ex.CorrectLabels(0, 1))]
    found = set()
    for update in updates:
        content = read(update)
        assert set(content) == {name.split(".")[0].split("[")[0] for name in documented()} - {"expunge"} | {
            "expunge.receipt"
        }
        found |= {path.removesuffix("[]") for path, _ in leaves(content)}
    names = documented()
    assert len(names) == len(set(names))
    assert found == set(names)


# No raw values


LABELS, CELL, ADDED, WEIGHT, ROW = ["no_illness", "has_illness"], 555.375, 777.125, 3.140625, 1357


def pickled(value):
    """The forms in which a pickle, or an array in it, holds a float."""
    return struct.pack("<d", value), struct.pack(">d", value)


def telling(rng):
    """An Unlearner with names where pandas is here, and requests full of values that should not be seen."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.standard_normal((1400, 4)), columns=["a", "salary_of_smith", "b", "c"])
    y = np.array(LABELS)[(rng.uniform(size=1400) < 0.5).astype(int)]
    s = np.full(1400, WEIGHT)
    joins = frame[:1].assign(b=ADDED)
    requests = [
        ex.CorrectValues([ROW], ["b"], CELL),
        ex.CorrectLabels([ROW], LABELS[0]),
        ex.AddRows(joins, LABELS[:1], [WEIGHT]),
        ex.RemoveRows([ROW]),
        ex.RevokeFeatures(["salary_of_smith"]),
    ]
    un = ex.Unlearner(ex.LogisticRegression().fit(frame, y, s), frame, y, s)
    return un, requests


@pytest.mark.parametrize("key", [None, KEY], ids=["without key", "with key"])
def test_no_raw_value_is_in_a_receipt(key):
    un, requests = telling(np.random.default_rng(3))
    update = un.apply(requests)
    text = update.receipt(key)
    for raw in ("illness", "smith", CELL, ADDED, WEIGHT, f'"{ROW}"', '"a"', '"b"', '"c"'):
        assert str(raw) not in text, raw
    numbers = [value for _, value in leaves(json.loads(text)) if type(value) in (int, float)]
    theta = [*theta_of(un.model), *update.step, *update.gradient_difference]
    assert not {ROW, 1400, CELL, ADDED, WEIGHT, *theta} & set(numbers)
    assert ("hmac" in str(json.loads(text)["requests"])) == (key is not None)


def test_no_value_is_remembered_for_a_receipt():
    """Not by the Update, nor are row numbers and column names by its pickle."""
    un, requests = telling(np.random.default_rng(3))
    update = un.apply(requests)
    remembered = pickle.dumps(update)
    assert struct.pack("<q", ROW) not in remembered
    assert b"smith" not in remembered
    for forms in ([b"illness"], *map(pickled, (CELL, ADDED, WEIGHT))):
        assert any(form in pickle.dumps(requests) for form in forms)
        assert not any(form in remembered for form in forms)


def test_detached_rows_are_not_remembered():
    row, label = [[CELL, ADDED]], [WEIGHT]
    rng = np.random.default_rng(0)
    held, y = np.vstack([rng.standard_normal((20, 2)), row]), np.append(rng.standard_normal(20), label)
    un = ex.Unlearner(ex.Ridge().fit(held, y), held, y, tolerance=1.0).detach()
    update = un.apply([ex.Edit(before=(row, label)), ex.AddRows(row, label)])
    assert read(update)["requests"] == [
        {"kind": "Edit", "before": 1, "after": 0},
        {"kind": "AddRows", "rows": 1},
    ]
    for value in (CELL, ADDED, WEIGHT):
        assert not any(form in pickle.dumps(update) for form in pickled(value))
        assert str(value) not in update.receipt(KEY)


def test_repr_and_asdict_of_an_update_show_no_row_numbers():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1400, 2))
    un = ex.Unlearner(ex.Ridge().fit(data, data[:, 0]), data, data[:, 0])
    update = un.apply(ex.RemoveRows([ROW]))
    assert set(dataclasses.asdict(update)) == {field.name for field in dataclasses.fields(ex.Update)}
    shown = re.sub(r"array\(.*?\)", "", repr(update), flags=re.DOTALL)
    assert "record" not in shown
    assert str(ROW) not in re.sub(r"[\d.]+e-\d+|\d+\.\d+", "", shown)


# The seal


def changed(value):
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case None:
            return 0


def each_change(content):
    """Copies, each with one leaf changed, one field or member missing, or one more."""
    places = [((), content)]
    while places:
        path, value = places.pop()
        if isinstance(value, dict | list):
            members = list(value.items() if isinstance(value, dict) else enumerate(value))
            places += [((*path, name), member) for name, member in members]
            for name, member in members:
                other = copy.deepcopy(content)
                inner = at(other, path)
                del inner[name]
                yield (*path, name), other
                if not isinstance(member, dict | list):
                    other = copy.deepcopy(content)
                    at(other, path)[name] = changed(member)
                    yield (*path, name), other
            other = copy.deepcopy(content)
            inner = at(other, path)
            if isinstance(inner, dict):
                inner["more"] = 0
            else:
                inner.append("more")
            yield (*path, "more"), other


def at(content, path):
    for name in path:
        content = content[name]
    return content


def test_whatever_is_changed_the_seal_breaks():
    un, requests = telling(np.random.default_rng(3))
    receipt = un.apply(requests).receipt(KEY, Certificate({"epsilon": [1, {"of": None}]}))
    content = json.loads(receipt)
    assert receipts.verify(receipt, KEY) == content
    count = 0
    for path, other in each_change(content):
        with pytest.raises(ValueError, match=r"was changed|no HMAC|not a receipt|has version"):
            receipts.verify(json.dumps(other), KEY)
        assert other != content, path
        count += 1
    assert count > 100


def test_another_key_neither_verifies_nor_finds():
    receipt = small().apply(ex.RemoveRows([0])).receipt(KEY)
    with pytest.raises(ValueError, match="made with another key"):
        receipts.verify(receipt, OTHER)
    with pytest.raises(ValueError, match="made with another key"):
        receipts.find(receipt, OTHER, row=0)
    other = read(small().apply(ex.RemoveRows([0])), OTHER)
    ours = json.loads(receipt)
    assert ours["requests"] != other["requests"]
    assert not set(ours["state"].values()) & set(other["state"].values())


def test_white_space_and_order_may_change():
    receipt = small().apply(ex.RemoveRows([0])).receipt(KEY)
    content = json.loads(receipt)
    assert receipts.verify(json.dumps(content, indent=2, sort_keys=True), KEY) == content


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "this is not a receipt"),
        ("[1]", "no field expunge.receipt"),
        ("{}", "no field expunge.receipt"),
        ('{"expunge.receipt": 3, "hmac": "00"}', "has version 3, this expunge reads 2: update it"),
        ('{"expunge.receipt": 0, "hmac": "00"}', "has version 0"),
        ('{"expunge.receipt": 1}', "carries no HMAC"),
        ('{"expunge.receipt": 1, "hmac": null}', "carries no HMAC"),
        ('{"expunge.receipt": 1, "hmac": 5}', "was changed"),
        ('{"expunge.receipt": 1, "hmac": "é"}', "was changed"),
        ('{"expunge.receipt": 2}', "carries no HMAC"),
        ('{"expunge.receipt": 2, "hmac": "00"}', "was changed"),
        ('{"expunge.receipt": 1, "hmac": "00", "tau": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "this is not a receipt"),
    ],
)
def test_what_is_no_receipt_is_refused(text, match):
    with pytest.raises(ValueError, match=match):
        receipts.verify(text, KEY)


def test_receipts_of_version_1_are_read():
    """They had a tolerance always, and said nothing of distances; their seal is over what they hold."""
    un = small()
    content = read(un.apply([ex.RemoveRows([0]), ex.CorrectLabels([2], 0.5)]))
    assert content["expunge.receipt"] == 2
    del content["within"], content["distance"], content["hmac"]
    content |= {"expunge.receipt": 1, "tolerance": 1e-8}
    seal = code("receipt", json.dumps(content, sort_keys=True, separators=(",", ":")))
    receipt = json.dumps({**content, "hmac": seal})
    assert receipts.verify(receipt, KEY) == json.loads(receipt)
    assert receipts.find(receipt, KEY, row=2) == [content["requests"][1]]
    assert content["state"]["after"] == receipts.state_hash(un.model, KEY)
    with pytest.raises(ValueError, match="was changed"):
        receipts.verify(receipt.replace("1e-08", "1e-07"), KEY)
    with pytest.raises(ValueError, match="was changed"):  # nor does it pass for one of today
        receipts.verify(receipt.replace('"expunge.receipt": 1', '"expunge.receipt": 2'), KEY)


def test_a_receipt_without_a_key_is_not_verified():
    with pytest.raises(ValueError, match="made without a key, and anybody can change it"):
        receipts.verify(small().apply(ex.RemoveRows([0])).receipt(), KEY)


def test_a_field_that_is_there_twice_is_refused():
    """Readers differ in which of the two they take."""
    receipt = small().apply(ex.RemoveRows([0])).receipt(KEY)
    twice = receipt.replace('"rows": 1', '"rows": 9, "rows": 1')
    assert json.loads(twice) == json.loads(receipt)
    with pytest.raises(ValueError, match="a field is there twice"):
        receipts.verify(twice, KEY)


@pytest.mark.parametrize("use", ["receipt", "state_hash", "verify", "find"])
def test_keys_are_bytes_and_long_enough(use):
    un = small()
    update = un.apply(ex.RemoveRows([0]))
    receipt = update.receipt(KEY)
    functions = {
        "receipt": update.receipt,
        "state_hash": lambda key: receipts.state_hash(un.model, key),
        "verify": lambda key: receipts.verify(receipt, key),
        "find": lambda key: receipts.find(receipt, key, row=0),
    }
    with pytest.raises(ValueError, match=r"key has 15 bytes, expected 16 or more: secrets.token_bytes\(32\)"):
        functions[use](KEY[:15])
    with pytest.raises(TypeError, match=r"key must be bytes, got str: .*bytes.fromhex"):
        functions[use](KEY.decode() * 2)
    functions[use](KEY)


def test_verify_and_find_need_a_key():
    """Else a plain hash, which anybody can make, would be a seal."""
    content = read(small().apply(ex.RemoveRows([0])), None)
    del content["hmac"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    forged = json.dumps(
        content | {"hmac": hashlib.sha256(f"expunge.receipt:{canonical}".encode()).hexdigest()}
    )
    for function in (receipts.verify, receipts.find):
        with pytest.raises(TypeError, match="key must be bytes, got NoneType"):
            function(forged, None)


# Looking up


def test_rows_and_columns_are_found_in_the_requests_that_named_them():
    data = make_data("logistic")
    un = unlearner(data, "logistic", True)
    requests = requests_for("logistic")["mixed"]
    receipt = un.apply(requests).receipt(KEY)
    entries = receipts.verify(receipt, KEY)["requests"]
    wanted = expected(data, requests)
    assert entries == wanted
    for row in range(70):
        found = [entry for entry in wanted if code("rows", row) in entry.get("rows_hmac", [])]
        assert receipts.find(receipt, KEY, row=row) == found
    assert receipts.find(receipt, KEY, row=np.int64(61)) == [entries[0], entries[2]]
    assert receipts.find(receipt, KEY, column=0) == receipts.find(receipt, KEY, row=5, column=0)
    assert receipts.find(receipt, KEY, row=6, column=0) == []


def test_what_a_receipt_cannot_tell_is_refused():
    un = small()
    receipt = un.apply(ex.CorrectValues([0], [0], 1.0)).receipt(KEY)
    with pytest.raises(ValueError, match="columns have no names in this receipt: give a position"):
        receipts.find(receipt, KEY, column="age")
    with pytest.raises(ValueError, match="say what to find"):
        receipts.find(receipt, KEY)
    receipt = un.detach().apply(ex.AddRows([[1.0]], [1.0])).receipt(KEY)
    with pytest.raises(ValueError, match="rows of this receipt came by value"):
        receipts.find(receipt, KEY, row=4)


# Hashes of the model


@each_loss
@each_intercept
def test_the_state_is_the_hash_of_what_the_docs_say(loss, fit_intercept):
    model = unlearner(make_data(loss), loss, fit_intercept).model
    classes = "2" if loss == "logistic" else "null"
    header = (
        f'{{"alpha":0.5,"classes":{classes},"fit_intercept":{str(fit_intercept).lower()},'
        f'"kind":"{type(model).__name__}","n_features":6}}\n'
    )
    message = b"expunge.state:" + header.encode() + struct.pack(f"<{6 + fit_intercept}d", *theta_of(model))
    assert receipts.state_hash(model) == hashlib.sha256(message).hexdigest()
    assert receipts.state_hash(model, KEY) == hmac.new(KEY, message, hashlib.sha256).hexdigest()


def test_the_state_tells_models_apart():
    models = [ex.Ridge(alpha, fit_intercept=b) for alpha in (1.0, 2.0) for b in (False, True)]
    models = [model.fit(X, Y) for model in models]
    models += [ex.LogisticRegression().fit(X, [0, 0, 1, 1])]
    nearby = copy.copy(models[0])
    nearby.coef_ = np.nextafter(models[0].coef_, np.inf)
    hashes = {receipts.state_hash(model, key) for model in [*models, nearby] for key in (None, KEY, OTHER)}
    assert len(hashes) == 3 * (len(models) + 1)


def test_class_labels_are_not_in_the_state():
    numbers, words = (ex.LogisticRegression().fit(X, y) for y in ([0, 0, 1, 1], list("nnyy")))
    assert receipts.state_hash(numbers) == receipts.state_hash(words)


def test_state_hash_refuses_what_an_unlearner_refuses():
    with pytest.raises(NotFittedError):
        receipts.state_hash(ex.Ridge())
    with pytest.raises(TypeError, match="is not supported"):
        receipts.state_hash(linear_model.Lasso().fit(X, Y))


@each_loss
@pytest.mark.parametrize("adopted", [False, True], ids=["ours", "scikit-learn's"])
def test_receipts_chain_through_streams_failures_files_and_detaching(loss, adopted, tmp_path):
    data = make_data(loss, d=12, n=80)
    rows, y, _ = data.rows
    if adopted:
        kind = linear_model.Ridge if loss == "squared" else linear_model.LogisticRegression
        un = ex.Unlearner(kind().fit(rows, y), rows, y)
    else:
        un = unlearner(data, loss, True)
    rng = np.random.default_rng(1)
    kinds, state, seen = ["remove", "add", "label", "value", "revoke"], receipts.state_hash(un.model, KEY), []
    for turn in range(20):
        method = list(METHODS.values())[turn % len(METHODS)]
        chosen = [(kinds[(turn + i) % 5], *map(int, rng.integers(0, 10**6, 3))) for i in range(1 + turn % 2)]
        if chosen[0][0] == "revoke" and un.get_support().sum() <= 3:
            chosen = [("label", *chosen[0][1:])]
        requests, after = step_of(data, loss, chosen)
        with pytest.raises(ValueError):
            un.apply([*requests, ex.RemoveRows([10**6])], **method)
        assert receipts.state_hash(un.model, KEY) == state  # the failure left it alone
        receipt = read(un.apply(requests, **method))
        assert receipt["state"]["before"] == state
        state = receipt["state"]["after"]
        assert state == receipts.state_hash(un.model, KEY)
        assert state not in seen
        seen.append(state)
        data = after
        if turn % 5 == 4:
            un.save(tmp_path / "file", include_rows=True)
            un = ex.Unlearner.load(tmp_path / "file")
    joins = request_from(data, loss, "add", 2, 1, 1)
    receipt = read(un.detach().apply(joins, method="second_order"))
    assert receipt["state"] == {"before": state, "after": receipts.state_hash(un.model, KEY)}
    un.attach(*data.after(joins).rows)
    assert receipts.state_hash(un.model, KEY) == receipt["state"]["after"]
