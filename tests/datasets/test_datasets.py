"""expunge.datasets: what a file or a response holds is what comes out, and all else is refused with a fix."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
from numpy.testing import assert_allclose, assert_array_equal
from problems import data_file
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import expunge as ex
from expunge.datasets import (
    Dataset,
    load_adult,
    load_breast_cancer,
    load_diabetes_pima,
    load_digits,
    load_drebin,
    load_enron,
    load_file,
    loaders,
)

LOCAL = {"adult": load_adult, "pima": load_diabetes_pima, "drebin": load_drebin, "enron": load_enron}
BUNDLED = {"breast_cancer": load_breast_cancer, "digits": load_digits}


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    """EXPUNGE_DATA is for the tests that ask for it, and no test reaches a network."""
    kept = os.environ.get("EXPUNGE_DATA")
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", unreachable)
    return kept


def unreachable(**asked):
    raise OSError("no network here")


def columns(names="abc", n=20):
    """Vectors (n, 3), most of them 0, and their targets -1 and +1."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((n, len(names))) < 0.4, rng.integers(1, 9, (n, len(names))), 0).astype(np.int8)
    X[0] = 0
    return X, np.where(np.arange(n) % 3 == 0, 1, -1).astype(np.int8)


def vector_file(path, *, sparse_rows=False, without=(), **changed):
    X, y = columns()
    arrays = {"y_train": y[:15], "y_test": y[15:], "feature_names": list("abc"), "sensitive_features": ["b"]}
    for part, rows in (("train", X[:15]), ("test", X[15:])):
        if sparse_rows:
            A = sparse.csr_array(rows)
            arrays |= {f"{part}_{what}": getattr(A, what) for what in ("data", "indices", "indptr")}
            arrays[f"{part}_shape"] = np.array(A.shape)
        else:
            arrays[f"X_{part}"] = rows
    arrays = {name: values for name, values in (arrays | changed).items() if name not in without}
    np.savez(path, **arrays)
    return path


# Vector files


