"""May this candidate become champion? Three verdicts: pass, fail, insufficient evidence.

Belongs here: the checks, their thresholds, and how much more data would settle the matter. Does not belong here: producing the numbers
(`workflow`), aliases (`registry`).

Two kinds of check. *Integrity* checks ask whether the result can be believed and the parameters may run at all; any one failing is a fail,
however much or little data there is. *Evidence* checks ask whether the profit is real; before enough independent blocks exist they cannot
fail, only say that evidence is insufficient, except that a loss already beyond chance is a fail. Evidence that was not supplied is
insufficient, never taken as good.

Judged P&L comes from data that neither fits nor choice have seen. The deflated Sharpe ratio is applied to it all the same, against the best
of all trials by luck: a candidate has to beat what the search could have found in noise. The variance of the trials' Sharpe ratios, which
sets that bar, is capped at the sampling variance of a worthless trial: points of a sweep that differ in earnest (never hedging loses, say)
spread more than luck does, and adding bad points must not raise the bar for the good one.

References
----------
Bailey, Lopez de Prado (2012, 2014) for the probabilistic and deflated Sharpe ratios and the minimum track record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from mm_platform.calibration.bootstrap import effective_sample_size, mean_interval
from mm_platform.calibration.gate_evidence import Bounded, GateEvidence, LatencyPnl, QualityFacts, Stretch
from mm_platform.calibration.statistics import (
    SharpeMoments,
    expected_max_sharpe,
    max_drawdown,
    min_track_record,
    moments,
    probabilistic_sharpe,
)
from mm_platform.core.errors import CalibrationError
from mm_platform.core.units import BPS, NS_PER_S, SECONDS_PER_DAY

Float64s = npt.NDArray[np.float64]
__all__ = [
    "Bounded",
    "Check",
    "GateEvidence",
    "GateReport",
    "GateSettings",
    "LatencyPnl",
    "QualityFacts",
    "Stretch",
    "decide",
]

Outcome = Literal["pass", "fail", "insufficient"]
Verdict = Literal["pass", "fail", "insufficient_evidence"]

# below this many blocks neither autocorrelation nor higher moments can be estimated at all
_FEWEST_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Thresholds.

    Parameters
    ----------
    min_blocks : int
        Independent blocks below which no profit is believed; never fewer than 8.
    confidence : float
        One-sided confidence of the lower bound of mean block P&L, which must lie above 0.
    min_psr, min_dsr : float
        Least probabilistic and deflated Sharpe ratio.
    min_out_of_sample_ratio : float
        Least share of the in-sample mean P&L that must survive on the judged part.
    min_degraded_frac : float
        Least share of fills' income that the degraded run must have taken away.
    min_plateau_ratio : float
        Least ratio of the neighbours' P&L to the chosen point's.
    max_clamp_frac : float
        Share of quotes one clamp may bind: beyond it the clamp quotes, not the model.
    max_drawdown_frac : float
        Of the capital.
    max_identity_residual_quote : float
        Attribution must sum to the total; only the last digits of floating point are forgiven.
    max_bad_line_frac, max_trade_id_gaps, max_longest_gap_s, min_top_of_book_match_frac : float
        Data quality. Sequence breaks and crossed books must be 0.
    sensitivity_ms : tuple of float
        Latencies that results on a repaired clock have to survive.
    max_record_days : float
        An edge that would take longer to prove counts as none.
    replicates : int
        Bootstrap samples.
    """

    min_blocks: int = 24
    confidence: float = 0.95
    min_psr: float = 0.95
    min_dsr: float = 0.95
    min_out_of_sample_ratio: float = 0.3
    min_degraded_frac: float = 0.2
    min_plateau_ratio: float = 0.3
    max_clamp_frac: float = 0.9
    max_drawdown_frac: float = 0.2
    max_identity_residual_quote: float = 1e-6
    max_bad_line_frac: float = 1e-4
    max_trade_id_gaps: int = 0
    max_longest_gap_s: float = 300.0
    min_top_of_book_match_frac: float = 0.999
    sensitivity_ms: tuple[float, ...] = (5.0, 20.0, 50.0)
    max_record_days: float = 365.0
    replicates: int = 2_000

    def __post_init__(self) -> None:
        if self.min_blocks < 2 or self.replicates < 100 or not self.max_record_days > 0.0:
            raise CalibrationError(
                f"gate settings: {self.min_blocks} blocks, {self.replicates} replicates, {self.max_record_days} days; expected >= 2, >= 100, > 0"
            )
        for name in ("confidence", "min_psr", "min_dsr"):
            if not 0.5 < getattr(self, name) < 1.0:
                raise CalibrationError(f"gate settings: {name} is {getattr(self, name)}, expected inside (0.5, 1)")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was seen, what is needed, and what it means."""

    name: str
    outcome: Outcome
    seen: str
    needed: str
    message: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict and every check behind it.

    `blocks_seen` and `blocks_needed` count independent blocks of `block_s`; `days_to_record` is what is still missing at the Sharpe ratio
    observed so far (0 unless evidence is insufficient for lack of blocks).
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    blocks_seen: int
    blocks_needed: int
    block_s: float
    days_to_record: float

    @property
    def not_passed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome != "pass")

    def text(self) -> str:
        """The verdict and what stood in its way, one line each."""
        lines = [f"gate: {self.verdict.replace('_', ' ')}"]
        if self.verdict == "insufficient_evidence":
            lines[0] += (
                f" ({self.blocks_seen} independent blocks of {self.block_s:g} s seen, {self.blocks_needed} needed, {self.days_to_record:.1f} days still to record)"
            )
        lines += [f"  {check.outcome}: {check.name}: {check.message} (seen {check.seen}, needed {check.needed})" for check in self.not_passed]
        return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------------------
# Integrity checks


def _shown(value: float, form: str) -> str:
    """A number in its words, or that there was nothing to compute it from."""
    return form.format(value) if math.isfinite(value) else "not computed"


def _integrity(name: str, good: bool, seen: str, needed: str, message: str) -> Check:
    return Check(name, "pass" if good else "fail", seen, needed, message)


def _check_fill_model(e: GateEvidence) -> Check:
    return _integrity(
        "fill_model",
        e.fill_model == "tick" and e.mode == "conservative",
        f"{e.fill_model}, {e.mode or 'no mode'}",
        "tick, conservative",
        "fills from bars or by the reference rule flatter: only the conservative tick replay may pass",
    )


def _check_look_ahead(e: GateEvidence) -> Check:
    if not e.stretches:
        return Check("look_ahead", "insufficient", "no stretch", "one per refit and one for the choice", "nothing shows what the fits had seen")
    closest = min(s.judged_from_ns - s.seen_through_ns for s in e.stretches)
    return _integrity(
        "look_ahead",
        closest > e.embargo_ns,
        f"{closest / NS_PER_S:.3f} s at the closest of {len(e.stretches)} stretches",
        f"> {e.embargo_ns / NS_PER_S:.3f} s",
        "judged rows must lie after all that fits and choice have seen, plus the embargo",
    )


def _check_identity(e: GateEvidence, s: GateSettings) -> Check:
    return _integrity(
        "pnl_identity",
        abs(e.identity_residual_quote) <= s.max_identity_residual_quote,
        f"{e.identity_residual_quote:.3g} quote",
        f"within {s.max_identity_residual_quote:g} quote of 0",
        "the parts of the P&L must sum to its total",
    )


def _check_numbers(e: GateEvidence) -> Check:
    numbers = (
        *e.block_pnl_quote.tolist(),
        e.total_pnl_quote,
        e.degraded_pnl_quote,
        e.min_spread,
        e.maker_fee,
        *(p.pnl_quote for p in e.latency_sensitivity),
    )
    bad = sum(1 for number in numbers if not math.isfinite(number))
    return _integrity("finite_numbers", bad == 0, f"{bad} not finite", "0", "a P&L that is not a number hides an error upstream")


def _check_quality(e: GateEvidence, s: GateSettings) -> Check:
    q = e.quality
    if q.rows == 0:
        return Check("data_quality", "insufficient", "0 rows", "> 0 rows", "there is no data")
    faults = []
    if q.sequence_breaks > 0:
        faults.append(f"{q.sequence_breaks} sequence breaks")
    if q.crossed_books > 0:
        faults.append(f"{q.crossed_books} crossed books")
    if q.trade_id_gaps > s.max_trade_id_gaps:
        faults.append(f"{q.trade_id_gaps} trade-id gaps (at most {s.max_trade_id_gaps})")
    if q.bad_lines > s.max_bad_line_frac * q.lines:
        faults.append(f"{q.bad_lines} bad lines of {q.lines} (at most {s.max_bad_line_frac:g})")
    if q.longest_gap_s > s.max_longest_gap_s:
        faults.append(f"a gap of {q.longest_gap_s:.0f} s (at most {s.max_longest_gap_s:g})")
    if q.top_of_book_match_frac is not None and q.top_of_book_match_frac < s.min_top_of_book_match_frac:
        faults.append(f"top of book equal in {q.top_of_book_match_frac:.4%} (at least {s.min_top_of_book_match_frac:.1%})")
    return _integrity(
        "data_quality",
        not faults,
        ", ".join(faults) or f"{q.rows} rows without a fault",
        "no fault",
        "a book that was not the venue's gives fills that never were",
    )


def _check_spread_pays(e: GateEvidence) -> Check:
    round_trip = 2.0 * e.maker_fee
    return _integrity(
        "spread_pays_fees",
        e.min_spread >= round_trip,
        f"least spread {e.min_spread / BPS:.3g} bp",
        f">= {round_trip / BPS:.3g} bp",
        "a round trip at the least spread must pay both maker fees",
    )


def _check_drawdown(e: GateEvidence, s: GateSettings) -> Check:
    fall = max_drawdown(e.block_pnl_quote)
    return _integrity(
        "drawdown",
        e.capital_quote > 0.0 and fall <= s.max_drawdown_frac * e.capital_quote,
        f"{fall:.4g} quote",
        f"<= {s.max_drawdown_frac:.0%} of {e.capital_quote:.6g} quote",
        "the largest fall of equity must be bearable",
    )


def _check_bounded(name: str, values: Sequence[Bounded], message: str) -> Check:
    if not values:
        return Check(name, "insufficient", "no values", "at least one", "nothing was compared")
    outside = [v for v in values if not v.inside]
    seen = ", ".join(f"{v.name}={v.value:.6g} not in [{v.low:.6g}, {v.high:.6g}] {v.unit}" for v in outside) or f"{len(values)} inside"
    return _integrity(name, not outside, seen, "all inside", message)


# ---------------------------------------------------------------------------------------------------------------------------------
# Evidence checks


@dataclass(frozen=True, slots=True)
class _Sample:
    """Judged blocks, joined to outlast an inventory, with how many independent ones they are worth."""

    pnl: Float64s
    block_s: float
    joined: int
    independent: float
    moments: SharpeMoments

    @property
    def mean(self) -> float:
        return float(np.mean(self.pnl)) if len(self.pnl) else math.nan


def _sample(e: GateEvidence) -> _Sample:
    if not e.block_s > 0.0 or not e.inventory_life_s >= 0.0:
        raise CalibrationError(f"gate: block of {e.block_s} s and inventory life of {e.inventory_life_s} s; expected > 0 and >= 0")
    joined = max(1, math.ceil(e.inventory_life_s / e.block_s))
    whole = len(e.block_pnl_quote) // joined
    pnl = e.block_pnl_quote[: whole * joined].reshape(whole, joined).sum(axis=1)
    independent = effective_sample_size(pnl) if bool(np.all(np.isfinite(pnl))) else 0.0
    return _Sample(pnl, joined * e.block_s, joined, independent, moments(pnl, independent))


def _luck_sharpe_sd(e: GateEvidence) -> float:
    """Standard deviation of a worthless trial's Sharpe ratio per block: the trials' own spread, at most its sampling error."""
    sampling = 1.0 / math.sqrt(max(e.trial_blocks - 1, 1))
    if len(e.trial_sharpes) < 2:
        return sampling if e.trials > 1 else 0.0
    return min(float(np.std(np.asarray(e.trial_sharpes), ddof=1)), sampling)


@dataclass(frozen=True, slots=True)
class _Power:
    """Independent blocks at which each statistical check would pass if the Sharpe ratio stays what it is; inf where it never would."""

    mean: float
    psr: float
    dsr: float

    def most(self, floor: int) -> float:
        return max(float(floor), self.mean, self.psr, self.dsr)


def _blocks_needed(sample: _Sample, luck_sharpe: float, s: GateSettings) -> _Power:
    m = sample.moments
    if not m.sharpe > 0.0:
        return _Power(math.inf, math.inf, math.inf)
    z_mean, z_psr, z_dsr = (float(norm.ppf(p)) for p in (s.confidence, s.min_psr, s.min_dsr))
    psr = min_track_record(m, 0.0, s.min_psr)
    # luck shrinks as 1 / sqrt(n) while the edge stays: SR sqrt(n) - luck sqrt(n now) >= z sqrt(factor)
    factor = (psr - 1.0) * (m.sharpe / z_psr) ** 2
    dsr = 1.0 + ((z_dsr * math.sqrt(factor) + luck_sharpe * math.sqrt(m.n)) / m.sharpe) ** 2
    return _Power((z_mean / m.sharpe) ** 2, psr, dsr)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the judged blocks can carry: enough of them to say no, and whether they already show a loss."""

    sample: _Sample
    settings: GateSettings
    judged_frac: float
    enough: bool
    losing: bool

    def days_for(self, blocks: float) -> float:
        """Days still to record until there are so many independent blocks, at today's autocorrelation and split."""
        n, independent = len(self.sample.pnl), self.sample.independent
        per_independent = n / independent if independent > 0.0 else 1.0
        return max(blocks - independent, 0.0) * per_independent * self.sample.block_s / SECONDS_PER_DAY / self.judged_frac

    def evidence(self, name: str, good: bool, seen: str, needed: str, message: str) -> Check:
        """Good is good; bad is a fail only once there is enough to say so."""
        return Check(name, "pass" if good else ("fail" if self.enough else "insufficient"), seen, needed, message)

    def provable(self, name: str, good: bool, blocks: float, seen: str, needed: str, message: str) -> Check:
        """A statistical check that `blocks` would settle: short of proof it fails only for a loss, or an edge no reasonable record would prove."""
        s = self.settings
        if good and self.enough:
            return Check(name, "pass", seen, needed, message)
        if self.losing:
            return Check(name, "fail", seen, needed, f"{message}: the judged part made {self.sample.mean:.4g} quote per block, which is no profit")
        blocks = max(blocks, float(s.min_blocks))
        if self.enough and self.days_for(blocks) > s.max_record_days:
            return Check(
                name,
                "fail",
                seen,
                needed,
                f"{message}: at this Sharpe ratio proof would take {self.days_for(blocks):.0f} more days, at most {s.max_record_days:g} are worth recording",
            )
        count = f"{math.ceil(blocks)}" if math.isfinite(blocks) else f"at least {s.min_blocks}"
        return Check(name, "insufficient", seen, needed, f"{message}: {self.sample.independent:.1f} independent blocks seen, {count} needed")


