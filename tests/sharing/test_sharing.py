"""Exported agents act exactly like the model, and loading them runs nothing."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize
from torch import nn

from sb3_trmrl import ExportedAgent, InvalidAgentFile, TransformerPPO, TrMRLPolicy, load_agent
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.sharing.container import read_header
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    IMAGE_FIRST,
    IMAGE_LAST,
    MIXED,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    LinearFeatures,
    by_name,
    sampled_vec_env,
    tiny_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")
# Heads whose actions differ between observations
LOUD = dict(action_head_gain=1.0)
ENV = "BernoulliBandit-v0"


def assert_same_actions(model: TransformerPPO, agent: ExportedAgent, env: Any, n_steps: int = 20) -> None:
    """Both take bit-identical actions in ``env``, which does not normalise."""
    normalizer = model.get_vec_normalize_env()
    observations, starts = env.reset(), np.ones(env.num_envs, dtype=bool)
    states: list[Any] = [None, None]
    seen = set()
    for step in range(n_steps):
        normalized = observations if normalizer is None else normalizer.normalize_obs(observations)
        actions = []
        for index, (actor, inputs) in enumerate(((model, normalized), (agent, observations))):
            th.manual_seed(step)
            if model.use_sde:
                actor.policy.reset_noise(env.num_envs)
            action, states[index] = actor.predict(inputs, states[index], starts, deterministic=step % 2 == 0)
            actions.append(action)
        assert actions[0].dtype == actions[1].dtype and actions[0].tobytes() == actions[1].tobytes()
        assert states[0].lengths.tolist() == states[1].lengths.tolist()
        seen.add(actions[0].tobytes())
        observations, _, starts, _ = env.step(actions[0])
    assert len(seen) > 1


def exported(model: TransformerPPO, folder: Path, **arguments: Any) -> ExportedAgent:
    return load_agent(model.export(folder / "agent", **arguments))


class Case(NamedTuple):
    """An agent to train, export and load. ``normalize`` are arguments of VecNormalize."""

    observations: spaces.Space = VECTOR
    actions: spaces.Space = BOX_ACTION
    settings: dict[str, Any] = {}  # noqa: RUF012
    use_sde: bool = False
    normalize: dict[str, Any] | None = None


POLICIES: dict[str, dict[str, Any]] = {
    "token-critic": dict(critic_input="token"),
    "token-critic-shared": dict(critic_input="token", share_features_extractor=True),
    "shared": dict(share_features_extractor=True),
    "architecture": dict(
        net_arch=dict(pi=[8, 4], vf=[8]),
        activation_fn=nn.ReLU,
        embedding_arch=[8],
        n_layers=2,
        layer_norm="pre",
        memory="window",
        positional_encoding="learned",
    ),
    "list-architecture": dict(net_arch=[8], layer_norm="post", positional_encoding="relative", n_heads=4),
    "full-sinusoidal": dict(memory="full", positional_encoding="sinusoidal", context_length=3),
    "optimizer": dict(optimizer_class=th.optim.SGD, ortho_init=False, log_std_init=-1.0),
    "trial": dict(reset_memory_on="trial"),
}
NORMALIZED: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "box": (VECTOR, dict(clip_obs=0.7)),
    "box-float64": (spaces.Box(-9.0, 9.0, (2, 2), np.float64), dict(epsilon=0.1)),
    "image": (IMAGE_FIRST, {}),
    "dict": (TRANSITION, {}),
    "dict-some-keys": (TRANSITION, dict(norm_obs_keys=["prev_reward", "observation"])),
    "mixed": (MIXED, dict(norm_obs_keys=["wide"])),
    "no-keys": (TRANSITION, dict(norm_obs_keys=[])),
    "rewards-only": (VECTOR, dict(norm_obs=False)),
}
CASES = {
    **{f"actions-{name}": Case(actions=space) for name, space in ACTION_SPACES.items()},
    **{f"policy-{name}": Case(TRANSITION, settings=settings) for name, settings in POLICIES.items()},
    "gsde": Case(use_sde=True),
    "gsde-few-parameters": Case(use_sde=True, settings=dict(full_std=False)),
    "gsde-expln": Case(use_sde=True, settings=dict(use_expln=True)),
    "gsde-squashed": Case(use_sde=True, settings=dict(squash_output=True)),
    "cnn": Case(
        IMAGE_FIRST, settings=dict(features_extractor_class=NatureCNN, features_extractor_kwargs=dict(features_dim=7))
    ),
    "channels-last": Case(
        IMAGE_LAST, settings=dict(features_extractor_kwargs=dict(features_dim=7), share_features_extractor=True)
    ),
    "combined": Case(MIXED, settings=dict(features_extractor_kwargs=dict(cnn_output_dim=5), critic_input="token")),
    "floats": Case(spaces.Box(0.0, 1.0, (1, 36, 36), np.float32), settings=dict(normalize_images=False)),
}
for memory in ("window", "full"):
    for name, space in OBSERVATION_SPACES.items():
        CASES[f"observations-{name}-{memory}"] = Case(space, settings=dict(memory=memory))
    for name, (space, normalize) in NORMALIZED.items():
        CASES[f"normalized-{name}-{memory}"] = Case(space, settings=dict(memory=memory), normalize=normalize)


@pytest.mark.parametrize("case", **by_name(CASES))
def test_a_loaded_agent_acts_like_the_model(case: Case, tmp_path: Path) -> None:
    env = sampled_vec_env(2, case.observations, case.actions)
    if case.normalize is not None:
        env = VecNormalize(env, **case.normalize)
    model = tiny_model(env, {**LOUD, **case.settings}, use_sde=case.use_sde).learn(64)
    agent = exported(model, tmp_path)
    assert agent.observation_space == model.observation_space and agent.action_space == case.actions
    normalizes = case.normalize is not None and case.normalize.get("norm_obs", True)
    assert (agent.observation_statistics is not None) == normalizes
    assert_same_actions(model, agent, sampled_vec_env(3, case.observations, case.actions))


WITHOUT_CRITIC = {name: case for name, case in CASES.items() if name.startswith(("policy-", "gsde", "c"))}


@pytest.mark.parametrize("case", **by_name(WITHOUT_CRITIC))
def test_without_the_critic(case: Case, tmp_path: Path) -> None:
    """The file lacks what has no influence on the actions, and the agent acts like the model."""
    model = tiny_model(
        sampled_vec_env(2, case.observations, case.actions), {**LOUD, **case.settings}, use_sde=case.use_sde
    )
    model.learn(64)
    whole, part = (load_file(model.export(tmp_path / f"{critic}", critic=critic)) for critic in (True, False))
    observations, _ = model.policy.obs_to_tensor(sampled_vec_env(2, case.observations, case.actions).reset())
    distribution = model.policy.get_distribution(observations)
    model.policy.zero_grad(set_to_none=True)
    distribution.log_prob(distribution.get_actions().detach()).sum().backward()
    acting = {f"policy.{name}" for name, weight in model.policy.named_parameters() if weight.grad is not None}
    assert set(part) == acting < set(whole)
    assert all(np.array_equal(weight, whole[name]) for name, weight in part.items())
    agent = load_agent(tmp_path / "False.safetensors")
    assert_same_actions(model, agent, sampled_vec_env(3, case.observations, case.actions))
    with pytest.raises(RuntimeError, match="exported without its critic and cannot compute values"):
        agent.policy.predict_values(observations)


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["vector", "transition"])
def test_half_precision(space: spaces.Space[Any], tmp_path: Path) -> None:
    model = tiny_model(VecNormalize(sampled_vec_env(2, space)), LOUD).learn(64)
    single, half = (model.export(tmp_path / dtype, dtype=dtype) for dtype in ("float32", "float16"))
    agent = load_agent(half)
    exact = load_file(single)
    for name, found in load_file(half).items():
        expected = exact[name] if name.startswith("observations.") else exact[name].astype(np.float16)
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
    for name, weight in agent.policy.state_dict().items():
        assert weight.dtype == th.float32
        np.testing.assert_allclose(weight, model.policy.state_dict()[name], rtol=2**-11, atol=2**-24)
    observations = sampled_vec_env(3, space).reset()
    starts = np.ones(3, dtype=bool)
    actions, _ = agent.predict(observations, None, starts, deterministic=True)
    expected_actions, _ = load_agent(single).predict(observations, None, starts, deterministic=True)
    np.testing.assert_allclose(actions, expected_actions, atol=0.01)


def test_weights_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    model = tiny_model("CartPole-v1")
    with th.no_grad():
        model.policy.action_net.bias[0] = 70000.0
    model.export(tmp_path / "single")
    with pytest.raises(ValueError, match=r"'policy\.action_net\.bias' has numbers that are not finite"):
        model.export(tmp_path / "half", dtype="float16")


def test_statistics_are_exact(tmp_path: Path) -> None:
    env = VecNormalize(sampled_vec_env(2, TRANSITION), norm_obs_keys=["observation"])
    path = tiny_model(env).learn(64).export(tmp_path / "agent")
    tensors = load_file(path)
    assert tensors["observations.mean.observation"].tobytes() == env.obs_rms["observation"].mean.tobytes()
    assert tensors["observations.var.observation"].tobytes() == env.obs_rms["observation"].var.tobytes()
    assert not any("optimizer" in name for name in tensors)


def test_statistics_that_are_given(tmp_path: Path) -> None:
    env = VecNormalize(sampled_vec_env(2))
    model = tiny_model(env, LOUD).learn(64)
    model.save(tmp_path / "model")
    without = TransformerPPO.load(tmp_path / "model", device="cpu")
    assert exported(without, tmp_path).observation_statistics is None
    assert_same_actions(model, exported(without, tmp_path, vec_normalize=env), sampled_vec_env(3))


def test_spaces_keep_order_bounds_and_types(tmp_path: Path) -> None:
    observations = spaces.Dict(
        [
            ("z", spaces.Box(np.array([-1.5, -np.inf]), np.array([0.1, np.inf]), dtype=np.float64)),
            ("a", spaces.Discrete(3, start=0)),
            ("m", spaces.Box(0, 1, (2,), np.bool_)),
            ("k", spaces.Box(0, 2**64 - 1, (1,), np.uint64)),
        ]
    )
    agent = exported(tiny_model(sampled_vec_env(1, observations, BOX_ACTION)), tmp_path)
    assert isinstance(agent.observation_space, spaces.Dict)
    assert list(agent.observation_space.spaces) == ["z", "a", "m", "k"]
    for key, space in observations.spaces.items():
        found = agent.observation_space[key]
        assert found == space and found.dtype == space.dtype
        if isinstance(space, spaces.Box) and isinstance(found, spaces.Box):
            assert (found.low.tobytes(), found.high.tobytes()) == (space.low.tobytes(), space.high.tobytes())
    assert agent.action_space == BOX_ACTION


def test_environment_and_summary(tmp_path: Path) -> None:
    env = gym.make(ENV, n_arms=3, episodes_per_trial=2)
    model = tiny_model(env, learning_rate=lambda _: 1e-3, clip_range=0.3, seed=5).learn(16)
    agent = exported(model, tmp_path, summary={"author": "me", "score": np.float64(1.5), "seeds": (1, 2)})
    assert agent.env_id == ENV and agent.env_kwargs == {"n_arms": 3, "episodes_per_trial": 2}
    assert agent.summary["timesteps"] == 16 and agent.summary["algorithm"] == "TransformerPPO"
    assert agent.summary["versions"]["torch"] == th.__version__
    hyperparameters = agent.summary["hyperparameters"]
    assert (hyperparameters["n_steps"], hyperparameters["clip_range"], hyperparameters["seed"]) == (16, 0.3, 5)
    assert "learning_rate" not in hyperparameters  # a function is not plain data
    # None of other algorithms, no paths and no messages
    others = {"n_envs"} | {*hyperparameters} - {*inspect.signature(TransformerPPO).parameters}
    assert others == {"n_envs"} and not {"tensorboard_log", "verbose", "device"} & {*hyperparameters}
    assert (agent.summary["author"], agent.summary["score"], agent.summary["seeds"]) == ("me", 1.5, [1, 2])
    other = exported(model, tmp_path, env_id="Other-v0", env_kwargs={"size": 3})
    assert (other.env_id, other.env_kwargs) == ("Other-v0", {"size": 3})


def test_evaluation_normalises_once(tmp_path: Path) -> None:
    model = tiny_model(VecNormalize(TransformerPPO("TrMRLPolicy", ENV, n_steps=8, batch_size=8).get_env()), LOUD)
    model.learn(64)
    agent = exported(model, tmp_path)
    results = [evaluate_adaptation(actor, ENV, 4, 2, deterministic=False) for actor in (model, agent)]
    assert np.array_equal(results[0].rewards, results[1].rewards)
    with pytest.raises(ValueError, match="`vec_normalize` must be None for an exported agent"):
        evaluate_adaptation(agent, ENV, 4, 2, vec_normalize=model.get_vec_normalize_env())


@pytest.mark.parametrize("use_sde", [False, True])
def test_loading_leaves_the_random_generators_alone(use_sde: bool, tmp_path: Path) -> None:
    path = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), use_sde=use_sde).export(tmp_path / "agent")
    before = th.get_rng_state(), np.random.get_state()[1].tolist()
    load_agent(path)
    assert th.equal(before[0], th.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


def test_the_loaded_policy_predicts_values(tmp_path: Path) -> None:
    """The loaded policy is complete: its values are also those of the model."""
    model = tiny_model(sampled_vec_env(2, TRANSITION), dict(critic_input="token")).learn(32)
    agent = exported(model, tmp_path)
    observations = {key: th.as_tensor(value) for key, value in sampled_vec_env(3, TRANSITION).reset().items()}
    with th.no_grad():
        values = [policy.predict_values(observations) for policy in (model.policy, agent.policy)]
    assert th.equal(*values) and not agent.policy.training


class _OwnPolicy(TrMRLPolicy):
    """A custom policy."""


class _OwnActivation(nn.Tanh):
    """A custom activation function."""


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        (
            dict(features_extractor_class=LinearFeatures),
            {},
            "`features_extractor_class` must be one of Flatten.*Linear",
        ),
        (dict(activation_fn=_OwnActivation), {}, "`activation_fn` must be one of Tanh, .*got _OwnActivation"),
        ({}, dict(summary={"a": [nn.Tanh]}), r"`summary`\['a'\]\[0\] must be plain data"),
        ({}, dict(summary={"a": "b" * 2**22}), "header has .* bytes, more than"),
        ({}, dict(env_id="E-v0", env_kwargs={"f": print}), r"`env_kwargs`\['f'\] must be plain data"),
    ],
)
def test_what_cannot_be_exported(
    settings: dict[str, Any], arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(sampled_vec_env(), settings).export(tmp_path / "agent", **arguments)
    assert not list(tmp_path.iterdir())


def test_other_things_that_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a TransformerSACPolicy can be exported, got a _OwnPolicy"):
        tiny_model(sampled_vec_env(), policy=_OwnPolicy).export(tmp_path / "agent")
    stacked = tiny_model(VecFrameStack(VecNormalize(sampled_vec_env()), 2)).learn(32)
    with pytest.raises(ValueError, match="VecFrameStack outside VecNormalize changes the observations"):
        stacked.export(tmp_path / "agent")
    broken = tiny_model(sampled_vec_env())
    with th.no_grad():
        broken.policy.value_net.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"'policy.value_net.bias' has numbers that are not finite"):
        broken.export(tmp_path / "agent")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "use_sde", "log_std"),
    [
        ({}, False, -200.0),
        ({}, False, 200.0),
        ({}, True, -200.0),
        ({}, True, 60.0),
        ({}, True, 200.0),
        (dict(full_std=False), True, -200.0),
        (dict(use_expln=True), True, -200.0),
        (dict(use_expln=True), True, 200.0),
    ],
)
def test_a_deviation_that_no_distribution_can_have(
    settings: dict[str, Any], use_sde: bool, log_std: float, tmp_path: Path
) -> None:
    """Neither written nor loaded: PyTorch cannot sample with a deviation that is 0 or infinite."""
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), settings, use_sde=use_sde)
    path = model.export(tmp_path / "agent")
    written = path.read_bytes()
    with th.no_grad():
        model.policy.log_std.view(-1)[-1] = log_std
    message = f"'policy.log_std' must give standard deviations above 0 with finite squares, got .* from {log_std:g}"
    with pytest.raises(ValueError, match=f"the agent cannot be exported: .*{message}"):
        model.export(path)
    assert path.read_bytes() == written
    tensors = {**load_file(path), "policy.log_std": model.policy.log_std.detach().numpy()}
    with safe_open(path, "numpy") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(InvalidAgentFile, match=f"{path.name} cannot be loaded as an agent: .*{message}"):
        load_agent(path)


def test_an_older_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: Any) -> None:
    model = tiny_model(sampled_vec_env())
    path = model.export(tmp_path / "agent")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        model.learn(16).export(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


_AUDIT = """
import sys
events = []
sys.addaudithook(lambda event, _: events.append(event))
import stable_baselines3.common.vec_env, stable_baselines3.ppo  # older versions import matplotlib and pandas
sb3_modules = set(sys.modules)
from sb3_trmrl import TransformerPPO, load_agent
load_agent(sys.argv[1])  # imports everything that loading needs
events.clear()
load_agent(sys.argv[1])
print(sorted(set(events)))
print(sorted(set(sys.modules) - sb3_modules))
TransformerPPO.load(sys.argv[2], device="cpu")
print("pickle.find_class" in events)
"""
_OPTIONAL = ("huggingface_hub", "matplotlib", "pandas", "rl_zoo3", "sb3_contrib", "sklearn")


def test_loading_runs_nothing(tmp_path: Path) -> None:
    """Python's audit events show no unpickling, compiling, importing or starting, and no optional package is needed."""
    model = tiny_model(VecNormalize(sampled_vec_env(2, TRANSITION)))
    path = model.export(tmp_path / "agent")
    model.save(tmp_path / "model.zip")
    script = [sys.executable, "-c", _AUDIT, str(path), str(tmp_path / "model.zip")]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    events = set(json.loads(lines[0].replace("'", '"')))
    assert not set(json.loads(lines[1].replace("'", '"'))) & set(_OPTIONAL)
    assert lines[2] == "True"  # the hook sees the unpickling of SB3's zips
    assert "open" in events
    dangerous = ("compile", "ctypes", "exec", "import", "marshal", "os", "pickle", "shutil", "socket", "subprocess")
    assert not [event for event in events if event.split(".")[0] in dangerous]


