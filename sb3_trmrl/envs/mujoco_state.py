"""The state of a MuJoCo simulation, such that it goes on to the last bit as it would have gone on."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

#: What the simulation integrates, and the solver's starting point
_INTEGRATED = mujoco.mjtState.mjSTATE_INTEGRATION
#: Places and forces that belong to the step before: MuJoCo computes them first and integrates then, so they cannot be
#: computed again from where it stands. Rewards read some of them, Ant's the torso's `xpos`.
_OF_LAST_STEP = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis"),
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("subtree_com", "cvel", "cacc", "cfrc_ext", "cfrc_int", "qacc", "sensordata"),
    *("actuator_force", "qfrc_actuator", "qfrc_constraint"),
)


def mujoco_state(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """
    :param model: Model
    :param data: State of its simulation
    :return: Copies of the arrays that decide how it goes on
    """
    integrated = np.empty(mujoco.mj_stateSize(model, _INTEGRATED))
    mujoco.mj_getState(model, data, integrated, _INTEGRATED)
    return {"integrated": integrated, **{name: getattr(data, name).copy() for name in _OF_LAST_STEP}}


def set_mujoco_state(model: mujoco.MjModel, data: mujoco.MjData, state: dict[str, Any]) -> None:
    """
    :param model: Model, the same as that of the state
    :param data: Is set to the state
    :param state: What :func:`mujoco_state` returned
    """
    mujoco.mj_setState(model, data, state["integrated"], _INTEGRATED)
    for name in _OF_LAST_STEP:
        getattr(data, name)[...] = state[name]
