"""The model registry: publish and promote through MLflow, read with the standard library.

`registry.load(instrument, alias).predict(market_state)` is the model. Importing this package imports neither MLflow nor numerical
libraries: the runner reads its parameters through `registry.source`.
"""

from __future__ import annotations

from mm_platform.registry.model import MarketState, PublishedModel, load

__all__ = ["MarketState", "PublishedModel", "load"]