def decide(evidence: GateEvidence, rng: np.random.Generator, settings: GateSettings | None = None) -> GateReport:
    """Run all checks and give the verdict.

    Parameters
    ----------
    evidence : GateEvidence
    rng : numpy.random.Generator
        For the block bootstrap.
    settings : GateSettings, optional

    Returns
    -------
    GateReport
        `fail` when any check failed; else `insufficient_evidence` when any check lacked data; else `pass`.

    Raises
    ------
    CalibrationError
        Evidence that contradicts itself (no block length, fewer trials than Sharpe ratios of trials).
    """
    s, e = settings or GateSettings(), evidence
    if e.trials < max(1, len(e.trial_sharpes)):
        raise CalibrationError(
            f"gate: {e.trials} trials with {len(e.trial_sharpes)} Sharpe ratios; every trial counts, expected at least as many and at least 1"
        )
    if not 0.0 < e.judged_frac <= 1.0:
        raise CalibrationError(f"gate: judged share of the recording is {e.judged_frac}, expected in (0, 1]")
    sample = _sample(e)
    m, n = sample.moments, len(sample.pnl)
    enough = sample.independent >= max(s.min_blocks, _FEWEST_BLOCKS)
    usable = n >= _FEWEST_BLOCKS and math.isfinite(m.sharpe)
    # Sharpe ratios of trials are per block_s; of joined blocks they are sqrt(joined) times that
    luck = expected_max_sharpe(float(e.trials), _luck_sharpe_sd(e) ** 2) * math.sqrt(sample.joined)
    power = _blocks_needed(sample, luck, s) if usable else _Power(0.0, 0.0, 0.0)
    low = high = psr = dsr = math.nan
    if usable:
        interval = mean_interval(sample.pnl, rng, level=2.0 * s.confidence - 1.0, replicates=s.replicates)
        low, high = interval.low, interval.high
        psr, dsr = probabilistic_sharpe(m), probabilistic_sharpe(m, luck)
    proof = _Proof(sample, s, e.judged_frac, enough, losing=high < 0.0 or (enough and not sample.mean > 0.0))
    checks = (
        _check_fill_model(e),
        _check_numbers(e),
        _check_look_ahead(e),
        _check_identity(e, s),
        _check_quality(e, s),
        _check_fits(e, proof),
        _check_spread_pays(e),
        _check_bounded("fitted_ranges", e.fitted_ranges, "quotes must stay where the fits looked"),
        _check_bounded("runner_limits", e.runner_limits, "the runner refuses parameters outside its own limits"),
        _check_drawdown(e, s),
        _check_blocks(e, proof),
        proof.provable(
            "mean_pnl", low > 0.0, power.mean, _shown(low, "{:.4g} quote per block"), f"> 0 at {s.confidence:.0%}", "lower bound of mean block P&L by block bootstrap"
        ),
        proof.provable(
            "probabilistic_sharpe", psr >= s.min_psr, power.psr, _shown(psr, f"{{:.4f}} (Sharpe {m.sharpe:.3f} per block)"), f">= {s.min_psr:g}",
            "probability that the Sharpe ratio is above 0",
        ),
        proof.provable(
            "deflated_sharpe", dsr >= s.min_dsr, power.dsr, _shown(dsr, f"{{:.4f}} (luck {luck:.3f} per block, {e.trials} trials)"), f">= {s.min_dsr:g}",
            "probability that the Sharpe ratio beats the best of all trials by luck",
        ),
        _check_out_of_sample(e, proof),
        _check_degraded(e, proof),
        _check_plateau(e, proof),
        _check_clamps(e, proof),
        _check_latency(e, proof),
    )  # fmt: skip
    outcomes = {check.outcome for check in checks}
    verdict: Verdict = "fail" if "fail" in outcomes else ("insufficient_evidence" if "insufficient" in outcomes else "pass")
    most = power.most(s.min_blocks)
    needed = most if math.isfinite(most) else float(s.min_blocks)
    return GateReport(
        verdict=verdict,
        checks=checks,
        blocks_seen=int(sample.independent + 1e-9),
        blocks_needed=math.ceil(needed),
        block_s=sample.block_s,
        days_to_record=proof.days_for(needed) if verdict == "insufficient_evidence" else 0.0,
    )


