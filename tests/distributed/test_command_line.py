"""``train`` on several ranks."""

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from stable_baselines3.common.monitor import load_results

from sb3_trmrl import TransformerPPO
from sb3_trmrl.__main__ import main
from tests.helpers.ranks import run_ranks
from tests.helpers.resuming import checkpoint_steps
from tests.helpers.zoo import ENV, TINY

SETTINGS = ["--env", ENV, "--eval-freq", "40", "--eval-episodes", "2", "--n-eval-envs", "2", "--checkpoint-freq", "80"]


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Call the command; return its status and what it writes."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, output.getvalue(), errors.getvalue()


def test_ranks_share_one_run(tmp_path: Path) -> None:
    command = ["train", *SETTINGS, "-n", "200", "-f", str(tmp_path), "--report", "-params", *TINY]
    (status, output, _), (other_status, other_output, _) = run_ranks(call, command)
    assert status == other_status == 0
    assert "Returns on" in output and other_output == ""
    (run,) = (tmp_path / "trmrl").iterdir()
    config = yaml.load((run / ENV / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    assert (config["n_envs"], config["batch_size"]) == (2, 20)
    model = TransformerPPO.load(run / f"{ENV}.zip")
    assert (model.n_envs, model.batch_size, model.num_timesteps) == (1, 20, 200)
    assert checkpoint_steps(run / "checkpoints") == [80, 160]
    assert {path.name for path in run.glob("*.monitor.csv")} == {"0.monitor.csv", "1.monitor.csv"}
    assert load_results(str(run))["l"].sum() == 200
    assert (run / "report.json").is_file() and (run / "evaluations.npz").is_file()

    (status, output, _), _ = run_ranks(call, ["train", "--resume", str(run), "-n", "280"])
    assert status == 0 and "Resuming from" in output
    assert TransformerPPO.load(run / f"{ENV}.zip").num_timesteps == 280
    assert load_results(str(run))["l"].sum() == 280


#: Options of commands that must be refused, and what the error says
WRONG: list[tuple[list[str], str]] = [
    (["--algo", "ppo"], "argument --algo: ppo cannot be trained by several ranks"),
    (["-optimize", "--n-trials", "1"], "argument --optimize-hyperparameters: a search cannot use several ranks"),
    (["-params", "n_envs:3"], "`n_envs` is the total over all ranks"),
    (["-params", *TINY, "batch_size:5"], "`batch_size` is the total over all ranks"),
]


def call_wrong(folder: str) -> list[tuple[int, str, str]]:
    return [call(["train", "--env", ENV, "-n", "40", "-f", folder, *options]) for options, _ in WRONG]


def test_wrong_commands(tmp_path: Path) -> None:
    for results in run_ranks(call_wrong, str(tmp_path)):
        for (status, _, errors), (_, expected) in zip(results, WRONG, strict=True):
            assert status == 2 and expected in errors
    assert not list(tmp_path.glob("trmrl/*"))


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "sb3_trmrl", "train", "--env", ENV]


def test_torchrun(tmp_path: Path) -> None:
    command = [*torchrun("--standalone", "--nproc-per-node=2"), "-n", "40", "--eval-freq", "-1", "-f", str(tmp_path)]
    result = subprocess.run([*command, "-params", *TINY], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "trmrl").iterdir()
    assert TransformerPPO.load(run / f"{ENV}.zip").num_timesteps == 40


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None or os.geteuid() != 0, reason="needs `ip` and root to make namespaces")
def test_two_hosts(tmp_path: Path) -> None:
    """Two network namespaces, joined by a virtual cable, stand for two machines."""
    hosts = {"trmrl_a": "10.231.0.1", "trmrl_b": "10.231.0.2"}
    a, b = hosts

    def ip(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *arguments], text=True, capture_output=True, **kwargs)

    if ip("netns", "add", a).returncode:
        pytest.skip("this machine does not allow network namespaces")
    try:
        ip("netns", "add", b, check=True)
        ip("link", "add", f"v{a}", "netns", a, "type", "veth", "peer", "name", f"v{b}", "netns", b, check=True)
        for host, address in hosts.items():
            ip("-n", host, "addr", "add", f"{address}/24", "dev", f"v{host}", check=True)
            ip("-n", host, "link", "set", f"v{host}", "up", check=True)
            ip("-n", host, "link", "set", "lo", "up", check=True)
        processes = []
        for number, host in enumerate(hosts):
            options = ("--nnodes=2", f"--node-rank={number}", f"--master-addr={hosts[a]}", "--master-port=29511")
            # Each host has a folder of its own: nothing but the network connects them
            command = [*torchrun(*options), "-n", "80", "--eval-freq", "-1", "-f", str(tmp_path / host)]
            processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *command, "-params", *TINY],
                    env={**os.environ, "GLOO_SOCKET_IFNAME": f"v{host}"},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for process in processes:
            assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read()
        (run,) = (tmp_path / a / "trmrl").iterdir()
        assert TransformerPPO.load(run / f"{ENV}.zip").num_timesteps == 80
        assert not list((tmp_path / b).glob("trmrl/*/*.zip"))
    finally:
        for host in hosts:
            ip("netns", "del", host)
