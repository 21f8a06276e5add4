"""Attributes that are plain data, and those that may hold a state besides."""

from functools import partial

import numpy as np

from sb3_trmrl.common.plain_state import opaque_attributes


def test_attributes_that_may_hold_a_state() -> None:
    class Owner:
        def __init__(self) -> None:
            self._saved_kwargs = {"function": len}
            self.numbers, self.none, self.array = {"a": [1, (2.0, "b")]}, None, np.zeros(2)
            self.functions, self.kind, self.function = np.sign, float, lambda: 0
            self.own_method, self.partial, self.builtin = self.method, partial(max, 1), len
            self.iterator, self.objects, self.drawing = iter([1]), np.array([object()]), np.random.default_rng(0).normal
            self.mixed = [1, iter([1])]

        def method(self) -> None:
            """Nothing"""

    assert opaque_attributes(Owner(), ()) == ["iterator", "objects", "drawing", "mixed"]
    assert opaque_attributes(Owner(), (np.ndarray, type(iter([])))) == ["drawing", "mixed"]
