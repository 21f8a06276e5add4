"""
Learning curves of one process and of two ranks, three seeds each: the mean return on the validation tasks.

    for seed in 0 1 2; do for ranks in 1 2; do for env in BernoulliBandit-v0 HalfCheetahVel-v0; do
        OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node=$ranks train.py --algo trmrl \\
            --env $env --seed $seed -f logs/ranks_$ranks
    done; done; done
    python benchmarks/ranks_curves.py logs
"""

import argparse
import json
from pathlib import Path

import numpy as np
import yaml
from harness import FOLDER
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

#: Environment and the axis of its returns
ENVIRONMENTS = {"BernoulliBandit-v0": "return of 10 pulls", "HalfCheetahVel-v0": "return of 2 episodes"}
SIDES = {1: ("one process", "tab:blue"), 2: ("two ranks", "tab:orange")}


def curves(logs: Path) -> list[dict[str, object]]:
    """Return the evaluations of each run, in the order of seeds."""
    found = []
    for n_ranks in SIDES:
        for run in sorted(logs.glob(f"ranks_{n_ranks}/trmrl/*/evaluations.npz")):
            env_id = run.parent.name.rsplit("_", 1)[0]
            seed = yaml.load((run.parent / env_id / "args.yml").read_text(), Loader=yaml.UnsafeLoader)["seed"]
            with np.load(run) as evaluations:
                steps, returns = evaluations["timesteps"], evaluations["results"].mean(axis=1)
            row = {"env": env_id, "ranks": n_ranks, "seed": seed}
            found.append({**row, "steps": steps.tolist(), "returns": returns.round(3).tolist()})
    return found


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Draw the curves, one picture for each environment."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (env_id, label) in zip(figure.subplots(1, 2), ENVIRONMENTS.items(), strict=True):
        for n_ranks, (name, color) in SIDES.items():
            for number, row in enumerate(each for each in rows if (each["env"], each["ranks"]) == (env_id, n_ranks)):
                axes.plot(row["steps"], row["returns"], color=color, lw=1.2, label=name if number == 0 else None)
        axes.set(title=env_id, xlabel="environment steps", ylabel=label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder with ranks_1 and ranks_2")
    rows = curves(parser.parse_args().logs)
    (FOLDER / "ranks_curves.json").write_text(json.dumps({"rows": rows}) + "\n")
    draw(rows, FOLDER.parent / "images" / "ranks_curves.png")
    for row in rows:
        print(row["env"], "ranks", row["ranks"], "seed", row["seed"], "final return", row["returns"][-1])  # type: ignore[index]


if __name__ == "__main__":
    main()
