"""
Write docs/reference/agents.md and its pictures from the reports of the experiments: all agents side by side.

    python experiments/compare.py

It reads ``curves.csv`` and ``tests.csv`` of every experiment that follows docs/reference/protocol.md, and the file of
benchmarks/acting.py. No run is needed. The text of the page is in compare.md.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import trim_mean

from sb3_trmrl.analysis.comparison import cell_text, headings, interquartile_mean
from sb3_trmrl.analysis.figures import (
    count_episodes,
    count_steps,
    draw_band,
    draw_means,
    finish,
    line_styles,
    scale_budgets,
)
from sb3_trmrl.analysis.report_rows import read_rows

DrawPanel = Callable[[Axes, "Results", dict[str, dict[str, Any]]], None]

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parent / "docs"
#: Levels of the learning curves, as shares of the way from a lower reference to an upper one
SHARES = (0.5, 0.75, 0.9)
#: Ends of the levels where no reference agents have been trained, and what they are. The optimum, the Gittins index and
#: posterior sampling are those of docs/reference/references.md; PEARL's authors published its logs on AntDir
_BANDIT, _SUCCESS = "from random actions to the best scripted agent", "from no success to success in every task"
BOUNDS = {
    "bandits": (5.0, 6.66, _BANDIT),
    "bandits_100": (50.0, 78.6, _BANDIT),
    "tabular_mdp": (10.0, 16.1, "from random actions to posterior sampling"),
    "ant_dir": (200.0, 1000.0, "from standing still to what the logs of PEARL's authors have after 1,560,000 steps"),
    "ml1_push": (0.0, 1.0, _SUCCESS),
    "ml1_reach": (0.0, 1.0, _SUCCESS),
}


@dataclass(frozen=True)
class Results:
    """The finished runs of an experiment on one environment, or of several experiments."""

    name: str  # of the experiment, the first one if there are several
    files: list[str]
    settings: dict[str, Any]  # the content of its file, with the agents of all files and their seeds
    machines: list[str]
    curves: pd.DataFrame
    tests: pd.DataFrame  # of the selected models, with deterministic actions

    @property
    def measure(self) -> str:
        """What is compared: "success" where all runs report it, otherwise "return"."""
        return "success" if "success" in self.tests and self.tests["success"].notna().all() else "return"

    @property
    def agents(self) -> list[str]:
        """Names of the agents with finished runs, in the order of the experiment's file, variants after each other."""
        return by_kind(agent for agent in self.settings["agents"] if agent in set(self.tests["agent"]))

    @property
    def other_tasks(self) -> list[str]:
        return list(self.settings["report"].get("other_tasks", {}))

    def tested(self, agent: str, other: str | None = None) -> np.ndarray:
        """Return the means over test tasks, or over other ones, (seeds, episodes)."""
        tasks = self.tests["tasks"]
        rows = self.tests[(self.tests["agent"] == agent) & (tasks == other if other else ~tasks.isin(self.other_tasks))]
        return rows.pivot(index="seed", columns="episode", values=self.measure).to_numpy()

    def with_runs_of(self, other: "Results") -> "Results":
        """
        Return these results together with those of another experiment on the same environment, without its runs of
        agents that these replace.
        """
        replaced = [agent for agent in self.agents if self._replaces(other, agent)]
        agents = {name: {**about, "seeds": list(about["seeds"])} for name, about in self.settings["agents"].items()}
        for name, about in other.settings["agents"].items():
            if name not in replaced:
                seeds = agents.setdefault(name, {**about, "seeds": []})["seeds"]
                seeds += [seed for seed in about["seeds"] if seed not in seeds]
        curves, tests = (rows[~rows["agent"].isin(replaced)] for rows in (other.curves, other.tests))
        reports = other.settings["report"], self.settings["report"]
        other_tasks = {name: task for report in reports for name, task in report.get("other_tasks", {}).items()}
        return Results(
            self.name,
            [*self.files, *other.files],
            {
                **self.settings,
                "agents": agents,
                "report": {**reports[0], **reports[1], "other_tasks": other_tasks},
            },
            list(dict.fromkeys(self.machines + other.machines)),
            pd.concat([self.curves, curves]),
            pd.concat([self.tests, tests]),
        )

    def _replaces(self, other: "Results", agent: str) -> bool:
        """
        Return whether the runs of an agent replace those of another experiment, of which they repeat a seed, or which
        were tested on another number of episodes. Only then do all numbers of an agent come from the same runs.
        """
        own, first = (each.tests[each.tests["agent"] == agent] for each in (self, other))
        is_repeated = own["seed"].isin(first["seed"]).any()
        return len(first) > 0 and bool(is_repeated or own["episode"].max() != first["episode"].max())

    def runs(self, agent: str) -> list[pd.DataFrame]:
        """Return the learning curves of each seed, with the column "last" for the last episode of a trial."""
        rows = self.curves[self.curves["agent"] == agent]
        episodes = [name for name in rows if name.startswith(f"{self.measure}, episode ")] or [self.measure]
        # Not all agents train with the same number of episodes in a trial
        last = rows[episodes].ffill(axis=1).iloc[:, -1]
        return [run for _, run in rows.assign(last=last).groupby("seed")]

    def references(self) -> tuple[float, float, str]:
        """Return the validation results between which the levels lie, and what they are."""
        ends = [self.settings["report"].get(key) for key in ("lower", "oracle")]
        if set(ends) <= set(self.agents):
            selected = [[selected_result(run) for run in self.runs(end)] for end in ends]
            low, high = (trim_mean(each, 0.25) for each in selected)
            if high > low:
                return low, high, f"from {ends[0]!r} to {ends[1]!r}"
        if self.name in BOUNDS:
            return BOUNDS[self.name]
        means = np.concatenate([common_curve(self.runs(agent))[1].mean(axis=0) for agent in self.agents])
        between = "from the lowest to the highest point of the agents' mean learning curves"
        return (
            means.min(),
            means.max(),
            f"{between} (an oracle and an agent without task information are not both there)",
        )


