"""Exported agents, and how they are loaded without running any code from the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import get_device

from sb3_trmrl.algorithms.arguments import check_device
from sb3_trmrl.common.checks import check_path, short_repr
from sb3_trmrl.memory.interface import Memory
from sb3_trmrl.sharing.blueprint import Blueprint
from sb3_trmrl.sharing.container import Entry, read_file, read_header, read_tensors
from sb3_trmrl.sharing.description import Description
from sb3_trmrl.sharing.statistics import ObservationStatistics
from sb3_trmrl.sharing.strict_json import InvalidAgentFile
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy
from sb3_trmrl.transformer_sac.policies import TransformerSACPolicy

SUFFIX = ".safetensors"


@dataclass(eq=False, repr=False)
class ExportedAgent:
    """
    An agent for inference, loaded from a file. It has ``predict`` like SB3's models, takes observations as the
    environment returns them, and normalises them itself if it was trained on normalised observations.

    :param policy: Policy
    :param observation_statistics: Normalisation of observations, or None
    :param env_id: Registered id of the environment it was trained on, if known
    :param env_kwargs: Arguments of that environment
    :param summary: Summary of its training: algorithm, timesteps, hyperparameters, versions of the packages that
        exported it, and what its author added
    """

    policy: TrMRLPolicy | TransformerSACPolicy
    observation_statistics: ObservationStatistics | None = None
    env_id: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """Observation space of the policy, where images have their channels first as in SB3's models"""
        return self.policy.observation_space

    @property
    def action_space(self) -> spaces.Space[Any]:
        """Action space"""
        return self.policy.action_space

    def predict(
        self,
        observation: np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray[Any, Any] | None = None,
    ) -> tuple[np.ndarray[Any, Any], Memory]:
        """
        Return the action for an observation, given the memory of earlier ones. It is bit-identical to the action of
        the exported model, unless the file has weights of half precision. Pass the returned state to the next call,
        with ``episode_start`` true where an episode (a trial, in meta-RL) begins.

        :param observation: Observation of one environment, or of a batch of B, as the environment returns it
        :param state: Memory returned by the last call, or None for an empty one
        :param episode_start: Mask of environments whose memory is emptied first, shape (B,), or None
        :param deterministic: Whether to return deterministic or stochastic actions
        :param action_masks: Masks of valid actions, (B, M), see :meth:`sb3_trmrl.TrMRLPolicy.predict`
        :return: The action, and the memory that includes this observation
        :raises ValueError: if ``state`` belongs to another number of environments, an observation is not finite, or
            the masks do not fit the action space
        """
        # The policy explains the mistake of passing Gymnasium's (observation, info)
        if self.observation_statistics is not None and not isinstance(observation, tuple):
            observation = self.observation_statistics.normalize(observation)
        if isinstance(self.policy, TrMRLPolicy):
            return self.policy.predict(observation, state, episode_start, deterministic, action_masks)
        if action_masks is not None:
            raise ValueError(f"`action_masks` must be None with the action space {self.action_space}")
        return self.policy.predict(observation, state, episode_start, deterministic)


def load_agent(path: str | PathLike[str], device: th.device | str = "cpu") -> ExportedAgent:
    """
    Load a file that the method ``export`` of an algorithm wrote. Files from untrusted sources are safe to load: nothing
    in them is run or unpickled, and sizes are checked before anything is allocated. The weights are still chosen by
    their author.

    :param path: File
    :param device: PyTorch device of the policy
    :return: The agent
    :raises TypeError: if ``path`` is not a path
    :raises ValueError: if there is no such device
    :raises FileNotFoundError: if there is no such file
    :raises InvalidAgentFile: a ``ValueError``, if the file is not an exported agent, is damaged, or exceeds a limit
    """
    path = check_path("path", path)
    check_device("device", device)
    try:
        return read_agent(read_file(path), get_device(device))
    except InvalidAgentFile as error:
        raise InvalidAgentFile(f"`path` {path} cannot be loaded as an agent: {error}") from error


def read_agent(data: bytes, device: th.device) -> ExportedAgent:
    """Read an agent from the bytes of a file."""
    document, entries = read_header(data)
    description = Description.from_json(document)
    blueprint = Blueprint(description)
    _check_entries(entries, blueprint.entries())
    tensors = read_tensors(data)
    del data  # the tensors are copies: this frees memory before the policy is built
    normalization, statistics = description.normalization, None
    if normalization is not None:
        statistics = ObservationStatistics.from_tensors(normalization, tensors)
    policy = blueprint.build_policy(tensors, device)
    return ExportedAgent(policy, statistics, description.env_id, description.env_kwargs, description.summary)


def _check_entries(entries: Mapping[str, Entry], expected: Mapping[str, Entry]) -> None:
    """Check that a file has exactly the expected tensors, in single or, as far as they are weights, half precision."""
    for name in sorted(entries.keys() | expected.keys()):
        found, needed = entries.get(name), expected.get(name)
        is_half = found is not None and needed is not None and found[0] == "F16" and needed == ("F32", found[1])
        if found != needed and not is_half:
            raise InvalidAgentFile(
                f"tensor {short_repr(name)} must be {_in_words(needed)}, as the description says, "
                f"got {_in_words(found)}"
            )


def _in_words(entry: Entry | None) -> str:
    return "absent" if entry is None else f"{entry[0]} of shape {entry[1]}"
