"""Evaluation of adaptation against a loop written by hand, its result and the callbacks."""

import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from scipy import stats
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import sb3_trmrl  # noqa: F401
from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation, TransformerPPO
from sb3_trmrl.evaluation import callbacks
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult, bootstrap_interval
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback, InnerEpisodeCallback
from sb3_trmrl.trials.held_out import evaluation_seed, share_tasks
from tests.helpers.agents import TINY
from tests.helpers.environments import EarlyEnd, early_end
from tests.helpers.resuming import record_logs

ENVS: dict[str, tuple[str | Callable[..., gym.Env], dict[str, Any]]] = {
    "cheetah": ("HalfCheetahVel-v0", dict(horizon=12)),
    "bandit": ("BernoulliBandit-v0", dict(n_pulls=6)),
    "early end": (early_end, {}),
}


def make_model(algorithm: str, env: Any, env_kwargs: dict[str, Any]) -> Any:
    venv = make_vec_env(env, 2, seed=0, env_kwargs=env_kwargs)
    if algorithm == "recurrent":
        policy_kwargs: dict[str, Any] = dict(lstm_hidden_size=8, net_arch=[8])
        return RecurrentPPO(
            "MultiInputLstmPolicy", venv, n_steps=8, batch_size=16, seed=0, device="cpu", policy_kwargs=policy_kwargs
        )
    policy_kwargs = TINY if algorithm == "full" else dict(TINY, context_length=4)
    return TransformerPPO(
        "TrMRLPolicy", venv, n_steps=8, batch_size=16, seed=0, device="cpu", policy_kwargs=policy_kwargs
    )