@pytest.mark.parametrize("sparse_rows", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize(("file", "load"), LOCAL.items(), ids=LOCAL)
def test_a_vector_file_comes_out_as_it_is(tmp_path, monkeypatch, load, file, sparse_rows):
    X, y = columns()
    vector_file(tmp_path / f"{file}.npz", sparse_rows=sparse_rows)
    by_argument = load(tmp_path)
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    for data in (by_argument, load(), load_file(tmp_path / f"{file}.npz")):
        assert (data.name, data.source) == (file, f"{file}.npz")
        assert sparse.issparse(data.X) == sparse.issparse(data.X_test) == sparse_rows
        for part, expected in ((data.X, X[:15]), (data.X_test, X[15:])):
            assert part.dtype == np.float64
            assert_array_equal(part.toarray() if sparse_rows else part, expected)
        assert_array_equal(data.y, y[:15] > 0)
        assert_array_equal(data.y_test, y[15:] > 0)
        assert (data.feature_names, data.sensitive_features) == (("a", "b", "c"), ("b",))
        assert_array_equal(data.sensitive_columns, [1])


def test_the_folder_of_the_argument_goes_before_that_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    vector_file(tmp_path / "drebin.npz", feature_names=list("xyz"), sensitive_features=[])
    vector_file(tmp_path / "other" / "drebin.npz")
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    assert load_drebin().feature_names == ("x", "y", "z")
    assert load_drebin(tmp_path / "other").feature_names == ("a", "b", "c")


@pytest.mark.parametrize("sparse_rows", [False, True], ids=["dense", "csr"])
def test_unit_rows_have_norm_1_and_rows_of_zeros_stay(tmp_path, sparse_rows):
    vector_file(tmp_path / "drebin.npz", sparse_rows=sparse_rows)
    raw, data = load_drebin(tmp_path), load_drebin(tmp_path, row_norm="unit")
    for X, scaled in ((raw.X, data.X), (raw.X_test, data.X_test)):
        if sparse_rows:
            assert sparse.issparse(scaled)
            X, scaled = X.toarray(), scaled.toarray()
        norms = np.linalg.norm(X, axis=1)
        assert_allclose(scaled * norms[:, None], X, rtol=1e-15)
        assert_allclose(np.linalg.norm(scaled, axis=1), norms > 0.0, rtol=1e-15)
    assert not raw.X[[0]].any() if not sparse_rows else raw.X[[0]].nnz == 0
    with pytest.raises(ValueError, match="row_norm must be None or 'unit', got 'l2'"):
        load_drebin(tmp_path, row_norm="l2")


def test_duplicates_of_a_sparse_file_are_summed(tmp_path):
    rows = {
        "train_indices": [0, 0, 1],
        "train_data": [1, 2, 5],
        "train_indptr": [0, 3, 3],
        "train_shape": [2, 3],
    }
    vector_file(tmp_path / "enron.npz", sparse_rows=True, y_train=[-1, 1], **rows)
    assert_array_equal(load_enron(tmp_path).X.toarray(), [[3.0, 5.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("sparse_rows", [False, True], ids=["dense", "csr"])
def test_rows_without_rows_for_tests_are_split(tmp_path, sparse_rows):
    X, y = columns()
    of_tests = [f"{name}_test" for name in "Xy"] + [
        f"test_{of}" for of in ("data", "indices", "indptr", "shape")
    ]
    A = sparse.csr_array(X)
    rows = {f"train_{what}": getattr(A, what) for what in ("data", "indices", "indptr")} | {
        "train_shape": A.shape
    }
    rows = rows if sparse_rows else {"X_train": X}
    file = vector_file(tmp_path / "some.npz", sparse_rows=sparse_rows, without=of_tests, y_train=y, **rows)
    data = load_file(file, test_size=0.25)
    assert (data.X.shape, data.X_test.shape) == ((15, 3), (5, 3))
    assert sparse.issparse(data.X) == sparse.issparse(data.X_test) == sparse_rows
    both = [part.toarray() if sparse_rows else part for part in (data.X, data.X_test)]
    found = np.column_stack([np.vstack(both), np.concatenate([data.y, data.y_test])])
    assert sorted(map(tuple, found)) == sorted(map(tuple, np.column_stack([X, y > 0])))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"without": ("feature_names",)}, r"has no array 'feature_names': docs/datasets.md"),
        ({"without": ("X_test",)}, r"has no array 'X_test'"),
        ({"without": ("y_test",)}, r"has no array 'y_test'"),
        ({"X_train": np.full((15, 3), "one")}, "X_train must hold real numbers"),
        ({"y_train": np.full(15, np.nan)}, "the target has NaN or infinity"),
        ({"feature_names": list("ab")}, r"X of shape \(15, 3\) and y of shape \(15,\), expected \(n, 2\)"),
        ({"feature_names": list("aba")}, "two columns have one name"),
        ({"sensitive_features": ["z"]}, "no column 'z'"),
        ({"y_train": np.resize([-1, 1], 14)}, r"y of shape \(14,\), expected \(n, 3\)"),
        ({"y_train": np.full(15, "no"), "y_test": np.full(5, "no")}, "the target has 1 classes"),
        ({"y_train": np.ones(15), "y_test": np.zeros(5)}, "y_test has classes that y_train has not"),
        ({"y_test": np.arange(5)}, "y_test has classes that y_train has not"),
        ({"X_train": np.full((15, 3), np.nan)}, "train has NaN or infinity"),
        ({"X_train": np.array([[{}] * 3] * 15)}, "no NPZ archive of arrays without pickles"),
    ],
)
def test_a_vector_file_that_does_not_fit_is_refused(tmp_path, changed, message):
    vector_file(tmp_path / "drebin.npz", **changed)
    with pytest.raises(ValueError, match=message):
        load_drebin(tmp_path)


@pytest.mark.parametrize(
    "changed", [{"train_indices": [9]}, {"train_indptr": [0, 1]}, {"train_indices": [-1]}], ids=str
)
def test_sparse_indices_that_point_outside_are_refused(tmp_path, changed):
    rows = {"train_indices": [0], "train_data": [1], "train_indptr": [0] + 15 * [1], "train_shape": [15, 3]}
    vector_file(tmp_path / "drebin.npz", sparse_rows=True, **(rows | changed))
    with pytest.raises(ValueError, match="train_indptr, train_indices, train_data"):
        load_drebin(tmp_path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "drebin.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no NPZ archive"):
        load_drebin(tmp_path)


# Where there is no file


