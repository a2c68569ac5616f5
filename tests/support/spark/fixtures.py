"""What the tests of Spark share, once a run: a local session, a standalone cluster, a small bundle."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.classifier import classifier_bundle
from tests.support.spark.bundles import logging_bundle
from tests.support.spark.cluster import Cluster, cluster, java_env

from likewise import api
from likewise.core.errors import MissingExtra
from likewise.targets.spark.session import require_java, session

CONF = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1", "spark.speculation": "true"}


@pytest.fixture(scope="session")
def java() -> None:
    """The Java that Spark needs; without it a test is skipped."""
    try:
        require_java()
    except MissingExtra as error:
        pytest.skip(f"cannot test spark: it needs Java 17 or newer ({error.cause})")


@pytest.fixture(scope="session")
def spark(java: None, tmp_path_factory: pytest.TempPathFactory, while_group_runs: ExitStack) -> Any:
    """A session on two cores of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in java_env(tmp_path_factory.mktemp("spark")).items():
            patch.setenv(name, value)
        made, _ = session("local[2]", CONF)
    made.sparkContext.setLogLevel("ERROR")
    while_group_runs.callback(made.stop)
    return made


@pytest.fixture(scope="session")
def spark_cluster(java: None, tmp_path_factory: pytest.TempPathFactory, while_group_runs: ExitStack) -> Cluster:
    """A master and two workers of one core each."""
    return while_group_runs.enter_context(cluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A compiled classifier of random weights in a pipeline."""
    return api.open_bundle(classifier_bundle(tmp_path_factory.mktemp("text") / "bundle", compiled=True))


@pytest.fixture(scope="session")
def code_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A pyfunc, for tests that do not look at its log."""
    return logging_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture
def logging_model(tmp_path: Path) -> api.Bundle:
    """A pyfunc of this test's own that logs what it is asked into the test's folder."""
    return logging_bundle(tmp_path)
