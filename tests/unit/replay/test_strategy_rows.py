"""Parameters as rows of numbers come back as they were, and plain numbers in the loop mean what the tape's names mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from builders import SPEC, decision_params
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeVenue
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.orders import LocalOrders
from mm_platform.kernels.venue import MODIFY
from mm_platform.replay import loop, messages, strategy
from mm_platform.replay.order_table import ACTIONS, ORDER_COLUMNS, OUTCOMES
from mm_platform.replay.strategy_rows import PARAMS_SIZE, named_numbers, pack_params, unpack_params
from mm_platform.tape.layout import Kind

TEMPLATE = decision_params()._replace(hedge_venue=HedgeVenue(1, money_of(SPEC)))
KINDS = {name: type(value) for name, value in named_numbers(TEMPLATE)}


def rebuilt(template: Any, numbers: list[float]) -> Any:
    fields = []
    for value in template:
        if isinstance(value, tuple):
            fields.append(rebuilt(value, numbers))
        else:
            number = numbers.pop(0)
            fields.append(int(number) if isinstance(value, int) else number)
    return type(template)(*fields)


@kernel
def there_and_back(row: np.ndarray, out: np.ndarray) -> None:  # type: ignore[type-arg]
    """Numbers from each part of a row, through compiled code."""
    p = unpack_params(row)
    out[0] = p.quote.coef_short_volatility
    out[1] = p.hedge.to_boundary
    out[2] = p.risk.max_loss_quote
    out[3] = p.orders.min_lots
    out[4] = p.money.quantum_base
    out[5] = p.hedge_venue.money.taker_fee
    out[6] = p.hedge_venue.blind


@given(st.lists(st.integers(-(2**53), 2**53), min_size=PARAMS_SIZE, max_size=PARAMS_SIZE))
def test_a_row_comes_back_as_it_was(numbers: list[int]) -> None:
    params: DecisionParams = rebuilt(TEMPLATE, [float(n) for n in numbers])
    row = pack_params(params, "set 0")
    back = unpack_params(row)
    assert back == params
    assert [type(v) for _, v in named_numbers(back)] == [int if k is int else np.float64 for k in KINDS.values()]
    out = np.zeros(7)
    there_and_back.compiled(row, out)
    p = params
    assert out.tolist() == [
        p.quote.coef_short_volatility,
        p.hedge.to_boundary,
        p.risk.max_loss_quote,
        p.orders.min_lots,
        p.money.quantum_base,
        p.hedge_venue.money.taker_fee,
        p.hedge_venue.blind,
    ]


def test_plain_numbers_mean_what_their_names_mean_elsewhere() -> None:
    assert (loop.MARK_ROW, loop.FUNDING_ROW) == (Kind.MARK, Kind.FUNDING)
    assert ACTIONS[MODIFY] == "modify"
    words = ("pending", "resting", "filled", "expired", "cancelled", "modified", "rejected", "lost")
    codes = (
        messages.PENDING,
        messages.RESTED,
        messages.FILLED_WHOLE,
        messages.HAS_EXPIRED,
        messages.CANCELLED,
        messages.WAS_MODIFIED,
        messages.REJECTED_BY_VENUE,
        messages.NEVER_ARRIVED,
    )
    assert tuple(OUTCOMES[code] for code in codes) == words
    assert len(ORDER_COLUMNS) == messages.ORDER_LOG_ROWS
    # a user sees the rows of the platform's own order table
    rows = {
        "id": strategy.ORDER_ID,
        "side": strategy.ORDER_SIDE,
        "price_ticks": strategy.ORDER_PRICE_TICKS,
        "leaves_lots": strategy.LEAVES_LOTS,
        "status": strategy.STATUS,
        "purpose": strategy.ORDER_PURPOSE,
        "venue": strategy.ORDER_VENUE,
    }
    assert tuple(rows) == LocalOrders._fields[: strategy.ORDER_ROWS]
    assert list(rows.values()) == list(range(strategy.ORDER_ROWS))
