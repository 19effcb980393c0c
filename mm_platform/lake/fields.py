"""The field registry: every table of the lake, every column with its type, unit and meaning.

Belongs here: names, Arrow types, units, meanings, keys, and the page of documentation made from them. Does not belong here: where and
how rows are stored (`store`), how they are queried (`catalog`), or how a value is computed.

Partition columns. `venue`, `symbol` and `date` are the folders a file lies in, not columns of the file; readers add them. `date` is the
UTC day of `local_ts` after clock repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.tape.layout import COLUMNS as TAPE_COLUMNS


@dataclass(frozen=True, slots=True)
class Field:
    """One column.

    Parameters
    ----------
    name : str
        Column name, the same in Parquet, Arrow and DuckDB.
    type : pyarrow.DataType
        One of int8, int16, int64, float64, bool, string.
    unit : str
        Unit of the value; `1` is a pure number, `frac` a share in [0, 1], `flag` true or false, `text`, `id` and `json` are strings.
    meaning : str
        What the value says, for a reader who has never seen the table.
    nullable : bool
        Whether a value may be missing. A float that is not nullable is finite.
    climbs : bool
        Whether a value lies close to the one of the row above (times, sequence ids, prices of fills): such columns are stored as differences.
    """

    name: str
    type: Any
    unit: str
    meaning: str
    nullable: bool = False
    climbs: bool = False


@dataclass(frozen=True)
class TableSchema:
    """One table of the lake.

    Parameters
    ----------
    name : str
        Folder and view name.
    meaning : str
        What one row is.
    fields : tuple of Field
        The columns of the file, in order.
    key : tuple of str
        Columns that identify a row within its partition.
    partitioned : bool
        Whether rows lie under `venue=/symbol=/date=`; true for every table so far.
    raw : bool
        Market data: visible only where the partition has a row in `data_quality`, written under one lock per instrument.
    ts : str
        The integer nanosecond column behind the view's `ts` timestamp; empty where there is none.
    day_of : str
        The column whose UTC day is the partition's date, checked on writing; empty where the writer chooses the day.
    by_run : bool
        Whether a partition holds one file per run, `part-<run>.parquet`: results too large to be merged, each written once by its own run.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    partitioned: bool = True
    raw: bool = False
    ts: str = ""
    day_of: str = ""
    by_run: bool = False

    @cached_property
    def arrow_schema(self) -> Any:
        """The `pyarrow.Schema` of the stored columns."""
        return pa.schema([pa.field(f.name, f.type, nullable=f.nullable) for f in self.fields])

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @cached_property
    def on_grid(self) -> bool:
        """Whether columns count in ticks or lots, so that the file must carry `tick_size` and `lot_size`."""
        return any(f.unit in ("tick", "lot") for f in self.fields)

    def field(self, name: str) -> Field:
        """A column by name; raises `DataError` naming the columns there are."""
        for f in self.fields:
            if f.name == name:
                return f
        raise DataError(f"table {self.name} has no column {name!r}; it has {', '.join(self.names)}")


PARTITION_FIELDS: Final = (
    Field("venue", pa.string(), "id", "Venue as ccxt spells it (binanceusdm, binance, sim)."),
    Field("symbol", pa.string(), "id", "Symbol within the venue: BASE-QUOTE for spot, BASE-QUOTE-PERP for perpetuals."),
    Field("date", pa.date32(), "UTC day", "The partition's day: the UTC day of local_ts for market data, else the day the writer states."),
)

_I8, _I16, _I64, _F64, _BOOL, _STR = pa.int8(), pa.int16(), pa.int64(), pa.float64(), pa.bool_(), pa.string()


def _exch_ts(meaning: str = "When it happened, by the venue's clock; UTC nanoseconds since 1970.") -> Field:
    return Field("exch_ts", _I64, "ns", meaning, climbs=True)


def _local_ts(meaning: str = "When we could know it, by our clock after repair; UTC nanoseconds since 1970.") -> Field:
    return Field("local_ts", _I64, "ns", meaning, climbs=True)


_PROVENANCE = (
    Field("dataset_sha256", _STR, "sha256", "Fingerprint of the market data it was computed from."),
    Field("code_version", _STR, "text", "Version of this package that computed it."),
)

_TAPE_MEANING: Final[dict[str, tuple[str, str, bool, bool]]] = {
    "exch_ts": ("ns", "When it happened, by the venue's clock; UTC nanoseconds since 1970. Never decreases along the rows.", False, True),
    "local_ts": ("ns", "When we could know it, by our clock after repair; UTC nanoseconds since 1970. Never before exch_ts.", False, True),
    "kind": (
        "code",
        "What the row reports: 1 depth level, 2 trade, 3 book cleared, 4 snapshot level, 5 best quote, 6 mark price, 7 predicted funding, 8 settled funding, 9 status.",
        False,
        False,
    ),
    "side": ("sign", "+1 bid or aggressive buy, -1 ask or aggressive sell, 0 where neither applies.", False, False),
    "flags": (
        "bit mask",
        "1 last row of a venue message, 2 print that fills nobody, 4 local time repaired, 8 exchange time estimated.",
        False,
        False,
    ),
    "price_ticks": ("tick", "Price in ticks; times tick_size is the price in quote.", False, False),
    "qty_lots": ("lot", "Quantity in lots: a level's new absolute quantity (0 = level gone), or a trade's size.", False, False),
    "seq": ("id", "The venue's update or trade id, or the funding stamp in ns for funding rows; -1 where the venue gives none.", False, True),
    "value": ("quote/base or 1", "Mark price for mark rows, rate per interval for funding rows; null elsewhere.", True, False),
    "aux": ("quote/base", "Index price for mark rows, mark price for funding rows; null elsewhere.", True, False),
}

