"""Ctrl-C at any line and at any instant leaves data, model and bounds as before or after."""

import copy
import os
import pickle
import random
import signal
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from interrupting import (
    CONSTANT,
    DATA,
    PACKAGE,
    VERBS,
    Interrupts,
    assert_follows,
    assert_next_bound_holds,
    assert_right,
    fitted,
    make,
    new_rows,
    refuse,
    state_of,
)
from problems import SPARSE, dense
from unlearning import METHODS, by_value, inside, make_data, represented_by_value, request_from, unlearner

import expunge as ex

MANY = int(os.environ.get("EXPUNGE_INTERRUPTS", "1"))  # times as many as in an everyday run

each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])
needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
pytestmark = [  # of a zipfile that an interrupt closes between two of its lines
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        threading.current_thread() is not threading.main_thread(), reason="signals come there"
    ),
]


# Verbs that must change nothing, and undo what an interrupted undoing has left.
NEXT = [
    ex.Unlearner.get_support,
    lambda un: un.attached and un.corrected_data(),
    lambda un: un.attached and un.residual(),
    lambda un: un.attached and un.retrain(),
    lambda un: refuse(un, ex.RevokeFeatures([99])),
    lambda un: un.save("another", include_rows=un.attached, include_noise=True),
    lambda un: un.attached and refuse(un, [ex.RemoveRows([8, 9]), ex.RemoveRows([8])]),
    lambda un: un.attached and un.release(1.0, 1e-5),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of files
    monkeypatch.setattr(sys, "unraisablehook", bool)  # pytest's is Python, which an interrupt finds too


def interrupt(verb, moments):
    """Interrupts a verb at each of these moments, until it is done before; how many were, and left it done.

    After each, and whatever verb is next, all is as before or after; and so is what follows.
    """
    subject = verb.make()
    old = verb.look(subject)
    error = Interrupts().during(verb.act, subject)
    assert isinstance(error, verb.refused or type(None)), repr(error)
    new = verb.look(subject)
    assert new == old or not verb.refused
    for data in (verb.data, verb.after):
        if data is not None:
            assert_right(subject if data is verb.after else verb.make(), data)
    subject, count, done, fresh = verb.make(), 0, 0, False
    for lines in moments:
        interrupts = Interrupts(*lines)
        error = interrupts.during(verb.act, subject)
        if not interrupts.raised:
            assert isinstance(error, verb.refused or type(None)), repr(error)
            if fresh:
                break
            subject, fresh = verb.make(), True  # of which more lines are run than of one used before
            continue
        # (of a zipfile that is closed between two of its lines, in a ValueError)
        assert isinstance(error if type(error) is not ValueError else error.__context__, KeyboardInterrupt)
        count += interrupts.raised
        if verb.data is not None:
            follow = NEXT[count % len(NEXT)]
            follow(subject)
        now = verb.look(subject)
        assert now in (old, new), f"after lines {lines}, {error!r}"
        is_new = now == new != old
        done += is_new
        if verb.data is not None and (is_new or count % 7 == 0):
            assert_follows(subject, verb.after if is_new else verb.data, count)
            subject = verb.make()
        elif fresh or now != old:
            subject = verb.make()
    return count, done


each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.mark.slow
@each_verb
def test_an_interrupt_at_any_line_leaves_all_as_before_or_after(verb):
    count, done = interrupt(verb, ((n,) for n in range(1, 10_000, max(1, verb.every // MANY))))
    assert count > 0 or verb is VERBS["delete"]  # one line
    assert done <= 8 or verb.forgets  # the commit is the last act
    assert not list(Path().glob(".expunge-*"))


@pytest.mark.slow
@each_verb
def test_a_second_interrupt_some_lines_later_leaves_all_as_before_or_after(verb):
    step = max(1, 12 * verb.every // MANY)
    interrupt(verb, ((n, 1 + (n // step) % 8) for n in range(1 + step // 2, 10_000, step)))


STREAM = [
    ex.RemoveRows(4),
    ex.RemoveRows(6),
    ex.CorrectLabels([5, 9], [1.0, 0.0]),
    ex.CorrectValues([8], [0], 0.5),
    ex.RemoveRows(7),
]


@pytest.mark.slow
def test_an_interrupt_at_any_line_of_a_stream_leaves_a_prefix_of_it_and_says_which():
    states = []
    for count in range(len(STREAM) + 1):
        un = make("logistic")
        un.apply_each(STREAM[:count])
        states.append(state_of(un))
    assert len({str(state) for state in states}) == len(states)
    told = set()
    for line in range(1, 10_000):
        un, interrupts = make("logistic"), Interrupts(line)
        error = interrupts.during(un.apply_each, STREAM)
        if not interrupts.raised:
            assert error is None
            break
        assert isinstance(error, KeyboardInterrupt)
        found = state_of(un)
        assert found in states, line
        if isinstance(error, ex.StreamInterrupted):
            assert error.number == len(error.updates)
            assert found == states[error.number], line
            told.add(error.number)
    assert told == set(range(len(STREAM) + 1))


# Interrupts at instants


class Alarm:
    """KeyboardInterrupt some time from now, and again some time later, but only while expunge runs."""

    def __init__(self):
        self.delays, self.raised = [], 0

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self.heard)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def heard(self, _, frame):
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            self.raised += 1
            self.wait()
            raise KeyboardInterrupt

    def wait(self):
        signal.setitimer(signal.ITIMER_REAL, self.delays.pop(0) if self.delays else 0.0)

    def during(self, act, delays):
        """What `act` gave and what it raised."""
        self.delays = list(delays)
        try:
            self.wait()
            return act(), None
        except (KeyboardInterrupt, Exception) as error:
            return None, error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Life:
    """An Unlearner to which anything happens, and the data that the test keeps."""

    def __init__(self, loss, form, seed):
        self.loss, self.rng = loss, random.Random(seed)
        self.represent = SPARSE["csr_float32"] if form == "csr" else np.array
        self.start()

    def start(self):
        self.data = make_data(self.loss, weighted=self.rng.random() < 0.5)
        options = {"solver": self.rng.choice(["auto", "auto", "cg"])} if self.loss == "logistic" else {}
        self.un = unlearner(
            self.data, self.loss, True, tolerance=0.5, represent=self.represent, theta_bound=1e6, **options
        )
        if self.un.model.solver != "cg" and self.rng.random() < 0.5:
            self.un.detach()
        self.un.save("file", include_rows=self.un.attached)
        self.bound = self.un.tolerance
        kind = ex.Ridge if self.loss == "squared" else ex.LogisticRegression
        X, y, _ = DATA[self.loss].rows
        self.fits = [(self.represent(part), labels) for part, labels in ((X, y), new_rows(self.loss))]
        self.other = kind(0.5, tol=1.0)  # another model
        models = [kind(0.5, tol=1.0).fit(*rows) for rows in self.fits]
        self.known = [fitted(model) for model in models]
        for model, rows in zip(models, self.fits, strict=True):
            ex.Unlearner(model, *rows)
            self.known.append(fitted(model))
        self.other.fit(*self.fits[0])

    def requests(self):
        """Some, and the data after them."""
        data, requests = self.data, []
        kinds = ["remove", "add", "label", "value", "revoke"]
        if (not self.un.attached and self.loss == "logistic") or data.kept.sum() < 4:
            kinds.remove("revoke")
        for _ in range(self.rng.randint(1, 4)):
            some = [self.rng.randrange(10**6) for _ in range(3)]
            requests.append(request_from(data, self.loss, self.rng.choice(kinds), *some))
            data = data.after(requests[-1])
        if self.un.attached:
            return requests, data
        return represented_by_value(by_value(self.data, requests), self.represent), data

    def verbs(self):
        """Names, what to do, and the data after it; None: refused."""
        un, data = self.un, self.data
        cg = un.attached and un.model.solver == "cg"  # which keeps no Hessian
        requests, after = self.requests()
        rows = self.rng.choice(self.fits)
        yield "fit", lambda: self.other.fit(*rows), data
        yield "construct", lambda: ex.Unlearner(self.other, *self.rows_of_other()), data
        yield "load", lambda: ex.Unlearner.load("file"), data
        yield "get_support", un.get_support, data
        yield "save", lambda: un.save("file"), None if cg else data
        yield "budget", lambda: un.budget, data
        if not un.attached:
            method = self.rng.choice(["auto", "corrected"])
            yield f"detached {method}", lambda: un.apply(requests, **METHODS[method]), after
            wrong = [*requests, ex.Edit(before=(np.ones((9999, 1)), np.ones(9999)))]
            yield "detached refused", lambda: un.apply(wrong), None
            X, y, s = data.rows
            yield "attach", lambda: un.attach(self.represent(X), y, s), data.renumbered()
            yield "attach refused", lambda: un.attach(self.represent(X[1:]), y[1:]), None
            return
        for method, options in METHODS.items():
            yield method, partial(un.apply, requests, **options), after
            wrong = [*requests, ex.RemoveRows([0]), ex.RemoveRows([0])]
            yield f"{method} refused", partial(un.apply, wrong, **options), None
        yield "detach", un.detach, None if cg else data
        yield "save rows", lambda: un.save("file", include_rows=True), data
        yield "residual", un.residual, data
        yield "corrected_data", un.corrected_data, data
        yield "retrain", un.retrain, data
        yield "release", lambda: un.release(1.0, 1e-5), data

    def rows_of_other(self):
        """Those that it was fitted to."""
        return self.fits[self.known.index(fitted(self.other)) % 2]

    def live(self, alarm, typical):
        """One verb, interrupted or not; then one that changes nothing; and all is as before or after."""
        un, before, theta, attached = self.un, self.data, inside(self.un).state.theta, self.un.attached
        name, act, after = self.rng.choice(list(self.verbs()))
        delays, most = [], 1.2 * typical.get(name, 1e-3)
        if self.rng.random() < 0.9:
            delays.append(self.rng.uniform(1e-6, most))
            if self.rng.random() < 0.4:
                delays.append(self.rng.choice([2e-6, 1e-5, 3e-5, 1e-4]) * self.rng.uniform(0.5, 1.5))
        raised, started = alarm.raised, perf_counter()
        gave, error = alarm.during(act, delays)
        hit = alarm.raised - raised
        if not hit:
            typical[name] = perf_counter() - started
        assert is_free(inside(un).lock), name
        assert fitted(self.other) in self.known
        self.rng.choice(NEXT)(un)
        if error is None:
            assert after is not None, f"{name} was granted"
            self.data = after
        elif after is not None:
            refused = isinstance(error, ex.ToleranceExceeded | ex.ConvergenceError)
            assert hit or refused, f"{name}: {error!r}"
            self.data = after if self.is_done(after, theta, attached) else before
        else:
            assert hit or isinstance(error, ValueError), f"{name}: {error!r}"
        if inside(un).state.theta is not theta:
            proven = name not in ("corrected", "original", "first_order", "detached corrected")
            self.bound = un.tolerance if proven else np.inf
            if isinstance(gave, ex.Update):
                self.bound = gave.residual_bound
        try:
            assert_right(un, self.data, self.bound)
            if hit:
                self.data = assert_next_bound_holds(un, self.data, alarm.raised)
                self.bound = np.inf
        except AssertionError as failure:
            raise AssertionError(f"after {name}, {delays}, {hit} interrupts, {error!r}") from failure
        return name, hit

    def is_done(self, after, theta, attached):
        """Whether an interrupted verb was."""
        if not self.un.attached:
            return inside(self.un).state.theta is not theta
        if not attached:
            return True
        parts = zip(self.un.corrected_data(), after.rows, strict=True)
        return all(np.array_equal(None if a is None else dense(a), b) for a, b in parts)


def is_free(lock):
    """Whether another thread gets it."""
    got = []

    def take():
        if lock.acquire(blocking=False):
            lock.release()
            got.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(got)


@pytest.mark.slow
@needs_signals
@pytest.mark.parametrize("form", ["dense", "csr"])
@each_loss
def test_interrupts_at_random_instants_leave_all_as_before_or_after(loss, form):
    """250 of them; 1,000 over all losses and forms."""
    life, hits, typical = Life(loss, form, MANY), Counter(), {}
    with Alarm() as alarm:
        while alarm.raised < 250 * MANY:
            if life.rng.random() < 0.04:
                life.start()
            name, hit = life.live(alarm, typical)
            hits[name] += hit
    print(sum(hits.values()), dict(hits))


# What stays


@pytest.mark.parametrize("name", CONSTANT)
def test_what_certificates_rest_on_cannot_be_assigned(name):
    un = make("logistic")
    before = state_of(un)
    with pytest.raises(AttributeError):
        setattr(un, name, 1.0)
    with pytest.raises(AttributeError):
        delattr(un, name)
    assert state_of(un) == before


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_an_unlearner_is_not_copied_and_goes_on_working(take, detached):
    un = make("logistic", detached=detached)
    before = state_of(un)
    with pytest.raises(TypeError, match=r"save\(\) it to a file"):
        take(un)
    assert state_of(un) == before
    assert_next_bound_holds(un, DATA["logistic"])
