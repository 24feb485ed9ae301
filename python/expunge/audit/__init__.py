"""An attempt to break a certificate, with the noise known: it can show one to be false, never true.

Released models of two worlds, one that unlearned and one that was retrained, are compared run by run. The
numbers that noise is made of are the audit's own, so that what lies beneath it is seen as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, inf, log, log1p
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, ndtr

from .._extras import extra
from .._numbers import as_number
from ..engine.state import Method
from ..models import LogisticRegression, Ridge
from ..noise import check_random_state
from ..release import Against, Mechanism, check_theta_bound
from ..requests import Request
from ..unlearner import Unlearner
from .separation import Separation
from .world import Claim, Setting, Training

__all__ = ["Audit", "Separation", "audit_certificate"]


@dataclass(frozen=True, eq=False)
class Audit:
    """What :func:`audit_certificate` found.

    Attributes
    ----------
    mechanism : {"output", "rounding", "objective"}
    epsilon, delta : float
        As claimed.
    mu : float or None
        Ratio of shift to noise, as claimed; None for rounding.
    tolerance : float
        What no profile residual may exceed.
    worst_residual : float
        What the largest profile residual is at least, rounding taken off.
    separations : tuple of Separation
        Of the unlearned from the retrained models and, but for ``objective``, of a canary.
    reasons : tuple of str
        Why the certificate is false.
    runs : int
        Releases of each world.
    confidence : float
        A certificate that holds is falsified with probability at most ``1 - confidence``.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.audit import audit_certificate
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> print(audit_certificate(ex.Ridge(), X, y, ex.RemoveRows(0), 1.0, 1e-5, runs=100, random_state=0))
    Audit of (1, 1e-05), mu 0.268, output mechanism: 100 runs, confidence 0.99
      profile residual at least 0, tolerance 1e-08
      unlearned: epsilon at least 0, mu at least 0
      canary: epsilon at least 0, mu at least 0
    not falsified (which proves nothing)
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    mu: float | None
    tolerance: float
    worst_residual: float
    separations: tuple[Separation, ...]
    reasons: tuple[str, ...]
    runs: int
    confidence: float

    @classmethod
    def of(
        cls,
        claim: Claim,
        worst_residual: float,
        separations: list[Separation],
        reasons: list[str],
        runs: int,
        confidence: float,
    ) -> Self:
        """Of this claim."""
        return cls(
            mechanism=claim.public.mechanism,
            epsilon=claim.public.epsilon,
            delta=claim.public.delta,
            mu=claim.mu,
            tolerance=claim.tolerance,
            worst_residual=worst_residual,
            separations=tuple(separations),
            reasons=tuple(reasons),
            runs=runs,
            confidence=confidence,
        )

    @property
    def falsified(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)

    @property
    def mu_lower(self) -> float:
        """The largest of any separation."""
        return max(found.mu_lower for found in self.separations)

    @property
    def epsilon_lower(self) -> float:
        """The largest of any separation."""
        return max(found.epsilon_lower for found in self.separations)

    def __str__(self) -> str:
        mu = "" if self.mu is None else f", mu {self.mu:.3g}"
        lines = [
            f"Audit of ({self.epsilon:g}, {self.delta:g}){mu}, {self.mechanism} mechanism: {self.runs} runs, "
            f"confidence {self.confidence:g}",
            f"  profile residual at least {self.worst_residual:.3g}, tolerance {self.tolerance:.3g}",
        ]
        for found in self.separations:
            seen = f"epsilon at least {found.epsilon_lower:.3g}, mu at least {found.mu_lower:.3g}"
            if found.mismatch_lower is not None:
                seen += f", other numbers with probability at least {found.mismatch_lower:.3g}"
            lines.append(f"  {found.name}: {seen}")
        if self.falsified:
            return "\n".join([*lines, *(f"FALSIFIED: {reason}" for reason in self.reasons)])
        return "\n".join([*lines, "not falsified (which proves nothing)"])

    def plot(self, ax: Any = None) -> Any:
        """Histograms of the statistic in both worlds, of the separation that tells most.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure's by default.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        if ax is None:
            _, ax = extra("matplotlib.pyplot").subplots()
        found = max(self.separations, key=lambda found: found.epsilon_lower)
        bins = np.histogram_bin_edges(np.concatenate([found.unlearned, found.retrained]), bins=40)
        ax.hist(found.unlearned, bins=bins, alpha=0.5, label="unlearned")
        ax.hist(found.retrained, bins=bins, alpha=0.5, label="retrained")
        ax.set(xlabel="statistic t", ylabel="runs", title=f"{found.name}: {found.event}")
        ax.legend()
        return ax


def _check_arguments(model: Any, mechanism: Any, confidence: Any, runs: Any) -> None:
    """Raises for what cannot be audited, whatever the data are."""
    if not isinstance(model, Ridge | LogisticRegression):
        raise TypeError(
            f"{type(model).__name__} cannot be audited: pass expunge's Ridge or LogisticRegression with the "
            "same parameters"
        )
    if mechanism in ("output", "rounding") and getattr(model, "noise", None):
        raise ValueError(
            f"mechanism={mechanism!r} is audited without noise in the objective: pass "
            "LogisticRegression(noise=0), or use mechanism='objective'"
        )
    as_number(confidence, "confidence", above=0.0, below=1.0)
    if not isinstance(runs, Integral) or isinstance(runs, bool):
        raise ValueError(f"runs must be an integer, got {runs!r}")


def _check_runs(runs: int, claim: Claim, error: float) -> None:
    """Raises where no outcome would falsify, were it as clear as can be."""
    gap = (1.0 - claim.public.delta) * float(expit(-claim.public.epsilon))  # 1 - TPR = FPR at epsilon
    if claim.mu is not None:
        gap = max(gap, float(ndtr(-0.5 * claim.mu)))
    if claim.grid is not None:
        gap = max(gap, 1.0 - claim.public.delta)
    needed = inf if gap == 0.0 else 2 * (ceil(log(error) / log1p(-gap)) + 1)
    if runs < needed:
        raise ValueError(
            f"with {runs} runs no outcome would falsify this claim at this confidence: {needed:g} are needed"
        )


def audit_certificate(
    model: Ridge | LogisticRegression,
    X: Any,
    y: ArrayLike,
    request: Request | Iterable[Request],
    epsilon: float,
    delta: float,
    *,
    mechanism: Mechanism = "output",
    sample_weight: ArrayLike | None = None,
    tolerance: float = 1e-8,
    theta_bound: float = 100.0,
    against: Against | None = None,
    method: Method = "auto",
    runs: int = 1000,
    confidence: float = 0.99,
    unlearn: Callable[[Unlearner, Any], Any] | None = None,
    release: Callable[[Unlearner, int], Any] | None = None,
    random_state: int | None = None,
    progress: bool = False,
) -> Audit:
    """Tries to show that a certificate is false, on these data and for this request.

    One world unlearns the request and releases, another is trained on the corrected data and releases, `runs`
    times each, with random numbers that the audit chose. A verdict can only falsify:

    - Every run: the coefficients beneath the noise have a profile residual of at most the tolerance on the
      corrected data, rounding counted; the intercept is the one that these data and the released
      coefficients give; the certificate's constants follow from the public ones (E10, E14 to E17).
    - Over all runs: the first half chooses a direction u and events of ``u @ z`` or |z| that tell the worlds
      apart, z the noise with what it hides. The second half bounds their probabilities (Clopper and Pearson),
      and so mu and epsilon, from below. For ``rounding`` the share of runs in which the two worlds give
      different numbers is bounded too.
    - The same for a canary, with ``output`` and ``rounding``: two models of the corrected data that stop at
      the tolerance, on either side of the minimiser in its flattest direction. Honest models stop far below
      it, which would hide too little noise.

    Parameters
    ----------
    model : Ridge or LogisticRegression of expunge
        Fitted or not; copies of it are trained. For ``objective`` with noise, for the others without.
    X, y, sample_weight
        The data before the request, as :class:`expunge.Unlearner` takes them.
    request : request or list of requests
    epsilon, delta : float
        The claim. See :meth:`expunge.Unlearner.release`, also for mechanism and against.
    mechanism : {"output", "rounding", "objective"}
        With ``objective`` each run is trained anew, with fresh noise; the others train once.
    tolerance, theta_bound : float
        Of the Unlearners.
    against : {"retraining", "minimiser"}, optional
    method : str
        How the request is applied, see :meth:`expunge.Unlearner.apply`.
    runs : int
        Releases of each world.
    confidence : float
        A certificate that holds is falsified with probability at most ``1 - confidence``.
    unlearn : callable, optional
        ``unlearn(un, request)`` in place of ``un.apply(request, method=method)``: other code to be audited.
    release : callable, optional
        ``release(un, seed)``, in the unlearning world in place of ``un.release(...)``: gives an object with
        coef_ and intercept_, whose noise is drawn from the seed as there, and perhaps a certificate_.
    random_state : int, optional
        Makes the audit the same each time.
    progress : bool
        Whether to show progress bars, by tqdm.

    Returns
    -------
    Audit

    Raises
    ------
    TypeError, ValueError
        A model, data, request or number that is not accepted; too few runs to falsify anything.
    CertificateError
        A release failed closed.
    ImportError
        `progress` without tqdm.

    Notes
    -----
    Keeps a Hessian, (p, p), and the rows. What goes wrong on other data, for other requests, or less than
    the bounds can see, is not found.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.audit import audit_certificate
    >>> X = np.linspace(-1.0, 1.0, 40).reshape(20, 2)
    >>> y, request = X[:, 0] + X[:, 1] ** 2, ex.RemoveRows([3, 7])
    >>> audit = audit_certificate(ex.Ridge(), X, y, request, 1.0, 1e-5, runs=200, random_state=0)
    >>> audit.falsified
    False
    >>> nothing = audit_certificate(
    ...     ex.Ridge(), X, y, request, 1.0, 1e-5, runs=200, random_state=0, unlearn=lambda un, request: None
    ... )
    >>> nothing.falsified, nothing.epsilon_lower > 1.0
    (True, True)
    """
    _check_arguments(model, mechanism, confidence, runs)
    train = Training(model, as_number(tolerance, "tolerance"), check_theta_bound(theta_bound))
    random = np.random.default_rng(check_random_state(random_state))
    if isinstance(request, Iterable):
        request = list(request)

    setting = Setting.of(train, (X, y, sample_weight), request, mechanism, epsilon, delta, against)
    error = (1.0 - float(confidence)) / setting.bounds  # of each
    _check_runs(runs, setting.claim, error)

    def ask(un: Unlearner) -> None:
        if unlearn is None:
            un.apply(request, method=method)
        else:
            unlearn(un, request)

    def ours(un: Unlearner, seed: int) -> Any:
        return un.release(epsilon, delta, mechanism=mechanism, against=against, random_state=seed)

    pairs = setting.pairs(ask, ours if release is None else release, ours)
    separations, reasons, worst = [], [], []
    for pair in pairs:
        seeds = random.integers(0, 2**63, (2, runs)).tolist()
        found, wrong, residual = pair.compared(seeds, error, progress)
        separations.append(found)
        reasons += wrong
        worst.append(residual)
    return Audit.of(setting.claim, worst[0], separations, reasons, runs, float(confidence))
