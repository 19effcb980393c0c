"""Sources of one instrument into one stream of messages.

Belongs here: which sources follow each other and which run side by side, and their merge by receive time. Does not belong here: decoding,
building.

Sources that can hold the same streams are one chain, ordered by first receive time, whatever order they were named in. Sources with disjoint
streams (book, trades, ticker in files of their own) are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mm_platform.core.errors import DataError
from mm_platform.core.units import iso_utc
from mm_platform.decode.result import Decoded, Decoder
from mm_platform.tape.messages import Messages, concat
from mm_platform.workflow.sources import Source, read_lines


@dataclass(frozen=True)
class OpenSource:
    """A source whose format and instrument are known."""

    source: Source
    number: int
    decoder: Decoder
    first_local_ns: int


OnDecoded = Callable[[OpenSource, Decoded], None]


def chains(sources: Sequence[OpenSource]) -> list[list[OpenSource]]:
    """Sources grouped by what they hold, each group in order of first receive time.

    Raises
    ------
    DataError
        Sources share some streams but not all.
    """
    groups: dict[frozenset[str], list[OpenSource]] = {}
    for source in sorted(sources, key=lambda s: (s.first_local_ns, s.source.file.name, s.source.file.sha256)):
        groups.setdefault(source.decoder.streams, []).append(source)
    kinds = list(groups)
    for i, a in enumerate(kinds):
        for b in kinds[i + 1 :]:
            if a & b:
                names = [groups[k][0].source.file.name for k in (a, b)]
                raise DataError(
                    f"{names[0]} and {names[1]} both hold {', '.join(sorted(a & b))} of one instrument in different formats; ingest one of them"
                )
    return list(groups.values())


def chain_messages(chain: Sequence[OpenSource], on_decoded: OnDecoded) -> Iterator[Messages]:
    """Messages of sources that follow each other.

    Raises
    ------
    DataError
        A source begins before the one before it ended.
    """
    newest, before = -1, ""
    for opened in chain:
        line = 1
        first = True
        for chunk in read_lines(opened.source.path):
            decoded = opened.decoder.decode(chunk, line)
            line += chunk.count(b"\n") + (0 if chunk.endswith(b"\n") else 1)
            yield from _given(opened, decoded, on_decoded, newest if first else -1, before)
            first = first and not len(decoded.messages)
            newest = max(newest, int(decoded.messages.local_ns.max()) if len(decoded.messages) else -1)
        decoded = opened.decoder.finish()
        yield from _given(opened, decoded, on_decoded, newest if first else -1, before)
        newest = max(newest, int(decoded.messages.local_ns.max()) if len(decoded.messages) else -1)
        before = opened.source.file.name


def _given(opened: OpenSource, decoded: Decoded, on_decoded: OnDecoded, newest_before: int, before: str) -> Iterator[Messages]:
    on_decoded(opened, decoded)
    if not len(decoded.messages):
        return
    start = int(decoded.messages.local_ns[0])
    if start < newest_before:
        raise DataError(
            f"{opened.source.file.name} begins at {iso_utc(start)}, before {before} ends at {iso_utc(newest_before)}: two recordings of the same "
            "stretch; ingest one of them"
        )
    yield decoded.messages


def merged(streams: Sequence[Iterator[Messages]]) -> Iterator[Messages]:
    """Messages of chains that run side by side, by receive time; within a chain their order stays. Holds one batch per chain."""
    if len(streams) == 1:
        yield from streams[0]
        return
    held: list[Messages] = [Messages.empty() for _ in streams]
    alive = [True] * len(streams)
    while True:
        for i, stream in enumerate(streams):
            while alive[i] and not len(held[i]):
                following = next(stream, None)
                if following is None:
                    alive[i] = False
                else:
                    held[i] = following
        if not any(len(h) for h in held):
            return
        # what a chain still to be read may send is not known beyond its newest message
        bound = min((int(h.local_ns.max()) for h, a in zip(held, alive, strict=True) if a), default=np.iinfo(np.int64).max)
        pieces, keys = [], []
        for i, batch in enumerate(held):
            if not len(batch):
                continue
            climbing = np.maximum.accumulate(batch.local_ns)
            cut = int(np.searchsorted(climbing, bound, side="right"))
            pieces.append(batch.slice(0, cut))
            keys.append(climbing[:cut])
            held[i] = batch.slice(cut, len(batch))
        together = concat(pieces)
        if len(together):
            yield together.take(np.argsort(np.concatenate(keys), kind="stable"))
