"""The parsers of rl-zoo3's scripts. They are made from the source: importing the scripts takes seconds."""

from __future__ import annotations

import argparse
import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sb3_trmrl.zoo.defaults import ALGORITHMS
from sb3_trmrl.zoo.named_values import StoreValues


def script_parser(script: str, prog: str, **kwargs: Any) -> argparse.ArgumentParser:
    """Return a parser with the options of a script, such as ``"train"`` or ``"plots/all_plots"``."""
    spec = find_spec("rl_zoo3")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'rl_zoo3'")
    folder = Path(spec.submodule_search_locations[0])
    # Without a list of all options above every error
    parser = argparse.ArgumentParser(prog=prog, usage="%(prog)s [options]", **kwargs)
    names = {
        "parser": parser,
        "ALGOS": dict.fromkeys([*_algorithms(folder / "utils.py"), *ALGORITHMS]),
        "EnvironmentName": str,
        "StoreDict": StoreValues,
    }
    for node in ast.walk(ast.parse((folder / f"{script}.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "parser.add_argument":
            eval(compile(ast.Expression(node), script, "eval"), dict(names))
    return parser


def _algorithms(path: Path) -> list[str]:
    """Return the keys of rl-zoo3's dictionary of algorithms."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ALGOS" and isinstance(node.value, ast.Dict):
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise ValueError(f"`ALGOS` must be a dictionary in {path}")
