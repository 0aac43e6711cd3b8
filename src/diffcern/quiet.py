"""What other libraries print while they read a model: bars of a millisecond, and remarks that no user can act on.

What matters of them our own checks say, as errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_reading() -> Iterator[None]:
    """diffusers and transformers say nothing but errors while this lasts, and show no bars; then as before."""
    from diffusers.utils import logging as of_diffusers  # slow to import, and imported anyhow where it matters
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level, shown in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if shown:
                library.enable_progress_bar()
