"""expunge.audit: it lets the right mechanism pass, and flags planted bugs."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import bits_of, csr, in_pairs
from sklearn.exceptions import ConvergenceWarning

import expunge as ex
from expunge import accounting
from expunge.audit import Audit, audit_certificate
from expunge.errors import CertificateError
from expunge.losses import get_loss
from expunge.noise import normal
from expunge.release import Terms, best_intercept

KINDS = [(loss, fit_intercept) for loss in ("squared", "logistic") for fit_intercept in (False, True)]
each_kind = pytest.mark.parametrize(("loss", "fit_intercept"), KINDS)
each_kind_of_a_seed = pytest.mark.parametrize(
    ("loss", "fit_intercept", "seed"), [(*kind, seed) for seed, kind in enumerate(KINDS)]
)
each_seed = pytest.mark.parametrize("seed", range(2))

EPSILON, DELTA = 1.0, 0.01
BINDING = {"tolerance": 1e-6, "theta_bound": 10.0}  # noise no wider than the tolerance asks for
RUNS = 90
ROWS = [3, 7, 11]


def data(seed, loss="logistic", n=60, d=4):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.0, 1.0, (n, d))
    eta = X @ rng.standard_normal(d)
    y = eta if loss == "squared" else (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    return X, y + (0.3 * rng.standard_normal(n) if loss == "squared" else 0.0)


def model(loss, fit_intercept=True, **parameters):
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    return kind(1.0, fit_intercept=fit_intercept, **parameters)


def audit(seed, loss="logistic", fit_intercept=True, request=None, noise=None, **options):
    """Of the release of a small model after three of sixty rows went."""
    parameters = {} if noise is None else {"noise": noise}
    request = ex.RemoveRows(ROWS) if request is None else request
    options = {"epsilon": EPSILON, "delta": DELTA, "runs": RUNS} | BINDING | options
    return audit_certificate(
        model(loss, fit_intercept, **parameters), *data(seed, loss), request, random_state=seed, **options
    )


def objective(seed, fit_intercept=True, sigma=0.01, **options):
    options = {"epsilon": 0.9, "runs": 80} | options
    return audit(seed, "logistic", fit_intercept, noise=sigma, mechanism="objective", **options)


def told(found, audit):
    """Whether a separation alone is beyond the claim."""
    return (
        (audit.mu is not None and found.mu_lower > audit.mu)
        or found.epsilon_lower > audit.epsilon
        or (found.mismatch_lower is not None and found.mismatch_lower > audit.delta)
    )


# the right mechanism passes


@pytest.mark.slow
def test_the_right_output_mechanism_passes_in_nearly_all_seeds():
    audits = [audit(seed, *kind, confidence=0.95, runs=60) for kind in KINDS for seed in range(5)]
    assert sum(one.falsified for one in audits) <= 0.05 * len(audits)
    assert max(one.worst_residual for one in audits) <= 1e-6
    assert {one.runs for one in audits} == {60}


@pytest.mark.slow
def test_the_right_rounding_and_objective_pass_in_nearly_all_seeds():
    rounding = [audit(seed, *kind, mechanism="rounding", runs=60) for kind in KINDS for seed in range(3)]
    noisy = [objective(seed, fit_intercept, runs=60) for fit_intercept in (False, True) for seed in range(5)]
    for audits in (rounding, noisy):
        assert sum(one.falsified for one in audits) <= 0.05 * len(audits)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["output", "rounding", "objective"])
@pytest.mark.parametrize("against", ["retraining", "minimiser"])
def test_either_comparison_passes(mechanism, against):
    if mechanism == "objective":
        assert not objective(0, against=against, runs=60).falsified
    else:
        assert not audit(0, mechanism=mechanism, against=against, runs=60).falsified


REQUESTS = {
    "labels": ex.CorrectLabels([1, 2], 1.0),
    "values": ex.CorrectValues([4], [0, 2], 0.5),
    "added": ex.AddRows([[0.1, 0.2, 0.3, 0.4]], [1.0]),
    "column": ex.RevokeFeatures([1]),
    "list": [ex.RemoveRows([0]), ex.RevokeFeatures([0, 3]), ex.CorrectLabels([5], 0.0)],
    "nothing": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_every_request_passes(request_):
    assert not audit(1, request=request_, runs=60).falsified
    assert not objective(1, request=request_, runs=60).falsified


@pytest.mark.slow
def test_other_forms_of_data_pass():
    pandas = pytest.importorskip("pandas")
    X, y = data(0)
    X, weights = X.astype(np.float32), np.linspace(0.0, 2.0, 60)
    labels = np.array(["no", "yes"])[y.astype(int)]
    frame = pandas.DataFrame(X, columns=list("abcd"))
    request = [ex.RemoveRows([1]), ex.CorrectLabels([2], "yes")]
    for form in (X, np.asfortranarray(X), csr(X, dtype=np.float32), frame):
        found = audit_certificate(
            ex.LogisticRegression(),
            form,
            labels,
            [*request, ex.RevokeFeatures("c")] if form is frame else request,
            EPSILON,
            DELTA,
            sample_weight=weights,
            runs=60,
            random_state=0,
            **BINDING,
        )
        assert not found.falsified, str(found)


@pytest.mark.slow
def test_rows_of_more_than_one_panel_pass():
    X, y = data(0, n=5000, d=2)
    request = ex.RemoveRows(range(0, 5000, 7))
    assert not audit_certificate(
        ex.LogisticRegression(), X, y, request, EPSILON, DELTA, runs=40, random_state=0
    ).falsified


@pytest.mark.slow
def test_it_passes_at_the_tolerance_that_users_start_with():
    found = audit(0, tolerance=1e-8, theta_bound=100.0)
    assert not found.falsified
    assert found.mu == pytest.approx(accounting.mu(EPSILON, DELTA), rel=2.0**-20)


# planted bugs


def unverified(sigma):
    """A release that looks at no residual: the model's coefficients with noise, and their best intercept."""

    def release(un, seed):
        X, y, s = un.corrected_data()
        coef = np.ravel(un.model.coef_) + normal(un.model.coef_.size, sigma, seed)
        loss = get_loss("squared" if isinstance(un.model, ex.Ridge) else "logistic")
        rows = [(X, y, np.ones(len(y)) if s is None else s)]
        intercept = best_intercept(rows, coef, loss) if un.model.fit_intercept else 0.0
        return SimpleNamespace(coef_=coef, intercept_=intercept)

    return release


