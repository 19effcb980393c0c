"""Latency of our orders: how long a request travels to the venue, and an answer back.

Belongs here: the three models, how a table is interpolated, how a latency is drawn. Does not belong here: FIFO (a message never overtakes the one
before it: `replay.messages`), latency of market data (every row of a tape carries its own).

A request is looked up or drawn at the time it is sent, an answer at the time it leaves the venue. A drawn latency depends on seed, direction and
that time only: it is the same whatever else is in the run, on any number of threads, and after a resume.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# directions of a drawn latency
ENTRY: Final = 0
RESPONSE: Final = 1

# kinds of model
CONSTANT: Final = 0
TABLE: Final = 1
DRAWN: Final = 2

# places in Latencies.i
KIND: Final = 0
ENTRY_NS: Final = 1
RESPONSE_NS: Final = 2
SEED: Final = 3
FLOOR_NS: Final = 4
ENTRY_BEGIN: Final = 5  # rows of Latencies.entry
ENTRY_END: Final = 6
RESPONSE_BEGIN: Final = 7  # rows of Latencies.response
RESPONSE_END: Final = 8
LATENCY_I_SIZE: Final = 9

# places in Latencies.f
ENTRY_MEDIAN_NS: Final = 0
ENTRY_SIGMA: Final = 1
RESPONSE_MEDIAN_NS: Final = 2
RESPONSE_SIGMA: Final = 3
LATENCY_F_SIZE: Final = 4

# a request that never reaches the venue
LOST: Final = -1

_LOW32: Final = 0xFFFFFFFF
_MOST_NS: Final = 86_400_000_000_000.0


@dataclass(frozen=True, slots=True)
class ConstantLatency:
    """The same for every message, ns."""

    entry_ns: int
    response_ns: int

    def __post_init__(self) -> None:
        if self.entry_ns < 0 or self.response_ns < 0:
            raise ConfigError(f"order latency of {self.entry_ns} and {self.response_ns} ns: expected numbers >= 0")

    @property
    def shortest_ns(self) -> tuple[int, int]:
        """The least entry and response latency there can be."""
        return self.entry_ns, self.response_ns


@dataclass(frozen=True, slots=True)
class DrawnLatency:
    """Log-normal per direction: median x exp(sigma x normal), and no less than the floor.

    seed : 0 to 2**63 - 1. entry_median_ns, response_median_ns, floor_ns : ns. entry_sigma, response_sigma : of the logarithm (0.5: two thirds lie
    between 0.6 and 1.6 times the median).
    """

    seed: int
    entry_median_ns: float
    entry_sigma: float
    response_median_ns: float
    response_sigma: float
    floor_ns: int = 0

    def __post_init__(self) -> None:
        numbers = (self.entry_median_ns, self.entry_sigma, self.response_median_ns, self.response_sigma)
        if not all(math.isfinite(x) and x >= 0.0 for x in numbers) or self.floor_ns < 0 or not 0 <= self.seed < 2**63:
            raise ConfigError(f"{self}: expected finite medians, sigmas and floor >= 0 and a seed from 0 to 2**63 - 1")

    @property
    def shortest_ns(self) -> tuple[int, int]:
        return self.floor_ns, self.floor_ns


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LatencyTable:
    """Measured round trips; latencies between them are interpolated, before the first and after the last they stay.

    A row whose `exch_ts` is not positive is a request that never reached the venue: what is sent next to it is lost, and comes back as rejected
    after the interpolated round trip.

    req_ts, exch_ts, resp_ts : int64 columns [ns]: sent, at the venue, answered; `req_ts` strictly ascending, positive `exch_ts` too.
    """

    req_ts: Int64s
    exch_ts: Int64s
    resp_ts: Int64s
    sha256: str = field(init=False, default="")

    def __post_init__(self) -> None:
        columns = [np.ascontiguousarray(c, dtype=np.int64) for c in (self.req_ts, self.exch_ts, self.resp_ts)]
        req, exch, resp = columns
        if not len(req) == len(exch) == len(resp) or len(req) == 0:
            raise DataError(
                f"latency table of {len(req)}, {len(exch)} and {len(resp)} rows: expected three columns of equal length, at least one row"
            )
        reached = exch > 0
        if not reached.any():
            raise DataError(f"latency table of {len(req)} rows: no request ever reached the venue; expected at least one row with exch_ts > 0")
        for name, at in (
            ("req_ts does not ascend", np.flatnonzero(np.diff(req) <= 0) + 1),
            ("exch_ts does not ascend", np.flatnonzero(reached)[1:][np.diff(exch[reached]) <= 0]),
            ("times of a round trip are out of order", np.flatnonzero(np.where(reached, (exch < req) | (resp < exch), resp < req))),
        ):
            if len(at):
                row = int(at[0])
                raise DataError(f"latency table row {row}: {name}: req_ts {req[row]}, exch_ts {exch[row]}, resp_ts {resp[row]}")
        for name, column in zip(("req_ts", "exch_ts", "resp_ts"), columns, strict=True):
            object.__setattr__(self, name, column)
        object.__setattr__(self, "sha256", hashlib.sha256(b"".join(c.tobytes() for c in columns)).hexdigest())

    @property
    def shortest_ns(self) -> tuple[int, int]:
        reached = self.exch_ts > 0
        entry, response = self.exch_ts - self.req_ts, self.resp_ts - self.exch_ts
        return int(entry[reached].min()), int(response[reached].min())

    # equal content is an equal model: settings are compared, hashed and named in results
    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatencyTable) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"LatencyTable({len(self.req_ts)} rows, sha256={self.sha256[:16]})"


LatencyModel = ConstantLatency | DrawnLatency | LatencyTable


class Latencies(NamedTuple):
    """Models of all sets at all venues, for kernels.

    i, f : shape (venues, sets, size) by the places above. entry : rows (req_ts, latency to the venue or -1, round trip). response : rows (exch_ts,
    latency back).
    """

    i: Int64s
    f: Float64s
    entry: Int64s
    response: Int64s


def pack_latencies(models: Sequence[Sequence[LatencyModel]]) -> Latencies:
    """Arrays of the models by venue and set."""
    i = np.zeros((len(models), len(models[0]), LATENCY_I_SIZE), dtype=np.int64)
    f = np.zeros((len(models), len(models[0]), LATENCY_F_SIZE))
    entries: list[Int64s] = [np.empty((0, 3), dtype=np.int64)]
    responses: list[Int64s] = [np.empty((0, 2), dtype=np.int64)]
    places: dict[LatencyTable, tuple[int, int, int, int]] = {}
    for v, of_venue in enumerate(models):
        for s, model in enumerate(of_venue):
            row = i[v, s]
            match model:
                case ConstantLatency():
                    row[KIND], row[ENTRY_NS], row[RESPONSE_NS] = CONSTANT, model.entry_ns, model.response_ns
                case DrawnLatency():
                    row[KIND], row[SEED], row[FLOOR_NS] = DRAWN, model.seed, model.floor_ns
                    f[v, s] = model.entry_median_ns, model.entry_sigma, model.response_median_ns, model.response_sigma
                case LatencyTable():
                    row[KIND] = TABLE
                    if model not in places:
                        reached = model.exch_ts > 0
                        entry = np.column_stack((model.req_ts, np.where(reached, model.exch_ts - model.req_ts, LOST), model.resp_ts - model.req_ts))
                        response = np.column_stack((model.exch_ts, model.resp_ts - model.exch_ts))[reached]
                        at = sum(map(len, entries)), sum(map(len, responses))
                        entries.append(entry)
                        responses.append(response)
                        places[model] = (at[0], at[0] + len(entry), at[1], at[1] + len(response))
                    row[ENTRY_BEGIN], row[ENTRY_END], row[RESPONSE_BEGIN], row[RESPONSE_END] = places[model]
    return Latencies(i, f, np.ascontiguousarray(np.concatenate(entries)), np.ascontiguousarray(np.concatenate(responses)))


@kernel
def last_at_or_before(table: Int64s, begin: int, end: int, ts: int) -> int:
    """Row of `table[begin:end]` (ascending in column 0) with the latest time not after `ts`, `begin - 1` when all are later."""
    lo = begin
    hi = end
    while lo < hi:
        mid = (lo + hi) // 2
        if table[mid, 0] <= ts:
            lo = mid + 1
        else:
            hi = mid
    return lo - 1


@kernel
def between(x: int, x0: int, y0: int, x1: int, y1: int) -> int:
    """Linear interpolation, the fraction cut off towards y0's side of zero as the reference engine does."""
    return int(float(y1 - y0) / float(x1 - x0) * float(x - x0)) + y0


