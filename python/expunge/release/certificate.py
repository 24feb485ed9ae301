"""What is guaranteed of a released model: a certificate, and the assumptions that it rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args

from .._html import table

Mechanism = Literal["output", "rounding", "objective"]
Against = Literal["retraining", "minimiser"]
MECHANISMS, AGAINST = get_args(Mechanism), get_args(Against)

FLOORS = 4.0  # rounding floors that a tolerance has to be: so many that iterations reach it from anywhere

_TRUSTED, _CHECKED = "taken on trust", "checked"

_OUTSIDE = (
    "whatever was computed from the data before: scalers, vocabularies, class weights, thresholds, "
    "hyper-parameters chosen on it",
    "models, predictions, residuals and receipts given away before, and what two releases tell together "
    "(compose their ratios; two with one noise in the objective tell everything)",
    "copies of the rows themselves: files, backups, logs",
)


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed of a released model, by which theorem, and on which assumptions.

    (epsilon, delta): for each event, its probability under this release is at most e^epsilon times its
    probability under the same release of a model that never saw what was forgotten, plus delta; and the
    reverse. docs/certificates.md says it in words.

    Attributes
    ----------
    mechanism : {"output", "rounding", "objective"}
    epsilon, delta : float
    sigma : float or None
        Standard deviation of the noise: on each coefficient (output), in the objective (objective).
    grid : float or None
        Width of the cells that coefficients are rounded to (rounding).
    resolution : float or None
        A power of two: released coefficients are multiples of it, and tell nothing below (output, rounding).
    mu : float or None
        Ratio of shift to scale (E14), for :func:`expunge.accounting.compose`; of the output mechanism.
    against : {"retraining", "minimiser"}
        What it is compared with: a retraining that stops at the same tolerance, or the exact minimiser.
    tolerance : float
        Public: what the profile residual is at most, or the distance that it leaves times the least penalty
        (E24; not of the objective mechanism), rounding counted, on the sum scale.
    strong_convexity : float
        Least penalty of a coefficient: the coefficients are within tolerance / strong_convexity of the
        minimiser's (E10).
    theta_bound : float
        Public: what no coefficient exceeds.
    theorem : str
    assumptions : tuple of (str, str)
        Each with whether it was "checked" or is "taken on trust".
    outside : tuple of str
        What the certificate says nothing about.
    void : str or None
        Why it is worth nothing.
    residual : float or None
        The verified profile residual without rounding. This and the next two depend on the data: they are for
        the operator, stay out of repr, `as_dict` and pickles (None), and are not to be published.
    residual_bound : float or None
        What it is at most, rounding counted, or if less that distance times the penalty: at most `tolerance`.
    floor : float or None
        The part of rounding in it (E19).

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    >>> certificate = un.release(epsilon=1.0, delta=1e-5).certificate_
    >>> f"{certificate.sigma:.3g}, {certificate.mu:.3g}", certificate.residual_bound <= certificate.tolerance
    ('7.46e-08, 0.268', True)
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    sigma: float | None
    grid: float | None
    resolution: float | None
    mu: float | None
    against: Against
    tolerance: float
    strong_convexity: float
    theta_bound: float
    theorem: str
    assumptions: tuple[tuple[str, str], ...] = field(repr=False)
    outside: tuple[str, ...] = field(default=_OUTSIDE, repr=False)
    void: str | None = None
    residual: float | None = field(default=None, repr=False, compare=False)
    residual_bound: float | None = field(default=None, repr=False, compare=False)
    floor: float | None = field(default=None, repr=False, compare=False)

    def published(self) -> Self:
        """The same without what depends on the data."""
        return replace(self, residual=None, residual_bound=None, floor=None)

    def as_dict(self) -> dict[str, Any]:
        """Its public fields, as JSON takes them."""
        fields = asdict(self)
        for name in ("residual", "residual_bound", "floor"):
            del fields[name]
        fields["assumptions"] = [{"assumption": text, "status": status} for text, status in self.assumptions]
        fields["outside"] = list(self.outside)
        return fields

    def __reduce__(self) -> tuple[Any, ...]:
        public = self.published()
        return _certificate, ({name: getattr(public, name) for name in self.__dataclass_fields__},)

    def _repr_html_(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        told = {name: value for name, value in shown.items() if value is not None}
        for status in (_CHECKED, _TRUSTED):
            told[status] = "; ".join(text for text, said in self.assumptions if said == status)
        return table("Certificate", told | {"outside": "; ".join(self.outside)})

    def __str__(self) -> str:
        scale = f"grid {self.grid:.3g}" if self.sigma is None else f"sigma {self.sigma:.3g}"
        lines = [
            f"Certificate: ({self.epsilon:g}, {self.delta:g}), {self.mechanism} mechanism, {scale}",
            f"  against {self.against}; tolerance {self.tolerance:.3g}, strong convexity "
            f"{self.strong_convexity:.3g}",
            f"  {self.theorem}",
            *(f"  {status}: {text}" for text, status in self.assumptions),
            *(f"  outside: {text}" for text in self.outside),
        ]
        if self.void is not None:
            lines.insert(0, f"void: {self.void}")
        return "\n".join(lines)


def _certificate(fields: dict[str, Any]) -> Certificate:
    return Certificate(**fields)


_BOUNDED = ("no released coefficient exceeds theta_bound", _CHECKED)
_ASSUMED: dict[Mechanism, tuple[tuple[str, str], ...]] = {
    "output": (
        _BOUNDED,
        ("the operating system's random numbers are random, and nobody else knows them", _TRUSTED),
    ),
    "rounding": (_BOUNDED, ("the random offset was not known before the request", _TRUSTED)),
    "objective": (
        ("epsilon is below 1", _CHECKED),
        ("the operating system's random numbers are random, and nobody else knows them", _TRUSTED),
        ("the noise is drawn on a grid, and theta computed in float64, not in real numbers", _TRUSTED),
        ("the residual does not depend on the noise (it does: iteration starts at its minimiser)", _TRUSTED),
        ("no other model with this noise in its objective was or will be released", _TRUSTED),
    ),
}
THEOREMS: dict[Mechanism, str] = {
    "output": "analytic Gaussian mechanism (Balle and Wang 2018, Theorem 8; E14) on a distance of at most "
    "tolerance / strong convexity from the minimiser (E10, E16, E24); also for requests that depend on "
    "releases",
    "rounding": "rounding with a random offset (E17): released and retrained coefficients are the same "
    "numbers except with probability delta",
    "objective": "certified removal by noise in the objective (Guo et al. 2020, Theorem 3; E15)",
}


def assumptions_of(mechanism: Mechanism) -> tuple[tuple[str, str], ...]:
    """Each with whether it was "checked" or is "taken on trust"."""
    near = "the profile residual, measured and rounding counted, "
    if mechanism != "objective":
        near += "or the penalty times how far coefficients are from the minimum's by that gradient (E24), "
    return (
        (near + "is at most the tolerance", _CHECKED),
        (
            f"iterations reach a tolerance of {FLOORS:g} rounding floors in both worlds: if they failed "
            "in one, its refusal would tell",
            _TRUSTED,
        ),
        (
            "tolerance, penalty, theta_bound, epsilon and delta were chosen without the forgotten data",
            _TRUSTED,
        ),
        ("how long the release took, and how many passes, is not observed", _TRUSTED),
        *_ASSUMED[mechanism],
    )
