"""Checkpoints on disk: whole or not there, the last ones kept, damage noticed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.common import atomic_file as module
from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, find_checkpoint, read_training_state
from tests.helpers.zoo import TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = dict(context_length=3, d_model=8, n_layers=1, n_heads=2, dim_feedforward=8)


def learn(folder: Path, steps: int = 320, **kwargs: Any) -> TransformerPPO:
    """A run with a checkpoint at each rollout of 64 steps."""
    env = make_vec_env("BernoulliBandit-v0", 2, seed=0)
    model = TransformerPPO("TrMRLPolicy", env, n_steps=32, batch_size=64, n_epochs=1, seed=0, policy_kwargs=SMALL)
    return model.learn(steps, callback=TrainingCheckpoint(folder, **{"save_freq": 64, **kwargs}))


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints_in(folder)]


def test_the_last_ones_are_kept_and_spaced(tmp_path: Path) -> None:
    learn(tmp_path / "a", keep=3)
    assert names(tmp_path / "a") == [f"checkpoint_{steps}_steps.zip" for steps in (128, 192, 256)]
    learn(tmp_path / "b", save_freq=100, keep=9)
    assert names(tmp_path / "b") == [f"checkpoint_{steps}_steps.zip" for steps in (0, 128, 256)]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(names(tmp_path / "b"))


def test_what_is_newer_than_where_a_run_was_resumed_goes(tmp_path: Path) -> None:
    learn(tmp_path, keep=9)
    first = checkpoints_in(tmp_path)[1]
    model = TransformerPPO.resume(first, make_vec_env("BernoulliBandit-v0", 2))
    model.learn(192, callback=TrainingCheckpoint(tmp_path, save_freq=64, keep=9))
    assert names(tmp_path) == [f"checkpoint_{steps}_steps.zip" for steps in (0, 64, 128)]


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "text"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    learn(tmp_path, keep=2)
    older, newest = checkpoints_in(tmp_path)
    content = bytearray(newest.read_bytes())
    if damage == "one bit":
        with zipfile.ZipFile(newest) as archive:
            place = archive.getinfo("policy.pth").header_offset + 500
        content[place] ^= 1
    newest.write_bytes({"cut": content[:-100], "one bit": content, "empty": b"", "text": b"hello"}[damage])
    with pytest.warns(UserWarning, match=r"checkpoint_256_steps.zip (is|has) .*: using the one before it"):
        assert find_checkpoint(tmp_path) == older
    with pytest.raises(ValueError, match=r"`path` must be a checkpoint.*checkpoint_256_steps.zip (is|has)"):
        find_checkpoint(newest)
    older.unlink()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="holds no intact checkpoint"):
        find_checkpoint(tmp_path)


def test_half_written_files_are_not_seen_and_swept(tmp_path: Path) -> None:
    learn(tmp_path)
    half = tmp_path / ".checkpoint_999_steps.zip.123.tmp"
    half.write_bytes(checkpoints_in(tmp_path)[-1].read_bytes()[:1000])
    assert find_checkpoint(tmp_path).name == "checkpoint_256_steps.zip"
    TrainingCheckpoint(tmp_path)
    assert not half.exists()


def test_the_state_is_data_and_not_the_model(tmp_path: Path) -> None:
    learn(tmp_path)
    state = read_training_state(find_checkpoint(tmp_path))
    assert state.platform["threads"] == 1 and state.env["n_envs"] == 2
    assert isinstance(state.generators["numpy"][1], np.ndarray)


def test_an_atomic_file_is_synced_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, seen = tmp_path / "file", []
    monkeypatch.setattr(module.os, "fsync", lambda handle: seen.append(target.exists()))
    with atomic_file(target) as file:
        file.write(b"new")
        assert not target.exists()
    # The content first, then the folder with the name in it
    assert seen == [False, True] and target.read_bytes() == b"new"


def test_an_atomic_file_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as file:
        file.write(b"new")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


DISK_FULL = """
import resource, sys
from sb3_trmrl import TrainingCheckpoint, TransformerPPO