@kernel
def mix32(x: int) -> int:
    """A well-mixed 32-bit function of a 32-bit number; products stay below 2**63, so Python and compiled code agree."""
    x ^= x >> 16
    x = (x * 0x21F0AAAD) & _LOW32
    x ^= x >> 15
    x = (x * 0x735A2D97) & _LOW32
    x ^= x >> 15
    return x


@kernel
def uniform(seed: int, direction: int, ts: int, salt: int) -> float:
    """A number in (0, 1) that depends on nothing but the arguments."""
    h = mix32((seed & _LOW32) ^ mix32(((seed >> 32) & _LOW32) ^ mix32(2 * salt + direction + 1)))
    high = mix32(h ^ mix32(((ts >> 32) & _LOW32) ^ mix32(h ^ (ts & _LOW32))))
    low = mix32(high ^ 0x5BD1E995)
    return (high * 1048576.0 + float(low >> 12) + 0.5) / 4503599627370496.0


@kernel
def drawn_ns(seed: int, direction: int, ts: int, median_ns: float, sigma: float, floor_ns: int) -> int:
    """One latency, ns (Box and Muller 1958 for the normal); a day at most."""
    radius = math.sqrt(-2.0 * math.log(uniform(seed, direction, ts, 1)))
    normal = radius * math.cos(6.283185307179586 * uniform(seed, direction, ts, 2))
    return max(floor_ns, int(min(median_ns * math.exp(min(sigma * normal, 700.0)), _MOST_NS)))


