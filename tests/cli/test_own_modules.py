"""The user's own modules on the command line: where they are found, and errors inside them."""

import sys
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from typing import Any

import gymnasium as gym
import pytest
import yaml

from tests.helpers.agents import tiny_model
from tests.helpers.environments import early_end
from tests.helpers.zoo import ENV, TINY, error_of, train

pytest.importorskip("rl_zoo3")

from sb3_trmrl.__main__ import main
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = ["-n", "40", "--eval-freq", "-1", "--verbose", "0", "--checkpoint-freq", "0"]
#: A module with several mistakes; the command line has none
FAULTY = """
import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from sb3_trmrl import MultiEpisodeTrial
from sb3_trmrl.envs.bandit import BernoulliBanditEnv

class Steps(BaseCallback):
    def __init__(self, **settings):
        super().__init__()
        self.steps = settings["step"]

    def _on_step(self):
        return True

class Family(BernoulliBanditEnv):
    def __init__(self, mistake=None):
        super().__init__()
        self.mistake = mistake
        if mistake == "made":
            len(3)

    def reset(self, *, seed=None, options=None):
        if self.mistake == "reset":
            np.zeros(2).reshape(3)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.mistake == "step":
            int("three")
        return super().step(action)

def trials(episodes_per_trial=1, render_mode=None, **kwargs):
    return MultiEpisodeTrial(Family(**kwargs), episodes_per_trial=episodes_per_trial)

gym.register("Faulty-v0", trials)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that writes an importable module"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    written: list[str] = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)
    for env_id in ("Faulty-v0", "Beach-v0"):
        gym.registry.pop(env_id, None)


def innermost(error: BaseException) -> str:
    """Return the module of the line that raised the error."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"])


def test_a_callback_that_fails_shows_its_traceback(module: Callable[[str, str], str]) -> None:
    name = module("faulty", FAULTY)
    with pytest.raises(KeyError, match="step") as caught:
        main(["train", "--env", ENV, *SHORT, "-params", *TINY, f"callback:[{{'{name}.Steps': dict(steps=4)}}]"])
    assert innermost(caught.value) == name


@pytest.mark.parametrize(("mistake", "error"), [("made", TypeError), ("reset", ValueError), ("step", ValueError)])
def test_an_environment_that_fails_shows_its_traceback(
    mistake: str, error: type[Exception], module: Callable[[str, str], str]
) -> None:
    name = module("faulty", FAULTY)
    __import__(name)
    tiny_model("Faulty-v0").save("model.zip")
    given = ["--env", "Faulty-v0", "--env-kwargs", f"mistake:'{mistake}'"]
    with pytest.raises(error):
        main(["train", *given, *SHORT, "-params", *TINY])
    with pytest.raises(error):
        main(["evaluate", "model.zip", *given, "--n-tasks", "2", "--n-episodes", "1"])


def test_a_module_that_fails_shows_its_traceback(module: Callable[[str, str], str]) -> None:
    name = module("broken", "import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        main(["train", "--env", ENV, *SHORT, "--gym-packages", name])
    assert caught.value.name == "no_such_module"
    params = module("own_params", "hyperparams = {}['missing']\n")
    with pytest.raises(KeyError, match="missing"):
        main(["train", "--env", ENV, *SHORT, "--conf-file", params])


def test_what_fails_before_training_leaves_no_folder(module: Callable[[str, str], str], capsys: Any) -> None:
    """``enjoy`` would take it for the newest run"""
    name = module("faulty", FAULTY)
    kept = train(Path("logs"), *SHORT)
    for wrong, error in (
        (["gamma:2"], SystemExit),
        (["policy_kwargs:dict(depth=3)"], SystemExit),
        ([f"callback:[{{'{name}.Steps': dict(steps=4)}}]"], KeyError),
    ):
        with pytest.raises(error):
            main(["train", "--env", ENV, *SHORT, "-params", *TINY, *wrong])
    assert list(kept.parent.iterdir()) == [kept]
    assert main(["enjoy", "--env", ENV, "-n", "5", "--no-render"]) == 0
    assert str(kept / f"{ENV}.zip") in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.* is not an intact zip")
def test_a_run_that_cannot_be_resumed_keeps_its_folder(module: Callable[[str, str], str]) -> None:
    run = train(Path("logs"), "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "20")
    before = sorted(run.rglob("*"))
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run)])
    assert sorted(run.rglob("*")) == before


FAMILY = """
import gymnasium as gym
from tests.helpers.environments import early_end
gym.register(id="Beach-v0", entry_point=early_end)
"""


@pytest.mark.filterwarnings("ignore:the environment, or a wrapper around it, cannot give its state")
def test_a_run_needs_the_module_of_its_environment(
    module: Callable[[str, str], str], tmp_path: Path, capsys: Any
) -> None:
    """Commands import it, and name it if it is no longer there."""
    module("beach", FAMILY)
    run = train(tmp_path / "logs", *SHORT, "--gym-packages", "beach", "--checkpoint-freq", "20", env="Beach-v0")
    del gym.registry["Beach-v0"], sys.modules["beach"]
    assert main(["evaluate", str(run), "--n-tasks", "3", "--n-episodes", "2"]) == 0
    assert AdaptationResult.load(run / "adaptation_test_n_tasks=3_n_episodes=2.npz").returns.shape == (3, 2)
    Path("beach.py").unlink()
    del sys.modules["beach"]
    with pytest.raises(ImportError, match="module 'beach', which cannot be imported"):
        Run(run)
    for command in (["train", "--resume", str(run)], ["evaluate", str(run)], ["report", str(run)]):
        assert "the run needs the module 'beach', which cannot be imported from here" in error_of(command, capsys)


def test_gym_packages_of_an_exported_agent(module: Callable[[str, str], str], capsys: Any) -> None:
    gym.register(id="Beach-v0", entry_point=early_end)
    tiny_model("Beach-v0").export("agent")
    del gym.registry["Beach-v0"]
    module("beach", FAMILY)
    counts = ["--n-tasks", "2", "--n-episodes", "1"]
    error_of(["evaluate", "agent.safetensors", *counts], capsys)
    assert main(["evaluate", "agent.safetensors", *counts, "--gym-packages", "beach"]) == 0
    assert AdaptationResult.load("adaptation_test_agent_n_tasks=2_n_episodes=1.npz").returns.shape == (2, 1)
    for command in (["evaluate", "agent.safetensors"], ["push", "agent.safetensors", "me/agent"]):
        error = error_of([*command, "--gym-packages", "no_such_module"], capsys)
        assert "--gym-packages must be modules that can be imported, got 'no_such_module'" in error


def test_the_module_before_an_id_does_not_change_the_environment(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(Path("logs"), *SHORT, "--env-kwargs", "n_pulls:5", "episodes_per_trial:1")
    tiny_model(gym.make(ENV, n_pulls=5, episodes_per_trial=1)).export("agent")
    run_kwargs = yaml.unsafe_load((run / ENV / "args.yml").read_text())["env_kwargs"]
    for path, kwargs in ((run, run_kwargs), (Path("agent.safetensors"), {"n_pulls": 5, "episodes_per_trial": 1})):
        for env in (None, ENV, f"sb3_trmrl:{ENV}"):
            assert open_agent(path, env).env_kwargs == kwargs
        assert open_agent(path, "GridNavi-v0").env_kwargs == {}
