"""
The wheel alone, in a new virtual environment outside the checkout: ``make wheel-test``.

Builds the sdist and the wheel, compares their files with the checkout's, and then installs the wheel twice: without
extras (import, learn, save, load, predict; commands name the missing extra) and with the extra ``zoo`` (help of every
command, train, enjoy, evaluate). The first thing that fails ends it with exit status 1.
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
#: One rollout of a single environment and its packaged settings otherwise; an evaluation on the validation tasks
TRAIN = f"train --env {ENV} -n 400 --eval-freq 400 --hyperparams n_envs:1"
#: Prints where the package is and that the agent predicts the same after saving and loading.
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
    """Something the wheel should do and does not."""


class Installation:
    """
    A virtual environment and an empty folder to work in.

    :param folder: Where both are made
    """

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.prefix = folder / "venv"
        venv.create(self.prefix, with_pip=True, upgrade_deps=True)
        self.bin = self.prefix / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """
        :param command: Program of the virtual environment and its arguments
        :param status: Exit status that is expected
        :return: What it printed
        :raises Failure: If the status is another one
        """
        print("$", *("..." if "\n" in word else word for word in command), flush=True)
        # Nothing of the checkout and nothing of the user's own packages
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
        """
        :param wheel: The wheel
        :param extra: Name of an extra, or nothing
        """
        requirement = f"{wheel}[{extra}]" if extra else str(wheel)
        constraints = str(ROOT / "constraints.txt")
        self.run("python", "-m", "pip", "install", "--quiet", "--constraint", constraints, requirement)


def build(folder: Path, isolated: bool = True) -> None:
    """
    Build from a copy: in the checkout setuptools would also take files that an earlier ``sb3_trmrl.egg-info`` lists.

    :param folder: Where the sdist goes and the wheel, which is built from the sdist
    :param isolated: With a newly installed setuptools, in place of the one that is there
    :raises Failure: If they cannot be built
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
    """
    :param folder: Folder
    :param pattern: Of file names
    :return: The one file of that kind
    :raises Failure: If there is none, or several
    """
    found = sorted(folder.resolve().glob(pattern))
    if len(found) != 1:
        raise Failure(f"{folder} should hold one {pattern}, but holds {[path.name for path in found]}")
    return found[0]


def sources() -> set[str]:
    """
    :return: Files of the checkout that git knows, relative to it
    """
    # Also where the checkout belongs to another user, as it may in a container
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}


def check_wheel(wheel: Path) -> None:
    """
    :param wheel: Has to hold the package and the yml files, and nothing else
    :raises Failure: If it does not
    """
    expected = {name for name in sources() if name.startswith("sb3_trmrl/")}
    expected |= {f"sb3_trmrl/{name}" for name in sources() if name.startswith("hyperparams/")}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    _compare(wheel, found, expected)


def check_sdist(sdist: Path) -> None:
    """
    :param sdist: Has to hold all that git does, but for what only GitHub and git read
    :raises Failure: If it does not
    """
    expected = {name for name in sources() if not name.startswith(".git")}
    with tarfile.open(sdist) as archive:
        found = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    # What setuptools adds
    found = {name for name in found if name != "PKG-INFO" and not name.startswith("sb3_trmrl.egg-info/")}
    _compare(sdist, found, expected)


def _compare(path: Path, found: set[str], expected: set[str]) -> None:
    """
    :param path: Wheel or sdist
    :param found: Names of the files in it
    :param expected: Names of the files that should be
    :raises Failure: If they differ
    """
    if missing := sorted(expected - found):
        raise Failure(f"{path.name} lacks {', '.join(missing)}")
    if superfluous := sorted(found - expected):
        raise Failure(f"{path.name} holds {', '.join(superfluous)}, which it should not")
    print(f"{path.name}: {len(found)} files ({path.stat().st_size / 1000:.0f} kB), none missing, none superfluous")


def check_core(installation: Installation) -> None:
    """
    :param installation: With the wheel, without extras
    :raises Failure: If the package does not learn, or a command does not name the extra it needs
    """
    installation.run("trmrl", "--help")
    version = installation.run("trmrl", "--version").stdout.strip()
    package = Path(installation.run("python", "-c", CORE_SNIPPET).stdout.splitlines()[-1])
    if not package.is_relative_to(installation.prefix):
        raise Failure(f"sb3_trmrl {version} was imported from {package}, not from {installation.prefix}")
    for command in installation.run("python", "-c", COMMANDS_SNIPPET).stdout.split():
        said = installation.run("trmrl", command, "--help", status=1).stderr.strip()
        if len(said.splitlines()) != 1 or "pip install 'sb3_trmrl[zoo]'" not in said:
            raise Failure(f"trmrl {command} without the extra should name it in one line, but says\n{said}")


def check_zoo(installation: Installation) -> None:
    """
    :param installation: With the wheel and its extra ``zoo``
    :raises Failure: If a command fails or does not write its files
    """
    for command in installation.run("python", "-c", COMMANDS_SNIPPET).stdout.split():
        if "usage:" not in installation.run("trmrl", command, "--help").stdout:
            raise Failure(f"trmrl {command} --help shows no usage")
    said = installation.run("trmrl", *TRAIN.split()).stdout
    packaged = str(Path("sb3_trmrl", "hyperparams", "trmrl.yml"))
    if packaged not in said:
        raise Failure(f"trmrl train does not read {packaged}:\n{said}")
    installation.run("trmrl", "enjoy", "--env", ENV, "--no-render", "-n", "400")
    installation.run("trmrl", "evaluate", RUN, "--n-tasks", "2", "--n-episodes", "2")
    for name in (f"{ENV}.zip", "best_model.zip", "evaluations.npz", "adaptation_test.csv"):
        if not (installation.work / RUN / name).is_file():
            raise Failure(f"{RUN}/{name} was not written")


def main() -> int:
    """
    :return: Exit status
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, help="folder with a wheel and an sdist, instead of building them")
    parser.add_argument("--files-only", action="store_true", help="compare the files, install nothing")
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
    done = "The files are right" if options.files_only else "The wheel works alone"
    print(f"{done} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
