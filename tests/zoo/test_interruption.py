"""Ctrl-C and SIGTERM during training."""

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from sb3_trmrl import TransformerPPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo import experiment
from tests.helpers.zoo import ENV, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Send this process a signal at the second update of training. Shells let processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def at_second_update(number: signal.Signals) -> None:
        real, sent = TransformerPPO.train, []

        def interrupted(self: TransformerPPO) -> None:
            if self.num_timesteps == 80 and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            real(self)

        monkeypatch.setattr(TransformerPPO, "train", interrupted)

    yield at_second_update
    signal.signal(signal.SIGINT, before)


def resuming_command(printed: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith("  trmrl train")]
    return shlex.split(line)[1:]


@pytest.mark.parametrize("checkpoints", ["40", "0"])
def test_ctrl_c(checkpoints: str, interrupt: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The report is written, and the printed command trains the remaining steps, or on from the saved weights."""
    monkeypatch.chdir(tmp_path)
    arguments = ["-n", "120", "--eval-freq", "40", "--checkpoint-freq", checkpoints, "--report"]
    interrupt(signal.SIGINT)
    run = train(tmp_path / "a folder", *arguments)
    printed = capsys.readouterr().out
    assert "Interrupted after 80 steps" in printed and (run / "report.json").exists()
    assert printed.index("Interrupted") < printed.index("trmrl report") < printed.index("Returns on")
    assert main([*resuming_command(printed), *(["-n", "40"] if checkpoints == "0" else [])]) == 0
    folder = run if checkpoints != "0" else tmp_path / "logs" / "trmrl" / f"{ENV}_1"
    assert TransformerPPO.load(folder / f"{ENV}.zip").num_timesteps == 120


def test_sigterm(interrupt: Any, tmp_path: Path, capsys: Any) -> None:
    """The model is saved without a report, since the process may soon be killed. The handler is removed again."""
    interrupt(signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, "-n", "120", "--eval-freq", "-1", "--checkpoint-freq", "40", "--report")
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    (run,) = (tmp_path / "trmrl").iterdir()
    assert (run / f"{ENV}.zip").exists() and not (run / "report.json").exists()
    assert resuming_command(capsys.readouterr().out) == ["train", "--resume", str(run)]


def test_the_report_can_be_skipped(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "write_report", interrupted)
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0", "--report")
    assert f"`trmrl report {run}`" in capsys.readouterr().out
    assert (run / f"{ENV}.zip").exists()
