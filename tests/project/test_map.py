"""The map of the package: which room may import which. Read it first if you are new here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sb3_trmrl

PACKAGE = Path(sb3_trmrl.__file__).parent

#: Each room and the rooms that it may import. They all stand above it, so that no two rooms import each other
ROOMS: dict[str, set[str]] = {
    "common": set(),
    # Tasks
    "trials": {"common"},
    "envs": {"common", "trials"},
    "references": {"common", "trials", "envs"},
    "evaluation": {"common", "trials"},
    # The agent
    "memory": {"common"},
    "transformer_ppo": {"common", "memory"},
    # What one does with an agent
    "resuming": {"common", "memory", "transformer_ppo"},
    "analysis": {"common", "trials", "evaluation", "memory", "transformer_ppo"},
    "sharing": {"common", "trials", "evaluation", "memory", "transformer_ppo", "analysis"},
    # Commands
    "zoo": {"common", "trials", "evaluation", "memory", "transformer_ppo", "resuming", "analysis", "sharing"},
    "cli": {"common", "trials", "evaluation", "memory", "transformer_ppo", "resuming", "analysis", "sharing", "zoo"},
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of everything that a module imports from this package, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "sb3_trmrl")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sb3_trmrl":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_is_on_the_map() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)
    for number, (room, allowed) in enumerate(ROOMS.items()):
        assert allowed <= set(list(ROOMS)[:number]), f"{room} may only import rooms above it"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_map(room: str) -> None:
    found = {name for path in (PACKAGE / room).rglob("*.py") for name in imports(path)}
    rooms = {name.split(".")[1] for name in found if "." in name} - {room}
    assert rooms <= ROOMS[room], f"{room} imports {sorted(rooms - ROOMS[room])}"


def test_imports_inside_functions_are_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def f():\n    from sb3_trmrl.zoo import runs\n\nimport sb3_trmrl.envs as e\n")
    assert set(imports(tmp_path / "module.py")) == {"sb3_trmrl.zoo.runs", "sb3_trmrl.envs"}


def test_common_is_small() -> None:
    """What really is common: at most 500 lines."""
    assert sum(len(path.read_text().splitlines()) for path in (PACKAGE / "common").glob("*.py")) <= 500
