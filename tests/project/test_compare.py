"""The page that compares all agents is what its script writes from the results in experiments/."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.helpers.doc_blocks import ROOT
from tests.helpers.zoo import assert_picture

FOLDER = ROOT / "experiments"
STEPS = np.arange(1, 6) * 100
#: Shares of the gap in the last episode of the validation trial at each of STEPS, by agent and seed
SHARES = {
    "reactive": {10: (0.1, 0.5, 0.4, 0.8, 0.95), 11: (0.2, 0.3, 0.5, 0.6, 0.7)},
    "none": {10: (0, 0, 0, 0, 0), 11: (0, 0, 0, 0, 0)},
    "oracle": {10: (0.9, 1, 1, 1, 1)},
}


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("compare", FOLDER / "compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_experiment(folder: Path, name: str, word: str, low: float, high: float, follows: str = "protocol") -> None:
    """Write an experiment whose agents have SHARES of the gap from ``low`` to ``high`` in the last of two episodes."""
    curves, tests = [], []
    for agent, seeds in SHARES.items():
        for seed, shares in seeds.items():
            about = {"environment": "Env-v0", "agent": agent, "seed": seed}
            last = low + np.array(shares) * (high - low)
            curve = {"finished": True, "step": STEPS, "seconds": STEPS * 0.6, "evaluation seconds": STEPS * 0.06}
            curve |= {"return": last, f"{word}, episode 1": low, f"{word}, episode 2": last}
            curves.append(pd.DataFrame({**about, **curve}))
            for tasks, factor in (("test", 1), ("far", 0.5)):
                for model, actions, right in (("selected", "deterministic", 1), ("last", "stochastic", np.nan)):
                    test = {"tasks": tasks, "model": model, "actions": actions, "episode": [1, 2]}
                    tests.append(pd.DataFrame({**about, **test, "return": 7.0, word: right * factor * last[[0, -1]]}))
    unfinished = curves[0].assign(seed=12, finished=False, **{f"{word}, episode 2": high})
    (folder / name).mkdir()
    for file, frames in (("curves", [*curves, unfinished]), ("tests", tests)):
        text = "# Written\n# 2 runs were trained with sb3_trmrl 0.1.0, commit None, torch 2.11, cpus 16\n"
        (folder / name / f"{file}.csv").write_text(text + pd.concat(frames).to_csv(index=False))
    agents = {"none": {}, "reactive": {"seeds": [10, 11, 12]}, "later": {}, "oracle": {"seeds": [10]}}
    report = {"n_tasks": 5, "lower": "none", "oracle": "oracle", "other_tasks": {"far": {}}}
    about = {"env_kwargs": {"word": word}, "seeds": [10, 11], "agents": agents, "report": report}
    settings = yaml.safe_dump(about, sort_keys=False)
    (folder / f"{name}.yml").write_text(f"# docs/reference/{follows}.md\n{settings}")


def test_the_page_is_what_the_script_writes(compare: ModuleType) -> None:
    written = (ROOT / "docs" / "reference" / "agents.md").read_text(encoding="utf-8")
    assert compare.page(compare.read()) == written, "run `python experiments/compare.py`"


def test_steps_to_levels_against_a_loop(compare: ModuleType) -> None:
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=30), 100 * np.arange(1, 31)
    levels = np.array([values[0], 0.0, 1.0, values.max(), values.max() + 1e-9, -10.0])
    expected = []
    for level in levels:
        found = np.inf
        for value, count in zip(values, counts, strict=True):
            if value >= level:
                found = count
                break
        expected.append(found)
    assert expected[0] == expected[-1] == 100 and np.isinf(expected[4]) and 100 < expected[3] < np.inf
    np.testing.assert_array_equal(compare.counts_to(levels, values, counts), expected)


@pytest.mark.parametrize("word, low, high", [("return", -100.0, 100.0), ("success", 0.0, 1.0)])
def test_numbers_of_an_experiment(compare: ModuleType, tmp_path: Path, word: str, low: float, high: float) -> None:
    """Unfinished runs, last models, stochastic actions and experiments outside the protocol do not count."""
    write_experiment(tmp_path, "one", word, low, high)
    write_experiment(tmp_path, "other", word, low, high, follows="another")
    found = compare.read(tmp_path)
    assert list(found) == ["Env-v0"]
    text = compare.page(found)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert ["agent", "Env-v0"] in rows and all(row[0] != "later" for row in rows)
    assert 'trained with torch 2.11, cpus 16. Without finished runs: "later".' in text
    reactive = [row for row in rows if row[0] == "reactive"]
    overview, tested, far, levels = reactive
    returns = {"return": ("65.0 (40.0 to 90.0)", "-70.0 (-80.0 to -60.0)"), "success": ("82 % (70 to 95)", "15 %")}
    assert overview[1] == f"{returns[word][0]}, 2 seeds"
    assert tested[1:4] == ["2 of 3", "500", "5.5"]
    assert tested[4].startswith(returns[word][1].split(" (")[0]) and tested[5] == returns[word][0]
    assert (
        far[1:] == ["-35.0 (-40.0 to -30.0)", "32.5 (20.0 to 45.0)"] if word == "return" else far[2].startswith("41 %")
    )
    # Half of the way: steps 200 and 300. Three quarters, 90 %: one of two seeds, so that the median is infinite
    assert levels[1:] == ["250 (200 to 300), 2.5 min", *["not reached (reached by 1 of 2 seeds)"] * 2]
    assert [row for row in rows if row[0] == "none"][-1][1:] == ["not reached"] * 3
    assert [row for row in rows if row[0] == "oracle"][-1][1:] == ["100, 1 min"] * 3


def test_experiments_on_one_environment_are_put_together(compare: ModuleType, tmp_path: Path) -> None:
    write_experiment(tmp_path, "one", "return", -100, 100)
    write_experiment(tmp_path, "two", "return", -100, 100)
    for file in (tmp_path / "two").iterdir():  # other seeds of one agent, and a new one
        frame = pd.read_csv(file, comment="#")
        frame = frame[frame["agent"] != "none"].replace({"oracle": "new"})
        comment = "# 3 runs were trained with sb3_trmrl 0.1.0, commit None, torch 3, cpus 2\n"
        file.write_text(comment + frame.assign(seed=frame["seed"] + 10).to_csv(index=False))
    agents = {"reactive": {"seeds": [20, 21]}, "new": {"seeds": [20]}}
    settings = {"env_kwargs": {"word": "return"}, "agents": agents}
    (tmp_path / "two.yml").write_text(f"# docs/reference/protocol.md\n{yaml.safe_dump(settings)}")
    found = compare.read(tmp_path)
    assert list(found) == ["Env-v0"] and found["Env-v0"].agents == ["none", "reactive", "oracle", "new"]
    text = compare.page(found)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert [row[1] for row in rows if row[0] == "reactive"][:2] == ["65.0 (40.0 to 90.0), 4 seeds", "4 of 5"]
    assert [row[1] for row in rows if row[0] == "new"][:2] == ["100.0, 1 seed", "1"]
    assert "`experiments/one.yml` and `experiments/two.yml`, trained with torch 2.11, cpus 16; torch 3, cpus 2" in text


@pytest.mark.parametrize("repeated", ["one", "one_more"], ids=["before", "after"])
def test_repeated_runs_replace_the_first_ones(compare: ModuleType, tmp_path: Path, repeated: str) -> None:
    """Agents of the first report that were not repeated stay, with fewer episodes than the new ones."""
    write_experiment(tmp_path, repeated, "return", -100, 100)
    write_experiment(tmp_path, "one_first", "return", -100, 100)
    settings = (tmp_path / f"{repeated}.yml").read_text()
    (tmp_path / f"{repeated}.yml").write_text(settings.replace("  lower: none\n", ""))
    for file in (tmp_path / repeated).iterdir():
        frame = pd.read_csv(file, comment="#")
        frame = frame[frame["agent"] == "reactive"]
        if "episode" in frame:
            frame = pd.concat([frame, frame[frame["episode"] == 2].assign(episode=3, **{"return": 12.5})])
        file.write_text(frame.to_csv(index=False))
    results = compare.read(tmp_path)["Env-v0"]
    assert results.agents == ["none", "reactive", "oracle"] and results.references()[2] == "from 'none' to 'oracle'"
    assert results.settings["agents"]["reactive"]["seeds"] == [10, 11, 12]
    rows = [line.strip("|").split("|") for line in compare.section("Env-v0", results).splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows[:10]} == {7, 4}
    found = {row[0].strip(): [cell.strip() for cell in row[4:]] for row in rows[:5]}
    assert found["reactive"] == ["-70.0 (-80.0 to -60.0)", "65.0 (40.0 to 90.0)", "12.5 (12.5 to 12.5)"]
    assert found["oracle"] == ["80.0", "100.0", ""]


def cells_of(text: str, agent: str) -> list[str]:
    """Return the cells of the first row of an agent in a text."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {agent} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("kept, seeds", [({10: 10}, "1 of 2"), ({10: 20, 11: 21}, "2")], ids=["same", "other"])
