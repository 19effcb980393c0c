"""Small bar frames and scripted strategies with the guide's methods, for tests of the backtest on bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mm_platform.core.units import NS_PER_S

START = pd.Timestamp("2024-07-01", tz="UTC")
START_NS = START.value


def bars(bid: list[float], ask: list[float] | None = None, *, step_s: float = 60.0, volume: float = 1_000.0, **columns: Any) -> pd.DataFrame:
    """Rows `step_s` apart; the ask defaults to one above the bid."""
    n = len(bid)
    return pd.DataFrame(
        {
            "timestamp": pd.to_datetime(START_NS + (np.arange(n) * step_s * NS_PER_S).astype(np.int64), utc=True),
            "bid": bid,
            "ask": [b + 1.0 for b in bid] if ask is None else ask,
            "volume": np.full(n, volume),
            "volatility": np.full(n, 0.5),
            **columns,
        }
    )


def random_bars(n: int, seed: int, *, step_s: float = 1.0, price: float = 50_000.0) -> pd.DataFrame:
    """A walk with every optional column of numbers; some values unknown."""
    rng = np.random.default_rng(seed)
    mid = price * np.exp(np.cumsum(rng.normal(0.0, 2e-4, n)))
    half = price * rng.uniform(1e-6, 5e-5, n)
    frame = bars(list(mid - half), list(mid + half), step_s=step_s)
    frame["volume"] = rng.exponential(20.0, n)
    frame["volatility"] = rng.uniform(0.2, 0.8, n)
    frame["microprice"] = np.where(rng.random(n) < 0.2, np.nan, mid + half * rng.uniform(-0.5, 0.5, n))
    frame["ofi"] = rng.uniform(-1.0, 1.0, n)
    frame["kyle_lambda"] = rng.normal(0.001, 0.0005, n)
    frame["short_vol"] = rng.uniform(0.1, 1.0, n)
    frame["funding_rate"] = np.where(np.arange(n) % 97 == 96, rng.normal(0.0, 1e-4, n), np.nan)
    frame["mark_price"] = mid * (1.0 + rng.normal(0.0, 1e-5, n))
    frame["trade_low"] = mid - half * rng.uniform(0.0, 8.0, n)
    frame["trade_high"] = mid + half * rng.uniform(0.0, 8.0, n)
    return frame


class ScriptedMaker:
    """Quotes what the script says for each row; has the guide's methods and nothing else. None = side not quoted."""

    def __init__(self, script: list[tuple[float | None, float | None]]) -> None:
        self.script = script
        self.seen: list[dict[str, Any]] = []

    def update_market_data(
        self, mid_price, volatility, inventory, microprice=None, order_flow_imbalance=None, kyle_lambda=None, short_volatility=None
    ) -> None:  # type: ignore[no-untyped-def]
        self.seen.append(
            {
                "mid_price": mid_price,
                "volatility": volatility,
                "inventory": inventory,
                "microprice": microprice,
                "order_flow_imbalance": order_flow_imbalance,
                "kyle_lambda": kyle_lambda,
                "short_volatility": short_volatility,
            }
        )

    def _now(self) -> tuple[float | None, float | None]:
        return self.script[min(len(self.seen), len(self.script)) - 1]

    def compute_quotes(self) -> tuple[float, float]:
        bid, ask = self._now()
        return (float("nan") if bid is None else bid, float("nan") if ask is None else ask)

    def should_quote_side(self, side: str) -> bool:
        return self._now()[0 if side == "bid" else 1] is not None


class ScriptedHedger:
    """Recommends the script's dict for each row (None = nothing to hedge); the guide's methods and nothing else."""

    def __init__(self, script: list[dict[str, Any] | None]) -> None:
        self.script = script
        self.inventories: list[float] = []

    def update_inventory(self, current_inventory: float) -> None:
        self.inventories.append(current_inventory)

    def _now(self) -> dict[str, Any] | None:
        return self.script[min(len(self.inventories), len(self.script)) - 1]

    def should_hedge(self) -> bool:
        return self._now() is not None

    def get_hedge_recommendation(self, current_price: float, microprice: float | None = None) -> dict[str, Any] | None:
        return self._now()
