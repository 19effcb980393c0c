"""What a fit says: value, unit, error, how well it fits, through which local time it looked, and whether it may be used.

Belongs here: the result of fitting one number. Does not belong here: estimators (`intensity`, `volatility`). A refused fit is a value with a
reason, never an exception or a silent default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Side = Literal["bid", "ask", "both"]


@dataclass(frozen=True, slots=True)
class Fit:
    """One fitted number.

    Parameters
    ----------
    name : str
        The parameter set's name for it: `sigma`, `A_bid`, `A_ask`, `k_bid`, `k_ask`.
    value, stderr : float
        Estimate and standard error in `unit`; nan where nothing could be estimated.
    unit : str
        `1/sqrt(year)`, `1/s` or `1/relative`, as in the parameter set.
    n, n_needed : int
        Observations used and the least this method accepts.
    method : str
        Estimator and how its error was found.
    side : {"bid", "ask", "both"}
        Whose fills it describes: `bid` = orders sold into bids.
    gof : float or None
        Goodness of fit as the method states it; None where it has none.
    accepted : bool
        Whether the value may be used.
    reason : str
        Why not, with what was seen and what was expected; empty when accepted.
    fitted_from_ns, fitted_through_ns : int
        First and last local time used (UTC ns). Nothing at or before `fitted_through_ns` may be judged with this fit.
    short_of_data : bool
        Refused because there was too little to look at: a longer record may mend it. False for a fit that contradicts its model.
    """

    name: str
    value: float
    unit: str
    stderr: float
    n: int
    n_needed: int
    method: str
    side: Side
    gof: float | None
    accepted: bool
    reason: str
    fitted_from_ns: int
    fitted_through_ns: int
    short_of_data: bool = False

    @property
    def relative_stderr(self) -> float:
        """Standard error over value; nan where either is missing."""
        return self.stderr / abs(self.value) if self.value else math.nan