def _check_fits(e: GateEvidence, proof: _Proof) -> Check:
    """Refused fits fail a candidate that had data enough to be judged; on less, more data may mend them."""
    refused = [fit for fit in e.fits if not fit.accepted]
    if not e.fits:
        return Check("fits", "insufficient", "no fit", "sigma, A and k of both sides", "nothing was fitted")
    if not refused:
        return Check("fits", "pass", f"{len(e.fits)} accepted", "all accepted", "sigma, A and k stand on enough data and fit it")
    contradicted = [fit for fit in refused if not fit.short_of_data]
    first = (contradicted or refused)[0]
    outcome: Outcome = "fail" if contradicted and proof.enough else "insufficient"
    return Check("fits", outcome, f"{len(refused)} of {len(e.fits)} refused", "all accepted", f"{first.name}: {first.reason}")


def _check_blocks(e: GateEvidence, proof: _Proof) -> Check:
    sample = proof.sample
    return Check(
        "independent_blocks",
        "pass" if proof.enough else "insufficient",
        f"{sample.independent:.1f} of {len(sample.pnl)} blocks of {sample.block_s:g} s",
        f">= {max(proof.settings.min_blocks, _FEWEST_BLOCKS)}",
        f"blocks outlast an inventory ({e.inventory_life_s:.0f} s) and are counted net of autocorrelation",
    )


