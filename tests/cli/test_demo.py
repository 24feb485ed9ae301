"""``python -m expunge demo``: the main job, on made-up data and on a CSV file."""

import csv
import subprocess
import sys

import numpy as np
import pytest

import expunge
from expunge.cli import demo, main

WITHIN = 0.01  # standard errors: what an Unlearner promises where nothing was asked for


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def table(tmp_path):
    """120 rows: a number, a category of three levels, another number; targets of both kinds."""
    rng = np.random.default_rng(0)
    age, income = rng.normal(40, 10, 120).round(1), rng.normal(0, 1, 120).round(3)
    town = rng.choice(["north", "south", "west"], 120)
    score = (age / 10 + 2 * (town == "west") + income + rng.normal(0, 1, 120)).round(3)
    bought = np.where(score > np.median(score), "yes", "no")
    rows = zip(age, town, income, score, bought, strict=True)
    return write_csv(tmp_path / "people.csv", ["age", "town", "income", "score", "bought"], rows)


@pytest.fixture
def small(monkeypatch):
    """The demo's own data, but less of it."""
    table = demo.made_up(2_000, 8)
    monkeypatch.setattr(demo, "made_up", lambda: table)


@pytest.mark.slow
def test_the_demo_runs_as_a_module_and_says_that_auto_and_exact_are_retraining():
    done = subprocess.run(
        [sys.executable, "-m", "expunge", "demo"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 24  # one screen
    assert lines[0].startswith("expunge on made-up customers: 30000 rows x 150 columns")
    assert "expunge, auto" in lines[5]
    assert "exact is released with noise 7.5e-08, certified (1, 1e-05): 0." in done.stdout
    assert lines[-1] == "auto and exact equal retraining, as near as was proven"


def rows_of(out):
    """Of the first table, by name: what is proven and ms of ours and theirs, ratio, how far apart, solver."""
    lines = out.split("ratio   apart     solver\n")[1].split("\n\n")[0].splitlines()
    return {line[:27].strip(): line[27:].split() for line in lines}


def test_every_request_is_timed_beside_a_fit_that_comes_as_far(small, capsys):
    assert main(["demo"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [name.split()[0] for name in rows] == ["remove", "remove", "correct", "correct", "revoke", "all"]
    for ours, ms, theirs, their_ms, ratio, apart, solver in rows.values():
        assert max(float(ours), float(theirs)) <= WITHIN
        assert float(apart) <= 1.1 * (float(ours) + float(theirs))  # two digits are shown
        assert float(ratio.removesuffix("x")) == pytest.approx(float(their_ms) / float(ms), rel=0.1)
        assert solver in demo.SOLVERS


def test_the_fit_beside_it_is_the_nearest_one_where_none_comes_as_far(small, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SOLVERS", ("newton-cg", "lbfgs"))  # the third makes one step at least
    monkeypatch.setattr(demo, "REQUESTED", (1e3, 1e2))
    main(["demo"])
    rows = rows_of(capsys.readouterr().out)
    assert max(float(row[2]) for row in rows.values()) > WITHIN
    assert max(float(row[0]) for row in rows.values()) <= WITHIN


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"expunge {expunge.__version__}\n"


@pytest.mark.parametrize(
    ("target", "model", "measure", "columns"), [("bought", "Logistic", "F1", 6), ("score", "Ridge", "R2", 7)]
)
def test_the_demo_takes_a_csv_file_and_columns_to_revoke(table, target, model, measure, columns, capsys):
    arguments = ["demo", "--csv", table, "--target", target, "--revoke", "town", "--revoke", "age"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "revoke town, age" in out
    assert f"90 rows x {columns} columns" in out  # three quarters; town and bought are one-hot
    assert model in out
    assert measure in out


def test_the_demo_fails_when_it_is_not_retraining(small, monkeypatch, capsys):
    monkeypatch.setattr(demo, "apart", lambda un, answer, retrained: np.inf)
    assert main(["demo"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("spoilt", ["auto", "exact"])
def test_what_is_allowed_is_less_than_what_an_approximation_leaves(small, spoilt, monkeypatch, capsys):
    """The check that decides the exit code can tell retraining from a step along the gradient."""
    unlearn = demo.unlearn

    def approximate(model, X, y, request, method):
        return unlearn(model, X, y, request, "first_order" if method == spoilt else method)

    monkeypatch.setattr(demo, "unlearn", approximate)
    assert main(["demo"]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "bought"], "--csv and --target go together"),
        (["--csv", "FILE"], "--csv and --target go together"),
        (["--csv", "FILE", "--target", "nothing"], "no column 'nothing'"),
        (["--csv", "FILE", "--target", "bought", "--revoke", "zip"], "no column 'zip'"),
        (["--csv", "FILE", "--target", "town"], "the target 'town' has 3 classes"),
        (["--csv", "missing.csv", "--target", "town"], "missing.csv"),
        (["--alpha", "-1"], "alpha must be"),
    ],
)
def test_bad_arguments_are_answered_with_what_is_wrong(table, arguments, message, capsys):
    given = [table if argument == "FILE" else argument for argument in arguments]
    with pytest.raises(SystemExit) as caught:
        main(["demo", *given])
    assert caught.value.code not in (0, None)
    assert message in str(caught.value.code) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([["a", "y"], ["1", "no"], ["2"]], "row 2 has 1 cells"),
        ([["a", "y"]], "there are no rows"),
        ([["y"], ["no"], ["yes"]], "no column is left beside the target"),
        ([], "is empty"),
    ],
)
def test_bad_files_are_answered_with_what_is_wrong(tmp_path, lines, message):
    file = write_csv(tmp_path / "bad.csv", lines[0], lines[1:]) if lines else str(tmp_path / "bad.csv")
    if not lines:
        (tmp_path / "bad.csv").touch()
    with pytest.raises(SystemExit, match=message):
        main(["demo", "--csv", file, "--target", "y"])
