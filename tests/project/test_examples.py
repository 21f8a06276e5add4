"""The notebooks of examples/ run in a clean kernel."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_trmrl import TransformerPPO
from sb3_trmrl.references import RandomArm, bayes_optimal_value

ROOT = Path(__file__).parents[2]
BANDIT = ROOT / "examples" / "bandit.ipynb"
KERNEL = "checkout"


@pytest.fixture
def clean_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a kernel of this interpreter that imports this checkout and uses one thread."""
    folder = tmp_path / "jupyter" / "kernels" / KERNEL
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": KERNEL,
        "language": "python",
        "env": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython")},
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return KERNEL


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: NotebookNode) -> int:
    """Return the number of pictures among the outputs."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_the_bandit_notebook_is_committed_with_its_outputs() -> None:
    notebook = nbformat.read(BANDIT, as_version=4)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook) == 3
    assert BANDIT.stat().st_size < 300_000


def test_the_bandit_notebook_learns_what_it_claims(tmp_path: Path, clean_kernel: str) -> None:
    """Evaluated by SB3's own function on 2,000 machines, with a standard error of 0.05."""
    notebook = nbformat.read(BANDIT, as_version=4)
    n_pictures = pictures(notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(f"model.save({str(tmp_path / 'agent')!r})"))
    work = tmp_path / "work"
    work.mkdir()
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=900, kernel_name=clean_kernel, resources=resources).execute()
    assert pictures(notebook) == n_pictures

    env = make_vec_env("BernoulliBandit-v0", 500, seed=1_000_000)
    agents = {"trained": TransformerPPO.load(tmp_path / "agent", device="cpu"), "random": RandomArm(seed=0)}
    means = {name: evaluate_policy(agent, env, n_eval_episodes=2_000)[0] for name, agent in agents.items()}  # type: ignore[arg-type]
    env.close()
    assert 6.3 < means["trained"] < bayes_optimal_value(5, 10) + 0.2
    assert means["random"] < 5.2
