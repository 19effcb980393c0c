"""A small venue on a local port, enough of two REST dialects for the real, unmodified ccxt client.

Binance USD-M: exchangeInfo, time, depth, aggTrades, premiumIndex, fundingRate; with API key, timestamp and HMAC checked: account,
commissionRate, order (POST, GET, DELETE), openOrders. KuCoin futures: the calls that ccxt makes to connect, and the order book; key,
passphrase and signature checked.

One venue = one server = one market BTC/USDT perp with a book that orders really take from. Faults are asked for by the test: an order can
be refused, lost before it was accepted, or lost after.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API_KEY = "fixture-key"
API_SECRET = "fixture-secret"
API_PASSPHRASE = "fixture-passphrase"
RECV_WINDOW_MS = 10_000
FUNDING_MS = 8 * 3_600_000


class Refused(Exception):
    """An answer with a venue code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Order:
    order_id: int
    client_id: str
    side: str
    kind: str
    tif: str
    price: Decimal
    quantity: Decimal
    reduce_only: bool
    filled: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    status: str = "NEW"

    def wire(self) -> dict[str, Any]:
        now = int(time.time() * 1000)
        return {
            "orderId": self.order_id,
            "symbol": "BTCUSDT",
            "status": self.status,
            "clientOrderId": self.client_id,
            "price": str(self.price),
            "avgPrice": str(self.paid / self.filled if self.filled else Decimal(0)),
            "origQty": str(self.quantity),
            "executedQty": str(self.filled),
            "cumQuote": str(self.paid),
            "timeInForce": self.tif,
            "type": self.kind,
            "reduceOnly": self.reduce_only,
            "side": self.side,
            "origType": self.kind,
            "updateTime": now,
            "time": now,
        }


