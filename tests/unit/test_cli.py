"""The command line: exit codes, error output with code, cause and remedy, JSON output, no tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.generated import compare
from tests.support.cli import call
from tests.support.processes import LIKEWISE, run

from likewise.cli import app, examples
from likewise.cli.images import image
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.base import Receipt

COMMANDS = [name for name in app.COMMANDS if name != "image"]
COMMANDS += [f"image {command.callback.__name__}" for command in image.registered_commands if command.callback]


def environment(folder: Path) -> dict[str, str]:
    """The environment of a new user with a terminal of 100 columns without colours."""
    return {
        **os.environ,
        "LIKEWISE_CONFIG_HOME": str(folder / "config"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }


def likewise(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return call(*argv, cwd=cwd, env=environment(cwd))


@pytest.mark.parametrize(
    ("argv", "code", "exit_code"),
    [
        (["bundle"], "WRONG_USAGE", 2),
        (["bundle", "", "-o", "out"], "WRONG_USAGE", 2),
        (["status", ""], "WRONG_USAGE", 2),
        (["update", "one", "--to", "1"], "WRONG_USAGE", 2),
        (["update", "one", "no/model"], "NOT_DEPLOYED", 1),  # before the model is fetched
        (["deploy", "nothing", "--to", "local", "--name", "one", "-C", "prot=1"], "WRONG_USAGE", 2),
        (["bundle", "m"], "WRONG_USAGE", 2),
        (["frobnicate"], "WRONG_USAGE", 2),
        (["serve"], "WRONG_USAGE", 2),
        (["serve", "a", "-m", "b"], "WRONG_USAGE", 2),
        (["serve", "a", "-p", "70000"], "WRONG_USAGE", 2),
        (["score", "a", "b", "-o", "c", "--column", "x"], "WRONG_USAGE", 2),
        (["score", "a", "b", "-o", "c", "--format", "xml"], "WRONG_USAGE", 2),
        (["score", "a", "b", "-o", "c", "--params", "[1]"], "WRONG_USAGE", 2),
        (["score", "a", "b", "-o", "c", "--params", ""], "WRONG_USAGE", 2),
        (["trust", "/"], "WRONG_USAGE", 2),
        (["trust", "--remove"], "WRONG_USAGE", 2),
        (["trust", "--everything"], "WRONG_USAGE", 2),
        (["trust", "models:/"], "WRONG_USAGE", 2),
        (["trust", "no/such/folder"], "WRONG_USAGE", 2),
        (["inspect", "no/such/model"], "MODEL_NOT_FOUND", 1),
        (["bundle", "no/such/model", "-o", "out"], "MODEL_NOT_FOUND", 1),
        (["bundle", "models:/nobody/1", "-o", "out"], "STORE_UNREACHABLE", 1),
        (["bundle", "runs:/0123456789abcdef/model", "-o", "out"], "STORE_UNREACHABLE", 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_failure_prints_code_cause_and_remedy_without_traceback(
    tmp_path: Path, argv: list[str], code: str, exit_code: int
) -> None:
    plain = likewise(*argv, cwd=tmp_path)
    assert plain.returncode == exit_code, plain.stderr
    assert plain.stdout == ""
    assert f"{code}: " in plain.stderr
    assert "remedy: " in plain.stderr
    assert "Traceback" not in plain.stderr
    as_json = likewise(*argv, "--json", cwd=tmp_path)
    assert as_json.returncode == exit_code
    error = json.loads(as_json.stdout)["error"]
    assert error["code"] == code
    assert error["cause"]
    assert error["remedy"]


def test_trust_adds_lists_and_removes_entries(tmp_path: Path) -> None:
    assert "no model's code may run" in likewise("trust", cwd=tmp_path).stdout
    assert "models:/team/" in likewise("trust", "models:/team/", cwd=tmp_path).stdout
    entry = {"prefix": "models:/team/", "store": f"sqlite:///{tmp_path}/mlflow.db"}
    assert json.loads(likewise("trust", "--json", cwd=tmp_path).stdout) == {"trusted": [entry]}
    assert json.loads(likewise("trust", "--remove", "models:/team/", "--json", cwd=tmp_path).stdout) == {"trusted": []}


def test_trust_in_everything_is_shown_as_such(tmp_path: Path) -> None:
    added = likewise("trust", "models:/", "--everything", cwd=tmp_path)
    assert "warning: from now on everything that starts with models:/ may run code" in added.stderr
    assert "EVERYTHING" in likewise("trust", "--list", cwd=tmp_path).stdout
    assert "EVERYTHING" not in likewise("trust", "--remove", "models:/", cwd=tmp_path).stdout


def test_trust_in_a_folder_that_others_may_change_warns_and_the_remedy_helps(tmp_path: Path) -> None:
    open_folder = tmp_path / "open"
    (open_folder / "m").mkdir(parents=True)
    open_folder.chmod(0o777)
    warned = likewise("trust", str(open_folder / "m"), cwd=tmp_path)
    assert warned.returncode == 0
    assert f"chmod go-w {open_folder}" in warned.stderr
    open_folder.chmod(0o755)
    assert likewise("trust", str(open_folder / "m"), cwd=tmp_path).stderr == ""


def test_doctor_reports_findings_with_remedies(tmp_path: Path) -> None:
    done = likewise("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert findings["Python"]["state"] == "ok"
    assert findings["mlflow"]["found"][0].isdigit()
    assert all(f["remedy"] for f in findings.values() if f["state"] != "ok")


def test_script_and_module_print_the_same_version(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "likewise"
    by_script = run([script, "--version"])
    assert by_script.stdout == run([*LIKEWISE, "--version"]).stdout == likewise("--version", cwd=tmp_path).stdout
    assert by_script.stdout[0].isdigit()


def test_every_command_is_in_one_group_and_has_examples() -> None:
    grouped = [name for names in examples.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(app.COMMANDS)
    assert examples.EXAMPLES.keys() == {name.removeprefix("image ") for name in COMMANDS}


@pytest.mark.parametrize("argv", [(), ("image",)])
def test_command_without_arguments_shows_its_help(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = likewise(*argv, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: likewise" in done.stdout


def test_shell_completes_deployments_targets_and_options(tmp_path: Path) -> None:
    classifier = Receipt("local", "reviews", ModelSpec("sha256:ab"), {}, {}, "2026-01-01", "2026-01-01")
    Receipts(tmp_path / "data" / "receipts.db").finish("local", "reviews", classifier.as_dict())
    own = {"LIKEWISE_DATA_HOME": str(tmp_path / "data"), "_LIKEWISE_COMPLETE": "complete_zsh"}
    for words, expected in {
        "likewise status re": "reviews",
        "likewise verify bundle --against re": "reviews",
        "likewise deploy bundle --to conta": "container",
        "likewise deploy bundle --to local -C read": "read_timeout_s=",
        "likewise verify bundle --against spa": "spark",
        "likewise insp": "inspect",
    }.items():
        done = run(LIKEWISE, cwd=tmp_path, env={**environment(tmp_path), **own, "_TYPER_COMPLETE_ARGS": words})
        assert f'"{expected}"' in done.stdout, words


def test_reference_page_matches_help_output(tmp_path: Path) -> None:
    parts = ["# Command line\n\nThe output of `--help` for each command. This page is generated by a test.\n"]
    for command in ((), *(tuple(name.split()) for name in COMMANDS)):
        done = likewise(*command, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip()
        parts.append(f"## likewise {' '.join(command)}".rstrip() + f"\n\n```\n{lines}\n```\n")
    compare("docs/cli.md", "\n".join(parts))
