"""Colours of figures and pictures. Belongs here: colours only."""

from __future__ import annotations

from typing import Final

INK: Final = "#1f2933"
BLUE: Final = "#2b6cb0"
ORANGE: Final = "#c05621"
GREY: Final = "#7b8794"
GREEN: Final = "#2f855a"
RED: Final = "#c53030"
# loss to profit: light enough for dark text in every cell, and told apart without red and green
LOSS_TO_PROFIT: Final = ((0.0, "#f4a582"), (0.5, "#ffffff"), (1.0, "#92c5de"))
UNKNOWN_CELL: Final = "#e4e7eb"