def _check_out_of_sample(e: GateEvidence, proof: _Proof) -> Check:
    before, after = e.in_sample_mean_quote, proof.sample.mean / proof.sample.joined
    least = proof.settings.min_out_of_sample_ratio
    return proof.evidence(
        "out_of_sample",
        before > 0.0 and after >= least * before,
        _shown(after, f"{{:.4g}} after {before:.4g} quote per block of {e.block_s:g} s"),
        f">= {least:.0%} of a profit",
        "what the choosing part earned must survive on the judged part",
    )


def _check_degraded(e: GateEvidence, proof: _Proof) -> Check:
    least = proof.settings.min_degraded_frac
    if e.degraded_frac < least:
        return Check(
            "degraded_fills", "insufficient", f"{e.degraded_frac:.0%} taken away", f">= {least:.0%}", "the degraded run was too mild to say anything"
        )
    return proof.evidence(
        "degraded_fills",
        e.degraded_pnl_quote > 0.0,
        f"{e.degraded_pnl_quote:.4g} quote",
        "> 0",
        f"the judged part must still earn with fills degraded by {e.degraded_frac:.0%}",
    )


def _check_plateau(e: GateEvidence, proof: _Proof) -> Check:
    least = proof.settings.min_plateau_ratio
    return proof.evidence(
        "plateau",
        e.plateau_ratio >= least,
        _shown(e.plateau_ratio, "{:.3g}"),
        f">= {least:g}",
        "neighbours of the chosen point must earn too, or it is a lucky peak",
    )


