"""How far an order of ours has moved up in the queue of its level.

Belongs here: the effect of a print and of a depth row on the quantity ahead of us, the models that say how much of a decrease happened behind
us, and the door for a user's own model. Does not belong here: which orders stand where, and who fills (`kernels.exchange`).

An order arrives behind everything the level holds. A print at its price takes from the front. A depth row then restates the level: what is
missing beyond the prints since the last depth row was cancelled, part of it ahead of us and part behind. `front` is the quantity
ahead, `traded` the prints since the last depth row at the level, both in book units (`kernels.levels`).

| model | chance that a decrease happened behind us, f ahead and b behind (base) |
|---|---|
| risk_adverse | only prints move us up; a level smaller than what is ahead caps it |
| log_prob | ln(1 + b) / (ln(1 + b) + ln(1 + f)) |
| log_prob2 | ln(1 + b) / ln(1 + b + f) |
| power_prob | b^n / (b^n + f^n) |
| power_prob2 | b^n / (b + f)^n |
| power_prob3 | 1 - (f / (f + b))^n |
| user | a function of yours, (f, b) -> chance in [0, 1]; a nan counts as unknown and puts the order at the end of what is left |

The logarithmic and power models can move an order beyond the front when a level is only cancelled; the reference rule keeps that, the
conservative rule gives such an order no more than the print that comes next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from mm_platform.kernels.jit import fixed_signature, kernel, signature_of
from mm_platform.kernels.levels import REFERENCE

RISK_ADVERSE: Final = 0
LOG_PROB: Final = 1
LOG_PROB2: Final = 2
POWER_PROB: Final = 3
POWER_PROB2: Final = 4
POWER_PROB3: Final = 5
USER_MODEL: Final = 6
QUEUE_MODELS: Final = {
    "risk_adverse": RISK_ADVERSE,
    "log_prob": LOG_PROB,
    "log_prob2": LOG_PROB2,
    "power_prob": POWER_PROB,
    "power_prob2": POWER_PROB2,
    "power_prob3": POWER_PROB3,
}


@kernel
def no_user_model(front: float, back: float) -> float:
    """What a run with a built-in model passes as the user's: never called."""
    return math.nan


class ExchangeParams(NamedTuple):
    """How the venue is modelled.

    rule : REFERENCE or CONSERVATIVE (`kernels.levels`). queue_model, power : above, with the exponent n of the power models.
    partial : 1 = fills may be partial (read under REFERENCE only; CONSERVATIVE always is).
    unit : one lot in book units: the lot's base under REFERENCE, 1.0 under CONSERVATIVE. base_per_unit : 1.0, or the lot's base.
    behind : the user's queue model; `no_user_model` for the built-in ones.
    """

    rule: int
    queue_model: int
    power: float
    partial: int
    unit: float
    base_per_unit: float
    behind: Callable[[float, float], float]


def exchange_params(
    rule: int,
    queue_model: int,
    power: float,
    lot_base: float,
    *,
    partial: bool = True,
    behind: Callable[[float, float], float] = no_user_model,
) -> ExchangeParams:
    """Parameters with the book units of the rule.

    Parameters
    ----------
    rule : int
        REFERENCE or CONSERVATIVE.
    queue_model, power : int, float
        A number of `QUEUE_MODELS` or `USER_MODEL`; the exponent of the power models.
    lot_base : float
        One lot in base.
    partial : bool
        Fills may be partial (REFERENCE only).
    behind : callable
        The user's model: quantities ahead of and behind our order in base before a decrease -> chance in [0, 1] that it happened behind us.
    """
    unit, base_per_unit = (float(lot_base), 1.0) if rule == REFERENCE else (1.0, float(lot_base))
    return ExchangeParams(rule, queue_model, float(power), int(partial), unit, base_per_unit, behind)


def compiled_params(x: ExchangeParams) -> ExchangeParams:
    """The same parameters for compiled kernels: the queue model at one fixed signature, so that nothing is compiled anew for another model.

    Raises `ConfigError` when the user's model does not compile.
    """
    return x._replace(behind=fixed_signature(x.behind, signature_of(0.0, 0.0, 0.0)))


@kernel
def round_half_away(x: float) -> float:
    """Nearest whole number, ties away from zero (the rounding of lots and ticks in the reference).

    Not floor(x + 0.5): the sum rounds 0.49999999999999994 up.
    """
    whole = float(math.floor(abs(x)))
    if abs(x) - whole >= 0.5:
        whole += 1.0
    return math.copysign(whole, x)


@kernel
def log1p_or_nan(x: float) -> float:
    """ln(1 + x), nan where it is not defined (numba and Python agree on that)."""
    return math.log(1.0 + x) if x > -1.0 else math.nan


@kernel
def power_or_nan(x: float, n: float) -> float:
    """x ** n for real results, else nan."""
    if x < 0.0 and n != math.floor(n):
        return math.nan
    return x**n


@kernel
def behind_probability(model: int, power: float, front: float, back: float) -> float:
    """Chance that a decrease of the level happened behind us, given the quantities (base) in front and behind; nan = undefined."""
    num = 0.0
    den = 0.0
    if model == LOG_PROB:
        num = log1p_or_nan(back)
        den = num + log1p_or_nan(front)
    elif model == LOG_PROB2:
        num = log1p_or_nan(back)
        den = log1p_or_nan(back + front)
    elif model == POWER_PROB:
        num = power_or_nan(back, power)
        den = num + power_or_nan(front, power)
    elif model == POWER_PROB2:
        num = power_or_nan(back, power)
        den = power_or_nan(back + front, power)
    elif model == POWER_PROB3:
        den = front + back
        if den == 0.0:
            return math.nan
        return 1.0 - power_or_nan(front / den, power)
    if den == 0.0:
        # the reference turns an infinite chance into certainty, 0/0 stays undefined
        return 1.0 if num > 0.0 else math.nan
    return num / den


@kernel
def queue_after_depth(x: ExchangeParams, front: float, traded: float, before: float, after: float) -> float:
    """Quantity ahead of us after our level went from `before` to `after`, `traded` of which was already seen as prints; nan = undefined.

    All in book units. Where it is undefined the caller puts us at the end of what is left.
    """
    if x.queue_model == RISK_ADVERSE:
        return min(front, after)
    decrease = before - after - traded
    if decrease < 0.0:
        return min(front, after)
    back = before - front
    p = 0.0
    # the logarithmic models are not invariant to the unit: they mean quantities in base
    if x.queue_model == USER_MODEL:
        p = x.behind(front * x.base_per_unit, back * x.base_per_unit)
    else:
        p = behind_probability(x.queue_model, x.power, front * x.base_per_unit, back * x.base_per_unit)
    if math.isnan(p):
        return math.nan
    moved = front - (1.0 - p) * decrease + min(back - p * decrease, 0.0)
    if math.isnan(moved):
        return math.nan
    return min(moved, after)
