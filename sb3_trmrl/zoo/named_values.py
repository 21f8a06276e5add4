"""Options of the form ``NAME:VALUE``, where the value is a Python expression."""

import argparse
from typing import Any

from rl_zoo3.utils import StoreDict


class StoreValues(StoreDict):
    """rl-zoo3's action for ``NAME:VALUE`` options; a value that cannot be evaluated is an error of the parser."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found: dict[str, Any] = {}
        for text in values:
            parsed = argparse.Namespace()
            try:
                super().__call__(parser, parsed, [text], option_string)  # type: ignore[no-untyped-call]
            except Exception as error:  # the expression may raise anything
                message = f"must be NAME:VALUE with a Python expression as the value, got {text!r}: {error}"
                raise argparse.ArgumentError(self, message) from error
            found |= getattr(parsed, self.dest)
        setattr(namespace, self.dest, found)
