"""Images of the small problems, drawn with NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Colour = tuple[int, int, int]

_BAR_WIDTH, _GAP, _HEIGHT = 40, 8, 160
_CELL = 32
#: Colours that colour-blind viewers can tell apart
GREY, ORANGE, BLUE, YELLOW = (190, 190, 190), (213, 94, 0), (0, 114, 178), (240, 228, 66)


def bars(heights: Sequence[float], highlighted: int | None) -> np.ndarray:
    """Draw bars with heights in [0, 1], one of them highlighted, as an RGB image, (height, width, 3)."""
    frame = np.full((_HEIGHT, _GAP + len(heights) * (_BAR_WIDTH + _GAP), 3), 255, dtype=np.uint8)
    for i, height in enumerate(heights):
        left = _GAP + i * (_BAR_WIDTH + _GAP)
        top = _HEIGHT - max(2, round(height * _HEIGHT))
        frame[top:, left : left + _BAR_WIDTH] = ORANGE if i == highlighted else GREY
    return frame


def grid(size: int, filled: Iterable[tuple[tuple[int, int], Colour]], agent: tuple[int, int]) -> np.ndarray:
    """Draw cells (x, y), x to the right and y upwards, and the agent's as a smaller square, (height, width, 3)."""
    frame = np.full((size * _CELL, size * _CELL, 3), 255, dtype=np.uint8)
    frame[::_CELL] = frame[:, ::_CELL] = GREY

    def fill(cell: tuple[int, int], margin: int, colour: Colour) -> None:
        top, left = (size - 1 - cell[1]) * _CELL, cell[0] * _CELL
        frame[top + margin : top + _CELL - margin + 1, left + margin : left + _CELL - margin + 1] = colour

    for cell, colour in filled:
        fill(cell, 1, colour)
    fill(agent, 8, BLUE)
    return frame
