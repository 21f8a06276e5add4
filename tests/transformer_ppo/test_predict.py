"""predict() carries the memory: against a window rebuilt by hand from the observations so far."""

import itertools
import re
import warnings
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.memory.working_memory import WorkingMemory
from sb3_trmrl.transformer_ppo import TransformerPPO
from tests.helpers.agents import IMAGE_FIRST, IMAGE_LAST, TRANSITION, VECTOR, SampledEnv, sampled_vec_env, tiny_model

BOX_ACTION = spaces.Box(-100.0, 100.0, (2,), np.float32)
# A head whose output differs visibly between windows
LOUD = dict(action_head_gain=1.0)
PREDICT_SPACES = {
    "box": VECTOR,
    "float64": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "discrete": spaces.Discrete(7),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "image": IMAGE_FIRST,
    "dict": TRANSITION,
}


class NaiveHistory:
    """The newest N observations of each environment in a deque, and the window made of them, slot by slot."""

    def __init__(self, model: TransformerPPO, n_envs: int, resets_on_prev_done: bool) -> None:
        self.model, self.resets_on_prev_done = model, resets_on_prev_done
        self.histories: list[deque[Any]] = [deque(maxlen=model.policy.context_length) for _ in range(n_envs)]

    def see(self, observations: Any, starts: np.ndarray) -> None:
        for env, history in enumerate(self.histories):
            if isinstance(observations, dict):
                observation = {key: value[env] for key, value in observations.items()}
            else:
                observation = observations[env]
            if starts[env] or (self.resets_on_prev_done and observation["prev_done"] > 0):
                history.clear()
            history.append(observation)

    def window(self, env: int) -> WorkingMemory:
        """:return: The window of one environment without unfilled slots"""
        history = list(self.histories[env])
        tokens: Any
        if isinstance(history[0], dict):
            tokens = {key: th.as_tensor(np.array([[token[key] for token in history]])) for key in history[0]}
        else:
            tokens = th.as_tensor(np.array([history]))
        return WorkingMemory(tokens, th.tensor([len(history)]))

    def actions(self) -> np.ndarray:
        """:return: Deterministic actions, one environment at a time, (B, A)"""
        with th.no_grad():
            windows = [self.window(env) for env in range(len(self.histories))]
            return np.concatenate([self.model.policy.get_distribution(window).mode().numpy() for window in windows])


