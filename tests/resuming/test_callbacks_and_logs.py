"""What a resumed run restores besides the model and its environment: callbacks, logs and folders."""

import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in
from tests.helpers.resuming import Hooks, make_env, new_model, step_log

pytestmark = pytest.mark.usefixtures("one_thread")


class Collector(BaseCallback):
    """A user's callback: an argument, a count, and a tool that cannot be pickled."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.count = 0
        self.seen: dict[str, list[int]] = {"steps": []}
        self.tool = open(os.devnull)  # noqa: SIM115

    def _on_step(self) -> bool:
        self.count += 1
        self.seen["steps"].append(self.num_timesteps)
        return True

    def _on_training_end(self) -> None:
        self.tool.close()


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_user_callback_continues_with_new_arguments(tmp_path: Path) -> None:
    # Inside another callback, with a progress bar of SB3's around them all
    whole, again = Collector("first"), Collector("second")
    outer, outer_again = (
        EvalCallback(make_env(), callback_after_eval=inner, n_eval_episodes=2, eval_freq=20, verbose=0)
        for inner in (whole, again)
    )
    new_model().learn(256, callback=[TrainingCheckpoint(tmp_path, save_freq=128), outer], progress_bar=True)
    TransformerPPO.resume(tmp_path, make_env()).learn(256, callback=outer_again)
    assert (again.count, again.seen, again.name) == (whole.count, whole.seen, "second")
    assert outer.n_calls == outer_again.n_calls and outer.last_mean_reward == outer_again.last_mean_reward


def test_callback_state_from_before_a_second_learn(tmp_path: Path) -> None:
    evaluation = EvalCallback(make_env(), eval_freq=32, n_eval_episodes=2, verbose=0)
    model = new_model().learn(64, callback=evaluation)
    evaluation.best_mean_reward = 1e6
    model.learn(128, callback=[evaluation, TrainingCheckpoint(tmp_path, save_freq=64)], reset_num_timesteps=False)
    again = EvalCallback(make_env(), eval_freq=32, n_eval_episodes=3, verbose=0)
    TransformerPPO.resume(tmp_path, make_env()).learn(128, callback=again, reset_num_timesteps=False)
    assert again.best_mean_reward == 1e6
    # A changed argument is taken from the new one
    assert again.n_eval_episodes == 3


def test_the_order_of_callbacks_does_not_matter(tmp_path: Path) -> None:
    whole, again = (Hooks(), Hooks()), (Hooks(), Hooks())
    new_model().learn(256, callback=[whole[0], TrainingCheckpoint(tmp_path, save_freq=64), whole[1]])
    TransformerPPO.resume(tmp_path, make_env()).learn(256, callback=list(again))
    assert [each.rollouts for each in again] == [each.rollouts for each in whole] == [4, 4]


def test_missing_callbacks_are_named(tmp_path: Path) -> None:
    new_model().learn(64, callback=[TrainingCheckpoint(tmp_path), Hooks(), Hooks()])
    with pytest.warns(UserWarning, match="had the callbacks Hooks 0, Hooks 1, which the resumed run does not have"):
        TransformerPPO.resume(tmp_path, make_env()).learn(64)


def test_attribute_that_cannot_be_pickled(tmp_path: Path) -> None:
    queueing: Any = Hooks()
    queueing.queue = multiprocessing.Queue()
    new_model().learn(64, callback=[queueing, TrainingCheckpoint(tmp_path)])
    assert checkpoints_in(tmp_path)


def test_attribute_that_can_no_longer_be_pickled(tmp_path: Path) -> None:
    def replace(callback: Any) -> None:
        callback.tool = callback.tool or open(os.devnull)  # noqa: SIM115

    callback: Any = Hooks(end=replace)
    callback.tool = None
    with pytest.warns(UserWarning, match="Hooks 0: tool can no longer be pickled and will not be restored"):
        new_model().learn(128, callback=[TrainingCheckpoint(tmp_path, save_freq=64), callback])
    callback.tool.close()


def test_tensorboard_continues_in_the_folder_of_the_run(tmp_path: Path) -> None:
    log = tmp_path / "tensorboard"

    def files() -> dict[str, int]:
        return {folder.name: len(list(folder.iterdir())) for folder in sorted(log.iterdir())}

    new_model(tensorboard_log=str(log)).learn(128, callback=TrainingCheckpoint(tmp_path / "c", save_freq=64))
    new_model(tensorboard_log=str(log)).learn(64)  # another run, in the meantime
    resumed = TransformerPPO.resume(tmp_path / "c", make_env())
    before = files()
    assert list(before) == ["TransformerPPO_1", "TransformerPPO_2"]
    resumed.learn(128)
    assert files() == {**before, "TransformerPPO_1": before["TransformerPPO_1"] + 1}
    resumed.learn(64)  # a learn of its own has a folder of its own
    assert list(files()) == ["TransformerPPO_1", "TransformerPPO_2", "TransformerPPO_3"]


def test_logs_are_cut_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "run" / "log.txt"
    log.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoint = TrainingCheckpoint("run/checkpoints", save_freq=128, log_files=["run/*.txt"])
    new_model().learn(192, callback=[checkpoint, step_log(log)])
    assert log.read_text().split() == ["64", "128", "192"]
    monkeypatch.chdir(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformerPPO.resume("checkpoints", make_env()).learn(256, callback=step_log(log))
    assert log.read_text().split() == ["64", "128", "192", "256"]


def test_missing_log_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    checkpoint = TrainingCheckpoint(tmp_path / "c", save_freq=64, log_files=[str(log)])
    new_model().learn(128, callback=[checkpoint, step_log(log)])
    log.unlink()
    with pytest.warns(UserWarning, match=r"the log .*log.txt of the interrupted run no longer exists"):
        TransformerPPO.resume(tmp_path / "c", make_env()).learn(128, callback=Hooks())
