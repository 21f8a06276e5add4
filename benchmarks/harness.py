"""Shared by the benchmarks: interleaved timing, the machine's matrix-product rate, operation counts, JSON files."""

import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch as th

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def matrix_product_rate(device: str = "cpu", size: int = 2048, repeats: int = 5) -> float:
    """
    Return the operations per second of float32 products of square matrices, with the current precision and number of
    threads. A multiply-add counts as two operations.

    :param device: PyTorch device
    :param size: Rows and columns of the matrices
    :param repeats: Number of measured products; their median is used
    """
    a = th.randn(size, size, device=device)
    out = th.empty_like(a)
    durations = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        th.matmul(a, a, out=out)
        synchronize(device)
        durations.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(durations[1:])


def synchronize(device: str) -> None:
    """Wait until all work of a PyTorch device is done."""
    if device.startswith("cuda"):
        th.cuda.synchronize()


def encoder_operations(
    context_length: int, d_model: int, n_layers: int, dim_feedforward: int, n_features: int, memory: str
) -> float:
    """
    Return the operations of the forward pass of one transition, including attention. A multiply-add counts as two.

    :param context_length: Slots N of a full window (``"window"``), or average number of tokens that a token attends to
        (``"full"``)
    :param d_model: Width
    :param n_layers: Number of layers
    :param dim_feedforward: Number of hidden units
    :param n_features: Size of a token
    :param memory: ``"window"`` computes the last layer for the newest slot only, ``"full"`` computes every token once
    """
    keys_values, rest = 2 * d_model**2, 2 * d_model**2 + 2 * d_model * dim_feedforward
    seen = 2 * d_model  # scores and weighted sums, for each query and each token that it attends to
    if memory == "full":
        return 2 * (n_features * d_model + n_layers * (keys_values + rest + seen * context_length))
    n = context_length
    layer = n * (keys_values + rest) + seen * n * (n + 1) / 2
    last = n * keys_values + rest + seen * n
    return 2 * (n * n_features * d_model + (n_layers - 1) * layer + last)


class Stopwatch:
    """Seconds spent in named sections. The time of a nested section does not count for the outer one."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def section(self, name: str):  # type: ignore[no-untyped-def]
        """Measure the time of a ``with`` block."""
        self._switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Count every call of a method of ``owner`` to the section ``name``."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.section(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)

    def _switch(self) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] = self.seconds.get(self._stack[-1], 0.0) + now - self._since
        self._since = now


def interleaved(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Return the results of calling each side ``repeats`` times, in turns so that other load affects all of them."""
    results: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def seconds_of(function: Callable[[], Any], device: str = "cpu") -> Callable[[], float]:
    """Return a function that runs ``function`` and returns the seconds it took."""

    def measure() -> float:
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        return time.perf_counter() - start

    return measure


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median of the ratios of measurements of the same turn."""
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


def variant(name: str, device: str, precision: str) -> str:
    """Return the file name of a benchmark for a PyTorch device and a precision of float32 matrix products."""
    return "_".join([name, device, *([] if precision == "highest" else [precision])])


def save(name: str, rows: list[dict[str, Any]], device: str = "cpu", **about: Any) -> None:
    """
    Print the rows, and write them to a JSON file with a description of the machine.

    :param name: Name of the benchmark and of the file
    :param rows: Measurements
    :param device: PyTorch device of the measurements
    :param about: Further entries of the file
    """
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": th.get_num_threads(),
        "device": th.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "torch": th.__version__,
    }
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, **about, "rows": rows}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def processor() -> str:
    """Return the name of the processor, if the system reports it."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
