"""The command line: ``python -m sb3_trmrl`` and the two scripts at the root."""

import importlib
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib import pyplot as plt

import sb3_trmrl
from sb3_trmrl.__main__ import COMMANDS, main
from tests.helpers.zoo import ENV, TINY, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(sb3_trmrl.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Log folder with a run of ``train.py`` in subprocess environments, with many options"""
    folder = tmp_path_factory.mktemp("logs")
    command = ["--algo", "trmrl", "--env", ENV, "-f", str(folder), "-n", "80", "--eval-freq", "40"]
    extras = ["--eval-episodes", "4", "--save-freq", "40", "--vec-env", "subproc", "-P"]
    settings = ["-tb", str(folder / "tensorboard"), "--env-kwargs", "n_pulls:5", "-params", *TINY]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(ROOT / "train.py"), *command, *extras, *settings]
    done = subprocess.run(program, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "80/80" in done.stdout  # the progress bar
    return folder


def test_help_lists_the_commands(capsys: Any) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)
    for command, (module, _) in COMMANDS.items():
        assert callable(getattr(importlib.import_module(f"sb3_trmrl.{module}"), command))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == sb3_trmrl.__version__


@pytest.mark.parametrize("arguments", [["trian"], []])
def test_unknown_command(arguments: list[str], capsys: Any) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(command in captured.err for command in ("train", "enjoy", "record_video", "plot"))
    assert all(repr(command) in captured.err for command in arguments)


def test_help_of_a_command_shows_our_option_and_the_zoos(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--report" in printed and "--eval-freq" in printed and "trmrl" in printed


def test_without_the_zoo_the_extra_is_named(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "sb3_trmrl.cli.train")
    monkeypatch.delattr("sb3_trmrl.cli.train")
    for name in [name for name in sys.modules if name.split(".")[0] == "rl_zoo3"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("registration", "experiment", "report", "hyperparams_opt"):
        monkeypatch.delitem(sys.modules, f"sb3_trmrl.zoo.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    assert main(["train"]) == 1
    assert "sb3_trmrl[zoo]" in capsys.readouterr().err


def test_the_run_is_complete(folder: Path) -> None:
    run = folder / "trmrl" / f"{ENV}_1"
    for name in (f"{ENV}.zip", "best_model.zip", "rl_model_40_steps.zip", "rl_model_80_steps.zip", "evaluations.npz"):
        assert (run / name).is_file(), name
    assert list((folder / "tensorboard" / ENV).glob("*/events*"))
    assert yaml.unsafe_load((run / ENV / "args.yml").read_text())["env_kwargs"] == {"n_pulls": 5}


def test_python_m_and_the_script_do_the_same(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    arguments = ["--env", ENV, "-f", str(folder), "--no-render", "-n", "20"]
    command = [sys.executable, "-m", "sb3_trmrl", "enjoy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", ["enjoy.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "enjoy.py"), run_name="__main__")
    assert not stop.value.code
    # Training had episodes of five pulls, so twenty pulls are four episodes
    assert "4 Episodes" in done.stdout and "4 Episodes" in capsys.readouterr().out


@pytest.mark.parametrize("which", [[], ["--load-best"], ["--load-checkpoint", "40"], ["--n-envs", "2"]])
def test_enjoy_builds_the_environment_of_training(which: list[str], folder: Path, capsys: Any) -> None:
    main(["enjoy", "--algo", "trmrl", "--env", ENV, "-f", str(folder), "--no-render", "-n", "20", *which])
    printed = capsys.readouterr().out
    if "--n-envs" not in which:
        assert "Mean episode length: 5.00 +/- 0.00" in printed


def test_enjoy_looks_where_train_writes(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "logs").symlink_to(folder)
    main(["enjoy", "--env", ENV, "--no-render", "-n", "5"])
    assert "Loading logs/trmrl" in capsys.readouterr().out


def test_enjoy_lets_the_zoo_download_its_agents(tmp_path: Path, monkeypatch: Any) -> None:
    """Only in rl-zoo3's own folder of agents, the agent need not exist."""
    import rl_zoo3.enjoy

    class Asked(Exception):
        pass

    def download(**kwargs: Any) -> None:
        raise Asked(kwargs["algo"], kwargs["env_name"].gym_id, kwargs["folder"])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rl_zoo3.enjoy, "download_from_hub", download)
    with pytest.raises(Asked) as asked:
        main(["enjoy", "--algo", "ppo", "--env", "CartPole-v1", "--folder", "rl-trained-agents/"])
    assert asked.value.args == ("ppo", "CartPole-v1", "rl-trained-agents/")


def test_record_video(folder: Path) -> None:
    main(["record_video", "--env", ENV, "-f", str(folder), "-n", "10", "--load-best"])
    (video,) = (folder / "trmrl" / f"{ENV}_1" / "videos").glob("*.mp4")
    assert video.stat().st_size > 1000


def test_plots(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    # rl-zoo3 compares runs, so it needs two of them
    train(folder, "-n", "80", "--eval-freq", "40", "--eval-episodes", "4")
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.close("all")
    runs = ["-e", ENV, "-f", str(folder)]
    main(["plot", "train", "-a", "trmrl", *runs, "-w", "2", "--save", str(tmp_path / "train.png")])
    (axes,) = plt.gcf().axes
    assert len(axes.lines) == 2
    saved = str(tmp_path / "results")
    main(["plot", "all", "-a", "trmrl", *runs, "-o", saved, "--no-million", "--save", str(tmp_path / "all.png")])
    plt.close("all")
    main(["plot", "from_file", "-i", saved, "--no-million", "--save", str(tmp_path / "from_file.png")])
    plt.close("all")
    for name in ("train", "all", "from_file"):
        pictures = list(tmp_path.glob(f"{name}*.png"))
        assert pictures, name
        assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_plots_that_nobody_would_see(folder: Path, tmp_path: Path, capsys: Any) -> None:
    plt.close("all")
    command = ["plot", "train", "-a", "trmrl", "-e", ENV, "-f", folder]
    error = error_of(command, capsys)
    assert "backend agg" in error.lower() and "--save FILE" in error
    with warnings.catch_warnings():  # a legend without entries
        warnings.simplefilter("ignore")
        error = error_of([*command, "-w", "1000", "--save", tmp_path / "train.png"], capsys)
    assert "--episode-window" in error and not (tmp_path / "train.png").exists()
    plt.close("all")
