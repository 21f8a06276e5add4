"""The methods that write an agent to a file for others. :mod:`sb3_trmrl.sharing` implements them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.methods import IMPLEMENTATIONS


class Exports(BaseAlgorithm):
    """``export`` and ``export_onnx`` of algorithms with a transformer. An algorithm has it as a base class."""

    def export(
        self,
        path: str | pathlib.Path,
        env_id: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        vec_normalize: VecNormalize | None = None,
        summary: dict[str, Any] | None = None,
        dtype: str = "float32",
        critic: bool = True,
    ) -> pathlib.Path:
        """
        Write the agent to a safetensors file. Others can load it with :func:`sb3_trmrl.load_agent`, which executes no
        code from the file. It contains weights, spaces, the policy's settings, statistics of observations, the
        environment and a summary of the training, but not the optimizer. An existing file is replaced only once the new
        one is complete.

        :param path: File to write; the suffix ``.safetensors`` is added to a name without suffix
        :param env_id: Registered id of the environment, by default the id of the model's environment if that was made
            by ``gym.make`` in this process
        :param env_kwargs: Arguments of that environment, plain data, by default those it was made with
        :param vec_normalize: Wrapper with the statistics of observations, by default that of the model's environment
        :param summary: Plain data (None, numbers, strings, lists and dictionaries of these) that is added to the
            summary, which contains algorithm, timesteps, versions and hyperparameters
        :param dtype: ``"float32"``, or ``"float16"`` for a file of half the size: the weights are rounded to 11
            significant bits, and actions differ slightly. The loaded agent computes in float32 in both cases
        :param critic: Whether to include the critic. Without it, actions do not change, but computing values with the
            loaded policy raises a ``RuntimeError``
        :return: The file
        :raises ValueError: if an argument is not plain data, ``path`` cannot be written to, ``dtype`` is not one of
            these, weights are not finite (in ``dtype``), spaces are not supported, or the agent uses a class that is
            not part of this package or of SB3 (policy, features extractor, activation function)
        """
        export: Callable[..., pathlib.Path] = resolve_name(IMPLEMENTATIONS["export"])
        return export(self, path, env_id, env_kwargs, vec_normalize, summary, dtype, critic)

    def export_onnx(
        self, path: str | pathlib.Path, vec_normalize: VecNormalize | None = None, max_steps: int | None = None
    ) -> pathlib.Path:
        """
        Write the agent as one ONNX graph, which runs without PyTorch. A run of the graph is one step of any number of
        environments B. Its actions are those of ``predict(..., deterministic=True)``, except for rounding. An existing
        file is replaced only once the new one is complete. Needs the extra ``onnx``.

        Inputs are ``observation``, (B, \\*observation), or ``observation.<key>`` for each key of a Dict observation;
        the memory; and ``reset``, booleans (B,): the memory of these environments is emptied first. If the agent was
        trained with action masks, there is also ``action_masks``, booleans (B, M), true for valid actions. Images have
        their channels first. Outputs are ``action``, (B, \\*action), and ``next_memory.<name>`` for each input
        ``memory.<name>`` of the next step. A memory of zeros is empty. For L layers, H heads and width D, the inputs of
        the memory are:

        - with ``memory="window"``: ``memory.window``, (B, ``context_length``, D), and ``memory.length``, integers (B,)
        - with ``memory="full"``: ``memory.keys`` and ``memory.values``, both (B, L, slots, H, D / H), and
          ``memory.length``. There are ``context_length`` slots (1,024 by default), 8 L D bytes each, or ``max_steps``
          slots if that is less

        The graph includes the statistics of VecNormalize and, with ``reset_memory_on="episode"``, resets at
        ``prev_done``. It does not check observations.

        :param path: File to write; the suffix ``.onnx`` is added to a name without suffix
        :param vec_normalize: Wrapper with the statistics of observations, by default that of the model's environment
        :param max_steps: With ``memory="full"``, the largest number of steps between two resets. If there are more, the
            agent sees only the newest ``max_steps`` observations, and its actions differ from those of ``predict``
        :return: The file
        :raises ModuleNotFoundError: without the extra ``onnx``
        :raises TypeError: if an argument has the wrong type
        :raises ValueError: if ``path`` cannot be written to, ``max_steps`` is below 1 or is given with
            ``memory="window"``, the policy is of a subclass, or PyTorch cannot trace its features extractor
        """
        export: Callable[..., pathlib.Path] = resolve_name(IMPLEMENTATIONS["export_onnx"])
        return export(self, path, vec_normalize, max_steps)
