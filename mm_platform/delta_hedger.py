"""Front door of the guide: when and how much of an inventory to hedge.

Belongs here: `DeltaHedger`, its clock of a breach, checks. Does not belong here: the rule (`kernels.hedging`), sending orders.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from mm_platform.core.clock import Clock, monotonic_ns
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.hedging import FORCED, HedgeParams, hedge_size, hedge_step, limit_price


class HedgeWarning(UserWarning):
    """Parameters with which some breaches are not hedged."""


class DeltaHedger:
    """Threshold hedging of an inventory (the guide's `DeltaHedger`).

    Parameters
    ----------
    hedge_threshold : float
        Base: hedge when |inventory - target_delta| exceeds it; `inf` never hedges.
    target_delta : float
        Base.
    hedge_ratio : float
        Share of the excess that is traded, in (0, 1]. The excess is the whole deviation from the target (0.8 of a deviation of 6 trades 4.8);
        with `to_boundary` only the part beyond the threshold.
    min_hedge_size : float
        Base; smaller hedges are left alone.
    max_hedge_latency : float
        Seconds a breach may wait for a favourable moment before it is forced.
    to_boundary : bool
        Trade back to the edge of the band instead of towards the target.
    max_slippage : float
        Fraction beyond the current price that a crossing hedge may pay.
    hedge_venue : str, optional
        Named in the recommendation as `venue`, where hedges go to another venue.
    clock : callable, optional
        Nanoseconds since the epoch, used where `now_ns` is not given.

    Raises
    ------
    ConfigError
        A parameter outside its domain.
    """

    def __init__(
        self,
        hedge_threshold: float = 5.0,
        target_delta: float = 0.0,
        hedge_ratio: float = 0.8,
        min_hedge_size: float = 0.1,
        max_hedge_latency: float = 60.0,
        *,
        to_boundary: bool = False,
        max_slippage: float = 0.001,
        hedge_venue: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not hedge_threshold >= 0.0:
            raise ConfigError(f"hedge_threshold is {hedge_threshold}, expected a number >= 0 in base (inf = never)")
        if not math.isfinite(target_delta):
            raise ConfigError(f"target_delta is {target_delta}, expected a finite amount in base")
        if not 0.0 < hedge_ratio <= 1.0:
            raise ConfigError(f"hedge_ratio is {hedge_ratio}, expected a share in (0, 1]")
        for name, value in (("min_hedge_size", min_hedge_size), ("max_hedge_latency", max_hedge_latency)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a finite number >= 0")
        if not 0.0 <= max_slippage < 1.0:
            raise ConfigError(f"max_slippage is {max_slippage}, expected a fraction in [0, 1)")
        self._params = HedgeParams(
            threshold=float(hedge_threshold),
            target=float(target_delta),
            ratio=float(hedge_ratio),
            min_size=float(min_hedge_size),
            max_latency_s=float(max_hedge_latency),
            to_boundary=int(to_boundary),
        )
        self.max_slippage = float(max_slippage)
        self.hedge_venue = hedge_venue
        self._clock = clock or monotonic_ns
        self._inventory = self._params.target
        self._breach_since_ns = 0
        at_threshold = hedge_ratio * hedge_threshold
        if not to_boundary and 0.0 < at_threshold < min_hedge_size:
            warnings.warn(
                f"a breach of {hedge_threshold:g} asks for {at_threshold:g} base, below min_hedge_size {min_hedge_size:g}: inventories up to "
                f"{min_hedge_size / hedge_ratio:g} stay unhedged; raise hedge_threshold or lower min_hedge_size",
                HedgeWarning,
                stacklevel=2,
            )

    def update_inventory(self, current_inventory: float, *, now_ns: int | None = None) -> None:
        """Take over the inventory (signed, base); a breach of the threshold starts its clock here. Raises `DataError` unless finite."""
        if not math.isfinite(current_inventory):
            raise DataError(f"inventory is {current_inventory}, expected a finite amount in base")
        self._inventory = float(current_inventory)
        self._step(math.nan, math.nan, now_ns)

    def should_hedge(self, *, now_ns: int | None = None) -> bool:
        """Whether the threshold is exceeded and the hedge is worth sending (`min_hedge_size`)."""
        self._step(math.nan, math.nan, now_ns)
        return hedge_size(self._params, self._inventory) != 0.0

    def get_hedge_recommendation(self, current_price: float, microprice: float | None = None, *, now_ns: int | None = None) -> dict[str, Any] | None:
        """What to hedge and how; None when there is nothing to hedge.

        Parameters
        ----------
        current_price, microprice : float
            Quote per base: the mid, and the microprice where known.
        now_ns : int
            UTC nanoseconds; default the clock.

        Returns
        -------
        dict or None
            `side` ('buy' or 'sell'); `hedge_size` (base, > 0); `urgency` ('forced' once the breach has lasted `max_hedge_latency`, else
            'opportunistic'); `strategy` ('aggressive': cross now, at worst at `limit_price`; 'passive': rest at `limit_price`, because
            crossing now would sell below or buy above the microprice, or none is known); `limit_price` (quote per base);
            `breach_age_s`; `inventory`, `target` (base); `venue`.

        Raises
        ------
        DataError
            A price that is not positive and finite.
        """
        if not 0.0 < current_price < math.inf:
            raise DataError(f"current_price is {current_price}, expected a positive price")
        micro = math.nan if microprice is None else float(microprice)
        if not math.isnan(micro) and not 0.0 < micro < math.inf:
            raise DataError(f"microprice is {microprice}, expected a positive price")
        now, size_now, urgency = self._step(float(current_price), micro, now_ns)
        size = hedge_size(self._params, self._inventory)
        if size == 0.0:
            return None
        crosses = int(size_now != 0.0)
        return {
            "side": "buy" if size > 0.0 else "sell",
            "hedge_size": abs(size),
            "urgency": "forced" if urgency == FORCED else "opportunistic",
            "strategy": "aggressive" if crosses else "passive",
            "limit_price": limit_price(size, float(current_price), micro, crosses, self.max_slippage),
            "breach_age_s": (now - self._breach_since_ns) / NS_PER_S,
            "inventory": self._inventory,
            "target": self._params.target,
            "venue": self.hedge_venue,
        }

    def hedge_params(self) -> HedgeParams:
        """The kernel's parameters, as replay and sweeps use them."""
        return self._params

    def _step(self, mid: float, microprice: float, now_ns: int | None) -> tuple[int, float, int]:
        now = self._clock() if now_ns is None else now_ns
        if now < self._breach_since_ns:
            # time before the breach is another run (a backtest after live data): its breach begins here
            self._breach_since_ns = 0
        size, urgency, self._breach_since_ns = hedge_step(self._params, self._inventory, self._breach_since_ns, now, mid, microprice)
        return now, size, urgency
