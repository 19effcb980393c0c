"""dYdX v4: named by the guide, not traded on by this version (see the class)."""

from __future__ import annotations

from mm_platform.exchange_connectors.base import UnavailableConnector


class DydxConnector(UnavailableConnector):
    """Refuses on `connect` and on every call, and says what is missing.

    Parameters
    ----------
    address : str
        Account address, `dydx1...`.
    mnemonic : str
        Seed words. Kept out of `repr` and not stored: nothing here can use them yet.
    testnet : bool
    """

    _venue = "dydx"
    _reason = (
        "not available in this version. Missing: order placing through the chain (short-term and long-term orders, block heights), 32-bit "
        "client ids, order and fill streams (ccxt has none for this venue), and funding rates on the oracle price. They come with the venues "
        "release; until then use CEXConnector"
    )

    def __init__(self, address: str = "", mnemonic: str = "", testnet: bool = False) -> None:
        self.address = address
        self.testnet = testnet

    def __repr__(self) -> str:
        return f"DydxConnector(address={self.address!r}, testnet={self.testnet})"