@pytest.mark.parametrize("load", [load_drebin, load_enron])
def test_without_the_file_the_error_names_folder_and_variable(tmp_path, monkeypatch, load):
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match="by folder= or by the environment variable EXPUNGE_DATA"):
            load(folder)
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="missing' does not exist: EXPUNGE_DATA has to name"):
        load()


@pytest.mark.parametrize(("load", "file"), [(load_adult, "adult"), (load_diabetes_pima, "pima")])
def test_offline_the_error_names_folder_and_variable(tmp_path, load, file):
    pytest.importorskip("pandas")
    asked = (
        rf"OpenML .* could not be fetched \(no network here\), and there is no {file}.npz: name the folder"
    )
    for folder in (None, tmp_path):
        with pytest.raises(OSError, match=asked) as caught:
            load(folder)
        assert "EXPUNGE_DATA" in str(caught.value)


@pytest.mark.parametrize("load", [load_adult, load_diabetes_pima])
def test_without_pandas_the_error_names_it_before_anything_is_fetched(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        load()


# OpenML, by stand-ins


LEVELS = {
    "workclass": ["Private", "State-gov", None],
    "marital-status": ["Married-civ-spouse", "Divorced", "Widowed"],
    "occupation": ["Sales", None],
    "relationship": ["Husband", "Wife"],
    "race": ["White", "Black", "Other"],
    "sex": ["Male", "Female"],
    "native-country": ["United-States", "Mexico"],
}


def adult_response(test_first=True, positive=loaders.POSITIVE_IN_TEST):
    """As OpenML's 1590 is: frame and target of all 48,842 rows, categories with missing values."""
    pandas = pytest.importorskip("pandas")
    n, rng = 48_842, np.random.default_rng(0)
    shares = {name: np.sort(rng.dirichlet(np.ones(len(of))))[::-1] for name, of in LEVELS.items()}
    frame = {name: rng.integers(1, 90, n) for name in ("fnlwgt", *loaders.NUMERIC)}
    frame |= {name: rng.choice(np.array(of, dtype=object), n, p=shares[name]) for name, of in LEVELS.items()}
    frame["education"] = np.full(n, "HS-grad")
    income = np.full(n, "<=50K")
    income[:positive] = ">50K"
    income[loaders.N_TEST : loaders.N_TEST + 7_841] = ">50K"
    if not test_first:
        income = income[::-1]
    frame = pandas.DataFrame(frame)
    return SimpleNamespace(
        data=frame.astype(dict.fromkeys(LEVELS, "category")),
        target=pandas.Series(income, dtype="category"),
        details={"name": "adult", "version": "2"},
    )


def answer(monkeypatch, response):
    asked = []
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda **options: asked.append(options) or response)
    return asked


@pytest.mark.parametrize("test_first", [True, False])
def test_adult_from_openml_has_the_columns_of_the_source_paper(monkeypatch, test_first):
    response = adult_response(test_first)
    asked = answer(monkeypatch, response)
    data = load_adult()
    assert asked == [{"data_id": 1590, "as_frame": True}]
    assert data.source == "OpenML 1590 (adult, version 2)"
    assert (data.X.shape[0], data.X_test.shape[0]) == (32_561, 16_281)
    assert (data.y.sum(), data.y_test.sum()) == (7_841, 3_846)
    assert data.feature_names[:5] == tuple(loaders.NUMERIC)
    assert "fnlwgt" not in data.feature_names
    assert not any(name.startswith("education_") for name in data.feature_names)

    train = np.arange(48_842) >= 16_281 if test_first else np.arange(48_842) < 32_561
    for part, X in ((train, data.X), (~train, data.X_test)):
        for name, levels in LEVELS.items():
            values = response.data[name].astype(object).to_numpy()
            for level in levels:
                column = f"{name}_{level}"
                if level in (levels[0], None):  # the most frequent, and the unknown
                    assert column not in data.feature_names
                else:
                    assert_array_equal(X[:, data.columns_of([column])[0]], values[part] == level)
    numbers = response.data[loaders.NUMERIC].to_numpy(dtype=float)
    numbers = (numbers - numbers[train].mean(axis=0)) / numbers[train].std(axis=0)
    numbers /= np.linalg.norm(numbers, axis=1)[:, None]
    assert_allclose(data.X[:, :5], numbers[train], rtol=1e-9, atol=1e-12)
    assert_allclose(data.X_test[:, :5], numbers[~train], rtol=1e-9, atol=1e-12)
    assert set(data.sensitive_features) == {
        "marital-status_Divorced", "marital-status_Widowed", "relationship_Wife", "race_Black", "race_Other"
    }  # fmt: skip


