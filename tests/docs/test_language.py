"""Rejects phrases that our texts avoid; `make lint` rejects single words, which tests/docs/words.txt lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.generated import ROOT

PATHS = ("src", "tests", "docs", "architecture", "bench", "examples", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SUFFIXES = frozenset({".py", ".md", ".sh", ".lua", ".toml", ""})
SKIPPED = ("bench/results", "src/likewise/server/pages/assets", "tests/docs/test_language.py")
BREAK = r"(?:\s+(?:#\s+)?)"  # between two words: a space, or the end of a line and the start of a comment
PHRASES = {
    r"(?<!there) (?:is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b|need\b|way\b)": "is not a valid, is not a",
    r"\b(?:takes?|taking|taken|took) (?:it |them |all |that )?back\b": "roll back, undo",
    r"\b(?:takes?|taking|taken|took) (?:it |them |that )?away\b": "remove",
    r"\b(?:goes|gone|going|went|go) on (?:with|where|from|at|in the)\b": "resume, continue",
    r"\bcarr(?:y|ies|ied|ying) (?:it |them |that )?out\b": "execute, run, apply",
    r"\bsay(?:s|ing)? nothing\b": "has no effect, returns nothing",
    r"\bof (?:ours|its own|their own|your own|his own|one's own)\b": "own, dedicated, Likewise's",
    r"\bin the place of\b": "instead of",
    r"\bput(?:s|ting)? (?:it |them |that )?right\b": "fix",
    r"\b(?:but|save) for\b": "except",
    r"\bso far as\b": "as far as, if",
    r"\b(?:near|nearly equal) things?\b": "borderline result",
    r"\ba share of\b": "a fraction of",
    r"\bpoison(?:ed)? (?:item|row|text)s?\b": "failing item",
    r"\bwhat (?:stands|lies|lives|is) (?:there|here)\b": "existing resources, the current state",
    r"\bwho (?:asks|asked|calls|called|answers)\b": "the client, the caller, the server",
    r"\bwhere (?:there is|it has|they have) (?:none|one)\b": "if there is none",
    r"\bwhere (?:nothing|nobody|none)\b": "if nothing, if none",
    r"\bwhere (?:it|they|there|this|that) (?:is|are|was|were|has|have|does|do|did) (?:not|no)\b": "if it is not",
    r"\bwhat (?:it|they|that) (?:says?|knows?)\b": "its output, its message, its content",
    r"\bwhatever (?:is|comes|happens|becomes|become)\b": "any, regardless of",
    r"\b(?:became|becomes|become|comes?) of\b": "the outcome, the result",
    r"\b(?:all the same|as it stands|for ever|by its own word)\b": "anyway, unchanged, always",
    r"\bone (?:row|result|line|file|module|entry|request) an? [a-z]": "one per",
    r"\bat home\b|\baway from home\b": "where it was built, in isolation",
}


def test_texts_use_standard_english() -> None:
    assert [finding for path in texts() for finding in findings(path)] == []


def texts() -> Iterator[Path]:
    """The files that are checked."""
    for name in PATHS:
        root = ROOT / name
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            skipped = path.relative_to(ROOT).as_posix().startswith(SKIPPED)
            if path.is_file() and path.suffix in SUFFIXES and not skipped:
                yield path


def findings(path: Path) -> Iterator[str]:
    """Path, line, phrase and replacement for each phrase in a file, also across line breaks."""
    text = path.read_text()
    for phrase, replacement in PHRASES.items():
        for match in re.finditer(phrase.replace(" ", BREAK), text, re.IGNORECASE):
            line = text.count("\n", 0, match.end()) + 1
            yield f"{path.relative_to(ROOT)}:{line}: {' '.join(match[0].split())!r}: write {replacement}"