@pytest.mark.parametrize("n_episodes", [2, 3])
def test_numbers_of_an_agent_come_from_one_kind_of_run(
    compare: ModuleType, tmp_path: Path, kept: dict[int, int], seeds: str, n_episodes: int
) -> None:
    """Only new seeds with as many episodes are put together with the first ones."""
    write_experiment(tmp_path, "one", "return", -100, 100)
    write_experiment(tmp_path, "one_first", "return", -100, 100)
    settings = yaml.safe_load((tmp_path / "one.yml").read_text())
    settings["agents"] = {"reactive": {"seeds": [20, 21] if 20 in kept.values() else [10, 11]}}
    (tmp_path / "one.yml").write_text(f"# docs/reference/protocol.md\n{yaml.safe_dump(settings)}")
    for file in (tmp_path / "one").iterdir():
        frame = pd.read_csv(file, comment="#")
        frame = frame[(frame["agent"] == "reactive") & frame["seed"].isin(kept)]
        frame = frame.assign(seed=frame["seed"].map(kept))
        if "episode" in frame and n_episodes == 3:
            frame = pd.concat([frame, frame[frame["episode"] == 2].assign(episode=3, **{"return": 12.5})])
        file.write_text(frame.to_csv(index=False))
    text = compare.page(compare.read(tmp_path))
    (overview,), tested = (cells_of(part, "reactive") for part in text.split("### Env-v0"))
    assert tested[0] == ("4 of 5" if n_episodes == 2 and 20 in kept.values() else seeds)
    assert len(tested) == 3 + n_episodes and "-" not in tested and "" not in tested
    # Where agents differ in their last episode, the cell names it
    n_seeds = int(tested[0][0])
    assert overview.endswith(f"{n_seeds} seed{'s' * (n_seeds > 1)}{', episode 3' * (n_episodes == 3)}")
    assert cells_of(text, "oracle") == [f"100.0, 1 seed{', episode 2' * (n_episodes == 3)}"]


