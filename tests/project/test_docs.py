"""Every code block of README.md and docs/ works as documented; see doc_blocks.py for the comments above blocks."""

import argparse
import contextlib
import inspect
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import rl_zoo3.import_envs  # noqa: F401  (registers CartPoleNoVel-v1 before the registry is restored)
import yaml
from torch.distributed.run import get_args_parser

from sb3_trmrl.__main__ import COMMANDS, main
from sb3_trmrl.zoo.experiment_file import read_experiment
from tests.helpers.doc_blocks import ROOT, Block, blocks_of, pages

BLOCKS = [block for path in pages() for block in blocks_of(path)]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console")]
PAGES_TO_RUN = sorted({block.page for block in BLOCKS if block.language == "python" or block.arguments is not None})
YAML = [block for block in BLOCKS if block.language == "yaml"]

#: Blocks that are neither run nor parsed: their page, a part of them, and the reason
EXEMPTIONS = (
    ("docs/how-to/share.md", "push_to_hub(", "needs the network and an account on the Hub"),
    ("docs/how-to/popgym-minigrid.md", "--gym-packages popgym", "needs POPGym, which is not a dependency"),
    ("docs/how-to/popgym-minigrid.md", "--gym-packages my_minigrid", "needs MiniGrid, which is not a dependency"),
    ("docs/how-to/many-machines.md", "my_script.py", "starts several processes; tests/distributed has such scripts"),
)
#: Commands that start several processes
TORCHRUN = (("torchrun",), ("python", "-m", "torch.distributed.run"))
#: Modules of `python -m` besides our own. They are not run, because they install something or start the tests
OTHER_MODULES = ("venv", "pip", "pytest", "build")
#: Keys of rl-zoo3's hyperparameters that are not arguments of an algorithm, see ``ExperimentManager``
ZOO_KEYS = {"n_envs", "n_timesteps", "normalize", "env_kwargs", "env_wrapper", "vec_env_wrapper", "callback"}
ZOO_KEYS |= {"frame_stack", "monitor_kwargs"}
#: Makes the shell write down the commands of a block instead of running them: one line for each, with quoted arguments.
#: Each line is written at once, since a block may start several commands in the background
RECORDER = """
set -euo pipefail
record() { local line; printf -v line '%q ' "$@"; echo "$line" >> "$RECORD"; }
for name in python python3 torchrun trmrl make pip git; do eval "$name() { record $name \\"\\$@\\"; }"; done
.() { :; }
cd() { :; }
"""


class Parsed(Exception):
    """Raised when the arguments of a command have been parsed, before the command starts to work."""


def is_exempt(block: Block) -> bool:
    return any(block.page == page and part in block.text for page, part, _ in EXEMPTIONS)


