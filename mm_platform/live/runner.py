"""The runner: feeds one engine from one venue, carries out what it says, journals everything, swaps parameters between ticks.

Belongs here: the loop, the order of journal, gate and venue, stopping, the summary. Does not belong here: decisions (`engine`), where time,
parameters and rows come from (they are passed in; `workflow.live` puts them together).

Order of things per event: journal the event, let the engine decide, journal the commands, write the journal out, then send. Parameters,
refusals and operator words enter as events, so the journal alone reproduces the run.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mm_platform.core.commands import AnyCommand, Cancel, CancelAll, Halt, Note, Place, Query, Replace
from mm_platform.core.errors import InvariantError
from mm_platform.core.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    BookTop,
    Control,
    Fill,
    OrderReject,
    OrderUpdate,
    ParametersChanged,
    Timer,
)
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.units import NS_PER_S, iso_utc
from mm_platform.engine.engine import CANCEL_REJECTED, DECISION, Engine
from mm_platform.kernels.accounting import MAKER_FILLS, TAKER_FILLS, Attribution, attribution
from mm_platform.kernels.risk import HALTED, POSITION_TIMEOUT, REASONS, STOP_LOSS
from mm_platform.live.clock import RunnerClock
from mm_platform.live.fills import FillBook, FillRow, FillSink
from mm_platform.live.journal import JournalWriter
from mm_platform.live.order_gate import REFUSED_BY_RUNNER, OrderGate
from mm_platform.live.parameters import Accepted, Away, Outcome, ParameterWatcher, Refused

FLUSH_FILLS_S: Final = 300.0
# market time a stopping runner waits for the venue's last words
DRAIN_S: Final = 5.0
# reasons that a person should hear of when they set in
_SERIOUS: Final = STOP_LOSS | POSITION_TIMEOUT | HALTED


class Log(Protocol):
    """Structured events (structlog): a name and fields with units."""

    def debug(self, event: str, **fields: Any) -> Any: ...

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Venue(Protocol):
    """What the loop needs of a venue: commands out, events in order of local time in; None = no more market."""

    def send(self, command: AnyCommand) -> None: ...

    def next_event(self) -> AnyEvent | None: ...


class Polling(Protocol):
    """News about parameters, without keeping the market waiting."""

    def start(self, now_ns: int) -> None: ...

    def poll(self, now_ns: int) -> Outcome | None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did. Money in quote; mark-outs of maker fills in bps by horizon in s, None where no future was seen.

    stopped : why the run ended: "duration", "end of market", "interrupted".
    parameter_versions : registry versions that were in force, in order. refusals : published versions that were refused, with the reason.
    order_refusals : orders that the last look held back. risk_decisions : decisions by risk reason.
    seen_by_fit : parameters were fitted on data from after the first decision (a recorded market): the profit proves nothing.
    """

    instrument: str
    mode: str
    run_id: str
    started_at_ns: int
    ended_at_ns: int
    stopped: str
    decisions: int
    orders: int
    cancels: int
    rejects: int
    order_refusals: int
    maker_fills: int
    taker_fills: int
    position_lots: int
    orders_left: int
    pnl: Attribution
    total_pnl: float
    markouts_bps: dict[int, float | None]
    risk_decisions: dict[str, int]
    parameter_versions: tuple[str, ...]
    swaps: int
    refusals: tuple[Refused, ...]
    seen_by_fit: bool
    journal: str

    @property
    def fills(self) -> int:
        return self.maker_fills + self.taker_fills

    def text(self) -> str:
        """A few lines for a terminal."""
        minutes = (self.ended_at_ns - self.started_at_ns) / NS_PER_S / 60
        marks = ", ".join(f"{h} s {'n/a' if v is None else f'{v:+.2f}'}" for h, v in self.markouts_bps.items())
        lines = [
            f"{self.instrument} ({self.mode}): {minutes:.1f} min from {iso_utc(self.started_at_ns)}, ended by {self.stopped}",
            f"decisions {self.decisions}, orders {self.orders}, maker fills {self.maker_fills}, taker fills {self.taker_fills}, position {self.position_lots} lots",
            f"P&L {self.total_pnl:+.4f} quote = spread {self.pnl.spread_pnl:+.4f}, hedge {self.pnl.hedge_pnl:+.4f}, inventory {self.pnl.inventory_pnl:+.4f}, "
            f"fees {-self.pnl.fees:+.4f}, funding {self.pnl.funding:+.4f}",
            f"mark-outs of maker fills, bps: {marks}",
            f"parameter versions {', '.join(self.parameter_versions)} ({self.swaps} swaps)",
        ]
        lines += [f"refused version {r.version}: {r.reason}" for r in self.refusals]
        if self.orders_left:
            lines.append(f"{self.orders_left} orders were not confirmed gone at the end; check the venue")
        if self.seen_by_fit:
            lines.append("the parameters were fitted on this very stretch or later: the run shows that everything works, its profit proves nothing")
        lines.append(f"journal {self.journal}")
        return "\n".join(lines)