def read(folder: Path = FOLDER) -> dict[str, Results]:
    """
    Return the results of the experiments below a folder that follow the protocol, by title. Several experiments on the
    same environment are put together.
    """
    found: dict[tuple[str, str], Results] = {}
    # First runs last, because those that repeat them replace them
    for path in sorted(folder.glob("*/tests.csv"), key=lambda path: (path.parent.name.endswith("_first"), path)):
        file = path.parent.with_suffix(".yml")
        if not file.is_file() or "docs/reference/protocol.md" not in file.read_text(encoding="utf-8"):
            continue
        settings = {"report": {}, "env_kwargs": {}, **yaml.safe_load(file.read_text(encoding="utf-8"))}
        seeds = settings.get("seeds")
        settings["agents"] = {name: {"seeds": seeds, **about} for name, about in settings["agents"].items()}
        trained = re.findall(r"^# .* trained with .*(torch .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        curves, tests = (read_rows(path.with_name(name)) for name in ("curves.csv", "tests.csv"))
        curves = curves[curves["finished"]]
        tests = tests[(tests["model"] == "selected") & (tests["actions"] == "deterministic")]
        for environment, own in tests.groupby("environment", sort=False):
            learned = curves[curves["environment"] == environment]
            machines = list(dict.fromkeys(trained))
            results = Results(path.parent.name, [file.name], settings, machines, learned, own)
            key = environment, json.dumps(settings["env_kwargs"], sort_keys=True)
            found[key] = found[key].with_runs_of(results) if key in found else results
    ids = [environment for environment, _ in found]
    return {env if ids.count(env) == 1 else f"{env} ({each.name})": each for (env, _), each in found.items()}


def names_of(found: dict[str, Results]) -> list[str]:
    """Return the names of all agents."""
    return by_kind(agent for results in found.values() for agent in results.agents)


def by_kind(names: Iterable[str]) -> list[str]:
    """Return the different names, with variants such as "PPO, oracle" after the first name that begins alike."""
    names = list(dict.fromkeys(names))
    kinds = list(dict.fromkeys(name.partition(",")[0] for name in names))
    return sorted(names, key=lambda name: kinds.index(name.partition(",")[0]))


# -- Numbers ----------------------------------------------------------------------------------------------------------


def counts_to(levels: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """
    Return the count at which a learning curve first reaches each level.

    :param levels: (L,)
    :param values: Learning curve, (K,)
    :param counts: Steps or minutes at its evaluations, (K,)
    :return: (L,), infinite for levels that are never reached
    """
    reached = values >= levels[:, None]
    return np.where(reached.any(axis=1), counts[reached.argmax(axis=1)], np.inf)


def selected_result(run: pd.DataFrame) -> float:
    """Return the validation result of the selected model: of those with the best success, if any, the best return."""
    # Rounded as in the file, because ties are decided by the return
    success = run[[name for name in run if name.startswith("success, episode ")]].mean(axis=1).fillna(0).round(4)
    scores = list(zip(success, run["return"], strict=True))
    return run["last"].iloc[scores.index(max(scores))]


def common_curve(runs: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that the learning curves of all seeds cover, (K,), and the curves, (seeds, K)."""
    steps = np.unique(np.concatenate([run["step"] for run in runs]))
    for run in runs:
        steps = steps[(steps >= run["step"].min()) & (steps <= run["step"].max())]
    return steps, np.stack([np.interp(steps, run["step"], run["last"]) for run in runs])


# -- Page -------------------------------------------------------------------------------------------------------------


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows, of which the first is the head, as Markdown."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *others])


def minutes(seconds: float) -> str:
    """Return seconds as minutes with two digits."""
    # 99.5 has three digits when it is rounded
    return f"{seconds / 60:.2g}" if seconds / 60 < 99.5 else f"{seconds / 60:,.0f}"


def reached(results: Results, agent: str, levels: np.ndarray) -> list[str]:
    """Return the median steps and core-minutes of the seeds until each level, and the range of the steps."""
    runs = results.runs(agent)
    steps, seconds = (
        np.stack([counts_to(levels, run["last"].to_numpy(), run[count].to_numpy()) for run in runs], axis=1)
        for count in ("step", "seconds")
    )
    texts = []
    for own, taken in zip(steps, seconds, strict=True):
        n_reached = np.isfinite(own).sum()
        is_reached = np.isfinite(np.median(own))
        text = f"{np.median(own):,.0f}" if is_reached else "not reached"
        if n_reached == len(own) > 1:
            text += f" ({own.min():,.0f} to {own.max():,.0f})"
        elif 0 < n_reached < len(own):
            text += f" (reached by {n_reached} of {len(own)} seeds)"
        texts.append(f"{text}, {minutes(np.median(taken))} min" if is_reached else text)
    return texts


def cells(results: Results, agent: str, other: str | None = None) -> list[str]:
    """Return the text of each episode's estimate."""
    rows = np.vstack(interquartile_mean(results.tested(agent, other))).T + 0.0  # no -0.0
    return [cell_text(results.measure, pd.Series(row, headings(results.measure))) for row in rows]


def row_of_episodes(results: Results, agent: str, other: str | None = None) -> list[str]:
    """Return the text of each episode's estimate, empty for episodes that only other agents were tested on."""
    own = cells(results, agent, other)
    return own + [""] * (results.tests["episode"].max() - len(own))


def section(title: str, results: Results) -> str:
    """Return the part of the page about one environment."""
    settings, report, agents = results.settings, results.settings["report"], results.agents
    episodes = [f"episode {number}" for number in range(1, 1 + results.tests["episode"].max())]
    rows = [["agent", "seeds", "steps", "core-minutes", *episodes]]
    for agent in agents:
        last = [run.iloc[-1] for run in results.runs(agent)]
        seconds = np.mean([run["seconds"] + run["evaluation seconds"] for run in last])
        planned = len(settings["agents"][agent]["seeds"])
        seeds = f"{len(last)}" if len(last) == planned else f"{len(last)} of {planned}"
        steps = f"{max(run['step'] for run in last):,}"
        rows.append([agent, seeds, steps, minutes(seconds), *row_of_episodes(results, agent)])
    missing = [f'"{agent}"' for agent in settings["agents"] if agent not in agents]
    files = " and ".join(f"`experiments/{file}`" for file in results.files)
    about = f"{files}, trained with {'; '.join(results.machines)}."
    about += f" Without finished runs: {', '.join(missing)}." if missing else ""
    what = "Success rate" if results.measure == "success" else "Return"
    tasks = f"{report.get('n_tasks', 20):,} {report.get('split', 'test')} tasks"
    parts = [f"### {title}", about, f"{what} in each episode of a trial, {tasks}:", table(rows)]
    for other in results.other_tasks:
        tested = [agent for agent in agents if len(results.tested(agent, other))]
        rows = [["agent", *episodes], *([agent, *row_of_episodes(results, agent, other)] for agent in tested)]
        parts += [f"The same out of distribution, {other}:", table(rows)]
    low, high, between = results.references()
    levels = low + np.array(SHARES) * (high - low)
    form = "{:.0%}" if results.measure == "success" else f"{{:.{max(0, 2 - int(np.log10(max(1, high - low))))}f}}"
    head = [f"{100 * share:.0f} % ({form.format(level)})" for share, level in zip(SHARES, levels, strict=True)]
    rows = [["agent", *head], *([agent, *reached(results, agent, levels)] for agent in agents)]
    way = f"Steps and core-minutes until the result has come 50, 75 and 90 % of the way {between}:"
    return "\n\n".join([*parts, way, table(rows)])


def acting() -> tuple[str, str]:
    """Return the table of benchmarks/acting.py, and the machine."""
    content = json.loads((DOCS / "benchmarks" / "acting.json").read_text(encoding="utf-8"))
    head = ["agent", "milliseconds", "relative to PPO", "milliseconds when the next episode begins"]
    head += ["bytes of the state after 1 step", "after 200 steps"]
    head += ["parameters used for acting", "all parameters of the policy"]
    kinds = {float: "{:,.3g}", int: "{:,}", str: "{}"}
    rows = [[kinds[type(value)].format(value) for value in row.values()] for row in content["rows"]]
    return table([head, *rows]), f"{content['machine']['processor']}, PyTorch {content['machine']['torch']}"


def page(found: dict[str, Results]) -> str:
    """Return the content of docs/reference/agents.md."""

    def overview(results: Results, agent: str) -> str:
        n_seeds, n_episodes = results.tested(agent).shape
        if not n_seeds:
            return ""
        text = f"{cells(results, agent)[-1]}, {n_seeds} seed{'s' if n_seeds > 1 else ''}"
        differ = results.tests.groupby("agent")["episode"].max().nunique() > 1
        return f"{text}, episode {n_episodes}" if differ else text

    rows = [[name, *(overview(results, name) for results in found.values())] for name in names_of(found)]
    table_of_acting, machine = acting()
    return Template((FOLDER / "compare.md").read_text(encoding="utf-8")).substitute(
        overview=table([["agent", *found], *rows]),
        environments="\n\n".join(section(title, results) for title, results in found.items()),
        acting=table_of_acting,
        machine=machine,
    )


# -- Pictures ---------------------------------------------------------------------------------------------------------


def draw_training(axes: Axes, results: Results, styles: dict[str, dict[str, Any]]) -> None:
    """Draw the learning curves: the paper's figure 4."""
    curves = {agent: common_curve(results.runs(agent)) for agent in results.agents}
    scale_budgets(axes, [steps[-1] for steps, _ in curves.values()])
    count_steps(axes)
    for agent, (steps, scores) in curves.items():
        draw_band(axes, steps, *interquartile_mean(scores), **styles[agent])


def draw_adaptation(axes: Axes, results: Results, styles: dict[str, dict[str, Any]], other: str | None = None) -> None:
    """Draw the test result of each episode: the paper's figure 5, with other tasks its figure 6."""
    agents = [agent for agent in results.agents if len(results.tested(agent, other))]
    for index, agent in enumerate(agents):
        middle, (low, high) = interquartile_mean(results.tested(agent, other))
        shift = 0.04 * (index - (len(agents) - 1) / 2)  # agents with the same result stand side by side
        episodes = np.arange(1, len(middle) + 1) + shift
        draw_means(axes, episodes, middle, low, high, marker="o", markersize=3, **styles[agent])
    count_episodes(axes)


def draw(panels: dict[str, tuple[Results, DrawPanel]], name: str, title: str) -> None:
    """Write a picture of these panels, given by their titles."""
    names = by_kind(agent for results, _ in panels.values() for agent in results.agents)
    styles = line_styles(names)
    n_rows, n_columns = -(-len(panels) // 3), min(3, len(panels))
    n_lines = -(-len(names) // (max(2, n_columns) + 1))  # of the legend
    figure = Figure(figsize=(4 * max(2, n_columns), 3 * n_rows + 0.3 * n_lines), layout="constrained")
    all_axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (about, (results, draw_panel)) in zip(all_axes, panels.items(), strict=False):
        draw_panel(axes, results, styles)
        axes.set(title=about, ylabel="success rate" if results.measure == "success" else "return of the episode")
        axes.axhline(0, color="0.5", linewidth=0.8)  # small differences look small
        axes.grid(alpha=0.3)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    lines = [Line2D([], [], **styles[agent]) for agent in names]
    figure.legend(lines, names, loc="outside lower center", ncols=max(2, n_columns) + 1)
    about = "interquartile mean and 95 % bootstrap interval over seeds; single seeds have no interval"
    finish(figure, DOCS / "images" / name, f"{title}\n{about}", fontsize="medium")


def draw_all(found: dict[str, Results]) -> None:
    """Write the pictures of the page."""
    for draw_panel, name, title in (
        (draw_training, "training", "Training: last episode of a trial, validation tasks"),
        (draw_adaptation, "adaptation", "Adaptation: episodes of a trial, test tasks"),
    ):
        draw({about: (results, draw_panel) for about, results in found.items()}, f"agents_{name}.png", title)
    others = {
        f"{environment}, {other}": (results, partial(draw_adaptation, other=other))
        for environment, results in found.items()
        for other in results.other_tasks
    }
    draw(others, "agents_out_of_distribution.png", "Out of distribution: episodes of a trial")


def main() -> None:
    found = read()
    (DOCS / "reference" / "agents.md").write_text(page(found), encoding="utf-8")
    draw_all(found)


if __name__ == "__main__":
    main()
