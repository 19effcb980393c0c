"""Hyperliquid: named by the guide, not traded on by this version (see the class)."""

from __future__ import annotations

from mm_platform.exchange_connectors.base import UnavailableConnector


class HyperliquidConnector(UnavailableConnector):
    """Refuses on `connect` and on every call, and says what is missing.

    Parameters
    ----------
    wallet_address : str
        Account address, `0x...`.
    private_key : str
        Key of the account or of an agent wallet. Kept out of `repr` and not stored: nothing here can use it yet.
    testnet : bool
    """

    _venue = "hyperliquid"
    _reason = (
        "not available in this version. Missing: signing without ccxt's default builder (which adds 1 bp to every fill and sends approvals on "
        "connect), 128-bit hex client ids, prices by significant figures, per-order resolution of batch errors, and a watchdog in place of a "
        "dead man's switch. They come with the venues release; until then use CEXConnector"
    )

    def __init__(self, wallet_address: str = "", private_key: str = "", testnet: bool = False) -> None:
        self.wallet_address = wallet_address
        self.testnet = testnet

    def __repr__(self) -> str:
        return f"HyperliquidConnector(wallet_address={self.wallet_address!r}, testnet={self.testnet})"
