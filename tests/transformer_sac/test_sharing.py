"""Exported agents act like the model, from safetensors and as ONNX graphs; analyses read its transformer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from safetensors.numpy import load_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl import InvalidAgentFile, TransformerSACPolicy, load_agent
from sb3_trmrl.analysis.traces import traced_steps
from sb3_trmrl.evaluation.trials import Trials
from tests.helpers.agent_mutations import Parts
from tests.helpers.agents import BOX_ACTION, IMAGE_FIRST, TRANSITION, VECTOR, SampledEnv, Space
from tests.helpers.environments import noisy_reach
from tests.helpers.sac import tiny_sac

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(space: Space, use_sde: bool = False, **policy_kwargs: Any) -> Any:
    env: Any = DummyVecEnv([lambda: SampledEnv(space, BOX_ACTION)])
    env = VecNormalize(env) if space is VECTOR else env
    return tiny_sac(env, use_sde=use_sde, learning_rate=0.01, policy_kwargs=policy_kwargs).learn(14, log_interval=None)


CASES: list[dict[str, Any]] = [
    dict(space=VECTOR),
    dict(space=VECTOR, use_sde=True, net_arch=dict(pi=[8], qf=[4, 4]), n_critics=3),
    dict(space=VECTOR, use_sde=True, clip_mean=0.0),
    dict(space=TRANSITION, share_features_extractor=True, critic_layer_norm=True, layer_norm="pre"),
    dict(space=TRANSITION, share_features_extractor=True, shared_memory_loss="actor", reset_memory_on="trial"),
    dict(space=IMAGE_FIRST, positional_encoding="learned", embedding_arch=[4]),
    dict(space=TRANSITION, memory="full", context_length=4, share_features_extractor=True),
    dict(space=VECTOR, memory="full", positional_encoding="sinusoidal", use_sde=True),
]


def play(model: Any, agent: Any, n_steps: int = 15) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the actions of both, stochastic ones at odd steps."""
    env = DummyVecEnv([lambda: SampledEnv(model.observation_space, BOX_ACTION)] * 2)
    env.seed(0)
    normalizer = model.get_vec_normalize_env()
    observations, starts, states = env.reset(), np.ones(2, dtype=bool), [None, None]
    actions = []
    for step in range(n_steps):
        normalized = observations if normalizer is None else normalizer.normalize_obs(observations)
        taken = []
        for index, (actor, inputs) in enumerate(((model, normalized), (agent, observations))):
            th.manual_seed(step)
            if model.use_sde and hasattr(actor, "policy"):
                actor.policy.reset_noise(2)
            action, states[index] = actor.predict(inputs, states[index], starts, deterministic=step % 2 == 0)
            taken.append(action)
        actions.append((taken[0], taken[1]))
        observations, _, starts, _ = env.step(taken[0])
    return actions


@pytest.mark.parametrize("case", CASES)
def test_exported_agents_act_bit_identically(case: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**case)
    agent = load_agent(model.export(tmp_path / "agent"))
    for ours, theirs in play(model, agent):
        assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
    assert agent.summary["algorithm"] == "TransformerSAC" and agent.summary["hyperparameters"]["tau"] == 0.005
    assert isinstance(agent.policy, TransformerSACPolicy)
    q_values = agent.policy.critic.state_dict()
    assert all(th.equal(weight, q_values[name]) for name, weight in model.critic.state_dict().items())
    observation = model.env.reset()
    with pytest.raises(ValueError, match="`action_masks` must be None with the action space Box"):
        agent.predict(observation, None, np.ones(1, dtype=bool), action_masks=np.ones((1, 2), dtype=bool))


