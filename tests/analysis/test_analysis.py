"""The paper's analyses: known answers, and pictures and tables of a small untrained agent."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.text import Text
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.__main__ import main
from sb3_trmrl.analysis.attention import attention_map, plot_attention
from sb3_trmrl.analysis.consensus import FORMS, Consensus, bayes_risks, consensus, plot_consensus
from sb3_trmrl.analysis.figures import task_label
from sb3_trmrl.analysis.online import online_adaptation, plot_online_adaptation, plot_targets
from sb3_trmrl.analysis.refinement import measure_refinement, plot_refinement, refinement
from sb3_trmrl.analysis.traces import TracedSteps, traced_steps
from sb3_trmrl.analysis.working_memories import plot_working_memories, project_memories, working_memories
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult, bootstrap_interval
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.memory.encoder import EncoderTrace
from sb3_trmrl.memory.working_memory import map_tokens
from tests.helpers.agents import tiny_model
from tests.helpers.zoo import assert_picture, error_of

ENV = "GridNavi-v0"
#: 7 steps are enough for the traces
ENV_KWARGS = {"horizon": 7}
MEMORIES = {
    "window": dict(context_length=4),
    "window, one token": dict(context_length=1),
    "window, learned positions, pre-norm": dict(memory="window", positional_encoding="learned", layer_norm="pre"),
    "window, over episodes": dict(memory="window", reset_memory_on="trial"),
    "full, narrow band": dict(memory="full", context_length=3, reset_memory_on="trial"),
    "full, sinusoids beyond the band": dict(memory="full", context_length=5, positional_encoding="sinusoidal"),
}


@pytest.fixture(scope="module")
def make_model() -> Any:
    def make(**policy_kwargs: Any) -> Any:
        kwargs = {"n_layers": 2, **policy_kwargs}
        return tiny_model(gym.make(ENV, **ENV_KWARGS), kwargs)

    return make


@pytest.fixture(scope="module")
def model(make_model: Any) -> Any:
    return make_model()


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials(ENV, n_tasks=3, n_episodes=2, env_kwargs=ENV_KWARGS)


@pytest.fixture
def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All texts in the pictures of a test"""
    texts, draw = set(), Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, renderer: texts.add(self.get_text()) or draw(self, renderer))
    return texts


def traced(attention: np.ndarray, values: Any = None, slots: Any = None, **kwargs: Any) -> TracedSteps:
    """Return steps of one task with these attention weights, (B, H, N, N), read at the newest slot."""
    n_windows, _, n_slots, _ = attention.shape
    trace = EncoderTrace([], [th.as_tensor(attention)], [] if values is None else [th.as_tensor(values)])
    fields = dict(
        rows=np.arange(n_windows),
        slots=np.full(n_windows, n_slots - 1) if slots is None else np.array(slots),
        tasks=np.zeros(n_windows, dtype=int),
        episodes=np.zeros(n_windows, dtype=int),
        numbers=np.arange(n_windows),
        actions=np.zeros((n_windows, 1)),
    )
    return TracedSteps(trace, **{**fields, **kwargs})


