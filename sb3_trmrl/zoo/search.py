"""Searches for hyperparameters: rl-zoo3's, with our search spaces and the best trial as an entry of a yml file."""

from pathlib import Path
from typing import Any

import optuna
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER

from sb3_trmrl.zoo.defaults import ALGORITHMS
from sb3_trmrl.zoo.hyperparams_files import evaluated_policy_kwargs, find_config
from sb3_trmrl.zoo.hyperparams_opt import SEARCHED, SearchSpace


class SearchManager(ExperimentManager):
    """Experiment manager whose searches, around one of our entries, use a :class:`SearchSpace`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._search_space: SearchSpace | None = None
        self._study: optuna.Study | None = None
        self._trial: dict[str, Any] | None = None  # values of --trial-id

    def _has_search_space(self) -> bool:
        # An entry of the user may be for an environment where rl-zoo3's space, with its number of steps, suits better
        is_ours = self.config == find_config(self.algo, self.env_name.gym_id, None)
        return self.algo in SEARCHED and (is_ours or self.algo in ALGORITHMS)

    def load_trial(
        self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True
    ) -> dict[str, Any]:
        is_ours = self._has_search_space()
        loaded: dict[str, Any] = super().load_trial(storage, study_name, trial_id, convert and not is_ours)
        if not is_ours:
            return loaded
        self._trial = loaded
        return {}  # `use_search_space` converts them, as soon as the entry is known

    def use_search_space(self, *hyperparams: dict[str, Any]) -> None:
        """Make a search space around these hyperparameters, and put the values of ``--trial-id`` into them."""
        if not self._has_search_space() or not (self.optimize_hyperparameters or self._trial):
            return
        entry = dict(hyperparams[0])
        policy_kwargs = evaluated_policy_kwargs(entry.get("policy_kwargs"))
        space = self._search_space = SearchSpace(self.algo, entry, policy_kwargs)
        if self._trial is not None:
            for each in hyperparams:
                each.update({**space.convert(self._trial), **(self.custom_hyperparams or {})})

    def objective(self, trial: optuna.Trial) -> float:
        self._study = trial.study
        value: float = super().objective(trial)
        return value

    def hyperparameters_optimization(self) -> None:
        space, before = self._search_space, HYPERPARAMS_SAMPLER.get(self.algo)
        if space is None:
            super().hyperparameters_optimization()
            return
        # rl-zoo3 has no argument for the space
        HYPERPARAMS_SAMPLER[self.algo] = lambda trial, n_actions, *_: self._preprocess_schedules(
            space.sample(trial, is_continuous=n_actions > 0)
        )
        try:
            super().hyperparameters_optimization()
        finally:
            if before is None:
                del HYPERPARAMS_SAMPLER[self.algo]
            else:
                HYPERPARAMS_SAMPLER[self.algo] = before
        assert self._study is not None
        path = Path(self.log_folder, self.algo, f"best_{self._study.study_name}.yml")
        space.write_best(self._study, self.env_name.gym_id, path)
        print(f"Wrote the best trial to {path}. To train with it: --conf-file {path}")