def test_other_tasks_of_two_reports_are_put_together(compare: ModuleType, tmp_path: Path) -> None:
    write_experiment(tmp_path, "one", "return", -100, 100)
    write_experiment(tmp_path, "two", "return", -100, 100)
    settings = (tmp_path / "two.yml").read_text()
    (tmp_path / "two.yml").write_text(settings.replace("far:", "farther:").replace("reactive:", "new:"))
    for file in (tmp_path / "two").iterdir():
        frame = pd.read_csv(file, comment="#")
        frame = frame[frame["agent"] == "reactive"].replace({"reactive": "new", "far": "farther"})
        file.write_text(frame.to_csv(index=False))
    results = compare.read(tmp_path)["Env-v0"]
    assert set(results.other_tasks) == {"far", "farther"}
    text = compare.section("Env-v0", results)
    assert cells_of(text, "new")[3:] == ["-70.0 (-80.0 to -60.0)", "65.0 (40.0 to 90.0)"]
    for other, agent in (("far", "reactive"), ("farther", "new")):
        part = text.partition(f"The same out of distribution, {other}:")[2]
        assert cells_of(part, agent) == ["-35.0 (-40.0 to -30.0)", "32.5 (20.0 to 45.0)"]


def test_names_may_be_any_text(compare: ModuleType, tmp_path: Path) -> None:
    """Such as a sign that begins a comment, a number, or what pandas reads as unknown."""
    names = {"none": "None", "reactive": "lr #2", "oracle": "12"}
    write_experiment(tmp_path, "one", "return", -100, 100)
    settings = yaml.safe_load((tmp_path / "one.yml").read_text())
    settings["agents"] = {names.get(name, name): about for name, about in settings["agents"].items()}
    settings["report"] |= {"lower": "None", "oracle": "12"}
    (tmp_path / "one.yml").write_text(f"# docs/reference/protocol.md\n{yaml.safe_dump(settings, sort_keys=False)}")
    for file in (tmp_path / "one").iterdir():
        comments = [line for line in file.read_text().splitlines(keepends=True) if line.startswith("#")]
        frame = pd.read_csv(file, comment="#").replace(names)
        file.write_text("".join(comments) + frame.to_csv(index=False))
    results = compare.read(tmp_path)["Env-v0"]
    assert results.agents == ["None", "lr #2", "12"] and results.references()[2] == "from 'None' to '12'"
    assert cells_of(compare.section("Env-v0", results), "lr #2")[3:] == [
        "-70.0 (-80.0 to -60.0)",
        "65.0 (40.0 to 90.0)",
    ]


