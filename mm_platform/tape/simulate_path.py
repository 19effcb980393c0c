"""What nobody in the simulated market sees directly: regimes, the efficient price and its drift, the basis, funding rates.

Belongs here: latent paths of one day on a fixed grid. Does not belong here: orders and books (`simulate_flow`).

A day must not depend on which other days were made, yet consecutive days must join. So whatever crosses midnight is a function of numbers
addressed by (seed, stream, index), never of a running generator: the price and the slow basis at a midnight are moving averages of
addressed normals (an AR(1) seen from infinitely far back, cut where it no longer matters); a regime lasts until the next slot whose
addressed uniform says "draw anew", so looking back for that slot gives the exact state of the Markov chain; fast processes take an
addressed value at each midnight. Within the day, paths are bridges between the two midnights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.core.units import SECONDS_PER_DAY, SECONDS_PER_YEAR
from mm_platform.tape.simulate_settings import MarketSettings

Float64s = npt.NDArray[np.float64]

STEP_S: Final = 0.25
STEPS: Final = int(SECONDS_PER_DAY / STEP_S)
SLOT_S: Final = 600
SLOTS: Final = SECONDS_PER_DAY // SLOT_S
FUNDING_INTERVAL_S: Final = 28_800
STAMPS: Final = SECONDS_PER_DAY // FUNDING_INTERVAL_S

# Streams of addressed random numbers; a number, once given, keeps its meaning, or every seed changes its market.
_PRICE: Final = 1
_PREMIUM_SLOW: Final = 2
_REGIME_ANEW: Final = 3
_REGIME_STATE: Final = 4
_DRIFT_MIDNIGHT: Final = 5
_PREMIUM_MIDNIGHT: Final = 6
_DAY_PATH: Final = 7
_FLOW: Final = 8

_BLOCK: Final = 256
_INTEREST_PER_INTERVAL: Final = 1e-4
_FUNDING_CLAMP: Final = 5e-4
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class LatentDay:
    """Latent paths of one UTC day. Arrays on the price grid have `STEPS` + 1 points, from midnight to midnight inclusive.

    perp_price, spot_price : efficient prices [quote/base].
    drift_z : what the informed know, in standard deviations (> 0: the price is about to rise).
    volatility : per slot of `SLOT_S` seconds, sigma of the regime over the long-run sigma.
    activity : per slot, factor on the rate of market orders.
    premium_slow : the slow part of the basis at the midnights and stamps in between, `STAMPS` + 1 values [relative].
    funding_rate : settled at each stamp of the day (00:00 first) [fraction per interval].
    predicted_rate : at each full minute, for the next stamp [fraction per interval].
    """

    perp_price: Float64s
    spot_price: Float64s
    drift_z: Float64s
    volatility: Float64s
    activity: Float64s
    premium_slow: Float64s
    funding_rate: Float64s
    predicted_rate: Float64s


def day_number(day: date) -> int:
    """Days since 1970-01-01; raises `ConfigError` before 1972 (addresses must not be negative, look-back included)."""
    number = day.toordinal() - _EPOCH_ORDINAL
    if number < 730:
        raise ConfigError(f"simulated market: day {day} lies before 1972-01-01; choose a later one")
    return number


def generator(seed: int, *address: int) -> np.random.Generator:
    """The random generator of an address; raises `ConfigError` for a negative seed."""
    if seed < 0:
        raise ConfigError(f"simulated market: seed {seed} is negative, expected 0 or more")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *address))))


def flow_seed(seed: int, day: date, instrument: int) -> np.random.SeedSequence:
    """Seed of one instrument's order flow on one day."""
    if seed < 0:
        raise ConfigError(f"simulated market: seed {seed} is negative, expected 0 or more")
    return np.random.SeedSequence((seed, _FLOW, day_number(day), instrument))


