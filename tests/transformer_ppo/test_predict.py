"""``predict`` carries the memory. Actions are compared with those of windows rebuilt from the observations so far."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from tests.helpers.agents import (
    ACTION_SPACES,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    SampledEnv,
    by_name,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import play
from tests.helpers.naive_rollouts import NaiveHistory, naive_actions
from tests.helpers.resuming import assert_same

#: A space so large that no action is clipped
WIDE = spaces.Box(-100.0, 100.0, (2,), np.float32)
#: An action head whose output differs visibly between windows
LOUD = dict(action_head_gain=1.0)
NAMES = ("box", "box-float64", "box-matrix", "discrete", "multi-discrete", "image-channels-first", "dict-transition")
each_space = pytest.mark.parametrize("space", [OBSERVATION_SPACES[name] for name in NAMES], ids=NAMES)
each_memory = pytest.mark.parametrize("memory", ["window", "full"])
#: Of the memory of `tiny_model`
MAX_LENGTH = {"window": 4, "full": None}


def vector_model(**policy_kwargs: Any) -> Any:
    return tiny_model(sampled_vec_env(2, VECTOR, WIDE), {**LOUD, **policy_kwargs})


def random_vectors(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("context_length", [1, 2, 4])
@pytest.mark.parametrize("n_envs", [1, 2, 5])
@each_space
@pytest.mark.parametrize("bare_policy", [True, False])
def test_predict_acts_on_the_history(
    space: spaces.Space[Any], n_envs: int, context_length: int, bare_policy: bool
) -> None:
    """
    Memories are emptied at random steps, and environments act in a batch as they act alone. Their number may differ
    from that of training.
    """
    model = tiny_model(sampled_vec_env(2, space, WIDE), {**LOUD, "context_length": context_length})
    history = NaiveHistory(n_envs, context_length)
    actor = model.policy if bare_policy else model
    for step in play(actor, sampled_vec_env(n_envs, space, WIDE), 12, start_probability=0.3):
        history.see(step.observations, step.starts)
        assert step.actions.shape == (n_envs, 2)
        np.testing.assert_allclose(step.actions, naive_actions(model.policy, history), atol=1e-5)
        assert step.state.lengths.tolist() == history.lengths


@each_memory
@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("inner_length", [1, 3])
def test_prev_done_empties_the_memory(memory: str, reset_memory_on: str, normalized: bool, inner_length: int) -> None:
    """VecNormalize turns the flag into other numbers, which are near 0 if most steps end an inner episode."""
    env: Any = sampled_vec_env(3, TRANSITION, WIDE, length=20)
    env.set_attr("inner_length", inner_length)
    if normalized:
        env = VecNormalize(env, norm_obs_keys=["observation", "prev_reward", "prev_done"])
    model = tiny_model(env, {**LOUD, "memory": memory, "reset_memory_on": reset_memory_on})
    history = NaiveHistory(3, MAX_LENGTH[memory], resets_on_prev_done=reset_memory_on == "episode")
    lengths, flags = [], set()
    for step in play(model, env, 12):
        history.see(step.observations, step.starts)
        np.testing.assert_allclose(step.actions, naive_actions(model.policy, history), atol=1e-5)
        lengths.append(step.state.lengths.tolist())
        flags |= set(step.observations["prev_done"].flatten().tolist())
    forgets = reset_memory_on == "episode"
    expected = [min(step % inner_length + 1 if forgets else step + 1, MAX_LENGTH[memory] or 12) for step in range(12)]
    assert lengths == [[length] * 3 for length in expected]
    assert len(flags - {0.0, 1.0}) > 5 if normalized else flags == {0.0, 1.0}


@pytest.mark.parametrize(
    "flag",
    [spaces.Discrete(2), spaces.MultiBinary(1), spaces.Box(0.0, 1.0, (1, 1), np.float64)],
    ids=["discrete", "binary", "matrix"],
)
def test_prev_done_of_other_spaces(flag: spaces.Space[Any]) -> None:
    model = tiny_model(SampledEnv(spaces.Dict(observation=VECTOR, prev_done=flag)))
    state: Any = None
    lengths = []
    for done in (0, 0, 1, 0, 1):
        shape = (1, *(flag.shape or ()))
        observation = {"observation": np.zeros((1, 3), np.float32), "prev_done": np.full(shape, done, flag.dtype)}
        _, state = model.predict(observation, state, np.array([state is None]))
        lengths.append(state.lengths.item())
    assert lengths == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_episode_start_empties_those_memories_only(space: spaces.Space[Any]) -> None:
    model = tiny_model(sampled_vec_env(2, space, WIDE), {**LOUD, "reset_memory_on": "trial"})
    env = sampled_vec_env(3, space, WIDE)
    env.seed(0)  # with other observations, single components of the actions below may agree by chance
    *_, before_last, last = play(model, env, 4)
    observations, state = last.observations, before_last.state
    kept, _ = model.predict(observations, state, np.zeros(3, bool), deterministic=True)
    fresh, _ = model.predict(observations, None, np.ones(3, bool), deterministic=True)
    mixed, after = model.predict(observations, state, np.array([False, True, False]), deterministic=True)
    assert after.lengths.tolist() == [4, 1, 4]
    np.testing.assert_allclose(mixed, np.stack([kept[0], fresh[1], kept[2]]), atol=1e-6)
    assert np.abs(kept - fresh).min() > 1e-4
    # Starts may be numbers, tensors and of any shape. None means no start
    flags = [False, True, False]
    for starts in ([0, 1, 0], (0.0, 1.0, 0.0), np.array(flags)[:, None], th.tensor(flags), th.tensor([0, 1, 0])):
        assert_same(model.predict(observations, state, starts, deterministic=True), (mixed, after))
    np.testing.assert_array_equal(model.predict(observations, state, deterministic=True)[0], kept)


@pytest.mark.parametrize("shared", [False, True])
def test_state_of_the_full_memory_is_what_the_actor_reads(shared: bool) -> None:
    """A critic's own transformer is not computed while acting, and says so when its part of a state is missing."""
    model = vector_model(memory="full", share_features_extractor=shared)
    env = sampled_vec_env(2, VECTOR, WIDE)
    env.seed(0)
    policy = model.policy
    memory = policy.empty_memory(2)
    with th.no_grad():
        for step in play(model, env, 5):
            memory = policy.remember(memory, th.as_tensor(step.observations), step.starts)
            assert_same(policy.get_distribution(memory).mode().numpy(), step.actions)
        assert [len(each.caches) for each in (memory, step.state)] == ([1, 1] if shared else [2, 1])
        state = step.state.to("cpu")
        if shared:
            assert_same(policy.predict_values(state), policy.predict_values(memory))
            return
        with pytest.raises(ValueError, match="contains what the actor reads only"):
            policy.predict_values(state)


