"""The contract every connector keeps.

Belongs here: the abstract connector, its vocabulary, and the connector of venues that this version does not trade on. Does not belong
here: anything of one venue or one client library.

Units on both sides of the contract: prices in quote per base, amounts in base (never contracts), fees and rates as fractions. Order books,
trades and orders have ccxt's dict layout with these units.

Errors. Reads raise `ConnectivityError` (may be asked again) or `VenueRejected` (will not get better by asking). Writes raise
`VenueRejected` only where it is certain that nothing happened, else `UnknownOutcome`; they are never sent a second time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Literal, NoReturn

from mm_platform.core.errors import ConfigError
from mm_platform.funding_arbitrage import FundingRate
from mm_platform.smart_order_router import VenueLimits

OrderType = Literal["limit", "post_only", "ioc", "market"]
ORDER_TYPES: Final[tuple[OrderType, ...]] = ("limit", "post_only", "ioc", "market")


class Connector(ABC):
    """One account at one venue. Constructors do nothing; `connect` does."""

    @property
    @abstractmethod
    def venue(self) -> str:
        """The venue as instrument ids spell it."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether `connect` has succeeded."""

    @abstractmethod
    def connect(self) -> None:
        """Read the venue's instruments and check the account; raises `ConfigError` or a `VenueError`."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; open orders stay where they are."""

    @abstractmethod
    def get_orderbook(self, symbol: str, limit: int = 20) -> dict[str, Any]:
        """`bids` and `asks` as lists of [price, base], best first, at most `limit` each; `timestamp` in ms or None; `nonce`."""

    @abstractmethod
    def get_recent_trades(self, symbol: str, limit: int = 100) -> list[dict[str, Any]]:
        """Latest trades, oldest first: `timestamp` in ms, `price`, `amount` in base, `side` of the taker, `id`."""

    @abstractmethod
    def get_funding_rate(self, symbol: str) -> FundingRate:
        """The rate of the running interval, with its interval and stamp."""

    @abstractmethod
    def get_fees(self, symbol: str) -> dict[str, float]:
        """`maker` and `taker`, fractions of notional; negative = rebate."""

    @abstractmethod
    def get_limits(self, symbol: str) -> VenueLimits:
        """Smallest and largest order, step, and how an order is paid."""

    @abstractmethod
    def get_balance(self) -> dict[str, float]:
        """Free amount per asset."""

    @abstractmethod
    def place_order(
        self, symbol: str, side: str, amount: float, price: float | None, order_type: str, client_id: str, *, reduce_only: bool = False
    ) -> dict[str, Any]:
        """Send one order, once.

        Parameters
        ----------
        symbol : str
        side : str
            `buy` or `sell`.
        amount : float
            Base; rounded down to the venue's step.
        price : float or None
            Quote per base; a purchase rounds down and a sale up to the tick. None for `market`.
        order_type : str
            `limit`, `post_only` (refused rather than taking), `ioc` (takes now, no rest), `market`.
        client_id : str
            Our id, new for every order: what an unknown outcome is looked up by.
        reduce_only : bool
            Never opens or turns a position.

        Returns
        -------
        dict
            ccxt's order layout, amounts in base, `id` never empty.
        """

    @abstractmethod
    def cancel_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        """Cancel by client id; `VenueRejected` where there is no such open order (it may have been filled: ask `get_order`)."""

    @abstractmethod
    def get_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        """The venue's truth about one order; `VenueRejected` where it knows none."""

    @abstractmethod
    def get_open_orders(self, symbol: str) -> list[dict[str, Any]]:
        """Open orders of the account in one market."""


class UnavailableConnector(Connector):
    """A venue that this version can name but not trade on: everything refuses with the reason, nothing pretends."""

    _venue: str
    _reason: str

    @property
    def venue(self) -> str:
        return self._venue

    @property
    def connected(self) -> bool:
        return False

    def connect(self) -> None:
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def get_orderbook(self, symbol: str, limit: int = 20) -> dict[str, Any]:
        self._refuse()

    def get_recent_trades(self, symbol: str, limit: int = 100) -> list[dict[str, Any]]:
        self._refuse()

    def get_funding_rate(self, symbol: str) -> FundingRate:
        self._refuse()

    def get_fees(self, symbol: str) -> dict[str, float]:
        self._refuse()

    def get_limits(self, symbol: str) -> VenueLimits:
        self._refuse()

    def get_balance(self) -> dict[str, float]:
        self._refuse()

    def place_order(
        self, symbol: str, side: str, amount: float, price: float | None, order_type: str, client_id: str, *, reduce_only: bool = False
    ) -> dict[str, Any]:
        self._refuse()

    def cancel_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        self._refuse()

    def get_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        self._refuse()

    def get_open_orders(self, symbol: str) -> list[dict[str, Any]]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(f"{self._venue}: {self._reason}")