# --- traces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_kwargs", MEMORIES.values(), ids=MEMORIES.keys())
def test_the_trace_is_what_the_agent_acted_on(make_model: Any, policy_kwargs: dict[str, Any]) -> None:
    """As in a loop over `predict` with single environments: actions, and the memory that the policy head reads."""
    agent = make_model(**policy_kwargs)
    trials = Trials(ENV, n_tasks=3, n_episodes=2, env_kwargs=ENV_KWARGS)
    found = {}
    for steps in traced_steps(agent, trials):
        for i, memories in enumerate(steps.memories()):
            found[steps.tasks[i], steps.numbers[i]] = (memories, steps.actions[i], steps.episodes[i])
    assert len(found) == 3 * 2 * 7
    policy = agent.policy
    for index, task in enumerate(trials.tasks):
        env = trials.make()
        observation, _ = env.reset(seed=trials.seed_of_split + index, options={"task": task})
        state, start, number, episode, over = None, np.array([True]), 0, 0, False
        while not over:
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            action, state = policy.predict(batch, state, start, deterministic=True)
            memories, traced_action, traced_episode = found.pop((index, number))
            with th.no_grad():
                read = policy.extract_features(state.to("cpu"), policy.pi_features_extractor)[0]
                token = map_tokens(th.as_tensor, batch)
                extractor = policy.pi_features_extractor
                phi = extractor.working_memories(token)[0]
            np.testing.assert_allclose(memories[-1], read, atol=2e-5)
            np.testing.assert_allclose(memories[0], phi, atol=1e-5)
            assert traced_action.argmax() == action[0] and traced_action.sum() == 1
            assert traced_episode == episode
            observation, _, terminated, truncated, info = env.step(action[0])
            start, over = np.array([False]), terminated or truncated
            number, episode = number + 1, info["episode_index"]
        env.close()
    assert not found


def test_values_weighed_by_attention_make_the_next_memory(make_model: Any) -> None:
    """Equation 5 and the residuals, for each layer: memory + W_o concat(alpha v), then the position-wise network."""
    agent = make_model(positional_encoding="none")
    for steps in traced_steps(agent, Trials(ENV, n_tasks=2, env_kwargs=ENV_KWARGS)):
        for layer, (before, alpha, v, after) in enumerate(
            zip(steps.trace.memories, steps.trace.attention, steps.trace.values, steps.trace.memories[1:], strict=False)
        ):
            parts = agent.policy.pi_features_extractor.encoder.layers[layer]
            attended = sum(
                alpha[:, head] @ v[:, head] @ parts.attention.out.weight[:, 4 * head : 4 * head + 4].T
                for head in (0, 1)
            )
            with th.no_grad():
                x = before + attended + parts.attention.out.bias
                th.testing.assert_close(after, x + parts.feedforward(x), atol=1e-5, rtol=1e-5)


def test_tasks_one_by_one_are_the_same_as_together(model: Any, trials: Trials) -> None:
    def by_step(n_envs: int | None) -> dict[tuple[int, int], np.ndarray]:
        found = {}
        for steps in traced_steps(model, trials, n_envs=n_envs):
            for key in zip(steps.tasks, steps.numbers, steps.memories(), strict=True):
                found[key[:2]] = key[2]
        return found

    together, one_by_one = by_step(None), by_step(1)
    assert together.keys() == one_by_one.keys()
    for key, memories in together.items():
        np.testing.assert_allclose(memories, one_by_one[key], atol=1e-5)


def test_playing_leaves_the_random_generators_alone_and_samples_by_its_seed(model: Any) -> None:
    def actions(seed: int) -> np.ndarray:
        trials = Trials(ENV, n_tasks=2, seed=seed, env_kwargs=ENV_KWARGS)
        return np.concatenate([steps.actions for steps in traced_steps(model, trials, deterministic=False)])

    th.manual_seed(3)
    expected = th.rand(1)
    th.manual_seed(3)
    first = actions(0)
    assert th.rand(1) == expected
    np.testing.assert_array_equal(first, actions(0))
    assert (first != actions(1)).any()


def test_observations_are_normalised_as_in_training() -> None:
    venv = VecNormalize(DummyVecEnv([partial(gym.make, "SparsePointRobot-v0")]), norm_obs_keys=["observation"])
    venv.obs_rms["observation"].mean[:] = 5.0
    agent = tiny_model(venv)
    trials = Trials("SparsePointRobot-v0", n_tasks=1)
    (own, given, none) = (
        next(iter(traced_steps(agent, trials, vec_normalize=each))).memories()
        for each in (None, venv, VecNormalize(venv.venv, norm_obs=False))
    )
    np.testing.assert_array_equal(own, given)
    assert np.abs(own - none).max() > 0.1


