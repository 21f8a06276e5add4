"""Rendering of the small problems: a printed line, or a bar chart for videos. NumPy is enough for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

_BAR_WIDTH, _GAP, _HEIGHT = 40, 8, 160


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
        self._picture: tuple[Sequence[float], int | None] = ((), None)

    def show(self, line: str, heights: Sequence[float], highlighted: int | None) -> None:
        """
        :param line: What just happened
        :param heights: Of the bars, in [0, 1]
        :param highlighted: Index of the bar to colour
        """
        self._picture = heights, highlighted
        if self.render_mode == "human":
            print(line)

    def render(self) -> np.ndarray | None:
        """
        :return: RGB picture of the current state, shape (height, width, 3), in mode ``"rgb_array"``; else None
        """
        if self.render_mode != "rgb_array":
            return None
        heights, highlighted = self._picture
        frame = np.full((_HEIGHT, _GAP + len(heights) * (_BAR_WIDTH + _GAP), 3), 255, dtype=np.uint8)
        for i, height in enumerate(heights):
            left = _GAP + i * (_BAR_WIDTH + _GAP)
            top = _HEIGHT - max(2, round(height * _HEIGHT))
            frame[top:, left : left + _BAR_WIDTH] = (220, 90, 40) if i == highlighted else (120, 120, 120)
        return frame