@pytest.mark.parametrize("case", CASES)
def test_without_the_critics(case: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**case)
    whole, part = (load_file(model.export(tmp_path / f"{critic}", critic=critic)) for critic in (True, False))
    acting = {f"policy.actor.{name}" for name in model.actor.state_dict()}
    assert {name for name in part if name.startswith("policy.")} == acting < set(whole)
    agent = load_agent(tmp_path / "False.safetensors")
    for ours, theirs in play(model, agent):
        assert ours.tobytes() == theirs.tobytes()
    with pytest.raises(RuntimeError, match="exported without its critic"):
        agent.policy.critic(model.env.reset(), None)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    class OwnPolicy(TransformerSACPolicy):
        pass

    model = tiny_sac()
    model.policy.__class__ = OwnPolicy
    with pytest.raises(ValueError, match="a TransformerSACPolicy can be exported, got a OwnPolicy"):
        model.export(tmp_path / "agent")
    with pytest.raises(ValueError, match="a TransformerSACPolicy can be, got a OwnPolicy"):
        model.export_onnx(tmp_path / "agent")


class Graph:
    """A graph in onnxruntime, with ``predict`` of a batch of two."""

    def __init__(self, path: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def predict(self, observations: Any, state: Any, starts: np.ndarray, deterministic: bool) -> Any:
        if isinstance(observations, dict):
            inputs = {f"observation.{key}": value for key, value in observations.items()}
        else:
            inputs = {"observation": observations}
        if state is None:
            arrays = [each for each in self.session.get_inputs() if each.name.startswith("memory.")]
            state = {each.name: np.zeros((2, *each.shape[1:]), np.float32) for each in arrays}
            state["memory.length"] = np.zeros(2, np.int64)
        found = dict(zip(self.outputs, self.session.run(None, {**inputs, **state, "reset": starts}), strict=True))
        action = found.pop("action")
        return action, {name.removeprefix("next_"): value for name, value in found.items()}


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[6], CASES[7]])
def test_onnx_graphs_act_like_the_model(case: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = trained(**case)
    actions = play(model, Graph(model.export_onnx(tmp_path / "agent")))
    for ours, theirs in actions[::2]:  # deterministic ones
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert len({ours.tobytes() for ours, _ in actions[::2]}) > 4


@pytest.mark.parametrize("memory", ["window", "full"])
def test_analyses_read_the_transformer_of_the_actor(memory: str) -> None:
    settings = dict(context_length=4, memory=memory)
    model = tiny_sac(noisy_reach(), learning_starts=1000, policy_kwargs=settings).learn(2)
    steps = list(traced_steps(model, Trials(noisy_reach, 2, 2)))
    assert sum(len(step.rows) for step in steps) > 4
    widths = {step.attention().shape[1:] for step in steps}
    assert widths == {(1, 2, 4)} if memory == "window" else {(1, 2, 1), (1, 2, 6)} <= widths


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_critics", 0, "policy.n_critics: Expected `int` >= 1, got 0"),
        ("n_critics", 3, "must be F32 of shape .*, got absent"),
        ("use_sde", True, "must be .*as the description says"),
        ("memory", "infinite", "policy.memory"),
        ("activation_fn", "os.system", "policy: activation_fn must be one of Tanh"),
        ("context_length", 5000, "context_length must be at most 4096 with a window, got 5000"),
        ("net_arch", {"pi": [8], "vf": [8]}, "policy.net_arch"),
        ("action_head_gain", 1.0, "policy: Object contains unknown field"),
    ],
)
def test_wrong_files_are_refused(name: str, value: Any, message: str, tmp_path: Path) -> None:
    path = tiny_sac(policy_kwargs=dict(positional_encoding="none")).export(tmp_path / "agent")
    parts = Parts(path.read_bytes())
    parts.agent["policy"][name] = value
    path.write_bytes(parts.pack())
    with pytest.raises(InvalidAgentFile, match=message):
        load_agent(path)


@pytest.mark.parametrize(("critic", "number"), [(True, 2), (False, 4)])
def test_the_format_belongs_to_the_content(critic: bool, number: int, tmp_path: Path) -> None:
    """Earlier versions refuse these numbers, and say so."""
    path = tiny_sac().export(tmp_path / "agent", critic=critic)
    parts = Parts(path.read_bytes())
    assert parts.agent["format_version"] == number
    for other, message in {number - 1: "policy", 6 - number: "must be"}.items():
        parts.agent["format_version"] = other
        path.write_bytes(parts.pack())
        with pytest.raises(InvalidAgentFile, match=message):
            load_agent(path)
