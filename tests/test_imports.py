"""What takes seconds to import is imported when it is used: a list, a report and a command's help need no network."""

import subprocess
import sys

import pytest

SLOW = ("diffusers", "transformers", "timm", "peft", "scipy.stats", "torchvision", "datasets", "sklearn", "matplotlib")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "without"),
    [
        ("from diffcern.cli import main", ("torch", "pyarrow", *SLOW)),
        ("from diffcern.cli.listing import _catalogue; _catalogue()", SLOW),
        ("import diffcern.priors, diffcern.predictors, diffcern.data", SLOW),
    ],
    ids=["command line", "list", "models and data"],
)
def test_nothing_slow_is_imported_before_it_is_used(lines, without):
    found = f"{lines}; import sys; print(*sorted(sys.modules.keys() & {set(without)}))"
    result = subprocess.run([sys.executable, "-c", found], check=True, capture_output=True, text=True)
    assert result.stdout.split() == []


def test_a_prior_of_our_own_is_still_there_by_name():
    from diffcern import priors
    from diffcern.priors.native import NativePrior

    assert priors.NativePrior is NativePrior
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = priors.Nobody