@pytest.mark.parametrize("context_length", [1, 2, 4])
@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize("space", PREDICT_SPACES.values(), ids=PREDICT_SPACES)
@pytest.mark.parametrize("bare_policy", [True, False])
def test_predict_acts_on_the_history(space: spaces.Space, n_envs: int, context_length: int, bare_policy: bool) -> None:
    """Random starts, on a number of environments that need not be that of training."""
    model = tiny_model(sampled_vec_env(2, space, BOX_ACTION), {**LOUD, "context_length": context_length})
    actor = model.policy if bare_policy else model
    env = sampled_vec_env(n_envs, space, BOX_ACTION)
    naive = NaiveHistory(model, n_envs, resets_on_prev_done=space is TRANSITION)
    rng = np.random.default_rng(0)
    observations, state, starts = env.reset(), None, np.ones(n_envs, dtype=bool)
    for _ in range(12):
        actions, state = actor.predict(observations, state, starts, deterministic=True)
        naive.see(observations, starts)
        assert actions.shape == (n_envs, 2)
        np.testing.assert_allclose(actions, naive.actions(), atol=1e-5)
        assert state.lengths.tolist() == [len(history) for history in naive.histories]
        observations, _, _, _ = env.step(actions)
        starts = rng.random(n_envs) < 0.3


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("inner_length", [1, 3])
def test_prev_done_empties_the_memory(reset_memory_on: str, normalized: bool, inner_length: int) -> None:
    """Under VecNormalize the flag is neither 0 nor 1, and near 0 where most steps end an inner episode."""
    env: Any = sampled_vec_env(3, TRANSITION, BOX_ACTION, length=20)
    env.set_attr("inner_length", inner_length)
    if normalized:
        env = VecNormalize(env, norm_obs_keys=["observation", "prev_reward", "prev_done"])
    model = tiny_model(env, {**LOUD, "reset_memory_on": reset_memory_on})
    naive = NaiveHistory(model, 3, resets_on_prev_done=reset_memory_on == "episode")
    observations, state, starts = env.reset(), None, np.ones(3, dtype=bool)
    lengths, flags = [], set()
    for _ in range(12):
        actions, state = model.predict(observations, state, starts, deterministic=True)
        naive.see(observations, starts)
        np.testing.assert_allclose(actions, naive.actions(), atol=1e-5)
        lengths.append(state.lengths.tolist())
        flags |= set(observations["prev_done"].flatten().tolist())
        observations, _, starts, _ = env.step(actions)
    within_episode, within_trial = [1, 2, 3][:inner_length] * (12 // inner_length), [1, 2, 3] + [4] * 9
    assert lengths == [[length] * 3 for length in (within_episode if reset_memory_on == "episode" else within_trial)]
    assert len(flags - {0.0, 1.0}) > 5 if normalized else flags == {0.0, 1.0}


@pytest.mark.parametrize(
    "flag",
    [spaces.Discrete(2), spaces.MultiBinary(1), spaces.Box(0.0, 1.0, (1, 1), np.float64)],
    ids=["discrete", "binary", "matrix"],
)
def test_prev_done_of_other_spaces(flag: spaces.Space) -> None:
    space = spaces.Dict(observation=VECTOR, prev_done=flag)
    model = tiny_model(_FlagEnv(space))
    state: Any = None
    lengths = []
    for done in (0, 0, 1, 0, 1):
        shape = flag.shape or ()
        observation = {"observation": np.zeros((1, 3), np.float32), "prev_done": np.full((1, *shape), done, flag.dtype)}
        _, state = model.predict(observation, state, np.array([state is None]))
        lengths.append(state.lengths.item())
    assert lengths == [1, 2, 1, 2, 1]


class _FlagEnv(SampledEnv):
    """Observations as sampled, the flag among them."""

    def _observe(self) -> Any:
        return self.observation_space.sample()


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_episode_start_empties_those_rows_only(space: spaces.Space) -> None:
    model = tiny_model(sampled_vec_env(2, space, BOX_ACTION), {**LOUD, "reset_memory_on": "trial"})
    env = sampled_vec_env(3, space, BOX_ACTION)
    observations, state = env.reset(), None
    for _ in range(3):
        _, state = model.predict(observations, state, np.array([state is None] * 3))
        observations = env.step(np.zeros((3, 2), np.float32))[0]
    kept, _ = model.predict(observations, state, np.zeros(3, bool), deterministic=True)
    fresh, _ = model.predict(observations, None, np.ones(3, bool), deterministic=True)
    mixed, after = model.predict(observations, state, np.array([False, True, False]), deterministic=True)
    assert after.lengths.tolist() == [4, 1, 4]
    np.testing.assert_allclose(mixed, np.stack([kept[0], fresh[1], kept[2]]), atol=1e-6)
    assert np.abs(kept - fresh).min() > 1e-4
    # Anything truthy is a start; None is none
    for starts in ([0, 1, 0], (0.0, 1.0, 0.0), np.array([[False], [True], [False]])):
        np.testing.assert_array_equal(model.predict(observations, state, starts, deterministic=True)[0], mixed)
    np.testing.assert_array_equal(model.predict(observations, state, deterministic=True)[0], kept)


def test_state_is_not_changed_in_place() -> None:
    """The same state may be used again, as in a search over actions."""
    model = tiny_model(sampled_vec_env(2), LOUD)
    observations = np.zeros((2, 3), np.float32)
    _, state = model.predict(observations, None, np.ones(2, bool))
    tokens, lengths = state.tokens.copy(), state.lengths.copy()
    outcomes = [model.predict(observations + 1, state, np.zeros(2, bool), deterministic=True) for _ in range(2)]
    assert np.array_equal(state.tokens, tokens) and np.array_equal(state.lengths, lengths)
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    assert isinstance(state, tuple) and all(isinstance(part, np.ndarray) for part in state)
    # and a plain tuple is as good as the named one
    plain = model.predict(observations + 1, tuple(state), np.zeros(2, bool), deterministic=True)
    np.testing.assert_array_equal(plain[0], outcomes[0][0])


def test_rows_are_independent() -> None:
    """A batch acts as its environments alone."""
    model = tiny_model(sampled_vec_env(2, VECTOR, BOX_ACTION), LOUD)
    observations = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    state = None
    states: list[Any] = [None] * 4
    for step in range(6):
        actions, state = model.predict(observations[step], state, np.full(4, step == 0), deterministic=True)
        for row in range(4):
            action, states[row] = model.predict(
                observations[step, row], states[row], np.array([step == 0]), deterministic=True
            )
            np.testing.assert_allclose(action, actions[row], atol=1e-5)


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        BOX_ACTION,
        spaces.Box(-1.0, 1.0, (2, 2)),
    ],
    ids=["discrete", "multi-discrete", "multi-binary", "box", "box-matrix"],
)
@pytest.mark.parametrize("space", PREDICT_SPACES.values(), ids=PREDICT_SPACES)
def test_shapes_are_those_of_sb3(space: spaces.Space, action_space: spaces.Space) -> None:
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
            members = action[None] if observation is single else action
            assert all(action_space.contains(member) for member in members)


