"""``export``: agents of runs as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sb3_trmrl import load_agent
from sb3_trmrl.__main__ import main
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from tests.helpers.zoo import DEMO, ENV, error_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_export(run: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "agent.safetensors"
    assert main(["export", str(run), str(path)]) == 0
    assert f"Wrote {path}" in capsys.readouterr().out
    agent = load_agent(path)
    assert (agent.env_id, agent.env_kwargs) == (ENV, {"episodes_per_trial": 2})
    hyperparameters = agent.summary["hyperparameters"]
    # Those of the run, not the placeholders of a loaded model
    assert hyperparameters["n_envs"] == 2 and hyperparameters["normalize"]["norm_obs"] is True
    assert hyperparameters.get("learning_rate") != 0.0 and hyperparameters.get("clip_range") != 0.0
    arguments = ["--n-tasks", "6", "--n-episodes", "3"]
    for model, folder in ((run, tmp_path / "run"), (path, tmp_path / "exported")):
        assert main(["evaluate", str(model), *arguments, "--output", str(folder)]) == 0
        assert main(["analyze", "attention", str(model), "--n-episodes", "2", "--output", str(folder)]) == 0
    results = [AdaptationResult.load(file) for file in sorted(tmp_path.glob("*/adaptation*.npz"))]
    assert len(results) == 2 and np.array_equal(results[0].rewards, results[1].rewards)
    frames = [pd.read_csv(tmp_path / folder / "attention.csv") for folder in ("run", "exported")]
    assert frames[0].equals(frames[1])
    assert main(["export", str(run), str(tmp_path / "last"), "--last", "--env-kwargs", "n_arms:3"]) == 0
    assert main(["export", str(run), str(tmp_path / "small"), "--no-critic", "--dtype", "float16"]) == 0
    assert (tmp_path / "small.safetensors").stat().st_size < path.stat().st_size / 2
    last = load_agent(tmp_path / "last.safetensors")
    assert last.env_kwargs == {"episodes_per_trial": 2, "n_arms": 3} and last.summary["timesteps"] == 80
    assert last.observation_space == agent.observation_space


def test_export_of_other_algorithms_and_damaged_files(logs: Path, tmp_path: Path, capsys: Any) -> None:
    run, path = str(logs / "ppo_lstm" / f"{ENV}_1"), tmp_path / "agent.safetensors"
    assert "must hold a TransformerPPO or TransformerSAC, got RecurrentPPO" in error_of(
        ["export", run, str(path)], capsys
    )
    path.write_bytes(Path(DEMO).read_bytes()[:-1])
    assert f"{path} cannot be loaded as an agent" in error_of(["evaluate", str(path)], capsys)