def by_hand(
    model: Any, env: Any, env_kwargs: dict[str, Any], tasks: list[Any], n_episodes: int, seed: int, sampled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the returns and lengths, (tasks, episodes), of environments that are stepped one by one."""
    split_seed = evaluation_seed(seed, "test")
    envs = [gym.make(env, **env_kwargs) if isinstance(env, str) else env(**env_kwargs) for _ in tasks]
    observations: list[Any] = []
    for index, (one, task) in enumerate(zip(envs, tasks, strict=True)):
        layer: Any = one
        while not hasattr(layer, "episodes_per_trial"):
            layer = layer.env
        layer.episodes_per_trial = n_episodes
        observations.append(one.reset(seed=split_seed + index, options={"task": task})[0])
    returns: list[list[float]] = [[0.0] for _ in tasks]
    lengths = [[0] for _ in tasks]
    state, starts, running = None, np.ones(len(tasks), dtype=bool), [True] * len(tasks)
    th.manual_seed(split_seed)
    while any(running):
        batch = {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
        actions, state = model.predict(batch, state=state, episode_start=starts, deterministic=not sampled)
        starts = np.zeros(len(tasks), dtype=bool)
        for index, one in enumerate(envs):
            if not running[index]:
                continue
            observations[index], reward, terminated, truncated, info = one.step(actions[index])
            returns[index][-1] += float(reward)
            lengths[index][-1] += 1
            if info["new_episode"]:
                returns[index].append(0.0)
                lengths[index].append(0)
            running[index] = not (terminated or truncated)
    return np.array(returns), np.array(lengths)


@pytest.mark.parametrize("sampled", [False, True], ids=["deterministic", "sampled"])
@pytest.mark.parametrize("algorithm", ["window", "full", "recurrent"])
@pytest.mark.parametrize("name", ENVS)
def test_equals_a_loop_written_by_hand(name: str, algorithm: str, sampled: bool) -> None:
    env, env_kwargs = ENVS[name]
    model = make_model(algorithm, env, env_kwargs)
    arguments: dict[str, Any] = dict(n_eval_tasks=4, n_eval_episodes=3, seed=5, env_kwargs=env_kwargs)
    result = evaluate_adaptation(model, env, deterministic=not sampled, **arguments)
    if sampled and name == "early end":
        # One loop samples actions for finished environments and the other does not; with one task they agree
        result = evaluate_adaptation(model, env, deterministic=False, n_envs=1, **{**arguments, "n_eval_tasks": 1})
    returns, lengths = by_hand(model, env, env_kwargs, result.tasks, 3, 5, sampled)
    assert np.allclose(result.returns, returns, atol=1e-4)
    assert np.array_equal(result.lengths, lengths)
    assert result.rewards.shape == (len(result.tasks), 3, lengths.max())


def test_one_task_at_a_time_is_the_same() -> None:
    for env, env_kwargs in ENVS.values():
        model = make_model("window", env, env_kwargs)
        results = [
            evaluate_adaptation(model, env, 5, 2, seed=1, env_kwargs=env_kwargs, n_envs=n_envs)
            for n_envs in (1, 2, None)
        ]
        for result in results[1:]:
            assert result.tasks == results[0].tasks
            assert np.allclose(result.rewards, results[0].rewards, atol=1e-4, equal_nan=True)


def test_same_seed_same_result_and_no_random_numbers_are_used_up() -> None:
    model = make_model("window", "BernoulliBandit-v0", {})
    arguments: dict[str, Any] = dict(n_eval_tasks=8, n_eval_episodes=2, deterministic=False)
    before = th.get_rng_state()
    first = evaluate_adaptation(model, "BernoulliBandit-v0", seed=3, **arguments)
    assert th.equal(th.get_rng_state(), before)
    th.manual_seed(17)
    again = evaluate_adaptation(model, "BernoulliBandit-v0", seed=3, **arguments)
    other = evaluate_adaptation(model, "BernoulliBandit-v0", seed=4, **arguments)
    assert np.array_equal(first.rewards, again.rewards)
    assert not np.array_equal(first.rewards, other.rewards)


def test_tasks_of_the_splits() -> None:
    model = make_model("window", "HalfCheetahVel-v0", dict(horizon=2))
    arguments: dict[str, Any] = dict(n_eval_tasks=30, n_eval_episodes=1, env_kwargs=dict(horizon=2))
    test, again, validation, train = (
        evaluate_adaptation(model, "HalfCheetahVel-v0", split=split, seed=seed, **arguments)
        for split, seed in (("test", 0), ("test", 1), ("validation", 0), ("train", 0))
    )
    assert test.tasks == again.tasks  # held-out tasks do not depend on the seed
    assert not set(test.tasks) & set(validation.tasks) and not set(test.tasks) & set(train.tasks)
    assert test.held_out is True and "held out" in test.tasks_seen_in_training()
    assert train.held_out is False and "as in training" in train.tasks_seen_in_training()
    far = dict(horizon=2, velocity_range=(3.0, 4.0))
    out = evaluate_adaptation(model, "HalfCheetahVel-v0", 20, 1, env_kwargs=far)
    assert min(out.tasks) >= 3.0
    direction = make_model("window", "HalfCheetahDir-v0", dict(horizon=2))
    two = evaluate_adaptation(direction, "HalfCheetahDir-v0", 4, 1, env_kwargs=dict(horizon=2))
    assert two.held_out is False and "too small" in two.tasks_seen_in_training()
    own = evaluate_adaptation(make_model("window", early_end, {}), early_end, 4, 1)
    assert own.held_out is None and "independent random generator" in own.tasks_seen_in_training()


def test_normalised_observations() -> None:
    """The agent gets observations that are normalised by its own VecNormalize or by the given one."""
    env = VecNormalize(make_vec_env(early_end, 2, seed=0), norm_obs_keys=["observation"])
    env.obs_rms["observation"].mean[:] = 100.0
    model = TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=16, policy_kwargs=TINY, device="cpu")

    seen: list[np.ndarray] = []

    class Spy:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> tuple[Any, Any]:
            seen.append(observation["observation"])
            return model.predict(observation, state, episode_start, deterministic)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_adaptation(model, early_end, 2, 1)
        evaluate_adaptation(Spy(), early_end, 2, 1, vec_normalize=env)
        assert np.max(seen) == pytest.approx(-10.0)  # clipped
        seen.clear()
        evaluate_adaptation(Spy(), early_end, 2, 1)
        assert np.max(np.abs(seen)) < 9.0


def test_result_of_known_rewards(tmp_path: Path) -> None:
    nan = np.nan
    rewards = np.array([[[1.0, 2.0, nan], [3.0, 3.0, 3.0]], [[5.0, nan, nan], [0.0, 0.0, 1.0]]])
    result = AdaptationResult(
        "env", [(0.5, 1.0), (1.5, 2.0)], rewards, successes=np.array([[True, False], [True, True]])
    )
    assert np.array_equal(result.returns, [[3.0, 9.0], [5.0, 1.0]])
    assert np.array_equal(result.lengths, [[2, 3], [1, 3]])
    assert np.array_equal(result.mean_returns, [4.0, 5.0])
    assert result.success_rates is not None and np.array_equal(result.success_rates, [1.0, 0.5])
    frame = result.to_frame()
    assert list(frame["episode"]) == [1, 2, 1, 2] and list(frame["return"]) == [3.0, 9.0, 5.0, 1.0]
    assert list(frame["success"]) == [True, False, True, True]
    result.save(tmp_path / "result.npz")
    loaded = AdaptationResult.load(tmp_path / "result.npz")
    assert loaded.tasks == result.tasks and loaded.held_out is None and loaded.env_id == "env"
    assert np.array_equal(loaded.rewards, rewards, equal_nan=True)
    assert np.array_equal(loaded.successes, result.successes)  # type: ignore[arg-type]


def test_interval_over_tasks() -> None:
    returns = np.random.default_rng(0).normal(3.0, 2.0, size=(200, 1))
    result = AdaptationResult("env", list(range(200)), returns[:, :, None])
    low, high = result.interval(0.95)[0]
    half_width = stats.norm.ppf(0.975) * returns.std(ddof=1) / np.sqrt(200)  # central limit theorem
    assert low == pytest.approx(returns.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(returns.mean() + half_width, abs=0.1 * half_width)
    assert np.isnan(AdaptationResult("env", [0], np.ones((1, 1, 1))).interval()).all()


def test_intervals_over_many_tasks_take_little_memory() -> None:
    returns = np.random.default_rng(0).normal(size=(2_000, 1))
    tracemalloc.start()
    found = bootstrap_interval(returns, 0.95, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    at_once = stats.bootstrap(
        (returns,), np.mean, axis=0, n_resamples=9_999, method="percentile", rng=np.random.default_rng(0)
    )
    assert np.array_equal(found, np.stack(at_once.confidence_interval, axis=-1))


def test_an_agent_without_a_dict_is_refused_on_a_dict() -> None:
    plain = make_vec_env("HalfCheetahVel-v0", 1, env_kwargs=dict(previous_transition=False))
    model = PPO("MlpPolicy", plain, n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=r"`env` has .*Dict\(.*trained with Box"):
        evaluate_adaptation(model, "HalfCheetahVel-v0", 2, 1)
    result = evaluate_adaptation(
        model, "HalfCheetahVel-v0", 2, 1, env_kwargs=dict(previous_transition=False, horizon=2)
    )
    assert result.rewards.shape == (2, 1, 2)


def test_a_module_may_stand_before_the_id() -> None:
    model = make_model("window", "HalfCheetahVel-v0", dict(horizon=2))
    arguments: dict[str, Any] = dict(n_eval_tasks=3, n_eval_episodes=1, env_kwargs=dict(horizon=2))
    prefixed = evaluate_adaptation(model, "sb3_trmrl:HalfCheetahVel-v0", **arguments)
    plain = evaluate_adaptation(model, "HalfCheetahVel-v0", **arguments)
    assert prefixed.tasks == plain.tasks and prefixed.held_out
    assert np.array_equal(prefixed.rewards, plain.rewards)
    callback = AdaptationEvalCallback("sb3_trmrl:HalfCheetahVel-v0", env_kwargs=dict(horizon=2))
    visited = [task for tasks in callback.eval_env.get_attr("tasks") for task in tasks]
    held_out = gym.make("HalfCheetahVel-v0", split="validation").get_wrapper_attr("tasks")
    assert sorted(visited) == sorted(held_out) and callback.n_eval_episodes == len(held_out)


def test_evaluation_callback(tmp_path: Path) -> None:
    model = make_model("window", early_end, {})
    logs = record_logs(model)
    eval_env = make_vec_env(early_end, 2, seed=9, env_kwargs=dict(episodes_per_trial=3))
    callback = AdaptationEvalCallback(
        eval_env, n_eval_episodes=6, eval_freq=8, log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0
    )
    model.learn(32, callback=callback)
    evaluations = [written for _, written in logs.rows if "eval/mean_reward" in written]
    assert len(evaluations) == 2
    with np.load(tmp_path / "adaptation.npz") as history, np.load(tmp_path / "evaluations.npz") as sums:
        assert history["returns"].shape == (2, 6, 3) and history["successes"].shape == (2, 6, 3)
        assert np.array_equal(history["timesteps"], sums["timesteps"])
        assert np.allclose(history["returns"].sum(axis=2), sums["results"], atol=1e-4)
        for index, written in enumerate(evaluations):
            for episode in range(3):
                mean = history["returns"][index, :, episode].mean()
                assert written[f"eval/episode_{episode + 1}_mean_reward"] == pytest.approx(mean)
                rate = history["successes"][index, :, episode].mean()
                assert written[f"eval/episode_{episode + 1}_success_rate"] == pytest.approx(rate)
            assert written["eval/success_rate"] == pytest.approx(history["successes"][index, :, -1].mean())
    assert (tmp_path / "best_model.zip").is_file()


@pytest.mark.parametrize("best_by", ["mean_reward", "success_rate"])
def test_the_best_model_by_success(best_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("window", early_end, {})
    returns, successes = [5.0, 9.0, 7.0, 8.0], [0.5, 0.0, 0.5, 0.25]
    new_best, each = CountCalls(), CountCalls()
    eval_env = make_vec_env(early_end, 1)
    callback = AdaptationEvalCallback(
        eval_env, eval_freq=4, best_by=best_by, best_model_save_path=str(tmp_path), callback_on_new_best=new_best,
        callback_after_eval=each, verbose=0,
    )  # fmt: skip

    def evaluate(*args: Any, **kwargs: Any) -> tuple[list[float], list[int]]:
        number = each.n_calls
        callback._episode_successes = [(True,)] * int(4 * successes[number]) + [(False,)] * int(
            4 - 4 * successes[number]
        )
        return [returns[number]], [1]

    monkeypatch.setattr("stable_baselines3.common.callbacks.evaluate_policy", evaluate)
    model.learn(32, callback=callback)
    assert each.n_calls == 4
    # By return: the first and the second. By success: the first and the third, which has a higher return
    assert (new_best.at, callback.best_mean_reward) == (([8, 16], 9.0) if best_by == "mean_reward" else ([8, 24], 7.0))
    saved = TransformerPPO.load(tmp_path / "best_model", device="cpu")
    assert saved.num_timesteps == new_best.at[-1]


class CountCalls(BaseCallback):
    """Records the steps at which it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[int] = []

    def _on_step(self) -> bool:
        assert isinstance(self.parent, AdaptationEvalCallback) and self.parent.best_mean_reward < 100
        self.at.append(self.num_timesteps)
        return True


def test_a_stopwatch_counts_on_from_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(process_time=lambda: now))
    running, stopped = callbacks._Stopwatch(), callbacks._Stopwatch()
    running.start()
    stopped.start()
    now = 5.0
    stopped.stop()
    saved = pickle.dumps([running, stopped])
    now = 1_000.0  # steps that are lost, and the time until the run is resumed
    running, stopped = pickle.loads(saved)
    now = 1_002.0
    assert (running.seconds, stopped.seconds) == (7.0, 5.0)
    stopped.start()
    now = 1_003.0
    assert (running.seconds, stopped.seconds) == (8.0, 6.0)


