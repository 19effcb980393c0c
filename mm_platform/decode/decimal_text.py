"""Decimal text to whole steps of a grid, exactly: no float stands between a venue's digits and ticks or lots.

Belongs here: parsing of numbers in bytes. Does not belong here: which bytes hold numbers (the decoders).

A grid step is `mantissa * 10**-digits` (tick 0.10 is 1 * 10**-1, lot 10 is 10 * 10**0). Accepted: digits with at most one point, an optional
exponent, as in `28145.10`, `1e-05`. Refused with a status: signs, NaN, anything else, values off the grid, values (or digits) beyond 64 bits.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Statuses = npt.NDArray[np.int8]

OK: Final = 0
NOT_A_NUMBER: Final = 1
NEGATIVE: Final = 2
OFF_GRID: Final = 3
TOO_LARGE: Final = 4
MALFORMED: Final = 5
NOT_POSITIVE: Final = 6

STATUS_TEXT: Final = {
    NOT_A_NUMBER: "not a decimal number (NaN, empty or text)",
    NEGATIVE: "negative number",
    OFF_GRID: "not a multiple of the tick or lot size known for this instrument",
    TOO_LARGE: "more digits than a 64-bit integer holds",
    MALFORMED: "levels are not a list of [price, quantity] pairs",
    NOT_POSITIVE: "price or trade size is zero",
}


class Step(NamedTuple):
    """A grid step `mantissa * 10**-digits`, digits >= 0."""

    mantissa: int
    digits: int


def step_of(size: Decimal) -> Step:
    """The step of a tick or lot size."""
    _, digits, exponent = size.normalize().as_tuple()
    mantissa = int("".join(map(str, digits)))
    assert isinstance(exponent, int)
    return Step(mantissa * 10**exponent, 0) if exponent >= 0 else Step(mantissa, -exponent)


@kernel
def parse_steps(text: Bytes, start: int, end: int, step: Step) -> tuple[int, int]:
    """(status, whole steps) of the number in `text[start:end]`; the second is 0 unless the status is OK."""
    i = start
    negative = False
    if i < end and (text[i] == 45 or text[i] == 43):
        negative = text[i] == 45
        i += 1
    value = 0
    fraction = 0
    zeros = 0
    seen = 0
    point = False
    while i < end:
        c = int(text[i])
        if c >= 48 and c <= 57:
            seen += 1
            if point and c == 48:
                # zeros at the end of a fraction say nothing: held back until another digit follows
                zeros += 1
            else:
                while zeros > 0:
                    if value >= 922_337_203_685_477_580:
                        return 4, 0
                    value *= 10
                    fraction += 1
                    zeros -= 1
                if value >= 922_337_203_685_477_580:
                    return 4, 0
                value = value * 10 + (c - 48)
                if point:
                    fraction += 1
        elif c == 46 and not point:
            point = True
        else:
            break
        i += 1
    if seen == 0:
        return 1, 0
    if i < end:
        if text[i] != 101 and text[i] != 69:
            return 1, 0
        i += 1
        sign = 1
        if i < end and (text[i] == 45 or text[i] == 43):
            if text[i] == 45:
                sign = -1
            i += 1
        if i >= end or end - i > 3:
            return 1, 0
        exponent = 0
        while i < end:
            c = int(text[i])
            if c < 48 or c > 57:
                return 1, 0
            exponent = exponent * 10 + (c - 48)
            i += 1
        fraction -= sign * exponent
    if negative:
        return 2, 0
    shift = step.digits - fraction
    while shift > 0 and value > 0:
        if value >= 922_337_203_685_477_580:
            return 4, 0
        value *= 10
        shift -= 1
    while shift < 0 and value > 0:
        if value % 10 != 0:
            return 3, 0
        value //= 10
        shift += 1
    if value % step.mantissa != 0:
        return 3, 0
    return 0, value // step.mantissa


@kernel
def parse_quoted(text: Bytes, count: int, even: Step, odd: Step, steps: Int64s, status: Statuses) -> None:
    """`count` JSON numbers or number strings, one per line (a line feed after each), alternately on the `even` and the `odd` grid."""
    start = 0
    n = text.shape[0]
    for k in range(count):
        end = start
        while end < n and text[end] != 10:
            end += 1
        a = start
        b = end
        if b - a >= 2 and text[a] == 34 and text[b - 1] == 34:
            a += 1
            b -= 1
        if k % 2 == 0:
            code, value = parse_steps(text, a, b, even)
        else:
            code, value = parse_steps(text, a, b, odd)
        status[k] = code
        steps[k] = value
        start = end + 1


@kernel
def parse_level_lists(
    text: Bytes, count: int, price: Step, qty: Step, counts: Int64s, status: Statuses, price_ticks: Int64s, qty_lots: Int64s
) -> int:
    """`count` JSON lists `[["price","quantity"], ...]`, one per line (a line feed after each). Returns the number of levels written.

    A list that is not well-formed, or holds a price or quantity that is refused, gets a status and no levels.
    """
    n = text.shape[0]
    at = 0
    out = 0
    for k in range(count):
        first = out
        code = 0
        while at < n and text[at] == 32:
            at += 1
        if at >= n or text[at] != 91:
            code = 5
        else:
            at += 1
            while at < n and text[at] == 32:
                at += 1
            if at < n and text[at] == 93:
                at += 1
            else:
                while True:
                    # one pair: [ "price" , "quantity" ]
                    while at < n and text[at] == 32:
                        at += 1
                    if at >= n or text[at] != 91:
                        code = 5
                        break
                    at += 1
                    for field in range(2):
                        while at < n and text[at] == 32:
                            at += 1
                        quoted = at < n and text[at] == 34
                        if quoted:
                            at += 1
                        start = at
                        while at < n and text[at] != 34 and text[at] != 44 and text[at] != 93 and text[at] != 32 and text[at] != 10:
                            at += 1
                        if field == 0:
                            code, value = parse_steps(text, start, at, price)
                            if code == 0 and value == 0:
                                code = 6
                            if code == 0:
                                price_ticks[out] = value
                        else:
                            code, value = parse_steps(text, start, at, qty)
                            if code == 0:
                                qty_lots[out] = value
                        if code != 0:
                            break
                        if quoted:
                            if at >= n or text[at] != 34:
                                code = 5
                                break
                            at += 1
                        while at < n and text[at] == 32:
                            at += 1
                        want = 44 if field == 0 else 93
                        if at >= n or text[at] != want:
                            code = 5
                            break
                        at += 1
                    if code != 0:
                        break
                    out += 1
                    while at < n and text[at] == 32:
                        at += 1
                    if at < n and text[at] == 44:
                        at += 1
                        continue
                    if at < n and text[at] == 93:
                        at += 1
                    else:
                        code = 5
                    break
        if code == 0:
            while at < n and text[at] == 32:
                at += 1
            if at < n and text[at] != 10:
                code = 5
        if code != 0:
            out = first
            while at < n and text[at] != 10:
                at += 1
        at += 1
        counts[k] = out - first
        status[k] = code
    return out
