"""The wheel and the source distribution that `make dist` builds, checked and installed in an empty environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import venv
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from tests.docs.generated import ROOT
from tests.support.processes import run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT])
    return folder


def test_files_pass_twine_and_have_the_license_and_nothing_else(dist: Path) -> None:
    wheel, sdist = (
        dist / f"likewise-{PROJECT['version']}-py3-none-any.whl",
        dist / f"likewise-{PROJECT['version']}.tar.gz",
    )
    run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = HeaderParser().parsestr(archive.read(f"likewise-{PROJECT['version']}.dist-info/METADATA").decode())
    assert {name.partition("/")[0] for name in names} == {"likewise", f"likewise-{PROJECT['version']}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    with tarfile.open(sdist) as archive:
        roots = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert roots == {
        "src",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "NOTICE",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }


def test_changelog_has_the_version() -> None:
    assert f"\n## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.long
def test_wheel_works_in_an_empty_environment(dist: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, wheel = tmp_path / "env/bin/python", next(dist.glob("*.whl"))
    lock = ROOT / "requirements.lock"
    run([python, "-m", "pip", "install", "--quiet", "--constraint", lock, wheel])
    assert run([tmp_path / "env/bin/likewise", "--version"]).stdout.strip() == PROJECT["version"]
    found = subprocess.run([tmp_path / "env/bin/likewise", "doctor"], capture_output=True, text=True, check=True).stdout
    assert "pip install" in found
    code = "import likewise; print(likewise.__version__, len(dir(likewise)))"
    assert run([python, "-c", code], cwd=tmp_path).stdout.startswith(PROJECT["version"])


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_extra_has_a_pinned_version_of_each_requirement(extra: str) -> None:
    locked = {line.partition("==")[0].strip().lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for requirement in PROJECT["optional-dependencies"][extra]:
        name = requirement.partition(";")[0].split("[")[0]
        for sign in "=<>!~ ":
            name = name.partition(sign)[0]
        assert name == "likewise" or name.lower() in locked, requirement
