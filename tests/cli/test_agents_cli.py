"""The commands about trained agents: evaluate, compare, render, and the arguments that all of them refuse."""

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
from matplotlib.figure import Figure
from PIL import Image
from rliable import library, metrics

import sb3_trmrl
from sb3_trmrl import load_agent
from sb3_trmrl.__main__ import main
from sb3_trmrl.analysis.adaptation import plot_adaptation
from sb3_trmrl.analysis.comparison import (
    Group,
    common_steps,
    interquartile_mean,
    plot_comparison,
    share_above,
    share_of_gap,
)
from sb3_trmrl.cli.render import film, make_trial
from sb3_trmrl.envs.bandit import BernoulliBanditEnv
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")
ENV = "BernoulliBandit-v0"
NORMALIZE = "normalize:dict(norm_obs=True,norm_reward=False)"
DEMO = str(Path(sb3_trmrl.__file__).parents[1] / "docs" / "demo" / "HalfCheetahVel-v0.safetensors")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: Any) -> Path:
    """
    :return: Log folder with two seeds of each of two algorithms, normalised
    """
    folder = tmp_path_factory.mktemp("logs")
    for algo in ("trmrl", "ppo_lstm"):
        for seed in ("0", "1"):
            arguments = [
                "--algo",
                algo,
                "--env",
                ENV,
                "-f",
                str(folder),
                "--seed",
                seed,
                "-n",
                "80",
                "--eval-freq",
                "40",
            ]
            params = [*TINY, NORMALIZE]
            assert main(["train", *arguments, "--env-kwargs", "episodes_per_trial:2", "-params", *params]) == 0
    return folder


@pytest.fixture
def killed(logs: Path, tmp_path: Path) -> Path:
    """
    :return: Folder of a run that came to no end: it has the best model only
    """
    run = tmp_path / f"{ENV}_1"
    shutil.copytree(logs / "trmrl" / f"{ENV}_1", run)
    (run / f"{ENV}.zip").unlink()
    return run


def error_of(arguments: list[str], capsys: Any) -> str:
    """
    :return: What the command says when it refuses its arguments, which it must
    """
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def is_drawn(path: Path) -> bool:
    """
    :return: Whether a picture has more than a background
    """
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_open_agent(logs: Path) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    best, last = open_agent(run), open_agent(run, last=True)
    assert best.env_id == ENV and best.env_kwargs == {"episodes_per_trial": 2}
    assert best.vec_normalize is not None and not best.vec_normalize.training
    assert last.model.num_timesteps == 80
    from_zip = open_agent(run / "best_model.zip")
    assert from_zip[1:3] == best[1:3]
    same = [
        evaluate_adaptation(agent.model, ENV, 5, 2, vec_normalize=agent.vec_normalize) for agent in (best, from_zip)
    ]
    assert np.array_equal(same[0].rewards, same[1].rewards)
    assert type(open_agent(logs / "ppo_lstm" / f"{ENV}_1").model).__name__ == "RecurrentPPO"


