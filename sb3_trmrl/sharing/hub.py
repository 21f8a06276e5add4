"""Exported agents on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import torch as th

from sb3_trmrl.common.checks import check_bool, check_instance, check_positive_int
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.sharing.agent import ExportedAgent, load_agent
from sb3_trmrl.sharing.card import model_card
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES
from sb3_trmrl.sharing.strict_json import InvalidAgentFile
from sb3_trmrl.transformer_ppo.arguments import check_device

#: Files of a repository
AGENT_FILE = "agent.safetensors"
CARD_FILE = "README.md"
PICTURE_FILE = "adaptation.png"
RESULT_FILE = "adaptation.npz"
#: Answers that say nothing of what was asked for: too slow, too often
_TRY_AGAIN = (408, 429)


def _hub() -> ModuleType:
    """
    :return: huggingface_hub, imported when it is needed
    :raises ModuleNotFoundError: if it is not installed
    """
    try:
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"sharing on the Hugging Face Hub needs huggingface_hub ({error}): pip install 'sb3_trmrl[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _hub_errors(repo_id: str, endpoint: str | None) -> Iterator[None]:
    """
    The errors of the client, which are of many classes, as two of Python's.

    :param repo_id: Repository
    :param endpoint: Address of the Hub
    :raises ValueError: if the Hub refuses: something is not there, or not allowed
    :raises ConnectionError: if it cannot be reached, also in the client's offline mode, or does not answer as it should
    """
    from huggingface_hub import constants, errors

    # Versions of the client send with different libraries: the last base is that of all errors of the library
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
        where, said = f"repository {repo_id!r} at {endpoint or constants.ENDPOINT}", " ".join(str(error).split())
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if 400 <= status < 500 and status not in _TRY_AGAIN:
            raise ValueError(f"{where} or a file of it is not there, or not allowed: {said}") from error
        raise ConnectionError(f"{where} cannot be reached: {said}") from error


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
    Put an exported agent on the Hub, with a model card and, where it was evaluated, the picture of its adaptation. The
    repository is made if need be.

    :param path: File that ``TransformerPPO.export`` wrote
    :param repo_id: Repository, ``"user/name"``
    :param result: Evaluation for card and picture, by default one on test tasks of the agent's environment
    :param evaluate: Whether to evaluate if no ``result`` is given; it needs a family of tasks
    :param n_eval_tasks: Number of tasks of that evaluation
    :param n_eval_episodes: Episodes of each task
    :param private: Whether a new repository is private, by default as the Hub's settings of the user say
    :param commit_message: Message of the commit
    :param token: Token of the Hub, by default that of the login
    :param endpoint: Address of the Hub, by default the public one
    :return: Address of the commit
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if a number is below 1, or the file is no exported agent, or does not tell its environment and
        is to be evaluated, or the Hub refuses the upload
    :raises TypeError: if an argument has the wrong type, or its environment is no family of tasks in trials and it is
        to be evaluated
    :raises ConnectionError: if the Hub cannot be reached
    :raises ModuleNotFoundError: without the extra ``hub``; for a picture matplotlib is needed too
    """
    _check_address(repo_id, token, endpoint)
    check_instance("result", result, (AdaptationResult, type(None)), "an AdaptationResult or None")
    check_bool("evaluate", evaluate)
    check_positive_int("n_eval_tasks", n_eval_tasks)
    check_positive_int("n_eval_episodes", n_eval_episodes)
    if private is not None:
        check_bool("private", private)
    check_instance("commit_message", commit_message, str, "a text")
    hub = _hub()
    _check_repo_id(repo_id)
    agent = load_agent(path)
    if result is None and evaluate:
        if agent.env_id is None:
            raise ValueError(f"{path} does not tell its environment: pass `result`, or evaluate=False")
        result = evaluate_adaptation(
            agent, agent.env_id, n_eval_tasks, n_eval_episodes, env_kwargs=agent.env_kwargs, n_envs=10
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [AGENT_FILE, CARD_FILE]
        if result is not None:
            _draw(result, folder / PICTURE_FILE)
            result.save(folder / RESULT_FILE)
            files += [PICTURE_FILE, RESULT_FILE]
        card = model_card(agent, repo_id, result, None if result is None else PICTURE_FILE)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        api = hub.HfApi(endpoint=endpoint, token=token)
        sources = {AGENT_FILE: Path(path)}
        operations = [
            hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=sources.get(file, folder / file))
            for file in files
        ]
        with _hub_errors(repo_id, endpoint):
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.create_commit(repo_id, operations, commit_message=commit_message)
    return str(commit.commit_url)


