"""``analyze ablations``: train the grid of the paper's ablations and draw its learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_trmrl.analysis.ablations import plot_ablations
from sb3_trmrl.cli.options import add_output, argument_errors, command_parser, non_negative_int, positive_int
from sb3_trmrl.cli.output import print_frame, progress
from sb3_trmrl.zoo.ablations import GRID, ablation_runs, read_ablations, train_ablations
from sb3_trmrl.zoo.named_values import StoreValues


def ablations(arguments: Sequence[str]) -> None:
    """Train the runs that are missing. Write their learning curves as CSV and PNG."""
    parser = command_parser(
        "analyze ablations",
        "Train agents with one changed setting of the transformer each and draw their learning curves (figures 10 to "
        "13). All other settings are the recommended hyperparameters. Complete runs are not repeated: start the same "
        "command again after an interruption. Options that are not listed here are passed to `trmrl train`.",
        "--env HalfCheetahVel-v0 --n-timesteps 200000 --seeds 0 1 --grid 'n_layers:(1, 2, 4)'",
    )
    parser.add_argument("--env", default="HalfCheetahVel-v0", help="environment id (default: HalfCheetahVel-v0)")
    for option, default, text in (
        ("--n-timesteps", 500_000, "environment steps of each run"),
        ("--n-evaluations", 20, "number of evaluations in each run"),
    ):
        parser.add_argument(option, type=positive_int, default=default, help=f"{text} (default: {default})")
    parser.add_argument(
        "--seeds", type=non_negative_int, nargs="+", default=[0, 1, 2], help="seeds of the runs (default: 0 1 2)"
    )
    parser.add_argument(
        "--grid", nargs="+", action=StoreValues, default=GRID, metavar="NAME:VALUES", help=f"settings (default: {GRID})"
    )
    add_output(parser, "ablations")
    options, rest = parser.parse_known_args(arguments)
    with argument_errors(parser):
        runs = ablation_runs(options.env, options.output / "runs", options.seeds, options.grid)
    with argument_errors(parser), progress("runs", len(runs)) as after_run:
        training = train_ablations(runs, options.env, options.n_timesteps, options.n_evaluations, rest)
        for done, _ in enumerate(training, start=1):
            after_run(done)
    found = read_ablations(runs, options.env)
    frame = found.to_frame()
    frame.to_csv(options.output / "ablations.csv", index=False)
    plot_ablations(found, options.output / "ablations.png")
    last = frame[frame["timesteps"] == found.timesteps[-1]]
    print_frame(last, f"{options.env}: ablations, last evaluation", "Returns of a trial on validation tasks.", "seeds")
    print(f"Wrote {options.output}/ablations.csv and .png")
