"""PEARL as an algorithm of SB3: learning, the log, seeds, callbacks, files."""

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import Logger, configure

from sb3_trmrl import (
    PEARL,
    AdaptationEvalCallback,
    MultiEpisodeTrial,
    PEARLPolicy,
    PreviousTransitionObservation,
    evaluate_adaptation,
)
from tests.helpers.environments import ToyFamily, noisy_reach
from tests.helpers.pearl import copies, tiny_pearl

pytestmark = pytest.mark.usefixtures("one_thread")


class Sides(ToyFamily):
    """The task is -0.5 or 0.5; the reward is minus the distance of the action from it."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def sample_tasks(self, n: int) -> list[Any]:
        return (self.np_random.integers(2, size=n) - 0.5).tolist()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.zeros(1, np.float32), -abs(float(action[0]) - self.task), False, self.time == 5, {}


def sides() -> gym.Env:
    return PreviousTransitionObservation(MultiEpisodeTrial(Sides()))


def test_it_learns_to_infer_the_task() -> None:
    """An agent that does not infer the task gets -2.5 in each episode."""
    model = tiny_pearl(
        copies(2, sides),
        n_train_tasks=2,
        meta_batch_size=2,
        initial_steps=50,
        prior_steps=20,
        posterior_steps=20,
        gradient_steps=40,
        batch_size=32,
        context_batch_size=5,
        learning_rate=3e-3,
        gamma=0.5,
        ent_coef="auto_0.1",
        policy_kwargs=dict(net_arch=[32], encoder_net_arch=[32], latent_dim=1),
    )
    model.learn(1140)
    returns = evaluate_adaptation(model, sides, 10, 3).rewards.sum(axis=-1).mean(axis=0)
    assert returns[1:].min() > -1.5 > returns[0]


def weights(model: PEARL) -> list[th.Tensor]:
    return [each.detach().clone() for each in model.policy.parameters()]


def test_the_seed_determines_the_run() -> None:
    models = [tiny_pearl(copies(2), seed=seed).learn(100) for seed in (0, 0, 1)]
    first, again, other = map(weights, models)
    assert all(th.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(th.equal(a, b) for a, b in zip(first, other, strict=True))
    assert models[0].train_tasks == models[1].train_tasks != models[2].train_tasks


def test_the_log(tmp_path: Path) -> None:
    model = tiny_pearl()
    logger: Logger = configure(str(tmp_path), ["csv"])
    model.set_logger(logger)
    model.learn(1)
    keys = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    losses = ["actor_loss", "critic_loss", "ent_coef_loss", "kl"]
    names = [*losses, "ent_coef", "latent_mean", "latent_std", "learning_rate", "n_updates"]
    assert {f"train/{name}" for name in names} <= set(keys)
    names = ["ep_rew_mean", "ep_len_mean", "prior_episode_rew_mean", "posterior_episode_rew_mean"]
    assert {f"rollout/{name}" for name in names} <= set(keys)
    assert {"time/iterations", "time/fps", "time/total_timesteps"} <= set(keys)


def test_the_number_of_steps_and_updates() -> None:
    steps = dict(initial_steps=4, prior_steps=3, posterior_steps=2)
    model = tiny_pearl(copies(3), gradient_steps=-1, tasks_per_iteration=4, **steps).learn(1)
    initial, iteration = 2 * 3 * 4, 2 * 3 * 5  # four tasks, and then four, in two groups of three
    assert (model.num_timesteps, model._n_updates) == (initial + iteration, initial + iteration)
    model.learn(iteration, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (initial + 2 * iteration, initial + 2 * iteration)


def test_a_fixed_entropy_coefficient() -> None:
    model = tiny_pearl(ent_coef=0.1).learn(1)
    assert model.ent_coef_optimizer is None


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped with a ``Monitor``")
def test_callbacks(tmp_path: Path) -> None:
    adaptation = AdaptationEvalCallback(noisy_reach(), n_eval_episodes=2, eval_freq=30, log_path=str(tmp_path))
    evaluation = EvalCallback(copies(2), n_eval_episodes=2, eval_freq=30, best_model_save_path=str(tmp_path))
    model = tiny_pearl()
    model.learn(100, callback=[adaptation, evaluation, CheckpointCallback(50, str(tmp_path))])
    with np.load(tmp_path / "adaptation.npz") as history:
        assert history["returns"].shape[1:] == (2, 2)
    assert (tmp_path / "best_model.zip").is_file() and (tmp_path / "rl_model_50_steps.zip").is_file()
    before = model.num_timesteps
    counter = itertools.count()
    model.learn(1000, callback=lambda *_: next(counter) < 5, reset_num_timesteps=False)
    assert model.num_timesteps == before + 6


def test_a_run_that_was_interrupted_goes_on() -> None:
    """Also in the first step of a task, whose context has just been forgotten."""
    model = tiny_pearl(copies(2)).learn(1)

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(100, interrupt, reset_num_timesteps=False)
    assert model.env is not None and model.env.get_attr("tasks") == [None, None]
    assert (model.replay_buffer.context_sizes() == 0).sum() == 2
    before = model.num_timesteps
    model.learn(1, reset_num_timesteps=False)
    assert model.num_timesteps == before + 2 * 14 + 2 * 24


def test_save_and_load(tmp_path: Path) -> None:
    model = tiny_pearl(copies(2)).learn(100)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    observation = copies(2).reset()
    loaded = PEARL.load(tmp_path / "model", device="cpu")
    actions = []
    for each in (model, loaded):
        th.manual_seed(0)
        actions.append(each.predict(observation)[0])  # type: ignore[arg-type]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert loaded.train_tasks == model.train_tasks
    moments = [each.encoder.optimizer.state_dict()["state"][0]["exp_avg"] for each in (model, loaded)]
    assert th.equal(*moments) and moments[0].abs().sum() > 0

    loaded = PEARL.load(tmp_path / "model", env=copies(2), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    np.testing.assert_array_equal(loaded.replay_buffer.context_sizes(), model.replay_buffer.context_sizes())
    runs = []
    for each in (model, loaded):
        assert each.env is not None
        each.set_env(copies(2))
        each.set_random_seed(1)
        runs.append(weights(each.learn(48, reset_num_timesteps=False)))
        assert each.num_timesteps == 104 + 48, "without initial steps"
    assert all(th.equal(a, b) for a, b in zip(*runs, strict=True))
    fresh = PEARL.load(tmp_path / "model", env=copies(1), device="cpu", n_train_tasks=4)
    fresh.learn(1, reset_num_timesteps=False)
    assert fresh.num_timesteps == 104 + 4 * 14 + 2 * 24, "without a buffer, initial steps are taken again"
    with pytest.raises(ValueError, match=r"`path` must hold the replay buffer of 4 tasks"):
        np.save(tmp_path / "other.pkl", np.zeros(3))
        other = tiny_pearl(n_train_tasks=5)
        other.save_replay_buffer(tmp_path / "other.pkl")
        model.load_replay_buffer(tmp_path / "other.pkl")


def test_a_replay_buffer_that_is_too_small_is_refused(tmp_path: Path) -> None:
    tiny_pearl(buffer_size=4 * 24).save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match=r"`path` must hold .* at least 112 transitions of each task.* got 24"):
        tiny_pearl(posterior_steps=100).load_replay_buffer(tmp_path / "buffer")


def test_contexts_are_kept_if_a_callback_stops_training() -> None:
    model = tiny_pearl(copies(2)).learn(104)
    before = model.replay_buffer.context_sizes()
    assert before.min() > 5
    model.learn(100, lambda *_: model.num_timesteps < 104 + 6, reset_num_timesteps=False)
    np.testing.assert_array_equal(model.replay_buffer.context_sizes(), before)
    assert model.replay_buffer.sizes().sum() > before.sum()


def test_the_policy_alone_is_saved_and_loaded(tmp_path: Path) -> None:
    policy = tiny_pearl().policy
    policy.save(str(tmp_path / "policy"))
    loaded = PEARLPolicy.load(str(tmp_path / "policy"), device="cpu")
    observation, _ = noisy_reach().reset(seed=0)
    actions = []
    for each in (policy, loaded):
        th.manual_seed(0)
        actions.append(each.predict(observation, deterministic=True)[0])
    np.testing.assert_array_equal(actions[0], actions[1])