SIGMA = 2e-6 / accounting.mu(EPSILON, DELTA)


@pytest.mark.slow
@each_kind
def test_a_release_of_our_own_that_does_the_same_passes(loss, fit_intercept):
    assert not audit(0, loss, fit_intercept, release=unverified(SIGMA)).falsified


@pytest.mark.slow
@each_kind_of_a_seed
def test_noise_three_times_too_small_on_one_side_is_flagged(loss, fit_intercept, seed):
    found = audit(seed, loss, fit_intercept, release=unverified(SIGMA / 3))
    assert found.falsified
    assert found.worst_residual > found.tolerance
    assert all(told(separation, found) for separation in found.separations)  # by statistics alone, too
    assert [separation.name for separation in found.separations] == ["unlearned", "canary"]


@pytest.mark.slow
@each_kind_of_a_seed
def test_doing_nothing_is_flagged(loss, fit_intercept, seed):
    found = audit(seed, loss, fit_intercept, unlearn=lambda un, request: None, runs=60)
    assert found.falsified
    assert told(found.separations[0], found)
    assert not told(found.separations[1], found)  # the canary shows noise alone


def one_row_left_in(un, request):
    un.apply(ex.RemoveRows(request.rows[:-1]))


@pytest.mark.slow
@each_kind_of_a_seed
def test_a_row_left_in_is_flagged(loss, fit_intercept, seed):
    found = audit(seed, loss, fit_intercept, unlearn=one_row_left_in, runs=60)
    assert found.falsified
    assert told(found.separations[0], found)


def stale(un, request):
    un.apply(request, method="second_order", hessian="original")


@pytest.mark.slow
@each_kind_of_a_seed
def test_a_stale_hessian_without_settling_is_flagged(loss, fit_intercept, seed):
    found = audit(seed, loss, fit_intercept, unlearn=stale, release=unverified(SIGMA), runs=60)
    assert found.falsified
    assert told(found.separations[0], found)
    assert not audit(seed, loss, fit_intercept, unlearn=stale, runs=60).falsified  # our release settles first


def with_old_intercept(seed, loss, **options):
    old = model(loss).fit(*data(seed, loss)).intercept_

    def release(un, seed):
        released = un.release(EPSILON, DELTA, random_state=seed, **options)
        released.intercept_ = old
        return released

    return release


@pytest.mark.slow
@in_pairs(loss=["squared", "logistic"], mechanism=["output", "rounding"], seed=range(3))
def test_the_old_intercept_is_flagged(loss, mechanism, seed):
    found = audit(
        seed, loss, mechanism=mechanism, release=with_old_intercept(seed, loss, mechanism=mechanism), runs=60
    )
    assert found.falsified
    assert any("the gradient in the intercept is not 0" in reason for reason in found.reasons)
    assert not told(found.separations[0], found) or mechanism == "rounding"


