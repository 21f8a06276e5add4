"""Statistics over several agents and seeds."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rliable import library, metrics
from scipy import stats

from sb3_trmrl.analysis import comparison
from sb3_trmrl.analysis.ablations import Ablations, plot_ablations
from sb3_trmrl.analysis.adaptation import plot_adaptation
from sb3_trmrl.analysis.comparison import (
    Group,
    cell_text,
    common_steps,
    interquartile_mean,
    plot_comparison,
    share_above,
    share_of_gap,
    table_of,
)
from sb3_trmrl.analysis.figures import line_styles, scale_budgets
from sb3_trmrl.analysis.seeds import plot_testing, plot_training
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult


def test_interquartile_mean_over_runs() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 3))
    middle, interval = interquartile_mean(scores)
    for column in range(3):
        assert middle[column] == pytest.approx(np.sort(scores[:, column])[2:6].mean())
        assert middle[column] == pytest.approx(metrics.aggregate_iqm(scores[:, [column]]))
    assert (interval[0] < middle).all() and (middle < interval[1]).all()
    assert np.isnan(interquartile_mean(scores[:1])[1]).all()


@pytest.mark.parametrize("n_runs", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_scipys(n_runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(n_runs).normal(size=(n_runs, 6))
    scores[-1, 2] = np.nan  # as where a run has no value
    found = interquartile_mean(scores)
    monkeypatch.setattr(comparison, "_middle_half", lambda scores, axis: stats.trim_mean(scores, 0.25, axis))
    for ours, scipys in zip(found, interquartile_mean(scores), strict=True):
        np.testing.assert_allclose(ours, scipys, rtol=1e-14)


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
    of_task = rng.normal(scale=5.0, size=20)  # the same for all agents, so it cancels
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
    once = Group(np.array([7]), np.array([[3.0], [4.0]]), {})  # a single evaluation
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


def test_axes_of_returns_are_not_zoomed_into_noise(tmp_path: Path, monkeypatch: Any) -> None:
    """Two equal agents look equal, and the same return is at the same height before and after training."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    noise = np.random.default_rng(0).normal(size=(2, 3, 4, 1, 1))
    results = [[AdaptationResult("Env-v0", [0, 1, 2, 3], -1000 + each) for each in agent] for agent in noise]
    groups = {
        name: Group(np.arange(5), np.full((3, 5), level), {"selected": own})
        for name, level, own in zip("AB", (-1000.0, -1001.0), results, strict=True)
    }
    plot_comparison(groups, tmp_path / "a.png", "Env-v0")
    plot_adaptation({"A": results[0][0]}, tmp_path / "b.png")
    learning, adaptation, profile = figures[0].axes
    for low, high in (learning.get_ylim(), profile.get_xlim(), figures[1].axes[0].get_ylim()):
        assert low < -1000 and high >= 0
    assert learning.get_ylim() == adaptation.get_ylim()


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


def test_every_line_of_a_picture_looks_different() -> None:
    styles = line_styles(f"agent {index}" for index in range(21))
    assert len({tuple(style.values()) for style in styles.values()}) == 21
    assert len(line_styles("ab" * 20)) == 2


@pytest.mark.parametrize("budgets, scale", [((3e5, 1e6), "linear"), ((1e5, 5e6), "log"), ((1e6,), "linear")])
def test_budgets_that_differ_a_lot_share_a_logarithmic_axis(budgets: tuple[float, ...], scale: str) -> None:
    axes = Figure().add_subplot()
    scale_budgets(axes, budgets)
    assert axes.get_xscale() == scale


def test_only_success_rates_are_percentages() -> None:
    """Evaluations on other tasks may have names that begin with "success"."""
    names = ("success, episode 2", "success zone, episode 2")
    row = pd.Series({f"{name}{end}": 12.5 for name in names for end in ("", ", low", ", high")})
    assert cell_text(names[0], row) == "1250 % (1250 to 1250)"
    assert cell_text(names[1], row) == "12.5 (12.5 to 12.5)"
    without: Any = SimpleNamespace(success_rates=None)
    groups = {"agent": Group(np.zeros(0), np.zeros((1, 0)), {"selected": [without]})}
    frame = table_of(groups, dict.fromkeys(names, lambda _: np.ones(1)))
    assert list(frame)[:2] == ["seeds", names[1]]


