"""Wrong arguments of VariBAD and its policy."""

from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trmrl import TrMRLPolicy, VariBAD, VariBADPolicy
from tests.helpers.agents import TRANSITION
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Wrong,
    assert_covered,
    name_of,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)

MODEL = [
    *wrong_option("policy", "VariBADPolicy")[:2],
    Wrong("policy", TrMRLPolicy, ValueError, "'VariBADPolicy'", quoted="TrMRLPolicy"),
    *rows("policy", (5, None), TypeError, "'VariBADPolicy'"),
    *rows("env", (5, gym.Env, None), TypeError, "a Gymnasium environment"),
    *wrong_number("learning_rate", (-1.0, NAN), "not negative"),
    *wrong_number("gamma", (-0.1, 1.1, NAN), "[0, 1]"),
    *wrong_integer("n_steps"),
    Wrong("batch_size", 1, ValueError, "at least 2"),
    *rows("rollout_buffer_class", (RolloutBuffer, 5), TypeError, "DictRolloutBuffer"),
    Wrong("rollout_buffer_kwargs", {"depth": 5}, TypeError, "it takes none", quoted="'depth'"),
    *wrong_keywords("policy_kwargs"),
    Wrong("policy_kwargs", {"width": 5}, TypeError, "it takes", quoted="'width'"),
    *wrong_number("vae_learning_rate", (-1e-3, NAN, INF), "not negative"),
    *wrong_number("kl_weight", (-0.1, NAN, INF), "not negative"),
    *wrong_integer("n_elbo_terms", or_none=True),
    *wrong_integer("n_decoded_transitions", or_none=True),
    *wrong_integer("vae_buffer_size"),
    *wrong_integer("vae_batch_trials"),
    *wrong_integer("vae_updates_per_rollout", low=0),
    *wrong_integer("vae_bptt_steps", or_none=True),
    *wrong_number("vae_max_grad_norm", (0, -0.5, NAN), "positive"),
    *wrong_bool("decode_rewards"),
    Wrong("decode_rewards", False, ValueError, "must be True"),
    *wrong_bool("decode_states"),
    *wrong_option("reward_distribution", "bernoulli"),
    *rows("reward_decoder_inputs", (5, None), TypeError, "'next_state'"),
    *rows("reward_decoder_inputs", ("state", [], ["state", "state"]), ValueError, "'next_state'"),
    Wrong("reward_decoder_inputs", ["reward"], ValueError, "'next_state'", quoted="'reward'"),
    *rows("reward_decoder_arch", (5, None), TypeError, "a list of layer sizes"),
    Wrong("reward_decoder_arch", [0], ValueError, "at least 1", quoted="0"),
    *rows("state_decoder_arch", (5, None), TypeError, "a list of layer sizes"),
    *wrong_bool("standardize_targets"),
]


@pytest.mark.parametrize("row", MODEL, ids=name_of)
def test_model(row: Wrong) -> None:
    row.check(VariBAD, {"policy": "VariBADPolicy", "env": "BernoulliBandit-v0", "device": "cpu"})


def test_every_argument_of_its_own_is_in_the_table() -> None:
    """The other arguments of PPO have the checks of TransformerPPO."""
    ppo = set(PPO.__init__.__annotations__) - {row.argument for row in MODEL} - {"return", "_init_setup_model"}
    assert_covered(VariBAD, MODEL, ppo)


POLICY = [
    Wrong("action_space", 5, TypeError, "space"),
    *rows("net_arch", (5, "wide"), TypeError, "a list of layer sizes"),
    *rows("activation_fn", ("relu",), TypeError, "nn.Module"),
    *wrong_bool("ortho_init"),
    *wrong_number("log_std_init", (NAN, INF), "finite"),
    Wrong("optimizer_class", dict, TypeError, "Optimizer"),
    *wrong_keywords("optimizer_kwargs"),
    *wrong_integer("latent_dim"),
    *wrong_integer("gru_hidden_size"),
    *wrong_integer("action_embedding_dim"),
    *wrong_integer("state_embedding_dim"),
    *wrong_integer("reward_embedding_dim"),
    *wrong_bool("standardize_inputs"),
]


@pytest.mark.parametrize("row", POLICY, ids=name_of)
def test_policy(row: Wrong) -> None:
    right: dict[str, Any] = dict(observation_space=TRANSITION, action_space=spaces.Discrete(2), lr_schedule=abs)
    row.check(VariBADPolicy, right)


def test_every_argument_of_the_policy_is_in_the_table() -> None:
    as_in_sb3 = ("use_sde", "full_std", "use_expln", "squash_output", "lr_schedule", "observation_space")
    assert_covered(VariBADPolicy, POLICY, as_in_sb3)


def test_observations_need_the_previous_transition() -> None:
    """Once, not stacked, and without the key that VariBAD adds"""
    stacked = spaces.Dict({**TRANSITION.spaces, "prev_reward": spaces.Box(-1, 1, (4,))})
    belief = spaces.Dict({**TRANSITION.spaces, "belief": spaces.Box(-1, 1, (4,))})
    for space, error, message in (
        (spaces.Box(0, 1, (2,)), TypeError, r"`env` must be .* Dict .*, got Box.*"),
        (spaces.Dict(a=spaces.Box(0, 1)), ValueError, r"`env` must have the observations .*prev_reward.*, got a"),
        (stacked, ValueError, r"`env` must have one prev_reward .*, got the shape \(4,\)"),
        (belief, ValueError, r"`env` must have no observation with the key 'belief'"),
    ):
        with pytest.raises(error, match=message):
            VariBADPolicy(space, spaces.Discrete(2), abs)  # type: ignore[arg-type]


def test_zips_of_other_algorithms_are_refused(tmp_path: Any) -> None:
    PPO("MultiInputPolicy", gym.make("BernoulliBandit-v0"), n_steps=2, batch_size=2).save(tmp_path / "ppo")
    with pytest.raises(ValueError, match=r"'VariBADPolicy'.*MultiInputActorCriticPolicy.*another algorithm"):
        VariBAD.load(tmp_path / "ppo")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"`path` must be a zip that VariBAD.save wrote"):
        VariBAD.load(tmp_path / "broken.zip")
    assert issubclass(VariBADPolicy, ActorCriticPolicy)
