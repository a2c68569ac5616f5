"""What every target must do, in the same words: a row a target in `places.PLACES`."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from tests.conformance.places import PLACES
from tests.conformance.target_room import (
    Place,
    deploying,
    killed_at_work,
    pipeline_bundle,
    upper_bundle,
)
from tests.support.classifier import TEXTS

import likewise
from likewise import deployments
from likewise.core.errors import (
    AlreadyDeployed,
    BundleTampered,
    DeployFailed,
    LikewiseError,
    NotDeployed,
    WrongUsage,
)
from likewise.parity import VerifyOptions
from likewise.targets.base import Receipt

pytestmark = pytest.mark.slow

Deploy = Callable[..., Receipt]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIKEWISE_DATA_HOME", str(data))
        with PLACES[request.param](data) as made:
            yield made


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "two", "2:")


@pytest.fixture
def deploy(place: Place) -> Iterator[Deploy]:
    """`deploy` with the place's options, and trust; what a test leaves is taken down, and nothing may be left."""

    def deployed(model: Path, name: str, **options: str) -> Receipt:
        return deployments.deploy(model, place.uri, name, {**place.options, **options}, trust=True)

    yield deployed
    for receipt in deployments.deployments():
        deployments.delete(receipt.name)
    assert place.left() == []


def asked(name: str, *texts: str) -> object:
    """The predictions of a deployment."""
    answer = deployments.ask(name, json.dumps({"inputs": list(texts)}).encode())
    assert answer.status == 200, answer
    return json.loads(answer.body)["predictions"]


def digest(bundle: Path) -> str:
    return str(json.loads((bundle / "likewise.json").read_bytes())["digest"])


def served(name: str) -> object:
    """The digest that answers, as the place says."""
    return deployments.status(name)[1].details["bundle"]


def test_a_deployment_answers_as_its_bundle_does(place: Place, deploy: Deploy, one: Path, tmp_path: Path) -> None:
    receipt = deploy(one, "upper")
    texts = ["a", "", "ü😀", "two\nlines"]
    with likewise.open_bundle(one, trust=True) as bundle:
        wanted = bundle.predict(pd.DataFrame({"text": texts}))
    assert asked("upper", *texts) == wanted
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = VerifyOptions(golden=str(golden), tolerance=0.0)
    found = likewise.verify(one, [f"upper@{place.uri}"], options=options, trust=True)
    assert (found.agrees, found.places[0].same) == (True, len(texts)), found
    assert [each.name for each in deployments.deployments()] == ["upper"]
    status = deployments.status("upper")[1]
    assert (status.state, status.url, served("upper")) == ("ready", receipt.output("url"), digest(one))


def test_a_pipeline_answers_as_its_bundle_does_and_needs_no_trust(place: Place, deploy: Deploy, tmp_path: Path) -> None:
    path = pipeline_bundle(tmp_path)
    deployments.deploy(path, place.uri, "pipeline", place.options)
    with likewise.open_bundle(path) as bundle:
        wanted = bundle.predict(pd.DataFrame({"text": TEXTS})).to_dict("records")
    assert asked("pipeline", *TEXTS) == wanted


FORMS: list[tuple[bytes, str, object]] = [
    (b'{"dataframe_split": {"columns": ["text"], "data": [["a"]]}}', "application/json", {"predictions": ["1:A"]}),
    (b'{"dataframe_records": [{"text": "a"}]}', "application/json", {"predictions": ["1:A"]}),
    (b'{"inputs": ["a"]}', "application/json", {"predictions": ["1:A"]}),
    (b'{"instances": [{"text": "a"}]}', "application/json", {"predictions": ["1:A"]}),
    (b"text\r\na\r\n", "text/csv", {"predictions": ["1:A"]}),
    (b'{"columns": ["text"], "data": [["a"]]}', "application/json", ["1:A"]),
    (b'{"columns": ["text"], "data": [["a"]]}', "application/json; format=pandas-split", ["1:A"]),
    (b'[{"text": "a"}]', "application/json; format=pandas-records", ["1:A"]),
    (b'"{\\"text\\":{\\"0\\":\\"a\\"}}"', "application/json", ["1:A"]),
]


def test_every_form_of_input_and_a_wrong_one(place: Place, deploy: Deploy, one: Path) -> None:
    deploy(one, "forms")
    for body, content_type, wanted in FORMS:
        answer = deployments.ask("forms", body, content_type)
        assert (answer.status, json.loads(answer.body)) == (200, wanted), (body, content_type)
    wrong = deployments.ask("forms", b'{"inputs": [')
    assert (wrong.status, json.loads(wrong.body)["error_code"]) == (400, "BAD_REQUEST")
    assert deployments.ask("forms", b"a", "image/png").status == 415


def test_a_taken_name_is_refused_and_what_has_it_stays(place: Place, deploy: Deploy, one: Path, two: Path) -> None:
    deploy(one, "taken")
    with pytest.raises(AlreadyDeployed, match="taken"):
        deploy(two, "taken")
    assert asked("taken", "a") == ["1:A"]


def test_an_update_is_another_bundle_and_back_and_no_request_fails(
    place: Place, deploy: Deploy, one: Path, two: Path
) -> None:
    receipt = deploy(one, "changing")
    with place.load(receipt.output("url")) as load:
        load.until_answered(50)
        deployments.update("changing", two, trust=True)
        assert (served("changing"), asked("changing", "a")) == (digest(two), ["2:A"])
        load.until_answered(50)
        again = deployments.update("changing", previous=True)
        assert (served("changing"), asked("changing", "a")) == (digest(one), ["1:A"])
        load.until_answered(50)
    assert load.wrong == []
    assert load.digests == place.digests(digest(one), digest(two))
    assert again.output("url") == receipt.output("url")


