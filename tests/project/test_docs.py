"""Every code block of README.md and docs/ does what it says; see doc_blocks.py for the comments above blocks."""

import argparse
import contextlib
import inspect
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
import yaml

from sb3_trmrl.__main__ import COMMANDS, main
from tests.helpers.doc_blocks import ROOT, Block, blocks_of, pages

BLOCKS = [block for path in pages() for block in blocks_of(path)]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console")]
PAGES_TO_RUN = sorted({block.page for block in BLOCKS if block.language == "python" or block.arguments is not None})
YAML = [block for block in BLOCKS if block.language == "yaml"]


class Exemption(NamedTuple):
    """
    A block that is neither run nor parsed.

    :param page: Its page
    :param line: Part of the block
    :param reason: Why
    """

    page: str
    line: str
    reason: str


_SHARE = "docs/how-to/share.md"
EXEMPTIONS = (Exemption(_SHARE, "push_to_hub(", "needs the network and an account on the Hub"),)
#: Other commands that blocks may hold, none of which is run: they install, or start the tests
OTHER_COMMANDS = ("git",)
#: Modules of `python -m` besides our own, not run for the same reason
OTHER_MODULES = ("venv", "pip", "pytest", "build")
#: Keys of rl-zoo3's hyperparameters that are no arguments of an algorithm, see ``ExperimentManager``
ZOO_KEYS = {"n_envs", "n_timesteps", "normalize", "env_kwargs", "env_wrapper", "vec_env_wrapper", "callback"}
ZOO_KEYS |= {"frame_stack", "monitor_kwargs"}
#: What the shell of a block writes down in place of running it: one line for each command, its arguments quoted
RECORDER = """
set -euo pipefail
record() { printf '%q ' "$@" >> "$RECORD"; printf '\\n' >> "$RECORD"; }
for name in python python3 trmrl make pip git; do eval "$name() { record $name \\"\\$@\\"; }"; done
.() { :; }
cd() { :; }
"""


class Parsed(Exception):
    """The arguments of a command are understood; it would go to work now."""


def is_exempt(block: Block) -> bool:
    """Whether the block is among the exemptions."""
    return any(block.page == exempt.page and exempt.line in block.text for exempt in EXEMPTIONS)


