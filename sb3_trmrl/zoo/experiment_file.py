"""
The file of an experiment: agents x environments x seeds. It is expanded into trainings, each of which is one call of
``trmrl train``.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rl_zoo3 import ALGOS

from sb3_trmrl.common.checks import (
    check_instance,
    check_keywords,
    check_names,
    check_positive_int,
)
from sb3_trmrl.trials.held_out import has_environment
from sb3_trmrl.zoo.experiment_settings import ReportSettings, Settings, StrictLoader
from sb3_trmrl.zoo.hyperparams_files import find_config, memory_of, zoo_file
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import import_packages


class Training(NamedTuple):
    """One run of an experiment."""

    environment: str
    agent: str  # name in tables; with the changed hyperparameter if there is one
    seed: int
    folder: Path  # log folder, of this run alone
    n_timesteps: int
    arguments: list[str]  # of `train`, without the log folder
    settings: dict[str, Any]  # everything that the result depends on, with the entry of the hyperparameter file

    @property
    def name(self) -> str:
        """Environment, agent and seed"""
        return f"{self.environment}/{self.agent}/{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """Content of the file of an experiment, expanded."""

    name: str
    file: Path
    trainings: list[Training]  # all agents with their first seeds, then with their second ones, ...
    report: ReportSettings
    #: Agents with changed hyperparameters: their names, by environment and by (agent, hyperparameter) and value
    varied: dict[str, dict[tuple[str, str], dict[str, str]]]
    gym_packages: list[str]

    @property
    def environments(self) -> list[str]:
        """The environments in the order of the file"""
        return list(dict.fromkeys(training.environment for training in self.trainings))

    def agents(self, environment: str) -> list[str]:
        """Return the names of the agents of an environment in the order of the file."""
        return list(dict.fromkeys(each.agent for each in self.trainings if each.environment == environment))


def read_experiment(file: str | Path, folder: str | Path | None = None) -> Experiment:
    """
    Read the file of an experiment.

    :param file: The yml file. The name of the experiment is its name without suffix
    :param folder: Folder of the runs, by default ``logs/experiments`` and the name
    :raises OSError: if the file cannot be read
    :raises ValueError: if its content is wrong; names the file, the key and the value
    """
    path = Path(file)
    folder = Path("logs", "experiments", path.stem) if folder is None else Path(folder)
    text = path.read_text(encoding="utf-8")
    register()
    try:
        content = yaml.load(text, StrictLoader)
        return _expanded(path, folder, check_instance("content", content, dict, "a mapping of settings"))
    except (TypeError, ValueError, ImportError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _expanded(path: Path, folder: Path, content: dict[str, Any]) -> Experiment:
    common = {key: content.pop(key) for key in [each.name for each in fields(Settings)] if key in content}
    own = _check_top(content)
    import_packages(own["gym_packages"], "`gym_packages` must be modules that can be imported, got {!r}")
    agents = {}
    for name, settings in own["agents"].items():
        with _within(f"agents[{name!r}]"):
            agents[name] = _settings_of(common, settings)
    found: list[tuple[int, Training]] = []
    varied: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for environment in own["environments"]:
        if not has_environment(environment):
            raise ValueError(f"`environments` must be ids of registered environments, got {environment!r}")
        varied[environment] = {}
        for name, settings in agents.items():
            with _within(f"agents[{name!r}]"):
                entry = _entry(environment, settings)
                variants, panels = _variants(name, entry, settings)
                varied[environment].update({(name, key): panel for key, panel in panels.items()})
                for label, hyperparams in variants.items():
                    found += _trainings(environment, label, settings, entry, hyperparams, own, folder)
    by_seed = sorted(found, key=lambda each: each[0])  # stable: in each round, in the order of the file
    trainings = [training for _, training in by_seed]
    folders = [training.folder for training in trainings]
    if len({*folders}) < len(folders):
        raise ValueError(f"`agents` must have names that differ in their letters and digits, got {', '.join(agents)}")
    with _within("report"):
        report = ReportSettings(**check_keywords("report", content.get("report"), ReportSettings))
        report.check_agents([each.agent for each in trainings])
    return Experiment(path.stem, path, trainings, report, varied, own["gym_packages"])


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Let errors name the part of the file that they are about."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{place}: {error}") from error


_TOP = ("environment", "environments", "agents", "n_evaluations", "eval_freq", "gym_packages", "report")


def _check_top(content: dict[str, Any]) -> dict[str, Any]:
    """Check the keys at the top of the file that are not settings of agents, and return their values."""
    unknown = [key for key in content if key not in _TOP]
    if unknown:
        known = ", ".join([*_TOP, *(each.name for each in fields(Settings))])
        raise ValueError(f"unknown key {unknown[0]!r}; the keys of an experiment are {known}")
    if ("environment" in content) == ("environments" in content):
        raise ValueError("exactly one of `environment` and `environments` must be given")
    environments = content.get("environments", [content.get("environment")])
    check_instance("environments", environments, list, "a list of ids")
    for each in environments:
        check_instance("environment", each, str, "the id of an environment")
    if not environments or len({*environments}) < len(environments):
        raise ValueError(f"`environments` must be at least one id, all different, got {environments!r}")
    agents = check_instance("agents", content.get("agents"), dict, "a mapping from names to settings")
    if not agents or not all(isinstance(name, str) for name in agents):
        raise ValueError(f"`agents` must hold at least one agent, with names that are text, got {list(agents)!r}")
    if "eval_freq" in content and "n_evaluations" in content:
        raise ValueError("only one of `n_evaluations` and `eval_freq` can be given")
    for key in ("n_evaluations", "eval_freq"):
        check_positive_int(key, content.get(key, 1))
    gym_packages = content.get("gym_packages", [])
    check_instance("gym_packages", gym_packages, list, "a list of modules")
    check_names("gym_packages", gym_packages)
    return {"n_evaluations": 20, **content, "environments": environments, "gym_packages": gym_packages}


def _settings_of(common: Mapping[str, Any], own: Any) -> Settings:
    """Return the settings of an agent: those at the top of the file, with its own merged over them."""
    own = check_keywords("settings", own, Settings)
    merged = {**common, **own}
    for key in ("env_kwargs", "hyperparams"):
        if key in common and key in own:
            merged[key] = _merged(check_keywords(key, common[key]), check_keywords(key, own[key]))
    return Settings(**merged)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first mapping with the values of the second. Mappings among the values are merged too."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _entry(environment: str, settings: Settings) -> dict[str, Any]:
    """Return the entry of the hyperparameter file for an environment."""
    path = find_config(settings.algo, environment, settings.conf_file)
    path = path or str(zoo_file(settings.algo))
    if not path.endswith((".yml", ".yaml")):
        raise ValueError(f"`conf_file` must be a yml file, got {path!r}")
    known = yaml.safe_load(Path(path).read_text())
    check_instance("conf_file", known, dict, "a file of hyperparameters by environment")
    key = next((each for each in (environment, "default") if each in known), None)
    if key is None:
        raise ValueError(f"{path!r} has neither an entry for {environment} nor a default: pass another `conf_file`")
    entry: dict[str, Any] = known[key]
    return entry


def _variants(
    name: str, entry: dict[str, Any], settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """
    Return the complete hyperparameters of the agent and of its variants, by the name in tables; and for each varied
    hyperparameter the names by value. A value that the agent has anyway is not a variant.
    """
    base = _merged(entry, settings.hyperparams)
    in_file = entry.get("policy_kwargs")
    if isinstance(in_file, str) and isinstance(base["policy_kwargs"], Mapping):
        raise ValueError(f"`policy_kwargs` cannot be merged with the expression {in_file!r} of the hyperparameter file")
    variants = {name: base}
    panels: dict[str, dict[str, str]] = {}
    for path, values in settings.vary.items():
        panels[path] = {}
        present = _value_at(path, base, settings.algo)
        for value in values:
            if value == present:
                panels[path][str(value)] = name
                continue
            label = f"{name}, {path.rpartition('.')[2]}={value}"
            panels[path][str(value)] = label
            variants[label] = _with_value(path, value, base, settings.algo)
    return variants, panels


def _value_at(path: str, hyperparams: Mapping[str, Any], algo: str) -> Any:
    """Return the value of a hyperparameter such as ``gamma`` or ``policy_kwargs.n_layers``, or its default."""
    parent, _, key = path.rpartition(".")
    if parent not in ("", "policy_kwargs"):
        raise ValueError(f"`vary` must name hyperparameters, or policy_kwargs.NAME, got {path!r}")
    owner = next(iter(ALGOS[algo].policy_aliases.values())) if parent else ALGOS[algo]
    known = inspect.signature(owner).parameters
    zoo_keys = () if parent else ("n_envs", "normalize", "frame_stack")
    if key not in known and key not in zoo_keys:
        raise ValueError(f"`vary` must name arguments of {owner.__name__}, got {path!r}")
    values = hyperparams.get(parent, {}) if parent else hyperparams
    if not isinstance(values, Mapping):
        raise ValueError(f"`vary` needs policy_kwargs as a mapping in the hyperparameter file, got {values!r}")
    return values[key] if key in values else getattr(known.get(key), "default", None)


def _with_value(path: str, value: Any, base: Mapping[str, Any], algo: str) -> dict[str, Any]:
    """Return the hyperparameters with another value of one of them."""
    parent, _, key = path.rpartition(".")
    changed = _merged(base, {parent: {key: value}} if parent else {key: value})
    if path == "policy_kwargs.context_length":  # another length must not change the kind of memory
        changed["policy_kwargs"]["memory"] = memory_of(algo, dict(base.get("policy_kwargs", {})))
    return changed


def _trainings(
    environment: str,
    label: str,
    settings: Settings,
    entry: dict[str, Any],
    hyperparams: dict[str, Any],
    top: Mapping[str, Any],
    folder: Path,
) -> list[tuple[int, Training]]:
    """Return the runs of an agent with the rounds in which they are made, one round for each seed."""
    steps = hyperparams.get("n_timesteps") if settings.n_timesteps is None else settings.n_timesteps
    if steps is None:
        raise ValueError("`n_timesteps` must be given: the hyperparameter file has none")
    n_timesteps = int(steps)
    eval_freq = top.get("eval_freq", max(1, n_timesteps // top["n_evaluations"]))
    changed = {key: value for key, value in hyperparams.items() if entry.get(key, inspect.Parameter.empty) != value}
    arguments = ["--algo", settings.algo, "--env", environment]
    options: dict[str, Any] = {
        "--n-timesteps": settings.n_timesteps,
        "--eval-freq": eval_freq,
        "--conf-file": settings.conf_file,
    }
    for option, number in options.items():
        arguments += [] if number is None else [option, str(number)]
    for option, values in {"--env-kwargs": settings.env_kwargs, "--hyperparams": changed}.items():
        arguments += [option, *(f"{key}:{value!r}" for key, value in values.items())] if values else []
    if top["gym_packages"]:
        arguments += ["--gym-packages", *top["gym_packages"]]
    used = {key: value for key, value in hyperparams.items() if key != "n_timesteps"}
    about: dict[str, Any] = {"algo": settings.algo, "env_kwargs": settings.env_kwargs, "hyperparams": used}
    about |= {"n_timesteps": n_timesteps, "eval_freq": eval_freq, "arguments": settings.arguments}
    place = folder / _slug(environment) / _slug(label)
    return [
        (
            index,
            Training(
                environment,
                label,
                seed,
                place / f"seed_{seed}",
                n_timesteps,
                [*arguments, "--seed", str(seed), *settings.arguments],
                about,
            ),
        )
        for index, seed in enumerate(settings.seeds)
    ]


def _slug(name: str) -> str:
    """Return the name of a folder: letters, digits and a few signs."""
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_")