def _check_clamps(e: GateEvidence, proof: _Proof) -> Check:
    if not e.clamp_fracs:
        return Check("clamps", "insufficient", "no shares", "one per clamp", "nothing shows what decided the quotes")
    name, share = max(e.clamp_fracs, key=lambda clamp: clamp[1])
    most = proof.settings.max_clamp_frac
    return proof.evidence(
        "clamps",
        share <= most,
        f"{name} bound {share:.1%} of quotes",
        f"<= {most:.0%}",
        "quotes that a clamp decides were not calibrated by the sweep",
    )


def _check_latency(e: GateEvidence, proof: _Proof) -> Check:
    name, wanted = "latency_sensitivity", proof.settings.sensitivity_ms
    if not e.quality.clock_repaired:
        return Check(name, "pass", "clock not repaired", "only for repaired clocks", "local times are the recorder's own")
    given = {point.latency_ms: point.pnl_quote for point in e.latency_sensitivity}
    if any(ms not in given for ms in wanted):
        seen = ", ".join(f"{ms:g} ms" for ms in given) or "none"
        return Check(
            name, "insufficient", seen, ", ".join(f"{ms:g} ms" for ms in wanted), "local times were repaired: results need the sensitivity to latency"
        )
    worst = min(wanted, key=lambda ms: given[ms])
    return proof.evidence(
        name,
        given[worst] > 0.0,
        f"{given[worst]:.4g} quote at {worst:g} ms",
        "> 0 at every latency",
        "local times were repaired: the profit must not hang on them",
    )
