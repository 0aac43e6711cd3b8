"""Which share of the demo's time is spent outside the denoiser?

    python benchmarks/outside.py [--count 20]

`diffcern bench digits` in this process, start to report. Inside: the prior's forward passes, and the backward passes
through it. The rest: before the first of them (imports, models), after the last (the report), and between (the
predictor's own passes and steps, draws, records).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="images of each shift")
    options = parser.parse_args()
    import torch

    from diffcern.priors.base import Prior

    inside, first, last = 0.0, 0.0, 0.0
    forward, grad = Prior.forward, torch.autograd.grad

    def timed_forward(self: Prior, *given: Any) -> Any:
        nonlocal inside, first, last
        begin = time.perf_counter()
        answer = forward(self, *given)
        last = time.perf_counter()
        inside, first = inside + last - begin, first or begin
        return answer

    def timed_grad(*given: Any, **how: Any) -> Any:
        nonlocal inside
        begin = time.perf_counter()
        answer = grad(*given, **how)
        if sys._getframe(1).f_code.co_filename.endswith("likelihood.py"):
            inside += time.perf_counter() - begin
        return answer

    Prior.forward, torch.autograd.grad = timed_forward, timed_grad  # type: ignore[method-assign,assignment]
    from diffcern.cli import main as command

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sys.argv = ["diffcern", "bench", "digits", "--set", f"data.count={options.count}", "--out", str(out)]
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise
    total = time.perf_counter() - BEGIN
    before, after = first - BEGIN, BEGIN + total - last
    between = total - inside - before - after
    print(f"{total:.1f} s, of which {inside:.1f} in the denoiser: {100 * (1 - inside / total):.0f} % outside")
    print(f"{before:.1f} s before the first question, {after:.1f} after the last, {between:.1f} between")


if __name__ == "__main__":
    main()