def test_adult_in_another_order_or_version_is_refused(monkeypatch):
    answer(monkeypatch, adult_response(positive=17))
    with pytest.raises(ValueError, match="rows in another order than expected"):
        load_adult()
    response = adult_response()
    response.details["version"] = "3"
    answer(monkeypatch, response)
    with pytest.raises(ValueError, match=r"OpenML 1590 \(adult, version 2\) has become adult 3"):
        load_adult()


def test_a_local_adult_goes_before_openml(tmp_path, monkeypatch):
    asked = answer(monkeypatch, None)
    assert load_adult(vector_file(tmp_path / "adult.npz").parent).source == "adult.npz"
    assert asked == []


def pima_response():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    names = ["preg", "plas", "pres", "skin", "insu", "mass", "pedi", "age"]
    frame = pandas.DataFrame(rng.gamma(2.0, 20.0, (768, 8)), columns=names)
    target = np.where(rng.random(768) < 0.35, "tested_positive", "tested_negative")
    return SimpleNamespace(
        data=frame,
        target=pandas.Series(target, dtype="category"),
        details={"name": "diabetes", "version": "1"},
    )


def test_pima_from_openml_is_split_as_the_source_paper_did(monkeypatch):
    response = pima_response()
    asked = answer(monkeypatch, response)
    data = load_diabetes_pima()
    assert asked == [{"data_id": 37, "as_frame": True}]
    assert data.source == "OpenML 37 (diabetes, version 1)"
    assert (data.X.shape, data.X_test.shape) == ((614, 8), (154, 8))
    assert data.sensitive_features == ("preg", "mass", "age")
    ill = {tuple(row): value for row, value in zip(response.data.to_numpy(), response.target, strict=True)}
    for X, y in ((data.X, data.y), (data.X_test, data.y_test)):
        assert [ill[tuple(row)] == "tested_positive" for row in X] == (y == 1.0).tolist()


# Bundled data, splits and scales


@pytest.mark.parametrize("load", BUNDLED.values(), ids=BUNDLED)
def test_bundled_data_are_split_by_a_seed_with_both_classes_alike(load):
    data, again, other = load(), load(), load(random_state=1)
    assert_array_equal(data.X, again.X)
    assert data.X.shape == other.X.shape
    assert (data.X != other.X).any()
    assert set(np.unique(data.y)) == set(np.unique(data.y_test)) == {0.0, 1.0}
    assert abs(data.y.mean() - data.y_test.mean()) < 0.02
    whole = np.vstack([data.X, data.X_test])
    assert_array_equal(np.sort(whole, axis=0), np.sort(np.vstack([other.X, other.X_test]), axis=0))


def test_bundled_data_are_those_of_scikit_learn():
    theirs = sklearn.datasets.load_breast_cancer()
    data = load_breast_cancer()
    known = {tuple(row): value for row, value in zip(theirs.data, theirs.target, strict=True)}
    assert [known[tuple(row)] for row in data.X] == data.y.tolist()
    assert [known[tuple(row)] for row in data.X_test] == data.y_test.tolist()
    assert data.feature_names == tuple(theirs.feature_names)
    theirs = sklearn.datasets.load_digits()
    data = load_digits((1, 7))
    known = {tuple(row): value for row, value in zip(theirs.data, theirs.target, strict=True)}
    assert [known[tuple(row)] for row in data.X] == np.where(data.y == 1.0, 7, 1).tolist()


@pytest.mark.parametrize("classes", [(3, 3), (3, 10), (-1, 2)])
def test_digits_are_two_of_ten(classes):
    with pytest.raises(ValueError, match="two different digits"):
        load_digits(classes)


