"""MkDocs hook: adds the repository's pages outside docs/ to the site, and adapts the links between them.

On disk, all links are relative to their own file, so that they also work in a checkout.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "architecture/*.md",
    "bench/README.md",
    "bench/results/peers.*",
)
OUTSIDE += ("examples/**/*.md",)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and the plot of the benchmarks."""
    for path in outside():
        files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: object) -> str:
    """Replace links that lead out of docs/ by links within the site, or by their text if the site lacks the file."""
    source = Path(page.file.abs_src_path)

    def adapt(link: re.Match[str]) -> str:
        target = (source.parent / link["target"]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return link[0]  # another host, or broken, which MkDocs reports
        path = site_path(target)
        if files.get_file_from_path(path) is None:
            return link["text"]
        relative = posixpath.relpath(path, posixpath.dirname(page.file.src_uri))
        return f"{link['image']}[{link['text']}]({relative}{link['anchor'] or ''})"

    return LINK.sub(adapt, markdown)


def outside() -> Iterator[Path]:
    """The files outside docs/ that belong to the site."""
    for pattern in OUTSIDE:
        yield from (path for path in sorted(ROOT.glob(pattern)) if path.suffix in (".md", ".svg"))


def site_path(path: Path) -> str:
    """The path in the site of a file in the repository, as seen from docs/."""
    relative = path.relative_to(ROOT).as_posix()
    return "overview.md" if relative == "README.md" else relative.removeprefix("docs/")