def test_an_intercept_off_by_one_bit_is_flagged():
    def release(un, seed):
        released = un.release(EPSILON, DELTA, random_state=seed)
        released.intercept_ = np.nextafter(released.intercept_, np.inf)
        return released

    wrong = "the intercept is not the best one for the released coefficients (60 of 60 runs)"
    assert audit(0, release=release, runs=60).reasons == (f"unlearned: {wrong}", f"canary: {wrong}")


@pytest.mark.slow
@pytest.mark.parametrize("bug", [lambda un, request: None, one_row_left_in])
@each_seed
def test_rounding_and_objective_flag_requests_not_granted(bug, seed):
    rounding = audit(seed, mechanism="rounding", unlearn=bug, runs=60)
    assert told(rounding.separations[0], rounding)
    assert rounding.separations[0].mismatch_lower > 0.85
    assert objective(seed, unlearn=bug, runs=60).falsified


@pytest.mark.slow
@each_seed
def test_the_objective_flags_too_little_noise_on_one_side(seed):
    def fitted_with_less(un, seed):
        return ex.LogisticRegression(noise=0.01 / 3, random_state=seed).fit(*un.corrected_data())

    found = objective(seed, release=fitted_with_less)
    assert told(found.separations[0], found)
    assert found.worst_residual > found.tolerance


@pytest.mark.slow
@each_seed
def test_the_objective_flags_the_old_intercept_and_a_stale_hessian(seed):
    old = model("logistic").fit(*data(seed)).intercept_

    def release(un, seed):
        released = un.release(0.9, DELTA, mechanism="objective", random_state=seed)
        released.intercept_ = old
        return released

    assert objective(seed, release=release, runs=60).falsified
    many = ex.RemoveRows(range(20))
    found = objective(seed, request=many, unlearn=stale, release=lambda un, seed: un.model, runs=60)
    assert found.falsified
    assert found.worst_residual > found.tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda z: np.full_like(z, z[0]), id="one number for all"),
        pytest.param(lambda z: z * (np.arange(z.size) != 1), id="none on one coefficient"),
        pytest.param(lambda z: 1.7320508 * np.sign(z), id="two values"),
        pytest.param(lambda z: z + 3.0 * (np.arange(z.size) == 2), id="not around 0"),
    ],
)
def test_other_noise_is_told_by_statistics_alone(spoilt):
    def release(un, seed):
        coef = np.ravel(un.model.coef_)
        return SimpleNamespace(coef_=coef + SIGMA * spoilt(normal(coef.size, 1.0, seed)), intercept_=0.0)

    found = audit(0, fit_intercept=False, release=release, runs=250)
    assert told(found.separations[0], found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "released",
    [
        SimpleNamespace(coef_=np.zeros(5), intercept_=0.0),
        SimpleNamespace(coef_=np.zeros(3), intercept_=0.0),
        SimpleNamespace(coef_=np.array([0.0, np.nan, 0.0, 0.0]), intercept_=0.0),
        SimpleNamespace(coef_=np.zeros(4), intercept_=np.inf),
    ],
    ids=["more", "fewer", "nan", "infinite"],
)
@pytest.mark.parametrize("mechanism", ["output", "rounding"])
def test_what_cannot_be_the_model_is_flagged(released, mechanism):
    found = audit(0, mechanism=mechanism, release=lambda un, seed: released)
    assert "what is released is not 4 finite coefficients and an intercept" in found.reasons[0]
    assert told(found.separations[0], found)


def test_a_column_left_in_is_flagged():
    found = audit(0, request=ex.RevokeFeatures([2]), unlearn=lambda un, request: None)
    assert "what is released is not 3 finite coefficients" in found.reasons[0]


# bugs on both sides


@pytest.mark.slow
def test_a_canary_shows_what_honest_residuals_hide(monkeypatch):
    """Noise three times too small on both sides, and models so near to the minimiser that none shows it."""
    right = Terms.apply

    def less_noise(self, coef, random_state):
        released, scale = right(self, coef, random_state)
        return coef + (released - coef) / 3.0, scale

    monkeypatch.setattr(Terms, "apply", less_noise)
    for seed in range(3):
        found = audit(seed, epsilon=1.0, delta=0.1, runs=150)
        assert not told(found.separations[0], found)
        assert told(found.separations[1], found)
        assert found.falsified


