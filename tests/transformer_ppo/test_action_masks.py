"""Action masks: invalid actions have probability 0 while acting and in the update, in the convention of sb3-contrib."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation, TrainingCheckpoint, TransformerPPO
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in
from tests.helpers.agents import ACTION_SPACES, CRITICS, VECTOR, SampledEnv, assert_equal_weights, by_name, tiny_model
from tests.helpers.environments import EarlyEnd
from tests.helpers.learning import assert_learns_on_policy
from tests.helpers.masked import (
    MaskedRecall,
    NoRepeat,
    assert_valid,
    choices,
    masked_vec_env,
    no_repeat_bandit,
    random_masks,
)
from tests.helpers.resuming import assert_same, everything_learned

pytestmark = pytest.mark.usefixtures("one_thread")
#: Heads whose probabilities are far from uniform
LOUD = dict(action_head_gain=5.0)
MASKABLE = {name: ACTION_SPACES[name] for name in ("discrete", "multi-discrete", "multi-binary")}
each_space = pytest.mark.parametrize("space", **by_name(MASKABLE))
each_memory = pytest.mark.parametrize("memory", ["window", "full"])


def naive_log_probs(logits: np.ndarray, masks: np.ndarray, space: spaces.Space) -> dict[tuple[int, ...], float]:
    """Return the log probability of each valid action under a softmax of the valid choices of each component."""
    if isinstance(space, spaces.MultiBinary):  # one logit for each bit, of 1 against 0
        logits = np.stack((np.zeros_like(logits), logits), axis=-1).ravel()
    found, offset = {(): 0.0}, 0
    for n, _ in choices(space.sample(), space):
        valid = [choice for choice in range(n) if masks[offset + choice]]
        total = sum(np.exp(logits[offset + choice]) for choice in valid)
        found = {
            (*before, choice): log_prob + float(logits[offset + choice] - np.log(total))
            for before, log_prob in found.items()
            for choice in valid
        }
        offset += n
    return found


@each_space
def test_probabilities_are_those_of_a_masked_softmax(space: spaces.Space) -> None:
    policy = tiny_model(SampledEnv(VECTOR, space), LOUD).policy
    rng = np.random.default_rng(0)
    memory = policy.remember(policy.empty_memory(32), th.randn(32, 3), np.ones(32, bool))
    masks = np.stack([random_masks(rng, space) for _ in range(32)])
    batch = policy.masked(memory, masks)
    with th.no_grad():
        logits = policy.action_net(policy.mlp_extractor.forward_actor(policy.extract_features(memory)[0])).numpy()
    expected = [naive_log_probs(logits[i].astype(np.float64), masks[i], space) for i in range(32)]
    assert max(map(len, expected)) > 2
    for index in range(max(map(len, expected))):
        valid = [list(each)[index % len(each)] for each in expected]
        actions = th.tensor(valid)[:, 0] if isinstance(space, spaces.Discrete) else th.tensor(valid)
        _, log_probs, entropy = policy.evaluate_actions(batch, actions.float())
        reference = [each[action] for each, action in zip(expected, valid, strict=True)]
        np.testing.assert_allclose(log_probs.detach(), reference, atol=1e-5)
    entropies = [-sum(np.exp(log_prob) * log_prob for log_prob in each.values()) for each in expected]
    np.testing.assert_allclose(entropy.detach(), entropies, atol=1e-5)
    most_likely = policy.get_distribution(batch).get_actions(deterministic=True)
    best = [max(each, key=each.__getitem__) for each in expected]
    assert [tuple(np.ravel(each).astype(int)) for each in most_likely.detach()] == best
    # Excluded logits leave the gradients finite
    (log_probs.sum() + entropy.sum()).backward()
    gradients = [each.grad for each in policy.parameters() if each.grad is not None]
    assert gradients and all(th.isfinite(each).all() for each in gradients)


@each_space
def test_masks_are_those_of_sb3_contrib(space: spaces.Space) -> None:
    distributions = pytest.importorskip("sb3_contrib.common.maskable.distributions")
    policy = tiny_model(SampledEnv(VECTOR, space), LOUD).policy
    memory = policy.remember(policy.empty_memory(8), th.randn(8, 3), np.ones(8, bool))
    masks = np.stack([random_masks(np.random.default_rng(1), space) for _ in range(8)])
    with th.no_grad():
        actions, _, log_probs = policy(policy.masked(memory, masks))
        logits = policy.action_net(policy.mlp_extractor.forward_actor(policy.extract_features(memory)[0]))
    if isinstance(space, spaces.MultiBinary):
        logits = th.stack((th.zeros_like(logits), logits), dim=-1).flatten(1)
    theirs = distributions.make_masked_proba_distribution(space).proba_distribution(logits)
    theirs.apply_masking(masks)
    th.testing.assert_close(log_probs, theirs.log_prob(actions), atol=1e-5, rtol=0)


@each_memory
@each_space
@pytest.mark.parametrize("critic", ["memory-own", "memory-shared", "token-own"])
def test_invalid_actions_are_never_taken(space: spaces.Space, memory: str, critic: str) -> None:
    """The environment refuses them. Before the first gradient step, the update sees the probabilities of acting."""
    env = masked_vec_env(space)
    model = tiny_model(env, {**LOUD, "memory": memory, **CRITICS[critic]}, ent_coef=0.01)
    assert_learns_on_policy(model, n_rollouts=3)
    assert model.uses_action_masks
    observations, state, starts = env.reset(), None, np.ones(2, bool)
    for step in range(30):
        masks = np.stack(env.env_method("action_masks"))
        actions, state = model.predict(observations, state, starts, deterministic=step % 2 == 0, action_masks=masks)
        one, _ = model.policy.predict(observations[0], None, starts[:1], action_masks=masks[0])
        assert_valid(one, masks[0], space)
        observations, _, starts, _ = env.step(actions)


@each_memory
def test_masks_that_allow_everything_change_nothing(memory: str) -> None:
    class Free(SampledEnv):
        def action_masks(self) -> np.ndarray:
            return np.ones(5, bool)

    space = MASKABLE["multi-discrete"]
    plain, free, ignored = (
        tiny_model(env(VECTOR, space), {"memory": memory}).learn(64, **kwargs)
        for env, kwargs in ((SampledEnv, {}), (Free, {}), (MaskedIgnored, dict(use_masking=False)))
    )
    assert_equal_weights(plain, ignored)
    assert_equal_weights(plain, free, atol=1e-5)
    assert free.uses_action_masks and not plain.uses_action_masks and not ignored.uses_action_masks


class MaskedIgnored(SampledEnv):
    def action_masks(self) -> np.ndarray:
        raise AssertionError("nothing should ask")


# -- Environments and wrappers ----------------------------------------------------------------------------------------


def wrapped() -> gym.Env:
    """Return trials with all wrappers around a layer with masks."""

    class Masked(EarlyEnd):
        def action_masks(self) -> np.ndarray:
            return np.array([self.ones != 1, True])

        def step(self, action: Any) -> Any:
            assert_valid(action, self.action_masks(), self.action_space)
            return super().step(action)

    return Monitor(PreviousTransitionObservation(MultiEpisodeTrial(Masked(), episodes_per_trial=3)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [DummyVecEnv, partial(SubprocVecEnv, start_method="fork")])
def test_masks_pass_through_wrappers(kind: Any) -> None:
    env = VecNormalize(kind([wrapped] * 2), norm_obs_keys=["observation"])
    try:
        model = tiny_model(env, LOUD).learn(64)
        assert model.uses_action_masks
    finally:
        env.close()


def test_masks_of_wrong_environments() -> None:
    class Bad(SampledEnv):
        masks: Any = None

        def action_masks(self) -> Any:
            return self.masks

    def error(space: spaces.Space, *masks: Any) -> str:
        env = DummyVecEnv([partial(Bad, VECTOR, space) for _ in masks])
        for each, mask in zip(env.envs, masks, strict=True):
            each.unwrapped.masks = mask  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="`action_masks` must") as caught:
            tiny_model(env).learn(16)
        return str(caught.value)

    assert "(2, 5)" in error(MASKABLE["multi-discrete"], np.ones(4), np.ones(4))
    assert "component 1, got none in environment 1" in error(MASKABLE["multi-discrete"], np.ones(5), [1, 1, 0, 0, 0])
    assert "component 2" in error(MASKABLE["multi-binary"], [1, 1, 0, 1, 0, 0])
    assert "array([1., 1.]), array([1., 1., 1.])" in error(MASKABLE["discrete"], np.ones(2), np.ones(3))
    assert "None" in error(MASKABLE["discrete"], None)
    assert "use_masking=False" in error(ACTION_SPACES["box"], np.ones(2))
    by_bit = Bad(VECTOR, MASKABLE["multi-binary"])
    by_bit.masks = [[1, 0], [1, 1], [0, 1]]  # the shape of each environment's masks is free
    tiny_model(by_bit).learn(16)
    assert {(int(action[0]), int(action[2])) for action in by_bit.actions} == {(0, 1)}
    tiny_model(Bad(VECTOR, ACTION_SPACES["box"])).learn(16, use_masking=False)


# -- Learning and evaluation ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["window", "full"])
def recalling(request: Any) -> TransformerPPO:
    """An agent that recalls the first observation, and cannot take the action that pays most"""
    env = make_vec_env(MaskedRecall, 8, seed=0)
    settings = dict(n_steps=32, batch_size=64, n_epochs=4, learning_rate=5e-3)
    return tiny_model(env, {"memory": request.param, "d_model": 16}, **settings).learn(1536)


def test_a_masked_task_is_learned(recalling: TransformerPPO) -> None:
    """Also in the evaluation of sb3-contrib, which never passes the state to the agent."""
    maskable = pytest.importorskip("sb3_contrib.common.maskable.evaluation")
    env = make_vec_env(MaskedRecall, 4, seed=1)
    assert maskable.evaluate_policy(recalling, env, n_eval_episodes=40) == (1.0, 0.0)
    with pytest.raises(AssertionError, match="invalid"):
        for _ in range(10):  # without masks
            evaluate_policy(recalling, env, n_eval_episodes=40, deterministic=False)


def test_only_callers_without_a_state_continue_the_last_memory(recalling: TransformerPPO) -> None:
    def act(signal: float, state: Any = None, start: bool = False, masks: Any = ((1, 1, 0, 0),)) -> tuple[int, Any]:
        observation = np.array([[signal]], np.float32)
        arms, state = recalling.predict(observation, state, np.array([start]), True, masks)
        return int(arms[0]), state

    alone, _ = act(0.0)
    for signal, answer in ((-1.0, 0), (1.0, 1)):
        _, state = act(signal, start=True)
        assert act(0.0)[0] == answer
        act(signal, start=True)
        assert act(0.0, state)[0] == answer
        assert act(0.0)[0] == alone  # the caller before had a state
        act(signal, start=True)
        act(0.0, masks=None)
        assert act(0.0)[0] == alone
        act(signal, start=True)
        assert act(0.0, start=True)[0] == alone


@each_memory
def test_a_resumed_run_is_the_uninterrupted_one(memory: str, tmp_path: Path) -> None:
    def env() -> DummyVecEnv:
        return make_vec_env(no_repeat_bandit, 2, seed=0)

    kwargs = dict(n_steps=20, batch_size=20, n_epochs=2, policy_kwargs=dict(memory=memory, d_model=8))
    whole: Any = TransformerPPO("TrMRLPolicy", env(), seed=0, **kwargs)  # type: ignore[arg-type]
    whole.learn(120, callback=TrainingCheckpoint(tmp_path, save_freq=1, keep=9))
    assert whole.uses_action_masks
    resumed = TransformerPPO.resume(checkpoints_in(tmp_path)[1], env())
    assert resumed.num_timesteps == 40
    resumed.learn(120)
    assert_same(everything_learned(whole), everything_learned(resumed))


def test_action_masker_of_sb3_contrib() -> None:
    wrappers = pytest.importorskip("sb3_contrib.common.wrappers")
    inner = NoRepeat(SampledEnv(VECTOR, spaces.Discrete(3)))
    env = wrappers.ActionMasker(inner, lambda each: np.arange(3) == (each.last + 1) % 3)
    tiny_model(env).learn(16)
    assert [int(action) for action in inner.unwrapped.actions[:6]] == [1, 2, 0, 1, 2, 0]  # type: ignore[attr-defined]
