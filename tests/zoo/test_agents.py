"""Trained agents from the folder of a run and from a zip."""

from pathlib import Path

import numpy as np
import pytest

from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import ENV

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_open_an_agent_of_another_algorithm(logs: Path) -> None:
    assert type(open_agent(logs / "ppo_lstm" / f"{ENV}_1").model).__name__ == "RecurrentPPO"


def test_a_run_without_its_last_model_has_its_best_one(killed: Path) -> None:
    assert open_agent(killed).model.num_timesteps > 0
    (killed / "best_model.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither .*best_model\.zip nor"):
        open_agent(killed)


def test_a_normalised_run_needs_its_statistics(killed: Path) -> None:
    assert open_agent(killed).vec_normalize is not None  # those beside the best model
    for path in killed.rglob("vecnormalize.pkl"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"trained with `normalize`, but .*{ENV}/vecnormalize\.pkl"):
        open_agent(killed)


def test_open_agent_without_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes((run / "best_model.zip").read_bytes())
    assert open_agent(tmp_path / "model", env=ENV).vec_normalize is None
