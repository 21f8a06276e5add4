"""Zip files of models."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_trmrl.algorithms.arguments import LOAD_CHECKS, SAVE_CHECKS, check_arguments, check_env, check_zip
from sb3_trmrl.common.atomic_file import atomic_file, make_place
from sb3_trmrl.common.checks import check_instance, check_keywords

SelfZipFiles = TypeVar("SelfZipFiles", bound="ZipFiles")


def save_atomically(
    save: Callable[..., None], path: Any, exclude: Iterable[str] | None, include: Iterable[str] | None
) -> None:
    """
    Save a model so that an existing file is replaced only once the new one is complete.

    :param save: SB3's method ``save`` of the model
    :param path: File, or an open file
    :param exclude: As in SB3
    :param include: As in SB3
    :raises TypeError: if ``path`` has the wrong type
    :raises ValueError: if ``path`` cannot be written to
    """
    check_instance("path", path, (str, pathlib.Path, io.BufferedIOBase), "a path or an open file")
    if not isinstance(path, (str, pathlib.Path)):
        save(path, exclude, include)
        return
    target = pathlib.Path(path)
    target = target if target.suffix else target.with_name(f"{target.name}.zip")
    try:
        with atomic_file(make_place(target)) as file:
            save(file, exclude, include)
    except OSError as error:
        raise ValueError(f"cannot save the model to `path` {str(path)!r}: {error}") from error


class ZipFiles(BaseAlgorithm):
    """``load`` and ``save`` of SB3 with checks. An algorithm has it as a base class, before that of SB3."""

    #: Newest format of the zip that this version reads
    newest_zip_format: ClassVar[int] = 1

    @classmethod
    def load(
        cls: type[SelfZipFiles],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfZipFiles:
        """
        Load the model from a zip-file as in SB3. Loading unpickles: only load files that you trust.

        :param path: path to the file (or a file-like) where to load the agent from
        :param env: the new environment to run the loaded model on (can be None if you only need prediction from a
            trained model) has priority over any saved environment
        :param device: Device on which the code should run.
        :param custom_objects: Dictionary of objects to replace upon loading
        :param print_system_info: Whether to print system info from the saved model and the current system info
        :param force_reset: Force call to ``reset()`` before training to avoid unexpected behavior.
        :param kwargs: arguments of the constructor to change when loading
        :return: new model instance with loaded parameters
        :raises TypeError: if ``path`` is not a path, or an argument has the wrong type or an unknown name
        :raises ValueError: if the file is damaged or does not contain a model, or an argument is out of range
        """
        algorithm = next(each.__name__ for each in cls.__mro__ if "policy_aliases" in vars(each))  # not a subclass
        check_zip(path, algorithm, cls.newest_zip_format)
        check_arguments(locals(), LOAD_CHECKS)
        if env is not None:
            check_env("env", env)
        check_keywords("kwargs", kwargs, cls, passed=("policy", "env", "device", "_init_setup_model"))
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save all the attributes of the object and the model parameters in a zip-file. An existing file is replaced only
        once the new one is complete.

        :param path: path to the file where the rl agent should be saved
        :param exclude: name of parameters that should be excluded in addition to the default ones
        :param include: name of parameters that might be excluded but should be included anyway
        :raises TypeError: if an argument has the wrong type
        :raises ValueError: if ``path`` cannot be written to
        """
        check_arguments(locals(), SAVE_CHECKS)
        save_atomically(super().save, path, exclude, include)