def test_references_are_what_the_selected_models_get(compare: ModuleType) -> None:
    """Models are selected by their success over all episodes, and by the return among equals, of which one is kept."""
    oracle = pd.DataFrame({"agent": "oracle", "seed": 10, "return": [1.0, 9.0, 3.0, 5.0, 5.0]})
    oracle["success, episode 1"] = [0.9, 0.1, 0.1, 0.7, 0.3]
    oracle["success, episode 2"] = [0.0, 0.2, 0.9, 0.3, 0.7]
    none = oracle.assign(agent="none", **{"success, episode 1": 0.0, "success, episode 2": 0.0})
    tests = pd.DataFrame({"agent": ["none", "oracle"], "success": [0.0, 0.3]})
    settings = {"agents": {"none": {}, "oracle": {}}, "report": {"lower": "none", "oracle": "oracle"}}
    results = compare.Results("one", [], settings, [], pd.concat([none, oracle]), tests)
    assert results.references()[:2] == (0.0, 0.3)


def test_minutes_have_two_digits(compare: ModuleType) -> None:
    found = [compare.minutes(60 * each) for each in (0.123, 5.5, 99.4, 99.5, 99.96, 100, 1234.5)]
    assert found == ["0.12", "5.5", "99", "100", "100", "100", "1,234"]


def test_pictures_of_many_agents(compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(compare, "DOCS", tmp_path)
    write_experiment(tmp_path, "one", "return", -100, 100)
    write_experiment(tmp_path, "two", "success", 0, 1)
    found = compare.read(tmp_path)
    assert list(found) == ["Env-v0 (one)", "Env-v0 (two)"]
    compare.draw_all(found)
    for name in ("training", "adaptation", "out_of_distribution"):
        assert_picture(tmp_path / "images" / f"agents_{name}.png")