def test_the_last_model_is_not_replaced_by_the_best_one(killed: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{ENV}.zip, the model of the end of training, is missing"):
        open_agent(killed, last=True)
    assert open_agent(killed).model.num_timesteps > 0
    (killed / "best_model.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"best_model\.zip is missing"):
        open_agent(killed)


def test_open_agent_without_run(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes((logs / "trmrl" / f"{ENV}_1" / "best_model.zip").read_bytes())
    with pytest.raises(ValueError, match="env"):
        open_agent(tmp_path / "model.zip")
    assert open_agent(tmp_path / "model", env=ENV).vec_normalize is None


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_export(logs: Path, tmp_path: Path, capsys: Any) -> None:
    run, path = logs / "trmrl" / f"{ENV}_1", tmp_path / "agent.safetensors"
    assert main(["export", str(run), str(path)]) == 0
    assert f"Wrote {path}" in capsys.readouterr().out
    agent = load_agent(path)
    assert (agent.env_id, agent.env_kwargs) == (ENV, {"episodes_per_trial": 2})
    hyperparameters = agent.summary["hyperparameters"]
    # As the run was started, not what is put in their place when a zip is opened
    assert hyperparameters["n_envs"] == 2 and hyperparameters["normalize"]["norm_obs"] is True
    assert hyperparameters.get("learning_rate") != 0.0 and hyperparameters.get("clip_range") != 0.0
    arguments = ["--n-tasks", "6", "--n-episodes", "3"]
    for model, folder in ((run, tmp_path / "run"), (path, tmp_path / "exported")):
        assert main(["evaluate", str(model), *arguments, "--output", str(folder)]) == 0
        assert main(["analyze", "attention", str(model), "--n-episodes", "2", "--output", str(folder)]) == 0
    results = [AdaptationResult.load(file) for file in sorted(tmp_path.glob("*/adaptation*.npz"))]
    assert len(results) == 2 and np.array_equal(results[0].rewards, results[1].rewards)
    frames = [pd.read_csv(tmp_path / folder / "attention.csv") for folder in ("run", "exported")]
    assert frames[0].equals(frames[1])
    assert main(["export", str(run), str(tmp_path / "last"), "--last", "--env-kwargs", "n_arms:3"]) == 0
    last = load_agent(tmp_path / "last.safetensors")
    assert last.env_kwargs == {"episodes_per_trial": 2, "n_arms": 3} and last.summary["timesteps"] == 80
    assert last.observation_space == agent.observation_space


def test_export_of_other_algorithms_and_damaged_files(logs: Path, tmp_path: Path, capsys: Any) -> None:
    run, path = str(logs / "ppo_lstm" / f"{ENV}_1"), tmp_path / "agent.safetensors"
    assert "must hold a TransformerPPO, got RecurrentPPO" in error_of(["export", run, str(path)], capsys)
    path.write_bytes(Path(DEMO).read_bytes()[:-1])
    assert f"{path} cannot be loaded as an agent" in error_of(["evaluate", str(path)], capsys)


def test_evaluate(logs: Path, tmp_path: Path, capsys: Any) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="rich is experimental")
        arguments = ["--n-tasks", "6", "--n-episodes", "3", "--output", str(tmp_path), "--sampled"]
        assert main(["evaluate", str(run), *arguments]) == 0
    result = AdaptationResult.load(tmp_path / "adaptation_test_sampled.npz")
    assert result.returns.shape == (6, 3) and not result.deterministic
    frame = pd.read_csv(tmp_path / "adaptation_test_sampled.csv")
    assert np.allclose(frame["return"].to_numpy().reshape(6, 3), result.returns)
    assert is_drawn(tmp_path / "adaptation_test_sampled.png")
    printed = capsys.readouterr().out
    assert "95 % interval over tasks" in printed and f"{result.mean_returns[2]:.2f}" in printed


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_files_of_evaluate_say_what_is_not_the_default(logs: Path, tmp_path: Path) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    few = ["--n-tasks", "1", "--n-episodes", "1", "--output", str(tmp_path)]
    options = {
        "": [],
        "_last": ["--last"],
        "_seed=1": ["--seed", "1"],
        "_n_pulls=3": ["--env-kwargs", "n_pulls:3"],
        "_last_sampled": ["--last", "--sampled"],
    }
    for arguments in options.values():
        assert main(["evaluate", str(run), *arguments, *few]) == 0
    assert main(["evaluate", str(run / f"{ENV}.zip"), *few]) == 0
    names = {f"adaptation_test{suffix}" for suffix in [*options, f"_{ENV}"]}
    assert {path.stem for path in tmp_path.iterdir()} == names
    assert len(list(tmp_path.iterdir())) == 3 * len(names)


def test_the_progress_bar_moves(logs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen = []

    def spied(*args: Any, after_task: Any, **kwargs: Any) -> AdaptationResult:
        return evaluate_adaptation(*args, after_task=lambda done: (seen.append(done), after_task(done)), **kwargs)

    monkeypatch.setattr("sb3_trmrl.cli.options.evaluate_adaptation", spied)
    arguments = ["--n-tasks", "25", "--n-episodes", "1", "--output", str(tmp_path)]
    assert main(["evaluate", str(logs / "trmrl" / f"{ENV}_1"), *arguments]) == 0
    assert seen == [10, 20, 25]


@pytest.mark.usefixtures("few_goals")
def test_metaworlds_protocol(tmp_path: Path, capsys: Any) -> None:
    env, kwargs = "MetaWorldML1-v0", {"horizon": 5}
    run = train(
        tmp_path, "-n", "40", "--eval-freq", "40", "--env-kwargs", "horizon:5", params=[*TINY, NORMALIZE], env=env
    )
    arguments = ["--protocol", "metaworld", "--n-tasks", "2", "--n-episodes", "5"]
    assert main(["evaluate", str(run), *arguments]) == 0
    frame = pd.read_csv(run / "metaworld_protocol_test.csv")
    agent = open_agent(run)
    result = evaluate_adaptation(agent.model, env, 2, 5, env_kwargs=kwargs, vec_normalize=agent.vec_normalize)
    assert result.successes is not None and not result.successes.any()  # or returns would end with success
    assert list(frame["class"]) == [result.tasks[0].name, "mean of classes"]
    assert frame["return"].to_numpy() == pytest.approx(result.returns[:, 2:].mean(), rel=1e-4)
    assert (frame["success"] == 0).all() and "last 3 of 5 episodes" in " ".join(capsys.readouterr().out.split())
    assert "--n-episodes must be above 3" in error_of(["evaluate", str(run), *arguments[:-1], "3"], capsys)


def test_compare(logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"TrMRL={logs}/trmrl/{ENV}_*", f"RL2={logs}/ppo_lstm/{ENV}_*"]
    arguments = ["--lower", "RL2", "--oracle", "TrMRL", "--n-tasks", "5", "--n-episodes", "2"]
    assert main(["compare", *agents, *arguments, "--output", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "comparison.csv", index_col=0)
    assert list(frame.index) == ["TrMRL", "RL2"] and list(frame["seeds"]) == [2, 2]
    by_hand = []
    for number in (1, 2):
        agent = open_agent(logs / "ppo_lstm" / f"{ENV}_{number}")
        result = evaluate_adaptation(
            agent.model, ENV, 5, 2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
        )
        by_hand.append(result.returns[:, -1].mean())
    assert frame.loc["RL2", "last episode"] == pytest.approx(np.mean(by_hand))
    assert list(frame["share of gap"]) == [1.0, 0.0]  # exactly, so without an interval
    assert frame[["share of gap, low", "share of gap, high"]].isna().all(axis=None)
    assert is_drawn(tmp_path / "comparison.png")
    assert not [name for name in frame.columns if "success" in name]  # bandits do not tell
    printed = capsys.readouterr().out
    assert "interval over seeds" in " ".join(printed.split()) and "from step 40 to step 80" in printed


def test_three_agents_fit_into_80_characters(logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"{name}={logs}/{algo}/{ENV}_*" for name, algo in (("a", "trmrl"), ("b", "ppo_lstm"), ("c", "trmrl"))]
    assert main(["compare", *agents, "--n-tasks", "3", "--n-episodes", "1", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┃│" and line]
    assert max(map(len, table)) <= 80 and not any("…" in line for line in table)
    (head,) = [line for line in table if line.startswith("┃")]
    assert head.replace("┃", " ").split() == ["a", "b", "c"]
    (seeds,) = [line for line in table if "seeds" in line]
    assert seeds.replace("│", " ").split() == ["seeds", "2", "2", "2"]


def test_compare_a_run_without_its_last_model(killed: Path, logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"killed={killed}", f"whole={logs}/trmrl/{ENV}_1"]
    assert main(["compare", *agents, "--n-tasks", "5", "--n-episodes", "1", "--output", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "comparison.csv", index_col="agent")
    assert frame.loc["killed", "last episode"] == frame.loc["whole", "last episode"]
    of_last = [name for name in frame.columns if "last model" in name and not name.endswith(("low", "high"))]
    assert len(of_last) == 2
    assert frame.loc["killed", of_last].isna().all() and frame.loc["whole", of_last].notna().all()
    assert "│ - │" in " ".join(capsys.readouterr().out.split())


def test_compare_has_success_rates(tmp_path: Path, monkeypatch: Any) -> None:
    def step(env: BernoulliBanditEnv, action: Any) -> Any:
        *rest, info = own_step(env, action)
        return *rest, {**info, "is_success": rest[1] > 0}

    own_step = BernoulliBanditEnv.step
    monkeypatch.setattr(BernoulliBanditEnv, "step", step)
    run = train(tmp_path, "-n", "80", "--eval-freq", "40")
    options = ["--n-tasks", "6", "--n-episodes", "2", "--split", "validation", "--env-kwargs", "n_pulls:2"]
    assert main(["compare", f"TrMRL={run}", *options, "--output", str(tmp_path / "out")]) == 0
    row = pd.read_csv(tmp_path / "out" / "comparison.csv", index_col="agent").loc["TrMRL"]
    result = evaluate_adaptation(open_agent(run).model, ENV, 6, 2, env_kwargs={"n_pulls": 2}, split="validation")
    assert result.success_rates is not None and (result.success_rates > 0).all()
    assert [row["success, first episode"], row["success, last episode"]] == pytest.approx(list(result.success_rates))
    assert row["last episode"] == pytest.approx(result.mean_returns[1])
    picture = Image.open(tmp_path / "out" / "comparison.png")
    assert picture.width == 4 * picture.height  # a panel more


def test_compare_needs_one_environment(logs: Path, capsys: Any, tmp_path: Path) -> None:
    cheetah = tmp_path / "HalfCheetahVel-v0_1"
    shutil.copytree(logs / "trmrl" / f"{ENV}_1", cheetah)
    settings = cheetah / ENV / "args.yml"
    settings.write_text(settings.read_text().replace(ENV, "HalfCheetahVel-v0"))
    error = error_of(["compare", f"A={logs}/trmrl/*_1", f"B={cheetah}"], capsys)
    assert f"{logs}/trmrl/{ENV}_1 has {ENV}, {cheetah} has HalfCheetahVel-v0" in error


def test_compare_needs_the_same_tasks(logs: Path, tmp_path: Path, capsys: Any) -> None:
    of_three_arms = tmp_path / f"{ENV}_9"
    shutil.copytree(logs / "trmrl" / f"{ENV}_1", of_three_arms)
    arguments = of_three_arms / ENV / "args.yml"
    text = arguments.read_text()
    arguments.write_text(text.replace("episodes_per_trial: 2", "n_arms: 3"))
    assert arguments.read_text() != text
    error = error_of(["compare", f"A={logs}/trmrl/{ENV}_1", f"B={of_three_arms}"], capsys)
    assert f"{logs}/trmrl/{ENV}_1 and {of_three_arms} have others" in error


def test_analyze_names_its_files_and_intervals(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--n-tasks", "2", "--env-kwargs", "horizon:10", "--output", str(tmp_path)]
    assert main(["analyze", "online", DEMO, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "95 % bootstrap interval over tasks" in " ".join(printed.split())
    files = {Path(name) for name in printed.split("Wrote ")[1].strip().split(", ")}
    assert files == set(tmp_path.iterdir()) and len(files) == 3


def test_interquartile_mean_over_runs() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 3))
    middle, interval = interquartile_mean(scores)
    for column in range(3):
        assert middle[column] == pytest.approx(np.sort(scores[:, column])[2:6].mean())
        assert middle[column] == pytest.approx(metrics.aggregate_iqm(scores[:, [column]]))
    assert (interval[0] < middle).all() and (middle < interval[1]).all()
    assert np.isnan(interquartile_mean(scores[:1])[1]).all()


def test_intervals_are_reproducible_and_leave_numpys_generator_alone() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 3))
    before = np.random.get_state()[1].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = interquartile_mean(scores), interquartile_mean(scores)
    assert np.array_equal(first[1], second[1]) and before == np.random.get_state()[1].tolist()


def test_the_profile_shows_a_run_that_fails() -> None:
    returns = np.ones((5, 4))
    returns[2] = -1.0
    shares, (low, high) = share_above(returns, np.array([-2.0, 0.0, 2.0]))
    assert shares == pytest.approx([1.0, 0.8, 0.0])
    # Of 5 runs drawn with 0.8 each, 95 % hold 2 to 5
    assert (low[1], high[1]) == pytest.approx((0.4, 1.0))
    assert np.isnan(share_above(returns[:1], np.array([0.0]))[1]).all()


def test_the_profile_is_rliables() -> None:
    returns, thresholds = np.random.default_rng(0).normal(size=(6, 7)), np.linspace(-2, 2, 9)
    expected = [library.run_score_deviation(returns, threshold) for threshold in thresholds]
    assert share_above(returns, thresholds)[0] == pytest.approx(expected)


def test_share_of_gap() -> None:
    rng = np.random.default_rng(0)
    of_task = rng.normal(scale=5.0, size=20)  # common to all agents, so it cancels
    lower, agent, upper = (level + of_task + rng.normal(scale=0.1, size=(3, 20)) for level in (-100.0, -40.0, -20.0))
    share, (low, high) = share_of_gap(agent, lower, upper)
    assert share == pytest.approx(0.75, abs=0.005)
    assert str(share_of_gap(upper, upper, lower)[0]) == "0.0"
    same = np.ones((2, 3))
    assert np.isnan(share_of_gap(same, same, same)[0])
    assert low < share < high and high - low < 0.01
    with pytest.raises(ValueError, match="same tasks"):
        share_of_gap(agent[:, :5], lower, upper)


def test_area_under_curve() -> None:
    steps = np.array([0, 10, 30])
    group = Group(steps, np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]), {})
    assert group.areas() == pytest.approx([(5 + 20) / 30, 2.0])
    once = Group(np.array([7]), np.array([[3.0], [4.0]]), {})  # one evaluation: no length to go over
    assert once.areas().tolist() == [3.0, 4.0]


def test_areas_go_over_what_all_agents_reached() -> None:
    def line(*steps: float) -> Group:
        return Group(np.array(steps), np.array([steps]), {})  # return = step

    groups = [line(10.0, 25.0, 40.0), line(0.0, 15.0, 30.0, 100.0), line(5.0, 32.0)]
    first, last = common_steps(groups)
    assert (first, last) == (10.0, 32.0)
    for group in groups:
        assert group.between(first, last).areas() == pytest.approx([21.0])
    with pytest.raises(ValueError, match=r"starts at 50.0, one ends at 32.0"):
        common_steps([*groups, line(50.0, 60.0)])


def test_one_episode_has_one_tick(tmp_path: Path, monkeypatch: Any) -> None:
    result = AdaptationResult("Env-v0", [0.0, 1.0, 2.0], np.arange(6.0).reshape(3, 1, 2))
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plot_adaptation({"Env-v0": result}, tmp_path / "a.png")
    plot_comparison(
        {"A": Group(np.array([1.0]), np.ones((1, 1)), {"selected": [result]})}, tmp_path / "b.png", "Env-v0"
    )
    for axes in (figures[0].axes[0], figures[1].axes[1]):
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


@pytest.mark.parametrize("env", [ENV, "HalfCheetahVel-v0"])
def test_render(env: str, tmp_path: Path, logs: Path) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    video = tmp_path / "trial.mp4"
    if env != ENV:
        arguments = ["-f", str(tmp_path), "-n", "40", "--env-kwargs", "horizon:10", "--eval-freq", "40"]
        assert main(["train", "--env", env, *arguments, "-params", *TINY]) == 0
        run = tmp_path / "trmrl" / f"{env}_1"
    assert main(["render", str(run), "--output", str(video), "--task", "3", "--n-episodes", "2"]) == 0
    assert video.stat().st_size > 1_000
    from moviepy import VideoFileClip

    with VideoFileClip(str(video)) as clip:
        assert clip.get_frame(0).std() > 1.0
        assert round(clip.duration * clip.fps) == 20


def test_render_without_trials(tmp_path: Path, capsys: Any) -> None:
    """One episode, whose reward is 1 at each step; there is no task to speak of."""
    arguments = ["-f", str(tmp_path), "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0"]
    assert main(["train", "--env", "InvertedPendulum-v5", *arguments, "-params", *TINY]) == 0
    run, video = str(tmp_path / "trmrl" / "InvertedPendulum-v5_1"), tmp_path / "episode.mp4"
    assert main(["render", run, "--output", str(video)]) == 0
    agent = open_agent(run)
    env, seed = make_trial(agent, 0, 1, 0)
    texts = [text for _, text in film(agent, env, seed, True)]
    env.close()
    assert texts == [f"episode 1   return {step:.1f}" for step in range(len(texts))]
    assert f"{len(texts)} frames" in capsys.readouterr().out


class Recorder(gym.Wrapper):
    """Keeps rewards."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.rewards: list[float] = []

    def step(self, action: Any) -> Any:
        step = super().step(action)
        self.rewards.append(float(step[1]))
        return step


def test_render_shows_a_trial_of_the_evaluation() -> None:
    kwargs = {"horizon": 10}
    agent = open_agent(DEMO, env_kwargs=kwargs)
    result = evaluate_adaptation(
        agent.model, agent.env_id, n_eval_episodes=2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
    )
    for task in (3, 19):
        env, seed = make_trial(agent, task, 2, 0)
        recorder = Recorder(env)
        texts = [text for _, text in film(agent, recorder, seed, True)]
        env.close()
        assert texts[0].startswith(f"task {result.tasks[task]:.2f}\n")
        assert recorder.rewards == pytest.approx(result.rewards[task].ravel(), rel=1e-3)


def test_sampled_actions_of_a_video_are_seeded(logs: Path, tmp_path: Path) -> None:
    videos = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        th.manual_seed(len(videos))
        path = tmp_path / f"{name}.webm"
        arguments = ["--sampled", "--seed", str(seed), "--n-episodes", "4", "--output", str(path)]
        assert main(["render", str(logs / "trmrl" / f"{ENV}_1"), *arguments]) == 0
        videos.append(path)
    from moviepy import VideoFileClip

    frames = []
    for path in videos:
        with VideoFileClip(str(path)) as clip:
            frames.append([frame.copy() for frame in clip.iter_frames()])
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_evaluate_imports_the_module_that_registers_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of `--gym-packages` is evaluated by a process that has not imported them yet."""
    module, env_id = "early_end_family", "EarlyEnd-v0"
    (tmp_path / f"{module}.py").write_text(
        "import gymnasium as gym\nfrom tests.helpers.families import early_end\n"
        f"gym.register(id={env_id!r}, entry_point=early_end)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = train(
        tmp_path / "logs", "--gym-packages", module, "--algo", "trmrl", "-n", "40", "--eval-freq", "-1", env=env_id
    )
    monkeypatch.delitem(gym.registry, env_id)
    monkeypatch.delitem(sys.modules, module)
    assert main(["evaluate", str(run), "--n-tasks", "3", "--n-episodes", "2"]) == 0
    assert AdaptationResult.load(run / "adaptation_test.npz").returns.shape == (3, 2)
