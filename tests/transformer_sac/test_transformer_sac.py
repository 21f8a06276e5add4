"""TransformerSAC as an algorithm of SB3: what it collects, learning, the log, seeds, callbacks, files."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, VecTransposeImage

from sb3_trmrl import TransformerSAC, TransformerSACPolicy
from sb3_trmrl.memory.tokens import map_tokens
from tests.helpers.agents import ACTION_SPACES, BOX_ACTION, OBSERVATION_SPACES, TRANSITION, VECTOR, SampledEnv, Space
from tests.helpers.environments import PoisonedEnv
from tests.helpers.sac import same, tiny_sac, weights

pytestmark = pytest.mark.usefixtures("one_thread")
SPACES = ("box", "box-float64", "discrete", "box-small-image", "image-channels-last", "dict", "dict-transition")


def copies(n: int, space: Space = VECTOR, action_space: Space = BOX_ACTION, normalize: bool = False) -> VecEnv:
    """Return seeded copies of a :class:`SampledEnv`, whose first episodes have different lengths."""
    env: VecEnv = DummyVecEnv([partial(SampledEnv, space, action_space, 5 + i) for i in range(n)])
    env.seed(0)
    return VecNormalize(env) if normalize else env


class Remembered(BaseCallback):
    """Records the windows that each action was chosen with, and the action, as lists by environment."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def _on_step(self) -> bool:
        memory = self.model._next_memory  # type: ignore[attr-defined]
        tokens = memory.tokens["observation"] if isinstance(memory.tokens, dict) else memory.tokens
        windows = [window[:length].numpy() for window, length in zip(tokens, memory.lengths, strict=True)]
        self.steps.append(list(zip(windows, self.locals["buffer_actions"], strict=True)))
        return True


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_it_is_trained_on_the_windows_that_it_acted_on(space: Space, reset_memory_on: str) -> None:
    model = tiny_sac(copies(3, space), gradient_steps=0, policy_kwargs=dict(reset_memory_on=reset_memory_on))
    remembered = Remembered()
    model.learn(90, remembered, log_interval=None)
    model.learn(60, lambda *_: False, log_interval=None, reset_num_timesteps=False)
    model.learn(60, remembered, log_interval=None, reset_num_timesteps=False)
    model.learn(60, remembered, log_interval=None)  # begins new episodes
    buffer = model.replay_buffer
    for env in range(3):
        numbers = np.arange(buffer.newest[env])
        numbers = numbers[buffer._valid(env, numbers)]
        assert len(numbers) == 70, "nothing was overwritten"
        samples = buffer._gather(np.full(70, env), numbers)
        tokens = samples.observations.tokens
        tokens = (tokens["observation"] if isinstance(tokens, dict) else tokens).numpy()
        for row, length, action, step in zip(
            samples.observations.index, samples.observations.lengths, samples.actions, remembered.steps, strict=True
        ):
            window, taken = step[env]
            np.testing.assert_array_equal(tokens[row[:length]], window)
            np.testing.assert_array_equal(action, taken)


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("context_length", [3, 50])
def test_the_full_memory_is_recomputed_with_new_weights(reset_memory_on: str, context_length: int) -> None:
    """While acting, it is what the current weights make of all tokens."""
    settings = dict(memory="full", context_length=context_length, n_layers=2, reset_memory_on=reset_memory_on)
    model = tiny_sac(copies(2, TRANSITION), learning_rate=0.05, policy_kwargs=settings)
    seen: list[tuple[Any, np.ndarray]] = []

    def check(variables: dict[str, Any], _: Any) -> bool:
        self = variables["self"]
        seen.append((map_tokens(np.array, self._last_obs), np.array(self._last_episode_starts)))
        memory = self.policy.empty_memory(2)
        with th.no_grad():
            for obs, starts in seen:
                memory = self.policy.remember(memory, map_tokens(th.as_tensor, obs), starts)
        th.testing.assert_close(self._next_memory.episodic, memory.episodic, rtol=1e-4, atol=1e-5)
        th.testing.assert_close(self._next_memory.lengths, memory.lengths)
        return True

    model.learn(40, check, log_interval=None)
    model.learn(60, lambda *_: False, log_interval=None, reset_num_timesteps=False)
    model.learn(20, check, log_interval=None, reset_num_timesteps=False)
    assert model._n_updates == 25 and len(seen) == 30