def commands(code: str, folder: Path) -> list[list[str]]:
    """
    :param code: Shell script
    :param folder: Where it runs
    :return: Its commands as bash sees them, loops and quotes resolved, in the order of their start
    """
    record = folder / "commands"
    record.write_text("")
    environment = {"RECORD": str(record), "PATH": "", "HOME": str(folder)}
    script = RECORDER + code
    done = subprocess.run(
        ["/bin/bash", "-c", script], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"bash does not run the block: {done.stderr}"
    return [shlex.split(line) for line in record.read_text().splitlines()]


def ours(command: list[str]) -> list[str] | None:
    """
    :param command: Program and arguments
    :return: Arguments of our command line, or None if that is not what it runs
    """
    if command[0] == "trmrl":
        return command[1:]
    if command[0] in ("python", "python3"):
        if command[1:3] == ["-m", "sb3_trmrl"]:
            return command[3:]
        if command[1] in ("train.py", "enjoy.py"):
            return [command[1].removesuffix(".py"), *command[2:]]
    return None


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that documented commands name, as in a checkout."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "demo").symlink_to(ROOT / "docs" / "demo")
    (tmp_path / "hyperparams").symlink_to(ROOT / "hyperparams")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers parse, and what comes after the last of them does not happen."""
    parse_args, known_args = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args

    def parse(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        options = parse_args(self, *args, **kwargs)
        if hasattr(options, "rest"):  # `analyze`: another parser takes the rest
            return options
        check_options(vars(options))
        raise Parsed

    def parse_known(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        options, rest = known_args(self, *args, **kwargs)
        if hasattr(options, "grid"):  # `analyze ablations`: what it does not know goes to `train`
            check_hyperparameters("trmrl", {"policy_kwargs": options.grid or {}})
            main(["train", "--env", options.env, *rest])
        return options, rest

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
    # It looks for a run before the zoo's parser is called
    monkeypatch.setattr("sb3_trmrl.cli.enjoy.check_saved_agent", lambda *_: None)


def check_options(options: dict[str, Any]) -> None:
    """
    :param options: What a parser has read: names of environments, arguments and hyperparameters in it exist
    """
    envs = options.get("env") or []
    for env_id in [envs] if isinstance(envs, str) else envs:
        assert env_id in gym.registry, f"there is no environment {env_id}"
    for kwargs in ("env_kwargs", "eval_env_kwargs"):
        if options.get(kwargs) and envs:
            gym.make(envs, **options[kwargs]).close()
    if options.get("conf_file"):
        assert Path(options["conf_file"]).is_file(), f"there is no file {options['conf_file']}"
    if options.get("hyperparams"):
        check_hyperparameters(options["algo"], options["hyperparams"])


def check_hyperparameters(algo: str, hyperparams: dict[str, Any]) -> None:
    """
    :param algo: Name of the algorithm in rl-zoo3
    :param hyperparams: Hyperparameters: their names, and those of the policy's arguments, exist
    """
    import sb3_trmrl.zoo.registration  # rl-zoo3 knows the algorithm when one of our commands has been called

    sb3_trmrl.zoo.registration.register()
    algorithm = sb3_trmrl.zoo.registration.rl_zoo3.ALGOS[algo]
    unknown = set(hyperparams) - ZOO_KEYS - set(inspect.signature(algorithm).parameters)
    assert not unknown, f"{algo} has no hyperparameter {unknown}"
    policy = next(iter(algorithm.policy_aliases.values()))
    unknown = set(hyperparams.get("policy_kwargs", {})) - set(inspect.signature(policy).parameters)
    assert not unknown, f"{policy.__name__} has no argument {unknown}"


@pytest.fixture(autouse=True)
def state_of_the_process(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run in this process: what they change of it is put back."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    modules, environments = set(sys.modules), dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(environments)
    for block in BLOCKS:
        if block.file is not None and (name := Path(block.file).stem) not in modules:
            sys.modules.pop(name, None)


def check(command: list[str], folder: Path) -> None:
    """
    Have the real parser read the command; nothing is run.

    :param command: Program and arguments
    :param folder: Where further files may be written
    """
    missing = [word for word in command if word.startswith("docs/") and not (ROOT / word).exists()]
    assert not missing, f"there is no {missing}"
    arguments = ours(command)
    if arguments is not None:
        if arguments[0] in ("--help", "--version"):
            return
        assert arguments[0] in COMMANDS, f"{arguments[0]!r} is no command"
        with pytest.raises(Parsed):
            main(arguments)
    elif command[0] == "make":
        check_make(command, folder)
    elif command[0] == "pip":
        check_pip(command)
    elif command[0] in ("python", "python3") and command[1] == "-m":
        assert command[2] in OTHER_MODULES, f"unknown module in {command}"
    elif command[0] in ("python", "python3"):
        script = ROOT / command[1]
        assert script.is_file(), f"{command[1]} does not exist"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [command[1], *command[2:]])
            patch.syspath_prepend(str(script.parent))
            if "argparse" in script.read_text():
                with pytest.raises(Parsed):
                    runpy.run_path(str(script), run_name="__main__")
            else:
                assert not command[2:], f"{command[1]} takes no arguments"
    else:
        assert command[0] in OTHER_COMMANDS, f"unknown command in {command}"


def check_make(command: list[str], folder: Path) -> None:
    """What make would run is checked in its turn; variables are those that the Makefile has."""
    makefile = (ROOT / "Makefile").read_text()
    for word in command[1:]:
        if "=" in word:
            assert re.search(rf"^{word.partition('=')[0]} \?=", makefile, re.MULTILINE), f"make has no {word}"
    dry = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed", "-C", str(ROOT), *command[1:]]
    done = subprocess.run(dry, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if "-m sb3_trmrl" in line]
    for would_run in commands("\n".join(made).replace(".venv/bin/", "") + "\n", folder):
        check(would_run, folder)


def check_pip(command: list[str]) -> None:
    """Extras that are installed exist."""
    from configparser import ConfigParser

    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for name in re.findall(r"(?:sb3_trmrl|\.)\[([\w,]+)\]", " ".join(command)):
        assert set(name.split(",")) <= set(setup["options.extras_require"]), f"there is no extra {name}"


def test_the_pages_are_found() -> None:
    languages = Counter(block.language for block in BLOCKS)
    assert {"README.md", "docs/index.md"} <= {path.relative_to(ROOT).as_posix() for path in pages()}
    assert languages["python"] > 5 and languages["bash"] > 5 and languages["yaml"] > 0


def test_each_block_has_a_language_that_is_tested() -> None:
    """The rest is Sphinx's own (``{toctree}``, checked by the build) and text that no program reads."""
    known = ("python", "bash", "console", "yaml", "text")
    unknown = [block.name for block in BLOCKS if block.language not in known and not block.language.startswith("{")]
    assert not unknown


@pytest.mark.parametrize("exempt", EXEMPTIONS, ids=lambda exempt: f"{exempt.page}-{exempt.line}")
def test_each_exemption_is_needed(exempt: Exemption) -> None:
    matching = [block.name for block in BLOCKS if block.page == exempt.page and exempt.line in block.text]
    assert len(matching) == 1, f"{exempt.line!r} matches {matching}"


def test_each_comment_is_understood() -> None:
    for block in BLOCKS:
        assert block.code or not block.text
        assert block.arguments is None or block in SHELL, f"{block.name} cannot be `run`"
        assert not block.printed or block.language == "text", f"{block.name} cannot be `output`"


@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_blocks_run(page: str, workplace: Path, few_goals: None) -> None:
    """
    One after the other, as a reader follows the page: Python in one namespace, commands that are marked to be run.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: list[str] = []
    for block in BLOCKS:
        if block.page != page or is_exempt(block):
            continue
        if block.file is not None:
            with (workplace / block.file).open("a") as file:
                file.write(block.code)
        for i, line in block.printed.items():
            assert printed[i : i + 1] == [line], f"{block.name}, line {i + 1}"
        if block.runs:
            output = io.StringIO()
            # The line numbers of the page, for tracebacks
            code = compile("\n" * (block.line - 1) + block.code, str(ROOT / page), "exec")
            with contextlib.redirect_stdout(output):
                exec(code, namespace)
            printed = output.getvalue().splitlines()
        elif block.arguments is not None:
            for command in commands(block.code, workplace):
                run(command, shlex.split(block.arguments), block)


def run(command: list[str], more: list[str], block: Block) -> None:
    """
    :param command: Program and arguments
    :param more: Further arguments
    :param block: Where it stands
    """
    arguments = ours(command)
    if arguments is not None:
        assert main([*arguments, *more]) == 0
        return
    assert command[0] in ("python", "python3") and command[1].endswith(".py"), f"{block.name}: cannot run {command}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*command[1:], *more])
        runpy.run_path(command[1], run_name="__main__")


@pytest.mark.parametrize(
    "block",
    [block for block in SHELL if block.arguments is None and not is_exempt(block)],
    ids=lambda block: block.name,
)
def test_commands_are_understood(block: Block, workplace: Path, parse_only: None, few_goals: None) -> None:
    found = commands(block.code, workplace)
    assert found
    for command in found:
        check(command, workplace)


@pytest.mark.parametrize(
    "script",
    [
        "python -m sb3_trmrl evaluate docs/demo --no-such-option",
        "python train.py --env HalfCheetahVel-v0 --no-such-option",
        "python train.py --env HalfCheetahVel-v9",
        "python train.py --env HalfCheetahVel-v0 -params n_stepz:1",
        'python train.py --env HalfCheetahVel-v0 -params policy_kwargs:"dict(memry=1)"',
        "python train.py --algo ppo --env HalfCheetahVel-v0 -params vf_learning_rate:1",
        "python train.py --env GridNavi-v0 --env-kwargs acros_episodes:1",
        "python train.py --env GridNavi-v0 --env-kwargs \"across_episodes:'nothing'\"",
        "python train.py --env GridNavi-v0 --conf-file hyperparams/nothing.yml",
        "python enjoy.py --env HalfCheetahVel-v9",
        "trmrl plot all -a trmrl -e HalfCheetahVel-v9 -f logs",
        "trmrl analyze ablations --env HalfCheetahVel-v9",
        'trmrl analyze ablations --env HalfCheetahVel-v0 --grid "n_layer:(1,2)"',
        "python -m sb3_trmrl evaluate docs/demo/Nope.safetensors",
        "trmrl analyze online docs/demo --n-episodes 0",
        "trmrl nothing",
        "python benchmarks/learn.py --no-such-option",
        "python benchmarks/nothing.py",
        "make nothing",
        "make train NOTHING=1",
        'make train ARGS="--no-such-option"',
        'pip install "sb3_trmrl[nothing]"',
        "python -m nothing",
        "nothing",
        "for i in 1 2; do python train.py",
    ],
)
def test_wrong_commands_are_found(script: str, workplace: Path, parse_only: None) -> None:
    with pytest.raises((AssertionError, SystemExit, TypeError, ValueError)):
        for command in commands(f"{script}\n", workplace):
            check(command, workplace)


def test_what_bash_makes_of_a_block(workplace: Path) -> None:
    script = "for I in 0 1; do\n  A=1 trmrl train --seed $I \\\n    'x*'  # comment\ndone\ncd x && . y && make\n"
    expected = [["trmrl", "train", "--seed", str(i), "x*"] for i in (0, 1)]
    assert commands(script, workplace) == [*expected, ["make"]]


def test_blocks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n<!-- test: 100 -> 1 -->\n```python\nlearn(100)\n```\n"
        "- list\n  ```console\n  $ trmrl train\n  done\n  ```\n"
        "<!-- test: run -n 1 -->\n````bash\n```\n````\n<!-- test: file a.py -->\n```python\n```\n"
        "<!-- test: also a.py -->\n```python\n```\n<!-- test: output -->\n```text\na\nb\n```\n"
        "<!-- test: output 2 -->\n```text\na\nb\n```\n"
    )
    first, second, third, fourth, fifth, *texts = blocks_of(page)
    assert (first.line, first.language, first.text, first.code) == (4, "python", "learn(100)\n", "learn(1)\n")
    assert (second.language, second.text, second.code) == ("console", "$ trmrl train\ndone\n", "trmrl train\n")
    assert (third.text, third.arguments, third.file) == ("```\n", "-n 1", None)
    assert (fourth.text, fourth.arguments, fourth.file, fourth.runs) == ("", None, "a.py", False)
    assert (fifth.file, fifth.runs, first.runs, third.runs) == ("a.py", True, True, False)
    assert [text.printed for text in (first, *texts)] == [{}, {0: "a", 1: "b"}, {1: "b"}]


@pytest.mark.parametrize(
    "text, message",
    [
        ("```\n```\n", "no language"),
        ("```python\n", "no end"),
        ("<!-- test: run -->\n\n```bash\n```\n", "directly above"),
        ("<!-- test: 1 -> 2 -->\n```python\n```\n", "got 0 times"),
        ("<!-- test: 1 -> 2 -->\n```python\n1, 1\n```\n", "got 2 times"),
        ("<!-- test: skip -->\n```python\n```\n", "got 'skip'"),
    ],
)
def test_mistakes_on_a_page(text: str, message: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=message):
        assert not [block.code for block in blocks_of(page)]


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_yaml_is_valid(block: Block) -> None:
    """Entries of environments, or keys that go into one."""
    entries = yaml.safe_load(block.code)
    assert isinstance(entries, dict)
    of_environments = all(re.search(r"-v\d+$", name) for name in entries)
    for hyperparams in entries.values() if of_environments else [entries]:
        check_hyperparameters("trmrl", hyperparams)


def test_links_of_the_readme_exist() -> None:
    """Sphinx checks those within docs/."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "transformer_ppo.html").is_file()
