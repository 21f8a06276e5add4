"""Exported agents choose among valid actions like the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trmrl import TransformerPPO, load_agent
from sb3_trmrl.sharing.onnx_export import AgentStep
from tests.helpers.agents import ACTION_SPACES, tiny_model
from tests.helpers.masked import masked_vec_env

pytestmark = pytest.mark.usefixtures("one_thread")
LOUD = dict(action_head_gain=1.0, initialization="xavier")
CASES = {name: ACTION_SPACES[name] for name in ("discrete", "multi-discrete", "multi-binary")}


def trained(space: spaces.Space, memory: str = "window") -> TransformerPPO:
    model: TransformerPPO = tiny_model(masked_vec_env(space), {**LOUD, "memory": memory}).learn(32)
    return model


@pytest.mark.parametrize("memory", ["window", "full"])
def test_a_loaded_agent(memory: str, tmp_path: Path) -> None:
    model = trained(CASES["multi-discrete"], memory)
    agent = load_agent(model.export(tmp_path / "agent"))
    env = masked_vec_env(CASES["multi-discrete"])
    observations, starts, states = env.reset(), np.ones(2, bool), [None, None]
    for step in range(20):
        masks = np.stack(env.env_method("action_masks"))
        actions: list[Any] = [None, None]
        for index, actor in enumerate((model, agent)):
            th.manual_seed(step)
            actions[index], states[index] = actor.predict(observations, states[index], starts, step % 2 == 0, masks)  # type: ignore[call-overload]
        np.testing.assert_array_equal(*actions)
        observations, _, starts, _ = env.step(actions[1])


@pytest.mark.parametrize("name", CASES)
def test_onnx(name: str, tmp_path: Path) -> None:
    """In onnxruntime for one action space, and in PyTorch for the others, which is faster."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = trained(CASES[name])
    if name == "multi-binary":
        model.save(tmp_path / "model")
        loaded = TransformerPPO.load(tmp_path / "model", device="cpu")
        session = onnxruntime.InferenceSession(loaded.export_onnx(tmp_path / "agent"))
    step = AgentStep(model.policy, None, takes_masks=True).eval()

    def act(memory: list[np.ndarray], **inputs: np.ndarray) -> list[np.ndarray]:
        if name == "multi-binary":
            names = ("memory.window", "memory.length")
            return list(session.run(None, {**inputs, **dict(zip(names, memory, strict=True))}))
        observation, reset, masks = map(th.as_tensor, inputs.values())
        with th.no_grad():
            return [each.numpy() for each in step([observation], [*map(th.as_tensor, memory)], reset, masks)]

    env = masked_vec_env(CASES[name], 3)
    observations: Any = env.reset()
    starts, state, seen = np.ones(3, bool), None, set()
    memory = [np.zeros((3, 4, 8), np.float32), np.zeros(3, np.int64)]
    for _ in range(20):
        masks = np.stack(env.env_method("action_masks"))
        expected, state = model.predict(observations, state, starts, deterministic=True, action_masks=masks)
        actions, *memory = act(memory, observation=observations, reset=starts, action_masks=masks)
        assert actions.dtype == expected.dtype
        np.testing.assert_array_equal(actions, expected)
        seen.add(expected.tobytes())
        observations, _, starts, _ = env.step(actions)
    assert len(seen) > 3