@pytest.mark.parametrize("share", [False, True])
def test_critics_do_not_read_the_memory_of_the_actors_transformer(share: bool) -> None:
    model = tiny_sac(policy_kwargs=dict(memory="full", share_features_extractor=share))
    obs = th.ones(1, 3)
    memory = model.policy.remember(model.policy.empty_memory(1), obs, np.ones(1, dtype=bool))
    for critic in (model.critic, model.critic_target):
        if share and critic is model.critic:
            assert th.equal(critic(memory, th.zeros(1, 2))[0], critic(obs, th.zeros(1, 2))[0])
            continue
        with pytest.raises(ValueError, match="this memory contains what the actor reads only"):
            critic(memory, th.zeros(1, 2))


def test_truncated_episodes_end_with_their_own_last_observation() -> None:
    """Every second episode of the environment is truncated, and the others terminate."""

    class Counter(SampledEnv):
        def _observe(self) -> Any:
            return np.array([self.n_episodes, self.n_steps, 0], np.float32)

    model = tiny_sac(Counter(spaces.Box(-np.inf, np.inf, (3,)), BOX_ACTION)).learn(60, log_interval=None)
    samples = model.replay_buffer.sample(500)
    before, after = samples.observations.newest(), samples.next_observations.newest()
    assert th.equal(before[:, 0], after[:, 0]) and th.equal(before[:, 1] + 1, after[:, 1])
    lengths = 5 + (before[:, 0] - 1) % 5
    assert th.equal(samples.dones[:, 0], ((after[:, 1] == lengths) & (before[:, 0] % 2 == 1)).float())
    assert {1.0, 2.0} <= set(after[after[:, 1] == lengths][:, 0].tolist())


@pytest.mark.parametrize(
    ("name", "action_name"), [*((name, "box") for name in SPACES), ("box", "box-float64"), ("box", "box-matrix")]
)
@pytest.mark.parametrize("share", [False, True])
def test_it_learns_with_all_spaces(name: str, action_name: str, share: bool) -> None:
    env = copies(2, OBSERVATION_SPACES[name], ACTION_SPACES[action_name])
    model = tiny_sac(env, learning_starts=20, policy_kwargs=dict(share_features_extractor=share))
    before = weights(model)
    model.learn(24, log_interval=None)
    after = weights(model)
    assert not same(before, after) and all(bool(weight.isfinite().all()) for weight in after)
    assert model.num_timesteps == 24 and model._n_updates == 2
    actions, _ = model.predict(model._last_obs, None, np.ones(2, dtype=bool))  # type: ignore[arg-type]
    assert model.action_space.contains(actions[0])


