"""`docs/environment-variables.md` lists every variable of Likewise that the code reads or sets."""

from __future__ import annotations

import re
from dataclasses import fields

from tests.docs.generated import ROOT, compare

from likewise.container.settings import PREFIX, ContainerOptions

PAGE = "docs/environment-variables.md"
MARK = "<!-- below: written by tests/docs/test_environment_page.py -->\n"
VARIABLE = re.compile(r"(?<![A-Z_])LIKEWISE(?:_[A-Z]+)+\b")


def test_container_options_are_listed() -> None:
    before, mark, _ = (ROOT / PAGE).read_text().partition(MARK)
    rows = ["| variable | |", "|---|---|"]
    rows += [f"| `{PREFIX}{each.name.upper()}` | {each.metadata['help']} |" for each in fields(ContainerOptions)]
    compare(PAGE, f"{before}{mark}\n" + "\n".join(rows) + "\n")


def test_every_variable_in_the_code_is_listed_and_no_other() -> None:
    read = {name for path in (ROOT / "src").rglob("*.py") for name in VARIABLE.findall(path.read_text())}
    options = {f"{PREFIX}{each.name.upper()}" for each in fields(ContainerOptions)}
    listed = set(VARIABLE.findall((ROOT / PAGE).read_text()))
    assert read
    assert listed == read | options