def commands(code: str, folder: Path) -> list[list[str]]:
    """Return the commands of a shell script as bash sees them, with loops and quotes resolved."""
    record = folder / "commands"
    record.write_text("")
    environment = {"RECORD": str(record), "PATH": "", "HOME": str(folder)}
    bash = ["/bin/bash", "-c", RECORDER + code]
    done = subprocess.run(bash, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"bash does not run the block: {done.stderr}"
    return [shlex.split(line) for line in record.read_text().splitlines()]


def own_arguments(command: list[str]) -> list[str] | None:
    """Return the arguments of our command line, or None if the command does not run it."""
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
    (tmp_path / "experiments").mkdir()  # reports are written to it
    for file in (ROOT / "experiments").glob("*.yml"):
        shutil.copy(file, tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands raise :class:`Parsed` after their last parser."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        options = parse_args(self, *args, **kwargs)
        if hasattr(options, "rest"):  # `analyze`: another parser takes the rest
            return options
        check_options(vars(options))
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    # Packages that some options need, such as wandb, count as installed
    monkeypatch.setattr("sb3_trmrl.cli.parsers.find_spec", lambda name: name)
    # It looks for a run before the zoo's parser is called
    monkeypatch.setattr("sb3_trmrl.cli.enjoy.check_saved_agent", lambda *_: None)


def check_options(options: dict[str, Any]) -> None:
    """The environments, arguments, files and hyperparameters that a parser has read exist."""
    envs = options.get("env") or []
    for env_id in [envs] if isinstance(envs, str) else envs:
        assert env_id in gym.registry, f"there is no environment {env_id}"
    for kwargs in ("env_kwargs", "eval_env_kwargs"):
        if options.get(kwargs) and envs:
            gym.make(envs, **options[kwargs]).close()
    if options.get("conf_file"):
        assert Path(options["conf_file"]).is_file(), f"there is no file {options['conf_file']}"
    if options.get("action"):
        assert options["file"].is_file(), f"there is no file {options['file']}"
        read_experiment(options["file"])
    if options.get("hyperparams"):
        check_hyperparameters(options["algo"], options["hyperparams"])


def check_hyperparameters(algo: str, hyperparams: dict[str, Any]) -> None:
    """The names of hyperparameters and of the policy's arguments exist."""
    import sb3_trmrl.zoo.registration

    sb3_trmrl.zoo.registration.register()  # as our commands do
    algorithm = sb3_trmrl.zoo.registration.rl_zoo3.ALGOS[algo]
    single = {name for name in hyperparams if name.startswith("policy_kwargs.")}
    unknown = set(hyperparams) - single - ZOO_KEYS - set(inspect.signature(algorithm).parameters)
    assert not unknown, f"{algo} has no hyperparameter {unknown}"
    policy = next(iter(algorithm.policy_aliases.values()))
    named = {*hyperparams.get("policy_kwargs", {}), *(name.removeprefix("policy_kwargs.") for name in single)}
    unknown = named - set(inspect.signature(policy).parameters)
    assert not unknown, f"{policy.__name__} has no argument {unknown}"


@pytest.fixture(autouse=True)
def restore_process(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what commands change in this process: registered environments and imported modules."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    modules, environments = set(sys.modules), dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(environments)
    # What registered an environment must be imported again by the next test that needs it
    names = {"experiments", *(Path(block.file).stem for block in BLOCKS if block.file is not None)}
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in names:
            del sys.modules[name]


def without_torchrun(command: list[str]) -> list[str]:
    """Return the command of each process that torchrun starts; other commands are unchanged."""
    launcher = next((each for each in TORCHRUN if tuple(command[: len(each)]) == each), None)
    if launcher is None:
        return command
    first = next(i for i, word in enumerate(command) if i >= len(launcher) and not word.startswith("--"))
    with pytest.raises(Parsed):
        get_args_parser().parse_args([*command[len(launcher) : first], "script"])
    return ["python", *command[first:]]


def check(command: list[str], folder: Path) -> None:
    """The real parser accepts the command, which is not run. ``folder`` is for temporary files."""
    command = without_torchrun(command)
    missing = [word for word in command if word.startswith("docs/") and not (ROOT / word).exists()]
    assert not missing, f"there is no {missing}"
    arguments = own_arguments(command)
    if arguments is not None:
        if arguments[0] in ("--help", "--version"):
            return
        assert arguments[0] in COMMANDS, f"there is no command {arguments[0]!r}"
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
            patch.setattr(sys, "argv", command[1:])
            patch.syspath_prepend(str(script.parent))
            if "argparse" in script.read_text():
                with pytest.raises(Parsed):
                    runpy.run_path(str(script), run_name="__main__")
            else:
                assert not command[2:], f"{command[1]} takes no arguments"
    else:
        assert command[0] == "git", f"unknown command in {command}"


def check_make(command: list[str], folder: Path) -> None:
    """The Makefile has the variables, and the commands that make would run are correct."""
    makefile = (ROOT / "Makefile").read_text()
    for word in command[1:]:
        if "=" in word:
            assert re.search(rf"^{word.partition('=')[0]} \?=", makefile, re.MULTILINE), f"make has no {word}"
    dry = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed", "-C", str(ROOT), *command[1:]]
    done = subprocess.run(dry, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if "-m sb3_trmrl" in line]
    for would_run in commands("\n".join(made).replace(".venv/bin/", "") + "\n", folder):
        check(would_run, folder)


def check_pip(command: list[str]) -> None:
    """The extras that are installed exist."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for name in re.findall(r"(?:sb3_trmrl|\.)\[([\w,]+)\]", " ".join(command)):
        assert set(name.split(",")) <= set(setup["options.extras_require"]), f"there is no extra {name}"


def test_the_pages_are_found() -> None:
    languages = Counter(block.language for block in BLOCKS)
    assert {"README.md", "docs/index.md"} <= {path.relative_to(ROOT).as_posix() for path in pages()}
    assert languages["python"] > 5 and languages["bash"] > 5 and languages["yaml"] > 0


def test_each_block_has_a_language_that_is_tested() -> None:
    """Other blocks are Sphinx's own (``{toctree}``, checked by the build) and text."""
    known = ("python", "bash", "console", "yaml", "text")
    unknown = [block.name for block in BLOCKS if block.language not in known and not block.language.startswith("{")]
    assert not unknown


@pytest.mark.parametrize("page, part", [exemption[:2] for exemption in EXEMPTIONS])
def test_each_exemption_is_needed(page: str, part: str) -> None:
    matching = [block.name for block in BLOCKS if block.page == page and part in block.text]
    assert len(matching) == 1, f"{part!r} matches {matching}"


def test_each_comment_is_understood() -> None:
    for block in BLOCKS:
        assert block.code or not block.text
        assert block.arguments is None or block in SHELL, f"{block.name} cannot be `run`"
        assert not block.printed or block.language == "text", f"{block.name} cannot be `output`"


@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_blocks_run(page: str, workplace: Path, few_goals: None) -> None:
    """Blocks run in the order of the page: Python in one namespace, and the commands that are marked to be run."""
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
            # Tracebacks show the line numbers of the page
            code = compile("\n" * (block.line - 1) + block.code, str(ROOT / page), "exec")
            with contextlib.redirect_stdout(output):
                exec(code, namespace)
            printed = output.getvalue().splitlines()
        elif block.arguments is not None:
            for command in commands(block.code, workplace):
                run(command, shlex.split(block.arguments), block)


def run(command: list[str], more: list[str], block: Block) -> None:
    arguments = own_arguments(command)
    assert arguments is not None, f"{block.name}: cannot run {command}"
    assert main([*arguments, *more]) == 0


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
        "trmrl experiment run experiments/nothing.yml",
        "trmrl experiment rerun experiments/bandit.yml",
        "python -m sb3_trmrl evaluate docs/demo/Nope.safetensors",
        "trmrl analyze online docs/demo --n-episodes 0",
        "trmrl nothing",
        "python benchmarks/learn.py --no-such-option",
        "python benchmarks/nothing.py",
        "make nothing",
        "make train NOTHING=1",
        'make train ARGS="--no-such-option"',
        "torchrun --standalone -m sb3_trmrl train --env HalfCheetahVel-v0 --no-such-option",
        "torchrun --no-such-option train.py --env HalfCheetahVel-v0",
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


def test_bash_resolves_loops_and_quotes(workplace: Path) -> None:
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
def test_yaml_is_valid(block: Block, tmp_path: Path) -> None:
    """A block contains an experiment, entries of environments, or keys of one entry."""
    entries = yaml.safe_load(block.code)
    assert isinstance(entries, dict)
    if "agents" in entries:
        (tmp_path / "experiment.yml").write_text(block.code)
        read_experiment(tmp_path / "experiment.yml")
        return
    has_environments = all(re.search(r"-v\d+$", name) for name in entries)
    for hyperparams in entries.values() if has_environments else [entries]:
        check_hyperparameters("trmrl", hyperparams)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_outside_the_site_exist(page: Path) -> None:
    """Sphinx checks the links within docs/."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert links or page.name != "README.md"
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "transformer_ppo.html").is_file()
