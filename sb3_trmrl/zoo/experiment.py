"""rl-zoo3's experiment manager for meta-RL: our hyperparameters, Dict observations, held-out tasks, resumed runs."""

import glob
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from rl_zoo3 import ALGOS
from rl_zoo3.callbacks import SaveVecNormalizeCallback
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import get_latest_run_id
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.resumable import Resumable
from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.common.checks import check_instance, check_keywords, check_positive_int, check_whole_number
from sb3_trmrl.distributed.collectives import broadcast, is_main, join, share, world_size
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback, InnerEpisodeCallback
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed, has_splits, n_tasks_in_turn, share_tasks
from sb3_trmrl.zoo.error_origin import error_text, is_about_arguments, raised_by_user_code
from sb3_trmrl.zoo.hyperparams_files import evaluated, evaluated_policy_kwargs, find_config, policy_kwargs_of
from sb3_trmrl.zoo.hyperparams_opt import SEARCHED
from sb3_trmrl.zoo.interruption import (
    TERMINATED,
    InterruptibleModel,
    InterruptionCheckpoint,
    Terminated,
    how_to_resume,
)
from sb3_trmrl.zoo.report import write_report
from sb3_trmrl.zoo.run_lock import RunLock
from sb3_trmrl.zoo.runs import CHECKPOINTS, COMMAND_LINE, INITIAL_MODEL, UNFINISHED
from sb3_trmrl.zoo.schedules import schedule_from_string
from sb3_trmrl.zoo.search import SearchManager


class BadExperiment(ValueError):
    """The experiment cannot be trained: an option, a file or a hyperparameter is wrong."""


