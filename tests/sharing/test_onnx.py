"""Exported ONNX graphs act like the model, in onnxruntime and without PyTorch."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_trmrl import TransformerPPO, TrMRLPolicy
from sb3_trmrl.sharing.onnx_export import AgentStep
from sb3_trmrl.sharing.statistics import ObservationStatistics
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    IMAGE_FIRST,
    MIXED,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    LinearFeatures,
    by_name,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.wrong_use import NOT_INTEGERS, Wrong, rows

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("one_thread")
# Heads whose actions differ between observations
LOUD = dict(action_head_gain=1.0, initialization="xavier")


class Case(NamedTuple):
    """An agent to train and export. ``normalize`` are arguments of VecNormalize."""

    observations: spaces.Space = VECTOR
    actions: spaces.Space = BOX_ACTION
    settings: dict[str, Any] = {}  # noqa: RUF012
    use_sde: bool = False
    normalize: dict[str, Any] | None = None

    def model(self) -> TransformerPPO:
        env: Any = sampled_vec_env(2, self.observations, self.actions)
        if self.normalize is not None:
            env = VecNormalize(env, **self.normalize)
        return tiny_model(env, {**LOUD, **self.settings}, use_sde=self.use_sde).learn(64)


class Graph:
    """An exported graph in onnxruntime, or the module that it is made of in PyTorch."""

    def __init__(self, graph: Path | AgentStep, n_envs: int) -> None:
        self.outputs: list[str] = []
        if isinstance(graph, AgentStep):
            self.step = graph
            memory = {f"memory.{name}": tensor for name, tensor in graph.memory.empty(n_envs).items()}
            inputs = {**graph.empty_observations(n_envs), **memory}
            self.empty = {name: tensor.numpy() for name, tensor in inputs.items()}
            self.session = None
        else:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(graph, options)
            types = {"float": "float32", "double": "float64"}
            self.empty = {}
            for each in self.session.get_inputs():
                assert each.shape[0] == "batch"
                name = each.type.removeprefix("tensor(").removesuffix(")")
                self.empty[each.name] = np.zeros((n_envs, *each.shape[1:]), types.get(name, name))
            self.outputs = [each.name for each in self.session.get_outputs()]
        self.memory = {name: array for name, array in self.empty.items() if name.startswith("memory.")}

    def act(self, observations: Any, reset: np.ndarray) -> np.ndarray:
        named = {"": observations} if not isinstance(observations, dict) else observations
        inputs = {}
        for key, array in named.items():
            name = f"observation.{key}" if key else "observation"
            if array.shape[1:] != self.empty[name].shape[1:]:  # images
                array = np.moveaxis(array, -1, 1)
            inputs[name] = array.astype(self.empty[name].dtype)
        if self.session is None:
            tensors = ([*map(th.as_tensor, each.values())] for each in (inputs, self.memory))
            with th.no_grad():
                action, *memory = (tensor.numpy() for tensor in self.step(*tensors, th.as_tensor(reset)))
        else:
            action, *memory = self.session.run(None, {**inputs, **self.memory, "reset": reset})
            assert self.outputs == ["action", *(f"next_{name}" for name in self.memory)]
        self.memory = dict(zip(self.memory, memory, strict=True))
        return np.asarray(action)


def assert_same_actions(model: TransformerPPO, graph: Path | AgentStep, env: Any, n_steps: int = 24) -> None:
    """The graph acts like ``predict`` in ``env``, which does not normalise, over several episodes."""
    normalizer = model.get_vec_normalize_env()
    runs = Graph(graph, env.num_envs)
    observations, starts, state, seen = env.reset(), np.ones(env.num_envs, dtype=bool), None, set()
    for _ in range(n_steps):
        normalized = observations if normalizer is None else normalizer.normalize_obs(observations)
        expected, state = model.predict(normalized, state, starts, deterministic=True)  # type: ignore[arg-type]
        actions = runs.act(observations, starts)
        assert actions.dtype == expected.dtype and actions.shape == expected.shape
        np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-5)
        seen.add(expected.tobytes())
        observations, _, starts, _ = env.step(expected)
    assert len(seen) > 1


#: Exports take seconds, so each of them has many features
EXPORTED = {
    "window-transition": Case(
        TRANSITION,
        settings=dict(memory="window"),
        normalize=dict(norm_obs_keys=["prev_done", "prev_reward", "observation"]),
    ),
    "full-transition": Case(TRANSITION, settings=dict(memory="full", context_length=4, n_layers=2), normalize={}),
    "window-image": Case(IMAGE_FIRST, ACTION_SPACES["multi-discrete"], dict(memory="window")),
    "full-image-and-more": Case(
        MIXED, ACTION_SPACES["multi-binary"], dict(memory="full", context_length=4, layer_norm="pre")
    ),
    "window-discrete": Case(
        spaces.Discrete(5),
        spaces.Discrete(3),
        dict(memory="window", n_layers=2, layer_norm="pre", positional_encoding="learned", embedding_arch=[8]),
    ),
    "full-box": Case(
        OBSERVATION_SPACES["box-float64"],
        ACTION_SPACES["box-float64"],
        dict(memory="full", positional_encoding="sinusoidal", context_length=3, squash_output=True, layer_norm="post"),
        use_sde=True,
        normalize=dict(clip_obs=0.7),
    ),
    "window-multi-discrete": Case(
        spaces.MultiDiscrete([4, 3]),
        ACTION_SPACES["box-matrix"],
        dict(memory="window", positional_encoding="relative"),
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[TransformerPPO, Path]]:
    """Function that returns the model of a case and its graph, which is exported once"""

    @cache
    def export(name: str) -> tuple[TransformerPPO, Path]:
        model = EXPORTED[name].model()
        return model, model.export_onnx(tmp_path_factory.mktemp("graph") / "agent")

    return export


@pytest.mark.parametrize("name", EXPORTED)
def test_onnxruntime_acts_like_the_model(name: str, exported: Any) -> None:
    case, (model, path) = EXPORTED[name], exported(name)
    assert [path.name] == [each.name for each in path.parent.iterdir()] == ["agent.onnx"]
    for n_envs in (1, 3):
        assert_same_actions(model, path, sampled_vec_env(n_envs, case.observations, case.actions))
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


CASES = {
    **{f"actions-{name}": Case(actions=space) for name, space in ACTION_SPACES.items()},
    **{
        f"observations-{name}-{memory}": Case(space, settings=dict(memory=memory))
        for name, space in OBSERVATION_SPACES.items()
        for memory in ("window", "full")
    },
    "trial": Case(TRANSITION, settings=dict(reset_memory_on="trial")),
    "token-critic": Case(TRANSITION, settings=dict(critic_input="token", share_features_extractor=True)),
    "gsde": Case(use_sde=True),
    "own-features": Case(settings=dict(features_extractor_class=LinearFeatures)),
    "normalized-image": Case(IMAGE_FIRST, normalize={}),
    "rewards-only": Case(normalize=dict(norm_obs=False)),
}


@pytest.mark.parametrize("case", **by_name(CASES))
def test_the_step_acts_like_the_model(case: Case) -> None:
    """In PyTorch, which is faster, for many more spaces and settings."""
    model = case.model()
    statistics = ObservationStatistics.from_vec_normalize(model.get_vec_normalize_env())
    step = AgentStep(model.policy, statistics).eval()
    assert_same_actions(model, step, sampled_vec_env(3, case.observations, case.actions))


def test_the_newest_steps_beyond_the_last_one(tmp_path: Path) -> None:
    """A graph with ``max_steps`` acts like the model that long, and later like one that sees as many tokens."""
    settings = dict(memory="full", context_length=4, n_layers=2)
    model = Case(settings=settings).model()
    short = Case(settings=dict(settings, context_length=3)).model()
    short.policy.load_state_dict(model.policy.state_dict())
    path = model.export_onnx(tmp_path / "agent.onnx", max_steps=3)
    assert_same_actions(model, path, sampled_vec_env(1, VECTOR, BOX_ACTION, length=10), n_steps=3)
    assert_same_actions(short, path, sampled_vec_env(2, VECTOR, BOX_ACTION, length=10))
    step = AgentStep(model.policy, None, max_steps=1000)
    assert step.memory.empty(2)["keys"].shape == (2, 2, 4, 2, 4)  # not more than context_length


def test_positions_of_a_long_episode(exported: Any) -> None:
    case = EXPORTED["full-box"]  # has sinusoidal positions
    assert_same_actions(
        *exported("full-box"), sampled_vec_env(1, case.observations, case.actions, length=1000), n_steps=1000
    )


def test_statistics_that_are_given(tmp_path: Path) -> None:
    env = VecNormalize(sampled_vec_env(2, VECTOR, BOX_ACTION))
    model = tiny_model(env, LOUD).learn(64)
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", device="cpu")
    loaded.policy.set_training_mode(True)
    path = loaded.export_onnx(tmp_path / "agent", vec_normalize=env)
    assert loaded.policy.training
    assert_same_actions(model, path, sampled_vec_env(3, VECTOR, BOX_ACTION))


@pytest.mark.parametrize("memory", ["window", "full"])
def test_a_reset_removes_what_is_not_finite(memory: str) -> None:
    runs = Graph(AgentStep(Case(settings=dict(memory=memory)).model().policy, None), 1)
    ones, reset = np.ones((1, 3), np.float32), np.ones(1, dtype=bool)
    expected = runs.act(ones, reset)
    assert np.isnan(runs.act(ones * np.nan, reset)).all()
    assert np.isnan(runs.act(ones, ~reset)).all()
    assert np.array_equal(runs.act(ones, reset), expected)


_WITHOUT_TORCH = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": bool}
inputs = {each.name: np.zeros((1, *each.shape[1:]), types[each.type]) for each in session.get_inputs()}
inputs["reset"][:] = True
print(session.run(["action"], inputs)[0].shape, "torch" in sys.modules)
"""


