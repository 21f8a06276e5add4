"""Packages import only what the table in docs/explanation/code.md allows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {path.parent.name for path in (ROOT / "sb3_trmrl").glob("*/__init__.py")}


def read_table() -> dict[str, set[str]]:
    """Return each package of the table, in order, and the packages that it may import."""
    table = (ROOT / "docs" / "explanation" / "code.md").read_text().split("## Packages")[1].split("\n## ")[0]
    allowed: dict[str, set[str]] = {}
    for package, cell in re.findall(r"^\| `(\w+)` \| .* \| (.*?) ?\|$", table, re.MULTILINE):
        allowed[package] = set(allowed) if cell == "all of the above" else set(re.findall(r"`(\w+)`", cell))
    return allowed


def imported_packages(folder: Path) -> set[str]:
    """Return the packages that the modules in a folder import, including imports within functions."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = {module.split(".")[1] for module in modules if module.startswith("sb3_trmrl.")}
    return found & PACKAGES


def test_the_table_has_all_packages_from_bottom_to_top() -> None:
    allowed = read_table()
    assert set(allowed) == PACKAGES
    order = list(allowed)
    for package, imports in allowed.items():
        assert imports <= set(order[: order.index(package)])


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_imports_what_the_table_allows(package: str) -> None:
    assert imported_packages(ROOT / "sb3_trmrl" / package) <= read_table()[package] | {package}


def test_imports_within_functions_are_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import sb3_trmrl.envs as e\n\ndef f():\n    from sb3_trmrl.zoo import runs\n")
    assert imported_packages(tmp_path) == {"envs", "zoo"}


def test_common_holds_what_is_common() -> None:
    modules = (ROOT / "sb3_trmrl" / "common").glob("*.py")
    assert sum(len(module.read_text().splitlines()) for module in modules) <= 500
