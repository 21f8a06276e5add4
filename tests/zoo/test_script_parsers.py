"""The parsers that are made from the source of rl-zoo3's scripts have the options of the scripts."""

import argparse
import runpy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rl_zoo3")

import rl_zoo3.enjoy
import rl_zoo3.plots
import rl_zoo3.train

from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.script_parsers import script_parser

SCRIPTS: dict[str, Callable[[], Any]] = {
    "train": lambda: rl_zoo3.train.train(),
    "enjoy": lambda: rl_zoo3.enjoy.enjoy(),
    "record_video": lambda: runpy.run_module("rl_zoo3.record_video", run_name="__main__"),
    "plots/plot_train": rl_zoo3.plots.plot_train,
    "plots/all_plots": rl_zoo3.plots.all_plots,
    "plots/plot_from_file": rl_zoo3.plots.plot_from_file,
}


class Caught(Exception):
    """Holds the parser of a script."""


@pytest.mark.parametrize("script", SCRIPTS)
def test_same_options(script: str, monkeypatch: Any) -> None:
    def catch(parser: argparse.ArgumentParser) -> None:
        raise Caught(parser)

    register()
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", catch)
    with pytest.raises(Caught) as caught:
        SCRIPTS[script]()
    expected, found = (options_of(parser) for parser in (caught.value.args[0], script_parser(script, "trmrl")))
    assert len(found) > 5
    assert found == expected


def options_of(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    options = [dict(vars(action)) | {"class": type(action)} for action in parser._actions]
    for option in options:
        del option["container"]
        option["choices"] = option["choices"] and set(option["choices"])
        # Only a name here: the script checks it
        option["type"] = getattr(option["type"], "__name__", None)
        option["type"] = {"EnvironmentName": "str"}.get(option["type"], option["type"])
    return options
