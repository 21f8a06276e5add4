"""
MetaWorld (Yu et al. 2020) as families of tasks: ML1, ML10, ML45, and the paper's ML45-Train (Melo 2022, appendix B.2).

A robot arm with hidden goals, 50 for each class of tasks. Tasks, physics, rewards and successes are MetaWorld's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_bool, check_int, check_option, check_positive_int
from sb3_trmrl.envs.metaworld_simulation import ALL_V3_ENVIRONMENTS, Simulation, new_simulation
from sb3_trmrl.envs.metaworld_tasks import (
    RECOMBINABLE,
    VALIDATION_SEED_OFFSET,
    MetaWorldTask,
    TaskLists,
    class_names,
    recombined,
    task_lists,
)
from sb3_trmrl.envs.mujoco_state import PickledWithState
from sb3_trmrl.envs.tasks import TaskEnv, check_box_action, held_out_rng, in_trials
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, SPLITS

CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
#: MetaWorld's own limit
MAX_HORIZON = 500
#: Entries of MetaWorld's info that are passed on
_INFO_KEYS = ("success", "near_object", "grasp_success", "grasp_reward", "in_place_reward", "obj_to_target")
_IMAGE_SIZE = 480


def _observation_space() -> spaces.Box:
    """
    Return the observation space of every class, (39,): position of the hand (3), opening of the gripper (1), positions
    and orientations of the objects (14), the same numbers of the previous step, goal (3). The goal is always zero, but
    Gymnasium would warn about bounds that say so.
    """
    hand = Simulation._HAND_SPACE
    low, high = ([*bound, end, *[end * np.inf] * 14] for bound, end in ((hand.low, -1.0), (hand.high, 1.0)))
    return spaces.Box(np.array([*low, *low, *[-np.inf] * 3]), np.array([*high, *high, *[np.inf] * 3]), dtype=np.float64)


class MetaWorldEnv(PickledWithState, TaskEnv, gym.utils.EzPickle):
    """
    One of MetaWorld's benchmarks. The task is a ``MetaWorldTask``: a class, and the numbers that MetaWorld draws in it.

    Training tasks are drawn from the benchmark's 50 tasks of each training class (see ``recombine_tasks``). ``"test"``
    tasks are the benchmark's test tasks: other goals of the same class in ML1, five other classes in ML10 and ML45.
    ``"validation"`` tasks are other goals of the training classes: the training tasks of the same benchmark with a seed
    1,000,000 higher. Held-out tasks take turns among the classes, always in the same order.

    Observations have 39 numbers, float64 as in MetaWorld (SB3 casts what it stores), with zeros in place of the goal.
    Actions have 4 numbers in [-1, 1]. Episodes never terminate: they continue after a success, and are truncated.
    ``info`` contains MetaWorld's metrics as floats and the bool ``"is_success"``, which is ``"success"`` at this step.
    All resets with the same task lead to the same state.

    :param benchmark: ``"ML1"``, ``"ML10"`` or ``"ML45"``
    :param task_name: Class of ML1, not allowed for other benchmarks
    :param benchmark_seed: Seed of the benchmark's tasks, below 1,000,000. Goals of consecutive seeds overlap
    :param reward_function_version: ``"v1"`` or ``"v2"``, MetaWorld's two sets of rewards
    :param horizon: Steps until an episode is truncated, at most 500
    :param render_mode: None or ``"rgb_array"``
    :param camera_name: One of MetaWorld's cameras
    :param recombine_tasks: Whether to train on 5,000 recombined tasks instead of the 50 training tasks. Each coordinate
        of the goal and of the object's initial position is drawn independently from the 50 training tasks, so that
        they are harder to learn by heart. Only for ML1 with ``"reach-v3"``, ``"push-v3"`` and ``"pick-place-v3"``
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if a name is unknown or a number out of range
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (as Gymnasium)

    def __init__(
        self,
        benchmark: str = "ML1",
        task_name: str | None = None,
        benchmark_seed: int = 0,
        reward_function_version: str = "v2",
        horizon: int = MAX_HORIZON,
        render_mode: str | None = None,
        camera_name: str = "corner4",
        recombine_tasks: bool = False,
    ) -> None:
        self.benchmark = check_option("benchmark", benchmark, ("ML1", "ML10", "ML45"))
        if benchmark == "ML1":
            check_option("task_name", task_name, ALL_V3_ENVIRONMENTS)
        elif task_name is not None:
            raise ValueError(
                f"`task_name` must be None for {benchmark}, because it selects the class of ML1; got {task_name!r}"
            )
        self.task_name = task_name
        self.benchmark_seed = check_int("benchmark_seed", benchmark_seed, low=0, high=VALIDATION_SEED_OFFSET - 2)
        self.reward_function_version = check_option("reward_function_version", reward_function_version, ("v1", "v2"))
        self.horizon = check_int("horizon", horizon, low=1, high=MAX_HORIZON)
        if render_mode is not None:
            check_option("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.camera_name = check_option("camera_name", camera_name, CAMERAS)
        if check_bool("recombine_tasks", recombine_tasks) and task_name not in RECOMBINABLE:
            raise ValueError(
                f"`recombine_tasks` needs ML1 with one of {', '.join(RECOMBINABLE)}, got {benchmark} with {task_name!r}"
            )
        gym.utils.EzPickle.__init__(
            self,
            benchmark,
            task_name,
            benchmark_seed,
            reward_function_version,
            horizon,
            render_mode,
            camera_name,
            recombine_tasks,
        )
        self.observation_space = _observation_space()
        self.action_space = spaces.Box(-1.0, 1.0, shape=(4,), dtype=np.float32)

        self._lists = self._task_lists(self.benchmark_seed)
        self._known = self._lists.all
        if recombine_tasks:
            self._lists = recombined(self._lists)
            self._known = self._known | self._lists.all
        both = self._lists.train + self._lists.test
        self._class_names, self._n_numbers = class_names(both), max(len(task.rand_vec) for task in both)
        self._task = self._lists.train[0]
        self._simulation: Simulation | None = None
        self._renderer: MujocoRenderer | None = None
        self._steps_left = 0

    def _task_lists(self, seed: int) -> TaskLists:
        return task_lists(self.benchmark, seed, self.task_name)

    def split_tasks(self, split: str) -> tuple[MetaWorldTask, ...]:
        """Return all tasks of a split, in MetaWorld's order."""
        check_option("split", split, SPLITS)
        if split == "validation":
            return self._task_lists(self.benchmark_seed + VALIDATION_SEED_OFFSET).train
        tasks: tuple[MetaWorldTask, ...] = getattr(self._lists, split)
        return tasks

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[MetaWorldTask]:
        return [self._lists.train[i] for i in rng.integers(len(self._lists.train), size=n)]

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[MetaWorldTask]:
        return _classes_in_turn(self.split_tasks(split), split, n)

    def set_task(self, task: Any) -> None:
        try:
            name, rand_vec = task
            checked = MetaWorldTask(str(name), tuple(map(float, rand_vec)))
        except (TypeError, ValueError):
            raise TypeError(f"`task` must be a MetaWorldTask, the pair (name, rand_vec), got {task!r}") from None
        # If a goal is too close to the object, MetaWorld would search for another one forever
        if checked not in self._known and checked not in self.split_tasks("validation"):
            benchmark = f"{self.benchmark} with `benchmark_seed` {self.benchmark_seed}"
            raise ValueError(f"`task` must be a task of {benchmark}, got {checked}")
        self._task = checked

    def get_task(self) -> MetaWorldTask:
        return self._task

    def task_features(self, task: MetaWorldTask) -> np.ndarray:
        """Return the class, one-hot among all classes, then ``rand_vec``, padded with zeros."""
        features = np.zeros(len(self._class_names) + self._n_numbers, dtype=np.float32)
        features[self._class_names.index(task.name)] = 1.0
        start = len(self._class_names)
        features[start : start + len(task.rand_vec)] = task.rand_vec
        return features

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        simulation = self._simulation
        if simulation is None or simulation.class_name != self._task.name:
            self.close()
            simulation = self._simulation = new_simulation(self._task.name, self.reward_function_version)
        simulation.set_goal(self._task)
        observation, _ = simulation.reset()
        self._steps_left = self.horizon
        return observation, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._simulation is None or self._steps_left == 0:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the end of the episode")
        check_box_action(action, 4)
        observation, reward, _, _, measures = self._simulation.step(action)
        self._steps_left -= 1
        info: dict[str, Any] = {key: float(measures[key]) for key in _INFO_KEYS}
        info["is_success"] = info["success"] > 0
        return observation, float(reward), False, self._steps_left == 0, info

    def state_dict(self) -> dict[str, Any]:
        simulation = None if self._simulation is None else self._simulation.state_dict()
        return {**self._plain_state(), "simulation": simulation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set_task(state["task"])
        if state["simulation"] is not None:
            self.reset()  # makes a simulation of the task's class
            assert self._simulation is not None
            self._simulation.load_state_dict(state["simulation"])
        super().load_state_dict(state)

    def render(self) -> np.ndarray | None:
        """Return an RGB picture, (480, 480, 3), or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._simulation is None:
            raise ResetNeeded("Cannot call env.render() before calling env.reset()")
        model, data = self._simulation.model, self._simulation.data
        if self._renderer is None:
            size = _IMAGE_SIZE
            self._renderer = MujocoRenderer(model, data, width=size, height=size, camera_name=self.camera_name)
        frame = self._renderer.render("rgb_array")
        up = data.camera(self.camera_name).xmat[7]
        # MetaWorld's corner cameras are mounted upside down
        return np.ascontiguousarray(frame[::-1, ::-1]) if up < -0.1 else frame

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._simulation = None


class ML45TrainEnv(MetaWorldEnv):
    """
    The paper's simplified ML45 (appendix B.2), which is evaluated on training tasks of the 45 training classes.

    ``"validation"`` and ``"test"`` are two halves of the training tasks, which training uses too. An evaluation visits
    one task of each class. The arguments are those of :class:`MetaWorldEnv`.
    """

    holds_tasks_out = False
    n_held_out = 45

    def split_tasks(self, split: str) -> tuple[MetaWorldTask, ...]:
        check_option("split", split, SPLITS)
        # The tasks are grouped by class, and each class has an even number of them
        halves = {"train": slice(None), "validation": slice(0, None, 2), "test": slice(1, None, 2)}
        return self._lists.train[halves[split]]


def _classes_in_turn(tasks: tuple[MetaWorldTask, ...], split: str, n: int) -> list[MetaWorldTask]:
    """Return the first task of each class, then the second one of each, ..., n in all; the split decides the order."""
    if check_positive_int("n", n) > len(tasks):
        raise ValueError(f"`n` must be at most {len(tasks)}, the number of {split} tasks, got {n}")
    names = class_names(tasks)
    by_class = [[task for task in tasks if task.name == names[i]] for i in held_out_rng(split).permutation(len(names))]
    return [task for round_ in zip(*by_class, strict=True) for task in round_][:n]


#: The registered environments; their trials have ten episodes, as in the released code
_trials = partial(in_trials, episodes_per_trial=10)
metaworld_ml1 = partial(_trials, MetaWorldEnv, benchmark="ML1", task_name="reach-v3")
metaworld_ml1_push = partial(_trials, MetaWorldEnv, benchmark="ML1", task_name="push-v3")
metaworld_ml10 = partial(_trials, MetaWorldEnv, benchmark="ML10")
metaworld_ml45 = partial(_trials, MetaWorldEnv, benchmark="ML45")
metaworld_ml45_train = partial(_trials, ML45TrainEnv, benchmark="ML45")
