"""The report of a run: returns on held-out tasks before and after training, and a plot of the learning curve."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rl_zoo3 import create_test_env, get_saved_hyperparams
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from tqdm import tqdm

from sb3_trmrl.analysis.learning_curve import LearningCurve, plot_learning_curve
from sb3_trmrl.evaluation.trials import Trials, episodes_per_trial
from sb3_trmrl.trials.held_out import evaluation_seed, share_tasks
from sb3_trmrl.zoo.runs import Run, load_model

#: Files of a report, in the folder of the run
FIGURES = "report.json"
PICTURE = "learning_curve.png"
_BEFORE = "before training"


class _Tested(NamedTuple):
    """Results of a model in T test trials of E episodes."""

    returns: np.ndarray  # unnormalised, (T, E)
    successes: np.ndarray  # (T, E), or empty


def _models(run: Run) -> dict[str, Path]:
    """Return the existing models to compare, by their name in the report."""
    candidates = {
        _BEFORE: run.initial_model,
        "best on validation": run.best_model,
        "at the end of training": run.last_model,
    }
    return {name: path for name, path in candidates.items() if path is not None}


def _test_env(run: Run, model: Path) -> VecEnv:
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
            env_kwargs={**run.env_kwargs, **split},
            vec_env_cls=DummyVecEnv,
        )
    if run.has_splits:
        return share_tasks(env)
    if (
        episodes_per_trial(run.env_id, run.env_kwargs) is not None
    ):  # the same tasks as `evaluate`, whatever the seed of training was
        tasks = Trials(run.env_id, run.n_test_tasks, split="test", env_kwargs=run.env_kwargs).tasks
        for index, task in enumerate(tasks):
            env.env_method("set_wrapper_attr", "tasks", (task,), indices=index)
    return env


def _test(run: Run, name: str, path: Path) -> _Tested:
    """Play one trial on each test task; without trials, one episode is a trial."""
    returns: list[tuple[float, ...]] = []
    successes: list[tuple[bool, ...]] = []
    with tqdm(desc=name, unit=" steps", leave=False) as bar:

        def remember(locals_: dict[str, Any], _: dict[str, Any]) -> None:
            bar.update()
            info = locals_["info"]
            if locals_["done"] and "episode_returns" in info:
                returns.append(info["episode_returns"])
                if "episode_successes" in info:
                    successes.append(info["episode_successes"])

        env = _test_env(run, path)
        try:
            if name == _BEFORE and isinstance(env, VecNormalize) and env.norm_obs:
                # The statistics in the folder are those of training
                env.obs_rms = VecNormalize(env.venv, norm_obs_keys=env.norm_obs_keys).obs_rms
            model = load_model(run.algo, path)
            totals, _ = evaluate_policy(
                model, env, env.num_envs, deterministic=True, callback=remember, return_episode_rewards=True
            )
        finally:
            env.close()
    by_episode = np.array(returns, dtype=np.float64) if returns else np.array(totals, dtype=np.float64)[:, None]
    known = np.array(successes, dtype=bool) if successes else np.zeros((0, 0), dtype=bool)
    return _Tested(by_episode, known)


def write_report(folder: str | Path) -> dict[str, Any]:
    """Evaluate the models of a run; print the results, write them into its folder, and return the figures."""
    # Only this folder is read, so interrupted runs have a report too. Environments without tasks are evaluated in 20
    # episodes with seeds that training does not use
    run = Run(folder)
    models = _models(run)
    if not models:
        raise FileNotFoundError(f"{str(folder)!r} holds no model to report on")
    episodes = episodes_per_trial(run.env_id, run.env_kwargs)
    rows = ["episode"] if episodes is None else ["first episode"]
    if episodes is not None and episodes > 1:
        rows.append(f"mean of all {episodes} episodes of a trial")

    figures: dict[str, Any] = {"env": run.env_id, "algo": run.algo, "held_out_tasks": run.has_splits}
    figures |= {"returns": {name: {} for name in models}, "models": {name: str(path) for name, path in models.items()}}
    figures["validation"] = _validation(run)
    levels: dict[str, float] = {}
    subject = "episodes with separate seeds" if episodes is None else "test tasks"
    print(f"\nReturns on {run.n_test_tasks} {subject}, deterministic actions, mean +- standard error:", flush=True)
    for name, path in models.items():
        tested = _test(run, name, path)
        for row in rows:
            # A trial's episodes are averaged, so that all rows have the same scale
            n_episodes = 1 if row == rows[0] else tested.returns.shape[1]
            returns, successes = tested.returns[:, :n_episodes].mean(axis=1), tested.successes[:, :n_episodes]
            mean, error = float(np.mean(returns)), float(np.std(returns, ddof=1) / np.sqrt(len(returns)))
            entry = {"mean": mean, "standard_error": error, "each": returns.tolist()}
            # One decimal, more if the returns of an environment are small
            decimals = 1 if max(abs(mean), error) >= 10 else 3
            line = f"  {name + ', ' + row:<60}{mean:10.{decimals}f} +- {error:.{decimals}f}"
            if successes.size:
                entry["success_rates"] = successes.mean(axis=0).tolist()
                line += f", success {successes.mean():.0%}"
            figures["returns"][name][row] = entry
            print(line, flush=True)
            if row == rows[-1]:  # the quantity of the learning curve
                levels[f"test: {name} ({mean:.{decimals - 1}f} ± {error:.{decimals - 1}f})"] = mean

    (run.folder / FIGURES).write_text(json.dumps(figures, indent=2))
    title = f"{run.env_id}: learning curve of {run.algo}"
    plot_learning_curve(_learning_curve(run, episodes or 1), levels, run.folder / PICTURE, title)
    print(_in_words(figures["validation"]))
    print(f"Learning curve: {run.folder / PICTURE}")
    print(f"All results:    {run.folder / FIGURES}")
    for name, path in models.items():
        print(f"Model {name}: {path}")
    return figures


def _validation(run: Run) -> dict[str, int] | None:
    """Return how often the run was evaluated, and the steps of the first, last and best evaluation."""
    timesteps, returns = run.evaluations() or (np.zeros(0), np.zeros((0, 0)))
    if not len(timesteps):
        return None
    best = int(np.argmax(returns.mean(axis=1)))
    steps = {"first": timesteps[0], "last": timesteps[-1], "best": timesteps[best]}
    return {"evaluations": len(timesteps), **{name: int(step) for name, step in steps.items()}}


def _in_words(validation: dict[str, int] | None) -> str:
    if validation is None:
        return "Validation: no evaluation, so there is no best model (the first one is after --eval-freq steps)"
    return (
        f"Validation: {validation['evaluations']} evaluation(s), first at step {validation['first']:,}, last at step "
        f"{validation['last']:,}, best at step {validation['best']:,}"
    )


def _learning_curve(run: Run, episodes: int) -> LearningCurve:
    """Read training returns from ``*.monitor.csv`` and the evaluations, all per episode."""
    training = load_results(str(run.folder))
    timesteps, returns = run.returns_per_episode() or (np.zeros(0), np.zeros((0, 0)))
    return LearningCurve(
        training=np.stack([training["l"].cumsum().to_numpy(), training["r"].to_numpy() / episodes]),
        timesteps=timesteps,
        returns=returns,
        successes=run.successes(),
        episodes=episodes,
        held_out=run.has_splits,
    )
