"""Files of models: an existing file survives a failed save, and the files of other algorithms are refused."""

import errno
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from tests.helpers.agents import (
    BOX_ACTION,
    TINY,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_equal_weights,
    sampled_vec_env,
    tiny_model,
    with_format,
)


@pytest.fixture
def model() -> Any:
    return tiny_model("CartPole-v1")


@pytest.fixture
def saved(model: Any, tmp_path: Path) -> Path:
    """The model's zip, the only file in its folder."""
    model.save(tmp_path / "model")
    return tmp_path / "model.zip"


def assert_saved(model: Any, path: Path) -> None:
    """The file is the only one in its folder, and holds the current weights."""
    assert os.listdir(path.parent) == [path.name]
    assert_equal_weights(model, TransformerPPO.load(path, device="cpu"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["str", "path", "file", "bytes"])
def test_kinds_of_files(model: Any, tmp_path: Path, kind: str) -> None:
    """Files that are passed open stay open, others are closed."""
    with tempfile.TemporaryFile() as file:
        where: Any = dict(str=str(tmp_path / "model"), path=tmp_path / "model", file=file, bytes=io.BytesIO())[kind]
        model.save(where)
        if kind in ("file", "bytes"):
            assert not where.closed
            where.seek(0)
        loaded = TransformerPPO.load(where, device="cpu")
        assert kind in ("str", "path") or not where.closed
    assert_equal_weights(model, loaded)
    assert os.listdir(tmp_path) == (["model.zip"] if kind in ("str", "path") else [])


@pytest.mark.filterwarnings("ignore:Path")
@pytest.mark.parametrize(
    "name", ["model", "model.zip", "model.pkl", "model_0.5", ".hidden", "new/folder/model", "folder"]
)
@pytest.mark.parametrize("as_string", [True, False])
def test_names_of_files_are_those_of_sb3(tmp_path: Path, name: str, as_string: bool) -> None:
    trees = []
    for algorithm in (PPO("MlpPolicy", "CartPole-v1", device="cpu"), tiny_model("CartPole-v1")):
        root = tmp_path / type(algorithm).__name__
        (root / "folder").mkdir(parents=True)
        path = root / name
        algorithm.save(str(path) if as_string else path)
        trees.append(sorted(str(file.relative_to(root)) for file in root.rglob("*")))
        if name != "folder":  # SB3 tries to read the folder
            type(algorithm).load(str(path) if as_string else path, device="cpu")
    assert trees[0] == trees[1]


def test_saving_again_replaces_the_file(model: Any, saved: Path) -> None:
    model.learn(16).save(saved)
    assert_saved(model, saved)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("older", [True, False])
def test_failed_save_leaves_the_existing_file(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, older: bool
) -> None:
    """The second of three state dictionaries cannot be written, when a part of the zip already is."""
    if older:
        model.save(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == ({"model.zip"} if older else set())
    calls = []
    save = th.save

    def fail(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise error
        save(*args, **kwargs)

    model.learn(16)
    with monkeypatch.context() as patch:
        patch.setattr(th, "save", fail)
        with pytest.raises(ValueError if isinstance(error, OSError) else type(error)):
            model.save(tmp_path / "model")
    assert len(calls) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    model.save(tmp_path / "model")
    assert_saved(model, tmp_path / "model.zip")


def test_attribute_that_cannot_be_saved(model: Any, saved: Path) -> None:
    """The error comes before anything is written."""
    content = saved.read_bytes()
    model.file = open(saved, "rb")  # noqa: SIM115
    with model.file, pytest.raises(TypeError, match="pickle"):
        model.save(saved)
    assert os.listdir(saved.parent) == ["model.zip"] and saved.read_bytes() == content


def test_unwritable_paths(model: Any, tmp_path: Path) -> None:
    """The message names the argument and the path. Nothing is created, and nothing is lost."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "model.zip").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "file" / "model", tmp_path / "model", str(tmp_path / "model.zip"), tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="`path`") as caught:
            model.save(path)
        assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not restrict the superuser")
def test_read_only_folder(model: Any, saved: Path) -> None:
    content = saved.read_bytes()
    saved.parent.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="`path`"):
            model.save(saved)
    finally:
        saved.parent.chmod(0o700)
    assert saved.read_bytes() == content


def test_unwritable_folder_leaves_the_existing_file(model: Any, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a read-only folder, no file can be opened for writing. This also holds for the superuser."""
    content = saved.read_bytes()
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set("wx") & set(mode):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(ValueError, match=r"`path`.*Permission denied"):
            model.save(saved)
    assert os.listdir(saved.parent) == ["model.zip"] and saved.read_bytes() == content


def test_links_are_followed(model: Any, tmp_path: Path) -> None:
    """As with SB3, a link, for example to a larger disk, stays a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "model.zip").symlink_to(tmp_path / "disk" / "model.zip")
    for _ in range(2):
        model.save(tmp_path / "model.zip")
        assert (tmp_path / "model.zip").is_symlink()
        assert os.listdir(tmp_path / "disk") == ["model.zip"]


# -- Other models -----------------------------------------------------------------------------------------------------

SMALL_ROLLOUTS: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu")


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda: PPO("MlpPolicy", "CartPole-v1", **SMALL_ROLLOUTS),
        lambda: PPO("MultiInputPolicy", SampledEnv(TRANSITION), **SMALL_ROLLOUTS),
        lambda: A2C("MlpPolicy", "CartPole-v1", device="cpu"),
        lambda: SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu"),
        lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu"),
        lambda: RecurrentPPO("MlpLstmPolicy", "CartPole-v1", **SMALL_ROLLOUTS),
    ],
    ids=["PPO", "PPO-dict", "A2C", "SAC", "DQN", "RecurrentPPO"],
)
@pytest.mark.parametrize("with_env", [True, False])
def test_zip_of_another_algorithm(tmp_path: Path, algorithm: Callable[[], BaseAlgorithm], with_env: bool) -> None:
    other = algorithm()
    other.save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"{type(other.policy).__name__}.*saved by another algorithm"):
        TransformerPPO.load(tmp_path / "model", env=other.get_env() if with_env else None, device="cpu")


def test_environment_with_other_spaces(tmp_path: Path) -> None:
    tiny_model(SampledEnv(TRANSITION)).save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        TransformerPPO.load(tmp_path / "model", env=SampledEnv(VECTOR))
    with pytest.raises(ValueError, match="Action spaces do not match"):
        TransformerPPO.load(tmp_path / "model", env=SampledEnv(TRANSITION, BOX_ACTION))


def test_no_warning_while_loading(tmp_path: Path) -> None:
    """While a zip is loaded, the constructor sees other values of n_steps and batch_size than those in the zip."""
    tiny_model(sampled_vec_env(3), n_steps=5, batch_size=5).save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(3), device="cpu").learn(30)


def test_zip_names_its_classes(tmp_path: Path) -> None:
    """Loading unpickles public classes only, so that files stay valid when internals change."""
    tiny_model("CartPole-v1", vf_learning_rate=1e-3).save(tmp_path / "model")
    data, _, _ = load_from_zip_file(tmp_path / "model.zip")
    assert data is not None
    assert data["policy_class"] is TrMRLPolicy
    assert data["rollout_buffer_class"] is SequenceRolloutBuffer
    assert data["vf_learning_rate"] == 1e-3


def test_zip_of_another_format_is_refused(saved: Path) -> None:
    """A model that a later version saved in another format is not loaded half."""
    with pytest.raises(ValueError, match=r"has format 4, this version of sb3_trmrl reads 1 to 3"):
        TransformerPPO.load(with_format(saved, 4))


@pytest.mark.parametrize("number", [1, None])
@pytest.mark.parametrize("memory", ["full", "window"])
def test_zips_of_format_1_keep_their_defaults(memory: str, number: int | None, tmp_path: Path) -> None:
    """Then, the full memory had no positions by default, and the window sinusoidal ones."""
    positions = {"full": "none", "window": "sinusoidal"}[memory]
    model = tiny_model("CartPole-v1", dict(memory=memory, positional_encoding=positions))
    model.save(tmp_path / "model")
    old = with_format(tmp_path / "model.zip", number, **{**TINY, "memory": memory})
    loaded = TransformerPPO.load(old)
    assert loaded.policy.transformers[0].positional_encoding == positions
    assert_equal_weights(loaded, model)
    loaded.save(tmp_path / "again")  # has the present format
    assert_equal_weights(TransformerPPO.load(tmp_path / "again"), model)


@pytest.mark.parametrize("number", [1, 2])
def test_older_zips_keep_their_window(number: int, tmp_path: Path) -> None:
    """Then, a window of 16 was the default. The state and the actions are those of the model that was saved."""
    model = tiny_model(sampled_vec_env(2), dict(memory="window", context_length=16, action_head_gain=1.0)).learn(32)
    model.save(tmp_path / "model")
    old = with_format(tmp_path / "model.zip", number, **TINY, action_head_gain=1.0)
    loaded = TransformerPPO.load(old, env=sampled_vec_env(2))
    assert (loaded.policy.memory, loaded.policy.context_length) == ("window", 16)
    assert_equal_weights(loaded, model)
    state, others, starts = None, None, np.ones(2, bool)
    for observation in np.random.default_rng(0).uniform(-1, 1, (20, 2, 3)).astype(np.float32):
        actions, state = model.predict(observation, state, starts, deterministic=True)
        found, others = loaded.predict(observation, others, starts, deterministic=True)
        np.testing.assert_array_equal(found, actions)
        starts = np.zeros(2, bool)
    loaded.learn(32).save(tmp_path / "again")  # has the present format
    assert TransformerPPO.load(tmp_path / "again").policy.memory == "window"


def test_policy_kwargs_may_be_passed_when_loading(saved: Path) -> None:
    """SB3 compares them with those of the zip, whose format may be an older one."""
    loaded = TransformerPPO.load(with_format(saved, 2, **TINY, memory="full"), policy_kwargs={**TINY, "memory": "full"})
    assert loaded.policy.memory == "full"
    window = tiny_model("CartPole-v1", dict(memory="window", context_length=16))
    window.save(saved)
    assert TransformerPPO.load(with_format(saved, 2, **TINY), policy_kwargs=TINY).policy.memory == "window"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin"])
def test_devices_are_not_read(path: str) -> None:
    """Reading them may never end."""
    with pytest.raises(ValueError, match="is not a regular file"):
        TransformerPPO.load(path)


def test_a_link_to_itself(model: Any, tmp_path: Path) -> None:
    link = tmp_path / "model.zip"
    link.symlink_to(link)
    with pytest.raises(ValueError, match="cannot save the model"):
        model.save(link)


def test_files_keep_their_mode(model: Any, saved: Path) -> None:
    """A private file stays private, and no link can be placed where the file is written first."""
    saved.chmod(0o600)
    model.save(saved)
    assert saved.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
