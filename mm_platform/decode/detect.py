"""Which decoder reads a source: told from its first lines, never from its name.

Belongs here: the list of formats. To add one, write a module with a `*_decoder(head, resolve, facts, source)` function that returns None for what
is not its own, and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mm_platform.core.instrument import InstrumentId
from mm_platform.decode.binance_capture import capture_decoder
from mm_platform.decode.binance_csv import binance_csv_decoder
from mm_platform.decode.result import Decoder, Facts, UnknownFormat
from mm_platform.decode.tardis_csv import tardis_csv_decoder

Resolve = Callable[[str, str], InstrumentId]

HEAD_BYTES: Final = 1 << 20
_FORMATS: Final = (capture_decoder, tardis_csv_decoder, binance_csv_decoder)


def decoder_of(head: bytes, resolve: Resolve, facts: Facts, source: int) -> Decoder:
    """The decoder for a source that begins like `head`.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` of the source, cut after a line (or the whole of a shorter one).
    resolve : callable(venue, wire symbol) -> InstrumentId
    facts : callable(InstrumentId, ns) -> InstrumentSpec
    source : int
        Number of the source within the call, part of every message's `place`.

    Raises
    ------
    UnknownFormat
        Empty, or no known format.
    DataError
        A known format that lacks what is needed, or an instrument whose facts are not known.
    """
    if not head.strip():
        raise UnknownFormat("empty; expected a raw capture or a CSV with at least one row")
    for candidate in _FORMATS:
        decoder = candidate(head, resolve, facts, source)
        if decoder is not None:
            return decoder
    shown = head[:80].decode("utf-8", errors="replace").splitlines()[0]
    raise UnknownFormat(
        f"unknown format, first line {shown!r}; expected a raw Binance capture ('<receive time> <JSON>'), Tardis CSV (incremental_book_L2, trades, "
        "derivative_ticker) or a Binance day file (TimestampOfReceive,...)"
    )
