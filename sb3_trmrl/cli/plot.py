"""``plot``: rl-zoo3's plots, with an option to save them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sb3_trmrl.cli.parsers import PLOTS
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import run_script

#: Backends of Matplotlib that only write files
_FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def plot(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run one of rl-zoo3's plots: of training returns, of evaluations of several runs, or of saved results."""
    import matplotlib

    if options.save is not None:
        matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from rl_zoo3 import plots

    if options.save is None and plt.get_backend().lower() in _FILE_BACKENDS:
        parser.error(
            f"the plot cannot be shown: Matplotlib's backend {plt.get_backend()} has no window (is there a screen?). "
            "Pass --save FILE to write it to a file"
        )
    register()
    run_script(f"plot {options.kind}", getattr(plots, PLOTS[options.kind]), arguments)
    if options.kind == "train" and plt.get_fignums() and not plt.gcf().axes[0].lines:
        parser.error(
            "there is nothing to plot: no run has as many training episodes as the window of the moving average. "
            "Check --env and --exp-folder, or pass a lower --episode-window (default: 100)"
        )
    if options.save is not None:
        numbers = plt.get_fignums()
        for number in numbers:
            # Some plots have several figures
            path = options.save if len(numbers) == 1 else options.save.with_stem(f"{options.save.stem}_{number}")
            plt.figure(number).savefig(path, dpi=150)
            print(f"Saved {path}")