TAPE = TableSchema(
    name="tape",
    meaning="One row per change of the book, trade, mark price, funding or status, in the venue's order: the replay's input.",
    fields=tuple(
        Field(name, pa.from_numpy_dtype(dtype), unit, meaning, nullable, climbs)
        for (name, dtype), (unit, meaning, nullable, climbs) in zip(TAPE_COLUMNS.items(), (_TAPE_MEANING[n] for n in TAPE_COLUMNS), strict=True)
    ),
    key=("exch_ts", "local_ts", "kind", "side", "price_ticks", "seq"),
    raw=True,
    ts="exch_ts",
    day_of="local_ts",
)

TRADES = TableSchema(
    name="trades",
    meaning="One row per trade the venue printed.",
    fields=(
        _exch_ts(),
        _local_ts(),
        Field("trade_id", _I64, "id", "The venue's trade id; -1 where it gives none.", climbs=True),
        Field("side", _I8, "sign", "The taker's side: +1 bought, -1 sold."),
        Field("price_ticks", _I64, "tick", "Price in ticks."),
        Field("qty_lots", _I64, "lot", "Size in lots."),
        Field("price", _F64, "quote/base", "Price in quote currency per unit of base (per contract's price unit for inverse contracts)."),
        Field("qty", _F64, "base", "Size in base currency (in contracts for inverse contracts)."),
        Field("market", _BOOL, "flag", "False for prints that fill nobody's resting order (insurance fund, auto-deleveraging)."),
    ),
    key=("exch_ts", "trade_id"),
    raw=True,
    ts="exch_ts",
    day_of="local_ts",
)

BOOK_TOP = TableSchema(
    name="book_top",
    meaning="One row per change of the best bid or ask.",
    fields=(
        _exch_ts(),
        _local_ts(),
        Field("bid_ticks", _I64, "tick", "Best bid in ticks."),
        Field("bid_lots", _I64, "lot", "Quantity at the best bid in lots."),
        Field("ask_ticks", _I64, "tick", "Best ask in ticks."),
        Field("ask_lots", _I64, "lot", "Quantity at the best ask in lots."),
        Field("bid_price", _F64, "quote/base", "Best bid in quote."),
        Field("ask_price", _F64, "quote/base", "Best ask in quote."),
        Field("bid_qty", _F64, "base", "Quantity at the best bid in base."),
        Field("ask_qty", _F64, "base", "Quantity at the best ask in base."),
        Field("seq", _I64, "id", "The venue's update id the quote stands at; -1 where it gives none.", climbs=True),
        Field("source", _STR, "text", "Where the quote came from: 'depth' = the rebuilt book, 'top' = the venue's own best-quote stream."),
    ),
    key=("exch_ts", "local_ts", "seq", "source"),
    raw=True,
    ts="exch_ts",
    day_of="local_ts",
)

BOOK_STATE = TableSchema(
    name="book_state",
    meaning="One row per level of the book as it stood at the partition's end: the next day continues from it. No rows: the book is not known.",
    fields=(
        Field("side", _I8, "sign", "+1 bid, -1 ask."),
        Field("price_ticks", _I64, "tick", "Level's price in ticks."),
        Field("qty_lots", _I64, "lot", "Quantity resting at the level in lots."),
        Field("seq", _I64, "id", "The venue's update id the book stands at; -1 where it gives none."),
    ),
    key=("side", "price_ticks"),
    raw=True,
)

