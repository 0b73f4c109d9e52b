"""Test dirty files: a reader refuses them in one sentence, or counts what it dropped."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from experiments.soak.fuzz import READERS, check

# By command far more: python -m experiments.soak --parts=fuzz
_FILES = 2_000 // len(READERS) + 1


@pytest.mark.parametrize("name", READERS)
def test_no_file_is_lost_silently(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name)
    ends = []

    @settings(
        max_examples=_FILES, derandomize=True, database=None, deadline=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(READERS[name][2])
    def feed(data):
        ends.append(check(name, data, folder))

    feed()
    assert len(ends) >= _FILES and "refused" in ends
    assert name in ("config", "adapted") or ends.count("read") > 7, "hardly a file is any good"