@kernel
def entry_latency_ns(latencies: Latencies, venue: int, set_index: int, ts: int) -> tuple[int, int]:
    """Latency of a request sent at `ts` (`LOST`: it never arrives), and the time after which a lost one comes back, ns."""
    row = latencies.i[venue, set_index]
    kind = row[KIND]
    if kind == CONSTANT:
        return row[ENTRY_NS], 0
    if kind == DRAWN:
        f = latencies.f[venue, set_index]
        return drawn_ns(row[SEED], ENTRY, ts, f[ENTRY_MEDIAN_NS], f[ENTRY_SIGMA], row[FLOOR_NS]), 0
    table = latencies.entry
    begin = row[ENTRY_BEGIN]
    end = row[ENTRY_END]
    at = last_at_or_before(table, begin, end, ts)
    if at < begin:
        return table[begin, 1], table[begin, 2]
    if at == end - 1:
        return table[at, 1], table[at, 2]
    if table[at, 1] == LOST or table[at + 1, 1] == LOST:
        return LOST, between(ts, table[at, 0], table[at, 2], table[at + 1, 0], table[at + 1, 2])
    return between(ts, table[at, 0], table[at, 1], table[at + 1, 0], table[at + 1, 1]), 0


@kernel
def response_latency_ns(latencies: Latencies, venue: int, set_index: int, ts: int) -> int:
    """Latency of an answer that leaves the venue at `ts`, ns."""
    row = latencies.i[venue, set_index]
    kind = row[KIND]
    if kind == CONSTANT:
        return row[RESPONSE_NS]
    if kind == DRAWN:
        f = latencies.f[venue, set_index]
        return drawn_ns(row[SEED], RESPONSE, ts, f[RESPONSE_MEDIAN_NS], f[RESPONSE_SIGMA], row[FLOOR_NS])
    table = latencies.response
    begin = row[RESPONSE_BEGIN]
    end = row[RESPONSE_END]
    at = last_at_or_before(table, begin, end, ts)
    if at < begin:
        return table[begin, 1]
    if at == end - 1:
        return table[at, 1]
    return between(ts, table[at, 0], table[at, 1], table[at + 1, 0], table[at + 1, 1])
