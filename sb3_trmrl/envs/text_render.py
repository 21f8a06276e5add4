"""Rendering of the small problems: a printed line, or a picture for videos. NumPy is enough for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

_BAR_WIDTH, _GAP, _HEIGHT = 40, 8, 160
_CELL = 32
#: Grey, orange and blue, told apart by any eye
GREY, ORANGE, BLUE = (190, 190, 190), (213, 94, 0), (0, 114, 178)


class TextRender(gym.Env):
    """
    :param render_mode: ``"human"`` prints, ``"rgb_array"`` draws, None does neither
    :raises ValueError: if the mode is unknown
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (as Gymnasium)

    def __init__(self, render_mode: str | None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"`render_mode` must be None or one of {self.metadata['render_modes']}, got {render_mode!r}"
            )
        self.render_mode = render_mode
        self._draw: Callable[[], np.ndarray] = partial(bars, (), None)

    def show(self, line: str, draw: Callable[[], np.ndarray]) -> None:
        """
        :param line: What just happened
        :param draw: Makes the picture of the present state, once it is asked for
        """
        self._draw = draw
        if self.render_mode == "human":
            print(line)

    def render(self) -> np.ndarray | None:
        """
        :return: RGB picture of the current state, shape (height, width, 3), in mode ``"rgb_array"``; else None
        """
        return self._draw() if self.render_mode == "rgb_array" else None


def bars(heights: Sequence[float], highlighted: int | None) -> np.ndarray:
    """
    :param heights: Of the bars, in [0, 1]
    :param highlighted: Index of the bar to colour
    :return: RGB picture
    """
    frame = np.full((_HEIGHT, _GAP + len(heights) * (_BAR_WIDTH + _GAP), 3), 255, dtype=np.uint8)
    for i, height in enumerate(heights):
        left = _GAP + i * (_BAR_WIDTH + _GAP)
        top = _HEIGHT - max(2, round(height * _HEIGHT))
        frame[top:, left : left + _BAR_WIDTH] = ORANGE if i == highlighted else GREY
    return frame


def grid(
    size: int, filled: Iterable[tuple[tuple[int, int], tuple[int, int, int]]], agent: tuple[int, int]
) -> np.ndarray:
    """
    :param size: Cells along each side
    :param filled: Cells (x, y) to colour, and their colours
    :param agent: Cell of the agent, a smaller blue square
    :return: RGB picture, x to the right and y upwards
    """
    frame = np.full((size * _CELL, size * _CELL, 3), 255, dtype=np.uint8)
    frame[::_CELL] = frame[:, ::_CELL] = GREY

    def fill(cell: tuple[int, int], margin: int, colour: tuple[int, int, int]) -> None:
        top, left = (size - 1 - cell[1]) * _CELL, cell[0] * _CELL
        frame[top + margin : top + _CELL - margin + 1, left + margin : left + _CELL - margin + 1] = colour

    for cell, colour in filled:
        fill(cell, 1, colour)
    fill(agent, 8, BLUE)
    return frame