@each_memory
def test_state_is_not_changed_in_place(memory: str) -> None:
    """The same state may be used again, as in a search over actions, and may be a plain tuple."""
    model = vector_model(memory=memory)
    observations, starts = random_vectors(3, 2), np.zeros(2, bool)
    _, state = model.predict(observations[0], None, np.ones(2, bool))
    assert isinstance(state, tuple) and all(isinstance(part, np.ndarray) for part in state[:2])
    before = deepcopy(state)
    first = model.predict(observations[1], state, starts, deterministic=True)
    model.predict(observations[2], state, starts, deterministic=True)
    assert_same(state, before)
    for same in (state, tuple(state)):
        assert_same(model.predict(observations[1], same, starts, deterministic=True), first)


@pytest.mark.parametrize("action_space", **by_name(ACTION_SPACES))
@each_space
def test_shapes_are_those_of_sb3(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    env = SampledEnv(space, action_space)
    policy_name = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    ours, ppo = tiny_model(env), PPO(policy_name, env, device="cpu", n_steps=16, batch_size=16)
    single, _ = env.reset()
    batch: Any = sampled_vec_env(3, space, action_space).reset()
    for observation, starts in ((single, [True]), (batch, [True] * 3)):
        for deterministic in (True, False):
            action, _ = ours.predict(observation, None, np.array(starts), deterministic=deterministic)
            expected, _ = ppo.predict(observation, deterministic=deterministic)
            assert type(action) is type(expected) is np.ndarray
            assert action.shape == expected.shape and action.dtype == expected.dtype
            assert all(action_space.contains(member) for member in (action[None] if observation is single else action))


@each_memory
def test_one_environment_without_vec_env(memory: str) -> None:
    """The observation has no batch dimension, and ``episode_start`` may be a flag."""
    model = vector_model(memory=memory)
    env, history = SampledEnv(VECTOR, WIDE, length=10), NaiveHistory(1, MAX_LENGTH[memory])
    observation, _ = env.reset(seed=0)
    state, start = None, True
    for step in range(6):
        action, state = model.predict(observation, state, start, deterministic=True)
        history.see(observation[None], [start])
        np.testing.assert_allclose(action, naive_actions(model.policy, history)[0], atol=1e-5)
        assert state.lengths.tolist() == history.lengths == [min(step + 1, MAX_LENGTH[memory] or 6)]
        observation, _, start, _, _ = env.step(action)
        assert not start


# -- Without memory ---------------------------------------------------------------------------------------------------


@each_memory
def test_without_state_it_warns_once_and_acts_on_the_observation(memory: str) -> None:
    """The observation is read as the first of an episode."""
    model = vector_model(memory=memory)
    observations = random_vectors(5, 2)
    with pytest.warns(UserWarning, match=r"`state` and `episode_start`.*this observation only") as caught:
        actions = [model.predict(observation, deterministic=True)[0] for observation in observations]
        model.policy.predict(observations[0])
    assert len(caught) == 1
    for action, observation in zip(actions, observations, strict=True):
        with th.no_grad():
            expected = model.policy.get_distribution(th.as_tensor(observation)).mode().numpy()
        np.testing.assert_allclose(action, expected, atol=1e-6)
        fresh, _ = model.predict(observation, episode_start=np.ones(2), deterministic=True)
        np.testing.assert_allclose(action, fresh, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_no_warning_with_state_or_start() -> None:
    model = vector_model()
    observations = np.zeros((2, 3), np.float32)
    _, state = model.predict(observations, episode_start=np.ones(2, bool))
    model.predict(observations, state)
    model.predict(observations, state, np.zeros(2, bool))


def test_no_state_is_an_empty_memory_whatever_the_starts() -> None:
    """SB3's evaluate_policy begins without a state and with starts that are all true, other callers with zeros."""
    model = vector_model()
    observations = np.ones((2, 3), np.float32)
    outcomes = [model.predict(observations, None, np.full(2, start), deterministic=True) for start in (True, False)]
    assert_same(*outcomes)
    assert outcomes[0][1].lengths.tolist() == [1, 1]


# -- Evaluation -------------------------------------------------------------------------------------------------------


@each_memory
@pytest.mark.parametrize("bare_policy", [True, False])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy_carries_the_memory(memory: str, bare_policy: bool, n_envs: int) -> None:
    """The actions of evaluated episodes are those of memories rebuilt from their observations."""
    model = vector_model(memory=memory)
    histories = [NaiveHistory(1, MAX_LENGTH[memory]) for _ in range(n_envs)]
    actions: list[np.ndarray] = []

    def check(locals_: dict[str, Any], _: dict[str, Any]) -> None:
        env = locals_["i"]
        histories[env].see(locals_["observations"][[env]], [not histories[env].observations[0]])
        np.testing.assert_allclose(locals_["actions"][[env]], naive_actions(model.policy, histories[env]), atol=1e-5)
        actions.append(locals_["actions"][env])
        if locals_["done"]:
            histories[env] = NaiveHistory(1, MAX_LENGTH[memory])

    actor = model.policy if bare_policy else model
    evaluate_policy(actor, sampled_vec_env(n_envs, VECTOR, WIDE), 6, callback=check, warn=False)
    assert len(actions) >= 6 * 5
    assert np.ptp(actions) > 0.01


def test_stochastic_actions_follow_the_distribution() -> None:
    model = vector_model()
    observation = np.array([0.5, -0.5, 1.0], np.float32)
    observations, starts = np.tile(observation, (4000, 1)), np.ones(4000, bool)
    samples, _ = model.predict(observations, None, starts)
    mean, _ = model.predict(observation, None, starts[:1], deterministic=True)
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(samples.std(axis=0), np.exp(model.policy.log_std.detach().numpy()), rtol=0.1)