DATA_QUALITY = TableSchema(
    name="data_quality",
    meaning="One row per ingested partition, written last: what was read, what was wrong with it, and whether to trust it.",
    fields=(
        Field("rows", _I64, "row", "Rows of the tape."),
        Field("lines", _I64, "line", "Lines or records read from the source files."),
        Field("bad_lines", _I64, "line", "Lines that could not be decoded."),
        Field("trades", _I64, "row", "Trades in the tape."),
        Field("depth_messages", _I64, "message", "Depth updates applied to the book."),
        Field("sequence_breaks", _I64, "break", "Depth updates that did not continue the one before them."),
        Field("trade_id_gaps", _I64, "gap", "Places where trade ids jump by more than one."),
        Field("crossed_books", _I64, "message", "Messages after which the best bid was at or above the best ask."),
        Field(
            "top_of_book_match_frac",
            _F64,
            "frac",
            "Share of the venue's own best quotes equal to the rebuilt book at the same update id.",
            nullable=True,
        ),
        Field("top_of_book_compared", _I64, "quote", "How many best quotes could be compared."),
        Field("clock_offset_ns", _I64, "ns", "How much local times were moved forward to repair the recorder's clock (largest; 0 = untouched)."),
        Field("clock_floor_ns", _I64, "ns", "Feed latency the clock repair leaves at least."),
        Field("clock_repaired", _BOOL, "flag", "Whether any local time was moved; results on such data carry latency sensitivities."),
        Field("negative_latency_frac", _F64, "frac", "Share of rows whose recorded local time lay before the exchange time, before repair."),
        Field("unordered_trade_frac", _F64, "frac", "Share of trades that could not be placed before the depth rows reflecting them.", nullable=True),
        Field("gaps", _I64, "gap", "Silences in the feed longer than the ingest's limit."),
        Field("longest_gap_s", _F64, "s", "Longest silence of the feed."),
        Field("duplicates", _I64, "message", "Messages seen before and dropped."),
        Field("non_market_trades", _I64, "row", "Prints that fill nobody's resting order."),
        Field("book", _STR, "text", "'full' = rebuilt from snapshot and updates, 'absent' = no snapshot ever came: trades and best quotes only."),
        Field("chained", _BOOL, "flag", "Whether the book continues the closing book of the day before."),
        Field("first_exch_ts", _I64, "ns", "First exchange time, UTC ns."),
        Field("last_exch_ts", _I64, "ns", "Last exchange time, UTC ns."),
        Field("first_local_ts", _I64, "ns", "First local time, UTC ns."),
        Field("last_local_ts", _I64, "ns", "Last local time, UTC ns."),
        Field("first_seq", _I64, "id", "First depth update id; -1 = none."),
        Field("last_seq", _I64, "id", "Last depth update id; -1 = none."),
        Field("tick_size", _STR, "quote/base", "Price per tick, decimal."),
        Field("lot_size", _STR, "base", "Quantity per lot, decimal (base, or contracts)."),
        Field("sources", _STR, "json", "Source files: list of {name, sha256, bytes}."),
        Field("tape_sha256", _STR, "sha256", "Fingerprint of the tape's content."),
        Field("built_at_ns", _I64, "ns", "When the partition was built, UTC ns."),
        Field("code_version", _STR, "text", "Version of this package that built it."),
        Field("verdict", _STR, "text", "'ok' or 'suspect'; a refused partition is not written at all."),
        Field("reason", _STR, "text", "Why it is suspect; empty when ok."),
    ),
    key=("tape_sha256",),
)

SIGNALS = TableSchema(
    name="signals",
    meaning="One row per decision time: the book's top and the signals a quoting step would see, using only what was known by then.",
    fields=(
        Field("grid_ts", _I64, "ns", "Decision time, UTC ns; nothing with a later local_ts enters the row.", climbs=True),
        Field("bid_ticks", _I64, "tick", "Best bid known, in ticks; null before the first.", nullable=True),
        Field("ask_ticks", _I64, "tick", "Best ask known, in ticks; null before the first.", nullable=True),
        Field("mid", _F64, "quote/base", "Middle of best bid and ask.", nullable=True),
        Field("microprice", _F64, "quote/base", "Mid weighted towards the side with less quantity: where the next mid tends to be.", nullable=True),
        Field("queue_imbalance", _F64, "1", "(bid - ask quantity) / (bid + ask quantity) at the best quotes, in [-1, 1].", nullable=True),
        Field(
            "order_flow_imbalance",
            _F64,
            "1",
            "Net quantity arriving at the best quotes over the window, scaled; positive = buying pressure.",
            nullable=True,
        ),
        Field("kyle_lambda", _F64, "quote/base^2", "Price move per unit of signed traded quantity, fitted over the past window.", nullable=True),
        Field("short_volatility", _F64, "1/sqrt(year)", "Short-horizon relative volatility per square root of a year.", nullable=True),
        Field("spread_bps", _F64, "bps", "Best ask minus best bid in basis points of mid.", nullable=True),
        Field("valid", _BOOL, "flag", "Whether the book was known and every window had filled."),
    ),
    key=("grid_ts",),
    ts="grid_ts",
)

FITS = TableSchema(
    name="fits",
    meaning="One row per fitted parameter: the value, its error, and the data it has seen.",
    fields=(
        Field("name", _STR, "text", "Parameter: sigma, A, k, ..."),
        Field("value", _F64, "see unit", "Fitted value.", nullable=True),
        Field("unit", _STR, "text", "Unit of value and stderr."),
        Field("stderr", _F64, "see unit", "Standard error of value; null where the method gives none.", nullable=True),
        Field("n", _I64, "observation", "Observations used."),
        Field("method", _STR, "text", "Estimator."),
        Field("side", _STR, "text", "'bid', 'ask' or 'both'."),
        Field("gof", _F64, "1", "Goodness of fit as the method states it (R^2, p value).", nullable=True),
        Field("accepted", _BOOL, "flag", "Whether the fit may be used."),
        Field("reason", _STR, "text", "Why it was refused; empty when accepted."),
        Field("fitted_from_ns", _I64, "ns", "Earliest local time used, UTC ns."),
        Field("fitted_through_ns", _I64, "ns", "Latest local time used, UTC ns; nothing at or before it may be judged with this fit."),
        _PROVENANCE[0],
    ),
    key=("name", "side", "method", "fitted_from_ns", "fitted_through_ns"),
    ts="fitted_through_ns",
)