def test_what_cannot_be_traced_is_refused(make_model: Any, trials: Trials) -> None:
    agent = make_model(memory="full")
    observation = {key: value[None] for key, value in trials.make().reset(seed=0)[0].items()}
    _, state = agent.predict(observation, episode_start=np.array([True]))
    with pytest.raises(TypeError, match="`memory` must be a WorkingMemory, got FullMemory"):
        agent.policy.trace(state)


# --- online adaptation --------------------------------------------------------------------------------------------


def result_with(rewards: Any, **infos: Any) -> AdaptationResult:
    rewards = np.asarray(rewards, dtype=float)
    return AdaptationResult("Env-v0", list(range(len(rewards))), rewards[:, None], infos=infos)


@pytest.mark.parametrize("time_constant", [2.0, 7.5, 20.0])
def test_adaptation_step_of_an_exponential(time_constant: float) -> None:
    """-exp(-t / tau) is within 5 % of the final level 0 after tau ln 20 steps."""
    rewards = np.tile(-np.exp(-np.arange(400) / time_constant), (4, 1))
    found = online_adaptation(result_with(rewards), window=1)
    assert found.final_level == pytest.approx(0, abs=1e-5)
    assert found.adapted_at == 1 + math.ceil(time_constant * math.log(20))
    np.testing.assert_allclose(found.means["reward"], rewards[0])


def test_adaptation_step_is_where_the_level_is_reached_for_good() -> None:
    rewards = np.array([0, 1, 1, 1, 0, 1, 1, 2, 1, 0.96, 1, 1], dtype=float)
    assert online_adaptation(result_with([rewards]), window=1).adapted_at == 6  # after the dip
    rewards[9] = 0.9
    assert online_adaptation(result_with([rewards]), window=1).adapted_at == 11
    rewards[:] = 1
    assert online_adaptation(result_with([rewards]), window=1).adapted_at is None  # no increase
    rewards[-4:] = (1, 1, 9, 0)
    assert online_adaptation(result_with([rewards]), window=1).adapted_at is None  # the last step is below
    # Only the first step is below the final level, and smoothing lifts it above
    assert online_adaptation(result_with([[0, 3, 3, 1, 1, 1, 1, 1]]), window=3).adapted_at == 1


def test_an_agent_without_adaptation_is_drawn(tmp_path: Path) -> None:
    found = online_adaptation(result_with(np.ones((3, 8))), window=1)
    plot_online_adaptation(found, tmp_path / "online.png")
    assert_picture(tmp_path / "online.png")


def test_smoothing_and_intervals_by_hand() -> None:
    rng = np.random.default_rng(0)
    rewards, speeds = rng.normal(size=(2, 6, 1, 9))
    rewards[2, 0, 7:] = speeds[2, 0, 7:] = np.nan  # an early end
    result = AdaptationResult("Env-v0", list(range(6)), rewards, infos={"x_velocity": speeds})
    found = online_adaptation(result, window=3)
    mean = np.nanmean(rewards[:, 0], axis=0)
    by_hand = [(mean[max(0, t - 1)] + mean[t] + mean[min(8, t + 1)]) / 3 for t in range(9)]
    np.testing.assert_allclose(found.smoothed[1:-1], by_hand[1:-1])
    np.testing.assert_allclose(found.smoothed[[0, -1]], [mean[:2].mean(), mean[-2:].mean()])
    np.testing.assert_allclose(found.means["x_velocity"], np.nanmean(speeds[:, 0], axis=0))
    np.testing.assert_allclose(found.intervals["reward"][:, 0], bootstrap_interval(rewards[:, 0, 0], 0.95, 0))
    rest = np.delete(rewards[:, 0, 8], 2)
    np.testing.assert_allclose(found.intervals["reward"][:, 8], bootstrap_interval(rest, 0.95, 0))
    assert (found.first_level, found.final_level) == pytest.approx((mean[0], mean[-2:].mean()))
    assert list(found.to_frame()["name"]) == ["reward"] * 9 + ["x_velocity"] * 9