def test_the_graph_runs_without_pytorch(exported: Any) -> None:
    command = [sys.executable, "-c", _WITHOUT_TORCH, str(exported("window-transition")[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(1, 2) False"


WRONG = [
    *rows("path", [None, 5], TypeError, "a path"),
    Wrong("path", "agent.safetensors", ValueError, "must end with .onnx"),
    *rows("vec_normalize", ["yes", sampled_vec_env()], TypeError, "a VecNormalize or None"),
    *rows("max_steps", [each for each in NOT_INTEGERS if each is not None], TypeError, "an integer"),
    *rows("max_steps", [0, -1], ValueError, "at least 1"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.argument}-{wrong.value!r:.20}")
def test_wrong_arguments(wrong: Wrong, tmp_path: Path) -> None:
    model = tiny_model(sampled_vec_env(), dict(memory="full"))
    wrong.check(model.export_onnx, {"path": tmp_path / "agent"})
    assert not list(tmp_path.iterdir())


class _OwnPolicy(TrMRLPolicy):
    """A custom policy."""


class _Branching(LinearFeatures):
    """Features whose control flow depends on data."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations if observations.sum() > 0 else -observations)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`max_steps` must be None with memory='window', got 5"):
        tiny_model(sampled_vec_env(), dict(memory="window")).export_onnx(tmp_path / "agent", max_steps=5)
    with pytest.raises(ValueError, match="only a TrMRLPolicy or a TransformerSACPolicy can be, got a _OwnPolicy"):
        tiny_model(sampled_vec_env(), policy=_OwnPolicy).export_onnx(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"PyTorch cannot trace its policy: .*data-dependent"):
        tiny_model(sampled_vec_env(), dict(features_extractor_class=_Branching)).export_onnx(tmp_path / "agent")
    stacked = tiny_model(VecFrameStack(VecNormalize(sampled_vec_env()), 2))
    with pytest.raises(ValueError, match="VecFrameStack outside VecNormalize changes the observations"):
        stacked.export_onnx(tmp_path / "agent")
    broken = tiny_model(sampled_vec_env())
    with th.no_grad():
        broken.policy.action_net.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"'action_net.bias' has numbers that are not finite"):
        broken.export_onnx(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"VecNormalize has statistics of the keys .*, and the policy reads arrays"):
        tiny_model(sampled_vec_env()).export_onnx(tmp_path / "agent", VecNormalize(sampled_vec_env(1, TRANSITION)))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write the agent to `path` .*file/agent"):
        tiny_model(sampled_vec_env()).export_onnx(tmp_path / "file" / "agent")


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_a_missing_package_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx and onnxscript .*pip install 'sb3_trmrl\[onnx\]'"):
        tiny_model(sampled_vec_env()).export_onnx(tmp_path / "agent")