def test_a_canary_shows_a_grid_that_is_too_fine(monkeypatch):
    right = Terms.apply
    finer = lambda self, coef, seed: right(replace(self, delta=0.9), coef, seed)  # noqa: E731
    monkeypatch.setattr(Terms, "apply", finer)
    found = audit(0, mechanism="rounding")
    assert told(found.separations[1], found)
    assert any("the certificate says grid" in reason for reason in found.reasons)
    assert any("not in the middle of the cells" in reason for reason in found.reasons)


def test_constants_that_do_not_follow_from_the_public_ones_are_flagged(monkeypatch):
    monkeypatch.setattr(Terms, "shift", property(lambda self: Fraction(0.9 * self.tolerance / self.alpha)))
    found = audit(0)
    assert any("the certificate says sigma" in reason for reason in found.reasons)
    assert found.worst_residual > found.tolerance


# the canary


@pytest.mark.slow
def test_the_canary_stops_at_the_tolerance_and_stays_there():
    seen = []

    def release(un, seed):
        seen.append((un, un.model.coef_.copy()))
        return un.release(EPSILON, DELTA, random_state=seed)

    for kind in KINDS:
        seen.clear()
        found = audit(0, *kind, release=release, runs=60)
        assert not found.falsified
        (un, coef), exact = seen[-1], audit_minimiser(kind)
        assert un.model.n_features_in_ == 5
        np.testing.assert_allclose(np.ravel(coef), [*exact, 0.99e-6], rtol=0, atol=2e-9)
        certified = release(un, 0).certificate_
        assert 0.98e-6 < certified.residual < certified.residual_bound <= 1e-6
        assert_array_equal(un.model.coef_, coef)


def audit_minimiser(kind):
    X, y = data(0, kind[0])
    return np.ravel(model(*kind, tol=1e-12).fit(np.delete(X, ROWS, axis=0), np.delete(y, ROWS)).coef_)


@pytest.mark.slow
def test_the_canary_is_as_far_as_the_claim_allows_and_seen():
    """Lower bounds near the truth: not below 0.7 of a mu that is large enough to be seen."""
    for against, kind in (("retraining", ("squared", False)), ("minimiser", ("squared", True))):
        found = audit(0, *kind, epsilon=4.0, delta=0.1, runs=800, against=against)
        assert found.mu == pytest.approx(accounting.mu(4.0, 0.1))
        assert 0.7 * found.mu < found.separations[1].mu_lower <= found.mu
        assert 0.5 < found.separations[1].epsilon_lower <= found.epsilon
        assert not found.falsified


# the face


@pytest.mark.slow
def test_the_same_seed_gives_the_same_audit():
    first, second, other = (audit(0, runs=60, confidence=c) for c in (0.99, 0.99, 0.9))
    assert str(first) == str(second)
    for a, b in zip(first.separations, second.separations, strict=True):
        assert_array_equal(a.unlearned, b.unlearned)
        assert_array_equal(a.retrained, b.retrained)
    assert other.confidence == 0.9
    X, y = data(0)
    unseeded = [
        audit_certificate(ex.Ridge(), X, y, ex.RemoveRows([0]), EPSILON, DELTA, runs=60) for _ in range(2)
    ]
    assert not np.array_equal(unseeded[0].separations[0].unlearned, unseeded[1].separations[0].unlearned)


def test_nothing_that_is_passed_changes():
    X, y = data(0)
    weights, fitted = np.ones(60), ex.LogisticRegression().fit(*data(1))
    before = bits_of(X), y.copy(), weights.copy(), fitted.coef_.copy(), fitted.get_params()
    request = ex.RemoveRows(ROWS)
    found = [
        audit_certificate(
            each, X, y, request, EPSILON, DELTA, sample_weight=weights, runs=60, random_state=3, **BINDING
        )
        for each in (fitted, ex.LogisticRegression())
    ]
    assert bits_of(X) == before[0]
    for now, then in zip((y, weights, fitted.coef_), before[1:4], strict=True):
        assert_array_equal(now, then)
    assert fitted.get_params() == before[4]
    assert str(found[0]) == str(found[1])  # fitted or not


def test_a_request_may_be_any_iterable():
    assert not audit(0, request=(ex.RemoveRows([row]) for row in ROWS), runs=60).falsified


