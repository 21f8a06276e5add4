"""The state of a MuJoCo simulation, from which it can be continued bit for bit."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np


class PickledWithState:
    """
    Mixin for environments with Gymnasium's EzPickle, which makes a new environment from the constructor's arguments:
    copies go on from the state of the original, with its task and generator.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": self.state_dict()}  # type: ignore[misc, attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self.load_state_dict(state["state"])  # type: ignore[attr-defined]


#: The integrated quantities, and the starting point of the solver
_INTEGRATED = mujoco.mjtState.mjSTATE_INTEGRATION
#: Derived quantities of the previous step. MuJoCo computes them before it integrates, which is why they cannot be
#: recomputed from the integrated state. Some rewards read them, for example Ant's reads the torso's `xpos`.
_PREVIOUS_STEP = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis"),
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("subtree_com", "cvel", "cacc", "cfrc_ext", "cfrc_int", "qacc", "sensordata"),
    *("actuator_force", "qfrc_actuator", "qfrc_constraint"),
)


def mujoco_state(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """Return copies of all arrays that determine how a simulation continues."""
    integrated = np.empty(mujoco.mj_stateSize(model, _INTEGRATED))
    mujoco.mj_getState(model, data, integrated, _INTEGRATED)
    return {"integrated": integrated, **{name: getattr(data, name).copy() for name in _PREVIOUS_STEP}}


def set_mujoco_state(model: mujoco.MjModel, data: mujoco.MjData, state: dict[str, Any]) -> None:
    """Set a simulation of the same model to a state that :func:`mujoco_state` returned."""
    mujoco.mj_setState(model, data, state["integrated"], _INTEGRATED)
    for name in _PREVIOUS_STEP:
        getattr(data, name)[...] = state[name]
