"""Collection, learning and files of MAMLTRPO."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl import MAMLTRPO, AdaptationEvalCallback, evaluate_adaptation
from sb3_trmrl.maml_trpo.inner import adapt, flat_parameters, outputs
from tests.helpers.agents import ACTION_SPACES, BOX_ACTION, VECTOR
from tests.helpers.environments import early_end
from tests.helpers.maml import copies, sampled_family, tiny_maml, two_arms

pytestmark = pytest.mark.usefixtures("one_thread")


class Spy:
    """Records what training sees: infos and rewards of each step, and the data of each update."""

    def __init__(self, model: MAMLTRPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.infos: list[Any] = []
        self.rewards: list[np.ndarray] = []
        self.estimated: list[np.ndarray] = []
        self.updates: list[Any] = []
        self.parameters: list[th.Tensor] = []
        train, advantages = model.train, model.advantages

        def spied_train() -> None:
            self.updates.append(model._batches)
            self.parameters.append(flat_parameters(model.policy))
            train()

        def spied_advantages(states: th.Tensor, rewards: np.ndarray, ends: np.ndarray) -> th.Tensor:
            assert ends[-1] and ends.sum() == model.n_inner_episodes and len(rewards) == len(states)
            self.estimated.append(rewards)
            return advantages(states, rewards, ends)

        monkeypatch.setattr(model, "train", spied_train)
        monkeypatch.setattr(model, "advantages", spied_advantages)

    def __call__(self, found: dict[str, Any], _: Any) -> bool:
        self.infos.append(found["infos"])
        self.rewards.append(found["rewards"])
        return True


def monitored() -> VecEnv:
    return make_vec_env(early_end, seed=0)


def learn(model: MAMLTRPO, monkeypatch: pytest.MonkeyPatch, n: int = 1) -> Spy:
    spy = Spy(model, monkeypatch)
    model.learn(n, callback=spy)
    return spy


@pytest.mark.parametrize("action_space", ACTION_SPACES)
@pytest.mark.parametrize("n_inner_steps", [1, 2])
def test_collection_and_update_compute_the_same(
    action_space: str, n_inner_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = spaces.Dict(vector=VECTOR, choice=spaces.Discrete(4)) if action_space == "box" else VECTOR
    env = copies(2, sampled_family, observation_space=space, action_space=ACTION_SPACES[action_space])
    model = tiny_maml(env, n_inner_steps=n_inner_steps)  # three tasks: rounded up to four
    spy = learn(model, monkeypatch)
    (batches,), (start,) = spy.updates, spy.parameters
    assert len(batches) == 2 and all(len(batch.inner) == n_inner_steps for batch in batches)
    for batch in batches:
        flat = start.expand(2, -1)
        for samples in (*batch.inner, batch.outer):
            is_real = samples.weights > 0
            numbers = outputs(model.policy, flat, samples.states)
            th.testing.assert_close(numbers[is_real], samples.numbers[is_real], rtol=1e-4, atol=1e-5)
            for own, advantages in zip(is_real, samples.advantages, strict=True):  # of each task and phase
                assert advantages[own].mean() == pytest.approx(0, abs=1e-5)
                assert advantages[own].std(correction=0) == pytest.approx(1, abs=1e-4)
            flat = adapt(model.policy, flat, [samples], model.inner_learning_rate)
    assert (flat_parameters(model.policy) - start).abs().max() > 0


def test_each_copy_plays_one_task_before_and_after_adaptation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rewards of ``EarlyEnd`` contain the task."""
    model = tiny_maml(copies(3), n_tasks=6, n_inner_episodes=4)
    spy = learn(model, monkeypatch)
    assert len(spy.estimated) == 12 and model.num_timesteps == 3 * len(spy.infos)
    tasks = []
    for number in range(2):
        for index in range(3):
            before, after = (spy.estimated[6 * number + 3 * phase + index] for phase in range(2))
            fractions = {round(float(each[0]) % 1, 4) for each in (before, after)}
            assert len(fractions) == 1
            tasks.append(fractions.pop())
    assert len(set(tasks)) == 6
    reported = {round(info["task"], 4) for infos in spy.infos for info in infos if "task" in info}
    assert reported == set(tasks)
    assert model.get_env().get_attr("tasks") == [None] * 3


