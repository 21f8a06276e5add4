"""Trained agents from the folder of a run and from a zip."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import ENV, NORMALIZE, TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Path:
    """A run with normalised observations"""
    settings = ["-n", "80", "--eval-freq", "40", "--env-kwargs", "episodes_per_trial:2"]
    return train(tmp_path_factory.mktemp("logs"), *settings, params=[*TINY, NORMALIZE])


def test_open_agent(run: Path) -> None:
    best, last = open_agent(run), open_agent(run, last=True)
    assert best.env_id == ENV and best.env_kwargs == {"episodes_per_trial": 2}
    assert best.vec_normalize is not None and not best.vec_normalize.training
    assert last.model.num_timesteps == 80
    from_zip = open_agent(run / "best_model.zip")
    assert from_zip[1:3] == best[1:3]
    same = [
        evaluate_adaptation(agent.model, ENV, 5, 2, vec_normalize=agent.vec_normalize) for agent in (best, from_zip)
    ]
    assert np.array_equal(same[0].rewards, same[1].rewards)


def test_open_an_agent_of_another_algorithm(tmp_path: Path) -> None:
    run = train(tmp_path, "--algo", "ppo_lstm", "-n", "40", "--eval-freq", "-1")
    assert type(open_agent(run).model).__name__ == "RecurrentPPO"


def test_the_last_model_is_not_replaced_by_the_best_one(run: Path, tmp_path: Path) -> None:
    killed = Path(shutil.copytree(run, tmp_path / run.name))
    (killed / f"{ENV}.zip").unlink()
    with pytest.raises(FileNotFoundError, match=f"{ENV}.zip, the model at the end of training, is missing"):
        open_agent(killed, last=True)
    assert open_agent(killed).model.num_timesteps > 0
    (killed / "best_model.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither .*best_model\.zip nor"):
        open_agent(killed)


def test_open_agent_without_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes((run / "best_model.zip").read_bytes())
    with pytest.raises(ValueError, match="env"):
        open_agent(tmp_path / "model.zip")
    assert open_agent(tmp_path / "model", env=ENV).vec_normalize is None
