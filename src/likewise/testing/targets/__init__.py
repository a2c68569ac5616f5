"""The conformance suite for targets.  All targets of Likewise pass it; other packages can run it for their own targets:

from likewise.testing.targets import TargetSuite, TargetUnderTest

class TestMine(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home):
        yield TargetUnderTest("mine", left=lambda: …)
"""

import pytest

pytest.register_assert_rewrite("likewise.testing.targets.suite")  # before its import: a failure shows its values

from likewise.testing.targets.callers import Callers, until  # noqa: E402
from likewise.testing.targets.suite import TargetSuite, TargetUnderTest  # noqa: E402

__all__ = ["Callers", "TargetSuite", "TargetUnderTest", "until"]