def test_online_adaptation_takes_any_agent(tmp_path: Path) -> None:
    agent = PPO("MultiInputPolicy", gym.make("HalfCheetahVel-v0"), n_steps=8, batch_size=8)
    result = evaluate_adaptation(agent, "HalfCheetahVel-v0", 3, 1, env_kwargs={"horizon": 12}, info_keys=["x_velocity"])
    plot_online_adaptation(online_adaptation(result), tmp_path / "online.png", targets={"x_velocity": 1.5})
    assert_picture(tmp_path / "online.png")


def test_steps_of_episodes_that_end_early_average_over_the_others(tmp_path: Path, capsys: Any) -> None:
    rewards = np.full((3, 1, 4), np.nan)
    for task, length in enumerate((2, 4, 3)):
        rewards[task, 0, :length] = task
    found = online_adaptation(AdaptationResult("Env-v0", [0, 1, 2], rewards), window=1)
    assert found.n_running.tolist() == [3, 3, 2, 1]
    assert found.means["reward"].tolist() == [1, 1, 1.5, 1]
    assert found.to_frame()["n"].tolist() == [3, 3, 2, 1]
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0).save(tmp_path / "ppo.zip")
    arguments = [str(tmp_path / "ppo.zip"), "--env", "CartPole-v1", "--algo", "ppo", "--output", str(tmp_path)]
    assert main(["analyze", "online", *arguments, "--n-tasks", "3"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The episodes have different lengths" in printed and "column n" in printed


def test_pictures_tell_the_unit_of_tasks(tmp_path: Path, drawn_texts: set[str]) -> None:
    speeds = np.ones((3, 1, 12))
    result = AdaptationResult("Env-v0", [0.05, 1.5, 3.0], speeds, infos={"x_velocity": speeds, "height": speeds})
    plot_targets(result, "x_velocity", tmp_path / "targets.png")
    assert {"target 0.05 m/s", "target 3.00 m/s", "x velocity (m/s), mean of 11 steps"} <= drawn_texts
    plot_targets(result, "height", tmp_path / "targets.png")
    assert {"target 0.05", "height, mean of 11 steps"} <= drawn_texts
    found = online_adaptation(result)
    plot_online_adaptation(found, tmp_path / "online.png", targets={"x_velocity": 1.5})
    assert {"mean target, 1.50 m/s", "reward per step", "x velocity (m/s)", "height"} <= drawn_texts
    unit = Trials("HalfCheetahVel-v0", n_tasks=1, env_kwargs={"horizon": 1}).task_unit
    assert unit == "m/s" and Trials("HalfCheetahDir-v0", n_tasks=1, env_kwargs={"horizon": 1}).task_unit == ""
    points = np.random.default_rng(0).normal(size=(9, 4))
    seen = project_memories(points, np.arange(9) % 3, np.arange(9), result.tasks)
    plot_working_memories(seen, tmp_path / "memories.png")
    assert "task" in drawn_texts and "task (m/s)" not in drawn_texts
    plot_working_memories(seen, tmp_path / "memories.png", task_unit=unit)
    assert "task (m/s)" in drawn_texts


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (1.3456789, "1.35"),
        (np.float32(0.0), "0.00"),
        (0.00123456, "0.00123"),
        (3, "3"),
        ((0.123456, (2, 3.0)), "(0.12, (2, 3.00))"),
        (np.linspace(0, 1, 7), "(0.00, 0.17, 0.33, 0.50, 0.67, ...)"),
        ({"gravity": 9.81234, "mass": 1.0}, "gravity 9.81, mass 1.00"),
        ("w" * 99, "w" * 37 + "..."),
    ],
)
def test_labels_of_tasks_are_short(task: Any, label: str) -> None:
    assert task_label(task) == label
    assert task_label(task, "m/s") == f"{label} m/s"


def test_long_labels_of_tasks_are_not_cut_off(tmp_path: Path) -> None:
    """The picture grows with its legend."""
    widths = []
    points = np.random.default_rng(0).normal(size=(9, 4))
    for tasks in ([1, 2], [(0.123, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)]):
        plot_working_memories(project_memories(points, np.arange(9) % 2, np.arange(9), tasks), tmp_path / "a.png")
        widths.append(imread(tmp_path / "a.png").shape[1])
    assert widths[1] > widths[0] + 200


