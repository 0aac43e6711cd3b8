"""What jobs that load models have in common: where and how they are loaded, and the seed."""

from __future__ import annotations

from typing import Any

from pydantic.dataclasses import dataclass

from diffcern.fields import AllowPickle, Compile, Device, Dtype, Seed
from diffcern.jobs.base import CHECKED, Job


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OnModels(Job):
    """dtype, compile: of the prior's network."""

    device: Device = "auto"
    dtype: Dtype = "float32"
    compile: Compile = False
    allow_pickle: AllowPickle = False
    seed: Seed = 0

    def named(self, **others: Any) -> dict[str, Any]:
        """These fields of `spec.Models`, and others: names of models, and what else is said of them."""
        return {**others, "dtype": self.dtype, "compile": self.compile, "allow_pickle": self.allow_pickle}
