"""Options of the form ``NAME:VALUE``, where the value is a word or a Python expression."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Sequence
from typing import Any

#: Words such as ``push-v3``: always text, except for None, True and False, which are read as literals before
_WORD = re.compile(r"[^\W\d][\w-]*")
#: Text without operators, brackets and quotes, such as a path: text if Python cannot evaluate it
_TEXT = re.compile(r"[\w.:/@~+-]+")


def read_value(text: str) -> Any:
    """Return the value of a literal, a word or, as in rl-zoo3, any other Python expression."""
    if not text:
        raise ValueError("there is no value")
    if text in ("true", "false", "none", "null"):  # as text, each of them would count as true
        raise ValueError("in Python, these are True, False and None")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if _WORD.fullmatch(text):
            return text
    # Imported here because it takes seconds. rl-zoo3 evaluates expressions with the names of this module, such as `nn`
    import rl_zoo3.utils

    try:
        return eval(text, dict(vars(rl_zoo3.utils)))
    except (NameError, SyntaxError):
        if _TEXT.fullmatch(text):
            return text
        raise


class StoreValues(argparse.Action):
    """Action that stores ``NAME:VALUE ...`` as a dictionary, in place of rl-zoo3's."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        found: dict[str, Any] = {}
        for text in values or ():
            name, _, value = text.partition(":")
            try:
                found[name] = read_value(value)
            except Exception as error:  # the expression may raise anything
                raise argparse.ArgumentError(
                    self,
                    f"must be NAME:VALUE with a word or a Python expression as the value, got {text!r}: {error}. Text "
                    f"in an expression needs quotes, which the shell must not remove: {name}:\"['first', 'second']\"",
                ) from error
        setattr(namespace, self.dest, found)