def test_an_evaluation_that_cannot_be_written_loses_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("window", early_end, {})
    callback = AdaptationEvalCallback(
        make_vec_env(early_end, 1, seed=9), n_eval_episodes=1, eval_freq=8, log_path=str(tmp_path), verbose=0
    )
    model.learn(16, callback=callback)
    before = (tmp_path / "adaptation.npz").read_bytes()
    savez = np.savez

    def stops_halfway(file: Any, **arrays: Any) -> None:
        if "returns" not in arrays:  # SB3's own file
            return savez(file, **arrays)
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", stops_halfway)
    with pytest.raises(OSError, match="no space left"):
        model.learn(32, callback=callback, reset_num_timesteps=False)
    assert (tmp_path / "adaptation.npz").read_bytes() == before


class AsLongAsItsTask(EarlyEnd):
    """Reward 1 at each step, and as many steps as the task: an episode's return is its task."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._observe(), 1.0, self.time == self.task, False, {}


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")
def test_the_history_knows_the_task_of_each_trial(tmp_path: Path) -> None:
    """Trials are in the order in which they end, here not that of the tasks."""
    tasks = (4, 1, 3, 2, 5)

    def make() -> gym.Env:
        trials = MultiEpisodeTrial(AsLongAsItsTask(), episodes_per_trial=2, tasks=tasks)
        return PreviousTransitionObservation(trials)

    model = make_model("window", make, {})
    eval_env = share_tasks(make_vec_env(make, 2))
    model.learn(32, AdaptationEvalCallback(eval_env, n_eval_episodes=5, eval_freq=8, log_path=str(tmp_path), verbose=0))
    with np.load(tmp_path / "adaptation.npz") as history:  # without pickle
        assert "successes" not in history
        visited, returns = history["task_names"][history["tasks"]], history["returns"]
    assert returns.shape == (2, 5, 2) and visited.shape == (2, 5)
    assert not np.array_equal(visited[0], [str(task) for task in tasks])
    assert all(sorted(each) == ["1", "2", "3", "4", "5"] for each in visited)
    assert np.array_equal(visited.astype(float), returns[:, :, 0])
    assert np.array_equal(visited.astype(float), returns[:, :, 1])


def test_evaluation_callback_from_an_id() -> None:
    env = make_vec_env("HalfCheetahVel-v0", 2, seed=0, env_kwargs=dict(horizon=4))
    env = VecNormalize(env, norm_obs_keys=["observation", "prev_reward"], norm_reward=False, clip_obs=3.0)
    model = TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=16, policy_kwargs=TINY, device="cpu")
    callback = AdaptationEvalCallback(
        "HalfCheetahVel-v0", n_eval_episodes=20, eval_freq=8, env_kwargs=dict(horizon=4), verbose=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(16, callback=callback)
    assert isinstance(callback.eval_env, VecNormalize) and callback.eval_env.clip_obs == 3.0
    assert np.array_equal(callback.eval_env.obs_rms["observation"].mean, env.obs_rms["observation"].mean)
    held_out = gym.make("HalfCheetahVel-v0", split="validation")
    assert callback.best_mean_reward > -np.inf
    visited = {task for tasks in callback.eval_env.get_attr("tasks") for task in tasks}
    assert visited == set(held_out.get_wrapper_attr("tasks"))


def test_returns_of_training_by_episode() -> None:
    model = make_model("window", "BernoulliBandit-v0", dict(episodes_per_trial=2, n_pulls=4))
    logs = record_logs(model)
    totals: list[tuple[float, ...]] = []

    class Collect(InnerEpisodeCallback):
        def _on_step(self) -> bool:
            totals.extend(
                info["episode_returns"] for info in self.locals["infos"] if len(info.get("episode_returns", ())) == 2
            )
            return super()._on_step()

    model.learn(64, callback=Collect(window=1_000))
    last = [written for _, written in logs.rows if "rollout/first_episode_rew_mean" in written][-1]
    first_mean, last_mean = np.mean(totals, axis=0)
    assert last["rollout/first_episode_rew_mean"] == pytest.approx(first_mean)
    assert last["rollout/last_episode_rew_mean"] == pytest.approx(last_mean)
    assert last["rollout/ep_rew_mean"] == pytest.approx(first_mean + last_mean)


def test_an_environment_without_tasks(tmp_path: Path) -> None:
    """Independent episodes, each of which begins with an empty memory."""
    env_id = "CartPole-v1"
    model = make_model("full", env_id, {}).learn(64)
    result = evaluate_adaptation(model, env_id, n_eval_tasks=4, n_eval_episodes=1, n_envs=3)
    returns = []
    for index in range(4):
        env = gym.make(env_id)
        observation, _ = env.reset(seed=evaluation_seed(0, "test") + index)
        state, starts, n_steps, over = None, np.array([True]), 0, False
        while not over:
            action, state = model.predict(observation, state, starts, deterministic=True)
            observation, _, terminated, truncated, _ = env.step(action)
            starts, n_steps, over = np.array([False]), n_steps + 1, terminated or truncated
        returns.append(n_steps)  # CartPole rewards each step with 1
    assert result.returns[:, 0].tolist() == returns and result.unit == "episodes"
    assert list(result.to_frame()["episode"]) == [1, 2, 3, 4]
    result.save(tmp_path / "result.npz")
    assert AdaptationResult.load(tmp_path / "result.npz").unit == "episodes"
    assert evaluate_adaptation(model, env_id, n_eval_tasks=4).returns[:, 0].tolist() == returns
    with pytest.raises(ValueError, match=r"`n_eval_episodes`.* must be 1, got 6: `env` .*CartPole-v1.* has no tasks"):
        evaluate_adaptation(model, env_id, n_eval_episodes=6)