def test_one_observation_and_its_state() -> None:
    """gymnasium's loop, without a VecEnv: a flag instead of an array will do."""
    model = tiny_model("CartPole-v1")
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    state, start = None, True
    for step in range(6):
        action, state = model.predict(observation, state, start)
        assert state.lengths.tolist() == [min(step + 1, 4)]
        observation, _, terminated, _, _ = env.step(action)
        start = terminated
        assert not terminated


def test_images_of_either_order() -> None:
    model = tiny_model(SampledEnv(IMAGE_LAST, BOX_ACTION), LOUD)
    images = np.stack([IMAGE_LAST.sample() for _ in range(3)])
    first = np.transpose(images, (0, 3, 1, 2))
    starts = np.ones(3, bool)
    actions = [model.predict(observations, None, starts, deterministic=True)[0] for observations in (images, first)]
    np.testing.assert_array_equal(*actions)
    single = [model.predict(image, None, starts[:1], deterministic=True)[0] for image in (images[0], first[0])]
    np.testing.assert_array_equal(*single)
    np.testing.assert_allclose(single[0], actions[0][0], atol=1e-5)


# -- Without memory ---------------------------------------------------------------------------------------------------


def test_without_state_it_warns_once_and_acts_on_the_observation() -> None:
    model = tiny_model(sampled_vec_env(2, VECTOR, BOX_ACTION), LOUD)
    observations = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"`state` and `episode_start`.*this observation only") as caught:
        actions = [model.predict(observation, deterministic=True)[0] for observation in observations]
        model.policy.predict(observations[0])
    assert len(caught) == 1
    for action, observation in zip(actions, observations, strict=True):
        with th.no_grad():
            expected = model.policy.get_distribution(th.as_tensor(observation)).mode().numpy()
        np.testing.assert_allclose(action, expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_with_state_or_start_nothing_is_warned_of() -> None:
    model = tiny_model(sampled_vec_env(2))
    observations = np.zeros((2, 3), np.float32)
    _, state = model.predict(observations, episode_start=np.ones(2, bool))
    model.predict(observations, state)
    model.predict(observations, state, np.zeros(2, bool))


def test_state_none_is_an_empty_memory_whatever_the_starts() -> None:
    """SB3's evaluate_policy begins with no state and all-true starts; other callers with zeros."""
    model = tiny_model(sampled_vec_env(2, VECTOR, BOX_ACTION), LOUD)
    observations = np.ones((2, 3), np.float32)
    outcomes = [model.predict(observations, None, np.full(2, start), deterministic=True) for start in (True, False)]
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    assert [outcome[1].lengths.tolist() for outcome in outcomes] == [[1, 1], [1, 1]]


# -- Evaluation -------------------------------------------------------------------------------------------------------


class _Recall(gym.Env):
    """The reward is the first observation of the episode, at its last step: seen by who carries a memory."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-100.0, 100.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.n_steps = 0
        self.observations = [self.np_random.uniform(-1, 1, 1).astype(np.float32)]
        self.actions: list[np.ndarray] = []
        return self.observations[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        done = len(self.actions) == 5
        info = dict(observations=np.array(self.observations), actions=np.array(self.actions))
        self.observations.append(self.np_random.uniform(-1, 1, 1).astype(np.float32))
        return self.observations[-1], 0.0, done, False, info


@pytest.mark.parametrize("bare_policy", [True, False])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy_carries_the_memory(bare_policy: bool, n_envs: int) -> None:
    """Actions of evaluated episodes are those of windows rebuilt from what the episodes have recorded."""
    model = tiny_model(_Recall(), LOUD)
    env = DummyVecEnv([_Recall for _ in range(n_envs)])
    episodes = []

    def record(locals_: dict[str, Any], _: dict[str, Any]) -> None:
        if locals_["done"]:
            episodes.append(locals_["info"])

    evaluate_policy(
        model.policy if bare_policy else model, env, n_eval_episodes=6, deterministic=True, callback=record, warn=False
    )
    assert len(episodes) == 6
    for episode in episodes:
        for step, action in enumerate(episode["actions"]):
            window = episode["observations"][max(0, step - 3) : step + 1]
            memory = WorkingMemory(th.as_tensor(window[None]), th.tensor([len(window)]))
            with th.no_grad():
                expected = model.policy.get_distribution(memory).mode().numpy()[0]
            np.testing.assert_allclose(action, expected, atol=1e-5)
    assert np.ptp([episode["actions"] for episode in episodes]) > 0.01


def test_sampled_actions_follow_the_distribution() -> None:
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), LOUD)
    observation = np.array([0.5, -0.5, 1.0], np.float32)
    observations, starts = np.tile(observation, (4000, 1)), np.ones(4000, bool)
    samples, _ = model.predict(observations, None, starts)
    mean, _ = model.predict(observation, None, starts[:1], deterministic=True)
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(samples.std(axis=0), np.exp(model.policy.log_std.detach().numpy()), rtol=0.1)


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize("squash_output", [True, False])
def test_state_dependent_exploration_on_any_batch(n_envs: int, squash_output: bool) -> None:
    space = spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([0.0, 9.0], np.float32))
    model = tiny_model(sampled_vec_env(2, VECTOR, space), dict(squash_output=squash_output), use_sde=True).learn(32)
    observations = np.zeros((n_envs, 3), np.float32)
    for deterministic in (True, False):
        actions, _ = model.predict(observations, None, np.ones(n_envs, bool), deterministic=deterministic)
        assert all(space.contains(action) for action in actions)


# -- Bad input --------------------------------------------------------------------------------------------------------


def test_wrong_state() -> None:
    """A ValueError that names `state`: of other sizes, of another model, of another algorithm."""
    model = tiny_model(sampled_vec_env(2))
    observations, starts = np.zeros((2, 3), np.float32), np.zeros(2, bool)
    _, state = model.predict(observations, None, starts)
    foreign = {
        "another number of environments": tiny_model(sampled_vec_env(3)).predict(np.zeros((3, 3)), None, np.ones(3))[1],
        "another context length": tiny_model(sampled_vec_env(2), dict(context_length=5)).predict(
            observations, None, starts
        )[1],
        "other observations": tiny_model(sampled_vec_env(2, spaces.Box(-1, 1, (4,)))).predict(
            np.zeros((2, 4)), None, starts
        )[1],
        "Dict observations": tiny_model(sampled_vec_env(2, TRANSITION)).predict(
            sampled_vec_env(2, TRANSITION).reset(), None, starts
        )[1],
        "RecurrentPPO": RecurrentPPO(
            "MlpLstmPolicy", sampled_vec_env(2), n_steps=8, batch_size=8, device="cpu"
        ).predict(observations, None, starts)[1],
        "an array": np.zeros((2, 4, 3), np.float32),
        "lengths beyond the slots": (state.tokens, np.array([9, 1])),
    }
    for kind, wrong in foreign.items():
        with pytest.raises(ValueError, match="`state`"):
            model.predict(observations, wrong, starts)
            pytest.fail(f"the state of {kind} was accepted")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("start", [[True] * 3, None])
@pytest.mark.filterwarnings("ignore:predict")
def test_non_finite_observation(value: float, start: list[bool] | None) -> None:
    """Which environment is to blame, and which key; one environment alone is not counted by its features."""
    model = tiny_model(sampled_vec_env(2))
    observations = np.zeros((3, 3), np.float32)
    observations[2, 1] = value
    with pytest.raises(ValueError, match=r"non-finite observation from environment 2"):
        model.predict(observations, None, start)
    with pytest.raises(ValueError, match=r"non-finite observation") as caught:
        model.predict(observations[2], None, start and start[:1])
    assert not re.search(r"environment [1-9]", str(caught.value)), "there is one environment only"

    as_dict: Any = sampled_vec_env(3, TRANSITION).reset()
    as_dict["prev_reward"][1] = value
    with pytest.raises(ValueError, match=r"non-finite observation\['prev_reward'\] from environment 1"):
        tiny_model(SampledEnv(TRANSITION)).predict(as_dict, None, start)


def test_observation_of_gymnasium_reset() -> None:
    """SB3's own explanation, from model and policy, with and without a state."""
    model = tiny_model("CartPole-v1")
    wrong: Any = gym.make("CartPole-v1").reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for actor, start in itertools.product((model, model.policy), (None, np.array([True]))):
            with pytest.raises(ValueError, match=r"mixing Gym API"):
                actor.predict(wrong, None, start)
