"""Where a processor emulates bfloat16: it is said, and what ships does without."""

import pytest
import torch

from diffcern import devices
from diffcern.cli.demo import _dtype
from diffcern.devices import multiplies_bfloat16

SPEC = """
name = "few"
seed = 0
[data]
dataset = "embedded:digits"
count = 1
[models]
predictor = "embedded:digits"
dtype = "bfloat16"
[entries.source]
method = "source"
"""


@pytest.fixture
def processor(monkeypatch):
    return lambda *flags: monkeypatch.setattr(devices, "processor_flags", lambda: set(flags))


@pytest.mark.parametrize(
    ("flags", "native"), [(["avx2"], False), (["avx2", "avx512_bf16"], True), (["asimd", "bf16"], True), ([], None)]
)
def test_flags_tell(flags, native, processor):
    processor(*flags)
    assert multiplies_bfloat16(torch.device("cpu")) is native
    assert _dtype() == (() if native else ("models.dtype=float32",))
    assert multiplies_bfloat16(torch.device("mps")) is None


@pytest.mark.parametrize(("flag", "said"), [("avx2", True), ("amx_bf16", False)])
def test_a_bench_says_that_it_is_slow(flag, said, processor, cli, tmp_path):
    processor(flag)
    (tmp_path / "few.toml").write_text(SPEC)
    code, _, err = cli("bench", tmp_path / "few.toml", "--device", "cpu", "--out", tmp_path / "run")
    assert code == 0
    assert ("--set models.dtype=float32" in err) == said
