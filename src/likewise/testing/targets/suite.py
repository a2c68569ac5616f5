"""The behaviour that every target must have, as tests; a subclass provides the target."""

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
from likewise.targets import planning
from likewise.targets.base import Live, Logs, Plan, Receipt, ReportsTraffic
from likewise.targets.registry import open_target
from likewise.testing.deployer import RECEIPT, Deployer
from likewise.testing.engine import MODEL
from likewise.testing.models import classifier_bundle, pyfunc_bundle, upper_bundle
from likewise.testing.targets.callers import Callers, until

SHARED = "shared"  # the name of the deployment that most tests use
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
    """A running target, and parameters of its tests.

    uri: the URI for `--to`.
    left: lists all existing resources of any deployment: processes, containers, files, objects, records.
    options: options for a small deployment that starts quickly.
    integer_option: the name of an integer option; the suite misspells it, and sets it to a text.
    callers: number of concurrent clients of each kind during an update; fewer if the target itself needs the CPU.
    headers: headers of their requests.
    pyfunc_options: additional options for the model that MLflow loads.
    names_bundle: whether responses have the header `X-Likewise-Bundle`.
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
        """Concurrent clients of the deployment."""
        return Callers(receipt.output("url"), self.callers, self.headers)

    def named(self, *bundles: Path) -> set[str | None]:
        """The digests expected in the responses of these bundles."""
        return {digest_of(bundle) for bundle in bundles} if self.names_bundle else {None}


class TargetSuite:
    """Subclass it as `TestMine`, and override the fixture `target`.

    One deployment, the fixture `shared`, is used by all tests that only query it or that restore its state.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[TargetUnderTest]:
        """Start the target, yield it, and stop it afterwards; an override may use the fixture `data_home`."""
        raise NotImplementedError("override the fixture `target`")

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def data_home(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """The user's data folder, which contains the receipts."""
        folder = tmp_path_factory.mktemp("data")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIKEWISE_DATA_HOME", str(folder))
            yield folder

    @pytest.fixture(scope="class")
    @classmethod
    def one(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The first bundle: its predictions start with `1:`."""
        return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")

    @pytest.fixture(scope="class")
    @classmethod
    def two(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The second bundle: its predictions start with `2:`."""
        return upper_bundle(tmp_path_factory.mktemp("models") / "two", "2:")

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A bundle of a pipeline, whose engine does not run the model's code."""
        return classifier_bundle(tmp_path_factory.mktemp("models") / "pipeline")

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, target: TargetUnderTest, one: Path) -> Iterator[Receipt]:
        """A deployment of `one`; every test must restore its state."""
        before = target.left()
        yield deployments.deploy(one, target.uri, SHARED, target.options, trust=True)
        deployments.delete(SHARED)
        assert target.left() == before

    @pytest.fixture(scope="class")
    @classmethod
    def deployer(cls, target: TargetUnderTest) -> Iterator[Deployer]:
        """Executes plans in processes that are killed."""
        with Deployer(target.uri, target.options) as deployer:
            yield deployer

    @pytest.fixture
    def deploy(self, target: TargetUnderTest) -> Iterator[Deploy]:
        """`deploy` with the target's options and trust; the test's deployments are deleted, and `left` is checked."""
        before = target.left()

        def deployed(model: Path, name: str, *, trust: bool = True, **options: str) -> Receipt:
            return deployments.deploy(model, target.uri, name, {**target.options, **options}, trust=trust)

        yield deployed
        for receipt in deployments.deployments():
            if receipt.name != SHARED:
                deployments.delete(receipt.name)
        assert target.left() == before

    # --- the shared deployment -----------------------------------------------------------------------------------

    def test_predictions_equal_those_of_the_bundle(
        self, target: TargetUnderTest, shared: Receipt, one: Path, tmp_path: Path
    ) -> None:
        texts = ["a", "", "ü😀", "two\nlines"]
        with likewise.open_bundle(one, trust=True) as bundle:
            expected = bundle.predict(pd.DataFrame({"text": texts}))
        assert predictions(shared.name, *texts) == expected
        golden = tmp_path / "golden.jsonl"
        golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        options = VerifyOptions(golden=str(golden), tolerance=0.0)
        result = likewise.verify(one, [f"{shared.name}@{target.uri}"], options=options, trust=True)
        assert (result.agrees, result.places[0].same) == (True, len(texts)), result

    def test_deployment_is_listed_with_its_url_and_bundle(
        self, target: TargetUnderTest, shared: Receipt, one: Path
    ) -> None:
        assert [each.name for each in deployments.deployments()] == [shared.name]
        opened = open_target(target.uri)
        assert isinstance(opened, Live)
        receipt = {each.name: each for each in opened.found()}[shared.name]
        assert (receipt.target, receipt.model.digest) == (shared.target, digest_of(one))
        assert receipt.output("url") == shared.output("url")
        status = deployments.status(shared.name)[1]
        assert (status.state, status.url, status.bundle) == ("ready", shared.output("url"), digest_of(one))
        assert (receipt.model.build, status.build) == (build_of(one), build_of(one))

    def test_all_input_formats_are_accepted_and_invalid_input_is_rejected(self, shared: Receipt) -> None:
        for body, content_type, expected in FORMS:
            response = deployments.predict(shared.name, body, content_type)
            assert (response.status, json.loads(response.body)) == (200, expected), (body, content_type)
        invalid = deployments.predict(shared.name, b'{"inputs": [')
        assert (invalid.status, json.loads(invalid.body)["error_code"]) == (400, "BAD_REQUEST")
        assert deployments.predict(shared.name, b"a", "image/png").status == 415

    def test_requests_are_counted_and_logs_can_be_read(self, target: TargetUnderTest, shared: Receipt) -> None:
        backend = open_target(target.uri)
        if isinstance(backend, ReportsTraffic):
            before = backend.traffic(shared)
            assert predictions(shared.name, "a") == ["1:A"]
            after = deployments.status(shared.name)[1].traffic
            assert after is not None
            assert after.replicas == 1
            if before.requests is not None:
                assert (after.requests, after.errors) == (before.requests + 1, before.errors)
                assert after.p50_ms is not None
                assert after.p99_ms is not None
                assert after.p50_ms <= after.p99_ms
        if isinstance(backend, Logs):
            lines = list(deployments.logs(shared.name))
            assert lines
            assert not any("\n" in line for line in lines)
            assert list(deployments.logs(shared.name, lines=0)) == []

    def test_history_starts_with_the_creation(self, shared: Receipt, one: Path) -> None:
        first, *_ = deployments.history(shared.name)
        assert (first.number, first.outcome, first.model.digest) == (1, "deployed", digest_of(one))
        assert first.options == shared.options
        with pytest.raises(WrongUsage, match="no revision 99"):
            deployments.update(shared.name, revision=99)
        with pytest.raises(NotDeployed) as missing:
            deployments.history(shared.name[:-1])
        assert repr(shared.name) in missing.value.remedy

    def test_name_in_use_is_rejected_and_its_deployment_is_unchanged(
        self, shared: Receipt, deploy: Deploy, two: Path
    ) -> None:
        with pytest.raises(AlreadyDeployed, match=shared.name):
            deploy(two, shared.name)
        assert predictions(shared.name, "a") == ["1:A"]

    def test_update_and_return_to_previous_version_drop_no_request(
        self, target: TargetUnderTest, shared: Receipt, one: Path, two: Path
    ) -> None:
        with target.called(shared) as callers:
            callers.until_answered(50)
            deployments.update(shared.name, two, trust=True)
            assert (served(shared.name), predictions(shared.name, "a")) == (digest_of(two), ["2:A"])
            callers.until_answered(50)
            restored = deployments.update(shared.name, previous=True)
            assert (served(shared.name), predictions(shared.name, "a")) == (digest_of(one), ["1:A"])
            callers.until_answered(50)
        assert callers.wrong == []
        assert callers.bundles == target.named(one, two)
        assert restored.output("url") == shared.output("url")

    def test_failed_update_leaves_previous_version_serving(
        self, target: TargetUnderTest, shared: Receipt, one: Path, tmp_path: Path
    ) -> None:
        broken = upper_bundle(tmp_path / "broken", "3:", loading='raise ValueError("no such weights")')
        with target.called(shared) as callers:
            callers.until_answered(20)
            with pytest.raises(DeployFailed, match="no such weights"):
                deployments.update(shared.name, broken, trust=True)
            callers.until_answered(20)
        assert (callers.wrong, callers.bundles) == ([], target.named(one))
        assert deployments.status(shared.name)[1].state == "ready"
        *_, last = deployments.history(shared.name)
        assert last.outcome == "rolled back"
        assert "no such weights" in last.cause

    def test_second_deployment_is_independent_and_its_deletion_leaves_nothing(
        self, target: TargetUnderTest, shared: Receipt, deploy: Deploy, two: Path
    ) -> None:
        before = target.left()
        deploy(two, "second")
        assert [each.name for each in deployments.deployments()] == ["second", shared.name]
        assert (predictions("second", "a"), predictions(shared.name, "a")) == (["2:A"], ["1:A"])
        deployments.delete("second")
        assert target.left() == before
        assert predictions(shared.name, "a") == ["1:A"]
        for verb in (deployments.delete, deployments.status, deployments.update):
            with pytest.raises(NotDeployed, match="second"):
                verb("second")
        with pytest.raises(NotDeployed, match="second"):
            deployments.predict("second", b"{}")
        assert [each.name for each in deployments.deployments()] == [shared.name]

    # --- models --------------------------------------------------------------------------------------------------

    def test_pipeline_predicts_as_its_bundle_and_needs_no_trust(self, deploy: Deploy, pipeline: Path) -> None:
        from likewise.testing.classifier import TEXTS

        deploy(pipeline, "pipeline", trust=False)
        with likewise.open_bundle(pipeline) as bundle:
            expected = bundle.predict(pd.DataFrame({"text": TEXTS})).to_dict("records")
        assert predictions("pipeline", *TEXTS) == expected

    def test_pyfunc_model_is_served(self, target: TargetUnderTest, deploy: Deploy, tmp_path: Path) -> None:
        deploy(pyfunc_bundle(tmp_path / "pyfunc", "py:"), "pyfunc", **target.pyfunc_options)
        assert predictions("pyfunc", "a", "ü😀") == ["py:A", "py:Ü😀"]

    @pytest.mark.parametrize("how", ["tampered", "needs trust", "raises", "exits"])
    def test_bundle_that_does_not_load_is_reported_and_leaves_nothing(
        self, target: TargetUnderTest, deploy: Deploy, one: Path, tmp_path: Path, how: str
    ) -> None:
        before = target.left()
        kind, message, trust = BROKEN[how]
        with pytest.raises(kind) as raised:
            deploy(broken_bundle(how, one, tmp_path), "broken", trust=trust)
        assert message in raised.value.cause + raised.value.remedy
        assert raised.value.remedy
        assert target.left() == before
        assert "broken" not in [each.name for each in deployments.deployments()]

    # --- plans ---------------------------------------------------------------------------------------------------

    def test_invalid_options_are_rejected_by_name(self, target: TargetUnderTest, deploy: Deploy, one: Path) -> None:
        name = target.integer_option
        misspelled = name[:-1]
        with pytest.raises(WrongUsage, match=misspelled) as rejected:
            deploy(one, "options", **{misspelled: "1"})
        assert name in rejected.value.remedy
        with pytest.raises(WrongUsage, match=name):
            deploy(one, "options", **{name: "many"})

    def test_plan_is_json_data_and_changes_nothing(self, target: TargetUnderTest, one: Path) -> None:
        before = target.left()
        model = deployments.model_of(one, trust=True)
        planned = [planning.plan("create", "plan", to=target.uri, model=model, options=target.options) for _ in "ab"]
        plan = planned[0].plan
        assert plan.key == planned[1].plan.key == Plan.from_dict(json.loads(json.dumps(plan.as_dict()))).key
        assert len({step.id for step in plan.steps}) == len(plan.steps) > 0
        assert target.left() == before
        assert "plan" not in [each.name for each in deployments.deployments()]

    # --- killed processes ----------------------------------------------------------------------------------------

    def test_interrupted_plan_is_resumed_by_the_same_plan(
        self, target: TargetUnderTest, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        """Killed before each of its steps in turn and before the receipt is written; then run to completion."""
        before = target.left()
        deployer.kill_before_each_step("create", "resumed", one)
        deploy(one, "resumed")
        assert predictions("resumed", "a") == ["1:A"]
        deployer.kill_before_each_step("update", "resumed", two)
        deployments.update("resumed", two, target.options, trust=True)
        assert predictions("resumed", "a") == ["2:A"]
        assert "resumed" in [each.name for each in deployments.deployments()]
        deployer.kill_before_each_step("delete", "resumed", None)
        deployments.delete("resumed")
        assert target.left() == before
        assert "resumed" not in [each.name for each in deployments.deployments()]

    def test_interrupted_creation_is_listed_as_unfinished_and_can_be_deleted(
        self, target: TargetUnderTest, deployer: Deployer, one: Path
    ) -> None:
        before = target.left()
        deployer.kill_before(RECEIPT, "create", "unfinished", one)
        states = {each.name: each.state for each in deployments.listed()}
        assert states["unfinished"] == "create unfinished"
        with pytest.raises(NotDeployed, match="unfinished") as refused:
            deployments.update("unfinished", one, trust=True)
        assert "likewise deploy" in refused.value.remedy
        deployments.delete("unfinished")
        assert target.left() == before
        assert "unfinished" not in [each.name for each in deployments.listed()]

    def test_interrupted_plan_is_rolled_back_by_another_plan(
        self, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        deployer.kill_before(RECEIPT, "create", "replaced", one)
        deploy(two, "replaced")
        assert (predictions("replaced", "a"), served("replaced")) == (["2:A"], digest_of(two))

    def test_plan_interrupted_within_a_step_is_rolled_back_by_another_plan(
        self, target: TargetUnderTest, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        """Killed in the middle of a step, which must not continue in the background during the next plan."""
        before = target.left()
        deployer.kill_after(lambda: until(lambda: target.left() != before), "create", "within", one)
        deploy(two, "within")
        assert (predictions("within", "a"), served("within")) == (["2:A"], digest_of(two))


BROKEN: dict[str, tuple[type[LikewiseError], str, bool]] = {
    "tampered": (BundleTampered, MODEL, True),
    "needs trust": (LikewiseError, "--trust", False),
    "raises": (DeployFailed, "no such weights", True),
    "exits": (DeployFailed, "", True),
}
"""By kind of failure: the error, a part of its message, and whether the model's code is trusted."""


def broken_bundle(how: str, one: Path, folder: Path) -> Path:
    """A bundle that fails in one of the ways of BROKEN."""
    if how == "raises":
        return upper_bundle(folder / "broken", "x", loading='raise ValueError("no such weights")')
    if how == "exits":
        return upper_bundle(folder / "broken", "x", loading="os._exit(9)")
    bundle = shutil.copytree(one, folder / "bundle")
    if how == "tampered":
        (bundle / "model" / MODEL).write_text("def load(): pass\n")
    return bundle


def predictions(name: str, *texts: str) -> object:
    """A deployment's predictions for these texts."""
    response = deployments.predict(name, json.dumps({"inputs": list(texts)}).encode())
    assert response.status == 200, response
    return json.loads(response.body)["predictions"]


def served(name: str) -> str | None:
    """The digest of the bundle being served, as reported by the target."""
    return deployments.status(name)[1].bundle


def digest_of(bundle: Path) -> str:
    """The model digest in a bundle's manifest."""
    return str(json.loads((bundle / "likewise.json").read_bytes())["digest"])


def build_of(bundle: Path) -> str:
    """The build digest in a bundle's manifest."""
    return str(json.loads((bundle / "likewise.json").read_bytes())["build"])
