"""What an error of the ccxt client means for us.

Belongs here: the mapping from the client's exceptions and the venue's codes to our error tree. Does not belong here: calls, retries.

A read that failed changed nothing. A write that failed may have happened: the client's exception class cannot tell (the same classes come
before and after the order was accepted), so only a code that the venue gives for refusals, or an exception raised before anything was
sent, counts as refused. Codes are used before classes, because the client maps some of them to other classes when the address is not the
venue's production address.
"""

from __future__ import annotations

import re
from typing import Any, Final

from mm_platform.core.errors import ConnectivityError, UnknownOutcome, VenueError, VenueRejected

_CODE: Final = re.compile(r'"code"\s*:\s*"?(-?\d+)')
# client id already in use: the order of an earlier attempt may be live
BINANCE_DUPLICATE: Final = -4116


def venue_code(text: str) -> int | None:
    """The venue's numeric code in an error's text, if it carries one."""
    match = _CODE.search(text)
    return int(match[1]) if match else None


def binance_refused(code: int) -> bool:
    """Whether a Binance code says for certain that the request was not carried out.

    Refusals: rate limits, timestamp and signature (-1002, -1003, -1013 to -1023), malformed parameters (-11xx), orders and cancels turned
    down (-2010 to -2028), filters and account modes (-4xxx), time in force and post-only (-502x, -503x). Not certain: -1000, -1001,
    -1006, -1007, -1008 (no answer from the engine behind the gate), -2012 (a cancel of all orders that failed on the way), a duplicate
    client id (-4116), and every code not known here.
    """
    if code in (BINANCE_DUPLICATE, -2012):
        return False
    return code in (-1002, -1003) or any(
        low <= code <= high for low, high in ((-1023, -1013), (-1199, -1100), (-2028, -2010), (-4999, -4000), (-5040, -5021))
    )


def read_error(ccxt: Any, err: Exception, text: str) -> VenueError:
    """A failed read: may be asked again, or will not get better."""
    if isinstance(err, ccxt.OperationFailed):
        return ConnectivityError(text)
    return VenueRejected(text)


def write_error(ccxt: Any, err: Exception, text: str, *, binance: bool) -> VenueError:
    """A failed write: certainly refused, or of unknown outcome."""
    code = venue_code(text)
    if code is not None and binance:
        return VenueRejected(text) if binance_refused(code) else UnknownOutcome(text)
    if isinstance(err, (ccxt.DuplicateOrderId, ccxt.OperationFailed)):
        return UnknownOutcome(text)
    # checks of the client itself, and classes that the client gives to a venue's own refusals only
    refused = (
        ccxt.AuthenticationError,
        ccxt.PermissionDenied,
        ccxt.AccountSuspended,
        ccxt.ArgumentsRequired,
        ccxt.BadRequest,
        ccxt.BadSymbol,
        ccxt.InsufficientFunds,
        ccxt.InvalidOrder,
        ccxt.OperationRejected,
        ccxt.NotSupported,
    )
    return VenueRejected(text) if isinstance(err, refused) else UnknownOutcome(text)
