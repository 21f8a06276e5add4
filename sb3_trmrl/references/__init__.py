"""Optimal returns of the small problems, and reference agents that act by a rule."""

from sb3_trmrl.references.bandit_values import bayes_optimal_value
from sb3_trmrl.references.bandits import (
    UCB1,
    BayesOptimal,
    GittinsIndex,
    PosteriorMeanGreedy,
    RandomArm,
    StayOrNext,
    ThompsonSampling,
    simulate_bandits,
)
from sb3_trmrl.references.grids import (
    DarkKeyToDoorOracle,
    GridNaviOracle,
    dark_key_to_door_optimum,
    grid_navi_optimum,
)
from sb3_trmrl.references.point_robot import SparsePointRobotOracle, sparse_point_robot_optimum
from sb3_trmrl.references.tabular_mdps import PosteriorSampling, tabular_mdp_optimum

__all__ = [
    "UCB1",
    "BayesOptimal",
    "DarkKeyToDoorOracle",
    "GittinsIndex",
    "GridNaviOracle",
    "PosteriorMeanGreedy",
    "PosteriorSampling",
    "RandomArm",
    "SparsePointRobotOracle",
    "StayOrNext",
    "ThompsonSampling",
    "bayes_optimal_value",
    "dark_key_to_door_optimum",
    "grid_navi_optimum",
    "simulate_bandits",
    "sparse_point_robot_optimum",
    "tabular_mdp_optimum",
]
