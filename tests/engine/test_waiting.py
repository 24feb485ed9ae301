"""Readers and verbs wait for a request of another thread."""

import os
import sys
import threading

import pytest
from interrupting import CONSTANT, DATA, assert_follows, bits, fitted, make, of_kind, refuse
from numpy.testing import assert_array_equal
from unlearning import METHODS, by_value, inside, make_data, unlearner

import expunge as ex
from expunge.engine import fitted as fitted_module

pytestmark = [  # of a zipfile that an interrupt closes between two of its lines
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        threading.current_thread() is not threading.main_thread(), reason="signals come there"
    ),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of files
    monkeypatch.setattr(sys, "unraisablehook", bool)  # pytest's is Python, which an interrupt finds too


# Verbs and readers that look at more than one thing, and wait for a request of another thread.
WAITING = {
    "residual": lambda un: un.residual(),
    "distance": lambda un: un.distance(),
    "standard_errors": lambda un: bits(un.standard_errors()),
    "corrected_data": lambda un: [bits(part) for part in un.corrected_data()],
    "retrain": lambda un: fitted(un.retrain()),
    "get_support": lambda un: bits(un.get_support()),
    "budget": lambda un: un.budget,
    "release": lambda un: fitted(un.release(1.0, 1e-5, random_state=1)),
    "save": lambda un: (
        un.save("file", include_rows=True, include_noise=True)
        or bits(ex.Unlearner.load("file").corrected_data()[0])
    ),
    "detach": lambda un: inside(un.detach()).held.counts.tolist(),
}
OF_IDS = ("rows_of", "is_forgotten", "drop_tombstones")  # see test_people.py


def test_every_public_name_is_among_those_that_these_tests_know():
    names = {name for name in dir(ex.Unlearner) if not name.startswith("_")}
    assert names == {*WAITING, *CONSTANT, *OF_IDS, "apply", "apply_each", "attach", "load", "attached"}


@pytest.mark.parametrize("name", WAITING)
def test_a_reader_waits_until_the_request_of_another_thread_has_ended(name, monkeypatch):
    def made():
        return make("logistic", budget="settle")

    requests, data = of_kind("logistic", "mixed"), DATA["logistic"]
    twin = made()
    twin.apply(requests)
    expected = WAITING[name](twin)
    un, begun, go_on, seen = made(), threading.Event(), threading.Event(), []
    act = fitted_module.fitted_attributes

    def slow(*arguments):  # when all but the last act is done
        begun.set()
        assert go_on.wait(30)
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitted_module, "fitted_attributes", slow)
        applying = threading.Thread(target=un.apply, args=[requests])
        applying.start()
        assert begun.wait(30)
        assert inside(un).data.register.edited_rows > 0  # data are those after, and the model is that before
        reading = threading.Thread(target=lambda: seen.append(WAITING[name](un)))
        reading.start()
        reading.join(0.03)
        waits = reading.is_alive()
        go_on.set()
        applying.join(30)
        reading.join(30)
    assert waits
    assert seen == [expected]
    assert un.attached == (name != "detach")
    if un.attached:
        for found, kept in zip(un.corrected_data(), data.after(*requests).rows, strict=True):
            assert_array_equal(found, kept)


@pytest.mark.parametrize("refused", [False, True], ids=["granted", "refused"])
def test_readers_beside_a_thread_that_applies_see_what_is_between_requests(refused):
    """Rows come and go in pairs, and every gradient is within the tolerance."""
    data = make_data("logistic", n=300)
    un = unlearner(data, "logistic", True, tolerance=1e-3)
    pair, stop, failures = data.X[5:7], threading.Event(), []

    def apply():
        first = 300
        while not stop.is_set():
            if refused:
                refuse(un, [ex.AddRows(pair, [0, 1]), ex.RemoveRows([2, 2])])
            else:
                un.apply([ex.AddRows(pair, [0, 1]), ex.CorrectValues([first], [1], 0.5)], method="exact")
                un.apply(ex.RemoveRows([first, first + 1]))
                first += 2

    def read():
        while not stop.is_set():
            X, y, _ = un.corrected_data()
            assert X.shape[0] == y.size
            assert y.size in ((300,) if refused else (300, 302))
            assert un.residual() <= 1e-3 + 1e-9
            un.save("file", include_rows=True)
            assert ex.Unlearner.load("file").residual() <= 1e-3 + 1e-9
            assert ex.residual(un.retrain(), X, y) <= 2.0  # of two rows

    def noted(act):
        try:
            act()
        except BaseException as error:
            failures.append(error)
            stop.set()

    interval = sys.getswitchinterval()
    threads = [threading.Thread(target=noted, args=[act]) for act in (apply, read)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        stop.wait(0.5)
        stop.set()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not failures


@pytest.mark.parametrize("name", [*WAITING, "apply", "apply_each", "attach"])
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_in_the_middle_of_a_request_of_this_thread_nothing_is_answered_or_changed(
    name, detached, monkeypatch
):
    """As by a signal handler that reports, and ends."""
    requests, data = of_kind("squared", "mixed"), DATA["squared"]
    asked = {
        **WAITING,
        "apply": lambda un: un.apply(ex.AddRows(data.X[:1], data.y[:1])),
        "apply_each": lambda un: un.apply_each([ex.AddRows(data.X[:1], data.y[:1])]),
        "attach": lambda un: un.attach(data.X, data.y),
    }
    un = make("squared", detached=detached)
    if detached:
        requests = by_value(data, requests)
    act, refusals = fitted_module.fitted_attributes, []

    def asking(*arguments):
        try:
            asked[name](un)
        except RuntimeError as error:
            refusals.append(str(error))
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitted_module, "fitted_attributes", asking)
        un.apply(requests, **METHODS["corrected"])
    if name == "budget":  # one thing, from between requests
        assert not refusals
    else:
        (message,) = refusals
        assert "in the middle of a request of the same thread" in message
    assert_follows(un, data.after(*of_kind("squared", "mixed")), 0)
