"""Tasks in which exploring in one episode pays off in later episodes. They take minutes: `make test-slow`."""

from pathlib import Path
from typing import NamedTuple

import pytest

from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import train

pytestmark = pytest.mark.slow

N_STEPS = 1_200_000


class Case(NamedTuple):
    """One training run, with arguments of the command line and hyperparameters that replace the recommended ones."""

    env_id: str
    has_memory: bool  # of earlier episodes
    arguments: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


# By default, the first token of an episode contains the last action and reward of the previous one
NOTHING_IS_KEPT = ("--env-kwargs", "across_episodes:'zero'")
FORGETS = "policy_kwargs:dict(memory='full',reset_memory_on='episode',share_features_extractor=True)"
ONE_TOKEN = "policy_kwargs:dict(context_length=1,reset_memory_on='trial',share_features_extractor=True)"
CASES = {
    "GridNavi": Case("GridNavi-v0", True),
    "GridNavi, forgets each episode": Case("GridNavi-v0", False, NOTHING_IS_KEPT, (FORGETS,)),
    "GridNavi, one token": Case("GridNavi-v0", False, NOTHING_IS_KEPT, (ONE_TOKEN,)),
    "sparse point robot": Case("SparsePointRobot-v0", True),
}


@pytest.mark.parametrize("name", CASES)
def test_later_episodes_are_better_with_memory_only(name: str, tmp_path: Path) -> None:
    """840 tasks, stochastic actions. The standard error of a difference between episodes is about 0.2."""
    case = CASES[name]
    arguments = ["--seed", "0", "-n", str(N_STEPS), "--eval-freq", "-1", *case.arguments]
    run = train(tmp_path, *arguments, params=list(case.params), env=case.env_id)
    agent = open_agent(run)
    result = evaluate_adaptation(
        agent.model, case.env_id, 840, 4, deterministic=False, env_kwargs=agent.env_kwargs, seed=1
    )
    print(f"{name}, mean return of episodes 1 to 4: {result.mean_returns.round(2)}")
    gains = result.returns[:, 1:] - result.returns[:, :1]
    if case.has_memory:
        assert bootstrap_interval(gains)[0, 0] > 1.0
    else:
        assert abs(gains.mean(axis=0)).max() < 0.7
