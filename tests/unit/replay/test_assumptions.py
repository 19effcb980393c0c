"""Assumptions say what was set, by whom, and what is left out; equal ones give equal text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from builders import SPEC

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_MS
from mm_platform.kernels.queue import QUEUE_MODELS
from mm_platform.replay.assumptions import NEVER_MODELLED, Assumptions, FeeTierAssumption, LatencyAssumption, VenueAssumptions

TEN = LatencyAssumption.constant(10 * NS_PER_MS)


def venue(spec: InstrumentSpec = SPEC, **changes) -> VenueAssumptions:  # type: ignore[no-untyped-def]
    given = {
        "mode": "conservative",
        "queue_model": "risk_adverse",
        "queue_power": 2.0,
        "partial_fills": True,
        "entry_latency": TEN,
        "response_latency": TEN,
        "dataset_sha256": "ab12",
        "clock_repaired": False,
    }
    return VenueAssumptions.of(spec, **(given | changes))


def text(*venues: VenueAssumptions, **kwargs) -> str:  # type: ignore[no-untyped-def]
    return "\n".join(Assumptions.of(venues, **kwargs).sentences())


def test_json_comes_back_and_is_canonical() -> None:
    whole = Assumptions.of((venue(), venue(role="hedge")), strategy="grid", also_not_modelled=("the moon",))
    told = json.loads(whole.to_json())
    assert told["strategy"] == "grid"
    assert [v["role"] for v in told["venues"]] == ["quote", "hedge"]
    assert told["venues"][0]["entry_latency"] == {"kind": "constant", "median_ns": 10**7, "low_ns": 10**7, "high_ns": 10**7, "source": "settings"}
    assert told["not_modelled"] == [*NEVER_MODELLED, "the moon"]
    assert whole.to_json() == replace(whole).to_json()
    assert whole.to_json() != Assumptions.of((venue(queue_model="log_prob"),)).to_json()


def test_conservative_shares_volume_whatever_is_asked() -> None:
    strict = venue(partial_fills=False)
    assert (strict.partial_fills, strict.own_volume) == (True, "shared")
    loose = venue(mode="reference", partial_fills=False)
    assert (loose.partial_fills, loose.own_volume) == (False, "repeated")
    assert "for comparing engines, not for judging a strategy" in text(loose)
    assert "always whole" in text(loose)
    assert "our own orders share it" in text(strict)


@pytest.mark.parametrize("model", QUEUE_MODELS)
def test_every_queue_model_is_said_in_words(model: str) -> None:
    said = text(venue(queue_model=model))
    assert f"queue model {model}" in said
    assert "a function of the user's" not in said
    assert ("n = 2" in said) == model.startswith("power")


def test_a_model_of_the_users_own_is_called_that() -> None:
    assert "queue model mine: a function of the user's" in text(venue(queue_model="mine"))


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        (TEN, "reach the venue after 10 ms (settings)"),
        (LatencyAssumption("table", 12_000_000, 8_000_000, 90_000_000, "probe"), "interpolated from a table, median 12 ms, from 8 to 90 ms (probe)"),
        (LatencyAssumption("drawn", 10**7, 2_000_000, 10**8, "seed 3"), "drawn by seed, median 10 ms, from 2 to 100 ms (seed 3)"),
    ],
)
def test_latencies_say_where_they_come_from(latency: LatencyAssumption, said: str) -> None:
    assert said in text(venue(entry_latency=latency))


def test_fees_name_their_source_and_tiers() -> None:
    assert "maker 1 bps, taker 4 bps (instrument facts)" in text(venue())
    assert "maker -0.5 bps, taker 4 bps (settings)" in text(venue(maker_fee=-0.00005))
    tiers = (FeeTierAssumption(0.0, 0.0002, 0.0005), FeeTierAssumption(1e7, 0.0, 0.0003))
    assert "from 10,000,000: maker 0 bps, taker 3 bps (venue's schedule)" in text(venue(tiers=tiers, fee_source="venue's schedule"))


def test_funding_is_said_to_be_none_where_there_was_none() -> None:
    spot = InstrumentSpec(instrument="sim:BTC-USDT", tick_size="0.1", lot_size="0.001", contract="spot", maker_fee=0.0, taker_fee=0.0)
    assert "spot pays no funding" in text(venue(spot))
    assert "nothing was paid or received" in text(venue(funding_stamps=0))
    assert "3 settled rate(s)" in text(venue(funding_stamps=3))


def test_a_repaired_clock_is_told() -> None:
    assert "after repair of the recorder's clock" in text(venue(clock_repaired=True))
    assert "repair" not in text(venue())