def addressed(seed: int, stream: int, first: int, count: int, *, normal: bool) -> Float64s:
    """Numbers `first` to `first + count` of an endless sequence that is the same wherever one starts to read it (normal or uniform)."""
    blocks = []
    for block in range(first // _BLOCK, (first + count - 1) // _BLOCK + 1):
        rng = generator(seed, stream, block)
        blocks.append(rng.standard_normal(_BLOCK) if normal else rng.random(_BLOCK))
    offset = first % _BLOCK
    return np.concatenate(blocks)[offset : offset + count]


def _addressed_ar1(seed: int, stream: int, first: int, count: int, decay_steps: float) -> Float64s:
    """Stationary AR(1) with unit variance at `first` .. `first + count`, as a moving average over 7 time constants (e^-7 is left out)."""
    phi = math.exp(-1.0 / decay_steps)
    reach = math.ceil(7.0 * decay_steps)
    noise = addressed(seed, stream, first - reach, reach + count, normal=True)
    weights = math.sqrt(1.0 - phi * phi) * phi ** np.arange(reach, -1, -1)
    # summed exactly: the same index must give the same bits in whatever window it is asked for
    return np.array([math.fsum(weights * noise[i : i + reach + 1]) for i in range(count)])


def ornstein_uhlenbeck_bridge(noise: Float64s, phi: float, start: float, end: float) -> Float64s:
    """Unit-variance AR(1) with coefficient `phi` from `start`, conditioned on `end`: len(noise) + 1 points.

    The recursion is summed by doubling, so that it needs no loop in Python and no kernel; the bridge adds to the free path
    (end - free end) sinh(t/tau)/sinh(T/tau), which is exact.
    """
    n = len(noise)
    free: Float64s = noise * math.sqrt(1.0 - phi * phi)
    shift, factor = 1, phi
    while shift < n and factor > 1e-18:
        free[shift:] += factor * free[:-shift]
        shift *= 2
        factor *= factor
    down: Float64s = np.power(phi, np.arange(n + 1.0))
    path: Float64s = start * down
    path[1:] += free
    weights = down[::-1] * (1.0 - down * down) / (1.0 - down[n] * down[n])
    path += weights * float(end - path[n])
    # in exact arithmetic it is there already; the next day starts from this very number
    path[n] = end
    return path


def regime_states(seed: int, number: int, settings: MarketSettings) -> npt.NDArray[np.int64]:
    """State of each slot of a day: kept with probability 1 - p, else drawn from the shares (a Markov chain, exact at any day)."""
    anew = SLOT_S / (60.0 * settings.regime_minutes)
    edges = np.cumsum([r.share_frac for r in settings.regimes])[:-1]
    first = number * SLOTS
    before = SLOTS
    while True:
        drawn = addressed(seed, _REGIME_ANEW, first - before, before + SLOTS, normal=False) < anew
        if np.any(drawn[: before + 1]):
            break
        before += SLOTS
    at = np.maximum.accumulate(np.where(drawn, np.arange(len(drawn)), -1))[before:]
    uniforms = addressed(seed, _REGIME_STATE, first - before, before + SLOTS, normal=False)
    return np.searchsorted(edges, uniforms[at], side="right").astype(np.int64)


def funding_rate(premium: Float64s) -> Float64s:
    """Rate per 8 h of an average premium: P + clamp(0.01 % - P, -0.05 %, +0.05 %), the rule most venues share (THEORY 6.1)."""
    rate: Float64s = premium + np.clip(_INTEREST_PER_INTERVAL - premium, -_FUNDING_CLAMP, _FUNDING_CLAMP)
    return rate


def _funding(slow: Float64s) -> tuple[Float64s, Float64s]:
    """Settled rates at the day's stamps and predicted rates per minute, from the slow basis at stamps -1 .. STAMPS (linear in between).

    The premium index of the rule is the slow basis alone; the fast part averages out over an interval. Predicted: the average so far,
    the present value for the rest.
    """
    settled = funding_rate(0.5 * (slow[:-2] + slow[1:-1]))
    minutes = FUNDING_INTERVAL_S // 60
    elapsed = np.arange(minutes) / minutes
    start, end = slow[1:-1, None], slow[2:, None]
    present = start + (end - start) * elapsed
    average = 0.5 * (start + present)
    return settled, funding_rate(average * elapsed + present * (1.0 - elapsed)).ravel()


def latent_day(seed: int, day: date, settings: MarketSettings) -> LatentDay:
    """Latent paths of one day; the last point of each equals the first of the next day.

    Raises
    ------
    ConfigError
        For a negative seed or a day before 1972.
    """
    number = day_number(day)
    states = regime_states(seed, number, settings)
    volatility = np.array([r.sigma for r in settings.regimes])[states] / settings.sigma
    activity = np.array([r.activity for r in settings.regimes])[states]

    rng = generator(seed, _DAY_PATH, number)
    drift_midnights = addressed(seed, _DRIFT_MIDNIGHT, number, 2, normal=True)
    drift_z = ornstein_uhlenbeck_bridge(rng.standard_normal(STEPS), math.exp(-STEP_S / settings.drift_s), drift_midnights[0], drift_midnights[1])

    per_step = np.repeat(volatility, STEPS // SLOTS)
    variance_step = settings.sigma**2 / SECONDS_PER_YEAR * STEP_S
    diffusion = math.sqrt(variance_step * (1.0 - settings.drift_variance_frac)) * per_step * rng.standard_normal(STEPS)
    informed = settings.drift / settings.drift_s * STEP_S * per_step * drift_z[:-1]
    log_price = np.concatenate(([0.0], np.cumsum(diffusion + informed)))
    day_sigma = math.sqrt(settings.sigma**2 / 365.0)
    stationary = day_sigma / math.sqrt(1.0 - math.exp(-2.0 / settings.price_reversion_days))
    midnights = stationary * _addressed_ar1(seed, _PRICE, number, 2, settings.price_reversion_days)
    clock = np.concatenate(([0.0], np.cumsum(per_step * per_step)))
    log_price += midnights[0] + (midnights[1] - midnights[0] - log_price[-1]) * (clock / clock[-1])
    # said once more, exactly: what the next day starts from
    log_price[-1] = midnights[1]
    perp = settings.price * np.exp(log_price)

    intervals = settings.premium_slow_hours * 3600.0 / FUNDING_INTERVAL_S
    slow = settings.premium_mean + settings.premium_slow * _addressed_ar1(seed, _PREMIUM_SLOW, number * STAMPS - 1, STAMPS + 2, intervals)
    fast_midnights = addressed(seed, _PREMIUM_MIDNIGHT, number, 2, normal=True)
    fast = ornstein_uhlenbeck_bridge(rng.standard_normal(STEPS), math.exp(-STEP_S / settings.premium_fast_s), fast_midnights[0], fast_midnights[1])
    per_interval = STEPS // STAMPS
    premium = np.interp(np.arange(STEPS + 1), np.arange(STAMPS + 1) * per_interval, slow[1:]) + settings.premium_fast * fast
    settled, predicted = _funding(slow)
    return LatentDay(perp, perp / (1.0 + premium), drift_z, volatility, activity, slow[1:], settled, predicted)
