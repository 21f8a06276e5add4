"""Wrong input of ``predict``: states, observations and their table of wrong uses."""

import itertools
import re
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO

from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from tests.helpers.agents import TRANSITION, VECTOR, SampledEnv, sampled_vec_env, tiny_model
from tests.helpers.wrong_use import INF, NAN, Wrong, assert_covered, assert_says, name_of, rows, wrong_bool

ZEROS = np.zeros((2, 3), np.float32)
PREDICT = [
    *(
        Wrong("observation", value, ValueError, "(n_env, 3)", quoted=str(np.shape(value)))
        for value in (np.zeros(2), np.zeros((2, 4)), np.zeros((2, 2, 3)), 0.0, [[0.0]])
    ),
    *rows("observation", (np.full((2, 3), "a"), np.full((2, 3), None)), ValueError, "numbers"),
    Wrong("observation", {"observation": np.zeros((2, 3))}, ValueError, "an array", quoted="'observation'"),
    *(
        Wrong("observation", np.full((2, 3), value), ValueError, "non-finite", quoted=str(value))
        for value in (NAN, INF, -INF)
    ),
    *rows("state", (5, "memory", np.zeros(3), {}, (1, 2, 3, 4)), ValueError, "a state from predict()"),
    *(
        Wrong("episode_start", value, ValueError, "2 observation(s)", quoted=str(value))
        for value in ([True], [True] * 3, True, "yes", ["yes", "no"], [None, None], np.ones((2, 2)))
    ),
    *wrong_bool("deterministic"),
    *rows("action_masks", ([[1, 0], [0.5, 1]], [[1, 0], [-INF, 0]], [[1, 0], [1]], "all"), ValueError, "(2, 2)"),
    *(
        Wrong("action_masks", np.ones(shape), ValueError, "booleans", quoted=str(shape))
        for shape in ((2,), (4,), (2, 3), (1, 2), (1, 4), ())
    ),
    Wrong("action_masks", [[1, 0], [0, 0]], ValueError, "at least one action", quoted="environment 1"),
]
each_memory = pytest.mark.parametrize("memory", ["window", "full"])


@each_memory
@pytest.mark.parametrize("row", PREDICT, ids=name_of)
def test_predict(row: Wrong, memory: str) -> None:
    model = tiny_model(SampledEnv(VECTOR), {"memory": memory})
    right = {"observation": ZEROS, "episode_start": [True, True]}
    row.check(model.policy.predict, right)
    row.check(model.predict, right)


def test_every_argument_of_predict_is_in_the_table() -> None:
    assert_covered(TransformerPPO.predict, PREDICT)
    assert_covered(TrMRLPolicy.predict, PREDICT)


DICT_OBSERVATION: dict[str, Any] = {
    key: np.zeros((2, *(space.shape or ())), np.float32) for key, space in TRANSITION.spaces.items()
}


@pytest.mark.parametrize(
    ("observation", "parts"),
    [
        ({**DICT_OBSERVATION, "prev_action": np.zeros((2, 5), np.float32)}, ("(2, 5)", "(n_env, 2)")),
        ({**DICT_OBSERVATION, "prev_action": np.full((2, 2), NAN)}, ("['prev_action']", "nan", "environment 0")),
        (
            {key: value for key, value in DICT_OBSERVATION.items() if key != "prev_action"},
            ("'prev_action'", "'prev_reward'"),
        ),
        ({**DICT_OBSERVATION, "more": np.zeros((2, 1))}, ("'more'", "'prev_action'", "'prev_reward'")),
        (ZEROS, ("'prev_action'", "ndarray")),
    ],
    ids=["shape", "not finite", "missing key", "unknown key", "array"],
)
def test_dict_observations(observation: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        tiny_model(SampledEnv(TRANSITION)).predict(observation, None, np.ones(2))
    assert_says(str(caught.value), "observation", *parts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("start", [[True] * 3, None])
@pytest.mark.filterwarnings("ignore:predict")
def test_non_finite_observation(value: float, start: list[bool] | None) -> None:
    """The message names the environment and the key. A single environment has the number 0."""
    model = tiny_model(sampled_vec_env(2))
    observations = np.zeros((3, 3), np.float32)
    observations[2, 1] = value
    with pytest.raises(ValueError, match=r"non-finite observation from environment 2"):
        model.predict(observations, None, start)
    with pytest.raises(ValueError, match=r"non-finite observation") as caught:
        model.predict(observations[2], None, start and start[:1])
    assert not re.search(r"environment [1-9]", str(caught.value))

    as_dict: Any = sampled_vec_env(3, TRANSITION).reset()
    as_dict["prev_reward"][1] = value
    with pytest.raises(ValueError, match=r"non-finite observation\['prev_reward'\] from environment 1"):
        tiny_model(SampledEnv(TRANSITION)).predict(as_dict, None, start)


def first_state(space: spaces.Space[Any] = VECTOR, n_envs: int = 2, **policy_kwargs: Any) -> Any:
    """Return the state of another model after one observation."""
    env = sampled_vec_env(n_envs, space)
    return tiny_model(env, policy_kwargs).predict(env.reset(), None, np.ones(n_envs))[1]


def recurrent_state() -> Any:
    """Return a state of another algorithm."""
    model = RecurrentPPO("MlpLstmPolicy", sampled_vec_env(2), n_steps=8, batch_size=8, device="cpu")
    return model.predict(ZEROS, None, np.zeros(2, bool))[1]


@each_memory
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda memory: first_state(n_envs=3, memory=memory), "`state` has the shapes .* for 2 observation\\(s\\)"),
        (lambda memory: first_state(spaces.Box(-1, 1, (4,)), memory=memory), "`state`"),
        (lambda memory: first_state(TRANSITION, memory=memory), "`state`"),
        (lambda memory: recurrent_state(), "`state`"),
        (lambda memory: np.zeros((2, 4, 3), np.float32), "`state`"),
        (lambda memory: first_state(memory={"window": "full", "full": "window"}[memory]), "`state`"),
        (lambda memory: first_state(n_layers=2, context_length=5, memory=memory), "`state`"),
    ],
    ids=[
        "another number of environments",
        "other observations",
        "Dict observations",
        "RecurrentPPO",
        "an array",
        "another kind of memory",
        "another transformer",
    ],
)
def test_wrong_state(memory: str, state: Any, message: str) -> None:
    """A state of another size, model or algorithm is refused by name."""
    model = tiny_model(sampled_vec_env(2), dict(memory=memory))
    with pytest.raises(ValueError, match=message):
        model.predict(ZEROS, state(memory), np.zeros(2, bool))


def test_state_with_lengths_beyond_its_slots() -> None:
    state = first_state()
    with pytest.raises(ValueError, match="`state`"):
        tiny_model(sampled_vec_env(2)).predict(ZEROS, (state.tokens, np.array([9, 1])), np.zeros(2, bool))


def test_observation_of_gymnasium_reset() -> None:
    """SB3 explains the mistake, from model and policy, with and without starts."""
    model = tiny_model("CartPole-v1")
    wrong: Any = gym.make("CartPole-v1").reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for actor, start in itertools.product((model, model.policy), (None, np.array([True]))):
            with pytest.raises(ValueError, match=r"mixing Gym API"):
                actor.predict(wrong, None, start)
