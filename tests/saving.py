"""Saved Unlearners, and what their files hold."""

import numpy as np
from unlearning import inside

from expunge.files import archive, saved


def entries_of(path):
    return archive.read(path, "unlearner", [saved.VERSION])


def assert_same_model(loaded, model, X):
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    fitted, expected = vars(loaded)["_fitted"], vars(model)["_fitted"]
    assert set(fitted) == set(expected)
    for name, value in expected.items():
        assert type(fitted[name]) is type(value), name
        assert np.asarray(fitted[name]).dtype == np.asarray(value).dtype
        assert np.asarray(fitted[name]).tolist() == np.asarray(value).tolist(), name
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    if hasattr(model, "decision_function"):
        assert loaded.decision_function(X).tobytes() == model.decision_function(X).tobytes()
    assert not fitted["coef_"].flags.writeable


def state_of(un):
    state = inside(un).state
    return {
        "fitted": {name: np.asarray(value).tolist() for name, value in vars(un.model)["_fitted"].items()},
        "theta": state.theta.tobytes(),
        "statistics": state.statistics and state.statistics.tallies,
        "hessian": state.statistics and state.statistics.anchor.hessian.tobytes(),
        "effort": inside(un).effort,
        "state": id(state),
        "held": id(inside(un).held),
        "support": un.get_support().tolist(),
    }


def numbered(held):
    """All rows at once: numbers, X, y, s."""
    X, y, s = held.current()
    return held.register.live(), X, y, np.ones(y.size) if s is None else s
