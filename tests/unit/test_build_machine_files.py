"""What the tracer takes for a part of the machine, and what for something that the model's answer needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.builder.machine_files import described

MACHINE = [
    *("project/.git/HEAD", "project/.git/config"),
    *(
        ".cache/matplotlib/fontlist-v390.json",
        ".cache/fontconfig/x-le64.cache-7",
        ".cache/pip/http/a",
        ".triton/cache/k",
    ),
    *(".cache/torch/kernels/add", ".fonts/Own.ttf", "project/locale/de/LC_MESSAGES/texts.mo"),
    *("project/__pycache__/helper.cpython-311.pyc", "project/own.dist-info/METADATA", "zones/Europe/Berlin"),
]
SETTINGS = [
    *(".keras/keras.json", ".config/matplotlib/matplotlibrc", ".config/Ultralytics/settings.json", ".netrc"),
    *(".gitconfig", ".condarc", ".aws/credentials", ".kaggle/kaggle.json", ".matplotlib/matplotlibrc"),
    *(".mlflow/credentials", ".streamlit/config.toml", ".databrickscfg", ".docker/config.json"),
]
NEEDED = [
    *(".cache/huggingface/hub/models--a--b/snapshots/1/config.json", ".cache/torch/hub/checkpoints/resnet.pth"),
    *(".keras/models/vgg16.weights.h5", ".keras/models/imagenet_class_index.json", ".keras/datasets/mnist.npz"),
    *("nltk_data/corpora/stopwords/english", ".cache/whisper/base.pt", ".config/own/model.onnx", ".u2net/u2net.onnx"),
    *(
        ".EasyOCR/model/craft.pth",
        ".own/vocab.json",
        ".local/share/spacy/vectors.bin",
        "python/nltk_data/tokenizers/en",
    ),
    *("project/model.pkl", "project/labels.json", "project/vocab.txt", "project/train.py", "project/data.csv"),
    *("project/config.json", "project/settings.toml", "project/checkpoints/last.ckpt", ".model.json"),
]
WATCH = """
import json, sys
from pathlib import Path
from likewise.builder.audit import AuditWatch
seen, settings, sources = [], [], []
watch = AuditWatch(
    seen.append, own=[Path(sys.argv[1], "own")], everywhere=True, on_setting=settings.append, on_source=sources.append
)
watch.start()
home = sys.argv[1]
{body}
with watch.paused():
    print(json.dumps({{"seen": [each.removeprefix(f"opens the file {{home}}/") for each in seen],
                       "settings": [each.removeprefix(f"{{home}}/") for each in settings],
                       "sources": [each.removeprefix(f"{{home}}/") for each in sources]}}))
"""


def _watched(home: Path, body: str) -> dict[str, list[str]]:
    (home / "tmp").mkdir(exist_ok=True)
    places = {
        "HOME": str(home),
        "TZDIR": str(home / "zones"),
        "TMPDIR": str(home / "tmp"),
        "PYTHONPATH": str(home / "python"),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | places
    command = [sys.executable, "-P", "-c", WATCH.format(body=body), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, check=False)
    assert done.returncode == 0, done.stderr
    watched: dict[str, list[str]] = json.loads(done.stdout)
    return watched


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in (*MACHINE, *SETTINGS, *NEEDED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def test_what_an_answer_needs_is_reported_and_parts_of_the_machine_are_not(home: Path) -> None:
    read = "for name in json.load(open(f'{home}/own/names.json')):\n    open(f'{home}/{name}').close()"
    (home / "own").mkdir()
    (home / "own" / "names.json").write_text(json.dumps([*MACHINE, *SETTINGS, *NEEDED]))
    watched = _watched(home, read)
    assert watched["seen"] == NEEDED
    assert watched["settings"] == SETTINGS


SHOWS_SOURCES = """
import inspect, linecache, logging, threading, traceback, warnings
code = compile(open(f"{home}/own/code.py").read(), f"{home}/project/train.py", "exec")
scope = {}
exec(code, scope)
scope["warn"]()
try:
    scope["fail"]()
except ZeroDivisionError:
    logging.exception("shown")
linecache.clearcache()
assert "def warn" in inspect.getsource(scope["warn"])
linecache.clearcache()
thread = threading.Thread(target=scope["fail"])
thread.start(); thread.join()
"""
CODE = """
import linecache, warnings

def warn():
    warnings.warn("odd")

def fail():
    1 / 0

def reads():
    return linecache.getline(__file__, 1), linecache.getline(words, 1)
"""


def test_showing_a_line_of_source_is_no_access_but_reading_it_is(home: Path) -> None:
    (home / "own").mkdir()
    for file in ("own/code.py", "project/train.py"):
        (home / file).write_text(CODE)
    watched = _watched(home, SHOWS_SOURCES)
    assert (watched["seen"], set(watched["sources"])) == ([], {"project/train.py"})
    as_data = (
        "scope |= {'__file__': f'{home}/project/train.py', 'words': f'{home}/project/vocab.txt'}\nscope['reads']()"
    )
    watched = _watched(
        home, f"{SHOWS_SOURCES}\nlinecache.clearcache()\n{as_data}\nopen(f'{{home}}/project/train.py').close()"
    )
    assert watched["seen"] == ["project/train.py", "project/vocab.txt", "project/train.py"]


WRITES = """
import os, sqlite3, tempfile
os.makedirs(f"{home}/made")
with open(f"{home}/made/new.txt", "w") as file:
    file.write("x")
open(f"{home}/made/new.txt").read()
os.replace(f"{home}/made/new.txt", f"{home}/made/moved.txt")
open(f"{home}/made/moved.txt").read()
os.close(os.open(f"{home}/made/low.bin", os.O_CREAT | os.O_EXCL | os.O_RDWR))
open(f"{home}/made/low.bin", "rb").read()
sqlite3.connect(f"{home}/made/cache.db").execute("create table t (x)").connection.close()
sqlite3.connect(f"{home}/made/cache.db").close()
os.rename(f"{home}/project/model.pkl", f"{home}/made/model.pkl")
open(f"{home}/made/model.pkl").read()
open(f"{home}/project/vocab.txt", "a").close()
open(f"{home}/project/vocab.txt").read()
open(f"{home}/project/labels.json", "r+").read()
os.close(os.open(f"{home}/project/data.csv", os.O_RDWR))
"""


def test_file_that_the_model_has_written_is_its_own(home: Path) -> None:
    needed = ["made/model.pkl", "project/vocab.txt", "project/labels.json", "project/data.csv"]
    assert _watched(home, WRITES)["seen"] == needed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"floatx": "float32", "epsilon": 1e-7, "backend": "torch", "image_data_format": "channels_last"}, None),
        ({}, None),
        ({"floatx": "float16", "epsilon": 1e-7}, "(floatx: float16)"),
        (
            {"epsilon": 1e-3, "image_data_format": "channels_first"},
            "(epsilon: 0.001, image_data_format: channels_first)",
        ),
    ],
)
def test_keras_settings_are_reported_unless_they_are_its_defaults(
    tmp_path: Path, content: dict[str, object], expected: str | None
) -> None:
    path = tmp_path / ".keras" / "keras.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    assert described(str(path)) == (expected and f"{path} {expected}")