_PNL = (
    Field("total_pnl", _F64, "quote", "Change of equity: spread + hedge + inventory P&L, minus fees, plus funding."),
    Field("spread_pnl", _F64, "quote", "Maker fills against the mid just before them: what the quotes earned."),
    Field("hedge_pnl", _F64, "quote", "Taker hedges against the mid just before them; usually negative."),
    Field("inventory_pnl", _F64, "quote", "Inventory held times moves of the mid."),
    Field("fees", _F64, "quote", "Fees paid, rebates negative; subtracted from the total."),
    Field("funding", _F64, "quote", "Funding received, paid negative."),
)
_ACTIVITY = (
    Field(
        "sharpe",
        _F64,
        "1",
        "Mean over standard deviation of equal-time returns, per square root of a year; null with too few returns.",
        nullable=True,
    ),
    Field("max_drawdown", _F64, "quote", "Largest fall of equity from its peak, positive."),
    Field("maker_fills", _I64, "fill", "Fills of resting orders."),
    Field("taker_fills", _I64, "fill", "Fills of aggressive orders (hedges, flattening)."),
    Field("volume", _F64, "quote", "Traded notional, maker and taker."),
    Field("quotes", _I64, "quote", "Quotes decided."),
)
_INVENTORY = (
    Field("mean_abs_inventory", _F64, "base", "Time-weighted mean of the absolute inventory."),
    Field("fill_ratio", _F64, "frac", "Maker fills per order placed; null when none was placed.", nullable=True),
)

SWEEP_POINTS = TableSchema(
    name="sweep_points",
    meaning="One row per point of a calibration sweep and stretch of data it was run on.",
    fields=(
        Field("sweep_id", _STR, "id", "The sweep the point belongs to."),
        Field("point_id", _STR, "id", "Hash of parameters, data and code: equal ids mean equal results."),
        Field("segment", _STR, "text", "'in_sample' = the earlier part, used to choose; 'out_of_sample' = the later part, used to judge."),
        Field("risk_aversion", _F64, "1", "Risk aversion gamma, per reference notional."),
        Field(
            "hedge_threshold_units",
            _F64,
            "inventory unit",
            "Inventory above which a hedge is sent, in the model's lots of inventory_unit_notional (not the venue's); null = never hedge.",
            nullable=True,
        ),
        *_PNL,
        *_ACTIVITY,
        Field("clamp_min_spread_frac", _F64, "frac", "Share of quotes widened to the smallest spread allowed."),
        Field("clamp_max_spread_frac", _F64, "frac", "Share of quotes narrowed to the largest spread allowed."),
        Field("clamp_inventory_frac", _F64, "frac", "Share of quotes withheld on one side by the inventory limit."),
        Field("clamp_post_only_frac", _F64, "frac", "Share of quotes moved so as not to cross the book."),
        Field("rounding_frac", _F64, "frac", "Share of quotes that did not lie on the tick grid and were rounded away from the mid."),
        *_INVENTORY,
        Field("orders", _I64, "order", "Orders sent, quotes and takers."),
        Field("block_s", _F64, "s", "Length of the blocks of block_pnls_json."),
        Field("block_pnls_json", _STR, "json", "Profit of each whole block of the stretch in order, quote; what the gate's statistics are made of."),
        Field("chosen", _BOOL, "flag", "Whether this point was chosen (on the in-sample part)."),
        Field("mode", _STR, "text", "Replay mode: 'conservative' or 'reference'."),
        *_PROVENANCE,
        Field("from_ns", _I64, "ns", "First local time of the stretch, UTC ns."),
        Field("through_ns", _I64, "ns", "Last local time of the stretch, UTC ns."),
    ),
    key=("sweep_id", "point_id", "segment"),
    ts="through_ns",
)

_MARKOUTS = tuple(
    Field(
        f"markout_{s}s_bps",
        _F64,
        "bps",
        f"Move of the mid from just before the fill to {s} s after it, in our direction; negative = adverse.",
        nullable=True,
    )
    for s in (1, 5, 30, 60, 300)
)

BACKTESTS = TableSchema(
    name="backtests",
    meaning="One row per backtest: its result and the settings that reproduce it.",
    fields=(
        Field("backtest_id", _STR, "id", "Hash of parameters, data, settings and code."),
        *_PNL,
        *_ACTIVITY,
        *_INVENTORY,
        Field("max_abs_inventory", _F64, "base", "Largest absolute inventory."),
        Field("final_inventory", _F64, "base", "Inventory at the end, + = long."),
        Field("win_rate", _F64, "frac", "Share of closed round trips with a profit; null when none closed.", nullable=True),
        *_MARKOUTS,
        Field("fill_model", _STR, "text", "How fills were decided: 'tick' replay or 'bar'; a bar result never passes a gate."),
        Field("mode", _STR, "text", "Replay mode: 'conservative' or 'reference'; empty for bars."),
        Field("entry_latency_ns", _I64, "ns", "Order latency to the venue assumed."),
        Field("response_latency_ns", _I64, "ns", "Latency of the venue's answers assumed."),
        Field("clock_repaired", _BOOL, "flag", "Whether the tape's local times had been repaired."),
        Field("parameters_sha256", _STR, "sha256", "Fingerprint of the parameter set; empty where none was used."),
        Field("settings_json", _STR, "json", "All settings of the run."),
        Field("warnings_json", _STR, "json", "List of warnings the run gave."),
        *_PROVENANCE,
        Field("from_ns", _I64, "ns", "First local time replayed, UTC ns."),
        Field("through_ns", _I64, "ns", "Last local time replayed, UTC ns."),
        Field("run_at_ns", _I64, "ns", "When the backtest ran, UTC ns."),
    ),
    key=("backtest_id",),
    ts="run_at_ns",
)

