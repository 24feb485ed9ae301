"""Noise against accuracy: certified models of one request at equal (epsilon, delta), beside retraining."""

import copy
from functools import lru_cache, partial
from time import process_time

import numpy as np

import expunge as ex
from expunge.accounting import guo_mu
from expunge.baselines import PrivateTraining
from expunge.metrics import quality

from .cells import compare, logits, reference
from .strategies import STRATEGIES
from .studies import ALPHA, asked

DELTA = 1e-2  # the source paper's
EPSILONS = (0.01, 0.1, 0.9)
RETRAINING = [s for s in STRATEGIES if s.name.endswith((", cold", ", warm"))]


def release(study, model, request, epsilon, seed):
    """Noise on a model that is near the minimum."""
    un = ex.Unlearner(model, study.X, study.y)
    begun = process_time()
    un.apply(request.request)
    released = un.release(epsilon, DELTA)
    seconds = process_time() - begun
    return released, seconds, released.certificate_.sigma or np.nan, ""


def noise_after_the_fact(study, model, request, epsilon, seed):
    """The source paper's: noise in the objective for the residual that the update turned out to leave."""
    un = ex.Unlearner(model, study.X, study.y)
    residual = un.apply(request.request, method="second_order").residual
    sigma = residual / guo_mu(epsilon, DELTA)
    noisy = ex.LogisticRegression(ALPHA, fit_intercept=False, noise=sigma, random_state=seed)
    un = ex.Unlearner(noisy.fit(study.X, study.y), study.X, study.y, tolerance=1e-6)
    begun = process_time()
    left = un.apply(request.request, method="second_order").residual
    seconds = process_time() - begun
    return (
        un.model,
        seconds,
        sigma,
        f"its residual is then {left / residual:.2g} times what sigma was made for",
    )


def private_training(study, model, request, epsilon, seed):
    """Noise for any so many rows, before anyone asks: then nothing is to do."""
    options = {"epsilon": epsilon, "delta": DELTA, "rows": request.rows.size, "random_state": seed}
    private = PrivateTraining(model, study.X, study.y, **options)
    begun = process_time()
    private.apply(request.request)
    seconds = process_time() - begun
    return private.model, seconds, private.privacy.sigma, f"its penalty is {private.privacy.alpha:.2g}"


def retraining(study, model, request, epsilon, seed):
    return None, np.nan, 0.0, "no certificate is needed"


BOTH = {
    "release": release,
    "second order, noise after the fact (paper)": noise_after_the_fact,
    "retraining": retraining,
}
WAYS = {"revoke columns": BOTH, "remove rows": BOTH | {"private training": private_training}}


@lru_cache(1)
def _best(ask):
    request = ask()
    return request, reference(request)


def records(study, seeds, cells, say):
    """Of each way, epsilon and seed: its scores, those of the retrained model, and seconds of both."""
    model, found = study.model(), []
    for kind, amount in (("revoke columns", study.counts[-1]), ("remove rows", 1)):
        for seed in range(seeds):
            ask = partial(asked, kind, study, amount, seed)
            of_retraining = compare(study, model, kind, amount, seed, RETRAINING, cells, say)
            for epsilon in EPSILONS:
                for way, make in WAYS[kind].items():
                    key = f"{study.name}|certified|{kind}|{amount}|{epsilon}|{way}|{seed}"
                    record = cells.get(key, partial(scored, study, model, ask, make, epsilon, seed))
                    about = {"data": study.name, "kind": kind, "amount": amount, "way": way}
                    found.append(record | about | {"epsilon": epsilon, "retraining": of_retraining})
            say(f"{study.name} certified {kind} {seed}")
    return found


def scored(study, model, ask, make, epsilon, seed):
    request, best = _best(ask)
    given, seconds, sigma, note = make(study, copy.deepcopy(model), request, epsilon, seed)
    own, other = (
        quality(study.y_test, logits(m, study.X_test, request.columns)) for m in (given or best, best)
    )
    theirs = {f"retrained_{name}": value for name, value in vars(other).items()}
    return {**vars(own), **theirs, "seconds": seconds, "sigma": sigma, "note": note}
