"""Exported agents: loaded without running anything that lies in the file, for acting only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import get_device

from sb3_trmrl.common.checks import check_path
from sb3_trmrl.memory.interface import Memory
from sb3_trmrl.sharing.container import Entry, read_file, read_header, read_tensors
from sb3_trmrl.sharing.policy_json import Blueprint, build_policy, expected_shapes, settings_from_json
from sb3_trmrl.sharing.space_json import space_from_json
from sb3_trmrl.sharing.statistics import ObservationStatistics, statistics_from_json, statistics_shapes
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, fields, name, plain_object, shown
from sb3_trmrl.transformer_ppo.arguments import check_device
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy

#: What the file is, and its version: raised when an older version of this package could not load a new file
FORMAT = "sb3_trmrl agent"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
#: Parts of the description besides format and version
PARTS = ("observation_space", "action_space", "policy", "normalization", "env_id", "env_kwargs", "summary")
#: Before the names of the policy's weights in the file
WEIGHTS = "policy."
#: Gymnasium's ids, without the part before a colon: that would import the module of that name
_ENV_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


class ExportedAgent:
    """
    An agent for acting, from a file. It has ``predict`` as SB3's models have it, takes observations as the environment
    gives them, and normalises them itself if it was trained so.

    :param policy: Policy
    :param observation_statistics: What observations are normalised with, if they are
    :param env_id: Registered id of the environment it was trained on, if known
    :param env_kwargs: Arguments of that environment
    :param summary: About its training: algorithm, timesteps, hyperparameters, versions of the packages that exported
        it, and what its author wrote
    """

    def __init__(
        self,
        policy: TrMRLPolicy,
        observation_statistics: ObservationStatistics | None = None,
        env_id: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> None:
        self.policy = policy
        self.observation_statistics = observation_statistics
        self.env_id = env_id
        self.env_kwargs = dict(env_kwargs or {})
        self.summary = dict(summary or {})

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """Observation space of the policy, as that of an SB3 model: images have their channels first"""
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
    ) -> tuple[np.ndarray[Any, Any], Memory]:
        """
        The action for an observation and the memory of those before it, bit for bit that of the model that was
        exported. Hand the returned state to the next call, with ``episode_start`` true where an episode (a trial, in
        meta-RL) begins.

        :param observation: Observation of one environment or of any number of them, as the environment gives it
        :param state: The memory returned by the last call, None for an empty one
        :param episode_start: Where the memory is emptied first, (B,), None for nowhere
        :param deterministic: Whether actions are the likeliest ones or sampled
        :return: The action, and the memory that ends with this observation
        :raises ValueError: if ``state`` is not that of as many environments, or an observation is not finite
        """
        # Of Gymnasium's (observation, info) the policy says what is wrong
        if self.observation_statistics is not None and not isinstance(observation, tuple):
            observation = self.observation_statistics.normalize(observation)
        return self.policy.predict(observation, state, episode_start, deterministic)


def load_agent(path: str | PathLike[str], device: th.device | str = "cpu") -> ExportedAgent:
    """
    Load what ``TransformerPPO.export`` wrote. Nothing in the file is run or unpickled, and sizes are checked before
    anything is allocated: files of strangers can be loaded. Its numbers are whatever the stranger chose.

    :param path: File
    :param device: PyTorch device of the policy
    :return: The agent
    :raises TypeError: if ``path`` is no path
    :raises ValueError: if there is no such device
    :raises FileNotFoundError: if there is no such file
    :raises InvalidAgentFile: a ``ValueError``, if it is not such a file, damaged, or larger than allowed
    """
    path = check_path("path", path)
    check_device("device", device)
    try:
        return read_agent(read_file(path), get_device(device))
    except InvalidAgentFile as error:
        raise InvalidAgentFile(f"`path` {path} cannot be loaded as an agent: {error}") from error


def read_agent(data: bytes, device: th.device) -> ExportedAgent:
    """
    :param data: Bytes of a file
    :param device: PyTorch device of the policy
    :return: The agent
    :raises InvalidAgentFile: if they are not those of an exported agent
    """
    description, entries = read_header(data)
    observation_space, action_space, policy, normalization, env_id, env_kwargs, summary = _parts(description)
    try:
        observations = space_from_json(observation_space, "observation_space", may_be_dict=True)
        actions = space_from_json(action_space, "action_space", may_be_dict=False)
    except (OverflowError, TypeError, ValueError, AssertionError) as error:
        # What Gymnasium does not take
        raise InvalidAgentFile(str(error)) from error
    for key, space in (("observation_space", observations), ("action_space", actions)):
        if spaces.flatdim(space) == 0:
            raise InvalidAgentFile(f"{key} has no numbers")
    blueprint = Blueprint(observations, actions, settings_from_json(policy, observations))
    of_statistics = statistics_shapes(normalization, observations)
    _check_entries(entries, expected_shapes(blueprint), of_statistics)
    tensors = read_tensors(data)
    del data  # of which these are copies: one less while the policy is built
    for key, tensor in tensors.items():
        # Unlike the whole of `isfinite` these two make no copy
        if tensor.numel() > 0 and not bool(th.isfinite(th.stack(tensor.aminmax())).all()):
            raise InvalidAgentFile(f"tensor {key!r} has numbers that are not finite")
    weights = {key.removeprefix(WEIGHTS): tensor for key, tensor in tensors.items() if key.startswith(WEIGHTS)}
    return ExportedAgent(
        build_policy(blueprint, weights, device),
        statistics_from_json(normalization, observations, tensors),
        None if env_id is None else check_env_id(env_id),
        plain_object(env_kwargs, "env_kwargs"),
        plain_object(summary, "summary"),
    )


def _parts(description: Any) -> list[Any]:
    """
    :param description: JSON of the file
    :return: Its ``PARTS``
    """
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InvalidAgentFile(f"its description is not that of a {FORMAT}, got {shown(description)}")
    version = description.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise InvalidAgentFile(
            f"format_version must be {FORMAT_VERSION}, which this version of sb3_trmrl reads, got {shown(version)}"
        )
    return fields(description, "the description", ["format", "format_version", *PARTS])[2:]


def check_env_id(env_id: Any) -> str:
    """
    :param env_id: Id of an environment
    :return: The same
    :raises InvalidAgentFile: if it is no id, or names a module to import
    """
    if not _ENV_ID.fullmatch(name(env_id, "env_id")):
        raise InvalidAgentFile(f"env_id must be a registered id without a module, such as Name-v0, got {shown(env_id)}")
    return str(env_id)


def _check_entries(
    entries: Mapping[str, Entry],
    of_policy: Mapping[str, tuple[int, ...]],
    of_statistics: Mapping[str, tuple[int, ...]],
) -> None:
    """
    :param entries: What the file has
    :param of_policy: Shapes of the policy's weights by name
    :param of_statistics: Shapes of the statistics by name
    :raises InvalidAgentFile: if these are not exactly the same
    """
    expected = {f"{WEIGHTS}{key}": Entry(th.float32, shape) for key, shape in of_policy.items()}
    expected |= {key: Entry(th.float64, shape) for key, shape in of_statistics.items()}
    for word, names in (("lacks", expected.keys() - entries.keys()), ("has unknown", entries.keys() - expected.keys())):
        if names:
            raise InvalidAgentFile(f"it {word} tensors: {shown(sorted(names))}")
    for key, entry in expected.items():
        if entries[key] != entry:
            raise InvalidAgentFile(
                f"tensor {key!r} must be {entry.dtype} of shape {entry.shape}, as the settings say, "
                f"got {entries[key].dtype} of shape {entries[key].shape}"
            )
