"""
Write docs/reference/benchmarks.md and its pictures from the JSON files of the benchmarks in docs/benchmarks/.

    python benchmarks/tables.py
"""

import json
from typing import Any

from harness import FOLDER
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

IMAGES = FOLDER.parent / "images"
#: File, heading, command, picture
SECTIONS = (
    ("learn_cpu", "One iteration of learn()", "python benchmarks/learn.py", "benchmark_learn.png"),
    ("learn_cpu_medium", "One iteration with bfloat16 products", "python benchmarks/learn.py --precision medium", None),
    ("update_cpu", "One update", "python benchmarks/update.py", "benchmark_update.png"),
    ("collect", "Collecting rollouts and acting", "python benchmarks/collect.py", None),
    ("acting", "Acting of each algorithm", "python benchmarks/acting.py", None),
    ("batched", "Many copies of a small problem", "OMP_NUM_THREADS=1 python benchmarks/batched.py", None),
    ("metaworld_steps", "MetaWorld's environments", "OMP_NUM_THREADS=1 python benchmarks/metaworld_steps.py", None),
    ("replay", "Gradient steps of TransformerSAC", "python benchmarks/replay.py", None),
    ("storage", "Rollout storage", "python benchmarks/storage.py", None),
    ("stock", "Standard environments with default settings", "python benchmarks/stock.py", None),
    ("ranks", "Ranks and threads", "OMP_NUM_THREADS=2 python benchmarks/ranks.py", None),
)
HEAD = """# Benchmarks

`make bench` writes this page. [Performance](../explanation/performance.md) explains the numbers. A *side* is one of the
algorithms that are compared; the number at the end of its name is the minibatch size. Each ratio comes from a single
run that measured both sides alternately. `gflops` is the machine's matrix-product rate in that run.
"""
PARTS = ("environment_s", "inference_s", "buffer_s", "update_s", "other_s")


def cell(value: Any) -> str:
    """Format a number with three digits, and anything else unchanged."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as Markdown. A row with other keys than the row before starts a new table."""
    lines: list[str] = []
    keys: list[str] = []
    for row in rows:
        new = [*row] if not set(row) <= set(keys) else keys
        if new != keys:
            keys = new
            lines += [*([""] if lines else []), "| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
        lines.append("| " + " | ".join(cell(row.get(key, "")) for key in keys) + " |")
    return "\n".join(lines)


def draw_learn(rows: list[dict[str, Any]], path: str) -> None:
    """Draw the seconds of each part of an iteration, from the rows of learn.py."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    names = [row["side"] for row in rows][::-1]
    left = [0.0] * len(rows)
    for part, colour in zip(PARTS, ("#0072B2", "#56B4E9", "#999999", "#E69F00", "#CC79A7"), strict=True):
        widths = [row[part] for row in rows][::-1]
        axes.barh(names, widths, left=left, label=part.removesuffix("_s"), color=colour)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for name, total in zip(names, left, strict=True):
        axes.text(total, name, f" {total:.1f} s", va="center", fontsize="small")
    axes.set_xlim(0, 1.12 * max(left))
    axes.set(title="One iteration of learn(): 8,000 steps, 10 epochs", xlabel="seconds", ylabel="side, minibatch size")
    axes.legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def draw_update(rows: list[dict[str, Any]], path: str) -> None:
    """Draw the speed of the update by context length, from the rows of update.py."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(sorted({row["d_model"] for row in rows}), ("#0072B2", "#E69F00", "#009E73"), strict=False))
    for width, colour in colours.items():
        chosen = [row for row in rows if row["d_model"] == width and row["n_heads"] == 4]
        for memory, style in (("window", "o-"), ("full", "s--")):
            x, y = [row["context"] for row in chosen], [row[f"{memory}_per_s"] for row in chosen]
            axes.loglog(x, y, style, color=colour, label=f"{memory}, d_model {width}")
    axes.set_title("Speed of one update by the length of the context, 4 heads")
    axes.set_xlabel("context (slots of a window, tokens of a sequence)")
    axes.set_ylabel("transitions per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    pages = [HEAD]
    for name, heading, command, picture in SECTIONS:
        path = FOLDER / f"{name}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        machine, rows = content.pop("machine"), content.pop("rows")
        about = ", ".join(f"{key} {cell(value)}" for key, value in {**machine, **content}.items())
        pages += [f"## {heading}", "", f"`{command}` ({about})", ""]
        if picture:
            {"learn_cpu": draw_learn, "update_cpu": draw_update}[name](rows, str(IMAGES / picture))
            pages += [f"![{heading}](../images/{picture})", ""]
        pages += [table(rows), ""]
    (FOLDER.parent / "reference" / "benchmarks.md").write_text("\n".join(pages))


if __name__ == "__main__":
    main()