def test_columns_are_standardized_by_training_rows_alone():
    raw, data = load_digits(), load_digits(standardize=True)
    mean, deviation = raw.X.mean(axis=0), raw.X.std(axis=0)
    spread = deviation > 0.0
    for X, scaled in ((raw.X, data.X), (raw.X_test, data.X_test)):
        expected = (X - mean)[:, spread] / deviation[spread]
        plain = np.isin(raw.X, (0.0, 1.0)).all(axis=0)[spread]  # 0 and 1 alone: stays
        assert_allclose(scaled[:, spread][:, ~plain], expected[:, ~plain], rtol=1e-12, atol=1e-12)
        assert_array_equal(scaled[:, spread][:, plain], X[:, spread][:, plain])
    assert (~spread).any()
    both = load_digits(standardize=True, row_norm="unit")
    assert_allclose(np.linalg.norm(both.X, axis=1), 1.0, rtol=1e-12)
    assert_allclose(both.X * np.linalg.norm(data.X, axis=1)[:, None], data.X, rtol=1e-12, atol=1e-14)


def test_sparse_rows_are_not_standardized(tmp_path):
    file = vector_file(tmp_path / "some.npz", sparse_rows=True)
    with pytest.raises(ValueError, match="would make sparse rows dense: use row_norm='unit'"):
        load_file(file, standardize=True)


# Tables


def people(n=40):
    rng = np.random.default_rng(0)
    town = rng.choice(["Rom", "Ulm", "Bonn"], n)
    return {
        "age": rng.integers(18, 90, n),
        "town": town,
        "income": rng.normal(0.0, 1.0, n).round(3),
        "buys": np.where(np.arange(n) % 4 == 0, "yes", "no"),
    }


