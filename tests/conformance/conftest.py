"""What pytest must know of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.spy import SpyFolder

collect_ignore = ["outside_target"]  # another package's tests, which test_outside_target.py runs as their owner does


@pytest.fixture(scope="module")
def spies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpyFolder]:
    """Spy models, made on first use."""
    from tests.support.spy import SpyFolder

    folder = SpyFolder(tmp_path_factory.mktemp("spies"))
    yield folder
    folder.close()