def test_the_description_is_readable(tmp_path: Path) -> None:
    path = tiny_model(sampled_vec_env()).export(tmp_path / "agent", summary={"author": "é"})
    description, entries = read_header(path.read_bytes())
    assert description["format_version"] == 1 and description["policy"]["context_length"] == 1024
    assert description["summary"]["author"] == "é"
    weights = tiny_model(sampled_vec_env()).policy.named_parameters()
    assert set(entries) == {f"policy.{name}" for name, _ in weights}


def test_gymnasiums_tuple_is_explained(tmp_path: Path) -> None:
    agent = exported(tiny_model(VecNormalize(sampled_vec_env())), tmp_path)
    with pytest.raises(ValueError, match="You have passed a tuple"):
        agent.predict((np.zeros(3, np.float32), {}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`observation` must be an array"):
        agent.predict({"observation": np.zeros(3, np.float32)})


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_frames_stacked_after_normalization(tmp_path: Path, space: spaces.Space[Any]) -> None:
    """The order in which rl-zoo3 puts the wrappers. The other order can be exported."""
    keys = ["observation"] if isinstance(space, spaces.Dict) else None
    inside = VecFrameStack(VecNormalize(sampled_vec_env(2, space), norm_obs_keys=keys), 2)
    with pytest.raises(ValueError, match="VecFrameStack outside VecNormalize changes the observations"):
        tiny_model(inside).learn(32).export(tmp_path / "agent")
    outside = VecNormalize(VecFrameStack(sampled_vec_env(2, space), 2), norm_obs_keys=keys)
    tiny_model(outside).learn(32).export(tmp_path / "agent")