# --- refinement ---------------------------------------------------------------------------------------------------


def test_measure_refinement_memories_with_known_angles() -> None:
    """Orthogonal, at 45 degrees, longer in the same direction, and the last layer itself"""
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(5), 40)
    last = np.zeros((200, 6))
    last[:, :3] = rng.normal(size=(200, 3))
    across = np.roll(last, 3, axis=1)
    across *= (np.linalg.norm(last, axis=1) / np.linalg.norm(across, axis=1))[:, None]
    memories = np.stack([across, last + across, 7 * last, last], axis=1)
    actions = last[:, :3] @ rng.normal(size=(3, 2)) + [1.0, -2.0]
    found = measure_refinement(memories, actions, tasks, n_train_tasks=3)
    assert found.dissimilarity.shape == (5, 4) and found.action_error.shape == (2, 4)
    np.testing.assert_allclose(found.dissimilarity, np.tile([1, 1 - math.sqrt(0.5), 0, 0], (5, 1)), atol=1e-12)
    np.testing.assert_allclose(found.action_error, 0, atol=1e-20)  # the actions are linear in all layers


def test_regression_is_fitted_on_the_first_tasks_only() -> None:
    """Least squares with a constant by NumPy, on memories that determine only a part of the actions"""
    rng = np.random.default_rng(1)
    tasks = rng.permutation(np.repeat(np.arange(6), 30))
    memories = rng.normal(size=(180, 2, 3))
    actions = memories[:, 1, :1] * [[1.0, 2.0]] + rng.normal(size=(180, 2))
    found = measure_refinement(memories, actions, tasks, n_train_tasks=4)
    train = tasks < 4
    for layer in range(2):
        design = np.column_stack([memories[:, layer], np.ones(180)])
        weights, *_ = np.linalg.lstsq(design[train], actions[train], rcond=None)
        errors = ((design @ weights - actions) ** 2).mean(axis=1)
        np.testing.assert_allclose(found.action_error[:, layer], [errors[tasks == task].mean() for task in (4, 5)])
    constant = ((actions - actions[train].mean(axis=0)) ** 2).mean(axis=1)
    np.testing.assert_allclose(found.constant_error, [constant[tasks == task].mean() for task in (4, 5)])
    frame = found.to_frame()
    errors = frame[frame["measure"] == "action_error"]
    np.testing.assert_allclose(errors["mean"], found.action_error.mean(axis=0))
    np.testing.assert_allclose(errors[["low", "high"]], bootstrap_interval(found.action_error, 0.95, 0))


@pytest.mark.parametrize("n_train_tasks", [0, 3, 20])
def test_refinement_needs_tasks_to_train_and_to_test_on(n_train_tasks: int) -> None:
    with pytest.raises(ValueError, match=f"`n_train_tasks` must .*, got {n_train_tasks}"):
        measure_refinement(np.ones((6, 2, 3)), np.ones((6, 1)), np.repeat(np.arange(3), 2), n_train_tasks)


# --- working memories ---------------------------------------------------------------------------------------------


