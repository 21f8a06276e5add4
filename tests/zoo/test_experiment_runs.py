"""An experiment that is killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from stable_baselines3.common.callbacks import BaseCallback

from sb3_trmrl import TransformerPPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from sb3_trmrl.zoo.experiment_file import Training, read_experiment
from sb3_trmrl.zoo.experiment_runs import (
    RECORD,
    RESUMED_WITH,
    State,
    _add_this_machine,
    about_this_machine,
    other_settings,
    record_of,
    run_folder,
    state_of,
)
from sb3_trmrl.zoo.run_lock import RunLock
from sb3_trmrl.zoo.runs import UNFINISHED
from tests.helpers.resuming import assert_same, everything_learned
from tests.helpers.wrong_use import refused
from tests.helpers.zoo import ENV

pytestmark = pytest.mark.usefixtures("one_thread")

#: Environment variable that lets a run wait after its first checkpoint
WAITS = "SB3_TRMRL_TEST_WAITS"


class Waits(BaseCallback):
    """Waits after 200 steps to be killed, if the environment variable is set."""

    def _on_step(self) -> bool:
        if WAITS in os.environ and self.num_timesteps > 200:
            time.sleep(600)
        return True


class Stops(BaseCallback):
    """Ends training after its first step."""

    def _on_step(self) -> bool:
        return False


EXPERIMENT = f"""
environment: {ENV}
n_evaluations: 2
seeds: [0]
hyperparams: {{n_envs: 2, n_steps: 20, batch_size: 20, n_epochs: 1}}
agents:
  PPO: {{algo: ppo, n_timesteps: 40}}
  wrong: {{arguments: [--vec-env, threads]}}
  TrMRL: {{n_timesteps: 400, hyperparams: {{callback: {__name__}.Waits}}}}
