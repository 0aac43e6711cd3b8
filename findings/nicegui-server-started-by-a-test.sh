#!/usr/bin/env bash
# A NiceGUI app that any pytest test starts as a process of its own does not start: it takes itself for a test of NiceGUI.
#
# ui.run() looks for PYTEST_CURRENT_TEST, which pytest puts into the environment, and which child processes inherit. A
# server that a browser test starts by subprocess, as it would start any other, then reads the port from
# NICEGUI_SCREEN_TEST_PORT in place of its argument, and ends with a KeyError where there is none; with that set, it
# listens there and not on the port that it was given. Without PYTEST_CURRENT_TEST it starts. NiceGUI 3.18.0.
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "nicegui==3.18.0" "pytest==9.0.1"
cat > "$place/app.py" <<'END'
from nicegui import ui

@ui.page("/")
def page() -> None:
    ui.label("hello")

ui.run(host="127.0.0.1", port=27641, show=False, reload=False)
END
cat > "$place/test_app.py" <<'END'
import os, subprocess, sys, time, urllib.request
from pathlib import Path
import pytest

APP = [sys.executable, str(Path(__file__).with_name("app.py"))]

def answers(port: int, **environment: str) -> str:
    given = {**{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}, **environment}
    process = subprocess.Popen(APP, env=given, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for _ in range(100):
            if process.poll() is not None:
                return process.stderr.read().strip().splitlines()[-1]
            try:
                return "hello" if "hello" in urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2).read().decode() else "?"
            except OSError:
                time.sleep(0.2)
        return "nothing"
    finally:
        process.kill()
        process.wait()

def test_it() -> None:
    inherited = {"PYTEST_CURRENT_TEST": os.environ["PYTEST_CURRENT_TEST"]}
    print("\nwithout pytest's variable:", answers(27641))
    print("as a test's child:", answers(27641, **inherited))
    print("and with the other port set, there:", answers(27642, **inherited, NICEGUI_SCREEN_TEST_PORT="27642"))
END
python -c 'import nicegui; print("nicegui", nicegui.__version__)'
cd "$place" && pytest -q -s test_app.py | tee "$place/said"
grep -q "without pytest's variable: hello" said && grep -q "as a test's child: KeyError: 'NICEGUI_SCREEN_TEST_PORT'" said \
    && grep -q "the other port set, there: hello" said || { echo "the finding no longer holds"; exit 1; }
echo "still so"