class Recall(gym.Env):
    """The first observation is the action that is rewarded at the last step."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.time = float(self.np_random.choice([-0.8, 0.8])), 0
        return np.array([self.cue], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        is_last = self.time == self.n_steps
        reward = -abs(float(action[0]) - self.cue) if is_last else 0.0
        return np.zeros(1, np.float32), reward, is_last, False, {}


@pytest.mark.parametrize(("memory", "context_length", "n_steps"), [("window", 2, 2), ("full", 64, 6)])
def test_it_learns_to_remember(memory: str, context_length: int, n_steps: int) -> None:
    """Without memory, the mean return is -0.8 at best."""
    env = DummyVecEnv([partial(Recall, n_steps)] * 4)
    model = tiny_sac(
        env,
        learning_rate=3e-3,
        learning_starts=200,
        buffer_size=10_000,
        batch_size=64,
        gamma=0.95,
        gradient_steps=2,
        ent_coef="auto_0.1",
        policy_kwargs=dict(memory=memory, context_length=context_length, net_arch=[32], d_model=16),
    )
    model.learn(1_000 if n_steps == 2 else 1_800, log_interval=None)
    rewards = []
    obs, state, starts = env.reset(), None, np.ones(4, dtype=bool)
    for _ in range(20 * n_steps):
        actions, state = model.predict(obs, state, starts, deterministic=True)  # type: ignore[arg-type]
        obs, reward, starts, _ = env.step(actions)
        rewards += reward[starts].tolist()
    assert np.mean(rewards) > -0.3


@pytest.mark.parametrize("options", [{}, dict(use_sde=True, use_sde_at_warmup=True), dict(ent_coef=0.1)])
def test_the_seed_determines_the_run(options: dict[str, Any]) -> None:
    models = [tiny_sac(copies(2), seed=seed, **options).learn(40, log_interval=None) for seed in (0, 0, 1)]
    first, again, other = map(weights, models)
    assert same(first, again) and not same(first, other)
    assert all(each._n_updates == 15 for each in models)


def test_exploration_by_gsde_and_action_noise() -> None:
    model = tiny_sac(copies(2), use_sde=True, sde_sample_freq=4).learn(30, log_interval=None)
    assert model.actor.get_std().shape == (8, 2)
    noise = NormalActionNoise(np.zeros(2), 100 * np.ones(2))
    loud = tiny_sac(copies(2), action_noise=noise).learn(30, log_interval=None)
    assert (loud.replay_buffer.sample(50).actions.abs() == 1).float().mean() > 0.9


@pytest.mark.parametrize(
    # Episodes end after 5, 11, 18 and 26 steps
    ("n_envs", "train_freq", "gradient_steps", "n_updates"),
    [(2, 5, 2, 8), (2, 2, -1, 44), (1, (1, "episode"), 3, 9)],
)
def test_the_number_of_updates(n_envs: int, train_freq: Any, gradient_steps: int, n_updates: int) -> None:
    model = tiny_sac(copies(n_envs), train_freq=train_freq, gradient_steps=gradient_steps, learning_starts=10)
    model.learn(20 if n_envs == 1 else 50, log_interval=None)
    assert model._n_updates == n_updates


def test_the_log_and_callbacks(tmp_path: Path) -> None:
    eval_env = DummyVecEnv([lambda: Monitor(SampledEnv(VECTOR, BOX_ACTION))])
    evaluation = EvalCallback(eval_env, n_eval_episodes=2, eval_freq=10, best_model_save_path=str(tmp_path))
    model = tiny_sac(copies(2))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(60, [evaluation, CheckpointCallback(10, str(tmp_path), save_replay_buffer=True)], log_interval=1)
    keys = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    names = ("actor_loss", "critic_loss", "ent_coef_loss", "ent_coef", "learning_rate", "n_updates")
    assert {f"train/{name}" for name in names} <= set(keys)
    assert {"eval/mean_reward", "time/fps", "time/total_timesteps"} <= set(keys)
    assert {"best_model.zip", "rl_model_20_steps.zip", "rl_model_replay_buffer_20_steps.pkl"} <= {
        path.name for path in tmp_path.iterdir()
    }
    counter = itertools.count()
    model.learn(1000, callback=lambda *_: next(counter) < 5, reset_num_timesteps=False)
    assert model.num_timesteps == 60 + 6 * 2


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_save_and_load(share: bool, folder: bool, tmp_path: Path) -> None:
    model = tiny_sac(
        copies(2, TRANSITION),
        policy_kwargs=dict(share_features_extractor=share, shared_memory_loss="critic", critic_layer_norm=True),
        replay_buffer_kwargs=dict(folder=str(tmp_path)) if folder else None,
    )
    model.learn(60, log_interval=None)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = TransformerSAC.load(tmp_path / "model", env=copies(2, TRANSITION), device="cpu")
    assert same(weights(model), weights(loaded))
    assert (loaded.actor.features_extractor is loaded.critic.features_extractor) == share
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == model.replay_buffer.size() == 60
    assert isinstance(loaded.replay_buffer.actions, np.memmap) == folder
    runs = []
    for each in (model, loaded):
        each.set_env(copies(2, TRANSITION))
        each.set_random_seed(1)
        runs.append(weights(each.learn(20, reset_num_timesteps=False, log_interval=None)))
        assert each.num_timesteps == 80 and each.replay_buffer.size() == 80
    assert same(*runs)
    with pytest.raises(ValueError, match="must hold memories of 5 tokens"):
        tiny_sac(copies(2, TRANSITION), policy_kwargs=dict(context_length=5)).load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="`path` must hold transitions with n_envs=1, got 2"):
        tiny_sac(copies(1, TRANSITION)).load_replay_buffer(tmp_path / "buffer")


def test_a_model_without_its_replay_buffer_learns_from_new_transitions(tmp_path: Path) -> None:
    tiny_sac().learn(20, log_interval=None).save(tmp_path / "model")
    model = TransformerSAC.load(tmp_path / "model", env=copies(3), device="cpu")
    assert model.learn(30, reset_num_timesteps=False, log_interval=None).replay_buffer.size() == 30


def test_the_policy_alone_is_saved_and_loaded(tmp_path: Path) -> None:
    policy = tiny_sac(policy_kwargs=dict(share_features_extractor=True, context_length=5)).policy
    policy.save(str(tmp_path / "policy"))
    loaded = TransformerSACPolicy.load(str(tmp_path / "policy"), device="cpu")
    assert all(th.equal(a, b) for a, b in zip(policy.parameters(), loaded.parameters(), strict=True))
    assert loaded.share_features_extractor and loaded.context_length == 5
    observation, start = np.ones((2, 3), np.float32), np.ones(2, dtype=bool)
    actions = [each.predict(observation, None, start, deterministic=True)[0] for each in (policy, loaded)]
    np.testing.assert_array_equal(*actions)


def test_minibatches_are_standardised() -> None:
    env = copies(2, normalize=True)
    model = tiny_sac(env, learning_starts=20).learn(80, log_interval=None)
    assert model._n_updates == 30
    raw = model.replay_buffer.sample(400).observations.newest()
    standardised = model.replay_buffer.sample(400, env).observations.newest()  # type: ignore[arg-type]
    assert raw.abs().max() <= 1 < standardised.abs().max()


def test_vec_normalize_inside_other_wrappers_is_refused() -> None:
    space = OBSERVATION_SPACES["image-channels-last"]
    env = VecNormalize(copies(1, space), norm_obs=False)
    with pytest.raises(ValueError, match="`env` must have VecNormalize around all wrappers that change observations"):
        tiny_sac(env)
    right = VecNormalize(VecTransposeImage(copies(1, space)), norm_obs=False)
    assert tiny_sac(right).learn(12, log_interval=None)._n_updates == 2
    model = tiny_sac(right)
    with pytest.raises(ValueError, match="VecNormalize around all"):
        model.set_env(env)


@pytest.mark.parametrize("where", ["reward", "observation", "first observation", "terminal observation"])
@pytest.mark.parametrize("normalize", [False, True])
def test_numbers_that_are_not_finite(where: str, normalize: bool) -> None:
    class Poisoned(PoisonedEnv):
        action_space = BOX_ACTION

        def __init__(self) -> None:
            super().__init__(where, np.nan)
            self.action_space = BOX_ACTION

    env: VecEnv = DummyVecEnv([partial(SampledEnv, VECTOR, BOX_ACTION), Poisoned])
    with pytest.raises(ValueError, match=rf"non-finite {where.removeprefix('first ')} from environment [01]"):
        tiny_sac(VecNormalize(env) if normalize else env).learn(100, log_interval=None)


def test_rows_of_a_batch_are_independent() -> None:
    model = tiny_sac(copies(3))
    env = copies(3)
    obs, state, starts = env.reset(), None, np.ones(3, dtype=bool)
    singles: list[Any] = [None] * 3
    for _ in range(12):
        actions, state = model.predict(obs, state, starts, deterministic=True)  # type: ignore[arg-type]
        for i in range(3):
            own = map_tokens(lambda each, i=i: each[i], obs)
            alone, singles[i] = model.predict(own, singles[i], starts[i : i + 1], deterministic=True)
            np.testing.assert_allclose(alone, actions[i], atol=1e-5)
        obs, _, starts, _ = env.step(actions)
