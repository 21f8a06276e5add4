"""MetaWorld's tasks: its own lists, their cache, splits and values."""

import copy
import json
import os
import pickle
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl.__main__ import main
from tests.conftest import N_GOALS, N_GOALS_OF_MANY
from tests.helpers.registered import finish, start_without_the_agent
from tests.helpers.zoo import train

metaworld = pytest.importorskip("metaworld")
# Without MetaWorld these could not be imported
from sb3_trmrl.envs import metaworld_tasks  # noqa: E402
from sb3_trmrl.envs.metaworld import _INFO_KEYS, MetaWorldEnv, ML45TrainEnv, _observation_space  # noqa: E402
from sb3_trmrl.envs.metaworld_simulation import ALL_V3_ENVIRONMENTS  # noqa: E402
from sb3_trmrl.envs.metaworld_tasks import class_names, task_lists  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_goals")
CLASSES = {"ML1": (1, 1), "ML10": (10, 5), "ML45": (45, 5)}


def rand_vecs(tasks: Any) -> Any:
    return [(task.env_name, tuple(pickle.loads(task.data)["rand_vec"])) for task in tasks]


@pytest.mark.parametrize(
    "benchmark, task_name, seed, n_goals", [("ML1", "push-v3", 3, N_GOALS), ("ML10", None, 0, N_GOALS_OF_MANY)]
)
def test_lists_are_metaworlds_own(
    benchmark: str, task_name: str | None, seed: int, n_goals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SB3_TRMRL_CACHE", str(tmp_path))  # empty
    task_lists.cache_clear()
    monkeypatch.setattr(metaworld, "_N_GOALS", n_goals)
    theirs = getattr(metaworld, benchmark)(*([task_name] if task_name else []), seed=seed)
    made = task_lists(benchmark, seed, task_name)
    assert list(made.train) == rand_vecs(theirs.train_tasks)
    assert list(made.test) == rand_vecs(theirs.test_tasks)
    task_lists.cache_clear()
    assert task_lists(benchmark, seed, task_name) == made  # from the disk
    # Nothing else differs between tasks, so nothing is lost.
    for task in theirs.train_tasks:
        data = pickle.loads(task.data)
        assert data.keys() == {"rand_vec", "env_cls", "partially_observable"}
        assert data["env_cls"] is ALL_V3_ENVIRONMENTS[task.env_name] and data["partially_observable"]


def test_making_lists_leaves_numpys_generator_alone() -> None:
    before = np.random.get_state()[1].copy()
    task_lists("ML1", 5, "reach-v3")
    assert (np.random.get_state()[1] == before).all()


def test_damaged_files_are_made_again(invented: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = task_lists("ML1", 4, "reach-v3")
    (path,) = (invented / "metaworld").iterdir()
    text = path.read_text()
    content = json.loads(text)
    one_number_off = copy.deepcopy(content)
    one_number_off["tasks"]["train"][7][1][0] += 1e-9
    of_another = {**content, "key": "x"}
    damaged = ["", text[: len(text) // 2], "[]", "{}", json.dumps(one_number_off), json.dumps(of_another)]
    for some_bytes in (*(each.encode() for each in damaged), b"\xff\xfe"):
        path.write_bytes(some_bytes)
        task_lists.cache_clear()
        with pytest.warns(UserWarning, match="damaged"):
            assert task_lists("ML1", 4, "reach-v3") == good
        assert json.loads(path.read_text()) == content
    # Another version of MetaWorld makes its own file.
    monkeypatch.setattr(metaworld_tasks, "version", lambda _: "9.9.9")
    task_lists.cache_clear()
    task_lists("ML1", 4, "reach-v3")
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        path.name.replace(version("metaworld"), "9.9.9"),
    }


def test_without_a_place_to_write_it_works_and_says_so(invented: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (invented / "file").write_text("")
    monkeypatch.setenv("SB3_TRMRL_CACHE", str(invented / "file"))
    with pytest.warns(UserWarning, match="SB3_TRMRL_CACHE"):
        assert len(task_lists("ML1", 0, "reach-v3").train) == 50


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metaworld_tasks.cache_folder() == Path(os.environ["SB3_TRMRL_CACHE"])
    monkeypatch.delenv("SB3_TRMRL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert metaworld_tasks.cache_folder() == Path("/somewhere/sb3_trmrl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(sys, "platform", platform)
        assert metaworld_tasks.cache_folder() == Path.home() / folder / "sb3_trmrl"


def test_processes_that_start_at_once_get_the_same_lists(tmp_path: Path) -> None:
    code = (
        "from sb3_trmrl.envs.metaworld_tasks import task_lists\n"
        "import hashlib\n"
        "print(hashlib.sha256(repr(task_lists('ML1', 9, 'reach-v3')).encode()).hexdigest())\n"
    )
    environment = {"SB3_TRMRL_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    processes = [start_without_the_agent(code, **environment) for _ in range(2)]
    assert len({finish(process)[0] for process in processes}) == 1
    (file,) = (tmp_path / "metaworld").iterdir()  # and no temporary ones
    assert file.suffix == ".json"


@pytest.mark.parametrize("benchmark", CLASSES)
def test_splits_have_nothing_in_common(benchmark: str, invented: Path) -> None:
    n_train, n_test = CLASSES[benchmark]
    env = MetaWorldEnv(benchmark, task_name="push-v3" if benchmark == "ML1" else None)
    of = {split: env.split_tasks(split) for split in ("train", "validation", "test")}
    assert len({*of["train"], *of["validation"], *of["test"]}) == sum(map(len, of.values()))
    assert [len(class_names(tasks)) for tasks in of.values()] == [n_train, n_train, n_test]
    assert {task.name for task in of["validation"]} == {task.name for task in of["train"]}
    if benchmark != "ML1":
        assert not {task.name for task in of["test"]} & {task.name for task in of["train"]}
    drawn = env.draw_tasks(500, np.random.default_rng(0))
    assert set(drawn) <= set(of["train"])
    for split in ("validation", "test"):
        assert env.held_out_tasks(split, 20) == env.held_out_tasks(split) == env.held_out_tasks(split, 40)[:20]
        n_classes = len(class_names(of[split]))
        some = env.held_out_tasks(split, 2 * n_classes)
        assert len(set(some)) == 2 * n_classes
        assert [sum(task.name == name for task in some) for name in class_names(of[split])] == [2] * n_classes
        assert set(env.held_out_tasks(split, len(of[split]))) == set(of[split])
        with pytest.raises(ValueError, match=f"`n` must be at most {len(of[split])}"):
            env.held_out_tasks(split, len(of[split]) + 1)
    assert env.holds_tasks_out


def test_the_real_validation_goals_of_ml1_are_new() -> None:
    env = gym.make("MetaWorldML1-v0", benchmark_seed=3).unwrapped
    of = {split: env.split_tasks(split) for split in ("train", "validation", "test")}
    assert all(len(tasks) == N_GOALS for tasks in of.values())
    assert len({*of["train"], *of["validation"], *of["test"]}) == 3 * N_GOALS
    # The trap: one seed further, what was for tests is for training.
    assert gym.make("MetaWorldML1-v0", benchmark_seed=4).unwrapped.split_tasks("train") == of["test"]


def test_ml45_train_is_evaluated_on_its_training_tasks(invented: Path) -> None:
    env = ML45TrainEnv("ML45")
    train, validation, test = (set(env.split_tasks(split)) for split in ("train", "validation", "test"))
    assert validation | test == train and not validation & test and len(validation) == len(test)
    assert not env.holds_tasks_out
    assert len({task.name for task in env.held_out_tasks("test", 45)}) == 45
    assert gym.make("MetaWorldML45Train-v0").unwrapped.holds_tasks_out is False
    for split in ("validation", "test"):
        in_turn = gym.make("MetaWorldML45Train-v0", split=split).get_wrapper_attr("tasks")
        assert len(in_turn) == 45 == len({task.name for task in in_turn})
        assert len(gym.make("MetaWorldML45-v0", split=split).get_wrapper_attr("tasks")) == 20


class Nothing:
    """In the place of a simulation, where only tasks matter."""

    def __init__(self, class_name: str, *_: Any) -> None:
        self.class_name = class_name
        space = _observation_space()
        self.observation = np.clip(np.zeros(39), space.low, space.high)

    def set_goal(self, task: Any) -> Any:
        assert task.name == self.class_name

    def reset(self) -> Any:
        return self.observation.copy(), {}

    def step(self, action: int) -> Any:
        return self.observation.copy(), 0.0, False, False, dict.fromkeys(_INFO_KEYS, 0.0)


@pytest.mark.parametrize("arguments", [[], ["--n-eval-envs", "4"]], ids=["default", "fewer copies"])
def test_the_zoo_evaluates_ml45_train_once_on_each_class(
    arguments: list[str], invented: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In validation during training, and in the report."""
    monkeypatch.setattr("sb3_trmrl.envs.metaworld.new_simulation", Nothing)
    env_id = "MetaWorldML45Train-v0"
    options = ["--env-kwargs", "horizon:1", "episodes_per_trial:2", "-n", "40", "--eval-freq", "20", *arguments]
    options += ["--checkpoint-freq", "0"]  # the simulation has no state
    run = train(invented, "--algo", "ppo", *options, env=env_id)
    names = set(metaworld.env_dict.ML45_V3["train"])
    with np.load(run / "adaptation.npz") as history:
        visited = [text.split("'")[1] for text in history["task_names"]]
        assert history["returns"].shape == (2, 45, 2)  # two evaluations
        assert all(sorted(each) == list(range(45)) for each in history["tasks"])
    assert set(visited) == names and len(visited) == len(names) == 45

    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert "Returns on 45 test tasks" in capsys.readouterr().out
    returns = json.loads((run / "report.json").read_text())["returns"]["best on validation"]
    assert len(returns["first episode"]["each"]) == 45


def test_an_oracle_is_told_class_and_numbers(invented: Path) -> None:
    env = MetaWorldEnv("ML10")
    longest = max(len(task.rand_vec) for task in env.split_tasks("train"))
    for task in (*env.split_tasks("train")[::50], *env.split_tasks("test")[::50]):
        features = env.task_features(task)
        assert features.shape == (15 + longest,) and features.dtype == np.float32
        assert features[:15].sum() == 1.0
        np.testing.assert_array_equal(features[15 : 15 + len(task.rand_vec)], np.float32(task.rand_vec))
        assert not features[15 + len(task.rand_vec) :].any()
    assert gym.make("MetaWorldML10-v0", reveal_task=True).observation_space["task"].shape == (15 + longest,)


def test_tasks_are_small_values() -> None:
    env = gym.make("MetaWorldML1-v0")
    task = env.reset(seed=0)[1]["task"]
    assert copy.deepcopy(task) is task and len(pickle.dumps(task)) < 300
    again = pickle.loads(pickle.dumps(task))
    assert again == task and hash(again) == hash(task) and task == (task.name, task.rand_vec)
    env.reset(options={"task": ("reach-v3", list(task.rand_vec))})
    assert env.unwrapped.get_task() == task
    env.close()


@pytest.mark.parametrize(
    "task, error",
    [
        ("fast", TypeError),
        (None, TypeError),
        (("reach-v3", "abc"), TypeError),
        (("reach-v3", 1.0), TypeError),
        # MetaWorld would look for a goal farther from the object for ever.
        (("reach-v3", (0.0, 0.6, 0.02, 0.0, 0.6, 0.1)), ValueError),
        (("push-v3", (0.0, 0.6, 0.02, 0.0, 0.9, 0.1)), ValueError),
    ],
)
def test_a_task_of_the_wrong_type_or_value(task: Any, error: type[Exception]) -> None:
    env = gym.make("MetaWorldML1-v0")
    with pytest.raises(error, match="task"):
        env.reset(options={"task": task})
