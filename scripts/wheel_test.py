"""
Test the wheel in a new virtual environment outside the checkout: ``make wheel-test``.

Builds the sdist and the wheel, compares their files with those of the checkout, and installs the wheel twice: without
extras (import, learn, save, load, predict; commands name the missing extra) and with the extra ``zoo`` (help of every
command, train, enjoy, evaluate). The first failure ends the script with exit status 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENV = "HalfCheetahVel-v0"
RUN = f"logs/trmrl/{ENV}_1"
#: One rollout of a single environment and one evaluation on the validation tasks, with the packaged settings
TRAIN = f"train --env {ENV} -n 400 --eval-freq 400 --hyperparams n_envs:1"
#: Prints the path of the package, after training an agent that predicts the same after saving and loading
CORE_SNIPPET = """
import numpy as np
import sb3_trmrl
from sb3_trmrl import TransformerPPO

model = TransformerPPO("TrMRLPolicy", "HalfCheetahVel-v0", n_steps=64, batch_size=32, n_epochs=1, device="cpu")
before = model.policy.parameters_to_vector()
model.learn(64)
assert not np.array_equal(before, model.policy.parameters_to_vector()), "learning changed nothing"
model.save("agent")
loaded = TransformerPPO.load("agent", device="cpu")
observation = model.get_env().reset()
starts = np.ones(1, bool)
actions = [agent.predict(observation, episode_start=starts, deterministic=True)[0] for agent in (model, loaded)]
np.testing.assert_array_equal(*actions)
print(sb3_trmrl.__file__)
"""

#: Prints the commands that need the extra ``zoo``
COMMANDS_SNIPPET = "from sb3_trmrl.__main__ import COMMANDS; print(*COMMANDS)"


class Failure(Exception):
    """The wheel does not work as it should."""


class Installation:
    """A virtual environment and an empty working directory, both in a folder."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.prefix = folder / "venv"
        venv.create(self.prefix, with_pip=True, upgrade_deps=True)
        self.bin = self.prefix / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the virtual environment, which must end with this exit status."""
        print("$", *("..." if "\n" in word else word for word in command), flush=True)
        # Without the checkout and packages in the home directory
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environ["PYTHONNOUSERSITE"] = "1"
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.work,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != status:
            printed = f"{done.stdout}{done.stderr}".strip()
            raise Failure(f"{' '.join(command)}: exit status {done.returncode} instead of {status}\n{printed}")
        return done

    def install(self, wheel: Path, extra: str = "") -> None:
        """Install the wheel with an extra, or without extras."""
        requirement = f"{wheel}[{extra}]" if extra else str(wheel)
        constraints = str(ROOT / "constraints.txt")
        self.run("python", "-m", "pip", "install", "--quiet", "--constraint", constraints, requirement)


def build(folder: Path, isolated: bool = True) -> None:
    """
    Build the sdist, and the wheel from it, into a folder. Building in a copy of the checkout ignores files that are
    listed in an old ``sb3_trmrl.egg-info``. An isolated build installs its own setuptools.
    """
    copy = folder / "checkout"
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(copy)]
    if not isolated:
        command.append("--no-isolation")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"python -m build: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def only(folder: Path, pattern: str) -> Path:
    """Return the only file with a matching name."""
    found = sorted(folder.resolve().glob(pattern))
    if len(found) != 1:
        raise Failure(f"{folder} should hold one {pattern}, but holds {[path.name for path in found]}")
    return found[0]


def sources() -> set[str]:
    """Return the tracked files of the checkout."""
    # The checkout may belong to another user, for example in a container
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}


def check_wheel(wheel: Path) -> None:
    """Check that the wheel holds the package, the yml files and nothing else."""
    expected = {name for name in sources() if name.startswith("sb3_trmrl/")}
    expected |= {f"sb3_trmrl/{name}" for name in sources() if name.startswith("hyperparams/")}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    _compare(wheel, found, expected)


def check_sdist(sdist: Path) -> None:
    """Check that the sdist holds all tracked files except those for GitHub and git."""
    expected = {name for name in sources() if not name.startswith(".git")}
    with tarfile.open(sdist) as archive:
        found = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    # Added by setuptools
    found = {name for name in found if name != "PKG-INFO" and not name.startswith("sb3_trmrl.egg-info/")}
    _compare(sdist, found, expected)


def _compare(path: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise Failure(f"{path.name} lacks {', '.join(missing)}")
    if unexpected := sorted(found - expected):
        raise Failure(f"{path.name} holds the unexpected {', '.join(unexpected)}")
    print(f"{path.name}: {len(found)} files ({path.stat().st_size / 1000:.0f} kB), none missing, none unexpected")


#: Arguments with which a command starts to work. The others need the extra for their help already
ARGUMENTS = {
    "plot": ["train"],
    "report": ["folder"],
    "evaluate": ["model"],
    "compare": ["model"],
    "analyze": ["online", "model"],
    "render": ["model"],
    "export": ["model", "file"],
    "push": ["model", "user/repository"],
}


def check_core(installation: Installation) -> None:
    """Check that the package learns without extras, and that commands name the extra that they need."""
    installation.run("trmrl", "--help")
    version = installation.run("trmrl", "--version").stdout.strip()
    package = Path(installation.run("python", "-c", CORE_SNIPPET).stdout.splitlines()[-1])
    if not package.is_relative_to(installation.prefix):
        raise Failure(f"sb3_trmrl {version} was imported from {package}, not from {installation.prefix}")
    for command in installation.run("python", "-c", COMMANDS_SNIPPET).stdout.split():
        said = installation.run("trmrl", command, *ARGUMENTS.get(command, ["--help"]), status=1).stderr.strip()
        if len(said.splitlines()) != 1 or "pip install 'sb3_trmrl[zoo]'" not in said:
            raise Failure(f"trmrl {command} without the extra should name it in one line, but says\n{said}")


def check_zoo(installation: Installation) -> None:
    """Check that the commands of the extra ``zoo`` work and write their files."""
    for command in installation.run("python", "-c", COMMANDS_SNIPPET).stdout.split():
        if "usage:" not in installation.run("trmrl", command, "--help").stdout:
            raise Failure(f"trmrl {command} --help shows no usage")
    said = installation.run("trmrl", *TRAIN.split()).stdout
    packaged = str(Path("sb3_trmrl", "hyperparams", "trmrl.yml"))
    if packaged not in said:
        raise Failure(f"trmrl train does not read {packaged}:\n{said}")
    installation.run("trmrl", "enjoy", "--env", ENV, "--no-render", "-n", "400")
    installation.run("trmrl", "evaluate", RUN, "--n-tasks", "2", "--n-episodes", "2")
    for name in (f"{ENV}.zip", "best_model.zip", "evaluations.npz", "adaptation_test_n_tasks=2_n_episodes=2.csv"):
        if not (installation.work / RUN / name).is_file():
            raise Failure(f"{RUN}/{name} was not written")


def main() -> int:
    """Run all checks, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, help="folder with a wheel and an sdist (default: build them)")
    parser.add_argument("--files-only", action="store_true", help="compare the files without installing them")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sb3_trmrl_") as name:
        folder = Path(name)
        try:
            if options.dist is None:
                build(folder, isolated=not options.files_only)
            dist = options.dist or folder
            wheel, sdist = only(dist, "*.whl"), only(dist, "*.tar.gz")
            check_wheel(wheel)
            check_sdist(sdist)
            if not options.files_only:
                installation = Installation(folder)
                installation.install(wheel)
                check_core(installation)
                installation.install(wheel, "zoo")
                check_zoo(installation)
        except Failure as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
    done = "All files are correct" if options.files_only else "The wheel works"
    print(f"{done} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
