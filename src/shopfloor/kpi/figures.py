"""The figures made of an account: ISO 22400-2's ratios, each null where it has no meaning, with how sure they are."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, Literal

from shopfloor.kpi.account import OUTSIDE, Account, TimeClass

FORMULA: Final = "shopfloor-oee-2"
"""Stored with every figure: two are compared only when they mean the same."""

MinorStops = Literal["performance", "availability"]


@dataclass(frozen=True)
class Policy:
    """Where plants differ; printed with the figures."""

    minor_stops: MinorStops = "performance"
    """Which loss minor stops are: `performance` (six big losses) or `availability` (ISO 22400's delay)."""
    weights: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Of OEE, of what is not scrap and of what is no unplanned stop in the health score."""
    line: str = ""
    """How machines became a line; "" of a machine."""

    @property
    def id(self) -> str:
        """Formula and policy in one word."""
        weights = "" if self.weights == (0.5, 0.25, 0.25) else f"/health {self.weights}"
        line = f"/line: {self.line}" if self.line else ""
        return f"{FORMULA}/minor stops: {self.minor_stops}{weights}{line}"


@dataclass(frozen=True)
class Figures:
    """Ratios as fractions (0.85 is 85 %), times in seconds; None: it has no meaning here, shown as “—”."""

    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    oee_low: float | None
    """OEE if all the unknown time had been a stop, and nothing had been made while the counter was not known."""
    oee_high: float | None
    """OEE if all the unknown time had been production as good as the rest."""
    nee: float | None
    teep: float | None
    mtbf: float | None
    mttr: float | None
    scrap_rate: float | None
    error_rate: float | None
    health: float | None
    """0 to 100."""
    coverage: float | None
    """The share of the planned time of which all is known that OEE is made of: the state, and in APT the counter."""
    state_coverage: float | None
    """The share of it of which the state is known: what availability is made of."""
    planned_seconds: float
    """PBT: what was planned for production, unknown time included."""
    actual_seconds: float
    """APT."""
    uncounted_seconds: float
    """What of APT is left out of performance: nothing is known of the counter."""


def figures(account: Account, policy: Policy | None = None) -> Figures:
    """Work out every figure of an account."""
    policy = policy or Policy()
    times = account.times
    planned = account.length - sum(times[name] for name in OUTSIDE)
    unknown = times[TimeClass.UNKNOWN]
    known = planned - unknown
    actual, uncounted = times[TimeClass.PRODUCTION], account.uncounted
    if policy.minor_stops == "performance":
        actual += times[TimeClass.MINOR_STOP]
        uncounted += account.uncounted_minor
    counted = actual - uncounted
    produced = account.produced
    availability = ratio(actual, known)
    performance = None if account.without_ideal else ratio(account.ideal, counted)
    quality = ratio(account.good, produced)
    rest = product(performance, quality)
    oee = product(availability, rest)
    scrap_rate = ratio(account.scrap, produced)
    error_rate = ratio(times[TimeClass.UNPLANNED_STOP], known)
    return Figures(
        availability=availability,
        performance=performance,
        quality=quality,
        oee=oee,
        oee_low=product(ratio(counted, planned), rest),
        oee_high=product(ratio(actual + unknown, planned), rest),
        nee=product(ratio(actual + times[TimeClass.SETUP], known), rest),
        teep=product(oee, ratio(planned, account.length)),
        mtbf=ratio(actual / 1e9, account.incidents),
        mttr=ratio(times[TimeClass.UNPLANNED_STOP] / 1e9, account.incidents),
        scrap_rate=scrap_rate,
        error_rate=error_rate,
        health=_health(policy, oee, scrap_rate, error_rate),
        coverage=ratio(known - uncounted, planned),
        state_coverage=ratio(known, planned),
        planned_seconds=planned / 1e9,
        actual_seconds=actual / 1e9,
        uncounted_seconds=uncounted / 1e9,
    )


def _health(policy: Policy, oee: float | None, scrap_rate: float | None, error_rate: float | None) -> float | None:
    if oee is None or scrap_rate is None or error_rate is None:
        return None
    first, second, third = policy.weights
    # Performance above 1 is a wrong ideal cycle: it must not make a machine healthier than healthy.
    return 100 * (first * min(oee, 1.0) + second * (1 - scrap_rate) + third * (1 - error_rate))


def ratio(part: float, whole: float) -> float | None:
    """A fraction; None of nothing."""
    return part / whole if whole > 0 else None


def product(one: float | None, other: float | None) -> float | None:
    """None while a factor is."""
    return None if one is None or other is None else one * other


def percent(fraction: float | None, digits: int = 1) -> str:
    """For people: rounded half up, “—” for what has no meaning."""
    if fraction is None:
        return "—"
    scale = 10**digits
    # On the shortest decimal that is this float: 0.8725 is 87.3 %, whatever its binary neighbour says.
    shown = (Decimal(repr(fraction)) * 100).quantize(Decimal(1) / scale, ROUND_HALF_UP)
    return f"{shown} %"