_FILL = (
    _exch_ts("When the fill happened, by the venue's clock; UTC ns."),
    _local_ts("When we learned of the fill; UTC ns."),
    Field("side", _I8, "sign", "Our side: +1 bought, -1 sold."),
    Field("price_ticks", _I64, "tick", "Price in ticks."),
    Field("qty_lots", _I64, "lot", "Quantity in lots."),
    Field("price", _F64, "quote/base", "Price in quote."),
    Field("qty", _F64, "base", "Quantity in base."),
    Field("maker", _BOOL, "flag", "True when our resting order was hit, false when we took."),
    Field("fee_quote", _F64, "quote", "Fee paid; a rebate is negative."),
    Field("mid", _F64, "quote/base", "Mid just before the fill.", nullable=True),
    *_MARKOUTS,
    Field("purpose", _STR, "text", "Why the order was sent: 'quote', 'hedge' or 'flatten'."),
)

FILLS = TableSchema(
    name="fills",
    meaning="One row per simulated fill of a backtest.",
    fields=(
        Field("backtest_id", _STR, "id", "The backtest it belongs to."),
        Field("fill_no", _I64, "1", "Number of the fill within its backtest, from 0.", climbs=True),
        *_FILL,
    ),
    key=("backtest_id", "fill_no"),
    ts="exch_ts",
)

_RUN_ID = Field("run_id", _STR, "id", "The run: hash of strategy, parameters, data, settings and code.")
_SET_NO = Field("set_no", _I64, "1", "Number of the parameter set within the run, from 0.", climbs=True)

REPLAY_RUNS = TableSchema(
    name="replay_runs",
    meaning="One row per replay of one parameter set: what was run, what was assumed, and what came out.",
    fields=(
        _RUN_ID,
        _SET_NO,
        Field("strategy", _STR, "text", "Name of the strategy."),
        Field("status", _STR, "text", "'done', or why the set was stopped before the end."),
        Field("parameters_json", _STR, "json", "The set's parameters by name."),
        Field("settings_json", _STR, "json", "The venue model and latencies of the run."),
        Field("assumptions_json", _STR, "json", "What the run assumes and what it does not model, in full."),
        Field("mode", _STR, "text", "Fill rule: 'conservative' or 'reference'."),
        Field("queue_model", _STR, "text", "How an order moves up in its queue."),
        Field("entry_latency_ns", _I64, "ns", "Order latency to the venue (median where it varies)."),
        Field("response_latency_ns", _I64, "ns", "Latency of the venue's answers (median where it varies)."),
        Field("hedge_instrument", _STR, "id", "Instrument of the second venue, on which the run hedged; empty without one."),
        Field("currency", _STR, "text", "What profit and its parts are in: the quote currency, or the base of inverse contracts."),
        Field(
            "total_pnl",
            _F64,
            "currency",
            "Change of equity, both venues: spread, hedge and inventory P&L, minus fees, plus funding, and the hedge_ parts.",
        ),
        Field("spread_pnl", _F64, "currency", "Maker fills against the mid just before them: what the quotes earned."),
        Field("hedge_pnl", _F64, "currency", "Taker fills on the first venue against the mid just before them; usually negative."),
        Field("inventory_pnl", _F64, "currency", "Inventory held times moves of the mid; with a second venue, of what stood open, less the delay."),
        Field("fees", _F64, "currency", "First venue: fees paid, rebates negative; subtracted from the total."),
        Field("funding", _F64, "currency", "First venue: funding received, paid negative."),
        Field("residual_quanta", _I64, "1", "Cash and position against the sum of the parts, in half ticks x lots: 0 unless the ledger is broken."),
        Field("hedge_crossing_pnl", _F64, "currency", "Second venue: hedges against its mid just before them, before fees.", nullable=True),
        Field("hedge_delay_pnl", _F64, "currency", "Second venue: move of its mid between the decision to hedge and the execution.", nullable=True),
        Field("hedge_basis_pnl", _F64, "currency", "Hedged position times the change of the difference of both venues' mids.", nullable=True),
        Field("hedge_fees", _F64, "currency", "Second venue: fees paid, rebates negative.", nullable=True),
        Field("hedge_funding", _F64, "currency", "Second venue: funding received, paid negative.", nullable=True),
        Field("sharpe", _F64, "1", "Annualised Sharpe ratio of equal-time returns; null with too few returns.", nullable=True),
        Field("max_drawdown", _F64, "quote", "Largest fall of sampled equity from its peak, positive."),
        Field("maker_fills", _I64, "fill", "Executions of resting orders."),
        Field("taker_fills", _I64, "fill", "Executions of aggressive orders (hedges, flattening)."),
        Field("filled_lots", _I64, "lot", "Lots executed on the first venue, maker and taker."),
        Field("volume", _F64, "quote", "Traded notional on the first venue, maker and taker."),
        Field("decisions", _I64, "1", "Decisions taken."),
        Field("orders", _I64, "order", "Orders sent, quotes and takers."),
        Field("cancels", _I64, "order", "Cancels sent."),
        Field("post_only_rejects", _I64, "order", "Quotes the venue refused because they would have crossed."),
        Field("cancel_rejects", _I64, "order", "Cancels that came too late."),
        Field("fill_ratio", _F64, "frac", "Quotes with at least one execution per quote sent; null when none was sent.", nullable=True),
        Field("mean_abs_inventory", _F64, "base", "Mean of the absolute inventory over decisions."),
        Field("max_abs_inventory", _F64, "base", "Largest absolute inventory at a sample."),
        Field("final_inventory", _F64, "base", "Inventory at the end, + = long."),
        Field("win_rate", _F64, "frac", "Share of closed round trips with a profit; null when none closed or not computed.", nullable=True),
        *_MARKOUTS,
        Field("front_arrival_p50_lots", _F64, "lot", "Median quantity ahead of filled orders when they arrived.", nullable=True),
        Field("time_to_fill_p50_s", _F64, "s", "Median time from an order's arrival to its execution as maker.", nullable=True),
        Field("statistics_json", _STR, "json", "Fill ratios, queue statistics and latencies in full."),
        Field("orders_logged", _BOOL, "flag", "Whether the run kept its order log in replay_orders."),
        *_PROVENANCE,
        Field("from_ns", _I64, "ns", "First time replayed, UTC ns."),
        Field("through_ns", _I64, "ns", "Last time replayed, UTC ns."),
        Field("run_at_ns", _I64, "ns", "When the run was written, UTC ns."),
    ),
    key=("run_id", "set_no"),
    ts="run_at_ns",
    by_run=True,
)