def test_a_new_version_that_does_not_load_leaves_the_old_one(
    place: Place, deploy: Deploy, one: Path, tmp_path: Path
) -> None:
    receipt = deploy(one, "steady")
    broken = upper_bundle(tmp_path / "broken", "3:", loading='raise ValueError("no such weights")')
    with place.load(receipt.output("url")) as load:
        load.until_answered(20)
        with pytest.raises(DeployFailed, match="no such weights"):
            deployments.update("steady", broken, trust=True)
        load.until_answered(20)
    assert (load.wrong, load.digests) == ([], place.digests(digest(one)))
    assert deployments.status("steady")[1].state == "ready"


def test_deleting_twice_and_asking_for_what_is_not_there(place: Place, deploy: Deploy, one: Path) -> None:
    deploy(one, "short")
    deployments.delete("short")
    assert place.left() == []
    for verb in (deployments.delete, deployments.status, deployments.update):
        with pytest.raises(NotDeployed, match="short"):
            verb("short")
    with pytest.raises(NotDeployed, match="short"):
        deployments.ask("short", b"{}")
    assert deployments.deployments() == []


def test_two_deployments_know_nothing_of_each_other(place: Place, deploy: Deploy, one: Path, two: Path) -> None:
    deploy(one, "left")
    deploy(two, "right")
    assert [each.name for each in deployments.deployments()] == ["left", "right"]
    deployments.delete("left")
    assert asked("right", "a") == ["2:A"]


def test_bad_options_are_refused_by_name(place: Place, deploy: Deploy, one: Path) -> None:
    wrong, right = place.typo
    with pytest.raises(WrongUsage, match=wrong) as refused:
        deploy(one, "options", **{wrong: "1"})
    assert right in refused.value.remedy
    with pytest.raises(WrongUsage, match=right):
        deploy(one, "options", **{right: "many"})
    assert place.left() == []


def test_a_plan_does_nothing(place: Place, deploy: Deploy, one: Path) -> None:
    wanted = deployments.model_of(one, trust=True)
    planned = deployments.plan("create", "plan", to=place.uri, model=wanted, options=place.options).plan
    again = deployments.plan("create", "plan", to=place.uri, model=wanted, options=place.options).plan
    assert planned.key == again.key
    assert planned.steps
    assert (place.left(), deployments.deployments()) == ([], [])


@pytest.mark.parametrize("how", ["tampered", "needs trust", "raises", "ends its process"])
def test_a_bundle_that_does_not_load_is_told_and_leaves_nothing(
    place: Place, deploy: Deploy, one: Path, tmp_path: Path, how: str
) -> None:
    kind, said, trust = _broken(how)
    bundle = tmp_path / "bundle"
    if how in ("tampered", "needs trust"):
        shutil.copytree(one, bundle)
    else:
        does = {"raises": 'raise ValueError("no such weights")', "ends its process": "os._exit(9)"}[how]
        bundle = upper_bundle(tmp_path / "broken", "x", loading=does)
    if how == "tampered":
        (bundle / "model" / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(kind) as told:
        deployments.deploy(bundle, place.uri, "broken", place.options, trust=trust)
    assert said in told.value.cause + told.value.remedy
    assert told.value.remedy
    assert (place.left(), deployments.deployments()) == ([], [])


def _broken(how: str) -> tuple[type[LikewiseError], str, bool]:
    """The error, what it says, and whether code is trusted."""
    return {
        "tampered": (BundleTampered, "MLmodel", True),
        "needs trust": (LikewiseError, "--trust", False),
        "raises": (DeployFailed, "no such weights", True),
        "ends its process": (DeployFailed, "", True),
    }[how]


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
def test_a_killed_deployment_is_gone_on_with_when_it_is_run_again(
    place: Place, deploy: Deploy, one: Path, two: Path, verb: str
) -> None:
    """Killed before each of its steps in turn, and before the receipt; then run again to its end."""
    if verb != "create":
        deploy(one, "cut")
    model = {"create": one, "update": two, "delete": None}[verb]
    steps = deploying(verb, model, place, "cut", "steps").stdout.split()
    assert steps
    for stop in [*steps, "the receipt"]:
        done = deploying(verb, model, place, "cut", stop)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = deploying(verb, model, place, "cut", "nowhere")
    assert done.returncode == 0, done.stderr
    if verb == "delete":
        assert (place.left(), deployments.deployments()) == ([], [])
    else:
        assert asked("cut", "a") == [{"create": "1:A", "update": "2:A"}[verb]]
        assert [each.name for each in deployments.deployments()] == ["cut"]


def test_a_deployment_killed_at_work_gives_way_to_another(place: Place, deploy: Deploy, one: Path, two: Path) -> None:
    """Not between two steps, but in one: whoever did it may not be at it any more when the next one comes."""
    killed_at_work(one, place, "work")
    deploy(two, "work")
    assert (asked("work", "a"), served("work")) == (["2:A"], digest(two))


def test_a_killed_deployment_gives_way_to_another(place: Place, deploy: Deploy, one: Path, two: Path) -> None:
    """What the killed one has begun is taken back."""
    assert deploying("create", one, place, "way", "the receipt").returncode == -signal.SIGKILL
    deploy(two, "way")
    assert asked("way", "a") == ["2:A"]
    assert served("way") == digest(two)