class TrMRLExperimentManager(SearchManager):
    """
    Experiment manager for every algorithm. It differs from rl-zoo3's as follows:

    * without ``--conf-file``, hyperparameters come from our yml file if that has the environment or a default
    * Dict observations select the ``MultiInput`` policy, other observations replace it by the ``Mlp`` policy
    * VecNormalize does not normalise flags and one-hot actions
    * learning rates and clip ranges may be any string of :func:`schedule_from_string`
    * wrong settings raise :class:`BadExperiment`, which names the hyperparameter, option or file
    * ``policy_kwargs`` of a yml file may name classes, and ``-params policy_kwargs.NAME:VALUE`` replaces one argument
    * ``env_kwargs`` of yml and command line are merged, and also used in evaluation, ``enjoy`` and ``record_video``
    * environments with held-out tasks are evaluated on the validation tasks; evaluation uses a separate seed
    * several copies of a small problem are stepped together, see ``BatchedVecEnv``
    * 0 evaluation episodes or environments stand for the number of these tasks, so that each is visited once; without
      held-out tasks, for 20
    * runs that start at the same time get different folders
    * the VecNormalize statistics of the best model are saved beside it
    * evaluations and training returns are also logged for each episode of a trial
    * the best model is the one with the highest success rate, if the environment reports success
    * ``-i`` continues with the run's own hyperparameters and step count
    * a run that another process is training is not resumed
    * with several ranks, each steps its share of the environments and writes their monitor.csv; rank 0 evaluates and
      writes all other files
    * our algorithms, PPO and RecurrentPPO write checkpoints, from which an interrupted run is resumed exactly
    * searches around our entries use our search spaces, and write the best trial as an entry of a yml file
    * Ctrl-C and SIGTERM write a checkpoint at the end of the rollout, and print the command that resumes the run
    """

    def __init__(
        self,
        *args: Any,
        report: bool = False,  # compare the model before and after training on the test tasks
        checkpoint_freq: int = 0,  # environment steps between two checkpoints, 0 for none
        resume: Path | None = None,  # checkpoint of an interrupted run, in its folder of checkpoints
        command_line: Sequence[str] = (),  # arguments given by the user, saved for resuming
        **kwargs: Any,
    ) -> None:
        arguments, algo, env_id = args[:3]
        kwargs["config"] = find_config(algo, env_id, kwargs.get("config"))
        if world_size() > 1 and not issubclass(ALGOS[algo], TransformerPPO):
            raise BadExperiment(f"argument --algo: {algo} cannot be trained by several ranks")
        join()
        kwargs["seed"] = arguments.seed = broadcast(kwargs.get("seed", 0))  # rl-zoo3 draws one on each rank
        super().__init__(*args, **kwargs)
        self.report = report
        self.checkpoint_freq = checkpoint_freq if issubclass(ALGOS[algo], Resumable) else 0
        self.command_line = list(command_line)
        self.resume = resume
        self._made_folder = False
        self._training_env: VecEnv | None = None
        self._lock: RunLock | None = None
        self._interruption: KeyboardInterrupt | None = None
        self._has_ended = False
        if resume is not None:
            self.save_path = str(resume.parents[1])
            self.params_path = f"{self.save_path}/{self.env_name}"
            try:
                self._lock = RunLock(self.save_path) if is_main() else None
            except ValueError as error:
                raise BadExperiment(f"argument --resume: {error}") from error
        self.user_env_kwargs: dict[str, Any] = arguments.env_kwargs or {}
        self.has_splits = has_splits(env_id)
        if self.optimize_hyperparameters:
            if world_size() > 1:
                raise BadExperiment(
                    "argument --optimize-hyperparameters: a search cannot use several ranks. Instead, start one "
                    "process per core with the same --storage and --study-name"
                )
            if self.algo not in {*SEARCHED, *HYPERPARAMS_SAMPLER}:
                raise BadExperiment(f"argument --optimize-hyperparameters: there is no search space for {self.algo}")
            # Outside the folder of runs, where enjoy would take it for the newest run
            self.save_path = os.path.join(self.log_path, "optimization", os.path.basename(self.save_path))

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        # Makes rl-zoo3 call `_load_pretrained_agent` instead of the constructor
        self.continue_training = self.continue_training or self.resume is not None
        try:
            return super().setup_experiment()
        except Exception as error:
            self._release()
            if self._training_env is not None:
                self._training_env.close()
            self._remove_unused_folder()
            if not is_about_arguments(error):
                raise
            raise BadExperiment(error_text(error)) from error

    def _remove_unused_folder(self) -> None:
        # enjoy would take it for the newest run. args.yml is the last file that rl-zoo3 writes before training
        if self._made_folder and not os.path.exists(os.path.join(self.params_path, "args.yml")):
            shutil.rmtree(self.save_path)

    def create_log_folder(self) -> None:
        if self.resume is not None:
            return
        if not is_main():
            self.save_path = broadcast("")
            self.params_path = f"{self.save_path}/{self.env_name}"
            return
        # Runs that start at the same time have all found the same number free
        folder, name = os.path.dirname(self.save_path), self.env_name
        while True:
            try:
                os.makedirs(self.save_path)
                self._made_folder = True
                self._lock = RunLock(self.save_path)
                break
            except FileExistsError:
                self.save_path = os.path.join(folder, f"{name}_{get_latest_run_id(folder, name) + 1}")
        self.params_path = f"{self.save_path}/{name}"
        super().create_log_folder()  # type: ignore[no-untyped-call]
        broadcast(self.save_path)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.resume is not None or self.continue_training:
            folder = Path(self.trained_agent).parent if self.resume is None else Path(self.save_path)
            self.custom_hyperparams = {**self._run_hyperparams(folder), **(self.custom_hyperparams or {})}
        # rl-zoo3 would replace the env_kwargs of the file by those of the command line
        self.env_kwargs = {}
        changes = self._take_policy_kwargs()
        hyperparams, saved_hyperparams = self._read_file()
        env_kwargs = {**check_keywords("env_kwargs", hyperparams.get("env_kwargs")), **self.user_env_kwargs}
        if env_kwargs:
            hyperparams["env_kwargs"] = saved_hyperparams["env_kwargs"] = env_kwargs
        # A search starts from these values, and those of --trial-id do not replace them
        self._merge_policy_kwargs(changes, hyperparams, saved_hyperparams)
        self.use_search_space(hyperparams, saved_hyperparams)
        self._merge_policy_kwargs(changes, hyperparams, saved_hyperparams)
        return hyperparams, saved_hyperparams

    def _take_policy_kwargs(self) -> dict[str, Any]:
        """Remove the hyperparameters ``policy_kwargs.NAME`` of the command line, and return their values by name."""
        given, prefix = self.custom_hyperparams or {}, "policy_kwargs."
        self.custom_hyperparams = {key: value for key, value in given.items() if not key.startswith(prefix)}
        return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}

    def _merge_policy_kwargs(self, changes: Mapping[str, Any], *hyperparams: dict[str, Any]) -> None:
        for each in hyperparams if changes else ():
            each["policy_kwargs"] = {**policy_kwargs_of(each.get("policy_kwargs")), **changes}

    def _read_file(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the hyperparameters and those to be saved; errors name the file."""
        try:
            hyperparams, saved_hyperparams = super().read_hyperparameters()
        except (OSError, ImportError) as error:
            if raised_by_user_code(error):  # a Python module of hyperparameters
                raise
            raise ValueError(
                f"--conf-file must be a yml file or a Python module, got {self.config!r}: {error}"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            if raised_by_user_code(error):
                raise
            allowed = f"hyperparameters by environment, {self.env_name.gym_id} or default among them"
            raise ValueError(f"{self.config!r} must hold {allowed}: {error_text(error)}") from error
        missing = [key for key in ("n_timesteps", "policy") if key not in hyperparams]
        if missing and (self.n_timesteps <= 0 or "policy" in missing):
            raise ValueError(f"{self.config!r} must give {' and '.join(missing)} for {self.env_name.gym_id}")
        check_instance("policy", hyperparams["policy"], str, "the name of a policy, such as 'TrMRLPolicy'")
        check_whole_number("n_timesteps", hyperparams.get("n_timesteps", 1), low=1)
        check_positive_int("n_envs", hyperparams.get("n_envs", 1))
        return hyperparams, saved_hyperparams

    def _run_hyperparams(self, folder: Path) -> dict[str, Any]:
        # rl-zoo3's record of the run. It needs the same trust as the zip of the model, which is unpickled as well
        path = folder / self.env_name / "config.yml"
        if not path.is_file():
            return {}
        print(f"Continuing with the hyperparameters in {path}")
        return dict(yaml.load(path.read_text(), Loader=yaml.UnsafeLoader))

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        schedules = {}
        for key in ("learning_rate", "vf_learning_rate", "vae_learning_rate", "clip_range", "clip_range_vf"):
            value = hyperparams.get(key)
            if value is not None:
                check_instance(key, value, (str, float, int), "a number or a schedule in a string")
            if isinstance(value, str):
                try:
                    schedules[key] = schedule_from_string(hyperparams.pop(key))
                except ValueError as error:
                    raise ValueError(f"`{key}`: {error}") from error
        hyperparams = ExperimentManager._preprocess_schedules(hyperparams)
        hyperparams.update(schedules)
        return hyperparams

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        for key in ("normalize", "monitor_kwargs"):
            if isinstance(hyperparams.get(key), str):
                hyperparams[key] = evaluated(key, hyperparams[key])
        if hyperparams.get("policy_kwargs") is not None:
            hyperparams["policy_kwargs"] = evaluated_policy_kwargs(hyperparams["policy_kwargs"])
        result = super()._preprocess_hyperparams(hyperparams)
        # enjoy and record_video read this entry of args.yml
        self.args.env_kwargs = self.env_kwargs or None
        split = {"split": "validation"} if self.has_splits else {}
        self.eval_env_kwargs = {**self.env_kwargs, **split, **(self._eval_env_kwargs_args or {})}
        return result

    def _preprocess_action_noise(
        self, hyperparams: dict[str, Any], saved_hyperparams: dict[str, Any], env: VecEnv
    ) -> dict[str, Any]:
        # Called with the finished environment, so its observations are known here
        policy = hyperparams.get("policy")
        if isinstance(policy, str):
            if isinstance(env.observation_space, spaces.Dict):
                suited = policy.replace("Mlp", "MultiInput").replace("Cnn", "MultiInput")
            else:
                suited = policy.replace("MultiInput", "Mlp")
            known = ALGOS[self.algo].policy_aliases
            if suited not in known:  # rl-zoo3's default entry of ppo_lstm names PPO's policy
                suited = suited.replace("Policy", "LstmPolicy")
            if suited != policy and suited in known:
                print(f"{type(env.observation_space).__name__} observations: using {suited} instead of {policy}")
                hyperparams["policy"] = saved_hyperparams["policy"] = suited
        hyperparams = super()._preprocess_action_noise(hyperparams, saved_hyperparams, env)
        passed = ("env", "tensorboard_log", "seed", "verbose", "device")
        check_keywords("hyperparams", hyperparams, ALGOS[self.algo], passed)
        return hyperparams

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        space = env.observation_space
        if self.normalize and isinstance(space, spaces.Dict):
            # Standardising would inflate rare flags and one-hot actions
            names = [name for name in space.spaces if name not in ("prev_action", "prev_done")]
            keys = [name for name in names if _is_vector(space.spaces[name])]
            self.normalize_kwargs.setdefault("norm_obs_keys", keys)
            self.normalize_kwargs.setdefault("norm_obs", bool(keys))
        elif self.normalize and not _is_vector(space):
            self.normalize_kwargs["norm_obs"] = False  # rewards only
        return super()._maybe_normalize(env, eval_env)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        if not eval_env:
            if self.resume is not None:  # append to its monitor.csv files
                self.monitor_kwargs = {**self.monitor_kwargs, "override_existing": False}
            self._training_env = super().create_envs(share("n_envs", n_envs), eval_env, no_log)
            return self._training_env
        seed, self.seed = self.seed, evaluation_seed(self.seed, "validation")
        try:
            env = super().create_envs(n_envs, eval_env, no_log)
        finally:
            self.seed = seed
        return share_tasks(env) if self.eval_env_kwargs.get("split", "train") != "train" else env

    def create_callbacks(self) -> None:
        if is_main():
            self._create_callbacks_of_main()
        if self.checkpoint_freq and not self.optimize_hyperparameters:
            folder = os.path.join(self.save_path, CHECKPOINTS)
            logs = [os.path.join(glob.escape(self.save_path), "*.monitor.csv")]
            self.callbacks.append(InterruptionCheckpoint(folder, self.checkpoint_freq, log_files=logs))

    def _create_callbacks_of_main(self) -> None:
        if 0 in (self.n_eval_episodes, self.n_eval_envs):
            default = N_HELD_OUT_TASKS
            if self.has_splits:
                default = n_tasks_in_turn(self.env_name.gym_id, self.eval_env_kwargs)
            self.n_eval_episodes = self.args.eval_episodes = self.n_eval_episodes or default
            copies = default if self.has_splits else min(self.n_eval_episodes, default)
            self.n_eval_envs = self.args.n_eval_envs = self.n_eval_envs or copies
        super().create_callbacks()  # type: ignore[no-untyped-call]
        self.callbacks = [
            self._adaptation_callback(each) if type(each) is EvalCallback else each for each in self.callbacks
        ]
        self.callbacks.append(InnerEpisodeCallback())

    def _adaptation_callback(self, callback: EvalCallback) -> AdaptationEvalCallback:
        """Return the same evaluation as rl-zoo3's, with results for each episode of a trial."""
        # rl-zoo3 saves them in the folder of the run's parameters, where the end of training overwrites them
        beside_model = SaveVecNormalizeCallback(save_freq=1, save_path=self.save_path)
        assert callback.callback_on_new_best is not None
        return AdaptationEvalCallback(
            callback.eval_env,
            callback_on_new_best=CallbackList([callback.callback_on_new_best, beside_model]),
            best_model_save_path=callback.best_model_save_path,
            n_eval_episodes=callback.n_eval_episodes,
            log_path=self.save_path,
            eval_freq=callback.eval_freq,
            deterministic=callback.deterministic,
            best_by="success_rate",
        )

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        if self.resume is None:
            return super()._load_pretrained_agent(hyperparams, env)
        algorithm = ALGOS[self.algo]
        assert issubclass(algorithm, Resumable), "other algorithms write no checkpoints"
        model = algorithm.resume(
            self.resume, env, tensorboard_log=self.tensorboard_log, verbose=self.verbose, device=self.device
        )
        print(f"Resuming from {self.resume}")
        return model

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if not is_main():
            return
        if self.resume is None:
            super()._save_config(saved_hyperparams)
        with atomic_file(Path(self.params_path, COMMAND_LINE)) as file:
            file.write(json.dumps(self.command_line).encode())

    def learn(self, model: BaseAlgorithm) -> None:
        try:
            if self.report and self.resume is None and is_main():
                model.save(os.path.join(self.save_path, INITIAL_MODEL))
            # -i continues the step count and the schedules
            continued = {"reset_num_timesteps": False} if self.continue_training and self.resume is None else {}
            interruptible = InterruptibleModel(model, **continued)
            super().learn(interruptible)  # type: ignore[arg-type]
            self._interruption, self._has_ended = interruptible.interruption, interruptible.has_ended
        except BaseException:
            self._release()
            raise

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        if not is_main():
            return
        # The zip does not tell: its steps reach the total before the last update, and the statistics are saved after it
        unfinished = Path(self.save_path, UNFINISHED)
        try:
            unfinished.touch()
            super().save_trained_model(model)
            if self._has_ended:
                unfinished.unlink()
            else:
                print(how_to_resume(self.save_path, model), flush=True)
            if isinstance(self._interruption, Terminated):  # there may be only seconds left
                raise SystemExit(TERMINATED)
            if self.report:
                self._write_report()
        finally:
            self._release()

    def _write_report(self) -> None:
        later = f"`trmrl report {self.save_path}`"
        if self._interruption is not None:
            print(f"Writing the report. Ctrl-C skips it; {later} writes it later.", flush=True)
        try:
            write_report(self.save_path)
        except KeyboardInterrupt:
            print(f"\nThe report is skipped; {later} writes it.")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _is_vector(space: spaces.Space[Any]) -> bool:
    """Return whether VecNormalize can standardise the observations: real numbers, not images or classes."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
