"""Promotion: only what passed, unaltered, inside the bounds, signed, recorded; and the way back."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_platform.core.errors import ConfigError, RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.registry.mlflow_store import MlflowStore, alias_version, get_version
from mm_platform.registry.promote import (
    AUDIT_FILE,
    GateRefusal,
    Promotion,
    Rollback,
    RollbackRefusal,
    history,
    promote,
    rollback,
)
from mm_platform.registry.publish import publish
from mm_platform.registry.signing import keys_dir, load_or_create_key, load_public_key
from mm_platform.registry.source import verify_published

from .conftest import BOUNDS, FAILED_CHECKS, MODEL, NOW_NS, PERP, altered, candidate


def _promote(store: MlflowStore, state_dir: Path, version: str = "challenger", **changed: Any) -> Promotion | GateRefusal:
    arguments = {"approver": "ada", "reason": "beats the last one", "now_ns": NOW_NS, "state_dir": state_dir, "bounds": BOUNDS}
    return promote(store, PERP, version, **{**arguments, **changed})


def _alias(store: MlflowStore, alias: str) -> str | None:
    held = alias_version(store, MODEL, alias)
    return None if held is None else held.version


def test_a_promotion_signs_moves_and_records(store: MlflowStore, state_dir: Path) -> None:
    published = publish(store, candidate())
    done = _promote(store, state_dir)
    assert done == Promotion(MODEL, "1", None, published.sha256, "ada", "beats the last one", NOW_NS, changed=True)
    champion = alias_version(store, MODEL, "champion")
    assert champion is not None
    pset = verify_published(champion.published("champion"), load_public_key(keys_dir(state_dir) / "signing.pub"), MODEL)
    assert pset == candidate().parameters
    approval = json.loads(champion.published("champion").approval_json)
    assert approval["bounds"] == {name: list(bound) for name, bound in BOUNDS.items()}
    assert (approval["approver"], approval["gate_verdict"], approval["version"]) == ("ada", "pass", "1")
    assert champion.tags["promoted_by"] == "ada"
    assert champion.tags["promotion_reason"] == "beats the last one"
    assert [(r.event, r.version, r.replaced, r.actor) for r in history(state_dir)] == [
        ("promoting", "1", None, "ada"),
        ("promoted", "1", None, "ada"),
    ]
    assert stat.S_IMODE((state_dir / AUDIT_FILE).stat().st_mode) == 0o600


def test_the_old_champion_becomes_previous(store: MlflowStore, promoted: Callable[..., Promotion], state_dir: Path) -> None:
    promoted(0.1)
    second = promoted(0.2)
    assert (second.version, second.previous) == ("2", "1")
    assert (_alias(store, "champion"), _alias(store, "previous")) == ("2", "1")
    assert [r.replaced for r in history(state_dir, PERP)] == [None, None, "1", "1"]
    assert history(state_dir, InstrumentId.parse("sim:ETH-USDT-PERP")) == ()


@pytest.mark.parametrize("verdict", ["fail", "insufficient_evidence"])
def test_what_did_not_pass_is_refused_with_the_failing_checks(store: MlflowStore, state_dir: Path, verdict: str) -> None:
    version = publish(store, candidate(verdict=verdict)).version
    refused = _promote(store, state_dir, version)
    assert refused == GateRefusal(MODEL, "1", verdict, ("pnl_lower_bound",), ())
    assert "pnl_lower_bound" in refused.message
    assert _alias(store, "champion") is None
    assert history(state_dir) == ()


def test_a_set_outside_the_runners_bounds_is_refused(store: MlflowStore, state_dir: Path) -> None:
    publish(store, candidate(0.1))
    refused = _promote(store, state_dir, bounds={"risk_aversion": (0.2, 1.0), "hedge_threshold": (0.0, 0.01)})
    assert isinstance(refused, GateRefusal)
    assert refused.out_of_bounds == ("hedge_threshold is 0.04 base, allowed [0, 0.01]", "risk_aversion is 0.1 1, allowed [0.2, 1]")
    assert _alias(store, "champion") is None


def test_promoting_the_champion_again_changes_nothing_and_says_so(store: MlflowStore, state_dir: Path) -> None:
    publish(store, candidate())
    first = _promote(store, state_dir)
    again = _promote(store, state_dir, approver="bob", reason="again", now_ns=NOW_NS + 5)
    assert isinstance(again, Promotion)
    assert isinstance(first, Promotion)
    assert not again.changed
    # the approval in force is still the first one
    assert (again.approver, again.approved_at_ns) == (first.approver, NOW_NS)
    assert len(history(state_dir)) == 2


def test_new_bounds_or_a_new_key_sign_the_champion_anew(store: MlflowStore, state_dir: Path) -> None:
    publish(store, candidate())
    _promote(store, state_dir)
    rebound = _promote(store, state_dir, bounds={"sigma": (0.1, 1.0)})
    assert isinstance(rebound, Promotion)
    assert rebound.changed
    assert rebound.previous is None
    for file in keys_dir(state_dir).iterdir():
        file.unlink()
    rekeyed = _promote(store, state_dir, bounds={"sigma": (0.1, 1.0)})
    assert isinstance(rekeyed, Promotion)
    assert rekeyed.changed
    champion = alias_version(store, MODEL, "champion")
    assert champion is not None
    verify_published(champion.published("champion"), load_or_create_key(state_dir).public_key(), MODEL)


@pytest.mark.parametrize(
    ("tag", "change", "says"),
    [
        ("params_json", lambda text: text.replace('"value":0.5', '"value":0.6'), "parameters were altered"),
        ("sha256", lambda text: "0" * 64, "parameters were altered"),
        ("gate_checks", lambda text: text.replace("3.1", "9.9"), "checks were altered"),
    ],
)
def test_altered_content_is_never_signed(store: MlflowStore, state_dir: Path, tag: str, change: Callable[[str], str], says: str) -> None:
    publish(store, candidate())
    record = get_version(store, MODEL, "1")
    assert record is not None
    assert change(record.tags[tag]) != record.tags[tag]
    store.client.set_model_version_tag(MODEL, "1", tag, change(record.tags[tag]))
    with pytest.raises(RegistryError, match=says):
        _promote(store, state_dir)
    assert _alias(store, "champion") is None


def test_a_verdict_that_its_checks_contradict_is_never_signed(store: MlflowStore, state_dir: Path) -> None:
    publish(store, candidate(verdict="fail"))
    store.client.set_model_version_tag(MODEL, "1", "gate_verdict", "pass")
    with pytest.raises(RegistryError, match="contradicts its checks pnl_lower_bound"):
        _promote(store, state_dir, "1")
    assert json.loads(FAILED_CHECKS)[0]["outcome"] == "fail"


def test_absent_versions_and_aliases_name_what_there_is(store: MlflowStore, state_dir: Path) -> None:
    with pytest.raises(RegistryError, match=rf"no versions of {MODEL}"):
        _promote(store, state_dir)
    publish(store, candidate(verdict="fail"))
    publish(store, candidate(0.2))
    with pytest.raises(RegistryError, match="has no version 9; it has versions 1, 2 and aliases challenger -> 2"):
        _promote(store, state_dir, "9")
    with pytest.raises(RegistryError, match="has no champion"):
        _promote(store, state_dir, "champion")


@pytest.mark.parametrize(
    "changed", [{"approver": " "}, {"reason": ""}, {"bounds": {"sigma": (0.0, float("inf"))}}, {"bounds": {"sigma": (2.0, 1.0)}}]
)
def test_a_promotion_needs_a_person_a_reason_and_finite_bounds(store: MlflowStore, state_dir: Path, changed: dict[str, Any]) -> None:
    publish(store, candidate())
    with pytest.raises(ConfigError):
        _promote(store, state_dir, **changed)


@pytest.mark.parametrize("fails_at", ["previous", "champion"])
def test_a_crash_between_the_writes_leaves_a_signed_champion(
    store: MlflowStore, promoted: Callable[..., Promotion], state_dir: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    promoted(0.1)
    version = publish(store, candidate(0.2)).version
    real = store.client.set_registered_model_alias

    def crash(name: str, alias: str, to: str) -> None:
        if alias == fails_at:
            raise KeyboardInterrupt
        real(name, alias, to)

    monkeypatch.setattr(store.client, "set_registered_model_alias", crash)
    with pytest.raises(KeyboardInterrupt):
        _promote(store, state_dir, version)
    public = load_public_key(keys_dir(state_dir) / "signing.pub")
    champion = alias_version(store, MODEL, "champion")
    assert champion is not None
    assert champion.version == "1"
    verify_published(champion.published("champion"), public, MODEL)
    assert history(state_dir)[-1].event == "promoting"
    monkeypatch.undo()
    done = _promote(store, state_dir, version)
    assert isinstance(done, Promotion)
    assert (done.version, done.previous, done.changed) == ("2", "1", True)


def test_rollback_goes_back_once_and_only_from_the_expected_champion(store: MlflowStore, promoted: Callable[..., Promotion], state_dir: Path) -> None:
    def back(expected: str) -> Rollback | RollbackRefusal:
        return rollback(store, PERP, expected_champion=expected, actor="ada", reason="loses", now_ns=NOW_NS, state_dir=state_dir)

    assert back("1") == RollbackRefusal(MODEL, "champion is absent, expected version 1")
    promoted(0.1)
    assert isinstance(back("1"), RollbackRefusal)
    promoted(0.2)
    assert back("1") == RollbackRefusal(MODEL, "champion is version 2, expected version 1")
    assert back("2") == Rollback(MODEL, "1", "2")
    assert _alias(store, "champion") == "1"
    assert [r.event for r in history(state_dir)][-2:] == ["rolling_back", "rolled_back"]
    # never forward again to the version that was found wanting
    assert isinstance(back("1"), RollbackRefusal)
    replaced = get_version(store, MODEL, "2")
    assert replaced is not None
    assert replaced.tags["rolled_back"].endswith("by ada: loses")


def test_rollback_refuses_a_previous_that_was_altered(store: MlflowStore, promoted: Callable[..., Promotion], state_dir: Path) -> None:
    promoted(0.1)
    promoted(0.2)
    record = get_version(store, MODEL, "1")
    assert record is not None
    changed = altered(record.tags["params_json"], valid_from_ns=1)
    store.client.set_model_version_tag(MODEL, "1", "params_json", changed)
    with pytest.raises(RegistryError, match="altered"):
        rollback(store, PERP, expected_champion="2", actor="ada", reason="x", now_ns=NOW_NS, state_dir=state_dir)
    assert _alias(store, "champion") == "2"


def test_a_broken_audit_line_is_named(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / AUDIT_FILE).write_text("{}\n")
    with pytest.raises(RegistryError, match=r"promotions\.jsonl:1"):
        history(state_dir)
