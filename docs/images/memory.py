"""
Draw memory.svg, the picture of docs/explanation/memory.md: one trial, and the tokens in memory at one of its steps.

    python docs/images/memory.py
"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

N_EPISODES, HORIZON, N = 3, 6, 4
#: The step that is shown: the second one of the last episode
NOW = 2 * HORIZON + 1
COLOURS = ("#0072B2", "#00795a", "#a85100")  # white text is legible on each
GREY, DARK = "#666666", "#222222"
#: Arguments of the policy, and the oldest token in its memory
MEMORIES = (
    ('memory="window", reset_memory_on="episode"', 2 * HORIZON),
    ('memory="window", reset_memory_on="trial"', NOW - N + 1),
    ('memory="full", reset_memory_on="episode"', 2 * HORIZON),
    ('memory="full", reset_memory_on="trial"', 0),
)


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, filled: bool) -> None:
    """Draw a box with its lower left corner at (x, y). The text is white if the box is filled."""
    axes.fill(
        [x, x + width, x + width, x], [y, y, y + height, y + height], facecolor=colour if filled else "white",
        edgecolor=colour, linewidth=1.5,
    )  # fmt: skip
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="white" if filled else DARK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>") -> None:
    axes.annotate("", end, start, arrowprops=dict(arrowstyle=style, color=DARK, linewidth=1.2, shrinkA=0, shrinkB=0))


def draw_trial(axes: Axes) -> None:
    """Draw the trial, its tokens, and bars that cover the tokens in memory."""
    end = N_EPISODES * HORIZON
    box(axes, 0, 9.2, end - 0.1, 0.8, "one trial: one task, one episode for Gymnasium and SB3", DARK, True)
    box(axes, end + 0.1, 9.2, 4.9, 0.8, "next trial, new task", GREY, True)
    for episode in range(N_EPISODES):
        x = episode * HORIZON
        box(axes, x, 8.1, HORIZON - 0.1, 0.8, f"inner episode {episode + 1}", COLOURS[episode], False)
        for step in range(HORIZON):
            token = x + step
            box(axes, token + 0.1, 6.6, 0.7, 0.8, str(token), COLOURS[episode], token <= NOW)
    axes.text(-0.3, 7, "tokens", ha="right", va="center", color=DARK)
    axes.text(end + 0.3, 8.5, "E = episodes_per_trial", va="center", color=DARK)
    axes.text(end + 0.3, 7, "trial_end: terminal, or\ntruncated (bootstrapped)", va="center", color=DARK)
    for border in (HORIZON, 2 * HORIZON):
        arrow(axes, (border - 0.55, 7.5), (border + 0.45, 7.5), "-|>")
    axes.text(
        HORIZON + 0.7,
        7.75,
        "across_episodes: keep or zero the last action and reward",
        va="center",
        fontsize=8,
        color=DARK,
    )
    arrow(axes, (NOW + 0.45, 5.7), (NOW + 0.45, 6.5))
    axes.text(NOW + 0.8, 5.95, "now", va="center", color=DARK, fontweight="bold")
    for row, (text, first) in enumerate(MEMORIES):
        y = 4.7 - row
        axes.text(-0.3, y + 0.25, text, ha="right", va="center", family="monospace", fontsize=8, color=DARK)
        n = NOW - first + 1
        box(axes, first + 0.1, y, n - 0.2, 0.5, f"{n} tokens", "#56607a", True)
    axes.text(
        NOW + 1.4,
        3.4,
        f"tokens in memory now. context_length is {N}\nfor the window, and longer than the trial\nfor the full memory",
        va="center",
        color=DARK,
    )
    arrow(axes, (0, 0.9), (end - 0.1, 0.9), "<|-|>")
    text = "returns and advantages are computed over the whole trial"
    axes.text((end - 0.1) / 2, 0.45, text, ha="center", va="center", color=DARK)


def draw_policy(axes: Axes) -> None:
    """Draw the path from tokens to action and value."""
    y, height = -2.6, 1.3
    box(axes, -9.5, y, 4.2, height, "tokens in\nmemory", DARK, False)
    box(axes, -3.9, y, 4.2, height, "working memories\nphi(token)", COLOURS[0], False)
    box(axes, 1.7, y, 4.6, height, "transformer,\nn_layers, causal", COLOURS[0], False)
    box(axes, 7.7, y, 4.8, height, "episodic memory\n(newest slot)", COLOURS[1], False)
    box(axes, 14.2, y, 3.4, height, "action", COLOURS[2], True)
    box(axes, 14.2, y - 2, 3.4, height, "value", COLOURS[2], True)
    for start, end in ((-5.3, -3.9), (0.3, 1.7), (6.3, 7.7), (12.5, 14.2)):
        arrow(axes, (start, y + height / 2), (end, y + height / 2))
    arrow(axes, (11.3, y), (14.2, y - 0.95))
    axes.text(
        11.0, y - 0.55, 'critic_input="memory"', ha="right", va="center", family="monospace", fontsize=8, color=DARK
    )
    axes.plot([-7.4, -7.4, 14.2], [y, y - 1.6, y - 1.6], color=DARK, linewidth=1.2)
    arrow(axes, (13.9, y - 1.6), (14.2, y - 1.6))
    axes.text(
        -7.1, y - 1.25, 'critic_input="token": an MLP on the newest token', va="center", family="monospace", fontsize=8,
        color=DARK,
    )  # fmt: skip


def main() -> None:
    matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "memory"})  # the same file in each run
    figure = Figure(figsize=(10.5, 5.8), facecolor="white")  # legible in dark themes too
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-10, 24), ylim=(-5, 10.4))
    axes.axis("off")
    draw_trial(axes)
    draw_policy(axes)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
