"""The report of a run: returns on held-out tasks before and after training, and the learning curve as a picture."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from rl_zoo3 import ALGOS, create_test_env, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl.analysis.learning_curve import LearningCurve, plot_learning_curve
from sb3_trmrl.trials.held_out import evaluation_seed, share_tasks
from sb3_trmrl.zoo.runs import INITIAL_MODEL, Run, file_errors

#: Files of a report, in the folder of the run
FIGURES = "report.json"
PICTURE = "learning_curve.png"


def _models(run: Run) -> dict[str, Path]:
    """
    :param run: The run
    :return: The models to compare by what they are called, those that exist
    """
    initial = run.folder / INITIAL_MODEL
    trained = {"best on validation": run.best_model} if run.best_model else {"at the end of training": run.last_model}
    candidates = {"before training": initial if initial.is_file() else None, **trained}
    return {name: path for name, path in candidates.items() if path is not None}


def _test_env(run: Run, model: Path, **env_kwargs: Any) -> VecEnv:
    """
    :param run: The run
    :param model: Zip of the model to be tested, with whose statistics VecNormalize acts, if it is used
    :param env_kwargs: On top of those of the run
    :return: As many copies as there are test tasks, one task each; without splits, copies with their own seeds
    """
    hyperparams, stats_path = get_saved_hyperparams(str(run.stats_path), test_mode=True)
    split = {"split": "test"} if run.has_splits else {}
    statistics = run.statistics_of(model)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where statistics come from, between the figures
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


def _test(run: Run, path: Path, before_training: bool, **env_kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    :param run: The run
    :param path: Zip of the model
    :param before_training: Whether statistics of VecNormalize, if any, are to be left out: they are those of training
    :param env_kwargs: Further arguments of the environment
    :return: Return of one episode (trial) on each test task, deterministic actions, not normalised, (tasks,); and
        whether there was success in each of its episodes, (tasks, episodes), empty where the environment does not tell
    """
    successes = []

    def remember_success(locals_: dict[str, Any], _: dict[str, Any]) -> None:
        if locals_["done"] and "episode_successes" in locals_["info"]:
            successes.append(locals_["info"]["episode_successes"])

    env = _test_env(run, path, **env_kwargs)
    try:
        if before_training and isinstance(env, VecNormalize) and env.norm_obs:
            fresh = VecNormalize(env.venv, norm_obs_keys=env.norm_obs_keys)
            env.obs_rms = fresh.obs_rms
        # Optimiser and buffers are not needed, and schedules may be of a class that is gone.
        custom_objects = {"learning_rate": 0.0, "clip_range": 0.0}
        with file_errors(path, f"a model of {run.algo}"):
            model: BaseAlgorithm = ALGOS[run.algo].load(path, device="cpu", custom_objects=custom_objects)
        returns, _ = evaluate_policy(
            model, env, env.num_envs, deterministic=True, callback=remember_success, return_episode_rewards=True
        )
        return np.array(returns, dtype=np.float64), np.array(successes, dtype=bool)
    finally:
        env.close()


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """
    :param values: Returns
    :return: Mean and its standard error
    """
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def write_report(folder: str | Path) -> dict[str, Any]:
    """
    Evaluate the models of a run on each test task (deterministic actions), print the mean returns with their
    standard errors, and write them and the learning curve into the folder of the run. Everything is read from that
    folder, so it also works for a run that was interrupted. Environments without held-out tasks get 20 episodes of
    seeds not used in training.

    :param folder: Folder of the run
    :return: What ``report.json`` holds
    :raises FileNotFoundError: if the folder is not that of a run, or holds no model
    """
    run = Run(folder)
    models = _models(run)
    if not models:
        raise FileNotFoundError(f"{str(folder)!r} holds no model to report on")
    # The first episode is the headline; for the whole trial, the mean over its episodes has the same scale.
    episodes = 1
    if run.has_splits:
        env = _test_env(run, next(iter(models.values())))
        episodes = env.get_attr("episodes_per_trial", indices=0)[0]
        env.close()
    rows: dict[str, dict[str, Any]] = {"first episode" if run.has_splits else "episode": {"episodes_per_trial": 1}}
    if episodes > 1:
        rows[f"mean of all {episodes} episodes of a trial"] = {"episodes_per_trial": episodes}

    figures: dict[str, Any] = {"env": run.env_id, "algo": run.algo, "held_out_tasks": run.has_splits}
    figures |= {"returns": {}, "models": {}}
    subject = "test tasks" if run.has_splits else "episodes with seeds of their own"
    print(f"\nReturns on {run.n_test_tasks} {subject}, deterministic actions, mean +- standard error:")
    for name, path in models.items():
        figures["models"][name] = str(path)
        for row, env_kwargs in rows.items():
            if not run.has_splits:
                env_kwargs = {}
            returns, successes = _test(run, path, name == "before training", **env_kwargs)
            returns /= env_kwargs.get("episodes_per_trial", 1)
            mean, error = _mean_and_error(returns)
            entry = {"mean": mean, "standard_error": error, "each": returns.tolist()}
            line = f"  {name + ', ' + row:<60}{mean:10.1f} +- {error:.1f}"
            if successes.size:
                entry["success_rates"] = successes.mean(axis=0).tolist()
                line += f", success {successes.mean():.0%}"
            figures["returns"].setdefault(name, {})[row] = entry
            print(line)

    (run.folder / FIGURES).write_text(json.dumps(figures, indent=2))
    rows_shown = {name: next(iter(rows.items())) for name, rows in figures["returns"].items()}
    levels = {
        f"test, {row}: {name} ({entry['mean']:.0f} ± {entry['standard_error']:.0f})": entry["mean"]
        for name, (row, entry) in rows_shown.items()
    }
    title = f"{run.algo} on {run.env_id}"
    plot_learning_curve(_learning_curve(run, episodes), levels, run.folder / PICTURE, title)
    print(f"Learning curve: {run.folder / PICTURE}")
    print(f"All figures:    {run.folder / FIGURES}")
    for name, path in models.items():
        print(f"Model {name}: {path}")
    return figures


def _learning_curve(run: Run, episodes: int) -> LearningCurve:
    """
    :param run: The run
    :param episodes: Episodes per trial; returns of trials are divided by it
    :return: Training returns from ``*.monitor.csv``, and the evaluations
    """
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
