"""Promotion, rollback and their record: who let which version quote, when and why.

Belongs here: moving `champion` and `previous`, the signed approval behind every champion, the append-only audit file. Does not belong
here: the gate (`calibration.gate`), the runner's reading (`registry.source`).

Order of writes. Approval and signature go to the version in one tag before any alias moves, so that a champion is always signed. Then
`previous` moves to the old champion, then `champion` to the new version: a crash in between leaves the old champion in force, a crash
before or after leaves one complete state. Promotions of one machine queue up behind a file lock; MLflow itself has no compare-and-set,
so operators on several machines must agree among themselves.
"""

from __future__ import annotations

import getpass
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from mm_platform.core.approval import Approval, bound_violations, canonical_approval, text_sha256
from mm_platform.core.errors import ConfigError, RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import iso_utc
from mm_platform.registry import signing
from mm_platform.registry.mlflow_store import MlflowStore, VersionRecord, alias_version, get_version, locked, translated, versions
from mm_platform.registry.publish import TAG_CHECKS, TAG_CHECKS_SHA256, TAG_VERDICT, failing_checks
from mm_platform.registry.source import TAG_APPROVAL, checked_parameters, join_signed, verified_approval, verify_published

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
AUDIT_FILE: Final = "promotions.jsonl"
_ALIASES: Final = ("challenger", CHAMPION, PREVIOUS)


@dataclass(frozen=True, slots=True)
class Promotion:
    """A version is the champion; approver, reason and time are those of the approval in force.

    `changed` is False when it already was the champion, signed by this key under these bounds; nothing was written then.
    """

    model_name: str
    version: str
    previous: str | None
    sha256: str
    approver: str
    reason: str
    approved_at_ns: int
    changed: bool


@dataclass(frozen=True, slots=True)
class GateRefusal:
    """The version may not be promoted: its verdict, the checks that did not pass, and parameters outside the runner's bounds."""

    model_name: str
    version: str
    verdict: str
    failing_checks: tuple[str, ...]
    out_of_bounds: tuple[str, ...]

    @property
    def message(self) -> str:
        """One sentence for people."""
        if self.out_of_bounds:
            return f"{self.model_name} version {self.version} is outside the runner's bounds: {'; '.join(self.out_of_bounds)}"
        return f"{self.model_name} version {self.version} did not pass the gate: {self.verdict}; checks: {', '.join(self.failing_checks) or 'none recorded'}"


@dataclass(frozen=True, slots=True)
class Rollback:
    """The champion after a rollback, and the version it replaced."""

    model_name: str
    version: str
    rolled_back: str


@dataclass(frozen=True, slots=True)
class RollbackRefusal:
    """No rollback: the champion is not the one that was to be replaced, or there is nothing sound to go back to."""

    model_name: str
    reason: str


class AuditRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of the audit file. `promoting` is written before the aliases move, `promoted` after; likewise for rollbacks."""

    event: Literal["promoting", "promoted", "rolling_back", "rolled_back"]
    at_ns: int
    model_name: str
    version: str
    replaced: str | None
    sha256: str
    actor: str
    os_user: str
    reason: str


def promote(
    store: MlflowStore,
    instrument: InstrumentId,
    version: str,
    *,
    approver: str,
    reason: str,
    now_ns: int,
    state_dir: Path,
    bounds: Mapping[str, tuple[float, float]],
) -> Promotion | GateRefusal:
    """Make a version the champion, signed.

    Parameters
    ----------
    store : MlflowStore
        From `mlflow_store.open_store`.
    instrument : InstrumentId
        Whose model.
    version : str
        A version number, or an alias such as "challenger".
    approver, reason : str
        Who answers for it and why; both are signed and recorded, neither may be empty.
    now_ns : int
        UTC ns since the epoch.
    state_dir : Path
        Holds the signing key and the audit file.
    bounds : mapping of str to (low, high)
        The runner's own bounds per parameter, inclusive; signed with the set.

    Returns
    -------
    Promotion or GateRefusal
        A refusal is a value: the verdict is not pass, or a parameter is out of bounds. Nothing was written then.

    Raises
    ------
    ConfigError
        Approver or reason is empty, or a bound is not finite.
    RegistryError
        No such version or alias, its content was altered, or the key is unusable.
    ConnectivityError
        The store is away.
    """
    for what, text in (("approver", approver), ("reason", reason)):
        if not text.strip():
            raise ConfigError(f"a promotion needs the {what}: it is signed and recorded")
    for name, (low, high) in bounds.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(f"bound of {name} is [{low}, {high}]; expected two finite numbers in ascending order")
    with locked(state_dir / "promote.lock"):
        found = _resolve(store, instrument.model_name, version)
        published = found.published(CHAMPION)
        pset = checked_parameters(published)
        checks = _checked_gate(found)
        verdict = found.tags.get(TAG_VERDICT, "none")
        outside = bound_violations(pset, bounds)
        if verdict != "pass" or outside:
            return GateRefusal(found.model_name, found.version, verdict, failing_checks(checks), outside)
        key = signing.load_or_create_key(state_dir)
        champion = alias_version(store, found.model_name, CHAMPION)
        signed_bounds = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
        if champion is not None and champion.version == found.version:
            standing = _standing_approval(found, key)
            if standing is not None and standing.bounds == signed_bounds:
                return _promotion(store, standing, changed=False)
        approval = Approval(
            model_name=found.model_name,
            version=found.version,
            parameters_sha256=published.sha256,
            gate_verdict="pass",
            checks_sha256=text_sha256(checks),
            bounds=signed_bounds,
            approver=approver,
            reason=reason,
            approved_at_ns=now_ns,
        )
        replaced = champion.version if champion is not None and champion.version != found.version else None
        record = AuditRecord(
            event="promoting",
            at_ns=now_ns,
            model_name=found.model_name,
            version=found.version,
            replaced=replaced,
            sha256=published.sha256,
            actor=approver,
            os_user=_os_user(),
            reason=reason,
        )
        _append(state_dir / AUDIT_FILE, record)
        _write_approval(store, approval, key)
        if replaced is not None:
            _set_alias(store, found.model_name, PREVIOUS, replaced)
        _set_alias(store, found.model_name, CHAMPION, found.version)
        _append(state_dir / AUDIT_FILE, msgspec.structs.replace(record, event="promoted"))
        return _promotion(store, approval, changed=True)


def rollback(
    store: MlflowStore, instrument: InstrumentId, *, expected_champion: str, actor: str, reason: str, now_ns: int, state_dir: Path
) -> Rollback | RollbackRefusal:
    """Let `champion` point to `previous` again, if the champion is still the version that the caller means.

    Parameters
    ----------
    expected_champion : str
        Number of the version to be replaced; when another one is the champion by now, nothing happens.
    actor, reason : str
        Who and why, recorded.
    now_ns : int
        UTC ns since the epoch.
    state_dir : Path
        Holds the signing key and the audit file.

    Returns
    -------
    Rollback or RollbackRefusal

    Raises
    ------
    RegistryError
        The previous version is altered or not signed by this key.
    """
    model_name = instrument.model_name
    with locked(state_dir / "promote.lock"):
        champion = alias_version(store, model_name, CHAMPION)
        if champion is None or champion.version != expected_champion:
            return RollbackRefusal(
                model_name, f"champion is {'absent' if champion is None else 'version ' + champion.version}, expected version {expected_champion}"
            )
        previous = alias_version(store, model_name, PREVIOUS)
        if previous is None or previous.version == champion.version:
            return RollbackRefusal(model_name, "there is no previous champion to go back to; promote a version by its number")
        published = previous.published(PREVIOUS)
        verify_published(published, signing.load_public_key(signing.keys_dir(state_dir) / signing.PUBLIC_FILE), model_name)
        record = AuditRecord(
            event="rolling_back",
            at_ns=now_ns,
            model_name=model_name,
            version=previous.version,
            replaced=champion.version,
            sha256=published.sha256,
            actor=actor,
            os_user=_os_user(),
            reason=reason,
        )
        _append(state_dir / AUDIT_FILE, record)
        _set_alias(store, model_name, CHAMPION, previous.version)
        with translated(store.registry_uri):
            store.client.set_model_version_tag(model_name, champion.version, "rolled_back", f"{iso_utc(now_ns)} by {actor}: {reason}")
        _append(state_dir / AUDIT_FILE, msgspec.structs.replace(record, event="rolled_back"))
        return Rollback(model_name, previous.version, champion.version)


def history(state_dir: Path, instrument: InstrumentId | None = None) -> tuple[AuditRecord, ...]:
    """The audit file's records, oldest first, of one instrument or all; raises `RegistryError` naming an unreadable line."""
    path = state_dir / AUDIT_FILE
    if not path.exists():
        return ()
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = msgspec.json.decode(line, type=AuditRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError) as err:
            raise RegistryError(f"{path}:{number}: not an audit record ({err}); keep the file for the record and start a new one") from None
        if instrument is None or record.model_name == instrument.model_name:
            records.append(record)
    return tuple(records)


