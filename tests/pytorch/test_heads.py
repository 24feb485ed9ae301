"""Frozen features and a linear head: exact, and certified on a condition that is said."""

import numpy as np
import pytest
from networks import Attention, nn, same, state, table, text, torch
from numpy.testing import assert_allclose
from torch.utils.data import TensorDataset

import expunge as ex
from expunge.torch import head


def backbone(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.5)).to(dtype)


def rows():
    X, y = table(200)
    return X.double(), (y > 0).long()


def test_a_head_forgets_exactly_and_the_module_stays():
    X, y = rows()
    module = backbone()
    before = state(module)
    un = head(module, X, y, batch_size=64, tolerance=1e-8)
    un.apply([ex.RemoveRows([3, 7]), ex.CorrectLabels([9], 1 - int(y[9]))], method="exact")
    same(before, state(module))
    with torch.no_grad():
        Z = module.eval()(X).numpy()
    labels = y.numpy().copy()
    labels[9] = 1 - labels[9]
    retrained = ex.LogisticRegression(alpha=1.0).fit(np.delete(Z, [3, 7], 0), np.delete(labels, [3, 7]))
    assert_allclose(un.model.coef_, retrained.coef_, atol=1e-7)
    assert_allclose(un.features(X), Z, rtol=1e-12)
    assert_allclose(un.predict(X), retrained.predict(Z))


def test_its_certificate_says_on_what_it_is_conditional():
    X, y = rows()
    un = head(backbone(), X, y)
    un.apply(ex.RemoveRows(range(20)))
    certificate = un.release(epsilon=1.0, delta=1e-5).certificate_
    text, status = certificate.assumptions[0]
    assert "module never saw what is forgotten" in text
    assert status == "taken on trust"
    assert text in str(certificate)
    plain = ex.Unlearner(un.model, *un.corrected_data()).release(epsilon=1.0, delta=1e-5).certificate_
    assert certificate.assumptions[1:] == plain.assumptions
    assert (certificate.sigma, certificate.mu) == (plain.sigma, plain.mu)


def test_forms_of_rows_adapters_and_other_models():
    X, y = rows()
    expected = head(backbone(), X, y).model.coef_
    assert_allclose(head(backbone(), TensorDataset(X, y)).model.coef_, expected)
    assert_allclose(head(backbone(), X, y, ids=range(200)).model.coef_, expected)
    ridge = head(backbone(), X, X[:, 0], model=ex.Ridge(alpha=2.0))
    assert isinstance(ridge.model, ex.Ridge)
    assert ridge.model.alpha == 2.0
    tokens, _ = text()
    un = head(Attention(), {"input_ids": tokens}, tokens[:, 0] > 2, logits=lambda out: out["hidden"].mean(1))
    assert un.model.n_features_in_ == 8


def test_half_precision_gives_features_of_float32():
    X, y = rows()
    un = head(backbone(torch.bfloat16), X.to(torch.bfloat16), y)
    assert un.features(X.to(torch.bfloat16)).dtype == np.float32


def test_what_is_no_head_is_an_error():
    X, y = rows()
    with pytest.raises(TypeError, match="must be a torch"):
        head(len, X, y)
    with pytest.raises(TypeError, match="Ridge or a LogisticRegression"):
        head(backbone(), X, y, model=3)
    with pytest.raises(TypeError, match="pass logits"):
        head(Attention(), {"input_ids": text()[0]}, text()[0][:, 0] > 2)
    with pytest.raises(ValueError, match=r"expected \(rows, features\)"):
        head(nn.Embedding(8, 3), text()[0], text()[0][:, 0] > 2)