"""
OPTIONS = ["--jobs", "3", "--checkpoint-freq", "200"]


def trainings(file: Path) -> dict[str, Training]:
    return {each.agent: each for each in read_experiment(file, file.parent / "runs").trainings}


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def state(training: Training) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in training.folder.rglob("*") if path.suffix in (".zip", ".json")}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An experiment that was killed with all of its processes: PPO was finished, TrMRL had written a checkpoint"""
    file = tmp_path_factory.mktemp("experiment") / "tiny.yml"
    file.write_text(EXPERIMENT)
    found = trainings(file)

    def has_checkpoint() -> bool:
        folder = run_folder(found["TrMRL"])
        checkpoints = checkpoints_in(folder / "checkpoints") if folder and (folder / "checkpoints").is_dir() else []
        return bool(checkpoints) and steps_of(checkpoints[-1]) > 0

    command = [sys.executable, "-m", "sb3_trmrl", "experiment", "run", str(file), "--folder", str(file.parent / "runs")]
    # Before, so that nothing has to be waited for when TrMRL has written its checkpoint
    assert main([*command[3:], *OPTIONS, "--only", "PPO/0"]) == 0
    with (file.parent / "log").open("w") as log:
        environment = {**os.environ, WAITS: "1"}
        process = subprocess.Popen(
            [*command, *OPTIONS], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(has_checkpoint)
        assert state_of(found["TrMRL"]) is State.ELSEWHERE
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    yield file


def test_what_is_finished_is_not_repeated_and_what_was_interrupted_is_resumed(killed: Path, capsys: object) -> None:
    found = trainings(killed)
    states = {name: state_of(training) for name, training in found.items()}
    assert states == {"PPO": State.FINISHED, "wrong": State.INTERRUPTED, "TrMRL": State.RESUMABLE}
    before = state(found["PPO"])
    folder = run_folder(found["TrMRL"])
    assert before and folder is not None
    with pytest.raises(SystemExit) as stop:
        main(["experiment", "run", str(killed), "--folder", str(killed.parent / "runs"), *OPTIONS])
    assert stop.value.code == 1
    printed = capsys.readouterr()  # type: ignore[attr-defined]
    assert "2 of 3 runs are finished" in printed.out
    assert f"failed: {ENV}/wrong/0" in printed.err and "'threads'" in printed.err
    assert state_of(found["TrMRL"]) is State.FINISHED and run_folder(found["TrMRL"]) == folder
    assert f"Resuming from {folder}" in (found["TrMRL"].folder / "train.log").read_text()
    assert state(found["PPO"]) == before

    whole = killed.parent / "whole"
    assert main(["train", *found["TrMRL"].arguments, "--num-threads", "1", "-f", str(whole)]) == 0
    learned = [
        everything_learned(TransformerPPO.load(path / f"{ENV}.zip")) for path in (whole / "trmrl" / f"{ENV}_1", folder)
    ]
    for key in ("parameters", "parts", "episodes"):
        assert_same(*(each[key] for each in learned))


def test_other_settings_are_refused(killed: Path) -> None:
    content = yaml.safe_load(killed.read_text())
    content["hyperparams"]["n_epochs"] = 2
    other = killed.with_name("other.yml")
    other.write_text(yaml.safe_dump(content))
    found = trainings(other)
    with refused(ValueError, "hyperparams.n_epochs=1 instead of 2", str(found["PPO"].folder), "--folder"):
        state_of(found["PPO"])
    # Nothing is lost if a run whose settings were wrong is trained with others
    assert state_of(found["wrong"]) is State.INTERRUPTED


def test_null_is_not_the_same_as_a_missing_setting(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yml"
    file.write_text(EXPERIMENT)
    training = trainings(file)["PPO"]
    training.folder.mkdir(parents=True)
    (training.folder / RECORD).write_text(json.dumps({"settings": training.settings}))
    content = yaml.safe_load(EXPERIMENT)
    content["hyperparams"]["target_kl"] = None
    del content["hyperparams"]["n_epochs"]
    file.write_text(yaml.safe_dump(content))
    differences = other_settings(trainings(file)["PPO"]).split(", ")
    assert "hyperparams.target_kl=not set instead of None" in differences
    assert any(each.startswith("hyperparams.n_epochs=1 instead of") for each in differences)


def test_a_dry_run_and_patterns(killed: Path, capsys: object) -> None:
    options = ["--folder", str(killed.parent / "runs"), "--dry-run", "--only", "PPO/*", f"{ENV}/w*/0"]
    assert main(["experiment", "run", str(killed), *options]) == 0
    lines = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert lines[0] == f"{ENV}/PPO/0: finished" and lines[2] == f"{ENV}/wrong/0: interrupted, starts again"
    assert len(lines) == 4 and "-m sb3_trmrl train --algo trmrl" in lines[3]


def test_a_run_that_another_process_trains_is_left_alone(killed: Path, capsys: object) -> None:
    (training,) = (each for each in trainings(killed).values() if each.agent == "wrong")
    record = (training.folder / RECORD).read_text()
    lock = RunLock(training.folder)
    try:
        options = ["--folder", str(killed.parent / "runs"), "--only", "wrong/0"]
        assert main(["experiment", "run", str(killed), *options]) == 0
    finally:
        lock.release()
    assert "1 runs are trained by other processes" in capsys.readouterr().out  # type: ignore[attr-defined]
    assert (training.folder / RECORD).read_text() == record
    assert json.loads(record)["with"]["cpus"] == os.cpu_count()


def test_a_run_that_was_stopped_in_its_last_update_is_resumed(killed: Path) -> None:
    """Its model has all steps. The record names all machines and versions that trained the run."""
    training = trainings(killed)["PPO"]
    folder = run_folder(training)
    assert folder is not None and state_of(training) is State.FINISHED
    (folder / UNFINISHED).touch()
    assert state_of(training) is State.RESUMABLE
    first = {**about_this_machine(), "cpus": -1}
    record = json.loads((training.folder / RECORD).read_text())
    (training.folder / RECORD).write_text(json.dumps({**record, "with": first}))
    assert main(["experiment", "run", str(killed), "--folder", str(killed.parent / "runs"), "--only", "PPO/0"]) == 0
    assert f"Resuming from {folder}" in (training.folder / "train.log").read_text()
    assert state_of(training) is State.FINISHED and not (folder / UNFINISHED).exists()
    expected = {**record, "with": first, RESUMED_WITH: [about_this_machine()]}
    assert record_of(training) == expected
    _add_this_machine(training)  # if it were resumed once more
    assert record_of(training) == expected


def test_a_folder_of_something_else_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yml"
    file.write_text(EXPERIMENT)
    training = trainings(file)["PPO"]
    (training.folder / "precious").mkdir(parents=True)
    with refused(ValueError, str(training.folder), RECORD):
        state_of(training)


def test_a_run_that_a_callback_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stops.yml"
    settings = {"n_envs": 1, "n_steps": 20, "batch_size": 20, "callback": f"{__name__}.Stops"}
    agents = {"PPO": {"algo": "ppo", "n_timesteps": 40, "hyperparams": settings}}
    file.write_text(yaml.safe_dump({"environment": ENV, "n_evaluations": 2, "seeds": [0], "agents": agents}))
    with pytest.raises(SystemExit):
        main(["experiment", "run", str(file), "--folder", str(tmp_path / "runs"), "--jobs", "1"])
    assert "it ended before its 40 steps, see" in " ".join(capsys.readouterr().err.split())
