"""The pages of the documentation read well on GitHub as well as on the site, and their tables agree with the code."""

import inspect
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import yaml
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_trmrl import TransformerPPO, TrMRLPolicy
from sb3_trmrl.memory.kinds import memory_name
from sb3_trmrl.zoo.hyperparams_files import find_config, hyperparams_folder
from tests.helpers.agents import SampledEnv
from tests.helpers.doc_blocks import ROOT, Block, blocks_of, pages

DOCS = ROOT / "docs"
#: Pages that only the site needs: their directives are shown as code on GitHub
SITE_ONLY = {*DOCS.rglob("index.md"), DOCS / "changelog.md", *(DOCS / "reference" / "api").glob("*.md")}
#: Characters of a line of code in the column of the site
COLUMN = 88
SIGNATURE = {"self", "observation_space", "action_space", "lr_schedule"}


def reachable_pages() -> set[Path]:
    """Return the pages that a reader reaches from README.md by links between Markdown files."""
    found: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop()
        found.add(page)
        links = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text())
        left += {(page.parent / link).resolve() for link in links} - found
    return found


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table below a heading, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", page.read_text(), flags=re.MULTILINE)[1]
    rows = []
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" |")])
        elif rows:
            break
    return rows[2:]


def first_names(page: Path, heading: str) -> set[str]:
    """Return the names in the first column of a table."""
    return {name for row in table(page, heading) for name in re.findall(r"`([\w.]+)`", row[0])}


def test_readers_on_github_see_no_directives() -> None:
    pages_with_directives = [
        block.name for page in reachable_pages() for block in blocks_of(page) if block.language.startswith("{")
    ]
    assert not pages_with_directives


def test_readers_on_github_reach_every_page() -> None:
    assert set(DOCS.rglob("*.md")) - reachable_pages() == SITE_ONLY


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_fits_the_column(page: Path) -> None:
    def is_code(block: Block) -> bool:
        return block.language in ("python", "bash", "console", "yaml")

    long = [
        f"{block.page}:{block.line + index}"
        for block in blocks_of(page)
        if is_code(block)
        for index, line in enumerate(block.text.splitlines())
        if len(line) > COLUMN
    ]
    assert not long


# Coming from RecurrentPPO

MIGRATION = DOCS / "how-to" / "coming-from-recurrentppo.md"


def test_each_argument_of_recurrent_ppo_is_replaced() -> None:
    constructor = set(inspect.signature(RecurrentPPO.__init__).parameters) - SIGNATURE
    assert first_names(MIGRATION, "Constructor") == constructor
    policy = set(inspect.signature(RecurrentActorCriticPolicy.__init__).parameters) - SIGNATURE
    assert first_names(MIGRATION, "policy_kwargs") == policy


def test_each_method_of_recurrent_ppo_is_replaced() -> None:
    public = {name for name in dir(RecurrentPPO) if not name.startswith("_")}
    assert first_names(MIGRATION, "Methods") == public
    own = {name for name in vars(RecurrentActorCriticPolicy) if not name.startswith("_")}
    assert first_names(MIGRATION, "Methods of the policy") == own


def test_each_attribute_of_recurrent_ppo_is_replaced() -> None:
    recurrent, ours, plain = (
        algorithm(policy, "CartPole-v1", n_steps=8, batch_size=8)
        for algorithm, policy in ((RecurrentPPO, "MlpLstmPolicy"), (TransformerPPO, "TrMRLPolicy"), (PPO, "MlpPolicy"))
    )
    assert not [name for name in vars(recurrent) if not name.startswith("_") and not hasattr(ours, name)]
    names = [name for name in dir(recurrent.policy) if not name.startswith("_")]
    own = {f"policy.{name}" for name in names if not hasattr(plain.policy, name)}
    assert first_names(MIGRATION, "Attributes") == own | {"rollout_buffer"}
    named = {name for row in table(MIGRATION, "Attributes") for name in re.findall(r"`policy\.(\w+)[`(]", row[1])}
    assert not [name for name in named if not hasattr(ours.policy, name)]


def test_arguments_that_are_the_same_have_the_same_default() -> None:
    for heading, theirs, ours in (
        ("Constructor", RecurrentPPO, TransformerPPO),
        ("policy_kwargs", RecurrentActorCriticPolicy, TrMRLPolicy),
    ):
        old, new = (inspect.signature(each).parameters for each in (theirs, ours))
        for row in table(MIGRATION, heading):
            if row[1] == "the same":
                names = re.findall(r"`(\w+)`", row[0])
                assert [old[name].default for name in names] == [new[name].default for name in names]


# Features compared

