"""Whose mistake an error is: that of what a command was given, or of code that it runs, which needs the traceback."""

import sys
from types import TracebackType

import gymnasium as gym

#: What a check raises, or reading a file
_OF_CHECKS = (ValueError, TypeError, OSError, ImportError, gym.error.Error)
#: Errors that are about arguments, by the package that raises them. SB3 asserts, the zoo looks things up unchecked
_ABOUT_ARGUMENTS: dict[str, tuple[type[Exception], ...]] = {
    "sb3_trmrl": _OF_CHECKS,
    "stable_baselines3": (*_OF_CHECKS, AssertionError),
    "sb3_contrib": (*_OF_CHECKS, AssertionError),
    "rl_zoo3": (Exception,),
}
#: Packages that act for their caller, so that the error is the caller's
_TOOLS = {"cloudpickle", "gymnasium", "httpcore", "httpx", "huggingface_hub", "numpy", "requests", "safetensors"}
_TOOLS |= {"tenacity", "torch", "urllib3", "yaml", *sys.stdlib_module_names} - {"__main__"}


def _packages(traceback: TracebackType | None) -> list[str]:
    """
    :param traceback: Of an error
    :return: Top-level package of each of its frames, the innermost one last
    """
    found = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        traceback = traceback.tb_next
    return found


def _raised_by(error: BaseException) -> str:
    """
    :param error: An error that was caught
    :return: Package of the innermost frame that is no tool's
    """
    packages = _packages(error.__traceback__)
    # gym.make gives what a constructor raises a longer text
    while packages[-1:] == ["gymnasium"] and error.__cause__ is not None:
        error = error.__cause__
        packages = _packages(error.__traceback__) or packages
    return next((package for package in reversed(packages) if package not in _TOOLS), "sb3_trmrl")


def is_of_users_code(error: BaseException) -> bool:
    """
    :param error: An error that was caught
    :return: Whether code that is neither ours nor the libraries' has raised it: an environment, callback or module of
        the user's
    """
    return _raised_by(error) not in _ABOUT_ARGUMENTS


def is_about_arguments(error: BaseException) -> bool:
    """
    :param error: An error that was caught
    :return: Whether it tells what is wrong with what we were given, so that its text is enough
    """
    return isinstance(error, _ABOUT_ARGUMENTS.get(_raised_by(error), ()))


def error_text(error: BaseException) -> str:
    """
    :param error: An error, whose text may be as little as a key
    :return: What to tell the user
    """
    told = (*_OF_CHECKS, AssertionError)
    return str(error) if isinstance(error, told) and str(error) else f"{type(error).__name__}: {error}"
