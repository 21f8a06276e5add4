"""The settings in the file of an experiment, and the checks of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from rl_zoo3 import ALGOS

from sb3_trmrl.common.checks import (
    check_instance,
    check_keywords,
    check_names,
    check_option,
    check_positive_int,
    check_seed,
    check_whole_number,
)
from sb3_trmrl.trials.held_out import SPLITS
from sb3_trmrl.zoo.defaults import ALGO

#: Options of ``train`` that follow from the file, so that `arguments` must not contain them
_OWN_OPTIONS: tuple[str, ...] = ("--algo", "--env", "--seed", "-n", "--n-timesteps", "--eval-freq", "-params", "-f")
_OWN_OPTIONS += (
    "--hyperparams",
    "--env-kwargs",
    "-conf",
    "--conf-file",
    "--gym-packages",
    "--log-folder",
    "--num-threads",
    "--resume",
)
#: Keys of a yml entry that have a place of their own in the file
_OWN_KEYS = ("env_kwargs", "n_timesteps")


@dataclass(frozen=True)
class Settings:
    """
    How an agent is trained.

    :param algo: Algorithm
    :param env_kwargs: Arguments of the environment, merged with those of the hyperparameter file
    :param hyperparams: Hyperparameters, merged with those of the hyperparameter file; so is ``policy_kwargs``
    :param conf_file: Hyperparameter file, by default that of ``train``
    :param n_timesteps: Number of steps, by default that of the hyperparameter file
    :param seeds: Seeds of the runs
    :param arguments: Further arguments of ``train``
    :param vary: Values of single hyperparameters, which are changed one at a time, by their name
    """

    algo: str = ALGO
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparams: dict[str, Any] = field(default_factory=dict)
    conf_file: str | None = None
    n_timesteps: int | None = None
    seeds: list[int] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    vary: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_option("algo", self.algo, ALGOS)
        check_keywords("env_kwargs", self.env_kwargs)
        misplaced = [key for key in check_keywords("hyperparams", self.hyperparams) if key in _OWN_KEYS]
        if misplaced:
            raise ValueError(f"`hyperparams` must not hold {misplaced[0]!r}, which is a setting of its own")
        check_instance("conf_file", self.conf_file, (str, type(None)), "the path of a yml file")
        if self.n_timesteps is not None:
            object.__setattr__(self, "n_timesteps", check_whole_number("n_timesteps", self.n_timesteps, low=1))
        for seed in check_instance("seeds", self.seeds, list, "a list of seeds"):
            check_seed("seeds", seed)
        if not self.seeds or len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"`seeds` must be at least one seed, all different, got {self.seeds!r}")
        check_instance("arguments", self.arguments, list, "a list of arguments of train")
        check_names("arguments", self.arguments)
        own = [each for each in self.arguments if each.partition("=")[0] in _OWN_OPTIONS]
        if own:
            raise ValueError(f"`arguments` must not contain options that the file has settings for, got {own[0]!r}")
        for name, values in check_keywords("vary", self.vary).items():
            if not check_instance(f"vary[{name!r}]", values, list, "a list of values"):
                raise ValueError(f"`vary[{name!r}]` must hold at least one value, got []")


#: Evaluations on the test tasks: their names, as in ``Group.results``, whether actions are deterministic, and whether
#: the model is the last one instead of the selected one
EVALUATIONS = {
    "selected": (True, False),
    "selected, sampled": (False, False),
    "last": (True, True),
    "last, sampled": (False, True),
}
#: Names that other results and columns of a report have
_RESERVED_NAMES = (*EVALUATIONS, "success")


@dataclass(frozen=True)
class ReportSettings:
    """
    How the trained agents are evaluated.

    :param n_tasks: Number of tasks; of episodes, if the environment has no tasks
    :param n_episodes: Number of episodes for each task
    :param split: Split of the tasks
    :param lower: Name of the agent without task information
    :param oracle: Name of the task-conditioned oracle
    :param other_tasks: Further evaluations, on other tasks: arguments of the environment by name of the evaluation
    """

    n_tasks: int = 20
    n_episodes: int = 3
    split: str = "test"
    lower: str | None = None
    oracle: str | None = None
    other_tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_positive_int("n_tasks", self.n_tasks)
        check_positive_int("n_episodes", self.n_episodes)
        check_option("split", self.split, SPLITS)
        if (self.lower is None) != (self.oracle is None):
            raise ValueError(f"`lower` and `oracle` must be given together, got {self.lower!r} and {self.oracle!r}")
        for name, env_kwargs in check_keywords("other_tasks", self.other_tasks).items():
            if name in _RESERVED_NAMES:
                raise ValueError(f"`other_tasks` must have other names than {', '.join(_RESERVED_NAMES)}, got {name!r}")
            check_keywords(f"other_tasks[{name!r}]", env_kwargs)

    def check_agents(self, names: Sequence[str]) -> None:
        """Check that the references are two of these agents."""
        for reference in ("lower", "oracle"):
            if getattr(self, reference) is not None:
                check_option(reference, getattr(self, reference), names)
        if self.lower is not None and self.lower == self.oracle:
            raise ValueError(f"`lower` and `oracle` must be two agents, got {self.lower!r} for both")


class StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses mappings that have the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice in the mapping that begins in line {node.start_mark.line + 1}")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found
