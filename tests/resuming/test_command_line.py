"""``train --resume``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_trmrl import TransformerPPO
from sb3_trmrl.__main__ import main
from tests.helpers.resuming import assert_same, assert_same_files, checkpoint_steps, train_until
from tests.helpers.zoo import TINY, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")

NO_EVALUATION = ("--eval-freq", "-1", "--verbose", "0")
EVALUATED = ("-n", "200", "--eval-freq", "40", "--eval-episodes", "2", "--n-eval-envs", "2", "--verbose", "0")
OPTIONS = (*EVALUATED, "--checkpoint-freq", "80")


def test_train_resume_continues_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", *OPTIONS)
    dead = train_until(160, tmp_path / "dead", monkeypatch, *OPTIONS, "--report")
    assert checkpoint_steps(dead / "checkpoints")[-1] == 80 and not (dead / "report.json").exists()
    assert main(["train", "--resume", str(dead)]) == 0
    assert (dead / "report.json").exists()  # the options of the interrupted command are used
    models = [TransformerPPO.load(run / "BernoulliBandit-v0.zip") for run in (whole, dead)]
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(whole, dead)
    # No second run has begun
    assert len(list((tmp_path / "dead" / "trmrl").iterdir())) == 1


def test_resume_refuses_another_environment_or_algorithm(tmp_path: Path, capsys: Any) -> None:
    run = train(tmp_path, *OPTIONS)
    for option, value in (("--env", "GridNavi-v0"), ("--algo", "ppo")):
        error = error_of(["train", "--resume", run, option, value], capsys)
        assert f"trains trmrl on BernoulliBandit-v0, got {option} {value}" in error


def test_finished_run_continues_to_more_steps(tmp_path: Path) -> None:
    run = train(tmp_path, *OPTIONS)
    # As if these numbers had been the defaults when the run began
    saved = run / "BernoulliBandit-v0" / "command_line.json"
    saved.write_text(saved.read_text().replace('"--eval-episodes", "2", "--n-eval-envs", "2", ', ""))
    assert "--eval-episodes" not in saved.read_text()
    assert main(["train", "--resume", str(run), "-n", "280"]) == 0
    assert TransformerPPO.load(run / "BernoulliBandit-v0.zip").num_timesteps == 280
    assert np.load(run / "evaluations.npz")["results"].shape == (7, 2)
    assert "n_envs:2" in TINY  # 40 steps a rollout


def test_a_command_that_died_before_its_first_update_is_resumed(tmp_path: Path, monkeypatch: Any) -> None:
    run = train_until(40, tmp_path, monkeypatch, "-n", "80", *NO_EVALUATION)
    assert main(["train", "--resume", str(run), "-n", "120"]) == 0
    # Options given with --resume are saved
    assert main(["train", "--resume", str(run)]) == 0
    assert TransformerPPO.load(run / "BernoulliBandit-v0.zip").num_timesteps == 120


def test_resuming_leaves_the_settings_of_the_run_alone(tmp_path: Path, capsys: Any) -> None:
    run = train(tmp_path, "-n", "40", *NO_EVALUATION)
    config = run / "BernoulliBandit-v0" / "config.yml"
    before = config.read_bytes(), config.stat().st_mtime_ns
    assert main(["train", "--resume", str(run), "-n", "80"]) == 0
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before
    (run / "BernoulliBandit-v0" / "args.yml").write_text("")
    assert "args.yml" in error_of(["train", "--resume", run], capsys)
