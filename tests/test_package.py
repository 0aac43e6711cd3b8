import subprocess
import sys

import diffcern


def test_every_public_name_can_be_imported():
    assert sorted(diffcern._HOME) == sorted(diffcern.__all__)
    for name in diffcern.__all__:
        assert getattr(diffcern, name).__name__ == name if hasattr(getattr(diffcern, name), "__name__") else True
    assert set(diffcern.__all__) <= set(dir(diffcern))


def test_help_does_not_wait_for_torch():
    lines = [
        "import sys",
        "sys.argv = ['diffcern', '--help']",
        "from diffcern.cli import main",
        "try: main()",
        "except SystemExit: pass",
        "assert 'torch' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True)