class Filling(TrainingCheckpoint):
    def write(self):
        if self.num_timesteps == 192:  # the system lets no file grow beyond 2 kB from here on
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
        return super().write()

kwargs = dict(context_length=3, d_model=8, n_layers=1, n_heads=2, dim_feedforward=8)
model = TransformerPPO("TrMRLPolicy", "BernoulliBandit-v0", n_steps=64, batch_size=64, policy_kwargs=kwargs)
try:
    model.learn(320, callback=Filling(sys.argv[1], save_freq=64))
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file size")
def test_a_full_disk_is_named_and_the_last_checkpoint_intact(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DISK_FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError") and "cannot write the checkpoint" in last and "checkpoint_192_steps.zip" in last
    assert last.endswith(f"the last one, {tmp_path / 'checkpoint_128_steps.zip'}, is intact")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint_{n}_steps.zip" for n in (128, 64)]
    assert find_checkpoint(tmp_path).name == "checkpoint_128_steps.zip"


# -- Command line ------------------------------------------------------------------------------------------------------

OPTIONS = ("-n", "200", "--eval-freq", "40", "--eval-episodes", "2", "--n-eval-envs", "2", "--verbose", "0")


def test_train_resume_goes_on_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", *OPTIONS, "--checkpoint-freq", "80")
    real, updates = TransformerPPO.train, []

    def dies(self: TransformerPPO) -> None:
        updates.append(self.num_timesteps)
        if self.num_timesteps == 160:
            raise MemoryError
        real(self)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(TransformerPPO, "train", dies)
        train(tmp_path / "dead", *OPTIONS, "--checkpoint-freq", "80", "--report")
    (dead,) = (tmp_path / "dead" / "trmrl").iterdir()
    assert names(dead / "checkpoints")[-1] == "checkpoint_80_steps.zip" and not (dead / "report.json").exists()
    assert main(["train", "--resume", str(dead)]) == 0
    assert (dead / "report.json").exists()  # with the options it was begun with
    models = [TransformerPPO.load(run / "BernoulliBandit-v0.zip") for run in (whole, dead)]
    first, second = (model.policy.state_dict() for model in models)
    assert all((first[name] == second[name]).all() for name in first)
    for name in ("evaluations.npz", "adaptation.npz"):
        with np.load(whole / name) as expected, np.load(dead / name) as found:
            assert all((expected[key] == found[key]).all() for key in expected)
    for file in whole.glob("*.monitor.csv"):
        rows = [
            [line.split(",")[:2] for line in (run / file.name).read_text().splitlines()[1:]] for run in (whole, dead)
        ]
        assert rows[0] == rows[1]
    # No second run was begun
    assert len(list((tmp_path / "dead" / "trmrl").iterdir())) == 1


def test_resume_refuses_what_it_cannot_go_on_with(tmp_path: Path, capsys: Any) -> None:
    run = train(tmp_path, *OPTIONS, "--checkpoint-freq", "80")
    without = train(tmp_path, *OPTIONS, "--checkpoint-freq", "0")
    assert not (without / "checkpoints").exists()
    for arguments, message in (
        (["--resume", str(tmp_path / "nothing")], "nothing is not the folder of a run"),
        (["--resume", str(without)], "is neither a checkpoint nor a folder of checkpoints"),
        (["--resume", str(run), "--env", "GridNavi-v0"], "of trmrl on BernoulliBandit-v0, got --env GridNavi-v0"),
        (["--resume", str(run), "--algo", "ppo"], "of trmrl on BernoulliBandit-v0, got --algo ppo"),
        (["--checkpoint-freq", "-1"], "argument --checkpoint-freq: must be 0 or more, got -1"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main(["train", *arguments])
        assert message in capsys.readouterr().err


def test_a_finished_run_is_resumed_to_more_steps(tmp_path: Path) -> None:
    run = train(tmp_path, *OPTIONS, "--checkpoint-freq", "80")
    assert main(["train", "--resume", str(run), "-n", "280"]) == 0
    assert TransformerPPO.load(run / "BernoulliBandit-v0.zip").num_timesteps == 280
    assert "n_envs:2" in TINY  # 40 steps a rollout
