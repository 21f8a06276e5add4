"""Wrong arguments of the policy and of its transformer."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_trmrl import MAMLTRPO, PEARL, TransformerSAC, VariBAD
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from tests.helpers.agents import VECTOR, LinearFeatures, tiny_model
from tests.helpers.wrong_use import (
    INF,
    NAN,
    NOT_BOOLS,
    Wrong,
    assert_covered,
    assert_says,
    name_of,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)

SIZES = ("context_length", "d_model", "n_layers", "n_heads", "dim_feedforward")
TRANSFORMER = [
    *(row for name in SIZES[1:] for row in wrong_integer(name)),
    Wrong("n_heads", 3, ValueError, "divide"),
    Wrong("n_heads", 128, ValueError, "divide"),
    Wrong("d_model", 63, ValueError, "even", given={"n_heads": 1, "positional_encoding": "sinusoidal"}),
    *wrong_option("initialization", "tfixup"),
    *wrong_option("layer_norm", "none"),
    *rows("embedding_arch", (4, "4"), TypeError, "a list of layer sizes"),
    *(Wrong("embedding_arch", [4, value], TypeError, "integer", quoted=repr(value)) for value in (4.0, "a", True)),
    Wrong("embedding_arch", [4, 0], ValueError, "at least 1", quoted="0"),
]
POLICY = [
    *TRANSFORMER,
    *wrong_option("memory", "window", or_none=True),
    Wrong("positional_encoding", "learned", ValueError, "window", given={"memory": "full"}),
    *wrong_integer("context_length", or_none=True),
    *wrong_option("positional_encoding", "sinusoidal", or_none=True),
    *rows("net_arch", (5, "64", {4}), TypeError, "a list of layer sizes"),
    Wrong("net_arch", {"pi": 64}, TypeError, "a list of layer sizes", quoted="64"),
    Wrong("net_arch", {"pi": [64], "qf": [64]}, ValueError, "'vf'", quoted="'qf'"),
    *(Wrong("net_arch", value, TypeError, "integer", quoted="'a'") for value in (["a"], {"vf": [4, "a"]})),
    *(Wrong("net_arch", value, ValueError, "at least 1", quoted="0") for value in ([4, 0], {"pi": [0]})),
    *rows("activation_fn", ("tanh", nn.Tanh(), th.tanh, None, int), TypeError, "an nn.Module class"),
    *(row for name in ("ortho_init", "share_features_extractor", "normalize_images") for row in wrong_bool(name)),
    *(
        Wrong(name, value, TypeError, "True or False")
        for name in ("full_std", "use_expln", "squash_output")
        for value in NOT_BOOLS
        if value is not None
    ),
    *wrong_number("log_std_init", (NAN, INF), "finite"),
    *rows("features_extractor_class", ("NatureCNN", 5, nn.Linear), TypeError, "BaseFeaturesExtractor"),
    *wrong_keywords("features_extractor_kwargs"),
    Wrong(
        "features_extractor_kwargs",
        {"depth": 5},
        TypeError,
        "it takes width",
        quoted="'depth'",
        given={"features_extractor_class": LinearFeatures},
    ),
    *rows("optimizer_class", ("Adam", 5, None, nn.Linear), TypeError, "Optimizer"),
    *wrong_keywords("optimizer_kwargs"),
    Wrong("optimizer_kwargs", {"lr": 0.1}, TypeError, "betas", quoted="'lr'"),
    Wrong("optimizer_kwargs", {"beta": 0.1}, TypeError, "betas", quoted="'beta'"),
    *wrong_option("reset_memory_on", "trial"),
    *wrong_option("critic_input", "token"),
    *wrong_number("action_head_gain", (-0.1, NAN, INF), "not negative"),
]
#: Arguments that TransformerPPO passes. They may be wrong if a policy is made by hand
PASSED = [
    *rows("observation_space", (5, None, (4,)), TypeError, "a Gymnasium space"),
    *rows("action_space", (5, None), TypeError, "a Gymnasium space"),
    *rows("lr_schedule", (3e-4, None, "lin_3e-4"), TypeError, "a schedule"),
    *wrong_bool("use_sde"),
]


@pytest.mark.parametrize("row", POLICY, ids=name_of)
def test_policy_kwargs(row: Wrong) -> None:
    def build(**policy_kwargs: Any) -> TransformerPPO:
        return TransformerPPO("TrMRLPolicy", "CartPole-v1", policy_kwargs=policy_kwargs, device="cpu")

    row.check(build)


@pytest.mark.parametrize("row", [*POLICY, *PASSED], ids=name_of)
def test_policy_by_hand(row: Wrong) -> None:
    right = {"observation_space": VECTOR, "action_space": spaces.Discrete(2), "lr_schedule": lambda _: 1e-3}
    row.check(TrMRLPolicy, right)


def test_every_argument_of_the_policy_is_in_the_table() -> None:
    assert_covered(TrMRLPolicy, [*POLICY, *PASSED])


@pytest.mark.parametrize("name", ["no_such_argument", "use_sde", "observation_space", "n_layer"])
def test_names_that_the_policy_does_not_take(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        tiny_model("CartPole-v1", {name: 1})
    assert_says(str(caught.value), "policy_kwargs", repr(name), "it takes", "n_layers", "embedding_arch")
    assert str(caught.value).endswith("Did you mean 'n_layers'?") == (name == "n_layer")


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (TransformerPPO, "context_length"),
        (TransformerSAC, "context_length"),
        (VariBAD, "net_arch"),
        (PEARL, "net_arch"),
        (MAMLTRPO, "net_arch"),
    ],
)
def test_arguments_of_the_policy_that_are_given_to_the_algorithm(algorithm: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"`{name}` is an argument of the policy: .*policy_kwargs=dict\({name}=8\)"):
        algorithm("MultiInputPolicy", "BernoulliBandit-v0", **{name: 8})
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such_argument'"):
        algorithm("MultiInputPolicy", "BernoulliBandit-v0", no_such_argument=8)


EXTRACTOR = [
    *TRANSFORMER,
    *wrong_integer("context_length"),
    *wrong_option("positional_encoding", "sinusoidal"),
    *rows("observation_space", (5, None), TypeError, "a Gymnasium space"),
    *rows("token_extractor", (5, FlattenExtractor), TypeError, "a BaseFeaturesExtractor"),
    *wrong_bool("bounded_positions"),
    *wrong_bool("normalize_images"),
    Wrong("positional_encoding", "learned", ValueError, "bounded", given={"bounded_positions": False}),
]


@pytest.mark.parametrize("row", EXTRACTOR, ids=name_of)
def test_extractor(row: Wrong) -> None:
    row.check(TransformerExtractor, {"observation_space": VECTOR})


def test_every_argument_of_the_extractor_is_in_the_table() -> None:
    assert_covered(TransformerExtractor, EXTRACTOR)