@dataclass
class Venue:
    """The venue's state. `bids` and `asks`: [price, quantity in base] as decimal strings, best first."""

    bids: list[list[str]] = field(default_factory=lambda: [["49999.9", "1.000"], ["49999.0", "2.000"], ["49990.0", "10.000"]])
    asks: list[list[str]] = field(default_factory=lambda: [["50000.1", "1.000"], ["50001.0", "2.000"], ["50010.0", "10.000"]])
    taker_fee: str = "0.0005"
    maker_fee: str = "0.0002"
    usdt: str = "1000000"
    funding_rate: str = "0.0005"
    funding_hours: int = 8
    status: str = "TRADING"
    clock_offset_ms: int = 0
    orders: dict[str, Order] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    # what happens to coming calls: (METHOD path) -> list of ("refuse", status, code, message) | ("lose_before",) | ("lose_after",) | ("garble",)
    # | ("hang_up",)
    faults: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    # -- Binance USD-M -------------------------------------------------------------------------------
    def binance(self, method: str, path: str, query: dict[str, str]) -> Any:
        endpoint = path.split("/fapi/", 1)[1].split("/", 1)[1]
        now = int(time.time() * 1000) + self.clock_offset_ms
        match method, endpoint:
            case "GET", "time":
                return {"serverTime": now}
            case "GET", "exchangeInfo":
                return _exchange_info(self.status, now)
            case "GET", "depth":
                _known(query)
                n = int(query["limit"])
                if n not in (5, 10, 20, 50, 100, 500, 1000):
                    raise Refused(400, -4021, f"{n} is not valid depth limit")
                return {"lastUpdateId": 1000 + len(self.calls), "E": now, "T": now, "bids": self.bids[:n], "asks": self.asks[:n]}
            case "GET", "aggTrades":
                _known(query)
                trades = [{"a": i, "p": "50000.0", "q": "0.010", "f": i, "l": i, "T": now - 1000 * (10 - i), "m": i % 2 == 0} for i in range(1, 11)]
                return trades[-int(query["limit"]) :]
            case "GET", "premiumIndex":
                _known(query)
                step = self.funding_hours * 3_600_000
                return {
                    "symbol": "BTCUSDT",
                    "markPrice": "50005.00",
                    "indexPrice": "50000.00",
                    "lastFundingRate": self.funding_rate,
                    "interestRate": "0.0001",
                    "nextFundingTime": (now // step + 1) * step,
                    "time": now,
                }
            case "GET", "fundingRate":
                step = self.funding_hours * 3_600_000
                last = now // step * step
                return [
                    {"symbol": "BTCUSDT", "fundingTime": last - k * step, "fundingRate": self.funding_rate, "markPrice": "50005.0"}
                    for k in range(int(query.get("limit", "100")) - 1, -1, -1)
                ]
            case "GET", "account":
                asset = {
                    "asset": "USDT",
                    "walletBalance": self.usdt,
                    "unrealizedProfit": "0",
                    "marginBalance": self.usdt,
                    "maintMargin": "0",
                    "initialMargin": "0",
                    "availableBalance": self.usdt,
                    "maxWithdrawAmount": self.usdt,
                    "updateTime": now,
                }
                return {"assets": [asset], "positions": [], "totalWalletBalance": self.usdt, "availableBalance": self.usdt}
            case "GET", "commissionRate":
                return {"symbol": "BTCUSDT", "makerCommissionRate": self.maker_fee, "takerCommissionRate": self.taker_fee}
            case "POST", "order":
                return self._place(query).wire()
            case "GET", "order":
                return self._find(query, -2013, "Order does not exist.").wire()
            case "DELETE", "order":
                order = self._find(query, -2011, "Unknown order sent.")
                if order.status not in ("NEW", "PARTIALLY_FILLED"):
                    raise Refused(400, -2011, "Unknown order sent.")
                order.status = "CANCELED"
                return order.wire()
            case "GET", "openOrders":
                return [o.wire() for o in self.orders.values() if o.status in ("NEW", "PARTIALLY_FILLED")]
        raise Refused(404, -1, f"the fixture has no {method} {path}")

    def _find(self, query: dict[str, str], code: int, message: str) -> Order:
        order = self.orders.get(query.get("origClientOrderId", ""))
        if order is None:
            raise Refused(400, code, message)
        return order

    def _place(self, query: dict[str, str]) -> Order:
        _known(query)
        client_id = query.get("newClientOrderId") or f"auto-{len(self.orders)}"
        if len(client_id) > 36:
            raise Refused(400, -4015, "Client order id length should be less than 36 chars.")
        if client_id in self.orders and self.orders[client_id].status in ("NEW", "PARTIALLY_FILLED"):
            raise Refused(400, -4116, "ClientOrderId is duplicated.")
        quantity = Decimal(query["quantity"])
        if quantity % Decimal("0.001"):
            raise Refused(400, -1111, "Precision is over the maximum defined for this asset.")
        order = Order(
            order_id=8_000_000 + len(self.orders),
            client_id=client_id,
            side=query["side"],
            kind=query["type"],
            tif=query.get("timeInForce", "GTC"),
            price=Decimal(query.get("price", "0")),
            quantity=quantity,
            reduce_only=query.get("reduceOnly", "false").lower() == "true",
        )
        if order.kind == "LIMIT" and order.price % Decimal("0.1"):
            raise Refused(400, -4014, "Price not increased by tick size.")
        if order.kind == "LIMIT" and not order.reduce_only and order.price * quantity < 100:
            raise Refused(400, -4164, "Order's notional must be no smaller than 100 (unless you choose reduce only).")
        self._match(order)
        self.orders[client_id] = order
        return order

    def _match(self, order: Order) -> None:
        book = self.asks if order.side == "BUY" else self.bids
        sign = 1 if order.side == "BUY" else -1
        crosses = bool(book) and (order.kind == "MARKET" or sign * (order.price - Decimal(book[0][0])) >= 0)
        if order.tif == "GTX" and crosses:
            raise Refused(400, -5022, "Due to the order could not be executed as maker, the Post Only order will be rejected.")
        while book and order.filled < order.quantity and (order.kind == "MARKET" or sign * (order.price - Decimal(book[0][0])) >= 0):
            price, there = Decimal(book[0][0]), Decimal(book[0][1])
            got = min(there, order.quantity - order.filled)
            order.filled += got
            order.paid += got * price
            book[0][1] = str(there - got)
            if there == got:
                book.pop(0)
        if order.filled == order.quantity:
            order.status = "FILLED"
        elif order.tif in ("IOC", "FOK") or order.kind == "MARKET":
            order.status = "EXPIRED"
        elif order.filled:
            order.status = "PARTIALLY_FILLED"

    # -- KuCoin futures ------------------------------------------------------------------------------
    def kucoin(self, method: str, path: str, query: dict[str, str]) -> Any:
        now = int(time.time() * 1000)
        match method, path:
            case "GET", "/api/ua/v1/account/mode":
                return {"selfAccountMode": "CLASSIC"}
            case "GET", "/api/v1/timestamp":
                return now
            case "GET", "/api/v3/currencies":
                return [{"currency": c, "name": c, "fullName": c, "precision": 8, "isMarginEnabled": False, "chains": []} for c in ("BTC", "USDT")]
            case "GET", "/api/v1/contracts/active":
                return [_kucoin_contract(self.status)]
            case "GET", "/api/v3/margin/symbols":
                return {"timestamp": now, "items": []}
            case "GET", "/api/v1/isolated/symbols":
                return []
            case "GET", "/api/v1/hf/accounts/opened":
                return True
            case "GET", "/api/v1/account-overview":
                return {"currency": query["currency"], "availableBalance": float(self.usdt), "accountEquity": float(self.usdt)}
            case "GET", "/api/v1/level2/depth20" | "/api/v1/level2/depth100":
                n = 20 if path.endswith("20") else 100
                contracts = [[[float(p), int(Decimal(q) * 1000)] for p, q in side[:n]] for side in (self.bids, self.asks)]
                return {"symbol": "XBTUSDTM", "sequence": 1, "bids": contracts[0], "asks": contracts[1], "ts": now * 1_000_000}
            case "GET", "/api/v1/trade-fees":
                return {"symbol": "XBTUSDTM", "takerFeeRate": self.taker_fee, "makerFeeRate": self.maker_fee}
        raise Refused(404, 404000, f"the fixture has no {method} {path}")


def _known(query: dict[str, str]) -> None:
    if query.get("symbol") != "BTCUSDT":
        raise Refused(400, -1121, "Invalid symbol.")


def _exchange_info(status: str, now: int) -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "serverTime": now,
        "rateLimits": [],
        "exchangeFilters": [],
        "assets": [],
        "symbols": [
            {
                "symbol": "BTCUSDT",
                "pair": "BTCUSDT",
                "contractType": "PERPETUAL",
                "deliveryDate": 4133404800000,
                "onboardDate": 1569398400000,
                "status": status,
                "maintMarginPercent": "2.5000",
                "requiredMarginPercent": "5.0000",
                "baseAsset": "BTC",
                "quoteAsset": "USDT",
                "marginAsset": "USDT",
                "pricePrecision": 2,
                "quantityPrecision": 3,
                "baseAssetPrecision": 8,
                "quotePrecision": 8,
                "underlyingType": "COIN",
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": "0.10", "maxPrice": "1000000", "tickSize": "0.10"},
                    {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
                    {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "120", "stepSize": "0.001"},
                    {"filterType": "MAX_NUM_ORDERS", "limit": 200},
                    {"filterType": "MIN_NOTIONAL", "notional": "100"},
                ],
                "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
                "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            }
        ],
    }


def _kucoin_contract(status: str) -> dict[str, Any]:
    return {
        "symbol": "XBTUSDTM",
        "rootSymbol": "USDT",
        "type": "FFWCSX",
        "firstOpenDate": 1585555200000,
        "expireDate": None,
        "settleDate": None,
        "baseCurrency": "XBT",
        "quoteCurrency": "USDT",
        "settleCurrency": "USDT",
        "maxOrderQty": 1000000,
        "maxPrice": 1000000.0,
        "lotSize": 1,
        "tickSize": 0.1,
        "indexPriceTickSize": 0.01,
        "multiplier": 0.001,
        "initialMargin": 0.008,
        "maintainMargin": 0.004,
        "maxLeverage": 125,
        "isInverse": False,
        "makerFeeRate": 0.0002,
        "takerFeeRate": 0.0006,
        "status": "Open" if status == "TRADING" else "Paused",
        "fundingFeeRate": 0.0001,
        "nextFundingRateTime": 10_000_000,
        "markPrice": 50005.0,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    venue: Venue

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        call = f"{method} {parts.path}"
        with self.venue.lock:
            self.venue.calls.append(call)
            faults = self.venue.faults.get(call, [])
            fault = faults.pop(0) if faults else ("none",)
            try:
                if fault[0] == "refuse":
                    raise Refused(*fault[1:])
                if fault[0] == "lose_before":
                    raise Refused(503, -1000, "An unknown error occurred while processing the request.")
                if parts.path.startswith("/fapi/"):
                    query = self._signed_binance(method, parts.path, parts.query, body)
                    status, answer = 200, self.venue.binance(method, parts.path, query)
                else:
                    self._signed_kucoin(method, parts.path, parts.query, body)
                    status, answer = 200, {"code": "200000", "data": self.venue.kucoin(method, parts.path, dict(parse_qsl(parts.query)))}
                if fault[0] == "lose_after":
                    raise Refused(503, -1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown.")
                if fault[0] == "garble":
                    answer = {"symbol": "BTCUSDT"}
            except Refused as err:
                status = err.status
                answer = {"code": err.code, "msg": err.message}
        if fault[0] == "hang_up":
            self.close_connection = True
            self.connection.close()
            return
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _signed_binance(self, method: str, path: str, query: str, body: str) -> dict[str, str]:
        public = ("time", "exchangeInfo", "depth", "aggTrades", "premiumIndex", "fundingRate")
        if path.rsplit("/", 1)[1] in public:
            return dict(parse_qsl(query))
        if self.headers.get("X-MBX-APIKEY") != API_KEY:
            raise Refused(401, -2015, "Invalid API-key, IP, or permissions for action.")
        signed, _, signature = (body if method == "POST" else query).rpartition("&signature=")
        if not hmac.compare_digest(hmac.new(API_SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest(), signature):
            raise Refused(400, -1022, "Signature for this request is not valid.")
        fields = dict(parse_qsl(signed))
        age_ms = int(time.time() * 1000) + self.venue.clock_offset_ms - int(fields["timestamp"])
        if not -1000 <= age_ms <= int(fields.get("recvWindow", RECV_WINDOW_MS)):
            raise Refused(400, -1021, "Timestamp for this request is outside of the recvWindow.")
        return fields

    def _signed_kucoin(self, method: str, path: str, query: str, body: str) -> None:
        if not self.headers.get("KC-API-KEY"):
            return
        to_sign = self.headers["KC-API-TIMESTAMP"] + method + path + (f"?{query}" if query else "") + body
        wanted = base64.b64encode(hmac.new(API_SECRET.encode(), to_sign.encode(), hashlib.sha256).digest()).decode()
        passphrase = base64.b64encode(hmac.new(API_SECRET.encode(), API_PASSPHRASE.encode(), hashlib.sha256).digest()).decode()
        if self.headers["KC-API-KEY"] != API_KEY:
            raise Refused(401, 400003, "KC-API-KEY not exists")
        if self.headers["KC-API-PASSPHRASE"] != passphrase:
            raise Refused(401, 400004, "Invalid KC-API-PASSPHRASE")
        if self.headers["KC-API-SIGN"] != wanted:
            raise Refused(401, 400005, "Invalid KC-API-SIGN")


@dataclass(frozen=True)
class Running:
    """A served venue and what a connector needs to reach it."""

    venue: Venue
    address: str

    @property
    def binance_urls(self) -> dict[str, str]:
        versions = {"": "v1", "V2": "v2", "V3": "v3"}
        api = {f"fapi{scope}{suffix}": f"{self.address}/fapi/{v}" for scope in ("Public", "Private") for suffix, v in versions.items()}
        return api | {"fapiData": f"{self.address}/futures/data", "sapi": f"{self.address}/sapi/v1"}

    @property
    def kucoin_urls(self) -> dict[str, str]:
        return dict.fromkeys(("public", "private", "futuresPublic", "futuresPrivate", "uta", "utaV2", "utaPrivate"), self.address)


@contextmanager
def serve(venue: Venue | None = None) -> Iterator[Running]:
    """Serve a venue on a free local port until the block ends."""
    state = venue or Venue()
    handler = type("Handler", (_Handler,), {"venue": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Running(state, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
