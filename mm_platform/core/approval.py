"""What a person signs when a parameter set becomes the champion (CONTRACTS, Parameter set and Registry).

Belongs here: the struct, its canonical bytes, and the check of a set against the bounds it was approved under. Does not belong here:
keys and signatures (`registry.signing`), where approvals are stored (`registry.promote`, `registry.source`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from mm_platform.core.errors import RegistryError
from mm_platform.core.parameters import ParameterSet

SCHEMA: Final = 1
GateVerdict = Literal["pass", "fail", "insufficient_evidence"]
GATE_VERDICTS: Final[tuple[GateVerdict, ...]] = ("pass", "fail", "insufficient_evidence")


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signed statement: who let which set of which version quote, on what verdict, inside which bounds.

    Parameters
    ----------
    model_name, version : str
        The registered version this speaks of; an approval never serves another.
    parameters_sha256 : str
        Hash of the canonical JSON of the parameter set.
    gate_verdict : str
        Always "pass": nothing else can be approved.
    checks_sha256 : str
        Hash of the gate's checks as they stood at the approval.
    bounds : dict of str to (low, high)
        Inclusive bounds per parameter name, in the unit of the parameter.
    approver, reason : str
        Who, and why.
    approved_at_ns : int
        UTC ns since the epoch.
    """

    schema: int = SCHEMA
    model_name: str
    version: str
    parameters_sha256: str
    gate_verdict: Literal["pass"]
    checks_sha256: str
    bounds: dict[str, tuple[float, float]]
    approver: str
    reason: str
    approved_at_ns: int


def canonical_approval(approval: Approval) -> bytes:
    """The exact bytes that are signed: JSON with sorted keys and no spaces, UTF-8."""
    return msgspec.json.encode(approval, order="sorted")


def decode_approval(raw: bytes | str) -> Approval:
    """Parse strictly; raises `RegistryError` naming the field that is missing, unknown or of the wrong kind."""
    try:
        approval = msgspec.json.decode(raw, type=Approval)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise RegistryError(f"the approval is not readable: {err}; promote the version again") from None
    if approval.schema != SCHEMA:
        raise RegistryError(f"the approval has schema {approval.schema}, this version reads {SCHEMA}; promote the version again")
    return approval


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes, as stored beside parameter sets and gate checks."""
    return hashlib.sha256(text.encode()).hexdigest()


def bound_violations(pset: ParameterSet, bounds: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Parameters outside their bounds, one sentence each; empty when the set is inside all of them.

    A name that the set does not carry is an optional coefficient, acts as 0 and is judged as 0. "Never hedge" is judged as an infinite
    `hedge_threshold`. Whoever makes the bounds checks their names (`config` does).
    """
    found = []
    for name, (low, high) in sorted(bounds.items()):
        entry = pset.values.get(name)
        if entry is not None and isinstance(entry.value, str):
            found.append(f"{name} is {entry.value!r}; a bound [{low:g}, {high:g}] needs a number")
            continue
        if entry is None:
            value = 0.0
        elif entry.value is None:
            value = math.inf
        else:
            value = float(entry.value)
        if not low <= value <= high:
            found.append(f"{name} is {value:g} {'' if entry is None else entry.unit}, allowed [{low:g}, {high:g}]")
    return tuple(found)
