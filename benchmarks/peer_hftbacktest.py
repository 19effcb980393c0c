"""hftbacktest's side of `benchmarks/replay.py`: started by it in hftbacktest's own interpreter, works on command.

Needs hftbacktest 2.4, numpy and numba, and nothing of mm_platform. Reads one JSON object per line from stdin and answers each with one on stdout.
It loads the array once, keeps two forked processes for sweeps (forked after loading and compiling, so that neither is timed), and uses the book over a
price range (ROI), its fastest.

The strategy "glft1" quotes one bid and one ask around a reservation price; prices in ticks:

    c1 = ln(1 + gamma / kappa) / gamma,   c2 = sqrt(gamma / (2 A kappa) (1 + gamma / kappa)^(kappa / gamma + 1))
    every step of 100 ms:  mid = (bid + ask) / 2;  var += (0.1 / 60) (d^2 / 0.1 - var), d = change of the mid, var = 4 at first
    skew = c2 sqrt(var);  half = c1 + skew / 2;  r = mid - skew position / quantity
    bid = min(floor(r - half), best bid), wanted below +10 quantities;  ask = max(ceil(r + half), best ask), wanted above -10 quantities

A side whose last order waits for an answer rests; an order off its target is cancelled and, if the side is wanted, replaced in the same step; new orders
are post-only and numbered in order of sending, bid before ask.

With a hedge venue (the same tape again, as a second asset) the position is that of both venues together, and while no hedge is under way a position of
`hedge_units` quantities or more is closed by a market order there.

References
----------
O. Gueant, C.-A. Lehalle, J. Fernandez-Tapia (2013), "Dealing with the inventory risk", Mathematics and Financial Economics 7, section 4.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import time

import numpy as np
from hftbacktest import FILLED, GTC, GTX, LIMIT, MARKET, BacktestAsset, ROIVectorMarketDepthBacktest
from numba import njit

MAX_FILLS = 1_000_000
MAX_UNITS = 10
TRADING_INTENSITY = 1.0  # A, 1/s
NO_BID, NO_ASK = -(2**62), 2**62


@njit
def note_fills(hbt, fills, count):
    """Append every order that is known to be filled: time, side, price in ticks, quantity, order id."""
    orders = hbt.orders(0).values()
    while orders.has_next():
        order = orders.get()
        if order.status == FILLED:
            if count < fills.shape[0]:
                fills[count, 0] = order.exch_timestamp
                fills[count, 1] = order.side
                fills[count, 2] = order.exec_price_tick
                fills[count, 3] = order.order_id
            count += 1
    return count


@njit
def glft1(hbt, gamma, kappa, order_qty, step_ns, hedge_units, fills):
    """Run to the end of the data, with a hedge venue where `hedge_units` is above 0; returns steps, orders, cancels, fills, hedges."""
    tick_size, lot_size = hbt.depth(0).tick_size, hbt.depth(0).lot_size
    c1 = (1.0 / gamma) * math.log(1.0 + gamma / kappa)
    c2 = math.sqrt(gamma / (2.0 * TRADING_INTENSITY * kappa) * (1.0 + gamma / kappa) ** (kappa / gamma + 1.0))
    limit = MAX_UNITS * order_qty - 0.5 * lot_size
    alpha = 0.1 / 60.0
    var = 4.0
    last_mid = np.nan
    # per side (0 bid, 1 ask): id of the last order sent
    last_id = np.zeros(2, np.uint64)
    target = np.zeros(2, np.int64)
    wanted = np.zeros(2, np.bool_)
    next_id = np.uint64(1)
    hedge_id = np.uint64(0)
    steps = sent = cancels = count = hedges = 0
    while hbt.elapse(step_ns) == 0:
        steps += 1
        count = note_fills(hbt, fills, count)
        hbt.clear_inactive_orders(0)
        depth = hbt.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        if bid <= NO_BID or ask >= NO_ASK:
            continue
        mid = (bid + ask) * 0.5
        if not np.isnan(last_mid):
            change = mid - last_mid
            var = var + alpha * (change * change / 0.1 - var)
        last_mid = mid
        position = hbt.position(0)
        if hedge_units > 0.0:
            position += hbt.position(1)
        skew = c2 * math.sqrt(var)
        half = c1 + 0.5 * skew
        reservation = mid - skew * (position / order_qty)
        target[0] = min(np.int64(math.floor(reservation - half)), bid)
        target[1] = max(np.int64(math.ceil(reservation + half)), ask)
        wanted[0] = position < limit
        wanted[1] = position > -limit
        orders = hbt.orders(0)
        for side in range(2):
            send = wanted[side]
            if last_id[side] in orders:
                order = orders.get(last_id[side])
                if order.req != 0 or (wanted[side] and order.price_tick == target[side]):
                    send = False
                else:
                    hbt.cancel(0, last_id[side], False)
                    cancels += 1
            if send:
                last_id[side] = next_id
                if side == 0:
                    hbt.submit_buy_order(0, next_id, target[0] * tick_size, order_qty, GTX, LIMIT, False)
                else:
                    hbt.submit_sell_order(0, next_id, target[1] * tick_size, order_qty, GTX, LIMIT, False)
                next_id += np.uint64(1)
                sent += 1
        if hedge_units > 0.0:
            hbt.clear_inactive_orders(1)
            if hedge_id not in hbt.orders(1) and abs(position) > hedge_units * order_qty - 0.5 * lot_size:
                hedge_id += np.uint64(1)
                hedges += 1
                if position > 0.0:
                    hbt.submit_sell_order(1, hedge_id, hbt.depth(1).best_bid, position, GTC, MARKET, False)
                else:
                    hbt.submit_buy_order(1, hedge_id, hbt.depth(1).best_ask, -position, GTC, MARKET, False)
    count = note_fills(hbt, fills, count)
    return steps, sent, cancels, count, hedges


class Tape:
    """The array and what a run needs to know of it."""

    def __init__(self, rows, order):
        self.rows = rows
        self.order = order
        self.fills = np.zeros((MAX_FILLS, 4), np.int64)

    def asset(self, entry_ns, response_ns):
        o = self.order
        return (
            BacktestAsset()
            .data([self.rows])
            .linear_asset(1.0)
            .constant_order_latency(int(entry_ns), int(response_ns))
            .log_prob_queue_model2()
            .no_partial_fill_exchange()
            .trading_value_fee_model(o["maker_fee"], o["taker_fee"])
            .tick_size(o["tick_size"])
            .lot_size(o["lot_size"])
            .roi_lb(o["low"])
            .roi_ub(o["high"])
            .last_trades_capacity(0)
        )

    def run(self, point):
        """One run, from the array to the fills; returns what was counted and the seconds it took."""
        gamma, kappa, entry_ns, response_ns, hedge_units = point
        o = self.order
        began, cpu = time.perf_counter(), time.process_time()
        venues = 2 if hedge_units > 0 else 1
        hbt = ROIVectorMarketDepthBacktest([self.asset(entry_ns, response_ns) for _ in range(venues)])
        steps, sent, cancels, fills, hedges = glft1(hbt, gamma, kappa, o["order_qty"], o["step_ns"], float(hedge_units), self.fills)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        state = hbt.state_values(0)
        result = {
            "steps": steps,
            "sent": sent,
            "cancels": cancels,
            "fills": fills,
            "hedges": hedges,
            "position_lots": round(float(state.position) / o["lot_size"]),
            "wall_s": wall_s,
            "cpu_s": cpu_s,
        }
        hbt.close()
        if fills > MAX_FILLS:
            raise RuntimeError(f"{fills} fills, room for {MAX_FILLS}: raise MAX_FILLS")
        return result


TAPE: Tape | None = None


def run_point(point):
    """In a forked process: the tape came with the fork."""
    return TAPE.run(point)


def answer(command, pool):
    if command["do"] == "run":
        result = TAPE.run(command["point"])
        if command.get("fills_to"):
            fills = TAPE.fills[: result["fills"]]
            # the order table is iterated in an order that changes from run to run
            np.save(command["fills_to"], fills[np.lexsort((fills[:, 3], fills[:, 0]))])
        return result
    if command["do"] == "sweep":
        began = time.perf_counter()
        results = pool.map(run_point, command["points"], chunksize=1)
        return {"wall_s": time.perf_counter() - began, "cpu_s": sum(r["cpu_s"] for r in results), "results": results}
    raise ValueError(f"unknown command {command}")


def main():
    global TAPE
    order = json.loads(sys.stdin.readline())
    began = time.perf_counter()
    rows = np.load(order["tape"])
    load_s = time.perf_counter() - began
    # compile on a piece of the tape
    began = time.perf_counter()
    TAPE = Tape(rows[: order["warm_rows"]].copy(), order)
    TAPE.run(order["point"])
    compile_s = time.perf_counter() - began
    TAPE = Tape(rows, order)
    with multiprocessing.get_context("fork").Pool(order["processes"]) as pool:
        print(json.dumps({"ready": True, "rows": len(rows), "load_s": load_s, "compile_s": compile_s}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line), pool)), flush=True)


if __name__ == "__main__":
    main()
