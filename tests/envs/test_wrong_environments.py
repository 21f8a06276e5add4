"""Wrong uses of every registered environment: arguments, tasks, actions, resets."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_trmrl.envs.tabular_mdp import TabularMDPTask
from sb3_trmrl.envs.tasks import in_trials
from sb3_trmrl.trials.held_out import HELD_OUT_SPLITS
from tests.helpers import wrong_use as w
from tests.helpers.registered import FAMILIES, LOCOMOTION


def wrong_range(argument: str, out_of_range: list[Any]) -> list[w.Wrong]:
    """Wrong uses of a pair (low, high)."""
    kinds = (3.0, "ab", (0, 1, 2), (0.0, w.NAN), (0.0, w.INF), (True, 2.0), None)
    return w.rows(argument, kinds, TypeError, "(low, high)") + w.rows(argument, out_of_range, ValueError, "low <= high")


OF_TRIALS = [
    *w.wrong_integer("episodes_per_trial"),
    *w.wrong_option("split", "validation"),
    *w.wrong_option("trial_end", "truncated", or_none=True),
    *w.wrong_option("across_episodes", "zero"),
    *w.wrong_bool("previous_transition"),
    *w.wrong_bool("reveal_task"),
]
OF_ALL = [*w.wrong_integer("horizon"), *w.wrong_option("render_mode", "rgb_array", or_none=True)]
DIRECTIONS = [
    *w.rows("directions", (1, "+-", None), TypeError, "+1"),
    *(w.Wrong("directions", value, ValueError, "+1", quoted="2") for value in ((2,), (1, 2))),
    w.Wrong("directions", (1, "b"), TypeError, "+1", quoted="'b'"),
    w.Wrong("directions", (), ValueError, "at least one"),
]
OF_CLASS: dict[str, list[w.Wrong]] = {
    "HalfCheetahVel-v0": wrong_range("velocity_range", [(-1.0, 2.0), (2.0, 1.0)]),
    "HalfCheetahDir-v0": DIRECTIONS,
    "AntDir-v0": [*DIRECTIONS, *w.wrong_bool("legacy_angles")],
    "BernoulliBandit-v0": [
        *w.wrong_integer("n_arms"),
        *w.wrong_integer("n_pulls"),
        *wrong_range("mean_range", [(0.5, 1.5), (-0.1, 1.0), (0.6, 0.5)]),
    ],
    "TabularMDP-v0": [
        *w.wrong_integer("n_states"),
        *w.wrong_integer("n_actions"),
        *w.rows("reward_prior", (1.0, "ab", (0.0,), (0.0, w.NAN), (0.0, True)), TypeError, "pair of finite numbers"),
        w.Wrong("reward_prior", (1.0, -1.0), ValueError, "at least 0"),
        *w.wrong_number("dirichlet_alpha", (0.0, -1.0, w.NAN, w.INF), "positive"),
    ],
    "GridNavi-v0": w.wrong_integer("size", low=3),
    "DarkKeyToDoor-v0": w.wrong_integer("size", low=3),
    "SparsePointRobot-v0": [
        *wrong_range("angle_range", [(1.0, 0.0), (0.0, 4.0), (-4.0, 0.0)]),
        *w.wrong_number("goal_radius", (0.0, -0.1, 1.5), "(0, 1]"),
        *w.rows("goal_radius", (w.NAN, w.INF), ValueError, "finite"),
    ],
}
OF_METAWORLD = [
    *w.wrong_integer("horizon", high=500),
    *w.wrong_option("render_mode", "rgb_array", or_none=True),
    *w.wrong_option("benchmark", "ML10"),
    *w.wrong_option("task_name", "reach-v3"),
    *w.wrong_integer("benchmark_seed", low=0, high=999_998),
    *w.wrong_option("reward_function_version", "v1"),
    *w.wrong_option("camera_name", "topview"),
    *w.wrong_bool("recombine_tasks"),
]


def table_of(env_id: str) -> list[w.Wrong]:
    """Wrong uses of a registered environment."""
    made = [*OF_TRIALS, *OF_ALL, *OF_CLASS[env_id]]
    # The bandit takes None, for as many steps as pulls
    return [row for row in made if (env_id, row.argument, row.value) != ("BernoulliBandit-v0", "horizon", None)]


@pytest.mark.parametrize(("env_id", "row"), [(name, row) for name in FAMILIES for row in table_of(name)], ids=w.name_of)
def test_environment(env_id: str, row: w.Wrong) -> None:
    row.check(partial(gym.make, env_id))


@pytest.mark.parametrize("row", [*OF_TRIALS, *OF_METAWORLD], ids=w.name_of)
@pytest.mark.usefixtures("few_goals")
def test_metaworld(row: w.Wrong) -> None:
    row.check(partial(gym.make, "MetaWorldML1-v0"))


@pytest.mark.parametrize("previous_transition", [True, False])
def test_the_way_across_episodes_is_always_checked(previous_transition: bool) -> None:
    with w.refused(ValueError, "across_episodes", "'bogus'"):
        gym.make("GridNavi-v0", across_episodes="bogus", previous_transition=previous_transition)


@pytest.mark.parametrize("size", [3, 4])
def test_small_rooms_have_fewer_held_out_tasks(size: int) -> None:
    tasks = [
        gym.make("DarkKeyToDoor-v0", size=size, split=split).get_wrapper_attr("tasks") for split in HELD_OUT_SPLITS
    ]
    assert [len(each) for each in tasks] == [min(20, size**4 // 10)] * 2 and not set(tasks[0]) & set(tasks[1])


def test_a_class_is_for_ml1_only() -> None:
    pytest.importorskip("metaworld")
    with w.refused(ValueError, "task_name", "'reach-v3'", "ML1", "ML10"):
        gym.make("MetaWorldML10-v0", task_name="reach-v3")


@pytest.mark.parametrize(("env_id", "kwargs"), [("ML10", {}), ("ML1", {"task_name": "door-open-v3"})])
def test_only_some_classes_can_be_recombined(env_id: str, kwargs: dict[str, str]) -> None:
    pytest.importorskip("metaworld")
    with w.refused(ValueError, "recombine_tasks", "push-v3", *kwargs.values(), env_id):
        gym.make(f"MetaWorld{env_id}-v0", recombine_tasks=True, **kwargs)


def test_every_argument_of_the_environments_is_in_the_table() -> None:
    for env_id, env_class in FAMILIES.items():
        w.assert_covered(env_class, [*OF_ALL, *OF_CLASS[env_id]])
    w.assert_covered(in_trials, OF_TRIALS, {"env_class": "chosen by the registration"})
    registered = {env_id for env_id, spec in gym.registry.items() if str(spec.entry_point).startswith("sb3_trmrl.")}
    assert {env_id for env_id in registered if "MetaWorld" not in env_id} == set(FAMILIES)


def test_every_argument_of_metaworld_is_in_the_table() -> None:
    pytest.importorskip("metaworld")
    from sb3_trmrl.envs.metaworld import MetaWorldEnv

    w.assert_covered(MetaWorldEnv, OF_METAWORLD)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_names_that_an_environment_does_not_take(env_id: str) -> None:
    with w.refused(TypeError, "env_kwargs", "'episodes'", "it takes", "horizon", FAMILIES[env_id].__name__):
        gym.make(env_id, episodes=3)


DIRECTION_TASKS = [
    *w.rows("task", ("fast", None, True, (1,)), TypeError, "+1"),
    *w.rows("task", (0, 0.5, 2, w.NAN), ValueError, "+1"),
]
TASKS: dict[str, list[w.Wrong]] = {
    "HalfCheetahVel-v0": [
        *w.rows("task", ("fast", None, True, (1.0,)), TypeError, "number"),
        *w.rows("task", (w.INF, w.NAN), ValueError, "finite"),
    ],
    "HalfCheetahDir-v0": DIRECTION_TASKS,
    "AntDir-v0": DIRECTION_TASKS,
    "BernoulliBandit-v0": [
        *w.rows("task", ("fast", None, True, 0.5), TypeError, "5 probabilities"),
        *w.rows("task", ((0.1, 0.2), (0.1, 0.2, 0.3, 0.4, 1.5), (-0.1,) * 5), ValueError, "5 probabilities"),
        w.Wrong("task", (0.1, 0.2, 0.3, 0.4, "a"), TypeError, "number", quoted="'a'"),
        w.Wrong("task", (0.1, 0.2, 0.3, 0.4, w.NAN), ValueError, "finite", quoted="nan"),
    ],
    "TabularMDP-v0": [
        *w.rows("task", ("fast", None, True), TypeError, "a TabularMDPTask"),
        w.Wrong("task", TabularMDPTask(np.ones((1, 1, 1)), np.ones((1, 1))), ValueError, "10 states"),
    ],
    "GridNavi-v0": [
        *w.rows("task", ("ab", None, True, 3, (1, 2, 3), ((1, 2), (3, 4)), (True, 3)), TypeError, "(x, y)"),
        *w.rows("task", ((5, 0), (0, -1), (2.5, 2)), ValueError, "5 x 5"),
        *w.rows("task", ((0, 0), (1, 1)), ValueError, "start"),
    ],
    "DarkKeyToDoor-v0": [
        *w.rows("task", (None, True, ((0, 0),), ((0, 0), (1, 1), (2, 2))), TypeError, "(key, door)"),
        *(w.Wrong("task", value, TypeError, "(x, y)", repr(value[0])) for value in ("ab", (0, 0), ((1,), (2, 2)))),
        w.Wrong("task", ((0, 0), (9, 0)), ValueError, "9 x 9", quoted="(9, 0)"),
        w.Wrong("task", ((0.5, 0), (1, 1)), ValueError, "9 x 9", quoted="(0.5, 0)"),
    ],
    "SparsePointRobot-v0": [
        *w.rows("task", ("up", None, True, (1.0, 0.0)), TypeError, "number"),
        *w.rows("task", (w.INF, w.NAN), ValueError, "finite"),
    ],
}
TASK_ROWS = [(env_id, row) for env_id, table in TASKS.items() for row in table]


@pytest.mark.parametrize(("env_id", "row"), TASK_ROWS, ids=w.name_of)
def test_task(env_id: str, row: w.Wrong) -> None:
    """At a reset and by ``set_task``; the task stays the same, and the trial has not started."""
    env = gym.make(env_id)
    trials = env.env.env  # type: ignore[attr-defined]
    before = env.unwrapped.get_task()  # type: ignore[attr-defined]
    row.check(env.unwrapped.set_task)  # type: ignore[attr-defined]
    row.check(lambda task: env.reset(options={"task": task}))
    assert env.unwrapped.get_task() == before  # type: ignore[attr-defined]
    with pytest.raises(gym.error.ResetNeeded):
        trials.step(env.action_space.sample())


HELD_OUT_SPLIT = [*w.wrong_option("split", "validation"), w.Wrong("split", "train", ValueError, "'test'")]


@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("row", [*w.wrong_integer("n"), *HELD_OUT_SPLIT], ids=w.name_of)
def test_drawing_tasks(env_id: str, row: w.Wrong) -> None:
    env: Any = FAMILIES[env_id]()
    env.reset(seed=0)
    if row.argument == "n":
        row.check(env.sample_tasks)
        row.check(env.held_out_tasks, {"split": "test"})
    else:
        row.check(env.held_out_tasks)


NOT_ARMS = ("up", 1.5, None, [1, 1, 1], 7, -1, w.NAN)
NOT_MOVES = ("up", 1.5, None, [1.0], np.zeros(20), [[0.0, 0.0]])


@pytest.mark.parametrize("env_id", FAMILIES)
def test_action(env_id: str) -> None:
    """A wrong action changes nothing, and the episode continues."""
    env = FAMILIES[env_id]()
    env.reset(seed=0)
    is_discrete = isinstance(env.action_space, spaces.Discrete)
    wrong = list(NOT_ARMS if is_discrete else NOT_MOVES)
    if not is_discrete:
        assert env.action_space.shape is not None
        wrong += [np.full(env.action_space.shape, value) for value in (w.NAN, w.INF)]
    allowed = "0" if is_discrete else f"{env.action_space.shape[0]} finite numbers in [-1, 1]"  # type: ignore[index]
    for value in wrong:
        w.Wrong("action", value, ValueError, allowed).check(env.step)
    env.step(env.action_space.sample())


@pytest.mark.parametrize("env_id", FAMILIES)
def test_steps_before_a_reset_and_after_the_end(env_id: str) -> None:
    env = gym.make(env_id, horizon=2, episodes_per_trial=2)
    # The last one is the bare environment; Gymnasium's robots can be stepped at any time
    layers = (env, env.env, env.env.env, *([] if env_id in LOCOMOTION else [env.unwrapped]))  # type: ignore[attr-defined]
    for layer in layers:
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            layer.step(env.action_space.sample())
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.action_space.sample())
    for layer in layers[1:]:
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            layer.step(env.action_space.sample())
    for seed in (-1, "a", 1.5):
        with w.refused(gym.error.Error, "Seed", str(seed) if seed == -1 else type(seed).__name__, "actual"):
            env.reset(seed=seed)
    for options in (5, "task", [("task", 1)]):
        w.Wrong("options", options, TypeError, "a dictionary").check(env.env.env.reset)  # type: ignore[attr-defined]


MDP = [
    *w.rows("transitions", ("abc", [["a"]]), TypeError, "an array of numbers"),
    w.Wrong("transitions", np.ones((2, 2)), ValueError, "(S, A, S)", quoted="(2, 2)"),
    w.Wrong("transitions", np.full((2, 1, 2), 0.6), ValueError, "sum to 1", quoted="0.6"),
    w.Wrong("transitions", np.array([[[2.0, -1.0]], [[1.0, 0.0]]]), ValueError, "non-negative", quoted="-1."),
    *w.rows("mean_rewards", ("abc", {}), TypeError, "an array of numbers"),
    w.Wrong("mean_rewards", np.full((2, 1), w.NAN), ValueError, "finite", quoted="nan"),
    w.Wrong("mean_rewards", np.zeros(2), ValueError, "(S, A)", quoted="(2,)"),
]


@pytest.mark.parametrize("row", MDP, ids=w.name_of)
def test_mdp(row: w.Wrong) -> None:
    row.check(TabularMDPTask, {"transitions": np.full((2, 1, 2), 0.5), "mean_rewards": np.zeros((2, 1))})


def test_every_argument_of_an_mdp_is_in_the_table() -> None:
    w.assert_covered(TabularMDPTask, MDP)
