"""
Fenced code blocks of Markdown pages, and the comments that tell the tests how to run them.

A comment directly above a block changes what the test runs. Readers do not see it:

``<!-- test: OLD -> NEW -->``
    The test replaces OLD, which must occur exactly once in the block, by NEW: for example fewer training steps.
``<!-- test: run ARGUMENTS -->``
    The commands of a shell block are run instead of only parsed, each with ARGUMENTS appended.
``<!-- test: file NAME -->``
    The block is appended to the file NAME instead of run, as the page tells its reader.
``<!-- test: also NAME -->``
    The block is run and appended to the file NAME.
``<!-- test: output LINES -->``
    This text is printed by the Python block before it: the lines with these numbers, from 1, or all lines. Use it for
    output that depends neither on training nor on the machine.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>.*?) *$")
_COMMENT = re.compile(r"^ *<!-- test: (?P<text>\S.*) -->$")
_WORDS = ("run", "file", "also", "output")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str  # path relative to the repository
    line: int  # number of the first line of code, from 1
    language: str
    text: str  # as a reader sees it
    comments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def arguments(self) -> str | None:
        """Arguments to append to the commands, or None if they are only parsed."""
        return self._after("run")

    @property
    def file(self) -> str | None:
        """Name of the file to which the block is appended, if any."""
        return self._after("file") or self._after("also")

    @property
    def runs(self) -> bool:
        """Whether this is a Python block that is run."""
        return self.language == "python" and self._after("file") is None

    @property
    def printed(self) -> dict[int, str]:
        """Lines that the Python block before it prints, by their index from 0."""
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
        """The code that the test runs. In a console block these are the lines with a prompt."""
        text = self.text
        if self.language == "console":
            text = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
        for comment in self.comments:
            if comment.split()[0] in _WORDS:
                continue
            old, arrow, new = comment.partition(" -> ")
            if not arrow:
                raise ValueError(f"{self.name}: a comment must be `OLD -> NEW` or one of {_WORDS}, got {comment!r}")
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} must occur once in the block, got {text.count(old)} times")
            text = text.replace(old, new)
        return text


def pages() -> list[Path]:
    """Return the pages for readers: those at the top of the repository and all below docs/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a Markdown file."""
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
                raise ValueError(f"{page}:{number}: a comment for the test must be directly above a block")
            continue
        if not fence["language"]:
            raise ValueError(f"{page}:{number}: the block has no language")
        text = _read_block(lines, fence)
        if text is None:
            raise ValueError(f"{page}:{number}: the block has no end")
        blocks.append(Block(page, number + 1, fence["language"], text, tuple(comments)))
        comments = []
    return blocks


def _read_block(lines: Iterator[tuple[int, str]], fence: re.Match[str]) -> str | None:
    """Return the lines up to the closing fence without indentation, or None if the block has no end."""
    found: list[str] = []
    for _, line in lines:
        stripped = line.strip()
        if stripped.startswith(fence["fence"]) and not stripped.strip(fence["fence"][0]):
            return "".join(f"{line}\n" for line in found)
        found.append(line.removeprefix(fence["indent"]))
    return None
