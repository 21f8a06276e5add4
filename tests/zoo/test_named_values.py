"""Options of the form NAME:VALUE."""

import argparse
from typing import Any

import pytest

pytest.importorskip("rl_zoo3")

from rl_zoo3.utils import StoreDict
from torch import nn

from sb3_trmrl.zoo.named_values import StoreValues

#: Values that rl-zoo3 evaluates, and must keep
EXPRESSIONS = ("3", "-1e-4", "(3, 4)", "[1, 'a:b']", "{'a': 1}", "None", "True", "'push-v3'", "2**3", "dict(a=nn.ReLU)")
#: Words, which rl-zoo3 refuses or evaluates to something else
WORDS = (
    "push-v3",
    "door-open-v3",
    "max",
    "open",
    "lin_3e-4",
    "nn",
    "TrMRLPolicy",
    "ant.xml",
    "./ant-2.xml",
    "C:/ant",
    "3x",
)


def read(action: Any, *texts: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--values", nargs="+", action=action)
    return parser.parse_args(["--values", *texts]).values


def test_expressions_are_read_as_in_rl_zoo3() -> None:
    texts = [f"name_{index}:{value}" for index, value in enumerate(EXPRESSIONS)]
    assert read(StoreValues, *texts) == read(StoreDict, *texts)
    assert read(StoreValues, "kwargs:dict(activation_fn=nn.Tanh)") == {"kwargs": {"activation_fn": nn.Tanh}}


@pytest.mark.parametrize("word", WORDS)
def test_words_need_no_quotes(word: str) -> None:
    assert read(StoreValues, f"name:{word}", "n:2") == {"name": word, "n": 2}


def test_words_are_not_evaluated(monkeypatch: Any) -> None:
    monkeypatch.setattr("builtins.eval", None)
    assert read(StoreValues, *(f"a{word}:{word}" for word in ("push-v3", "exit", "nn"))) == {
        "apush-v3": "push-v3",
        "aexit": "exit",
        "ann": "nn",
    }


@pytest.mark.parametrize("wrong", ["name", "name:", "name:(1,", "name:true", "name:null", "name:[push-v3]", "name:1/0"])
def test_an_error_says_how_to_quote(wrong: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="NAME:VALUE") as caught:
        read(StoreValues, wrong)
    assert repr(wrong) in str(caught.value) and "name:\"['first', 'second']\"" in str(caught.value)