REPLAY_FILLS = TableSchema(
    name="replay_fills",
    meaning="One row per execution of a replay; prices and quantities of the second venue count in that instrument's ticks and lots.",
    fields=(
        _RUN_ID,
        _SET_NO,
        Field("venue_no", _I8, "1", "0 the instrument quoted (the folder's), 1 the one hedged on."),
        _exch_ts("When the execution happened, by the venue's clock; UTC ns."),
        _local_ts("When the strategy knew of it; UTC ns."),
        Field("order_id", _I64, "id", "The set's own number of the order.", climbs=True),
        Field("side", _I8, "sign", "Our side: +1 bought, -1 sold."),
        Field("price_ticks", _I64, "tick", "Price in ticks.", climbs=True),
        Field("qty_lots", _I64, "lot", "Quantity in lots."),
        Field("leaves_lots", _I64, "lot", "What the order still had to fill afterwards."),
        Field("maker", _BOOL, "flag", "True when our resting order was hit, false when we took."),
        Field("purpose", _I8, "code", "Why the order was sent: 0 quote, 1 hedge, 2 flatten."),
        Field("mid_half_ticks", _I64, "half tick", "Best bid plus best ask in ticks just before the execution.", climbs=True),
        Field("fee_nano", _I64, "1e-9 currency", "Fee in billionths of the currency; a rebate is negative."),
        Field("position_lots", _I64, "lot", "The set's position at that venue afterwards, + = long."),
        Field("arrived_ns", _I64, "ns", "When the order reached the venue, UTC ns.", climbs=True),
        Field("front_arrival_lots", _F64, "lot", "Quantity ahead of the order in its queue on arrival; null where it had no queue.", nullable=True),
        Field("front_fill_lots", _F64, "lot", "Quantity still ahead just before the execution, by the queue model; null as above.", nullable=True),
        Field(
            "decided_mid_half_ticks",
            _I64,
            "half tick",
            "Best bid plus best ask in ticks as the decision that sent the order saw it; 0 where unknown.",
            climbs=True,
        ),
    ),
    key=("run_id", "set_no", "venue_no", "order_id", "leaves_lots"),
    ts="exch_ts",
    day_of="local_ts",
    by_run=True,
)