FEATURES = DOCS / "reference" / "features.md"
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
SPACES: dict[str, spaces.Space[Any]] = {
    "`Box`": VECTOR,
    "images": IMAGE,
    "images below 36 x 36 pixels": spaces.Box(0, 255, (35, 36, 3), np.uint8),
    "`Discrete`": spaces.Discrete(3),
    "`MultiDiscrete`": spaces.MultiDiscrete([2, 3]),
    "`MultiBinary`": spaces.MultiBinary(3),
    "`Dict`": spaces.Dict(vector=VECTOR, number=spaces.Discrete(3)),
    "`Tuple`, nested `Dict`": spaces.Tuple((VECTOR, VECTOR)),
    "`Dict`, `Tuple`": spaces.Dict(vector=VECTOR),
}
ALGORITHMS: list[tuple[type[BaseAlgorithm], str]] = [(TransformerPPO, "TrMRL"), (RecurrentPPO, "Lstm"), (PPO, "")]


def trains(column: int, observation: spaces.Space[Any], action: spaces.Space[Any], mlp: bool = False) -> bool:
    """Return whether the algorithm of a column of the table trains with these spaces, and SB3's policy for them."""
    algorithm, kind = ALGORITHMS[column]
    is_image = observation.shape is not None and len(observation.shape) == 3 and not mlp
    prefix = "MultiInput" if isinstance(observation, spaces.Dict) else "Cnn" if is_image else "Mlp"
    policy = "TrMRLPolicy" if column == 0 else f"{prefix}{kind}Policy"
    try:
        env: Any = DummyVecEnv([lambda: SampledEnv(observation, action)])
        env = VecFrameStack(env, 2) if column == 2 else env
        algorithm(policy, env, n_steps=4, batch_size=4, n_epochs=1, device="cpu").learn(4)  # type: ignore[call-arg]
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def skip_other_versions(column: int) -> None:
    """The columns of other packages describe one version of them."""
    if column > 0 and f"sb3-contrib {sb3_contrib.__version__}" not in FEATURES.read_text():
        pytest.skip("the page describes another version of sb3-contrib")


def rows_of_spaces(part: str) -> list[list[str]]:
    """Return the rows about spaces below the row with a title."""
    rows = table(FEATURES, "Algorithms of Stable-Baselines3")
    start = [row[0] for row in rows].index(f"**{part}**") + 1
    found = []
    for row in rows[start:]:
        if row[0] not in SPACES:
            break
        found.append(row)
    return found


@pytest.mark.parametrize("row", rows_of_spaces("Observations"), ids=lambda row: row[0])
@pytest.mark.parametrize("column", range(3))
def test_supported_observations(row: list[str], column: int) -> None:
    skip_other_versions(column)
    cell, action = row[column + 1], spaces.Discrete(2)
    assert trains(column, SPACES[row[0]], action) == cell.startswith("yes")
    if cell == "with the `Mlp` policy":
        assert trains(column, SPACES[row[0]], action, mlp=True)
    if cell == "`Box` entries only":
        assert trains(column, spaces.Dict(vector=VECTOR), action)


@pytest.mark.parametrize("row", rows_of_spaces("Actions"), ids=lambda row: row[0])
@pytest.mark.parametrize("column", range(3))
def test_supported_actions(row: list[str], column: int) -> None:
    skip_other_versions(column)
    assert trains(column, VECTOR, SPACES[row[0]]) == row[column + 1].startswith("yes")


# Parameters and settings


def test_the_parameters_of_the_policy_are_complete() -> None:
    own = set(inspect.signature(TrMRLPolicy).parameters) - set(inspect.signature(ActorCriticPolicy).parameters)
    named = first_names(DOCS / "reference" / "transformer_ppo.md", "Parameters")
    assert named == own | {"share_features_extractor"}


def test_registered_settings() -> None:
    files = {
        algo: yaml.safe_load((hyperparams_folder() / f"{algo}.yml").read_text())
        for algo in ("trmrl", "ppo_lstm", "ppo")
    }
    rows = table(DOCS / "reference" / "environments.md", "Agents and registered settings")
    listed = {row[0].strip("`") for row in rows}
    ours = {env_id for env_id, spec in gym.registry.items() if "sb3_trmrl" in str(spec.entry_point)}
    assert listed == ours | set(files["trmrl"]) - {"default"} | {"any other"}
    for env_id, steps, memory, rollout, *others in rows:
        env_id = env_id.strip("`")
        entry = files["trmrl"].get(env_id, files["trmrl"]["default"])
        kwargs = entry.get("policy_kwargs", {})
        is_full = memory_name(kwargs.get("memory"), kwargs.get("context_length")) == "full"
        expected = "full" if is_full else f"window of {kwargs.get('context_length', 16)}"
        expected += ", kept for the trial" if kwargs.get("reset_memory_on") == "trial" else ""
        assert memory == expected
        assert rollout == f"{entry['n_envs']} x {entry['n_steps']}"
        assert steps == ("" if env_id in files["trmrl"] else "`default`: ") + f"{int(entry['n_timesteps']):,}"
        for algo, cell in zip(("ppo_lstm", "ppo"), others, strict=True):
            is_ours = find_config(algo, env_id, None) is not None
            key = env_id if env_id in files[algo] else "default"
            ours = f"{'`default`: ' if key == 'default' else ''}{int(files[algo][key]['n_timesteps']):,}"
            assert cell == (ours if is_ours else "rl-zoo3")
