"""``python -m expunge demo``: the main job, on bundled data and on a CSV file."""

import csv
import subprocess
import sys

import numpy as np
import pytest

import expunge
from expunge.cli import demo, main


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


@pytest.mark.slow
def test_the_demo_runs_as_a_module_and_says_that_exact_is_retraining():
    done = subprocess.run(
        [sys.executable, "-m", "expunge", "demo"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "breast cancer" in done.stdout
    assert done.stdout.count("  exact ") == done.stdout.count("  second_order ") == 5
    assert "the last one released with noise 7.5e-08, certified (1, 1e-05): 0.9" in done.stdout
    assert done.stdout.rstrip().endswith("within what its residual and the rounding floor allow")


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


def test_the_demo_fails_when_exact_is_not_retraining(monkeypatch, capsys):
    monkeypatch.setattr(demo, "METHODS", ("exact",))
    monkeypatch.setattr(demo, "allowed_distance", lambda un, retrained: 0.0)
    assert main(["demo"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_what_is_allowed_is_less_than_what_an_approximation_leaves(monkeypatch, capsys):
    """The check that decides the exit code can tell retraining from one Newton step."""
    unlearn = demo.unlearn

    def approximate(model, X, y, request, method):
        return unlearn(model, X, y, request, "second_order")

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
