"""What an Update keeps."""

import copy
import dataclasses
import hashlib
import hmac
import json
import pickle

import numpy as np
import pytest
from unlearning import make_data, requests_for, unlearner

import expunge as ex
from expunge import receipts

KEY, OTHER = b"0123456789abcdef", b"0123456789abcdeg"
X, Y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 4.0]


def small():
    return ex.Unlearner(ex.Ridge().fit(X, Y), X, Y)


# What an Update keeps


def test_an_update_that_no_request_made_has_no_receipt():
    update = small().apply(ex.RemoveRows([0]))
    by_hand = ex.Update("auto", np.zeros(1), np.zeros(1), None, 0.0, 0)
    for other in (by_hand, dataclasses.replace(update, residual=0.0)):
        with pytest.raises(ValueError, match="no request made this Update"):
            other.receipt()


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_copies_keep_the_receipt_and_pickles_tell_nothing_of_rows(detached):
    un = small().detach() if detached else small()
    update = un.apply(ex.AddRows([[1.0]], [1.0]))
    for other in (copy.copy(update), copy.deepcopy(update)):
        assert other.receipt(KEY) == update.receipt(KEY)
    pickled = pickle.loads(pickle.dumps(update))
    assert pickled.step is pickled.gradient_difference is None
    assert pickled.residual_bound == 2.0 ** np.ceil(np.log2(update.residual_bound))
    assert (pickled.method, pickled.passes, pickled.rows_touched) == ("auto", update.passes, 1)
    assert "AddRows" not in pickle.dumps(update).decode("latin1")
    with pytest.raises(ValueError, match="has been pickled since"):
        pickled.receipt()


def test_what_a_receipt_needs_does_not_count_in_comparisons():
    values = {"step": 0, "gradient_difference": 0}  # whose == is one bool
    one, other = (small().apply(ex.CorrectLabels([row], Y[row])) for row in (0, 1))
    for update in (one, other):
        vars(update).update(values)
    assert one._record != other._record
    vars(one)["seconds"] = vars(other)["seconds"] = 0.0
    vars(one)["residual_bound"] = vars(other)["residual_bound"] = 0.0
    vars(one)["distance"] = vars(other)["distance"] = 0.0
    assert one == other


def test_an_old_receipt_stays_what_it_was_when_the_model_goes_on():
    un = small()
    update = un.apply(ex.RemoveRows([0]))
    before = update.receipt(KEY)
    un.apply([ex.CorrectLabels([1], 9.0), ex.AddRows([[2.0]], [2.0])])
    un.model.coef_ = un.model.coef_ + 1.0
    assert update.receipt(KEY) == before


def test_nothing_is_hashed_and_nothing_written_before_a_receipt_is_asked_for(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("too early")

    data = make_data("squared")
    un, detached = unlearner(data, "squared", True), unlearner(data, "squared", True).detach()
    with monkeypatch.context() as patch:
        for module, names in (
            (hashlib, ("sha256", "new")),
            (hmac, ("new", "digest", "HMAC")),
            (json, ("dumps", "loads")),
        ):
            for name in names:
                patch.setattr(module, name, refuse)
        updates = [un.apply(requests_for("squared")["mixed"])]
        updates.append(detached.apply([ex.AddRows([[0.5] * 6], [0.5]), ex.RevokeFeatures([2])]))
        for update in updates:
            with pytest.raises(AssertionError, match="too early"):
                update.receipt(KEY)
    for update in updates:
        receipts.verify(update.receipt(KEY), KEY)
