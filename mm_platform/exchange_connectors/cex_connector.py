"""Centralised exchanges through the synchronous ccxt client (the guide's `CEXConnector`).

Belongs here: the client's construction, units (contracts to base), side-aware rounding, what the client gets wrong. Does not belong here:
what an error means (`outcomes`), streams.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, UnknownOutcome, VenueRejected
from mm_platform.core.instrument import InstrumentId, InstrumentSpec, Side, venue_id
from mm_platform.core.units import NS_PER_MS
from mm_platform.exchange_connectors.base import ORDER_TYPES, Connector
from mm_platform.exchange_connectors.outcomes import read_error, write_error
from mm_platform.funding_arbitrage import FundingRate
from mm_platform.smart_order_router import VenueLimits

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")
_BINANCE: Final = ("binance", "binanceusdm", "binancecoinm")
_SIGNATURE: Final = re.compile(r"(signature=)[0-9a-zA-Z%+/=]+")
_MAX_TRADES: Final = 1000
# what the client can throw when it cannot read an answer
_UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class _VenueFacts:
    """What differs between venues beyond what the client unifies."""

    book_limits: tuple[int, ...] = ()
    client_id_param: str = "clientOrderId"
    balance_params: tuple[dict[str, str], ...] = ({},)


_FACTS: Final = {
    "binanceusdm": _VenueFacts(book_limits=(5, 10, 20, 50, 100, 500, 1000)),
    "kucoinfutures": _VenueFacts(book_limits=(20, 100), client_id_param="clientOid", balance_params=({"code": "USDT"},)),
    "kucoin": _VenueFacts(book_limits=(20, 100), client_id_param="clientOid"),
}


class CEXConnector(Connector):
    """One account at one exchange. The constructor does nothing; `connect` loads the client, the markets and checks the keys.

    Parameters
    ----------
    exchange_id : str
        ccxt id, or the guide's spelling (`binancefutures` is ccxt's `binanceusdm`).
    api_key, api_secret : str
        Empty for public data only. They appear in no repr, message or exception of this class.
    api_passphrase : str, optional
        Where the venue has one (KuCoin, OKX, Bitget).
    testnet : bool
        Demo trading where ccxt offers it (Binance), else its sandbox; refused where neither exists.
    urls : mapping, optional
        Replaces ccxt's `urls["api"]`, for a local venue.
    options : mapping, optional
        Laid over ccxt's `options`.
    margin_rate : float
        Initial margin per notional that derivatives reserve; 1 = no leverage.
    timeout_s : float
        Limit of one request.
    read_attempts : int
        How often a failed read is tried. Writes are sent once.
    sleep : callable
        Waits seconds between attempts.
    """

    def __init__(
        self,
        exchange_id: str,
        api_key: str = "",
        api_secret: str = "",
        api_passphrase: str | None = None,
        testnet: bool = False,
        *,
        urls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        margin_rate: float = 1.0,
        timeout_s: float = 10.0,
        read_attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if read_attempts < 1 or not timeout_s > 0.0 or not 0.0 < margin_rate <= 1.0:
            raise ConfigError(
                f"read_attempts is {read_attempts}, timeout_s {timeout_s}, margin_rate {margin_rate}; expected >= 1, > 0 and a fraction in (0, 1]"
            )
        if bool(api_key) != bool(api_secret):
            raise ConfigError(f"{exchange_id}: an API key and its secret come together; leave both empty for public data only")
        self._venue = venue_id(exchange_id)
        self._key, self._secret, self._passphrase = api_key, api_secret, api_passphrase
        self._testnet = testnet
        self._urls = dict(urls or {})
        self._options = dict(options or {})
        self._margin_rate = margin_rate
        self._timeout_s = timeout_s
        self._read_attempts = read_attempts
        self._sleep = sleep
        self._facts = _FACTS.get(self._venue, _VenueFacts())
        self._ccxt: ModuleType | None = None
        self._client: Any = None
        self._fees: dict[str, dict[str, float]] = {}
        self._funding_hours: dict[str, float] = {}

    def __repr__(self) -> str:
        account = "with keys" if self._key else "public data only"
        return f"CEXConnector({self._venue!r}, {account}, testnet={self._testnet}, connected={self.connected})"

    @property
    def venue(self) -> str:
        return self._venue

    @property
    def connected(self) -> bool:
        return self._client is not None

    def connect(self) -> None:
        """Load the client and the markets; with keys, synchronise the clock and read the balance once, so that wrong keys show here.

        Raises
        ------
        ConfigError
            No such exchange in ccxt; no test venue; a credential is missing.
        ConnectivityError, VenueRejected
            The venue is away; it refused the keys.
        """
        if self.connected:
            return
        import ccxt

        self._ccxt = ccxt
        if self._venue not in ccxt.exchanges:
            raise ConfigError(f"ccxt {ccxt.__version__} has no exchange {self._venue!r}; see ccxt.exchanges for the ids")
        client = self._new_client(ccxt)
        self._choose_test_venue(ccxt, client)
        if self._key:
            missing = [name for name, needed in client.requiredCredentials.items() if needed and not getattr(client, name, None)]
            if missing:
                raise ConfigError(f"{self._venue} also needs {', '.join(missing)} (ccxt's names; `password` is api_passphrase)")
        self._read(client.load_markets)
        if self._key:
            if client.has.get("fetchTime"):
                self._read(client.load_time_difference)
            for params in self._facts.balance_params:
                self._read(client.fetch_balance, dict(params))
        self._client = client

    def close(self) -> None:
        self._client = None
        self._fees.clear()
        self._funding_hours.clear()

    # -- reads -------------------------------------------------------------------------------------
    def get_orderbook(self, symbol: str, limit: int = 20) -> dict[str, Any]:
        if limit < 1:
            raise ConfigError(f"{self._venue}: {limit} book levels asked for, expected at least 1")
        market = self._market(symbol)
        allowed = self._facts.book_limits
        asked = next((n for n in allowed if n >= limit), allowed[-1]) if allowed else limit
        book = self._read(self._client.fetch_order_book, market["symbol"], asked)
        size = _contract_size(market)
        return {
            "symbol": symbol,
            "bids": [[float(row[0]), float(row[1]) * size] for row in book["bids"][:limit]],
            "asks": [[float(row[0]), float(row[1]) * size] for row in book["asks"][:limit]],
            "timestamp": book.get("timestamp"),
            "nonce": book.get("nonce"),
        }

    def get_recent_trades(self, symbol: str, limit: int = 100) -> list[dict[str, Any]]:
        market = self._market(symbol)
        trades = self._read(self._client.fetch_trades, market["symbol"], None, max(1, min(limit, _MAX_TRADES)))
        size = _contract_size(market)
        return [
            {
                "id": trade["id"],
                "timestamp": trade["timestamp"],
                "price": float(trade["price"]),
                "amount": float(trade["amount"]) * size,
                "side": trade["side"],
            }
            for trade in trades
        ]

    def get_funding_rate(self, symbol: str) -> FundingRate:
        market = self._market(symbol)
        if not market["swap"]:
            raise ConfigError(f"{self._venue}: {symbol} is no perpetual; it has no funding")
        quote = self._read(self._client.fetch_funding_rate, market["symbol"])
        if quote.get("fundingRate") is None:
            raise DataError(f"{self._venue}: the venue states no funding rate for {symbol}")
        stamp_ms = quote.get("fundingTimestamp") or quote.get("nextFundingTimestamp") or 0
        mark = quote.get("markPrice")
        return FundingRate(
            float(quote["fundingRate"]),
            interval_hours=self._funding_interval(market, quote.get("interval")),
            stamp_ns=int(stamp_ms) * NS_PER_MS,
            is_predicted=True,
            mark_price=None if mark is None else float(mark),
        )

    def get_fees(self, symbol: str) -> dict[str, float]:
        market = self._market(symbol)
        key = market["symbol"]
        if key not in self._fees:
            fees = market
            if self._key and self._client.has.get("fetchTradingFee") is True:
                fees = self._read(self._client.fetch_trading_fee, key)
            if fees.get("maker") is None or fees.get("taker") is None:
                raise DataError(f"{self._venue}: neither the account nor the market list states fees for {symbol}")
            self._fees[key] = {"maker": float(fees["maker"]), "taker": float(fees["taker"])}
        return dict(self._fees[key])

    def get_limits(self, symbol: str) -> VenueLimits:
        market = self._market(symbol)
        spec = self.instrument_spec(symbol)
        amount, cost = market["limits"]["amount"], market["limits"]["cost"]
        size = _contract_size(market)
        return VenueLimits(
            min_notional=float(cost.get("min") or 0.0),
            min_amount=float(amount.get("min") or 0.0) * size,
            max_amount=float(amount["max"]) * size if amount.get("max") else float("inf"),
            amount_step=str(spec.lot * Decimal(spec.multiplier)),
            margin_rate=self._margin_rate if market["contract"] else None,
        )

    def get_balance(self) -> dict[str, float]:
        self._need_keys("the balance")
        free: dict[str, float] = {}
        for params in self._facts.balance_params:
            answer = self._read(self._client.fetch_balance, dict(params))
            free |= {asset: float(amount) for asset, amount in answer["free"].items() if amount is not None}
        return free

    def instrument_spec(self, symbol: str) -> InstrumentSpec:
        """Tick, lot and fees of a market as its list states them (fees: the list's, not the account's)."""
        market = self._market(symbol)
        assert self._ccxt is not None
        if self._client.precisionMode != self._ccxt.TICK_SIZE:
            raise ConfigError(f"{self._venue} states prices by digits, not by a tick; this connector needs a tick")
        # ccxt parses the venue's decimal strings to the nearest float; repr gives the same decimals back
        return InstrumentSpec(
            instrument=str(self._instrument(symbol)),
            tick_size=str(Decimal(repr(float(market["precision"]["price"])))),
            lot_size=str(Decimal(repr(float(market["precision"]["amount"])))),
            multiplier=str(Decimal(repr(_contract_size(market)))),
            contract="linear" if market["contract"] else "spot",
            maker_fee=float(market["maker"] or 0.0),
            taker_fee=float(market["taker"] or 0.0),
            min_notional=float(market["limits"]["cost"].get("min") or 0.0),
        )

    # -- orders ------------------------------------------------------------------------------------
    def place_order(
        self, symbol: str, side: str, amount: float, price: float | None, order_type: str, client_id: str, *, reduce_only: bool = False
    ) -> dict[str, Any]:
        self._need_keys("placing orders")
        if side not in ("buy", "sell"):
            raise ConfigError(f"side {side!r} is unknown; expected buy or sell")
        if order_type not in ORDER_TYPES:
            raise ConfigError(f"order type {order_type!r} is unknown; expected one of {', '.join(ORDER_TYPES)}")
        if not client_id:
            raise ConfigError("an order needs a client id: without one an unknown outcome cannot be looked up")
        if (price is None) != (order_type == "market"):
            raise ConfigError(f"a {order_type} order {'needs' if price is None else 'takes no'} price, got {price}")
        market, spec = self._market(symbol), self.instrument_spec(symbol)
        if market.get("active") is False:
            raise VenueRejected(f"{self._venue}: {symbol} is not open for trading; nothing was sent")
        lots = spec.base_to_lots(amount)
        if lots <= 0:
            raise VenueRejected(f"{self._venue}: {amount} of {symbol} is below one step of {spec.lots_to_base(1):g}; nothing was sent")
        wire_price = None if price is None else _on_tick(spec, price, Side.BUY if side == "buy" else Side.SELL)
        if wire_price is not None and not reduce_only and spec.lots_to_base(lots) * float(wire_price) < spec.min_notional:
            raise VenueRejected(
                f"{self._venue}: {spec.lots_to_base(lots):g} of {symbol} at {wire_price} is {spec.lots_to_base(lots) * float(wire_price):g} quote, "
                f"the venue takes no less than {spec.min_notional:g}; nothing was sent"
            )
        params: dict[str, Any] = {self._facts.client_id_param: client_id}
        if order_type == "post_only":
            params["postOnly"] = True
        if order_type == "ioc":
            params["timeInForce"] = "IOC"
        if reduce_only:
            params["reduceOnly"] = True
        order = self._write(
            client_id,
            self._client.create_order,
            market["symbol"],
            "market" if order_type == "market" else "limit",
            side,
            float(spec.lots_to_decimal(lots)),
            None if wire_price is None else float(wire_price),
            params,
        )
        return self._order(order, market, symbol, client_id)

    def cancel_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        self._need_keys("cancelling orders")
        market = self._market(symbol)
        order = self._write(client_id, self._client.cancel_order, None, market["symbol"], {self._facts.client_id_param: client_id})
        return self._order(order, market, symbol, client_id)

    def get_order(self, symbol: str, client_id: str) -> dict[str, Any]:
        self._need_keys("orders")
        market = self._market(symbol)
        order = self._read(self._client.fetch_order, None, market["symbol"], {self._facts.client_id_param: client_id})
        return self._order(order, market, symbol, client_id)

    def get_open_orders(self, symbol: str) -> list[dict[str, Any]]:
        self._need_keys("orders")
        market = self._market(symbol)
        orders = self._read(self._client.fetch_open_orders, market["symbol"])
        return [self._order(order, market, symbol, str(order.get("clientOrderId") or "")) for order in orders]

    # -- inside ------------------------------------------------------------------------------------
    def _new_client(self, ccxt: ModuleType) -> Any:
        config: dict[str, Any] = {
            "enableRateLimit": True,
            "timeout": round(self._timeout_s * 1000),
            # currencies need a signed call on another host and tell nothing that is used here
            "options": {"fetchCurrencies": False, "adjustForTimeDifference": True, "maxRetriesOnFailure": 0, **self._options},
        }
        if self._key:
            config |= {"apiKey": self._key, "secret": self._secret}
        if self._passphrase is not None:
            config["password"] = self._passphrase
        if self._urls:
            config["urls"] = {"api": self._urls}
        return getattr(ccxt, self._venue)(config)

    def _choose_test_venue(self, ccxt: ModuleType, client: Any) -> None:
        if not self._testnet:
            return
        if client.urls.get("demo"):
            client.enable_demo_trading(True)
        elif client.urls.get("test"):
            client.set_sandbox_mode(True)
        else:
            raise ConfigError(
                f"{self._venue} has no test venue that ccxt {ccxt.__version__} can reach; use testnet=False, or another venue for trials"
            )

    def _instrument(self, symbol: str) -> InstrumentId:
        if symbol.startswith(f"{self._venue}:"):
            return InstrumentId.parse(symbol)
        return InstrumentId.from_wire(self._venue, symbol)

    def _market(self, symbol: str) -> Any:
        self._need_connection()
        name = self._instrument(symbol).guide_symbol
        market = self._client.markets.get(name)
        if market is None:
            raise ConfigError(f"{self._venue} has no market {name} (asked for {symbol}); it lists {len(self._client.markets)} markets")
        if market.get("inverse"):
            raise ConfigError(
                f"{self._venue}: {name} is an inverse contract; this connector counts amounts in base and takes spot and linear contracts"
            )
        return market

    def _need_connection(self) -> None:
        if not self.connected:
            raise ConfigError(f"{self._venue} is not connected; call connect() first")

    def _need_keys(self, what: str) -> None:
        self._need_connection()
        if not self._key:
            raise ConfigError(f"{self._venue}: {what} needs an API key; this connector was made for public data only")

    def _funding_interval(self, market: Any, stated: object) -> float:
        symbol = market["symbol"]
        if isinstance(stated, str) and stated.endswith("h"):
            return float(stated[:-1])
        if symbol not in self._funding_hours:
            # not every venue states the interval; the stamps do
            stamps = sorted(int(row["timestamp"]) for row in self._read(self._client.fetch_funding_rate_history, symbol, None, 2))
            if len(stamps) < 2:
                raise DataError(f"{self._venue}: {symbol} has {len(stamps)} funding stamps so far; its interval is not known")
            hours = round((stamps[-1] - stamps[-2]) / 3.6e6)
            if hours < 1:
                raise DataError(f"{self._venue}: the last two funding stamps of {symbol} lie {stamps[-1] - stamps[-2]} ms apart, expected hours")
            self._funding_hours[symbol] = float(hours)
        return self._funding_hours[symbol]

    def _order(self, order: Any, market: Any, symbol: str, client_id: str) -> dict[str, Any]:
        if not isinstance(order, dict) or not order.get("id"):
            raise UnknownOutcome(f"{self._venue}: the answer about order {client_id} carries no order id; look it up by get_order before acting")
        size = _contract_size(market)

        def base(name: str) -> float | None:
            return None if order.get(name) is None else float(order[name]) * size

        return {
            "id": str(order["id"]),
            "clientOrderId": order.get("clientOrderId") or client_id,
            "symbol": symbol,
            "side": order.get("side"),
            "type": order.get("type"),
            "timeInForce": order.get("timeInForce"),
            "status": order.get("status"),
            "price": order.get("price"),
            "average": order.get("average"),
            "amount": base("amount"),
            "filled": base("filled"),
            "remaining": base("remaining"),
            "timestamp": order.get("timestamp"),
        }

    def _read(self, call: Callable[..., T], *args: Any) -> T:
        ccxt = self._ccxt
        assert ccxt is not None
        for attempt in range(1, self._read_attempts + 1):
            try:
                return call(*args)
            except ccxt.BaseError as err:
                error = read_error(ccxt, err, self._message(call, err))
                if not isinstance(error, ConnectivityError) or attempt == self._read_attempts:
                    raise error from None
            except _UNREADABLE as err:
                raise DataError(
                    f"{self._venue}: the answer to {_name(call)} could not be read ({self._clean(f'{type(err).__name__}: {err}')})"
                ) from None
            self._sleep(0.2 * 2.0 ** (attempt - 1))
        raise AssertionError("unreachable: the loop returns or raises")

    def _write(self, client_id: str, call: Callable[..., T], *args: Any) -> T:
        ccxt = self._ccxt
        assert ccxt is not None
        try:
            return call(*args)
        except ccxt.BaseError as err:
            # from None: the client's own exception carries the signed request
            raise write_error(ccxt, err, f"{self._message(call, err)} [client id {client_id}]", binance=self._venue in _BINANCE) from None
        except _UNREADABLE as err:
            self._unreadable(call, client_id, err)

    def _unreadable(self, call: Callable[..., object], client_id: str, err: Exception) -> NoReturn:
        raise UnknownOutcome(
            f"{self._venue}: the answer to {_name(call)} could not be read ({self._clean(f'{type(err).__name__}: {err}')}) [client id {client_id}]; "
            "look it up by get_order before acting"
        ) from None

    def _message(self, call: Callable[..., object], err: Exception) -> str:
        return f"{self._venue}: {_name(call)} failed: {type(err).__name__}: {self._clean(str(err))}"

    def _clean(self, text: str) -> str:
        for secret in (self._secret, self._passphrase, self._key):
            if secret:
                text = text.replace(secret, "***")
        return _SIGNATURE.sub(r"\1***", text)


def _name(call: Callable[..., object]) -> str:
    return getattr(call, "__name__", "a call")


def _contract_size(market: Any) -> float:
    """Base per contract; 1 on spot."""
    return float(market["contractSize"]) if market.get("contract") and market.get("contractSize") else 1.0


def _on_tick(spec: InstrumentSpec, price: float, side: Side) -> Decimal:
    """The price on the grid, never better than asked for; float noise below a millionth of a tick is not rounded away."""
    ticks = price / float(spec.tick)
    nearest = round(ticks)
    if nearest > 0 and abs(ticks - nearest) < 1e-6:
        return spec.ticks_to_decimal(nearest)
    on_grid = spec.price_to_ticks(repr(float(price)), side)
    if on_grid <= 0:
        raise VenueRejected(f"{spec.instrument}: price {price} is below one tick of {spec.tick_size}; nothing was sent")
    return spec.ticks_to_decimal(on_grid)
