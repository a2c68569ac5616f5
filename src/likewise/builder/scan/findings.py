"""What a scan found: names in pickles, code, and files that could not be analysed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["usual", "unusual", "dangerous"]
LEVELS: tuple[Level, ...] = ("usual", "unusual", "dangerous")
LONGEST = 300  # characters of a name or a text


def plain(text: str) -> str:
    """`text`, which anybody may have written, for a terminal: without control characters, and not too long."""
    short = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in short)


@dataclass(frozen=True, slots=True)
class Import:
    """A class or function that is imported when a file is loaded.

    name: dotted, with its module.  uses: how often the file names it.  calls: how often the file calls it, or sets its
    state.  why: the reason for its level, empty for `usual`.
    """

    name: str
    uses: int
    calls: int
    level: Level
    why: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))


@dataclass(frozen=True, slots=True)
class PickleFile:
    """A pickle, or a file of another format that names Python classes.

    path: relative to the model or bundle; `!` separates an archive from its member.
    """

    path: str
    format: str
    imports: tuple[Import, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", plain(self.path))


@dataclass(frozen=True, slots=True)
class Remark:
    """A text about a file, for example that it contains code."""

    path: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", plain(self.path))
        object.__setattr__(self, "text", plain(self.text))


@dataclass(frozen=True)
class Scan:
    """The result of scanning one model.

    digest: the bundle's, None for a model that is not a bundle.  files: the number of files read.  code: what runs
    without being in a pickle.  not_analysed: files, or parts of files, whose content is not known.
    """

    model: str
    digest: str | None
    files: int
    pickles: tuple[PickleFile, ...] = ()
    code: tuple[Remark, ...] = ()
    not_analysed: tuple[Remark, ...] = ()

    @property
    def level(self) -> Level:
        """The highest level of anything found; code is `unusual`, because only a person can judge it."""
        found = {each.level for pickle in self.pickles for each in pickle.imports}
        return max([*found, "unusual" if self.code else "usual"], key=LEVELS.index)

    def reaches(self, level: Level) -> bool:
        """Whether anything of `level` or above was found, or might be in a file that was not analysed."""
        return bool(self.not_analysed) or LEVELS.index(self.level) >= LEVELS.index(level)

    def as_dict(self) -> Mapping[str, object]:
        """The JSON object that `likewise scan --json` prints."""
        return {**asdict(self), "level": self.level, "complete": not self.not_analysed}
