"""The last look before an order leaves: the runner's limits, checked on its own books and not on the engine's.

Belongs here: refusing single orders. Cancels always pass. Does not belong here: limits on parameter sets (`live.limits`), the risk step of a
decision (`kernels.risk`): a fault there must not get past here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from mm_platform.core.commands import Place
from mm_platform.core.events import AnyEvent, Fill, OrderReject, OrderUpdate
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.units import NS_PER_S
from mm_platform.engine.engine import CANCEL_REJECTED
from mm_platform.engine.settings import ORDER_WINDOW_S, risk_params
from mm_platform.live.limits import RunnerLimits

# code of the OrderReject that stands for a refusal
REFUSED_BY_RUNNER: Final = "runner_limit"
# tells a limit from the rounding of a float
_SLACK: Final = 1e-9


@dataclass(slots=True)
class _Open:
    side: int
    lots: int


class OrderGate:
    """Counts what was sent and filled, and refuses what would break a limit.

    Parameters
    ----------
    spec : InstrumentSpec
        Facts of the instrument.
    limits : RunnerLimits
        The runner's own.
    """

    def __init__(self, spec: InstrumentSpec, limits: RunnerLimits) -> None:
        self._limits = limits
        self._tick = float(spec.tick)
        self._spec = spec
        self._max_order_lots = 0
        self._max_position_lots = 0
        self._price = 0.0
        self._position_lots = 0
        self._open: dict[str, _Open] = {}
        self._sent_ns: deque[int] = deque()

    def parameters(self, pset: ParameterSet) -> None:
        """From here on amounts are fixed at this set's price."""
        risk = risk_params(pset, self._spec, self._limits.engine)
        self._max_order_lots, self._max_position_lots = risk.max_order_lots, risk.max_position_lots
        self._price = pset.number("inventory_unit_price")

    def refusal(self, order: Place, mid_half_ticks: int) -> str:
        """Why this order must not leave now; empty when it may. `mid_half_ticks` is the local mid (0 = unknown)."""
        limits = self._limits
        if order.qty_lots < 1 or order.price_ticks < 1:
            return f"{order.qty_lots} lots at {order.price_ticks} ticks is not an order"
        if order.client_id in self._open:
            return f"client id {order.client_id} is in use"
        if mid_half_ticks <= 0:
            return "no mid is known"
        # flattening goes by what is held, in one order: sizes and rates that hold back risk must not hold back its end
        reduces = self._position_lots * order.side < 0
        flattens = order.purpose == "flatten" and reduces and order.qty_lots <= abs(self._position_lots)
        distance = abs(2 * order.price_ticks - mid_half_ticks) / mid_half_ticks
        if distance > limits.price_band_frac + _SLACK:
            return f"price {order.price_ticks} ticks is {distance:.4f} from the mid, allowed is {limits.price_band_frac}"
        if flattens:
            return ""
        if order.qty_lots > self._max_order_lots:
            return f"{order.qty_lots} lots, allowed are {self._max_order_lots} an order"
        exposure = order.side * self._position_lots + order.qty_lots + sum(o.lots for o in self._open.values() if o.side == order.side)
        if exposure > self._max_position_lots:
            return f"with everything open filled the position would be {exposure} lots on side {order.side}, allowed are {self._max_position_lots}"
        drift = abs(0.5 * mid_half_ticks * self._tick / self._price - 1.0)
        if drift > limits.max_price_drift_frac and not reduces:
            return f"the price moved by {drift:.3f} since the amounts were fixed, allowed is {limits.max_price_drift_frac}; publish new parameters"
        since = order.ts - round(ORDER_WINDOW_S * NS_PER_S)
        while self._sent_ns and self._sent_ns[0] <= since:
            self._sent_ns.popleft()
        if len(self._sent_ns) >= limits.engine.max_orders_per_10s:
            return f"{len(self._sent_ns)} orders in the last {ORDER_WINDOW_S:g} s, allowed are {limits.engine.max_orders_per_10s}"
        return ""

    def sent(self, order: Place) -> None:
        """The order leaves."""
        self._open[order.client_id] = _Open(order.side, order.qty_lots)
        self._sent_ns.append(order.ts)

    def on_event(self, event: AnyEvent) -> None:
        """What the venue says about our orders."""
        match event:
            case Fill():
                self._position_lots += event.side * event.qty_lots
                if event.leaves_lots <= 0:
                    self._open.pop(event.client_id, None)
                elif event.client_id in self._open:
                    self._open[event.client_id].lots = event.leaves_lots
            case OrderUpdate() if event.status in ("cancelled", "expired", "rejected"):
                self._open.pop(event.client_id, None)
            case OrderReject() if event.code != CANCEL_REJECTED:
                self._open.pop(event.client_id, None)
            case _:
                return
