"""Closed forms of the field, each by the property that defines it, against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import csr, nothing_densifies
from strategies import CASES, ROWS, fresh, minimiser
from unlearning import ALPHA, make_data, theta_of

import expunge as ex
from expunge import reference
from expunge.baselines import FisherForgetting

both_losses = pytest.mark.parametrize("loss", ["squared", "logistic"])
each_form = pytest.mark.parametrize("form", ["float64_c", "csr_int32"])
TOUCHED = ROWS.rows
BLOCK = {"solver": "cg", "memory_limit": 8 * 6 * 3**2}  # three of seven coordinates are factored


class Problem:
    """What a formula is made of, by NumPy: the data before and after ROWS, at the old minimum."""

    def __init__(self, data, loss, fit_intercept=True):
        X, y, s = data.rows
        self.theta = minimiser(data, loss, fit_intercept=fit_intercept)
        self.U = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
        self.how = {"alpha": ALPHA, "loss": loss, "fit_intercept": fit_intercept}
        s = np.ones(len(y)) if s is None else s
        self.H = reference.hessian(X, self.theta, sample_weight=s, **self.how)
        after = data.after(ROWS)
        Xa, ya, sa = after.rows
        self.H_after = reference.hessian(Xa, self.theta, sample_weight=sa, **self.how)
        self.g_after = reference.gradient(Xa, ya, self.theta, sample_weight=sa, **self.how)
        eta = self.U @ self.theta
        p = 1.0 / (1.0 + np.exp(-eta))
        self.d1 = s * (eta - y if loss == "squared" else p - y)
        self.d2 = s * (np.ones_like(eta) if loss == "squared" else p * (1 - p))
        self.s = s
        self.g_touched = -self.U[TOUCHED].T @ self.d1[TOUCHED]  # E3 of rows that leave


@both_losses
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_each_formula_is_its_papers(loss, weighted):
    _, data = fresh("guo", loss=loss, weighted=weighted)
    P = Problem(data, loss)
    U, d1, d2 = P.U[TOUCHED], P.d1[TOUCHED], P.d2[TOUCHED]
    inverse = np.linalg.inv(P.H)
    A = U @ inverse @ U.T
    leverage = d2 * np.diag(A)
    t = A @ np.linalg.inv(np.eye(len(U)) - np.diag(d2) @ A) @ d1
    live = data.after(ROWS).live
    empirical = (P.U[live].T * (P.s * (P.d1 / np.where(P.s > 0, P.s, 1.0)) ** 2)[live]) @ P.U[live]
    empirical += np.diag([ALPHA] * 6 + [0.0])
    expected = {
        "guo": -np.linalg.solve(P.H_after, P.g_touched),
        "fisher": -np.linalg.solve(P.H_after, P.g_after),
        "empirical": -np.linalg.solve(empirical, P.g_after),
        "jackknife": -inverse @ P.g_touched,
        "rescaled": inverse @ U.T @ (d1 / (1.0 - leverage)),
        "projective": U.T @ np.linalg.pinv(U @ U.T) @ t,
    }
    for name, step in expected.items():
        strategy, _ = fresh(name, loss=loss, weighted=weighted)
        strategy.apply(ROWS)
        assert_allclose(theta_of(strategy.model), P.theta + step, rtol=0, atol=1e-6, err_msg=name)


@both_losses
@pytest.mark.parametrize("name", ["guo", "fisher", "empirical", "jackknife", "rescaled", "projective"])
def test_a_sparse_x_and_conjugate_gradients_give_the_same(name, loss):
    expected, _ = fresh(name, loss=loss)
    expected.apply(ROWS)
    X, y, _ = make_data(loss).rows
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    for solver in ("auto", "cg"):
        model = kind(ALPHA, **({} if solver == "auto" else BLOCK)).fit(csr(X), y)
        with nothing_densifies():
            strategy = CASES[name].of(csr(X), y, model=model)
            update = strategy.apply(ROWS)
        relative = np.abs(theta_of(strategy.model) - theta_of(expected.model)).max()
        relative /= np.linalg.norm(update.step)
        # a second-order step by conjugate gradients is to a relative residual of 1e-2, as in E5
        assert relative < (1e-6 if solver == "auto" or loss == "squared" else 0.03)


def test_guo_is_retraining_for_least_squares():
    strategy, data = fresh("guo", loss="squared")
    assert strategy.apply(ROWS).passes == 1
    assert_allclose(theta_of(strategy.model), minimiser(data.after(ROWS), "squared"), rtol=0, atol=1e-9)


def test_guo_leaves_the_residual_of_the_removal_before_and_the_full_gradient_does_not():
    second = ex.RemoveRows([6])
    left = {}
    for name in ("guo", "fisher"):
        strategy, _ = fresh(name)
        strategy.apply(ex.RemoveRows(list(range(20, 35))))
        before = strategy.residual()
        strategy.apply(second)
        left[name] = strategy.residual() / before
    assert left["fisher"] < 0.1
    assert left["guo"] > 0.5


def test_fisher_of_the_model_is_the_second_order_update():
    fisher, _ = fresh("fisher")
    second, _ = fresh("second_order")
    fisher.apply(ROWS)
    second.apply(ROWS)
    assert_allclose(theta_of(fisher.model), theta_of(second.model), rtol=0, atol=1e-7)


def test_noise_of_fisher_forgetting_has_the_covariance_of_the_paper():
    data = make_data("squared")
    X, y, _ = data.rows
    P = Problem(data, "squared")
    values, vectors = np.linalg.eigh(P.H_after)
    sigma, drawn = 0.3, []
    still = CASES["fisher"].of(X, y, loss="squared")
    still.apply(ROWS)
    for seed in range(400):
        noisy = CASES["fisher"].of(X, y, loss="squared", sigma=sigma, random_state=seed)
        noisy.apply(ROWS)
        drawn.append(theta_of(noisy.model) - theta_of(still.model))
    whitened = np.array(drawn) @ vectors * values**0.25 / sigma  # N(0, 1), 400 x 7 of them
    assert_allclose(whitened.mean(axis=0), 0.0, atol=5 / np.sqrt(400))
    assert_allclose(whitened.T @ whitened / 400, np.eye(7), atol=5 * np.sqrt(2 / 400))


def test_noise_takes_a_whole_factor():
    X, y, _ = make_data("logistic").rows
    strategy = FisherForgetting(ex.LogisticRegression(ALPHA, **BLOCK).fit(X, y), X, y, sigma=1.0)
    with pytest.raises(
        ValueError, match="takes the whole of F: use sigma=0, or a model of solver='cholesky'"
    ):
        strategy.apply(ROWS)
    assert len(strategy.corrected_data()[1]) == 60
    for wrong in ({"sigma": -1.0}, {"fisher": "observed"}, {"random_state": "0"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FisherForgetting(ex.LogisticRegression(ALPHA).fit(X, y), X, y, **wrong)


def test_influence_differs_from_retraining_by_second_order_in_the_change():
    X, y, _ = make_data("logistic", n=400).rows
    off = []
    for size in (0.2, 0.1, 0.05):  # a weight is taken off by so much, which a corrected cell stands for
        strategy = CASES["jackknife"].of(X, y)
        request = ex.CorrectValues([7], [1], X[7, 1] + size)
        data = make_data("logistic", n=400).after(request)
        strategy.apply(request)
        off.append(np.linalg.norm(theta_of(strategy.model) - minimiser(data)))
    ratios = np.array(off[:-1]) / off[1:]
    assert ((ratios > 3.4) & (ratios < 4.6)).all()  # half the change, a quarter of the error


def test_influence_falls_short_of_a_removal_by_the_leverage():
    strategy, data = fresh("jackknife", loss="squared")
    request = ex.RemoveRows([3])
    P = Problem(data, "squared")
    strategy.apply(request)
    exact = minimiser(data.after(request), "squared") - P.theta
    h = float(P.U[3] @ np.linalg.solve(P.H, P.U[3]))
    assert_allclose(theta_of(strategy.model) - P.theta, (1.0 - h) * exact, rtol=1e-6, atol=1e-10)


def test_rescaled_influence_is_exact_for_one_row_of_least_squares_and_not_for_two():
    for rows in ([3], [3, 17]):
        strategy, data = fresh("rescaled", loss="squared")
        strategy.apply(ex.RemoveRows(rows))
        off = np.abs(theta_of(strategy.model) - minimiser(data.after(ex.RemoveRows(rows)), "squared")).max()
        assert (off < 1e-9) == (len(rows) == 1)


def test_the_projective_update_is_retraining_within_the_span_of_the_removed_rows():
    strategy, data = fresh("projective", loss="squared")
    P = Problem(data, "squared")
    strategy.apply(ROWS)
    exact = minimiser(data.after(ROWS), "squared") - P.theta
    U = P.U[TOUCHED]
    onto = U.T @ np.linalg.pinv(U.T)
    assert_allclose(theta_of(strategy.model) - P.theta, onto @ exact, rtol=0, atol=1e-8)
    assert np.abs(onto @ exact - exact).max() > 1e-3  # it is not all of it


def test_the_projective_update_takes_more_rows_than_columns_and_twins():
    request = ex.RemoveRows(list(range(20)))
    data = make_data("squared")
    data.X[1] = data.X[0]
    strategy = CASES["projective"].of(data.X, data.y, loss="squared")
    strategy.apply(request)  # their span is all there is
    assert_allclose(theta_of(strategy.model), minimiser(data.after(request), "squared"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["jackknife", "rescaled", "projective"])
def test_the_hessian_is_known_before_the_first_request_and_found_before_the_next(name):
    strategy, _ = fresh(name)
    assert [strategy.apply(ex.RemoveRows([row])).passes for row in (1, 2, 3)] == [0, 1, 1]


def test_rows_by_id_mask_and_nothing():
    for request, count in ((ex.RemoveRows(np.arange(60) < 2), 2), (ex.RemoveRows([], missing="ignore"), 0)):
        strategy, _ = fresh("rescaled")
        before = theta_of(strategy.model)
        assert strategy.apply(request).rows_touched == count
        assert (np.array_equal(before, theta_of(strategy.model))) == (count == 0)
    strategy, _ = fresh("rescaled")
    strategy.apply(ex.RemoveRows([3]))
    with pytest.raises(ex.AlreadyForgotten):
        strategy.apply([ex.RemoveRows([4]), ex.RemoveRows([3])])
    with pytest.raises(ex.AlreadyForgotten):
        strategy.apply([ex.RemoveRows([4]), ex.RemoveRows([4])])