def _resolve(store: MlflowStore, model_name: str, version: str) -> VersionRecord:
    found = get_version(store, model_name, version) if version.isdigit() else alias_version(store, model_name, version)
    if found is None:
        there = versions(store, model_name)
        if not there:
            raise RegistryError(f"no versions of {model_name} in {store.registry_uri}; publish one first (mm publish)")
        held = [(alias, alias_version(store, model_name, alias)) for alias in _ALIASES]
        aliases = ", ".join(f"{alias} -> {v.version}" for alias, v in held if v is not None)
        raise RegistryError(
            f"{model_name} has no {'version ' + version if version.isdigit() else version}; it has versions "
            f"{', '.join(v.version for v in reversed(there))} and aliases {aliases or 'none'}"
        )
    return found


def _checked_gate(found: VersionRecord) -> str:
    checks = found.tags.get(TAG_CHECKS, "")
    what = f"{found.model_name} version {found.version}"
    if text_sha256(checks) != found.tags.get(TAG_CHECKS_SHA256):
        raise RegistryError(f"{what}: the gate's checks were altered after publishing; publish the candidate again")
    try:
        failing = failing_checks(checks)
    except ConfigError as err:
        raise RegistryError(f"{what}: {err}") from None
    if found.tags.get(TAG_VERDICT) == "pass" and failing:
        raise RegistryError(f"{what}: verdict 'pass' contradicts its checks {', '.join(failing)}; publish the candidate again")
    return checks


def _standing_approval(found: VersionRecord, key: Ed25519PrivateKey) -> Approval | None:
    try:
        return verified_approval(found.published(CHAMPION), key.public_key(), found.model_name)
    except RegistryError:
        return None  # unsigned, or by a key that is gone: to be signed again


def _promotion(store: MlflowStore, approval: Approval, *, changed: bool) -> Promotion:
    previous = alias_version(store, approval.model_name, PREVIOUS)
    return Promotion(
        model_name=approval.model_name,
        version=approval.version,
        previous=None if previous is None else previous.version,
        sha256=approval.parameters_sha256,
        approver=approval.approver,
        reason=approval.reason,
        approved_at_ns=approval.approved_at_ns,
        changed=changed,
    )


def _write_approval(store: MlflowStore, approval: Approval, key: Ed25519PrivateKey) -> None:
    message = canonical_approval(approval)
    tags = {
        TAG_APPROVAL: join_signed(message.decode(), signing.sign(key, message)),
        # the same for people who read MLflow's page; nothing trusts these
        "promoted_by": approval.approver,
        "promoted_at": iso_utc(approval.approved_at_ns),
        "promotion_reason": approval.reason,
    }
    with translated(store.registry_uri):
        for name, value in tags.items():
            store.client.set_model_version_tag(approval.model_name, approval.version, name, value)


def _set_alias(store: MlflowStore, model_name: str, alias: str, version: str) -> None:
    with translated(store.registry_uri):
        store.client.set_registered_model_alias(model_name, alias, version)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())  # a container's user without a name


def _append(path: Path, record: AuditRecord) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # one write of a whole line: a killed process leaves it or not, never half
        os.write(descriptor, msgspec.json.encode(record) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
