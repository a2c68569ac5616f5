"""What the tests of Spark share: one local session, two small bundles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.process.spark_room import logging_bundle, text_bundle

from likewise import api
from likewise.targets.spark.session import session

CONF = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1", "spark.speculation": "true"}


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session on two cores of this machine."""
    made, own = session("local[2]", CONF)
    made.sparkContext.setLogLevel("ERROR")
    yield made
    if own:
        made.stop()


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A compiled classifier of random weights in a pipeline."""
    return text_bundle(tmp_path_factory.mktemp("text"))


@pytest.fixture
def logging_model(tmp_path: Path) -> api.Bundle:
    """A pyfunc of this test's own that logs what it is asked into the test's folder."""
    return logging_bundle(tmp_path)
