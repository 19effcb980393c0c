"""Settings of the funding import and scan (costs, bounds, time zones of files)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mm_platform.core.instrument import venue_id
from mm_platform.decode.funding_csv import perp_venue

Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LegCost(BaseModel):
    """Of one venue, fractions of notional per execution: taker fees of its spot and perpetual market, half of ask minus bid over mid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spot_fee: Finite = 0.0010
    perp_fee: Finite = 0.0005
    half_spread: NonNegative = 0.0001


DEFAULT_COST: Final = LegCost()


class FundingSettings(BaseModel):
    """The funding import and scan.

    utc_offset_h : hours ahead of UTC of the clock that wrote a venue's files, by venue as the files name it or by its id, "*" for all others. A venue that is left out must
    be decided by its settlement grid and a second source, else its file is refused.
    holding_h : holding time the net figures assume, h. min_history_h : history below which nothing is expected, h. min_rate_8h : smallest expected rate per 8 h. min_apr : smallest net APR after costs.
    max_basis_frac : largest price difference of the legs. spot_borrow_apr : interest on a short spot leg, per year. max_age_h : how far apart
    the latest rates of two venues may lie, h. costs : by venue id, defaults elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    utc_offset_h: dict[str, Finite] = Field(default_factory=dict)
    holding_h: Positive = 168.0
    min_history_h: Positive = 24.0
    min_rate_8h: NonNegative = 0.0001
    min_apr: Finite = 0.05
    max_basis_frac: NonNegative = 0.002
    spot_borrow_apr: NonNegative = 0.05
    max_age_h: NonNegative = 24.0
    costs: dict[str, LegCost] = Field(default_factory=dict)

    @field_validator("utc_offset_h")
    @classmethod
    def _perp_venues(cls, given: dict[str, float]) -> dict[str, float]:
        return {name if name == "*" else perp_venue(name): value for name, value in given.items()}

    @field_validator("costs")
    @classmethod
    def _venue_ids(cls, given: dict[str, LegCost]) -> dict[str, LegCost]:
        return {venue_id(name): value for name, value in given.items()}

    def cost_of(self, venue: str) -> LegCost:
        """Costs at a venue."""
        return self.costs.get(venue, DEFAULT_COST)

    def offset_of(self, venue: str) -> float | None:
        """The stated clock of a venue's files; None: not stated."""
        return self.utc_offset_h.get(venue, self.utc_offset_h.get("*"))