def test_components_of_a_known_plane() -> None:
    """Corners of a 6 x 2 rectangle in six dimensions: 9 to 1 of the variance, and the same distances"""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    corners = np.array([[3, 1], [3, -1], [-3, 1], [-3, -1]], dtype=float)
    memories = corners @ axes[:2] + rng.normal(size=6)
    found = project_memories(memories, np.array([0, 0, 1, 1]), np.arange(4), ["right", "left"])
    np.testing.assert_allclose(found.explained, [0.9, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(np.abs(found.coordinates), np.tile([3, 1, 0], (4, 1)), atol=1e-12)
    assert found.share_between_tasks == pytest.approx(0.9)  # the long side is between the tasks
    assert list(found.to_frame()["task"]) == ["right", "right", "left", "left"]
    crossed = project_memories(memories, np.array([0, 1, 1, 0]), np.arange(4), ["a", "b"])
    assert crossed.share_between_tasks == pytest.approx(0, abs=1e-12)


def test_components_need_three_dimensions() -> None:
    with pytest.raises(ValueError, match=r"at least 3 steps and dimensions, got \(9, 2\)"):
        project_memories(np.ones((9, 2)), np.zeros(9), np.arange(9), ["task"])


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.0, 1.5], [(0, i) for i in range(12)]], ids=str)
def test_tasks_have_colours(labels: list[Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(len(labels)), 10)
    found = project_memories(rng.normal(size=(len(tasks), 4)) + tasks[:, None], tasks, np.arange(len(tasks)), labels)
    plot_working_memories(found, tmp_path / "memories.png", max_points=50)
    assert_picture(tmp_path / "memories.png")


# --- attention ----------------------------------------------------------------------------------------------------


def test_attention_is_sorted_by_age() -> None:
    """Windows of three slots: filled one after the other, then shifted, then emptied by a second episode"""
    weights = np.zeros((5, 1, 3, 3))
    weights[0, 0, 0] = [1, 0, 0]
    weights[1, 0, 1] = [0.25, 0.75, 0]
    weights[2, 0, 2] = [0.125, 0.25, 0.625]
    weights[3, 0, 2] = [0.5, 0.25, 0.25]
    weights[4, 0, 0] = [1, 0, 0]
    found = attention_map([traced(weights, slots=[0, 1, 2, 2, 0], episodes=np.array([0, 0, 0, 0, 1]))])
    nan = np.nan
    expected = [[1, nan, nan], [0.75, 0.25, nan], [0.625, 0.25, 0.125], [0.25, 0.25, 0.5], [1, nan, nan]]
    np.testing.assert_array_equal(found.weights[0, 0], expected)
    assert found.borders.tolist() == [4]
    assert found.look_back.item() == pytest.approx((0 + 0.25 + 0.5 + 1.25 + 0) / 5)
    assert found.uniform_look_back == pytest.approx((0 + 0.5 + 1 + 1 + 0) / 5)
    frame = found.to_frame()
    assert frame["n_steps"].tolist() == [5, 3, 2]
    np.testing.assert_allclose(frame["mean_weight"], [3.625 / 5, 0.75 / 3, 0.625 / 2])


def test_attention_needs_one_trial(model: Any, trials: Trials) -> None:
    with pytest.raises(ValueError, match="`steps` must belong to one trial"):
        attention_map(traced_steps(model, trials))


def test_the_full_memory_looks_back_no_further_than_its_band(make_model: Any, tmp_path: Path) -> None:
    agent = make_model(memory="full", context_length=3, reset_memory_on="trial")
    found = attention_map(traced_steps(agent, Trials(ENV, n_tasks=1, n_episodes=2, env_kwargs=ENV_KWARGS)))
    assert found.weights.shape == (2, 2, 14, 3)
    np.testing.assert_allclose(np.nansum(found.weights, axis=-1), 1, rtol=1e-5)
    assert found.borders.tolist() == [7]
    found.save(tmp_path / "map")
    with np.load(tmp_path / "map") as data:
        np.testing.assert_allclose(data["weights"], found.weights)


# --- consensus ----------------------------------------------------------------------------------------------------


def test_where_the_inequality_of_the_theorem_needs_its_normalisation() -> None:
    """
    Orthogonal unit vectors with weights .9 and .1 have the mean (.9, .1). Its inner product with itself is .82, with
    the first candidate .9, so the candidate has the lower risk. By the cosine, the mean has: sqrt(.82) = .9055.
    """
    output, minimum = bayes_risks(np.array([[0.9, 0.1]]), np.eye(2))
    np.testing.assert_allclose(output[:, 0], [-0.82, -0.82, -math.sqrt(0.82), -math.sqrt(0.82)])
    np.testing.assert_allclose(minimum[:, 0], -0.9)
    # One long candidate dominates the mean: the cosine of raw memories fails too
    output, minimum = bayes_risks(np.array([[0.9, 0.1]]), np.diag([1.0, 100.0]))
    assert output[2, 0] > minimum[2, 0] + 0.1
    assert output[3, 0] == pytest.approx(-math.sqrt(0.82))


def test_risks_equal_loops_over_candidates() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3))
    weights = np.zeros((2, 4))
    weights[0] = rng.dirichlet(np.ones(4))
    weights[1, :3] = rng.dirichlet(np.ones(3))  # the last one is not visible
    output, minimum = bayes_risks(weights, values)

    def cosine(a: np.ndarray, b: np.ndarray) -> Any:
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for form, (loss, memories) in enumerate(FORMS):
        similarity = np.dot if loss == "inner product" else cosine
        vectors = values if memories == "raw memories" else [value / np.linalg.norm(value) for value in values]
        for query, alpha in enumerate(weights):
            seen = [i for i in range(4) if alpha[i] > 0]
            mean = sum(alpha[i] * vectors[i] for i in seen)

            risks = {j: -sum(alpha[i] * similarity(vectors[i], vectors[j]) for i in seen) for j in seen}
            assert output[form, query] == pytest.approx(-sum(alpha[i] * similarity(vectors[i], mean) for i in seen))
            assert minimum[form, query] == pytest.approx(min(risks.values()))
            if loss == "inner product":  # the risk is the average of the candidates' risks
                assert output[form, query] == pytest.approx(sum(alpha[i] * risks[i] for i in seen))


