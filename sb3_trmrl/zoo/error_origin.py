"""
Where an error comes from. Wrong arguments are reported in one line; an error in the user's own code (an environment, a
callback or a module) keeps its traceback.
"""

import sys
from traceback import walk_tb
from types import TracebackType

import gymnasium as gym

#: Raised by argument checks and by reading files
_CHECK_ERRORS = (ValueError, TypeError, OSError, ImportError, gym.error.Error)
#: Errors that are about arguments, by the package that raises them. SB3 uses assertions, rl-zoo3 does not check
_ARGUMENT_ERRORS: dict[str, tuple[type[Exception], ...]] = {
    "sb3_trmrl": _CHECK_ERRORS,
    "stable_baselines3": (*_CHECK_ERRORS, AssertionError),
    "sb3_contrib": (*_CHECK_ERRORS, AssertionError),
    "rl_zoo3": (Exception,),
}
#: Packages that act on behalf of their caller, to whom the error is attributed
_TOOLS = {"cloudpickle", "gymnasium", "httpcore", "httpx", "huggingface_hub", "numpy", "requests", "safetensors"}
_TOOLS |= {"tenacity", "torch", "urllib3", "yaml", *sys.stdlib_module_names} - {"__main__"}


def _packages(traceback: TracebackType | None) -> list[str]:
    """Return the top-level package of each frame, the innermost frame last."""
    return [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in walk_tb(traceback)]


def _raised_by(error: BaseException) -> str:
    """Return the package of the innermost frame that does not belong to a tool."""
    packages = _packages(error.__traceback__)
    # gym.make re-raises errors of a constructor with a longer message
    while packages[-1:] == ["gymnasium"] and error.__cause__ is not None:
        error = error.__cause__
        packages = _packages(error.__traceback__) or packages
    return next((package for package in reversed(packages) if package not in _TOOLS), "sb3_trmrl")


def raised_by_user_code(error: BaseException) -> bool:
    """Return whether an environment, callback or module of the user raised the error, not this package or a library."""
    return _raised_by(error) not in _ARGUMENT_ERRORS


def is_about_arguments(error: BaseException) -> bool:
    """Return whether the error says what is wrong with the given arguments, so that no traceback is needed."""
    return isinstance(error, _ARGUMENT_ERRORS.get(_raised_by(error), ()))


def error_text(error: BaseException) -> str:
    """Return the message for the user, with the type of errors whose text may be a bare key."""
    is_message = isinstance(error, (*_CHECK_ERRORS, AssertionError)) and str(error)
    if isinstance(error, gym.error.UnregisteredEnv):
        return f"{error} If a module of yours registers it, name the module: --gym-packages MODULE"
    return str(error) if is_message else f"{type(error).__name__}: {error}"
