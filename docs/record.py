"""Records the terminal picture of the README: `python docs/record.py` writes docs/images/terminal.svg.

The commands really run, in a pseudo-terminal and a temporary home folder, on a small scikit-learn model.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS, ROWS = 100, 50
OUTPUT = Path(__file__).parent / "images" / "terminal.svg"
TITLE = "one model, the same predictions everywhere"
COMMANDS = (
    "likewise bundle models:/iris/1 -o iris",
    "likewise deploy iris --to local --name flowers",
    "likewise predict flowers three.csv",
    "likewise score iris flowers.csv -o scored.csv",
    "likewise verify iris --golden flowers.csv --against flowers --against mlflow --trust",
)
LOG_MODEL = """
from importlib.metadata import version

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

data = load_iris(as_frame=True)
rows = data.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
species = data.target.map(dict(enumerate(data.target_names)))
model = LogisticRegression(max_iter=1000).fit(rows, species)
mlflow.sklearn.log_model(
    model,
    name="iris",
    registered_model_name="iris",
    input_example=rows[:2],
    serialization_format="skops",
    pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "skops")],
)
rows.to_csv("flowers.csv", index=False)
rows[::50].to_csv("three.csv", index=False)
"""
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (230, 237, 243),
    ],
)
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
_OTHER_HOSTS = re.compile(r"@font-face\s*\{.*?\}\s*|<!--.*?-->\s*", re.S)  # of rich: web fonts, and its home page
_PARTS = re.compile(r"(\r|\n|\x1b\[[0-9;?]*[A-Za-z])")


def main() -> None:
    """Log the model, run the commands, write the picture, and delete the deployment."""
    with TemporaryDirectory() as name:
        home = Path(name).resolve()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIKEWISE_", "MLFLOW_", "XDG_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**kept, "HOME": name, "PATH": path, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "PYTHONWARNINGS": "ignore"}
        subprocess.run([sys.executable, "-c", LOG_MODEL], cwd=home, env=env, check=True, stdout=sys.stderr)
        try:
            screens = [(command, recorded(command, home, env)) for command in COMMANDS]
        finally:
            subprocess.run(["likewise", "delete", "flowers"], cwd=home, env=env, check=False, stdout=sys.stderr)
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(picture([(command, text.replace(str(home), "~")) for command, text in screens]))


def recorded(command: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the terminal shows after the command, with its colours as ANSI sequences; the command must succeed."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(["bash", "-c", command], stdin=its, stdout=its, stderr=its, cwd=folder, env=env)
    os.close(its)
    output = b""
    with suppress(OSError):  # the terminal's end
        while block := os.read(ours, 65536):
            output += block
    os.close(ours)
    text = output.decode()
    if process.wait():
        raise SystemExit(f"{command}\n{text}")
    return displayed(text)


def displayed(output: str) -> str:
    """The lines that remain on the terminal after `output`, which erases its progress bars again."""
    lines, row, restart = [""], 0, False
    for part in _PARTS.split(output):
        if part == "\n":
            row, restart = row + 1, False
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            restart = True
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part.endswith("K") and part.startswith("\x1b"):
            lines[row] = ""
        elif part and (not part.startswith("\x1b") or part.endswith("m")):
            lines[row], restart = ("" if restart else lines[row]) + part, False
    return "\n".join(lines).rstrip()


def picture(screens: list[tuple[str, str]]) -> str:
    """An SVG that names no other host.  screens: each command and what the terminal shows after it."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, text) in enumerate(screens):
        console.print("" if number == 0 else "\n", end="")
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(text))
    svg = console.export_svg(title=TITLE, theme=THEME)
    return _OTHER_HOSTS.sub("", svg).replace("Fira Code, monospace", FONT)


if __name__ == "__main__":
    main()
