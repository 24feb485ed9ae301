"""The comparison on linear models: its cells, tables and how two runs are compared."""

import csv
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import expunge as ex

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "bench" / "paper").is_dir():
    pytest.skip("bench/ is not beside the tests", allow_module_level=True)
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # as `python -m bench.paper` in a clone has it

from bench.paper.linear import certified, experiments, studies, tables  # noqa: E402
from bench.paper.linear.agree import agree, differences  # noqa: E402
from bench.paper.linear.cells import Cells, compare  # noqa: E402
from bench.paper.linear.strategies import BY_NAME, STRATEGIES  # noqa: E402


@pytest.fixture(scope="module")
def study():
    return studies.made(600, 12)


def test_a_cell_is_made_once_and_outlives_an_interrupt(tmp_path):
    made = []

    def cell(number):
        made.append(number)
        if number == 3:
            raise KeyboardInterrupt
        return {"number": number}

    cells = Cells(tmp_path / "a" / "runs.jsonl", "here")
    for k in range(3):
        cells.get(str(k), lambda k=k: cell(k))
    with pytest.raises(KeyboardInterrupt):
        cells.get("3", lambda: cell(3))
    again = Cells(tmp_path / "a" / "runs.jsonl", "here")
    made.clear()
    assert [again.get(str(k), lambda k=k: cell(k))["number"] for k in range(3)] == [0, 1, 2]
    assert made == []
    other = Cells(tmp_path / "a" / "runs.jsonl", "elsewhere")  # another commit or machine begins anew
    assert other.records == {}


@pytest.mark.parametrize("kind", list(studies.REQUESTS))
def test_the_corrected_data_are_those_that_an_unlearner_holds(study, kind):
    amount = {"correct labels": 0.05, "revoke columns": 1}.get(kind, 2)
    asked = studies.asked(kind, study, amount, 3)
    un = ex.Unlearner(study.model(), study.X, study.y)
    un.apply(asked.request)
    X, y, _ = un.corrected_data()
    np.testing.assert_array_equal(X, asked.X)
    np.testing.assert_array_equal(y, asked.y)
    np.testing.assert_array_equal(np.flatnonzero(un.get_support()), asked.columns)


def test_exact_strategies_are_near_and_the_old_hessian_is_not(study, tmp_path):
    cells = Cells(tmp_path / "runs.jsonl", "here")
    records = compare(study, study.model(), "revoke columns", 1, 0, STRATEGIES, cells, lambda text: None)
    by_name = {record["strategy"]: record for record in records}
    for name in ("exact", "auto", "retraining, cold", "retraining, warm", "newton-cholesky, cold"):
        assert by_name[name]["distance"] <= 0.01, name
    assert by_name["exact"]["residual"] < 1e-6
    assert by_name["second order"]["distance"] < by_name["nothing"]["distance"]
    assert by_name["occlusion"]["refused"] == "" != by_name["one step (Guo)"]["refused"]
    rows = tables.comparison(records)
    assert [row["strategy"] for row in rows] == list(BY_NAME)
    assert len({tuple(row) for row in rows}) == 1  # one heading for all
    assert "retrained, to 0.01" in rows[list(BY_NAME).index("exact")]["note"]
    json.dumps(records)


def test_a_run_writes_tables_and_figures_and_a_second_one_agrees(tmp_path, monkeypatch, capsys):
    from bench.paper import __main__ as paper

    monkeypatch.setattr(paper, "studies", lambda quick: [studies.made(400, 12)])
    monkeypatch.setattr(experiments, "SHARES", (0.05,))
    for run in ("first", "second"):
        paper.main(
            ["--quick", "--seeds", "1", "--only", "columns", "sequences", "--results", str(tmp_path / run)]
        )
    capsys.readouterr()
    first, second = (next((tmp_path / run).glob("*/paper-quick.csv")) for run in ("first", "second"))
    assert list(differences(first, second)) == []
    text = first.with_suffix(".md").read_text(encoding="utf-8")
    assert "## Columns revoked" in text
    assert "Not run" in text  # the networks
    assert first.with_name("paper-quick-columns.svg").exists()
    with first.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spoiled = first.with_name("spoiled.csv")
    for row in rows:
        row["accuracy"] = f"{float(row['accuracy']) - 0.1:.3f}" if row["accuracy"] else ""
    with spoiled.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert any("accuracy was" in line for line in differences(first, spoiled))


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("residual", "< 1e-07", "< 1e-07", True),
        ("residual", "< 1e-07", "3e-07 (4e-07)", True),
        ("residual", "< 1e-07", "3e-06", False),
        ("standard errors", "3.4 (6.7)", "3.5 (6.8)", True),
        ("standard errors", "0.34", "3.5", False),
        ("accuracy", "0.845", "0.846", True),
        ("accuracy", "0.845", "0.847", False),
        ("accuracy", "0.845", "", False),
        ("ms", "1", "99", True),
        ("strategy", "exact", "auto", False),
        ("passes", "8.5", "9.5", True),
        ("passes", "8.5", "19.5", False),
        ("note", "refused: it does not", "", False),
    ],
)
def test_what_agrees(name, old, new, same):
    assert agree(name, old, new) is same


def test_any_file_of_named_columns_is_taken(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)).round(6)
    y = (X[:, 0] > 0) * 1
    columns = dict(zip("abcd", X.T, strict=True)) | {"label": y}
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "people.csv").write_text("\n".join(lines), encoding="utf-8")
    np.savez(tmp_path / "people.npz", **columns)
    names = {"feature_names": np.array(list("abcd")), "sensitive_features": np.array(["b", "c"])}
    np.savez(tmp_path / "vectors.npz", X_train=X, X_test=X[:9], y_train=y, y_test=y[:9], **names)
    found = [
        *studies.from_file(str(tmp_path / "people.csv"), "label", ["b", "c"]),
        *studies.from_file(str(tmp_path / "people.npz"), "label", ["b", "c"]),
        *studies.from_file(str(tmp_path / "vectors.npz"), None, None),
    ]
    for study in found:
        assert study.X.shape[1] == 4
        assert study.sensitive.tolist() == [1, 2]
        np.testing.assert_allclose(np.linalg.norm(study.X, axis=1), 1.0)
    np.testing.assert_allclose(found[0].X, found[1].X)


def test_a_file_that_cannot_be_read_ends_with_a_line(tmp_path, monkeypatch):
    from bench.paper import __main__ as paper

    (tmp_path / "people.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="name the column to predict"):
        paper.main(["--data", str(tmp_path / "people.csv"), "--results", str(tmp_path)])


@pytest.mark.parametrize("way", list(certified.WAYS["remove rows"]))
def test_certified_models_stand_beside_retraining(study, way):
    ask = partial(studies.asked, "remove rows", study, 1, 0)
    record = certified.scored(study, study.model(), ask, certified.WAYS["remove rows"][way], 0.9, 0)
    assert 0.5 <= record["retrained_accuracy"] <= 1.0
    if way in ("release", "retraining"):
        assert round(record["accuracy"], 3) == round(record["retrained_accuracy"], 3)
    assert (record["sigma"] == 0.0) == (way == "retraining")
    assert (record["seconds"] > 0.0) == (way != "retraining")
