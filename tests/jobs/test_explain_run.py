"""The report says why the prior of a bench answers as it does."""

import re

import pytest

from diffcern.errors import UsageError
from diffcern.jobs.bench import Bench, report_on
from diffcern.jobs.explain_run import of_run
from diffcern.report.records import load
from diffcern.report.summary import summarise_run

SPEC = """
name = "few"
seed = 0
[data]
dataset = "embedded:digits"
count = 5
[models]
predictor = "embedded:digits"
prior = "embedded:digits"
[shifts]
names = ["contrast"]
severities = [5]
[entries.source]
method = "source"
[entries.classifier]
method = "diffusion-classifier"
options = { draws = 8, strategy = "van-der-corput" }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("few")
    (place / "few.toml").write_text(SPEC)
    Bench(spec=str(place / "few.toml"), device="cpu").carry_out(place / "run")
    return place / "run"


def explained(run):
    loaded = load(run)
    return of_run(loaded, summarise_run(loaded), 2, "cpu")


def test_the_report_explains_images_that_it_shows(run):
    page = report_on(run, explain=2)[1].read_text()
    found = re.findall(r'<article class="why".*?<h3 [^>]*>([^,]+), (\w+) 5, (\w+): (\d)</h3>', page, re.DOTALL)
    assert len(found) == 2
    for id, shift, kind, answer in found:
        assert id.startswith("digits-")
        assert shift == "contrast"
        assert kind in ("fixed", "broken", "wrong")
        assert f"Told &#39;{answer}&#39;, the prior" in page
    assert page.count("evaluations of the denoiser. Bars:") == 2
    assert '<article class="why"' not in report_on(run)[1].read_text()


def test_options_that_another_version_had_do_not_matter(run):
    spec = run / "spec.toml"
    whole = spec.read_text()
    spec.write_text(whole + '\n[entries.later]\nmethod = "canonical"\noptions = { unheard = 1 }\n')
    try:
        assert len(explained(run)) == 2
    finally:
        spec.write_text(whole)


def test_what_cannot_be_explained_is_said(run):
    spec = run / "spec.toml"
    whole = spec.read_text()
    spec.write_text(whole.replace('prior = "embedded:digits"\n', "", 1).split("[entries.classifier]")[0])
    try:
        with pytest.raises(UsageError, match="no bench of classes with a prior"):
            explained(run)
        spec.unlink()
        with pytest.raises(UsageError, match=r"no spec\.toml"):
            explained(run)
    finally:
        spec.write_text(whole)
    (run / "examples.parquet").rename(run / "kept")
    try:
        with pytest.raises(UsageError, match="no examples"):
            explained(run)
    finally:
        (run / "kept").rename(run / "examples.parquet")