def test_inner_rewards_are_those_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    env = VecNormalize(copies(1))
    model = tiny_maml(env, n_tasks=1)
    spy = learn(model, monkeypatch)
    before, after = spy.estimated
    n = len(before)
    assert np.abs(before).max() <= 10 and not np.allclose(before, [each[0] for each in spy.rewards[:n]])
    np.testing.assert_allclose(after, [each[0] for each in spy.rewards[n:]])
    plain = learn(tiny_maml(copies(1), n_tasks=1), monkeypatch)
    n = len(plain.estimated[0])
    np.testing.assert_allclose(plain.estimated[0], [each[0] for each in plain.rewards[:n]])


def test_inner_steps_that_diverge_are_named() -> None:
    env = copies(2, sampled_family, observation_space=VECTOR, action_space=BOX_ACTION)
    with pytest.raises(FloatingPointError, match="lower `inner_learning_rate`"):
        tiny_maml(env, inner_learning_rate=1e6).learn(1)


def test_training_is_deterministic() -> None:
    def weights(seed: int) -> th.Tensor:
        return flat_parameters(tiny_maml(copies(3), seed=seed).learn(150).policy)

    first = weights(5)
    th.testing.assert_close(first, weights(5), rtol=0, atol=0)
    assert (first - weights(6)).abs().max() > 0.01


def test_log_callbacks_and_evaluation(tmp_path: Path) -> None:
    env, *eval_envs = VecNormalize(copies(3)), *(VecNormalize(monitored(), training=False) for _ in range(2))
    model = tiny_maml(env)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    callbacks = [
        EvalCallback(eval_envs[0], eval_freq=20, n_eval_episodes=2, verbose=0, log_path=str(tmp_path)),
        AdaptationEvalCallback(eval_envs[1], eval_freq=30, n_eval_episodes=2, verbose=0),
    ]
    model.learn(300, callback=callbacks)
    names = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert set(names) >= {
        "rollout/ep_rew_mean_before_adaptation",
        "rollout/ep_rew_mean_after_adaptation",
        "train/policy_objective",
        "train/kl_divergence_loss",
        "train/is_line_search_success",
        "eval/mean_reward",
    }
    assert (tmp_path / "evaluations.npz").is_file()
    before = model.num_timesteps
    stopped = model.learn(10**6, callback=lambda *_: model.num_timesteps < 30, reset_num_timesteps=True)
    assert before > 300 and stopped.num_timesteps == 30
    assert env.get_attr("tasks") == [None] * 3
    mean, _ = evaluate_policy(model, eval_envs[0], n_eval_episodes=3)
    assert np.isfinite(mean)


def test_save_and_load(tmp_path: Path) -> None:
    model = tiny_maml(n_adaptation_episodes=2).learn(100)
    model.save(tmp_path / "model")
    loaded = MAMLTRPO.load(tmp_path / "model", copies(3), device="cpu")
    results = [evaluate_adaptation(each, early_end, n_eval_tasks=3, n_eval_episodes=4) for each in (model, loaded)]
    np.testing.assert_array_equal(results[0].rewards, results[1].rewards)
    settings = ("n_tasks", "n_inner_episodes", "inner_learning_rate", "n_adaptation_episodes", "num_timesteps")
    assert all(getattr(loaded, name) == getattr(model, name) for name in settings)
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps > model.num_timesteps
    model.policy.save(str(tmp_path / "policy"))
    policy = type(model.policy).load(str(tmp_path / "policy"))
    th.testing.assert_close(flat_parameters(policy), flat_parameters(model.policy))


def test_one_episode_tells_which_arm_pays() -> None:
    """The best agent that does not adapt gets 5 in each episode."""
    env = make_vec_env(two_arms, n_envs=20, seed=0)
    model = tiny_maml(env, n_tasks=20, inner_learning_rate=2.0, gamma=0.0, target_kl=0.1)
    model.learn(8 * 20 * 2 * 20)
    result = evaluate_adaptation(model, two_arms, n_eval_tasks=20, n_eval_episodes=4)
    returns = result.rewards.sum(axis=-1).mean(axis=0)
    assert abs(returns[0] - 5) < 1 and returns[1] > 7.5 and returns[3] > 9