REPLAY_ORDERS = TableSchema(
    name="replay_orders",
    meaning="One row per request of a replay that kept its order log: orders, cancels and modifications, and what the venue said.",
    fields=(
        _RUN_ID,
        _SET_NO,
        Field("request_no", _I64, "1", "Number of the request within its set, from 0, in the order logged.", climbs=True),
        Field("venue_no", _I8, "1", "0 the instrument quoted (the folder's), 1 the one hedged on."),
        Field("order_id", _I64, "id", "The set's own number of the order.", climbs=True),
        Field("action", _I8, "code", "1 place, 2 cancel, 3 modify."),
        Field("side", _I8, "sign", "+1 buy, -1 sell."),
        Field("price_ticks", _I64, "tick", "Limit price asked for, in ticks.", climbs=True),
        Field("qty_lots", _I64, "lot", "Quantity asked for, in lots."),
        Field("time_in_force", _I8, "code", "0 good till cancelled, 1 post-only, 2 immediate or cancel, 3 fill or kill."),
        Field("order_type", _I8, "code", "0 limit, 1 market."),
        Field("purpose", _I8, "code", "0 quote, 1 hedge, 2 flatten."),
        Field("sent_ns", _I64, "ns", "When it was sent, UTC ns.", climbs=True),
        Field("arrived_ns", _I64, "ns", "When the venue had it, UTC ns; -1 = it never arrived.", climbs=True),
        Field("answered_ns", _I64, "ns", "When the strategy had the answer, UTC ns; -1 = not before the end.", climbs=True),
        Field(
            "outcome",
            _I8,
            "code",
            "What became of it on arrival: 0 pending, 1 resting, 2 filled, 3 expired, 4 cancelled, 5 modified, 6 rejected, 7 lost on the way.",
        ),
    ),
    key=("run_id", "set_no", "request_no"),
    ts="sent_ns",
    day_of="sent_ns",
    by_run=True,
)

REPLAY_EQUITY = TableSchema(
    name="replay_equity",
    meaning="One row per sample of a set's account during a replay, on an even grid of time; the last one is the end of the run.",
    fields=(
        _RUN_ID,
        _SET_NO,
        Field("ts_ns", _I64, "ns", "Time of the sample, UTC ns.", climbs=True),
        Field(
            "equity",
            _F64,
            "quote",
            "Profit since the start at the mids, all venues, fees and funding in; an inverse contract's base valued at the mid.",
        ),
        Field("position_lots", _I64, "lot", "Position on the first venue, + = long.", climbs=True),
        Field("hedge_position_lots", _I64, "lot", "Position on the second venue in its lots, + = long; 0 without one."),
        Field("mid_half_ticks", _I64, "half tick", "Best bid plus best ask of the first venue, in ticks.", climbs=True),
        Field(
            "liquidation_distance_frac",
            _F64,
            "frac",
            "How far the price may move against the position until liquidation, a fraction of the mid; null when flat or where margin is not tracked.",
            nullable=True,
        ),
    ),
    key=("run_id", "set_no", "ts_ns"),
    ts="ts_ns",
    day_of="ts_ns",
    by_run=True,
)

LIVE_FILLS = TableSchema(
    name="live_fills",
    meaning="One row per fill of the live runner, whatever its mode.",
    fields=(
        Field("run_id", _STR, "id", "The run of the runner."),
        Field("client_id", _STR, "id", "Our id of the order."),
        Field("trade_id", _STR, "id", "The venue's id of the fill."),
        *_FILL,
        Field("parameter_version", _STR, "id", "Registry version of the parameters the order was placed under."),
        Field("mode", _STR, "text", "How real it was: 'sim', 'paper', 'testnet' or 'live'."),
    ),
    key=("run_id", "client_id", "trade_id"),
    ts="exch_ts",
)

FUNDING_RATES = TableSchema(
    name="funding_rates",
    meaning="One row per funding stamp (or prediction of one) of a perpetual.",
    fields=(
        Field("ts_ns", _I64, "ns", "Funding stamp, UTC ns: positions held then pay or receive.", climbs=True),
        Field("rate", _F64, "1", "Rate per interval on notional; positive = longs pay shorts."),
        Field("interval_h", _F64, "h", "Hours the rate is for."),
        Field("is_predicted", _BOOL, "flag", "True for a venue's prediction, false for a settled rate."),
        Field("mark_price", _F64, "quote/base", "Mark price the payment is on.", nullable=True),
        Field("apr", _F64, "1/year", "Rate per year without compounding: rate x 8760 / interval_h. Use it for P&L."),
        Field("apy", _F64, "1/year", "Rate per year if every payment were reinvested. For display only."),
        Field("rate_8h", _F64, "1", "The rate per 8 hours, so that venues with different intervals compare."),
        Field("source", _STR, "text", "File or feed it came from."),
    ),
    key=("ts_ns", "is_predicted", "source"),
    ts="ts_ns",
)

OPPORTUNITIES = TableSchema(
    name="opportunities",
    meaning="One row per funding trade the scan looked at, with costs in; stored under its short leg.",
    fields=(
        Field("ts_ns", _I64, "ns", "When it was seen, UTC ns.", climbs=True),
        Field("kind", _STR, "text", "'cash_and_carry' = spot against perp, 'cross_venue' = perp against perp."),
        Field("long_instrument", _STR, "id", "Instrument id to be long."),
        Field("short_instrument", _STR, "id", "Instrument id to be short."),
        Field("rate_8h", _F64, "1", "Net funding received per 8 hours on notional, before costs."),
        Field("apr", _F64, "1/year", "Net funding per year on notional, before costs, without compounding."),
        Field("basis_frac", _F64, "1", "(short leg's price - long leg's price) / long leg's price.", nullable=True),
        Field("cost_frac", _F64, "1", "Fees and half spreads of all legs, in and out, on notional."),
        Field("holding_h", _F64, "h", "Holding time the net figure assumes."),
        Field("break_even_h", _F64, "h", "Hours until funding has paid the costs; null when it never does.", nullable=True),
        Field("net_apr", _F64, "1/year", "Per year on notional after costs over the holding time. Rank by this, never by the raw rate."),
        Field("accepted", _BOOL, "flag", "Whether it passed the scan's thresholds."),
        Field("reason", _STR, "json", "The facts behind the verdict."),
    ),
    key=("ts_ns", "kind", "long_instrument", "short_instrument"),
    ts="ts_ns",
)

