"""``analyze ablations``: train the grid of the paper's ablations and draw its learning curves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sb3_trmrl.analysis.ablations import plot_ablations
from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.cli.output import print_frame, progress
from sb3_trmrl.zoo.ablations import ablation_runs, read_ablations, train_ablations


def ablations(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Train the runs that are missing, with these arguments. Write their learning curves as CSV and PNG."""
    with argument_errors(parser):
        runs = ablation_runs(options.env, options.output / "runs", options.seeds, options.grid)
    with argument_errors(parser), progress("runs", len(runs)) as after_run:
        training = train_ablations(runs, options.env, options.n_timesteps, options.n_evaluations, arguments)
        for done, _ in enumerate(training, start=1):
            after_run(done)
    found = read_ablations(runs, options.env)
    frame = found.to_frame()
    frame.to_csv(options.output / "ablations.csv", index=False)
    plot_ablations(found, options.output / "ablations.png")
    last = frame[frame["timesteps"] == found.timesteps[-1]]
    print_frame(last, f"{options.env}: ablations, last evaluation", "Returns of a trial on validation tasks.", "seeds")
    print(f"Wrote {options.output}/ablations.csv and .png")
