"""Ctrl-C and SIGTERM during training."""

import os
import shlex
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo import experiment, interruption, registration
from sb3_trmrl.zoo.runs import UNFINISHED
from tests.helpers.resuming import assert_same, assert_same_files, checkpoint_steps
from tests.helpers.zoo import ENV, NORMALIZE, TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")


LAST_UPDATE = ("-n", "80", "--eval-freq", "40", "--eval-episodes", "2", "--checkpoint-freq", "1000")


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Send this process signals at the second update. Shells let processes in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def at_second_update(*numbers: signal.Signals, wait: float = 0.0) -> None:
        real, sent = TransformerPPO.train, []

        def interrupted(self: TransformerPPO) -> None:
            if self.num_timesteps == 80 and not sent:
                sent.extend(numbers)
                for number in numbers:
                    os.kill(os.getpid(), number)
                time.sleep(wait)
            real(self)

        monkeypatch.setattr(TransformerPPO, "train", interrupted)

    yield at_second_update
    signal.signal(signal.SIGINT, before)


def resuming_command(printed: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith("  trmrl train")]
    return shlex.split(line)[1:]


NO_CHECKPOINT_DUE = ("-n", "120", "--eval-freq", "40", "--eval-episodes", "2", "--checkpoint-freq", "1000")


def test_ctrl_c(interrupt: Any, tmp_path: Path, capfd: Any) -> None:
    """No step is lost: the resumed run is the one that was not interrupted. The report is written before."""
    whole = train(tmp_path / "whole", *NO_CHECKPOINT_DUE)
    interrupt(signal.SIGINT)
    run = train(tmp_path / "a folder", *NO_CHECKPOINT_DUE, "--report")
    printed, errors = capfd.readouterr()
    assert "Stopping after this rollout" in errors
    assert "Interrupted after 80 steps. Resume from step 80 with" in printed and (run / "report.json").exists()
    assert printed.index("Interrupted") < printed.index("trmrl report") < printed.index("Returns on")
    assert main(resuming_command(printed)) == 0
    models = [TransformerPPO.load(folder / f"{ENV}.zip") for folder in (whole, run)]
    assert models[1].num_timesteps == 120
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(whole, run)


def test_a_second_ctrl_c_stops_at_once(interrupt: Any, tmp_path: Path, capsys: Any) -> None:
    interrupt(signal.SIGINT, signal.SIGINT)
    train(tmp_path, *NO_CHECKPOINT_DUE)
    assert "Resume from step 0, the last checkpoint: the 80 steps after it" in capsys.readouterr().out


def test_a_run_that_is_stopped_in_its_last_update_is_not_finished(interrupt: Any, tmp_path: Path) -> None:
    """Its model has all steps, but not the last update. When it is resumed, it is the one that was not stopped."""
    whole = train(tmp_path / "whole", *LAST_UPDATE)
    interrupt(signal.SIGINT, signal.SIGINT)
    run = train(tmp_path / "stopped", *LAST_UPDATE)
    stopped = TransformerPPO.load(run / f"{ENV}.zip")
    assert stopped.num_timesteps == 80 and (run / UNFINISHED).exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert not (run / UNFINISHED).exists()
    models = [TransformerPPO.load(folder / f"{ENV}.zip") for folder in (whole, run)]
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(whole, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_ends_in_spite_of_an_interruption_is_finished(
    number: signal.Signals, interrupt: Any, tmp_path: Path, capsys: Any
) -> None:
    interrupt(number)
    with pytest.raises(SystemExit) if number == signal.SIGTERM else nullcontext():
        train(tmp_path, *LAST_UPDATE)
    (run,) = (tmp_path / "trmrl").iterdir()
    assert (run / f"{ENV}.zip").exists() and not (run / UNFINISHED).exists()
    assert "--resume" not in capsys.readouterr().out  # nothing is left to be trained


def test_a_run_that_dies_while_it_is_saved_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of observations are saved after the model."""

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(VecNormalize, "save", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path, "-n", "40", "--eval-freq", "-1", params=[*TINY, NORMALIZE])
    (run,) = (tmp_path / "trmrl").iterdir()
    assert (run / f"{ENV}.zip").exists() and (run / UNFINISHED).exists()


def test_without_checkpoints_the_steps_that_are_left_are_named(
    interrupt: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt(signal.SIGINT)
    train(tmp_path / "first", "-n", "120", "--eval-freq", "-1", "--checkpoint-freq", "0")
    command = resuming_command(capsys.readouterr().out)
    assert command[-2:] == ["-n", "40"]
    assert main(command) == 0
    assert TransformerPPO.load(tmp_path / "logs" / "trmrl" / f"{ENV}_1" / f"{ENV}.zip").num_timesteps == 120


@pytest.mark.parametrize(("patience", "checkpoint"), [(60.0, 80), (0.01, 0)])
def test_sigterm(
    patience: float, checkpoint: int, interrupt: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The model is saved without a report, since the process may soon be killed: after the rollout or some seconds,
    whichever is earlier. The handler is removed again.
    """
    monkeypatch.setattr(interruption, "_PATIENCE", patience)
    interrupt(signal.SIGTERM, wait=0.0 if checkpoint else 120.0)
    before = signal.getsignal(signal.SIGTERM)
    start = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, *NO_CHECKPOINT_DUE, "--report")
    assert time.monotonic() - start < 100.0  # the update, which sleeps for longer, has been cut off
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    (run,) = (tmp_path / "trmrl").iterdir()
    assert (run / f"{ENV}.zip").exists() and not (run / "report.json").exists()
    assert resuming_command(capsys.readouterr().out) == ["train", "--resume", str(run)]
    assert checkpoint_steps(run / "checkpoints")[-1] == checkpoint


def test_the_report_can_be_skipped(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "write_report", interrupted)
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0", "--report")
    assert f"`trmrl report {run}`" in capsys.readouterr().out
    assert (run / f"{ENV}.zip").exists()


def test_workers_leave_ctrl_c_to_the_training_process() -> None:
    """The terminal sends it to all processes, and the rollout is finished first."""
    env: Any = registration._make_vec_env_of_rank(
        PendulumEnv, 2, SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}
    )
    env.reset()
    for process in env.processes:
        os.kill(process.pid, signal.SIGINT)
    assert env.step(np.zeros((2, 1), np.float32))[0].shape == (2, 3)
    env.close()
