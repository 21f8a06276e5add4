"""Checkpoints on disk: complete or not there, the newest ones kept, damage and misuse noticed."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EveryNTimesteps
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, find_checkpoint, read_training_state
from tests.helpers.resuming import checkpoint_steps, make_env, new_model

pytestmark = pytest.mark.usefixtures("one_thread")


def learn(folder: Path, steps: int = 320, **kwargs: Any) -> TransformerPPO:
    """A run with a checkpoint at each rollout of 64 steps."""
    model = new_model(make_env("BernoulliBandit-v0"))
    return model.learn(steps, callback=TrainingCheckpoint(folder, **{"save_freq": 64, **kwargs}))


def test_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    learn(tmp_path / "a", keep=3)
    assert checkpoint_steps(tmp_path / "a") == [128, 192, 256]
    learn(tmp_path / "b", save_freq=100, keep=9)
    names = [f"checkpoint_{steps}_steps.zip" for steps in (0, 128, 256)]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names


def test_many_short_learns_write_checkpoints_too(tmp_path: Path) -> None:
    checkpoint, model = TrainingCheckpoint(tmp_path, save_freq=100, keep=9), new_model()
    for index in range(5):
        model.learn(64, callback=checkpoint, reset_num_timesteps=index == 0)
    assert checkpoint_steps(tmp_path) == [0, 128, 256]


def test_inside_another_callback(tmp_path: Path) -> None:
    new_model().learn(128, callback=EveryNTimesteps(1000, TrainingCheckpoint(tmp_path, save_freq=64)))
    assert len(checkpoints_in(tmp_path)) == 2


def test_checkpoints_newer_than_the_resumed_one_are_removed(tmp_path: Path) -> None:
    learn(tmp_path, keep=9)
    model = TransformerPPO.resume(checkpoints_in(tmp_path)[1], make_env("BernoulliBandit-v0"))
    model.learn(192, callback=TrainingCheckpoint(tmp_path, save_freq=64, keep=9))
    assert checkpoint_steps(tmp_path) == [0, 64, 128]


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "text"])
def test_damaged_checkpoint_is_skipped(damage: str, tmp_path: Path) -> None:
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


def test_incomplete_files_are_ignored_and_removed(tmp_path: Path) -> None:
    learn(tmp_path)
    half = tmp_path / ".checkpoint_999_steps.zip.123.tmp"
    half.write_bytes(checkpoints_in(tmp_path)[-1].read_bytes()[:1000])
    assert find_checkpoint(tmp_path).name == "checkpoint_256_steps.zip"
    TrainingCheckpoint(tmp_path)
    assert not half.exists()


def test_a_checkpoint_is_a_model_and_data(tmp_path: Path) -> None:
    learn(tmp_path)
    path = find_checkpoint(tmp_path)
    state = read_training_state(path)
    assert state.platform["threads"] == 1 and state.env["n_envs"] == 2
    assert isinstance(state.generators["numpy"][1], np.ndarray)
    model = TransformerPPO.load(path)
    assert model.num_timesteps == 256 and model.start_from is None


DISK_FULL = """
import resource, sys
from sb3_trmrl import TrainingCheckpoint
from tests.helpers.resuming import new_model

class Filling(TrainingCheckpoint):
    def write(self):
        if self.num_timesteps == 192:  # the system lets no file grow beyond 2 kB from here on
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
        return super().write()

try:
    new_model().learn(320, callback=Filling(sys.argv[1], save_freq=64))
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file size")
def test_a_full_disk_is_named_and_the_last_checkpoint_intact(tmp_path: Path) -> None:
    command, root = [sys.executable, "-c", DISK_FULL, str(tmp_path)], Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError") and "cannot write the checkpoint" in last and "checkpoint_192_steps.zip" in last
    assert last.endswith(f"the last one, {tmp_path / 'checkpoint_128_steps.zip'}, is intact")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint_{n}_steps.zip" for n in (128, 64)]
    assert find_checkpoint(tmp_path).name == "checkpoint_128_steps.zip"


# -- Misuse ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run with VecNormalize."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    new_model(VecNormalize(make_env())).learn(192, callback=TrainingCheckpoint(folder, save_freq=64))
    return folder


@pytest.mark.parametrize(
    ("env", "path", "error", "message"),
    [
        (lambda: VecNormalize(make_env(n_envs=3)), "", ValueError, r"must have 2 environments, as .*; it has 3"),
        (make_env, "", ValueError, r"`env` must be VecNormalize around DummyVecEnv.*it is DummyVecEnv"),
        (lambda: VecNormalize(make_env("GridNavi-v0")), "", ValueError, "Observation spaces do not match"),
        (make_env, "..", FileNotFoundError, "holds no intact checkpoint"),
    ],
    ids=["number", "wrappers", "spaces", "no checkpoints"],
)
def test_resume_checks_path_and_env(
    checkpoints: Path, env: Callable[[], Any], path: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TransformerPPO.resume(checkpoints / path, env())


def test_a_checkpoint_of_another_format_is_refused(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_trmrl.resuming.checkpoint_files._READABLE", (98, 99))
    with pytest.raises(ValueError, match=r"`path` must be a checkpoint of format 98 or 99, .* has format \d"):
        TransformerPPO.resume(checkpoints, VecNormalize(make_env()))


def test_checkpoints_of_sb3_are_refused(tmp_path: Path) -> None:
    new_model().learn(64, callback=CheckpointCallback(32, str(tmp_path), name_prefix="checkpoint"))
    (file,) = tmp_path.glob("*.zip")
    with pytest.raises(ValueError, match=r"has no training_state.pkl: it was truncated, or it is a model"):
        TransformerPPO.resume(file, make_env())


def test_misuse_of_the_callback_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="TrainingCheckpoint is for the algorithms of sb3_trmrl, got PPO"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(64, callback=TrainingCheckpoint(tmp_path))
    with pytest.raises(ValueError, match=r"`folder` already holds .*checkpoint_128_steps.zip of another run"):
        new_model().learn(64, callback=TrainingCheckpoint(checkpoints))
