"""What every target must do, as tests: a subclass makes the target, and the tests know nothing else of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

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
from likewise.targets.base import Live, Plan, Receipt
from likewise.targets.registry import open_target
from likewise.testing.deployer import RECEIPT, Deployer
from likewise.testing.engine import MODEL
from likewise.testing.models import classifier_bundle, pyfunc_bundle, upper_bundle
from likewise.testing.targets.callers import Callers, until

STANDING = "standing"
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
Deploy = Callable[..., Receipt]


@dataclass(frozen=True)
class TargetUnderTest:
    """A target that is up, and how it is used.

    uri: as `--to` takes it.
    left: all that is there of any deployment, a line each: processes, containers, files, objects, records.
    options: for a small deployment that starts quickly.
    integer_option: the name of an option that takes a whole number; the suite misspells it, and gives it a text.
    callers: how many callers of each kind ask during an update; fewer where the target needs the processor itself.
    headers: what they send with each request.
    pyfunc_options: further options for the model that MLflow loads.
    names_bundle: whether its answers carry `X-Likewise-Bundle`.
    """

    uri: str
    left: Callable[[], list[str]]
    options: Mapping[str, str] = field(default_factory=dict)
    integer_option: str = "port"
    callers: int = 4
    headers: Mapping[str, str] = field(default_factory=dict)
    pyfunc_options: Mapping[str, str] = field(default_factory=dict)
    names_bundle: bool = True

    def called(self, receipt: Receipt) -> Callers:
        """Its concurrent callers."""
        return Callers(receipt.output("url"), self.callers, self.headers)

    def named(self, *bundles: Path) -> set[str | None]:
        """The digests in the answers of these bundles."""
        return {digest_of(bundle) for bundle in bundles} if self.names_bundle else {None}


class TargetSuite:
    """Subclass it as `TestMine`, and override `target`.

    One deployment, `standing`, serves all tests that only ask it or that bring it back to what it was.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[TargetUnderTest]:
        """The target, made here and taken down afterwards; it may ask for `data_home`."""
        raise NotImplementedError("override the fixture `target`")

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def data_home(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """The user's data folder, where receipts are."""
        folder = tmp_path_factory.mktemp("data")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIKEWISE_DATA_HOME", str(folder))
            yield folder

    @pytest.fixture(scope="class")
    @classmethod
    def one(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A bundle."""
        return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")

    @pytest.fixture(scope="class")
    @classmethod
    def two(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Another bundle."""
        return upper_bundle(tmp_path_factory.mktemp("models") / "two", "2:")

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A bundle of a pipeline whose engine runs none of the model's code."""
        return classifier_bundle(tmp_path_factory.mktemp("models") / "pipeline")

    @pytest.fixture(scope="class")
    @classmethod
    def standing(cls, target: TargetUnderTest, one: Path) -> Iterator[Receipt]:
        """A deployment of `one`; every test leaves it as it was."""
        before = target.left()
        yield deployments.deploy(one, target.uri, STANDING, target.options, trust=True)
        deployments.delete(STANDING)
        assert target.left() == before

    @pytest.fixture(scope="class")
    @classmethod
    def deployer(cls, target: TargetUnderTest) -> Iterator[Deployer]:
        """What carries out plans in processes that are killed."""
        with Deployer(target.uri, target.options) as deployer:
            yield deployer

    @pytest.fixture
    def deploy(self, target: TargetUnderTest) -> Iterator[Deploy]:
        """`deploy` with the target's options, and trust; what a test leaves is deleted, and nothing may be left."""
        before = target.left()

        def deployed(model: Path, name: str, *, trust: bool = True, **options: str) -> Receipt:
            return deployments.deploy(model, target.uri, name, {**target.options, **options}, trust=trust)

        yield deployed
        for receipt in deployments.deployments():
            if receipt.name != STANDING:
                deployments.delete(receipt.name)
        assert target.left() == before

    # --- a deployment that stands --------------------------------------------------------------------------------

    def test_a_deployment_answers_as_its_bundle_does(
        self, target: TargetUnderTest, standing: Receipt, one: Path, tmp_path: Path
    ) -> None:
        texts = ["a", "", "ü😀", "two\nlines"]
        with likewise.open_bundle(one, trust=True) as bundle:
            expected = bundle.predict(pd.DataFrame({"text": texts}))
        assert predictions(standing.name, *texts) == expected
        golden = tmp_path / "golden.jsonl"
        golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        options = VerifyOptions(golden=str(golden), tolerance=0.0)
        found = likewise.verify(one, [f"{standing.name}@{target.uri}"], options=options, trust=True)
        assert (found.agrees, found.places[0].same) == (True, len(texts)), found

    def test_it_is_listed_with_where_it_answers_and_what_answers(
        self, target: TargetUnderTest, standing: Receipt, one: Path
    ) -> None:
        assert [each.name for each in deployments.deployments()] == [standing.name]
        place = open_target(target.uri)
        assert isinstance(place, Live)
        found = {each.name: each for each in place.found()}[standing.name]
        assert (found.target, found.model.digest) == (standing.target, digest_of(one))
        assert found.output("url") == standing.output("url")
        status = deployments.status(standing.name)[1]
        assert (status.state, status.url, status.bundle) == ("ready", standing.output("url"), digest_of(one))

    def test_every_form_of_input_and_wrong_ones(self, standing: Receipt) -> None:
        for body, content_type, expected in FORMS:
            answer = deployments.ask(standing.name, body, content_type)
            assert (answer.status, json.loads(answer.body)) == (200, expected), (body, content_type)
        wrong = deployments.ask(standing.name, b'{"inputs": [')
        assert (wrong.status, json.loads(wrong.body)["error_code"]) == (400, "BAD_REQUEST")
        assert deployments.ask(standing.name, b"a", "image/png").status == 415

    def test_a_name_in_use_is_refused_and_its_deployment_stays(
        self, standing: Receipt, deploy: Deploy, two: Path
    ) -> None:
        with pytest.raises(AlreadyDeployed, match=standing.name):
            deploy(two, standing.name)
        assert predictions(standing.name, "a") == ["1:A"]

    def test_an_update_to_another_bundle_and_back_drops_no_request(
        self, target: TargetUnderTest, standing: Receipt, one: Path, two: Path
    ) -> None:
        with target.called(standing) as callers:
            callers.until_answered(50)
            deployments.update(standing.name, two, trust=True)
            assert (served(standing.name), predictions(standing.name, "a")) == (digest_of(two), ["2:A"])
            callers.until_answered(50)
            again = deployments.update(standing.name, previous=True)
            assert (served(standing.name), predictions(standing.name, "a")) == (digest_of(one), ["1:A"])
            callers.until_answered(50)
        assert callers.wrong == []
        assert callers.bundles == target.named(one, two)
        assert again.output("url") == standing.output("url")

    def test_a_new_version_that_does_not_load_leaves_the_one_before(
        self, target: TargetUnderTest, standing: Receipt, one: Path, tmp_path: Path
    ) -> None:
        broken = upper_bundle(tmp_path / "broken", "3:", loading='raise ValueError("no such weights")')
        with target.called(standing) as callers:
            callers.until_answered(20)
            with pytest.raises(DeployFailed, match="no such weights"):
                deployments.update(standing.name, broken, trust=True)
            callers.until_answered(20)
        assert (callers.wrong, callers.bundles) == ([], target.named(one))
        assert deployments.status(standing.name)[1].state == "ready"

    def test_a_second_deployment_is_independent_and_its_deletion_leaves_nothing(
        self, target: TargetUnderTest, standing: Receipt, deploy: Deploy, two: Path
    ) -> None:
        before = target.left()
        deploy(two, "second")
        assert [each.name for each in deployments.deployments()] == ["second", standing.name]
        assert (predictions("second", "a"), predictions(standing.name, "a")) == (["2:A"], ["1:A"])
        deployments.delete("second")
        assert target.left() == before
        assert predictions(standing.name, "a") == ["1:A"]
        for verb in (deployments.delete, deployments.status, deployments.update):
            with pytest.raises(NotDeployed, match="second"):
                verb("second")
        with pytest.raises(NotDeployed, match="second"):
            deployments.ask("second", b"{}")
        assert [each.name for each in deployments.deployments()] == [standing.name]

    # --- models --------------------------------------------------------------------------------------------------

    def test_a_pipeline_answers_as_its_bundle_does_and_needs_no_trust(self, deploy: Deploy, pipeline: Path) -> None:
        from likewise.testing.classifier import TEXTS

        deploy(pipeline, "pipeline", trust=False)
        with likewise.open_bundle(pipeline) as bundle:
            expected = bundle.predict(pd.DataFrame({"text": TEXTS})).to_dict("records")
        assert predictions("pipeline", *TEXTS) == expected

    def test_a_pyfunc_answers(self, target: TargetUnderTest, deploy: Deploy, tmp_path: Path) -> None:
        deploy(pyfunc_bundle(tmp_path / "pyfunc", "py:"), "pyfunc", **target.pyfunc_options)
        assert predictions("pyfunc", "a", "ü😀") == ["py:A", "py:Ü😀"]

    @pytest.mark.parametrize("how", ["tampered", "needs trust", "raises", "ends its process"])
    def test_a_bundle_that_does_not_load_is_reported_and_leaves_nothing(
        self, target: TargetUnderTest, deploy: Deploy, one: Path, tmp_path: Path, how: str
    ) -> None:
        before = target.left()
        kind, said, trust = BROKEN[how]
        with pytest.raises(kind) as raised:
            deploy(broken_bundle(how, one, tmp_path), "broken", trust=trust)
        assert said in raised.value.cause + raised.value.remedy
        assert raised.value.remedy
        assert target.left() == before
        assert "broken" not in [each.name for each in deployments.deployments()]

    # --- plans ---------------------------------------------------------------------------------------------------

    def test_wrong_options_are_refused_by_name(self, target: TargetUnderTest, deploy: Deploy, one: Path) -> None:
        right = target.integer_option
        wrong = right[:-1]
        with pytest.raises(WrongUsage, match=wrong) as refused:
            deploy(one, "options", **{wrong: "1"})
        assert right in refused.value.remedy
        with pytest.raises(WrongUsage, match=right):
            deploy(one, "options", **{right: "many"})

    def test_a_plan_is_data_and_does_nothing(self, target: TargetUnderTest, one: Path) -> None:
        before = target.left()
        model = deployments.model_of(one, trust=True)
        made = [deployments.plan("create", "plan", to=target.uri, model=model, options=target.options) for _ in "ab"]
        plan = made[0].plan
        assert plan.key == made[1].plan.key == Plan.from_dict(json.loads(json.dumps(plan.as_dict()))).key
        assert len({step.id for step in plan.steps}) == len(plan.steps) > 0
        assert target.left() == before
        assert "plan" not in [each.name for each in deployments.deployments()]

    # --- processes that are killed -------------------------------------------------------------------------------

    def test_a_plan_whose_process_was_killed_is_finished_by_the_same_plan(
        self, target: TargetUnderTest, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        """Killed before each of its steps in turn, and before the receipt; then run again to its end."""
        before = target.left()
        deployer.killed_everywhere("create", "cut", one)
        deploy(one, "cut")
        assert predictions("cut", "a") == ["1:A"]
        deployer.killed_everywhere("update", "cut", two)
        deployments.update("cut", two, target.options, trust=True)
        assert predictions("cut", "a") == ["2:A"]
        assert "cut" in [each.name for each in deployments.deployments()]
        deployer.killed_everywhere("delete", "cut", None)
        deployments.delete("cut")
        assert target.left() == before
        assert "cut" not in [each.name for each in deployments.deployments()]

    def test_a_plan_whose_process_was_killed_is_taken_back_by_another(
        self, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        deployer.killed("create", "way", one, before=RECEIPT)
        deploy(two, "way")
        assert (predictions("way", "a"), served("way")) == (["2:A"], digest_of(two))

    def test_a_plan_whose_process_was_killed_at_work_is_taken_back_by_another(
        self, target: TargetUnderTest, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        """Not between two steps, but within one: what it had begun may not go on beside the next plan."""
        before = target.left()
        deployer.killed_when(lambda: until(lambda: target.left() != before), "create", "work", one)
        deploy(two, "work")
        assert (predictions("work", "a"), served("work")) == (["2:A"], digest_of(two))


BROKEN: dict[str, tuple[type[LikewiseError], str, bool]] = {
    "tampered": (BundleTampered, MODEL, True),
    "needs trust": (LikewiseError, "--trust", False),
    "raises": (DeployFailed, "no such weights", True),
    "ends its process": (DeployFailed, "", True),
}
"""The error, what it says, and whether the model's code is trusted."""


def broken_bundle(how: str, one: Path, folder: Path) -> Path:
    """A bundle that fails in one of the ways of BROKEN."""
    if how == "raises":
        return upper_bundle(folder / "broken", "x", loading='raise ValueError("no such weights")')
    if how == "ends its process":
        return upper_bundle(folder / "broken", "x", loading="os._exit(9)")
    bundle = shutil.copytree(one, folder / "bundle")
    if how == "tampered":
        (bundle / "model" / MODEL).write_text("def load(): pass\n")
    return bundle


def predictions(name: str, *texts: str) -> object:
    """What a deployment answers to these texts."""
    answer = deployments.ask(name, json.dumps({"inputs": list(texts)}).encode())
    assert answer.status == 200, answer
    return json.loads(answer.body)["predictions"]


def served(name: str) -> str | None:
    """The digest of the bundle that answers, as the target reports it."""
    return deployments.status(name)[1].bundle


def digest_of(bundle: Path) -> str:
    """The digest of a bundle's folder."""
    return str(json.loads((bundle / "likewise.json").read_bytes())["digest"])