def test_the_cosine_of_unit_memories_always_holds() -> None:
    rng = np.random.default_rng(0)
    weights, values = rng.dirichlet(np.full(6, 0.3), size=(500, 1)), rng.normal(size=(500, 6, 4))
    output, minimum = bayes_risks(weights, values)
    holds = (output <= minimum + 1e-12).mean(axis=(1, 2))
    assert holds[3] == 1
    assert (holds[:3] < 1).all()  # the other three do not follow


def test_consensus_averages_heads_then_steps_then_tasks() -> None:
    """Two heads, one of them with the counterexample; the step with a single memory is left out"""
    weights = np.zeros((3, 2, 2, 2))
    weights[:, :, 0, 0] = 1
    weights[:, 0, 1] = [0.9, 0.1]
    weights[:, 1, 1] = [0.5, 0.5]
    values = np.tile(np.eye(2), (3, 2, 1, 1))
    found = consensus([traced(weights, values, slots=[1, 0, 1], tasks=np.array([0, 0, 1]))])
    assert found.holds.shape == (2, 4, 1)
    np.testing.assert_allclose(found.holds[..., 0], np.tile([0.5, 0.5, 1, 1], (2, 1)))
    np.testing.assert_allclose(found.output_risk[:, 0, 0], -(0.82 + 0.5) / 2)
    np.testing.assert_allclose(found.minimum_risk[:, 0, 0], -(0.9 + 0.5) / 2)
    with pytest.raises(ValueError, match="context_length 1"):
        consensus([traced(weights, values, slots=[0, 0, 0])])


def test_a_single_memory_is_no_consensus() -> None:
    """The number of visible memories is not the number of the slot: here, the last two slots see only themselves."""
    weights, values = np.zeros((2, 2, 3, 3)), np.tile(np.eye(3), (2, 2, 1, 1))
    weights[:, :, 0, 0] = weights[:, :, 1, 1] = weights[:, :, 2, 2] = 1
    with pytest.raises(ValueError, match="context_length 1"):
        consensus([traced(weights, values, slots=[1, 2])])
    # One head attends to one memory, the other to two: two are visible
    weights[0, 1, 1] = [0.9, 0.1, 0]
    found = consensus([traced(weights, values, slots=[1, 2])])
    np.testing.assert_allclose(found.output_risk[0, 0, 0], -(1 + 0.82) / 2)
    np.testing.assert_allclose(found.holds[0, :, 0], [0.5, 0.5, 1, 1])


