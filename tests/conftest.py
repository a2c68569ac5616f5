"""What every test may ask for."""

from __future__ import annotations

import pytest
from tests.process.sentiment_store import Store, make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The chapter's two models in an MLflow store: trained once a session, small."""
    return make_store(tmp_path_factory.mktemp("store"))