def csv_file(path, cells):
    rows = [",".join(cells), *(",".join(map(str, row)) for row in zip(*cells.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def npz_file(path, cells):
    np.savez(path, **cells)
    return path


WRITERS = {"people.csv": csv_file, "people.npz": npz_file}


@pytest.mark.parametrize(("file", "write"), WRITERS.items(), ids=WRITERS)
def test_a_table_of_any_kind_gives_named_and_one_hot_columns(tmp_path, file, write):
    cells = people()
    data = load_file(write(tmp_path / file, cells), target="buys", sensitive=["town", "age"], drop=["income"])
    assert (data.name, data.source) == ("people", file)
    assert data.feature_names == ("age", "town=Bonn", "town=Rom", "town=Ulm")
    assert data.sensitive_features == ("town=Bonn", "town=Rom", "town=Ulm", "age")
    one = load_file(tmp_path / file, target="buys", sensitive="age", drop="income")
    assert (one.feature_names, one.sensitive_features) == (data.feature_names, ("age",))
    assert_array_equal(one.columns_of("town=Ulm"), [3])
    assert_array_equal(data.sensitive_columns, [1, 2, 3, 0])
    assert (data.X.shape, data.X_test.shape) == ((32, 4), (8, 4))
    expected = sorted(
        (age, *(town == name for name in ("Bonn", "Rom", "Ulm")), buys == "yes")
        for age, town, buys in zip(cells["age"], cells["town"], cells["buys"], strict=True)
    )
    rows = np.vstack([np.column_stack([data.X, data.y]), np.column_stack([data.X_test, data.y_test])])
    assert sorted(map(tuple, rows.tolist())) == expected


@pytest.mark.parametrize(("file", "write"), WRITERS.items(), ids=WRITERS)
def test_numbers_as_target_stay_numbers_and_two_of_them_are_classes(tmp_path, file, write):
    path = write(tmp_path / file, people())
    data = load_file(path, target="income")
    assert_allclose(np.sort([*data.y, *data.y_test]), np.sort(people()["income"]), rtol=0)
    cells = people() | {"buys": np.where(np.arange(40) % 4 == 0, 9, 10)}
    data = load_file(write(tmp_path / file, cells), target="buys")
    assert (data.y.sum() + data.y_test.sum(), data.y.size + data.y_test.size) == (30, 40)


@pytest.mark.parametrize(("file", "write"), WRITERS.items(), ids=WRITERS)
@pytest.mark.parametrize(
    ("changed", "asked", "message"),
    [
        ({}, {}, "is a table: name the column to predict by target="),
        ({}, {"target": "sells"}, "no column 'sells', there are age, town, income, buys"),
        ({}, {"target": "buys", "drop": ["zip"]}, "no column 'zip'"),
        ({}, {"target": "buys", "sensitive": ["zip"]}, "no column 'zip'"),
        ({}, {"target": "town"}, "the target 'town' has 3 classes: two, or numbers"),
        ({}, {"target": "buys", "drop": ["age", "town", "income"]}, "no column is left beside the target"),
        (
            {"age": np.array(["30"] * 39 + ["?"])},
            {"target": "buys"},
            r"1 of 40 cells of column 'age' are missing or infinite \('\?'\) where the others are numbers",
        ),
        ({"age": np.array([30.0] * 39 + [np.nan])}, {"target": "buys"}, "1 of 40 cells of column 'age'"),
        ({"age": np.array([30.0] * 38 + [np.inf] * 2)}, {"target": "buys"}, "2 of 40 cells of column 'age'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, file, write, changed, asked, message):
    path = write(tmp_path / file, people() | changed)
    with pytest.raises(ValueError, match=message):
        load_file(path, **asked)


def test_names_and_free_text_do_not_become_thousands_of_columns(tmp_path):
    n = 1001
    cells = {"id": [f"C{i}" for i in range(n)], "x": range(n), "y": [i % 2 for i in range(n)]}
    path = csv_file(tmp_path / "many.csv", cells)
    with pytest.raises(ValueError, match="'id' has 1,001 different texts, and 1,000 become one-hot columns"):
        load_file(path, target="y")
    assert load_file(path, target="y", drop=["id"]).feature_names == ("x",)


def test_tables_and_vectors_are_not_mixed_up(tmp_path):
    vectors = vector_file(tmp_path / "vectors.npz")
    assert load_file(vectors, sensitive=["a", "c"]).sensitive_features == ("a", "c")
    with pytest.raises(ValueError, match="holds vectors, whose target is y_train"):
        load_file(vectors, target="y_train")
    np.savez(tmp_path / "ragged.npz", a=[1.0, 2.0], b=[1.0], y=[0, 1])
    with pytest.raises(ValueError, match=r"expected arrays of one shape \(n,\)"):
        load_file(tmp_path / "ragged.npz", target="y")
    with pytest.raises(ValueError, match=r"neither \.csv nor \.npz"):
        load_file(tmp_path / "people.parquet", target="y")
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "missing.npz", target="y")


# In use


def test_a_dataset_goes_into_an_unlearner():
    data = load_breast_cancer(standardize=True)
    model = LogisticRegression(C=1.0).fit(data.X, data.y)
    un = ex.Unlearner(model, data.X, data.y)
    un.apply(ex.RevokeFeatures(data.columns_of(["mean radius", "worst area"])))
    assert un.model.n_features_in_ == 28
    with pytest.raises(ValueError, match="scikit-learn has no column 'radius'"):
        data.columns_of(["radius"])


def test_a_dataset_is_frozen_and_shows_no_row():
    data = load_breast_cancer()
    with pytest.raises(AttributeError):
        data.y = data.y_test
    assert (
        repr(data)
        == "Dataset(breast_cancer from scikit-learn: 455 + 114 rows, 30 columns, 0 of them sensitive)"
    )
    with pytest.raises(ValueError, match="test has X of shape"):
        Dataset("", "made", np.eye(2), np.ones(2), np.eye(3), np.ones(3), ("a", "b"))


@pytest.mark.slow
def test_an_import_fetches_nothing_and_loads_no_data_sets_of_scikit_learn():
    code = "import sys, expunge; expunge.datasets.load_file; assert 'sklearn.datasets' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Real data


def test_adult_here_is_the_paper_s(no_folder, monkeypatch):
    if no_folder:
        monkeypatch.setenv("EXPUNGE_DATA", no_folder)
    data_file("adult.npz")
    data = load_adult(row_norm="unit")
    assert (data.X.shape, data.X_test.shape) == ((32_561, 81), (16_281, 81))
    assert (data.y.sum(), data.y_test.sum(), len(data.sensitive_features)) == (7_841, 3_846, 15)
    assert_allclose(np.linalg.norm(data.X, axis=1), 1.0, rtol=1e-12)
    assert data.feature_names[:5] == tuple(loaders.NUMERIC)


def test_drebin_here_is_the_paper_s(no_folder, monkeypatch):
    if no_folder:
        monkeypatch.setenv("EXPUNGE_DATA", no_folder)
    data_file("drebin.npz")
    data = load_drebin()
    assert (data.X.shape, data.X_test.shape, data.X.nnz) == ((39_380, 2_081), (9_846, 2_081), 1_346_338)
    assert (data.y.sum(), data.y_test.sum(), len(data.sensitive_features)) == (1_778, 464, 1_197)
    assert (data.X.data == 1.0).all()