def _check_address(repo_id: Any, token: Any, endpoint: Any) -> None:
    """
    :param repo_id: What the user gave, as the others
    :param token: Token of the Hub
    :param endpoint: Address of the Hub
    """
    check_instance("repo_id", repo_id, str, "the name of a repository, such as 'user/name'")
    check_instance("token", token, (str, type(None)), "a text or None")
    check_instance("endpoint", endpoint, (str, type(None)), "an address or None")
    if endpoint is not None and not _is_address(endpoint):
        raise ValueError(f"`endpoint` must be an address that begins with http:// or https://, got {endpoint!r}")


def _is_address(text: str) -> bool:
    """
    :param text: What the user gave
    :return: Whether it is the address of a server
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # a port that is no number
        return False


def _check_repo_id(repo_id: str) -> None:
    """
    :param repo_id: What the user gave
    """
    try:
        _hub().utils.validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"`repo_id` must name a repository, such as 'user/name', got {repo_id!r}: {error}") from error


def _check_filename(filename: Any) -> None:
    """
    :param filename: What the user gave
    """
    check_instance("filename", filename, str, "the name of a file in the repository")
    inside = not {"", ".", ".."} & set(filename.split("/"))  # an absolute path begins with an empty part
    if not inside or not filename.isprintable() or set(filename) & set("\\:"):
        raise ValueError(f"`filename` must be the path of a file in the repository, without '..', got {filename!r}")


def _draw(result: AdaptationResult, path: Path) -> None:
    """
    :param result: How the agent adapts
    :param path: Picture to write
    """
    try:
        from sb3_trmrl.analysis.adaptation import plot_adaptation
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the picture of the adaptation cannot be drawn ({error}): pip install matplotlib, or pass evaluate=False"
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
    Load an agent from the Hub, as :func:`load_agent` does: nothing that lies there is run. Without a connection, or in
    the client's offline mode, what was downloaded before is loaded.

    :param repo_id: Repository, ``"user/name"``
    :param filename: File in the repository
    :param revision: Branch, tag or commit, by default the newest one; a commit can never become another file
    :param device: PyTorch device of the policy
    :param cache_dir: Folder for downloaded files, by default the Hub's own
    :param token: Token of the Hub, by default that of the login
    :param endpoint: Address of the Hub, by default the public one
    :return: The agent
    :raises InvalidAgentFile: a ``ValueError``, if it is no exported agent, damaged, or larger than allowed: then it is
        not downloaded
    :raises ValueError: if there is no such repository, revision or file, or it is not allowed to read it
    :raises ConnectionError: if the Hub cannot be reached, and the file is not in the cache
    :raises ModuleNotFoundError: without the extra ``hub``
    """
    _check_address(repo_id, token, endpoint)
    _check_filename(filename)
    check_instance("revision", revision, (str, type(None)), "a branch, tag or commit, or None")
    check_instance("cache_dir", cache_dir, (str, PathLike, type(None)), "a folder or None")
    check_device("device", device)
    hub = _hub()
    _check_repo_id(repo_id)
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
        found = "its server does not tell its size" if size is None else f"it has {size} bytes"
        raise InvalidAgentFile(
            f"{filename} of {repo_id} cannot be loaded as an agent: {found}, allowed are {MAX_FILE_BYTES} bytes"
        )
    with _hub_errors(repo_id, endpoint):
        # Not of the commit that was just found: then the cache would not tell which one is the newest
        path = hub.hf_hub_download(
            repo_id, filename, revision=revision, cache_dir=cache_dir, token=token, endpoint=endpoint
        )
    return load_agent(path, device)