@pytest.mark.slow
def test_it_reads_as_what_it_is():
    right, wrong = audit(0), audit(0, unlearn=lambda un, request: None)
    assert isinstance(right, Audit)
    assert str(right).splitlines()[-1] == "not falsified (which proves nothing)"
    assert "(1, 0.01)" in str(right)
    assert right.reasons == ()
    assert "FALSIFIED: unlearned: the profile residual is at least" in str(wrong)
    assert "FALSIFIED: unlearned: epsilon is at least" in str(wrong)
    assert wrong.epsilon_lower == max(one.epsilon_lower for one in wrong.separations) > EPSILON
    assert wrong.mu_lower == max(one.mu_lower for one in wrong.separations) > wrong.mu


@pytest.mark.slow
def test_plot():
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    found = audit(0, unlearn=lambda un, request: None)
    ax = Figure().subplots()
    assert found.plot(ax) is ax
    assert ax.get_title().startswith("unlearned: ")
    assert sum(len(group) for group in ax.containers) == 80
    counted = sum(bar.get_height() for group in ax.containers for bar in group)
    assert counted == RUNS  # half of the runs of each world
    pyplot.switch_backend("agg")
    own = found.plot()
    assert own.get_legend() is not None
    pyplot.close(own.figure)


@pytest.mark.slow
def test_progress(monkeypatch):
    bars = []

    def tqdm(seeds, desc, unit):
        bars.append((desc, len(seeds)))
        return seeds

    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=tqdm))
    audit(0, runs=60)
    assert bars == []
    assert str(audit(0, runs=60, progress=True)) == str(audit(0, runs=60))
    assert bars == [
        ("unlearned", 60), ("retrained", 60), ("canary", 60), ("canary's other side", 60)
    ]  # fmt: skip


def test_progress_by_the_real_tqdm(capsys):
    pytest.importorskip("tqdm")
    audit(0, runs=60, progress=True)
    assert "retrained: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["matplotlib.pyplot", "tqdm"])
def test_an_extra_that_is_missing_is_named(monkeypatch, name):
    found = audit(0, runs=60)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install {name.partition('.')[0]}$"):
        found.plot() if name != "tqdm" else audit(0, runs=60, progress=True)


@pytest.mark.slow
def test_extras_are_imported_only_where_they_are_asked_for():
    code = "import sys, expunge.audit; assert not {'matplotlib', 'tqdm'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"runs": 10},
            r"^with 10 runs no outcome would falsify this claim .*: \d+ are needed$",
        ),
        ({"runs": 100.0}, r"^runs must be an integer"),
        ({"runs": True}, r"^runs must be an integer"),
        ({"confidence": 1.0}, r"^confidence must be a number above 0 and below 1"),
        ({"confidence": "high"}, r"^confidence must be"),
        ({"epsilon": -1.0}, r"^epsilon must be"),
        ({"delta": 0.0}, r"^delta must be"),
        ({"mechanism": "laplace"}, r"^unknown mechanism 'laplace'"),
        ({"against": "hope"}, r"^unknown comparison"),
        ({"tolerance": -1.0}, r"^tolerance must be"),
        ({"theta_bound": 0.0}, r"^theta_bound must be"),
        ({"method": "magic"}, r"^unknown method"),
        ({"request": ex.RemoveRows([60])}, r"^row 60 is out of range"),
        ({"noise": 0.1}, r"^mechanism='output' is audited without noise"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        audit(0, **options)


def test_the_number_of_runs_that_is_asked_for_suffices():
    for options in ({"epsilon": 3.0, "delta": 0.3}, {"mechanism": "rounding"}, {"epsilon": 8.0}):
        with pytest.raises(ValueError, match="are needed") as raised:
            audit(0, runs=4, **options)
        needed = int(str(raised.value).split()[-3])
        with pytest.raises(ValueError, match=f"{needed} are needed"):
            audit(0, runs=needed - 1, **options)
        far = ex.Ridge().fit(*data(9))  # as clear as can be
        found = audit(0, runs=needed, release=lambda un, seed, far=far: far, **options)
        assert told(found.separations[0], found)


def test_what_is_not_accepted():
    from sklearn.linear_model import Ridge

    X, y = data(0)
    with pytest.raises(TypeError, match="pass expunge's Ridge or LogisticRegression"):
        audit_certificate(Ridge(), X, y, ex.RemoveRows([0]), EPSILON, DELTA)
    with pytest.raises(TypeError, match="is not a request"):
        audit(0, request=3)
    with pytest.raises(CertificateError, match="trained with noise"):
        audit(0, mechanism="objective", epsilon=0.5)
    with pytest.raises(ValueError, match="0 < epsilon < 1"):
        objective(0, epsilon=1.0)
    with pytest.warns(ConvergenceWarning), pytest.raises(CertificateError, match="rounding floor"):
        audit(0, tolerance=1e-14)
