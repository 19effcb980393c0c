"""The closed-form quotes of Guéant, Lehalle and Fernandez-Tapia with one bid and one ask, for all sets at once: the strategy of the speed figures.

Belongs here: the strategy and its parameters. Does not belong here: the platform's own quoting (`kernels.quoting`), which has limits, clamps and
signals that a benchmark has no use for.

In ticks, with q the position in order sizes and sigma the volatility per square root of a second, an exponential average over a minute:

    half   = ln(1 + gamma / kappa) / gamma + skew / 2
    skew   = sigma * sqrt(gamma / (2 A kappa) * (1 + gamma / kappa) ** (kappa / gamma + 1))
    bid    = min(floor(mid - skew q - half), best bid)        ask = max(ceil(mid - skew q + half), best ask)

References
----------
Guéant, Lehalle, Fernandez-Tapia, "Dealing with the inventory risk", Mathematics and Financial Economics 7 (2013), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.jit import kernel
from mm_platform.replay.lockstep.strategy import (
    ASK_TICKS,
    BID_TICKS,
    BLOCK,
    PARAMS,
    POSITION,
    STATE,
    STEP_S,
    TARGETS,
    QuoteStrategy,
    SetsStrategy,
)

# rows of parameters
HALF_TICKS: Final = 0  # the half spread without risk
SKEW_PER_SIGMA: Final = 1
ORDER_LOTS: Final = 2
MOST_UNITS: Final = 3  # order sizes of inventory at which a side is no longer quoted
N_PARAMS: Final = 4
# rows of state; of the market, so column 0 holds them for all sets
VARIANCE: Final = 0  # ticks^2 per second; 0 = not begun
LAST_MID: Final = 1
STATE_SIZE: Final = 2

VARIANCE_AT_START: Final = 4.0
MEMORY_S: Final = 60.0


@kernel
def glft_variance(variance: float, last_mid: float, mid: float, step_s: float) -> float:
    """The variance after one more mid; the average starts at `VARIANCE_AT_START`."""
    if variance == 0.0:
        return VARIANCE_AT_START
    moved = mid - last_mid
    return variance + step_s / MEMORY_S * (moved * moved / step_s - variance)


@kernel
def glft_decide(view: Any, sets: Any, n: int) -> float:
    """Quotes of all sets (`lockstep.strategy`)."""
    bid = view[BID_TICKS]
    ask = view[ASK_TICKS]
    mid = (bid + ask) * 0.5
    variance = glft_variance(sets[STATE + VARIANCE, 0], sets[STATE + LAST_MID, 0], mid, view[STEP_S])
    sets[STATE + VARIANCE, 0] = variance
    sets[STATE + LAST_MID, 0] = mid
    sigma = math.sqrt(variance)
    for block in range(0, n, BLOCK):
        for j in range(BLOCK):
            s = block + j
            lots = sets[POSITION, s]
            size = sets[PARAMS + ORDER_LOTS, s]
            limit = sets[PARAMS + MOST_UNITS, s] * size - 0.5
            skew = sets[PARAMS + SKEW_PER_SIGMA, s] * sigma
            half = sets[PARAMS + HALF_TICKS, s] + 0.5 * skew
            centre = mid - skew * (lots / size)
            lower = float(math.floor(centre - half))
            upper = float(math.ceil(centre + half))
            lower = bid if lower > bid else lower
            upper = ask if upper < ask else upper
            sets[TARGETS, s] = lower if lots < limit else 0.0
            sets[TARGETS + 1, s] = upper if lots > -limit else 0.0
    return 0.0


@kernel
def glft_quote(view: Any, params: Any, state: Any, position_lots: float, targets: Any) -> float:
    """Quotes of one set; the same numbers as `glft_decide`, as a user would write them."""
    bid = view[BID_TICKS]
    ask = view[ASK_TICKS]
    mid = (bid + ask) * 0.5
    state[VARIANCE] = glft_variance(state[VARIANCE], state[LAST_MID], mid, view[STEP_S])
    state[LAST_MID] = mid
    skew = params[SKEW_PER_SIGMA] * math.sqrt(state[VARIANCE])
    half = params[HALF_TICKS] + 0.5 * skew
    centre = mid - skew * (position_lots / params[ORDER_LOTS])
    limit = params[MOST_UNITS] * params[ORDER_LOTS] - 0.5
    if position_lots < limit:
        targets[0] = min(float(math.floor(centre - half)), bid)
    if position_lots > -limit:
        targets[1] = max(float(math.ceil(centre + half)), ask)
    return 0.0


GLFT: Final = SetsStrategy(glft_decide, N_PARAMS, STATE_SIZE, name="glft")
GLFT_BY_SET: Final = QuoteStrategy(glft_quote, N_PARAMS, STATE_SIZE, name="glft_by_set")


def glft_params(
    gamma: float | Sequence[float],
    kappa: float | Sequence[float],
    *,
    order_lots: int,
    most_units: float = 10.0,
    intensity_per_s: float = 1.0,
) -> npt.NDArray[np.float64]:
    """Parameters of the sets, one row each, for `run_sets`.

    Parameters
    ----------
    gamma : float or sequence
        Risk aversion, per tick and order size of inventory.
    kappa : float or sequence
        Decay of the intensity of fills, 1/tick.
    order_lots : int
        Lots of an order, as in the settings.
    most_units : float
        Order sizes of inventory at which a side is no longer quoted.
    intensity_per_s : float
        A, fills per second and side at the mid.

    Returns
    -------
    ndarray of float64, shape (n_sets, N_PARAMS)

    Raises
    ------
    ConfigError
        A number that is not finite and positive.
    """
    gammas, kappas = np.broadcast_arrays(np.atleast_1d(np.asarray(gamma, dtype=np.float64)), np.atleast_1d(np.asarray(kappa, dtype=np.float64)))
    for name, values in (("gamma", gammas), ("kappa", kappas), ("order_lots", order_lots), ("most_units", most_units), ("A", intensity_per_s)):
        if not np.all(np.isfinite(values) & (np.asarray(values) > 0)):
            raise ConfigError(f"glft: {name} is {values}, expected finite numbers above 0")
    out = np.empty((len(gammas), N_PARAMS))
    for row, g, k in zip(out, gammas.tolist(), kappas.tolist(), strict=True):
        risk = 1.0 + g / k
        row[HALF_TICKS] = math.log(risk) / g
        row[SKEW_PER_SIGMA] = math.sqrt(g / (2.0 * intensity_per_s * k) * risk ** (k / g + 1.0))
    out[:, ORDER_LOTS] = order_lots
    out[:, MOST_UNITS] = most_units
    return out
