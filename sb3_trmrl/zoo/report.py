"""The report of a run: returns on held-out tasks before and after training, and a plot of the learning curve."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from rl_zoo3 import create_test_env, get_saved_hyperparams
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl.analysis.learning_curve import LearningCurve, plot_learning_curve
from sb3_trmrl.trials.held_out import evaluation_seed, share_tasks
from sb3_trmrl.zoo.runs import Run, load_model

#: Files of a report, in the folder of the run
FIGURES = "report.json"
PICTURE = "learning_curve.png"
_BEFORE = "before training"


def _models(run: Run) -> dict[str, Path]:
    """Return the existing models to compare, by their name in the report."""
    trained = {"best on validation": run.best_model} if run.best_model else {"at the end of training": run.last_model}
    candidates = {_BEFORE: run.initial_model, **trained}
    return {name: path for name, path in candidates.items() if path is not None}


def _test_env(run: Run, model: Path, **env_kwargs: Any) -> VecEnv:
    """Make one environment for each test task, with the VecNormalize statistics of the model."""
    hyperparams, stats_path = get_saved_hyperparams(str(run.stats_path), test_mode=True)
    split = {"split": "test"} if run.has_splits else {}
    statistics = run.statistics_file(model)
    with contextlib.redirect_stdout(io.StringIO()):  # rl-zoo3 prints the path of the statistics
        env = create_test_env(
            run.env_id,
            n_envs=run.n_test_tasks,
            stats_path=str(statistics.parent) if statistics else stats_path,
            seed=evaluation_seed(run.seed, "test"),
            should_render=False,
            hyperparams=hyperparams,
            env_kwargs={**run.env_kwargs, **split, **env_kwargs},
            vec_env_cls=DummyVecEnv,
        )
    return share_tasks(env) if run.has_splits else env


def _test(run: Run, name: str, path: Path, **env_kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the unnormalised return on each test task, (tasks,), and success, (tasks, episodes) or empty."""
    successes = []

    def remember_success(locals_: dict[str, Any], _: dict[str, Any]) -> None:
        if locals_["done"] and "episode_successes" in locals_["info"]:
            successes.append(locals_["info"]["episode_successes"])

    env = _test_env(run, path, **env_kwargs)
    try:
        if name == _BEFORE and isinstance(env, VecNormalize) and env.norm_obs:
            # The statistics in the folder are those of training
            env.obs_rms = VecNormalize(env.venv, norm_obs_keys=env.norm_obs_keys).obs_rms
        model = load_model(run.algo, path)
        returns, _ = evaluate_policy(
            model, env, env.num_envs, deterministic=True, callback=remember_success, return_episode_rewards=True
        )
        return np.array(returns, dtype=np.float64), np.array(successes, dtype=bool)
    finally:
        env.close()


def _episodes_per_trial(run: Run, model: Path) -> int:
    if not run.has_splits:
        return 1
    env = _test_env(run, model)
    episodes: int = env.get_attr("episodes_per_trial", indices=0)[0]
    env.close()
    return episodes


def write_report(folder: str | Path) -> dict[str, Any]:
    """Evaluate the models of a run; print the results, write them into its folder, and return the figures."""
    # Only this folder is read, so interrupted runs have a report too. Environments without held-out tasks are evaluated
    # in 20 episodes with seeds that training does not use
    run = Run(folder)
    models = _models(run)
    if not models:
        raise FileNotFoundError(f"{str(folder)!r} holds no model to report on")
    episodes = _episodes_per_trial(run, next(iter(models.values())))
    # Number of episodes of each row. Returns of whole trials are divided by it, so that all rows have the same scale
    rows = {"first episode" if run.has_splits else "episode": 1}
    if episodes > 1:
        rows[f"mean of all {episodes} episodes of a trial"] = episodes

    figures: dict[str, Any] = {"env": run.env_id, "algo": run.algo, "held_out_tasks": run.has_splits}
    figures |= {"returns": {name: {} for name in models}, "models": {name: str(path) for name, path in models.items()}}
    levels: dict[str, float] = {}
    subject = "test tasks" if run.has_splits else "episodes with separate seeds"
    print(f"\nReturns on {run.n_test_tasks} {subject}, deterministic actions, mean +- standard error:")
    for name, path in models.items():
        for row, n_episodes in rows.items():
            env_kwargs = {"episodes_per_trial": n_episodes} if run.has_splits else {}
            returns, successes = _test(run, name, path, **env_kwargs)
            returns /= n_episodes
            mean, error = float(np.mean(returns)), float(np.std(returns, ddof=1) / np.sqrt(len(returns)))
            entry = {"mean": mean, "standard_error": error, "each": returns.tolist()}
            line = f"  {name + ', ' + row:<60}{mean:10.1f} +- {error:.1f}"
            if successes.size:
                entry["success_rates"] = successes.mean(axis=0).tolist()
                line += f", success {successes.mean():.0%}"
            figures["returns"][name][row] = entry
            print(line)
            if row == next(iter(rows)):
                levels[f"test, {row}: {name} ({mean:.0f} ± {error:.0f})"] = mean

    (run.folder / FIGURES).write_text(json.dumps(figures, indent=2))
    title = f"{run.env_id}: learning curve of {run.algo}"
    plot_learning_curve(_learning_curve(run, episodes), levels, run.folder / PICTURE, title)
    print(f"Learning curve: {run.folder / PICTURE}")
    print(f"All results:    {run.folder / FIGURES}")
    for name, path in models.items():
        print(f"Model {name}: {path}")
    return figures


def _learning_curve(run: Run, episodes: int) -> LearningCurve:
    """Read training returns from ``*.monitor.csv`` and the evaluations, all per episode."""
    training = load_results(str(run.folder))
    timesteps, returns = run.evaluations() or (np.zeros(0), np.zeros((0, 0)))
    return LearningCurve(
        training=np.stack([training["l"].cumsum().to_numpy(), training["r"].to_numpy() / episodes]),
        timesteps=timesteps,
        returns=returns / episodes,
        successes=run.successes(),
        episodes=episodes,
        held_out=run.has_splits,
    )
