"""Exported agents on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch as th

from sb3_trmrl.algorithms.arguments import check_device
from sb3_trmrl.common.checks import check_bool, check_instance, check_positive_int
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import episodes_per_trial
from sb3_trmrl.sharing.agent import ExportedAgent, load_agent
from sb3_trmrl.sharing.card import model_card
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES
from sb3_trmrl.sharing.strict_json import InvalidAgentFile

#: Files of a repository
AGENT_FILE = "agent.safetensors"
CARD_FILE = "README.md"
PICTURE_FILE = "adaptation.png"
RESULT_FILE = "adaptation.npz"
#: Client errors that are worth retrying: request timeout, too many requests
_TRY_AGAIN = (408, 429)


def _checked_hub(repo_id: Any, token: Any, endpoint: Any) -> Any:
    """Check the arguments that upload and download share, and return huggingface_hub, an optional dependency."""
    check_instance("repo_id", repo_id, str, "the name of a repository, such as 'user/name'")
    check_instance("token", token, (str, type(None)), "a string or None")
    check_instance("endpoint", endpoint, (str, type(None)), "an address or None")
    if endpoint is not None and not _is_address(endpoint):
        raise ValueError(f"`endpoint` must be an address with http:// or https://, got {endpoint!r}")
    try:
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"sharing on the Hugging Face Hub needs huggingface_hub ({error}): pip install 'sb3_trmrl[hub]'"
        ) from error
    hub: Any = huggingface_hub
    try:
        hub.utils.validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"`repo_id` must name a repository, such as 'user/name', got {repo_id!r}: {error}") from error
    return hub


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # the port is not a number
        return False


@contextmanager
def _hub_errors(repo_id: str, endpoint: str | None) -> Iterator[None]:
    """Raise a ValueError where the Hub refuses a request, and a ConnectionError where it cannot be reached."""
    from huggingface_hub import constants, errors

    # Versions of the client use different HTTP libraries; the last base class covers all errors of the library
    bases: list[Any] = [kind for kind in errors.HfHubHTTPError.__mro__ if kind.__module__ != "builtins"]
    kinds: tuple[type[Exception], ...] = (
        bases[-1],
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        errors.FileMetadataError,
    )
    try:
        yield
    except kinds as error:
        where, reason = f"repository {repo_id!r} at {endpoint or constants.ENDPOINT}", " ".join(str(error).split())
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if 400 <= status < 500 and status not in _TRY_AGAIN:
            raise ValueError(f"{where} or its file does not exist, or access is denied: {reason}") from error
        raise ConnectionError(f"{where} cannot be reached: {reason}") from error


def push_to_hub(
    path: str | PathLike[str],
    repo_id: str,
    result: AdaptationResult | None = None,
    evaluate: bool = True,
    n_eval_tasks: int = 20,
    n_eval_episodes: int = 6,
    private: bool | None = None,
    commit_message: str = "Upload agent",
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """
    Upload an exported agent with a model card and, if it is evaluated, a plot of its adaptation. The repository is
    created if necessary.

    :param path: File that ``TransformerPPO.export`` wrote
    :param repo_id: Repository, ``"user/name"``
    :param result: Evaluation for the card and the plot, by default on test tasks of the agent's environment
    :param evaluate: Whether to evaluate if no ``result`` is given
    :param n_eval_tasks: Number of tasks of that evaluation; without tasks, of episodes
    :param n_eval_episodes: Number of episodes of each task; ignored without tasks
    :param private: Whether a new repository is private, by default as in the user's settings of the Hub
    :param commit_message: Message of the commit
    :param token: Token for the Hub, by default the one of the login
    :param endpoint: Address of the Hub, by default the public one
    :return: Address of the commit
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if a number is below 1, the file is not an exported agent, its environment is unknown and it
        is to be evaluated, or the Hub refuses the upload
    :raises TypeError: if an argument has the wrong type, or the agent is to be evaluated and its environment is a
        family of tasks without trials
    :raises ConnectionError: if the Hub cannot be reached
    :raises ModuleNotFoundError: without the extra ``hub``; the plot also needs matplotlib
    """
    hub = _checked_hub(repo_id, token, endpoint)
    check_instance("result", result, (AdaptationResult, type(None)), "an AdaptationResult or None")
    check_bool("evaluate", evaluate)
    check_positive_int("n_eval_tasks", n_eval_tasks)
    check_positive_int("n_eval_episodes", n_eval_episodes)
    if private is not None:
        check_bool("private", private)
    check_instance("commit_message", commit_message, str, "a string")
    agent = load_agent(path)
    if result is None and evaluate:
        if agent.env_id is None:
            raise ValueError(f"{path} does not name its environment: pass `result`, or evaluate=False")
        has_trials = episodes_per_trial(agent.env_id, agent.env_kwargs) is not None
        n_eval_episodes = n_eval_episodes if has_trials else 1
        result = evaluate_adaptation(
            agent, agent.env_id, n_eval_tasks, n_eval_episodes, env_kwargs=agent.env_kwargs, n_envs=10
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {AGENT_FILE: Path(path), CARD_FILE: folder / CARD_FILE}
        if result is not None:
            files[RESULT_FILE] = folder / RESULT_FILE
            result.save(files[RESULT_FILE])
        if result is not None and result.unit == "tasks":  # a single mean is not worth a plot
            files[PICTURE_FILE] = folder / PICTURE_FILE
            _draw(result, files[PICTURE_FILE])
        card = model_card(agent, repo_id, result, PICTURE_FILE if PICTURE_FILE in files else None)
        files[CARD_FILE].write_text(card, encoding="utf-8")
        api = hub.HfApi(endpoint=endpoint, token=token)
        operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        with _hub_errors(repo_id, endpoint):
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.create_commit(repo_id, operations, commit_message=commit_message)
    return str(commit.commit_url)


def _check_filename(filename: Any) -> None:
    check_instance("filename", filename, str, "the name of a file in the repository")
    inside = not {"", ".", ".."} & set(filename.split("/"))  # the first part of an absolute path is empty
    if not inside or not filename.isprintable() or set(filename) & set("\\:"):
        raise ValueError(f"`filename` must be the path of a file in the repository, without '..', got {filename!r}")


def _draw(result: AdaptationResult, path: Path) -> None:
    try:  # matplotlib is optional
        from sb3_trmrl.analysis.adaptation import plot_adaptation
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the plot of the adaptation cannot be drawn ({error}): pip install matplotlib, or pass evaluate=False"
        ) from error
    plot_adaptation({result.env_id: result}, path)


def load_from_hub(
    repo_id: str,
    filename: str = AGENT_FILE,
    revision: str | None = None,
    device: th.device | str = "cpu",
    cache_dir: str | PathLike[str] | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> ExportedAgent:
    """
    Download an agent from the Hub and load it with :func:`load_agent`, which runs no code from the repository. Without
    a connection, or in the client's offline mode, a file that was downloaded before is loaded.

    :param repo_id: Repository, ``"user/name"``
    :param filename: File in the repository
    :param revision: Branch, tag or commit, by default the newest one. Only a commit always means the same file
    :param device: PyTorch device of the policy
    :param cache_dir: Folder for downloaded files, by default the cache of the Hub's client
    :param token: Token for the Hub, by default the one of the login
    :param endpoint: Address of the Hub, by default the public one
    :return: The agent
    :raises InvalidAgentFile: a ``ValueError``, if the file is not an exported agent, is damaged, or is too large, in
        which case it is not downloaded
    :raises ValueError: if the repository, revision or file does not exist, or access is denied
    :raises ConnectionError: if the Hub cannot be reached and the file is not in the cache
    :raises ModuleNotFoundError: without the extra ``hub``
    """
    hub = _checked_hub(repo_id, token, endpoint)
    _check_filename(filename)
    check_instance("revision", revision, (str, type(None)), "a branch, tag or commit, or None")
    check_instance("cache_dir", cache_dir, (str, PathLike, type(None)), "a folder or None")
    check_device("device", device)
    url = hub.hf_hub_url(repo_id, filename, revision=revision, endpoint=endpoint)
    try:
        with _hub_errors(repo_id, endpoint):
            size = hub.get_hf_file_metadata(url, token=token).size
    except ConnectionError as error:
        cached = hub.try_to_load_from_cache(repo_id, filename, cache_dir, revision)
        if not isinstance(cached, str):
            raise ConnectionError(f"{error} (and {filename} is not in the cache)") from error
        return load_agent(cached, device)
    if size is None or size > MAX_FILE_BYTES:
        problem = "the server does not report its size" if size is None else f"it has {size} bytes"
        raise InvalidAgentFile(
            f"{filename} of {repo_id} cannot be loaded as an agent: {problem}; the limit is {MAX_FILE_BYTES} bytes"
        )
    with _hub_errors(repo_id, endpoint):
        # By revision instead of by the commit just found: the cache remembers which commit is the newest
        path = hub.hf_hub_download(
            repo_id, filename, revision=revision, cache_dir=cache_dir, token=token, endpoint=endpoint
        )
    return load_agent(path, device)
