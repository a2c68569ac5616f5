"""Fixtures that the tests of Spark share, created once per run: a local session, a cluster, and small bundles."""

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
    """Skips a test if the Java that Spark needs is not installed."""
    try:
        require_java()
    except MissingExtra as error:
        pytest.skip(f"cannot test spark: it needs Java 17 or newer ({error.cause})")


@pytest.fixture(scope="session")
def spark(java: None, tmp_path_factory: pytest.TempPathFactory, while_group_runs: ExitStack) -> Any:
    """A local session with two cores."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in java_env(tmp_path_factory.mktemp("spark")).items():
            patch.setenv(name, value)
        created, _ = session("local[2]", CONF)
    created.sparkContext.setLogLevel("ERROR")
    while_group_runs.callback(created.stop)
    return created


@pytest.fixture(scope="session")
def spark_cluster(java: None, tmp_path_factory: pytest.TempPathFactory, while_group_runs: ExitStack) -> Cluster:
    """A master and two workers of one core each."""
    return while_group_runs.enter_context(cluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A pipeline with a compiled classifier of random weights."""
    return api.open_bundle(classifier_bundle(tmp_path_factory.mktemp("text") / "bundle", compiled=True))


@pytest.fixture(scope="session")
def code_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A pyfunc, for tests that do not read its log."""
    return logging_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture
def logging_model(tmp_path: Path) -> api.Bundle:
    """A pyfunc that logs the texts that it predicts to the test's folder."""
    return logging_bundle(tmp_path)