PARAMETER_SETS = TableSchema(
    name="parameter_sets",
    meaning="One row per registered parameter set and what became of it.",
    fields=(
        Field("version", _STR, "id", "Version in the model registry."),
        Field("sha256", _STR, "sha256", "Fingerprint of the canonical JSON."),
        Field("parameters_json", _STR, "json", "The parameter set, values with units, errors and sources."),
        Field("valid_from_ns", _I64, "ns", "From when it may be used, UTC ns."),
        Field("fitted_through_ns", _I64, "ns", "Latest local time its fits have seen, UTC ns."),
        Field("verdict", _STR, "text", "The gate's verdict: 'pass', 'fail' or 'insufficient_evidence'."),
        Field("alias", _STR, "text", "Alias it held when the row was written: 'champion', 'challenger', 'previous'; null = none.", nullable=True),
        Field("published_at_ns", _I64, "ns", "When it was registered, UTC ns."),
    ),
    key=("version",),
    ts="published_at_ns",
)

INSTRUMENTS = TableSchema(
    name="instruments",
    meaning="One row per set of dated instrument facts; date = the day they became valid.",
    fields=(
        Field("instrument", _STR, "id", "Instrument id, <venue>:<BASE>-<QUOTE>[-PERP]."),
        Field("tick_size", _STR, "quote/base", "Price per tick, decimal."),
        Field("lot_size", _STR, "base", "Quantity per lot, decimal (base, or contracts)."),
        Field("multiplier", _STR, "base/contract", "Base currency per contract, decimal; 1 where lots count base."),
        Field("contract", _STR, "text", "'spot', 'linear' or 'inverse'."),
        Field("maker_fee", _F64, "frac", "Fee of resting fills on notional; negative = rebate."),
        Field("taker_fee", _F64, "frac", "Fee of aggressive fills on notional."),
        Field("min_notional", _F64, "quote", "Smallest order the venue takes."),
        Field("funding_interval_s", _I64, "s", "Seconds between funding stamps; null for spot.", nullable=True),
        Field("valid_from_ns", _I64, "ns", "These facts hold from here on, UTC ns."),
    ),
    key=("valid_from_ns",),
    ts="valid_from_ns",
)

TABLES: Final[dict[str, TableSchema]] = {
    schema.name: schema
    for schema in (
        TAPE,
        TRADES,
        BOOK_TOP,
        BOOK_STATE,
        DATA_QUALITY,
        INSTRUMENTS,
        SIGNALS,
        FITS,
        SWEEP_POINTS,
        BACKTESTS,
        FILLS,
        REPLAY_RUNS,
        REPLAY_FILLS,
        REPLAY_ORDERS,
        REPLAY_EQUITY,
        LIVE_FILLS,
        FUNDING_RATES,
        OPPORTUNITIES,
        PARAMETER_SETS,
    )
}


def table_schema(name: str) -> TableSchema:
    """A table by name; raises `ConfigError` naming the tables there are."""
    if name not in TABLES:
        raise ConfigError(f"the lake has no table {name!r}; tables are {', '.join(TABLES)}")
    return TABLES[name]


def tables_markdown() -> str:
    """The documentation page of all tables (`docs/tables.md`), made from the registry."""
    lines = [
        "# Tables of the lake",
        "",
        "Made from `mm_platform/lake/fields.py` by `tables_markdown()`; a test keeps it equal, so change the registry and write this page anew:",
        "",
        "    python -m mm_platform.lake.fields > docs/tables.md",
        "",
        "Files lie under `<lake>/<table>/venue=<venue>/symbol=<symbol>/date=<UTC day>/part-0.parquet`. `venue`, `symbol` and `date` come from the",
        "folders; DuckDB views show them as columns, and add `ts`, a UTC timestamp in microseconds of the column named with each table. Times ending in",
        "`_ts` or `_ns` are nanoseconds since 1970, UTC. Files with ticks or lots carry `tick_size` and `lot_size` as metadata. The views of tape, trades,",
        "book_top and book_state show complete partitions only: those with a row in data_quality. The tables of replays hold one file per run,",
        "`part-<run_id>.parquet`, so that runs neither merge nor wait for each other; to forget a run, remove its files.",
    ]
    for schema in TABLES.values():
        lines += [
            "",
            f"## {schema.name}",
            "",
            schema.meaning,
            "",
            f"Key: {', '.join(f'`{k}`' for k in schema.key)}." + (f" `ts` from `{schema.ts}`." if schema.ts else ""),
            "",
        ]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{f.name}` | {f.type}{', may be null' if f.nullable else ''} | {f.unit} | {f.meaning.replace('|', chr(92) + '|')} |"
            for f in schema.fields
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables_markdown(), end="")
