"""How commands start: what they import, where they find modules of the user, and how many threads they take."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import pytest
import torch as th
import yaml

import sb3_trmrl
from tests.helpers.agents import tiny_model
from tests.helpers.zoo import ENV, TINY, error_of, train

pytest.importorskip("rl_zoo3")

from sb3_trmrl.__main__ import COMMANDS, main
from sb3_trmrl.common.methods import IMPLEMENTATIONS

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = ["-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0"]


def python(code: str) -> str:
    """Run code in a new process, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- Imports ----------------------------------------------------------------------------------------------------------

HELP = """
import sys
from sb3_trmrl.__main__ import main

for line in {lines}:
    try:
        main(line)
    except SystemExit:
        pass
    heavy = {{"torch", "stable_baselines3", "rl_zoo3", "matplotlib", "pandas"}} & set(sys.modules)
    assert not heavy, (line, heavy)
"""


def test_help_and_wrong_options_import_no_pytorch() -> None:
    kinds = (
        "analyze online",
        "analyze all",
        "experiment run",
        "experiment report",
        "plot train",
        "plot all",
        "plot from_file",
    )
    lines = [[*command.split(), "--help"] for command in [*COMMANDS, *kinds]]
    lines += [["--help"], ["--version"], ["train", "--seed", "x"], ["evaluate"], ["enjoy", "--algo", "sarsa"]]
    printed = python(HELP.format(lines=lines))
    assert all(f"usage: trmrl {command}" in printed for command in [*COMMANDS, *kinds])
    assert sb3_trmrl.__version__ in printed


def test_environments_are_registered_without_pytorch() -> None:
    python(
        "import sys, gymnasium as gym, sb3_trmrl\n"
        "for name in ('BernoulliBandit-v0', 'HalfCheetahVel-v0', 'GridNavi-v0'): gym.make(name).reset(seed=0)\n"
        "from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation, share_tasks\n"
        "assert 'torch' not in sys.modules"
    )


def test_the_algorithm_finds_what_packages_above_it_implement() -> None:
    methods = {name: resolve_name(entry_point) for name, entry_point in IMPLEMENTATIONS.items()}
    for name, function in methods.items():
        own = inspect.signature(getattr(sb3_trmrl.TransformerPPO, name)).parameters
        assert list(inspect.signature(function).parameters)[1:] == [each for each in own if each != "self"]
    assert set(methods) == {"export", "export_onnx", "resume"}


def test_all_public_names_exist() -> None:
    assert set(sb3_trmrl.__all__) <= set(dir(sb3_trmrl))
    for name in sb3_trmrl.__all__:
        assert getattr(sb3_trmrl, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'sb3_trmrl' has no attribute 'TransformerPP'"):
        _ = sb3_trmrl.TransformerPP  # type: ignore[attr-defined]


# -- Modules of the user ----------------------------------------------------------------------------------------------

FAMILY = """
import gymnasium as gym
from tests.helpers.environments import early_end
gym.register(id="Beach-v0", entry_point=early_end)
"""


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """A folder with a module, in which the script ``trmrl`` starts: Python does not search it for modules"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "beach.py").write_text(FAMILY)
    yield tmp_path
    forget()


def forget() -> None:
    """Let the next command start as in a new process."""
    sys.path[:] = [path for path in sys.path if path != os.getcwd()]
    sys.modules.pop("beach", None)
    gym.registry.pop("Beach-v0", None)


def test_all_commands_import_the_module_of_a_run(own_folder: Path, capsys: Any) -> None:
    run = train(Path("logs"), *SHORT, "--gym-packages", "beach", env="Beach-v0")
    counts = ["--n-tasks", "2", "--n-episodes", "1"]
    for command in (
        ["evaluate", str(run), *counts],
        ["analyze", "online", str(run), "--n-tasks", "2", "--window", "1"],
        ["export", str(run), "agent"],
        ["enjoy", "--env", "Beach-v0", "--no-render", "-n", "5"],
        ["enjoy", "--env", "Beach-v0", "--no-render", "-n", "5", "--exp-id", "1"],
        ["report", str(run)],
        ["train", "--env", "Beach-v0", *SHORT, "-i", str(run / "Beach-v0.zip")],
        ["evaluate", "logs/trmrl/Beach-v0_2", *counts],  # the run that continued the first one
        ["evaluate", "agent.safetensors", *counts, "--gym-packages", "beach"],
        ["evaluate", "agent.safetensors", *counts, "--env", "beach:Beach-v0"],
    ):
        forget()
        assert main(command) == 0, command
    forget()
    assert "Beach" in error_of(["evaluate", "agent.safetensors", *counts], capsys)


def test_an_exported_agent_alone_imports_nothing_from_the_current_folder(own_folder: Path) -> None:
    tiny_model(ENV).export("agent")
    before = list(sys.path)
    assert main(["evaluate", "agent.safetensors", "--n-tasks", "2", "--n-episodes", "1"]) == 0
    assert sys.path == before


def test_installed_packages_come_first(own_folder: Path) -> None:
    (own_folder / "yaml.py").write_text("raise RuntimeError")
    train(own_folder / "logs", *SHORT)
    assert sys.path[-1] == str(own_folder)


# -- Threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: Any) -> list[int]:
    """Numbers of threads that PyTorch is told to use"""
    found: list[int] = []
    monkeypatch.setattr(th, "set_num_threads", found.append)
    return found


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        ([], None, [1]),
        ([], "2", [2]),
        ([], "2,1", [2]),
        (["--num-threads", "3"], "2", [3]),
        (["--num-threads", "-1"], "2", []),
    ],
)
def test_threads_of_training(
    given: list[str],
    variable: str | None,
    expected: list[int],
    taken: list[int],
    tmp_path: Path,
    capsys: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable or "")
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "20", *given)
    assert taken == expected
    default = th.get_num_threads()  # PyTorch's
    assert f"Threads of PyTorch: {(expected or [default])[0]} " in capsys.readouterr().out
    assert os.environ["OMP_NUM_THREADS"] == (variable or "1")  # for worker processes
    # A resumed run takes the same number, whatever the variable says now
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    main(["train", "--resume", str(run)])
    assert taken == 2 * expected
    main(["train", "--resume", str(run), "--num-threads", "6"])
    assert taken == [*expected, *expected, 6]


def test_threads_of_watching(run: Path, taken: list[int], monkeypatch: Any) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = ["enjoy", "--env", ENV, "-f", str(run.parents[1]), "--no-render", "-n", "5"]
    main([*command, "--num-threads", "2"])
    main(command)
    assert taken == [2, 1]


# -- Options ----------------------------------------------------------------------------------------------------------


def test_words_as_values(tmp_path: Path) -> None:
    words = [*TINY, "policy:TrMRLPolicy", "learning_rate:lin_3e-4"]
    run = train(tmp_path, *SHORT, "--env-kwargs", "split:train", "--eval-env-kwargs", "split:test", params=words)
    saved = yaml.unsafe_load((run / ENV / "args.yml").read_text())
    assert (saved["env_kwargs"]["split"], saved["eval_env_kwargs"]) == ("train", {"split": "test"})
    assert saved["hyperparams"]["learning_rate"] == "lin_3e-4"


def test_tracking_without_wandb_ends_before_training(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "argument --track: needs the package wandb" in error_of(["train", "--env", ENV, "--track"], capsys)
    assert not list(tmp_path.iterdir())