@pytest.mark.parametrize("memory", ["window", "full"])
def test_without_a_second_memory_there_is_no_consensus(make_model: Any, trials: Trials, memory: str) -> None:
    agent = make_model(memory=memory, context_length=1)
    with pytest.raises(ValueError, match="context_length 1"):
        consensus(traced_steps(agent, trials))


def test_the_picture_does_not_round_up_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    monkeypatch.setattr(Axes, "annotate", lambda self, text, *args, **kwargs: texts.append(text))
    risks, holds = -np.ones((2, 4, 1)), np.tile([[0.0], [0.5], [0.9963], [1.0]], (2, 1, 1))
    plot_consensus(Consensus(risks, risks, holds), tmp_path / "consensus.png")
    assert texts == ["0.0 %", "50.0 %", "99.6 %", "100.0 %"]


# --- from an agent to pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["window", "full"])
def test_every_analysis_of_a_small_agent(make_model: Any, trials: Trials, memory: str, tmp_path: Path) -> None:
    agent = make_model(memory=memory)
    refined = refinement(traced_steps(agent, trials), n_train_tasks=2)
    assert refined.dissimilarity.shape == (3, 3) and np.allclose(refined.dissimilarity[:, -1], 0)
    plot_refinement(refined, tmp_path / "refinement.png")
    seen = working_memories(traced_steps(agent, trials), trials.tasks)
    assert seen.coordinates.shape == (3 * 2 * 7, 3)
    plot_working_memories(seen, tmp_path / "memories.png")
    agreed = consensus(traced_steps(agent, trials))
    assert agreed.holds.shape == (3, 4, 2) and (agreed.holds[:, 3] == 1).all()
    plot_consensus(agreed, tmp_path / "consensus.png")
    one = Trials(ENV, n_tasks=1, n_episodes=2, env_kwargs={"horizon": 15})
    plot_attention(attention_map(traced_steps(agent, one)), tmp_path / "attention.png")
    for path in tmp_path.glob("*.png"):
        assert_picture(path)
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_the_command_writes_tables_and_pictures(model: Any, tmp_path: Path, capsys: Any) -> None:
    model.save(tmp_path / "agent.zip")
    output = tmp_path / "analysis"
    arguments = [str(tmp_path / "agent.zip"), "--env", ENV, "--env-kwargs", "horizon:7", "--output", str(output)]
    assert main(["analyze", "all", *arguments, "--n-tasks", "3", "--n-episodes", "2"]) == 0
    printed = capsys.readouterr().out
    for kind in ("online", "refinement", "memories", "attention", "consensus"):
        assert_picture(output / f"{kind}.png")
        assert len(pd.read_csv(output / f"{kind}.csv")) > 0
        assert f"{kind}.csv" in printed.replace("\n", "")
    assert (output / "attention.npz").is_file()
    assert "fitted on only 28 steps for 8 features" in " ".join(printed.split())


def test_the_command_takes_any_agent_for_online_adaptation_only(tmp_path: Path, capsys: Any) -> None:
    PPO("MultiInputPolicy", gym.make(ENV), n_steps=8, batch_size=8).save(tmp_path / "ppo.zip")
    arguments = [str(tmp_path / "ppo.zip"), "--env", ENV, "--algo", "ppo", "--output", str(tmp_path)]
    assert main(["analyze", "online", *arguments, "--n-tasks", "2"]) == 0
    assert_picture(tmp_path / "online.png")
    assert "needs a TransformerPPO or TransformerSAC, got a PPO" in error_of(
        ["analyze", "consensus", *arguments], capsys
    )


@pytest.mark.parametrize("kind", ["", "online", "refinement", "memories", "attention", "consensus", "all"])
def test_help_ends_with_an_example(kind: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["analyze", *([kind] if kind else []), "--help"])
    assert stop.value.code == 0
    last = capsys.readouterr().out.rstrip().split("example:")[-1].strip()
    assert last.startswith("python -m sb3_trmrl analyze")
