"""Versions of Python and of packages."""

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed, by name."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