@dataclass(slots=True)
class _Counts:
    decisions: int = 0
    orders: int = 0
    cancels: int = 0
    rejects: int = 0
    order_refusals: int = 0
    versions: list[str] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    risk: dict[str, int] = field(default_factory=dict)


class Runner:
    """One run of one engine on one venue.

    Parameters
    ----------
    engine : Engine
        Fresh; its settings name the run.
    venue : Venue
        Port to the market.
    clock : RunnerClock
        How to wait for the market's next moment.
    watcher, polling : ParameterWatcher, Polling
        First parameters, and news about them.
    gate : OrderGate
        Last look at every order.
    journal : JournalWriter
        Open; the runner closes it.
    sink : FillSink
        Takes rows of `live_fills`.
    log : Log
        Structured events.
    mode : str
        How real the run is: "sim".
    stop : threading.Event
        Set from outside (a signal handler) to stop cleanly.
    """

    def __init__(
        self,
        engine: Engine,
        venue: Venue,
        clock: RunnerClock,
        watcher: ParameterWatcher,
        polling: Polling,
        gate: OrderGate,
        journal: JournalWriter,
        sink: FillSink,
        log: Log,
        *,
        mode: str,
        stop: threading.Event,
    ) -> None:
        self._engine = engine
        self._venue = venue
        self._clock = clock
        self._watcher = watcher
        self._polling = polling
        self._gate = gate
        self._journal = journal
        self._log = log
        self._mode = mode
        self._stop = stop
        self._instrument = engine.settings.spec.instrument
        self._fills = FillBook(engine.settings.spec, engine.settings.run_id, mode, sink)
        self._orders: dict[str, tuple[str, str]] = {}
        self._counts = _Counts()
        self._pset: ParameterSet | None = None
        self._seen_by_fit = False
        self._ending = False
        self._serious = 0
        self._aged = False
        self._now_ns = -1
        self._venue_ns = -1

    def run(self, parameters: Accepted, trouble: Refused | Away | None, started_at_ns: int, duration_s: float) -> RunSummary:
        """Run until the duration is over, the market ends, or `stop` is set; then cancel, wait for the venue's last words, write everything.

        Parameters
        ----------
        parameters : Accepted
            The set to start with (`ParameterWatcher.first`), and in `trouble` what was wrong with the registry.
        started_at_ns : int
            Market time not after the first event, ns.
        duration_s : float
            Market seconds from the first decision on.

        Raises
        ------
        InvariantError
            A fault of ours; everything working was cancelled, as far as the venue took it.
        """
        first_decision = self._engine.settings.start_ns
        end_ns = first_decision + round(duration_s * NS_PER_S)
        self._now_ns = started_at_ns
        self._log.info("run_start", instrument=self._instrument, run_id=self._engine.settings.run_id, mode=self._mode, duration_s=duration_s)
        if trouble is not None:
            self._say(trouble)
        next_flush = first_decision + round(FLUSH_FILLS_S * NS_PER_S)
        stopped = "end of market"
        unseen: AnyEvent | None = None
        try:
            self._swap(parameters, started_at_ns)
            self._polling.start(started_at_ns)
            while (event := self._venue.next_event()) is not None:
                if event.local_ts >= end_ns:
                    stopped, unseen = "duration", event
                    break
                self._clock.wait_until(event.local_ts, self._stop)
                if self._stop.is_set():
                    stopped, unseen = "interrupted", event
                    break
                self._look_for_parameters(event.local_ts)
                self._take(event)
                if event.local_ts >= next_flush:
                    self._fills.flush(self._venue_ns)
                    next_flush = event.local_ts + round(FLUSH_FILLS_S * NS_PER_S)
            self._wind_down(f"run ends: {stopped}", unseen)
        except InvariantError as err:
            # we no longer know our own state: pull everything off the venue first, then fail
            cancel = CancelAll(instrument=self._instrument, ts=self._now_ns, reason=f"invariant broken: {err}")
            self._journal.commands((cancel,))
            self._journal.commit()
            self._venue.send(cancel)
            self._log.warning("invariant_broken", instrument=self._instrument, reason=str(err))
            raise
        finally:
            self._polling.stop()
            self._journal.close()
            self._fills.flush(self._venue_ns, last=True)
        summary = self._summary(started_at_ns if first_decision < started_at_ns else first_decision, stopped)
        self._log.info(
            "run_end",
            instrument=self._instrument,
            run_id=summary.run_id,
            stopped=stopped,
            decisions=summary.decisions,
            maker_fills=summary.maker_fills,
            taker_fills=summary.taker_fills,
            total_pnl_quote=summary.total_pnl,
            position_lots=summary.position_lots,
        )
        return summary

    # -- one event -----------------------------------------------------------------------------------------------------------------------

    def _take(self, event: AnyEvent) -> None:
        self._now_ns = event.local_ts
        self._journal.event(event)
        commands = self._engine.handle(event)
        match event:
            case BookDelta() | BookTop() | BookSnapshot():
                self._venue_ns = max(self._venue_ns, event.exch_ts)
                if self._engine.mid_half_ticks > 0:
                    self._fills.mid(event.exch_ts, self._engine.mid_half_ticks)
                return
            case Fill():
                self._gate.on_event(event)
                purpose, version = self._orders[event.client_id]
                self._fills.add(FillRow(event, purpose, version))
                if event.leaves_lots <= 0:
                    del self._orders[event.client_id]
                self._log.debug(
                    "fill",
                    instrument=self._instrument,
                    client_id=event.client_id,
                    side=event.side,
                    price_ticks=event.price_ticks,
                    qty_lots=event.qty_lots,
                    maker=event.maker,
                    fee_quote=event.fee_quote,
                    position_lots=self._engine.position_lots,
                )
            case OrderReject():
                self._gate.on_event(event)
                if event.code != CANCEL_REJECTED:
                    self._counts.rejects += 1
                    self._orders.pop(event.client_id, None)
            case OrderUpdate():
                self._gate.on_event(event)
                if event.status in ("cancelled", "expired", "rejected"):
                    self._orders.pop(event.client_id, None)
            case Timer():
                self._counts.decisions += 1
            case _:
                pass
        if commands:
            self._journal.commands(commands)
            self._carry_out(commands)

    def _carry_out(self, commands: tuple[AnyCommand, ...]) -> None:
        if any(isinstance(c, Place | Cancel | Replace | CancelAll | Query) for c in commands):
            self._journal.commit()
        refused: list[OrderReject] = []
        for command in commands:
            match command:
                case Place():
                    self._counts.orders += 1
                    reason = self._gate.refusal(command, self._engine.mid_half_ticks)
                    if reason:
                        refused.append(self._refuse(command, reason))
                        continue
                    self._gate.sent(command)
                    self._orders[command.client_id] = (command.purpose, self._engine.parameter_version)
                    self._venue.send(command)
                case Cancel():
                    self._counts.cancels += 1
                    self._venue.send(command)
                case Note():
                    self._note(command)
                case Halt():
                    (self._log.info if self._ending else self._log.warning)("halt", instrument=self._instrument, reason=command.reason)
                case Replace():
                    raise InvariantError(
                        f"{self._instrument}: the engine never replaces in one step, yet asked to replace {command.cancel_client_id}"
                    )
                case _:
                    self._venue.send(command)
        for reject in refused:
            self._take(reject)

    def _refuse(self, order: Place, reason: str) -> OrderReject:
        self._counts.order_refusals += 1
        self._log.warning("order_refused", instrument=self._instrument, client_id=order.client_id, reason=reason)
        return OrderReject(
            instrument=self._instrument, exch_ts=order.ts, local_ts=order.ts, client_id=order.client_id, code=REFUSED_BY_RUNNER, reason=reason
        )

    def _note(self, note: Note) -> None:
        if note.name != DECISION:
            self._log.info(note.name, instrument=self._instrument, **note.data)
            return
        reasons = note.data["reasons"]
        if not isinstance(reasons, int):
            raise InvariantError(f"{self._instrument}: a decision's reasons are {reasons!r}, expected a bit mask")
        for bit, name in REASONS.items():
            if reasons & bit:
                self._counts.risk[name] = self._counts.risk.get(name, 0) + 1
                if bit & _SERIOUS and not self._serious & bit:
                    self._log.warning("risk", instrument=self._instrument, reason=name, position_lots=self._engine.position_lots)
        self._serious = reasons & _SERIOUS

    # -- parameters ----------------------------------------------------------------------------------------------------------------------

    def _look_for_parameters(self, now_ns: int) -> None:
        outcome = self._polling.poll(now_ns)
        if isinstance(outcome, Accepted):
            self._swap(outcome, now_ns)
        elif outcome is not None:
            self._say(outcome)
        if not self._aged and self._pset is not None and (old := self._watcher.too_old(self._pset, now_ns)):
            self._aged = True
            self._control("reduce", old, now_ns)

    def _swap(self, accepted: Accepted, now_ns: int) -> None:
        published = accepted.published
        self._gate.parameters(accepted.pset)
        self._pset = accepted.pset
        self._seen_by_fit |= accepted.pset.fitted_through_ns > self._engine.settings.start_ns
        self._counts.versions.append(published.version)
        self._take(
            ParametersChanged(
                instrument=self._instrument,
                exch_ts=now_ns,
                local_ts=now_ns,
                version=published.version,
                sha256=published.sha256,
                parameters=published.parameters_json,
            )
        )
        if self._aged:
            self._aged = False
            self._control("resume", f"version {published.version} is young enough", now_ns)

    def _say(self, outcome: Refused | Away) -> None:
        if isinstance(outcome, Refused):
            self._counts.refusals.append(outcome)
            self._log.warning("parameters_refused", instrument=self._instrument, version=outcome.version, reason=outcome.reason)
        else:
            self._log.warning("registry_away", instrument=self._instrument, reason=outcome.reason)

    def _control(self, action: str, reason: str, now_ns: int) -> None:
        self._take(Control(instrument=self._instrument, exch_ts=now_ns, local_ts=now_ns, action=action, reason=reason))  # type: ignore[arg-type]

    # -- the end -------------------------------------------------------------------------------------------------------------------------

    def _wind_down(self, reason: str, unseen: AnyEvent | None) -> None:
        """Cancel everything and hear the venue out. The position stays: closing it is a decision, not a side effect of stopping.

        `unseen` is the event that was at hand when the run ended; its time is now (decisions alone make it at most one step away).
        """
        self._ending = True
        if unseen is not None and not isinstance(unseen, Timer):
            self._take(unseen)
        now_ns = self._now_ns if unseen is None else max(unseen.local_ts, self._now_ns)
        self._control("halt", reason, now_ns)
        deadline = now_ns + round(DRAIN_S * NS_PER_S)
        while self._engine.orders_working > 0 and (event := self._venue.next_event()) is not None and event.local_ts <= deadline:
            # no more decisions: a halted engine would flatten
            if not isinstance(event, Timer):
                self._take(event)

    def _summary(self, started_at_ns: int, stopped: str) -> RunSummary:
        engine, counts = self._engine, self._counts
        ledger = engine.ledger()
        parts = attribution(ledger, engine.settings.spec)
        return RunSummary(
            instrument=self._instrument,
            mode=self._mode,
            run_id=engine.settings.run_id,
            started_at_ns=started_at_ns,
            ended_at_ns=self._now_ns,
            stopped=stopped,
            decisions=counts.decisions,
            orders=counts.orders,
            cancels=counts.cancels,
            rejects=counts.rejects,
            order_refusals=counts.order_refusals,
            maker_fills=int(ledger[MAKER_FILLS]),
            taker_fills=int(ledger[TAKER_FILLS]),
            position_lots=engine.position_lots,
            orders_left=engine.orders_working,
            pnl=parts,
            total_pnl=parts.total_pnl,
            markouts_bps={h: None if v is None or math.isnan(v) else v for h, v in self._fills.mean_maker_markouts_bps().items()},
            risk_decisions=dict(counts.risk),
            parameter_versions=tuple(counts.versions),
            swaps=max(len(counts.versions) - 1, 0),
            refusals=tuple(counts.refusals),
            seen_by_fit=self._seen_by_fit,
            journal=str(self._journal.path),
        )
