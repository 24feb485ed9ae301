"""expunge.plots: what is drawn is what was computed, by matplotlib's own account of it."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model
from sklearn.metrics import log_loss

import expunge as ex
from expunge.datasets import load_breast_cancer
from expunge.plots import DistanceDisplay, FidelityDisplay, ThroughputDisplay

DISPLAYS = {
    "fidelity": lambda: FidelityDisplay([0.1, 0.2], [0.1, 0.3]),
    "distance": lambda: DistanceDisplay([1e-3, 1e-2], within=0.01),
    "throughput": lambda: ThroughputDisplay({"exact": ([100, 1000], [1e4, 1e3])}),
}
each_display = pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)


@pytest.fixture
def ax():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    return Figure().subplots()


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(line):
    return np.column_stack([line.get_xdata(), line.get_ydata()])


# What all have in common


@each_display
def test_a_display_draws_on_the_axes_given_or_on_new_ones(make, ax):
    display = make()
    assert display.plot(ax) is display
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    display.plot()
    assert display.ax_ is not ax
    assert display.ax_.get_legend() is not None
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()
    display.figure_.canvas.draw()
    pyplot.close(display.figure_)


@each_display
def test_without_matplotlib_the_error_names_it(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib$"):
        make().plot()


@pytest.mark.slow
def test_matplotlib_is_imported_only_where_something_is_drawn():
    code = (
        "import sys, expunge; expunge.plots.FidelityDisplay([1.0], [1.0]); "
        "assert 'matplotlib' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each_display
def test_options_go_to_matplotlib(make, ax):
    display = make().plot(ax, label="mine", alpha=0.5)
    artist = getattr(display, "points_", None) or getattr(display, "line_", None) or display.lines_[0]
    assert artist.get_alpha() == 0.5
    assert "mine" in legend_of(ax)


# Fidelity


def pair(loss="logistic"):
    """An Unlearner after a request, a model that was retrained, and rows for tests with their labels."""
    data = load_breast_cancer(standardize=True)
    names = np.array(["malignant", "benign"])
    y, y_test = (names[part.astype(int)] for part in (data.y, data.y_test))
    theirs = linear_model.LogisticRegression
    if loss == "squared":
        y, y_test, theirs = data.X[:, 0] + data.y, data.X_test[:, 0] + data.y_test, linear_model.Ridge
    un = ex.Unlearner(theirs().fit(data.X, y), data.X.copy(), y)
    un.apply([ex.RemoveRows(range(40)), ex.RevokeFeatures([0, 3])], method="first_order")
    kept = un.get_support()
    retrained = theirs().fit(data.X[40:, kept], y[40:])
    return un.model, retrained, data.X_test[:, kept], y_test


def test_losses_are_those_of_each_model_row_by_row(ax):
    unlearned, retrained, X, y = pair()
    display = FidelityDisplay.from_estimators(unlearned, retrained, X, y, ax=ax)
    for model, losses in ((unlearned, display.unlearned), (retrained, display.retrained)):
        assert_allclose(losses.mean(), log_loss(y, model.predict_proba(X)), rtol=1e-9)
        expected = -model.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
        assert_allclose(losses, expected, rtol=1e-7, atol=1e-12)
    assert_array_equal(display.points_.get_offsets(), np.column_stack([display.retrained, display.unlearned]))
    low, high = drawn(display.diagonal_)
    assert low[0] == low[1] == min(display.unlearned.min(), display.retrained.min())
    assert high[0] == high[1] == max(display.unlearned.max(), display.retrained.max())
    assert display.largest_gap == np.max(np.abs(display.unlearned - display.retrained)) > 0.0
    assert legend_of(ax) == [f"a row; the largest gap is {display.largest_gap:.2g}", "equal"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("loss, retrained", "loss, unlearned")


def test_logits_are_the_decision_functions(ax):
    unlearned, retrained, X, y = pair()
    display = FidelityDisplay.from_estimators(unlearned, retrained, X, y, quantity="logit", ax=ax)
    assert_array_equal(display.unlearned, unlearned.decision_function(X))
    assert_array_equal(display.retrained, retrained.decision_function(X))
    assert ax.get_xlabel() == "logit, retrained"


def test_regressors_are_compared_by_squared_losses_or_predictions(ax):
    unlearned, retrained, X, y = pair("squared")
    display = FidelityDisplay.from_estimators(unlearned, retrained, X, y, ax=ax)
    assert_allclose(display.unlearned, 0.5 * (unlearned.predict(X) - y) ** 2, rtol=1e-12)
    display = FidelityDisplay.from_estimators(unlearned, retrained, X, y, quantity="logit", ax=ax)
    assert_array_equal(display.retrained, retrained.predict(X))
    assert ax.get_ylabel() == "prediction, unlearned"


def test_predictions_give_what_the_models_give(ax):
    unlearned, retrained, X, y = pair()
    by_models = FidelityDisplay.from_estimators(unlearned, retrained, X, y, ax=ax)
    logits = [model.decision_function(X) for model in (unlearned, retrained)]
    by_logits = FidelityDisplay.from_predictions(y == unlearned.classes_[1], *logits, ax=ax)
    assert_array_equal(by_models.unlearned, by_logits.unlearned)
    assert_array_equal(by_models.retrained, by_logits.retrained)


def test_what_cannot_be_compared_is_refused(ax):
    unlearned, retrained, X, y = pair()
    other = linear_model.LogisticRegression().fit(X, np.where(y == "benign", "no", "yes"))
    three = linear_model.LogisticRegression().fit(X, np.arange(len(y)) % 3)
    compare = FidelityDisplay.from_estimators
    for call, message in (
        (lambda: compare(unlearned, other, X, y), "both have to have the same two"),
        (lambda: compare(three, three, X, y), "both have to have the same two"),
        (lambda: compare(unlearned, linear_model.Ridge().fit(X, X[:, 0]), X, y), "the other is not"),
        (lambda: compare(unlearned, retrained, X, np.full(len(y), "none")), "labels that are not among"),
        (lambda: compare(unlearned, retrained, X, y, quantity="odds"), "quantity must be 'loss' or 'logit'"),
        (lambda: FidelityDisplay.from_predictions([0, 1], [0.0], [0.0, 1.0]), r"unlearned has shape \(1,\)"),
        (lambda: FidelityDisplay.from_predictions([0, 2], [0.0, 1.0], [0.0, 1.0]), "y"),
        (lambda: FidelityDisplay([0.0], [0.0, 1.0]), "of the same rows"),
        (lambda: FidelityDisplay([], []), "of the same rows"),
        (lambda: FidelityDisplay([np.nan], [0.0]), "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# Distance


def unlearner():
    data = load_breast_cancer(standardize=True)
    return ex.Unlearner(ex.LogisticRegression().fit(data.X, data.y), data.X.copy(), data.y)


def test_distances_of_updates_stand_above_the_numbers_of_their_requests(ax):
    un = unlearner()
    updates = [un.apply(ex.RemoveRows(i)) for i in range(5)]
    display = DistanceDisplay.from_updates(updates, within=un.within, name="auto", ax=ax)
    assert_array_equal(drawn(display.line_), [[i + 1, update.distance] for i, update in enumerate(updates)])
    assert_array_equal(display.promise_.get_ydata(), [un.within, un.within])
    assert display.kept == 5
    assert ax.get_yscale() == "log"
    assert legend_of(ax) == ["auto", "promised: 0.01, kept by 5 of 5"]
    assert display.infinite_ is display.zero_ is None


def test_a_stream_gives_the_same_as_its_updates(ax):
    updates = unlearner().apply_each([ex.RemoveRows(i) for i in range(5)])
    display = DistanceDisplay.from_updates(updates, ax=ax)
    assert_array_equal(display.line_.get_ydata(), updates.distance)
    assert display.promise_ is None
    one = unlearner().apply(ex.RemoveRows(0))
    assert_array_equal(DistanceDisplay.from_updates(one, ax=ax).line_.get_ydata(), [one.distance])


def test_what_a_logarithmic_axis_has_no_place_for_stands_at_its_edges(ax):
    display = DistanceDisplay([np.inf, 1e-3, 0.0, 0.5, np.inf], within=0.01).plot(ax)
    assert_array_equal(np.isnan(display.line_.get_ydata()), [True, False, True, False, True])
    assert_array_equal(drawn(display.infinite_), [[1, 1.0], [5, 1.0]])
    assert_array_equal(drawn(display.zero_), [[3, 0.0]])
    for triangles in (display.infinite_, display.zero_):
        assert triangles.get_transform() == ax.get_xaxis_transform()  # 0 and 1 are the edges
    assert legend_of(ax)[1:] == ["nothing proven: 2", "distance 0: 1", "promised: 0.01, kept by 2 of 5"]
    ax.figure.canvas.draw()


@pytest.mark.parametrize("distances", [[np.inf], [0.0], [0.0, np.inf]], ids=str)
def test_a_figure_of_edges_alone_is_drawn(ax, distances):
    DistanceDisplay(distances).plot(ax)
    ax.figure.canvas.draw()


def test_two_sequences_share_axes(ax):
    first = DistanceDisplay([1e-3, 2e-3]).plot(ax, name="auto")
    second = DistanceDisplay([1e-9, 2e-9]).plot(first.ax_, name="exact")
    assert legend_of(ax) == ["auto", "exact"]
    assert second.line_.get_color() != first.line_.get_color()


@pytest.mark.parametrize(
    ("distances", "within", "message"),
    [
        ([], None, r"shape \(0,\)"),
        ([[1.0]], None, r"shape \(1, 1\)"),
        ([np.nan], None, "at least 0"),
        ([-1.0], None, "at least 0"),
        ([1.0], 0.0, "within"),
    ],
)
def test_distances_that_are_none_are_refused(distances, within, message):
    with pytest.raises(ValueError, match=message):
        DistanceDisplay(distances, within=within)


# Throughput


def records():
    return [
        {"strategy": strategy, "n": n, "d": 100, "seconds": seconds, "requests": 20}
        for strategy, cost in (("exact", 1e-6), ("retraining", 1e-4))
        for n in (3000, 1000)
        for seconds in (cost * n, 2.0 * cost * n, 9.0 * cost * n)
    ]


FORMS = {
    "mappings": list,
    "objects": lambda found: [SimpleNamespace(**record) for record in found],
    "text": lambda found: [{name: str(value) for name, value in record.items()} for record in found],
    "generator": iter,
    "frame": lambda found: pytest.importorskip("pandas").DataFrame(found),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rates_are_medians_of_requests_a_second_by_size(ax, form):
    display = ThroughputDisplay.from_results(form(records()), ax=ax)
    exact, retraining = display.lines_
    assert_allclose(drawn(exact), [[1000, 20 / 2e-3], [3000, 20 / 6e-3]], rtol=1e-12)
    assert_allclose(drawn(retraining), [[1000, 20 / 0.2], [3000, 20 / 0.6]], rtol=1e-12)
    assert legend_of(ax) == ["exact", "retraining"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rows n", "requests a second")


def test_a_strategy_at_several_sizes_of_the_other_kind_is_a_line_for_each(ax):
    found = [
        {"strategy": "exact", "n": n, "d": d, "seconds": n * d} for n in (1000, 2000) for d in (10, 20, 30)
    ]
    ThroughputDisplay.from_results(found, ax=ax)
    assert legend_of(ax) == ["exact, d = 10", "exact, d = 20", "exact, d = 30"]
    ax.clear()
    display = ThroughputDisplay.from_results(found, against="d", ax=ax)
    assert legend_of(ax) == ["exact, n = 1,000", "exact, n = 2,000"]
    assert_allclose(drawn(display.lines_[1]), [[d, 1.0 / (2000 * d)] for d in (10, 20, 30)], rtol=1e-12)
    assert ax.get_xlabel() == "columns d"


def test_lines_differ_without_colours(ax):
    display = ThroughputDisplay({str(i): ([1.0], [1.0]) for i in range(8)}).plot(ax)
    assert len({(line.get_marker(), line.get_linestyle()) for line in display.lines_}) == 8
    assert len({line.get_marker() for line in display.lines_}) == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seconds": None}, "a record has no 'seconds': each needs strategy, n, d and seconds"),
        ({"strategy": None}, "a record has no 'strategy'"),
        ({"seconds": 0.0}, "seconds must be a finite number > 0"),
        ({"n": "many"}, "many"),
        ({"requests": -1}, "requests must be a finite number > 0"),
    ],
)
def test_records_that_say_too_little_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        ThroughputDisplay.from_results([records()[0] | changed])


def test_series_that_do_not_fit_are_refused():
    for series, message in (
        ({}, "no strategy to draw"),
        ({"exact": ([1.0], [1.0, 2.0])}, r"exact: sizes have shape \(1,\)"),
        ({"exact": ([1.0], [0.0])}, "must be positive and finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ThroughputDisplay(series)
    with pytest.raises(ValueError, match="against must be 'n' or 'd'"):
        ThroughputDisplay({"exact": ([1.0], [1.0])}, against="rows")
    with pytest.raises(ValueError, match="no strategy to draw"):
        ThroughputDisplay.from_results([])
