"""docs/parity.md: what was compared with what, and how far apart the two are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD = """# Parity

Every method against references that are written from the published equations: plain loops and autograd through
everything, on tiny networks with random weights, several images and several steps. No published code is in this
repository; what the published code does otherwise is named on each method's page, with an option where a table depends
on it, and measured below.

```bash
pytest tests/parity --parity docs/parity.md    # writes this page
```

"Apart" is the largest difference over the largest value of the reference, in fp32; of weights, of what they moved by. A
difference above the tolerance fails the test. Methods that ask a prior are compared for priors of eps, x0 and v.

| method | quantity | compared with | values | apart | tolerance |
|---|---|---|---:|---:|---:|
"""


@dataclass(frozen=True)
class Row:
    method: str
    quantity: str
    against: str
    values: int
    apart: float
    tolerance: float


def apart(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, over the largest value that was expected."""
    ours, expected = (torch.as_tensor(value).detach().double() for value in (ours, expected))
    assert ours.shape == expected.shape, (ours.shape, expected.shape)
    return float((ours - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def write_page(rows: Sequence[Row], path: Path) -> None:
    """The page, rows in the order of the tests; what stands behind the table in the file stays."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:  # of the three kinds of priors one line
        found.setdefault((row.method, row.quantity, row.against), []).append(row)
    table = "".join(
        f"| {' | '.join(key)} | {sum(row.values for row in own):,} | {max(row.apart for row in own):.0e} "
        f"| {max(row.tolerance for row in own):.0e} |\n"
        for key, own in found.items()
    )
    before = path.read_text() if path.exists() else ""
    rest = before[before.index("\n## ") :] if "\n## " in before else ""
    path.write_text(HEAD + table + rest)