def rewarded(*lengths: int, tasks: tuple[Any, ...] = (0.5,), n_episodes: int = 2) -> Group:
    """Runs with episodes of these lengths, and a reward of 1 in each step."""
    results = [AdaptationResult("Env-v0", list(tasks), np.ones((len(tasks), n_episodes, each))) for each in lengths]
    return Group(np.arange(3), np.ones((len(lengths), 3)), {"selected": results}, np.ones((len(lengths), 3)))


def test_steps_of_shorter_episodes_stand_at_those_of_the_longest(tmp_path: Path, monkeypatch: Any) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plot_testing({"A": rewarded(3, 5), "B": rewarded(4, 4)}, tmp_path / "a.png", "Env-v0")
    by_episode, by_step = figures[0].axes
    expected = {0: [1, 1, 1, 0.5, 0.5] * 2, 1: [1, 1, 1, 1, 0] * 2}
    for index, rewards in expected.items():
        assert by_step.lines[index].get_xdata().tolist() == list(range(1, 11))  # type: ignore[union-attr]
        assert by_step.lines[index].get_ydata().tolist() == rewards  # type: ignore[union-attr]
    assert by_episode.lines[0].get_ydata().tolist() == [4, 4]  # type: ignore[union-attr]
    assert by_step.get_ylabel() == "reward of the step, test tasks\n(0 after an early end)"
    plot_testing({"A": rewarded(4, 4)}, tmp_path / "a.png", "Env-v0")
    assert figures[1].axes[1].get_ylabel() == "reward of the step, test tasks"


@pytest.mark.parametrize("tasks, ends", [((0.5, 1.0), (", validation tasks", ", test tasks")), ((None,), ("", ""))])
def test_labels_name_tasks_only_where_there_are_some(
    tasks: tuple[Any, ...], ends: tuple[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    labels: list[list[str]] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: labels.append([axes.get_ylabel() for axes in figure.axes])
    )
    groups = {"A": rewarded(4, 4, tasks=tasks, n_episodes=1)}
    plot_training(groups, groups, tmp_path / "a.png", "Env-v0")
    plot_testing(groups, tmp_path / "a.png", "Env-v0")
    assert labels[0][::2] == [f"return per episode{ends[0]}", f"success rate{ends[0]}"]
    assert labels[1] == [f"return of the episode{ends[1]}", f"reward of the step{ends[1]}"]


def test_every_value_of_an_ablation_is_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    for n_seeds in ([2] * 10, [1, *[3] * 9], [1]):
        curves = {str(value): np.full((number, 3), float(value)) for value, number in enumerate(n_seeds)}
        plot_ablations(Ablations("Env-v0", np.arange(3.0), {"gamma": curves}), tmp_path / "a.png")
    lines = figures[0].axes[0].lines
    assert [line.get_label() for line in lines] == [str(value) for value in range(10)]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10
    titles = [figure.get_suptitle().partition(": ")[2] for figure in figures]
    band = "mean and 95 % bootstrap interval over"
    assert titles == [f"{band} 2 seeds", f"{band} 1 to 3 seeds", "mean over 1 seed"]


def test_runs_without_any_success_have_failed_if_others_have_one() -> None:
    """Some environments write ``is_success`` only when an episode succeeds."""

    def group(*successes: bool | None) -> Group:
        results = [
            AdaptationResult("Env-v0", [0.5], np.ones((1, 1, 2)), None if each is None else np.array([[each]]))
            for each in successes
        ]
        return Group(np.zeros(0), np.zeros((len(results), 0)), {"selected": results})

    mixed, none = group(True, None), group(None, None)
    assert none.success_rates(0) is None
    found = mixed.success_rates(0)
    assert found is not None and found.tolist() == [1.0, 0.0]
    columns: comparison.Columns = {
        "success, episode 1": lambda each: each.success_rates(0),
        "unknown": lambda _: None,
    }
    frame = table_of({"mixed": mixed, "none": none}, columns)
    assert frame["success, episode 1"].tolist() == [0.5, 0.0] and frame["unknown"].isna().all()
    assert list(table_of({"none": none}, columns))[1:] == ["unknown", "unknown, low", "unknown, high"]
