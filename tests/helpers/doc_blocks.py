"""
Fenced code blocks of Markdown pages, and the comments that tell the tests how to run them.

A comment directly above a block changes what is run, never what a reader sees:

``<!-- test: OLD -> NEW -->``
    OLD stands in the block exactly once, and the test runs NEW in its place: fewer steps, for example.
``<!-- test: run ARGUMENTS -->``
    The commands of a shell block are run in place of only being parsed, each with ARGUMENTS appended.
``<!-- test: file NAME -->``
    The block is added to the file NAME in place of being run, as the page tells its reader.
``<!-- test: also NAME -->``
    The block is run, and added to the file NAME too.
``<!-- test: output LINES -->``
    The Python block before this block of text prints it: the lines of these numbers, from 1, or all of it. For what
    neither training nor the machine changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>.*?) *$")
_COMMENT = re.compile(r"^ *<!-- test: (?P<text>\S.*) -->$")


@dataclass(frozen=True)
class Block:
    """
    A fenced block.

    :param page: Its page, relative to the repository
    :param line: Number of its first line of code, from 1
    :param language: What stands behind the fence
    :param text: What a reader sees
    :param comments: Comments for the test, in their order
    """

    page: str
    line: int
    language: str
    text: str
    comments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Where it is, for messages and names of tests"""
        return f"{self.page}:{self.line}"

    @property
    def arguments(self) -> str | None:
        """What to append to commands that are to be run; None if they are only to be parsed"""
        return self._after("run")

    @property
    def file(self) -> str | None:
        """Name of the file that the page tells its reader to add the block to, if it does"""
        return self._after("file") or self._after("also")

    @property
    def runs(self) -> bool:
        """Whether it is a Python block that is run"""
        return self.language == "python" and self._after("file") is None

    @property
    def printed(self) -> dict[int, str]:
        """Lines that the Python block before it prints, by their number from 0"""
        numbers = self._after("output")
        if numbers is None:
            return {}
        lines = self.text.splitlines()
        return {i: lines[i] for i in ([int(number) - 1 for number in numbers.split()] or range(len(lines)))}

    def _after(self, word: str) -> str | None:
        found = [comment for comment in self.comments if comment.split()[0] == word]
        return found[0].removeprefix(word).strip() if found else None

    @property
    def code(self) -> str:
        """
        What the test runs. Of a console's block those are the lines behind a prompt.

        :raises ValueError: if a comment is none of those above, or what it replaces does not stand in the block once
        """
        text = self.text
        if self.language == "console":
            text = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
        for comment in self.comments:
            if comment.split()[0] in ("run", "file", "also", "output"):
                continue
            old, arrow, new = comment.partition(" -> ")
            if not arrow:
                allowed = "`OLD -> NEW`, `run`, `file`, `also` or `output`"
                raise ValueError(f"{self.name}: a comment must be {allowed}, got {comment!r}")
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} must stand in the block once, got {text.count(old)} times")
            text = text.replace(old, new)
        return text


def pages() -> list[Path]:
    """
    :return: The pages that readers get: those at the top of the repository and all below docs/
    """
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks_of(path: Path) -> list[Block]:
    """
    :param path: Markdown file
    :return: Its fenced blocks
    :raises ValueError: if a block has no end or no language, or a comment stands above none
    """
    page = path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name
    blocks: list[Block] = []
    comments: list[str] = []
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if comment := _COMMENT.match(line):
            comments.append(comment["text"])
            continue
        fence = _FENCE.match(line)
        if fence is None:
            if comments:
                raise ValueError(f"{page}:{number}: a comment for the test must stand directly above a block")
            continue
        if not fence["language"]:
            raise ValueError(f"{page}:{number}: the block has no language")
        blocks.append(Block(page, number + 1, fence["language"], _rest(page, number, lines, fence), tuple(comments)))
        comments = []
    return blocks


def _rest(page: str, start: int, lines: Iterator[tuple[int, str]], fence: re.Match[str]) -> str:
    """
    :param page: Name of the page
    :param start: Line of the opening fence
    :param lines: Numbered lines after it
    :param fence: The opening fence
    :return: The block's lines, without the fence's indentation
    """
    found = []
    for _, line in lines:
        stripped = line.strip()
        if stripped.startswith(fence["fence"]) and not stripped.strip(fence["fence"][0]):
            return "".join(f"{line}\n" for line in found)
        found.append(line.removeprefix(fence["indent"]))
    raise ValueError(f"{page}:{start}: the block has no end")
