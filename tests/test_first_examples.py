"""The first examples of nested samplers' own pages, as `benchmarks.first_examples` has them: their
functions, as they are, by `am.interop.nested.target`. What those packages themselves find is in
docs/results/first-examples.md."""

import pytest

from benchmarks.first_examples import EXAMPLES, ours

PUBLISHED = 235.88  # log Z of the egg box, by a fine integration


def test_the_truth_of_the_egg_box_is_the_published_one():
    assert EXAMPLES["ultranest"].log_z == pytest.approx(PUBLISHED, abs=0.03)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_evidence_is_the_known_one(name):
    found = ours(EXAMPLES[name], seed=0)
    assert found.log_z == pytest.approx(EXAMPLES[name].log_z, abs=4 * found.std_error + 1e-5)
    assert found.std_error < 0.1
    assert found.verdict in ("trusted", "use with correction")
