"""Commands and Python code of the documentation: they parse; the site builds; error codes exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.docs.generated import ROOT
from tests.docs.pages import PAGES, blocks, commands, follow, reader
from tests.docs.test_errors import kinds

from likewise.cli.app import COMMANDS, application

APP = typer.main.get_command(application(*COMMANDS))


def parse(words: list[str]) -> None:
    """Parse a command line without running it; raises what the command line would report."""
    command, name, parent = APP, "likewise", None
    while True:
        context = command.make_context(name, list(words), parent=parent)
        if not hasattr(command, "commands"):
            return
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        parent = context


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    failures = []
    for words in commands(page, "likewise"):
        try:
            parse(words[1:])
        except typer.TyperException as error:
            failures.append((" ".join(words), error.format_message()))
    assert failures == []


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["bundle", "m", "-o", "d", "--frob"], ["image", "frobnicate"], ["bundle"]]
)
def test_wrong_commands_do_not_parse(words: list[str]) -> None:
    with pytest.raises(typer.TyperException):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, str(page), "exec")


def test_error_codes_in_the_documentation_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    named = {code for row in re.findall(r"^\| (`[A-Z].*?) \|", page, re.M) for code in re.findall(r"`([A-Z_]+)`", row)}
    assert named
    assert named <= {kind.code for kind in kinds()}


def test_links_lead_to_existing_files() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())]
    assert [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    loaded = r'<(?:script|img|link)[^>]+(?:src|href)="(?:https?:)?//'
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []


def test_the_reader_notices_wrong_outputs_files_and_commands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shown = '```sh title="a.sh"\necho one\necho two\n```\n\n```bash\nsh a.sh\n```\n\n```text\none\nt…o\n```\n'
    page.write_text(shown)
    follow(page, tmp_path, reader(tmp_path))
    for right, wrong in (("one\nt…o", "two\none"), ("t…o", "three"), ("sh a.sh", "sh b.sh")):
        page.write_text(shown.replace(f"\n{right}\n`", f"\n{wrong}\n`"))
        with pytest.raises(AssertionError):
            follow(page, tmp_path, reader(tmp_path))
