"""
Families of tasks, registered with Gymnasium when this package is imported.

The registered environments contain both wrappers of ``sb3_trmrl.trials``: one Gymnasium episode is one trial. Each
module is loaded when one of its environments is made, so that the small problems do not import MuJoCo.
"""

import gymnasium as gym

_ENTRY_POINTS = {
    "HalfCheetahVel-v0": "locomotion:half_cheetah_vel",
    "HalfCheetahDir-v0": "locomotion:half_cheetah_dir",
    "AntDir-v0": "locomotion:ant_dir",
    "BernoulliBandit-v0": "bandit:bernoulli_bandit",
    "TabularMDP-v0": "tabular_mdp:tabular_mdp",
    "GridNavi-v0": "grid:grid_navi",
    "DarkKeyToDoor-v0": "grid:dark_key_to_door",
    "SparsePointRobot-v0": "sparse_point_robot:sparse_point_robot",
    "MetaWorldML1-v0": "metaworld:metaworld_ml1",
    "MetaWorldML1Push-v0": "metaworld:metaworld_ml1_push",
    "MetaWorldML10-v0": "metaworld:metaworld_ml10",
    "MetaWorldML45-v0": "metaworld:metaworld_ml45",
    "MetaWorldML45Train-v0": "metaworld:metaworld_ml45_train",
}

for _id, _entry_point in _ENTRY_POINTS.items():
    gym.register(id=_id, entry_point=f"{__name__}.{_entry_point}")
