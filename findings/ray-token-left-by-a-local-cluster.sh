#!/usr/bin/env bash
# After one local ray.init() in Python, `ray start --address` no longer joins a head that `ray start --head` began here.
#
# In a fresh home both commands, as printed by Ray itself, make a cluster of two nodes. A local ray.init() writes a token
# to ~/.ray/auth_token. From then on `ray start --head` finds it and asks every node for it, while `ray start --address`
# of the same user, in the same home, runs without one ("RAY_AUTH_MODE is currently 'disabled'") and fails with
# AuthenticationError. With RAY_AUTH_MODE=token set, it reads the very same file and joins. Ray 2.60.0.
set -euo pipefail
place=$(mktemp -d)
trap 'HOME="$place/home" ray stop --force >/dev/null 2>&1 || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "ray==2.60.0"
export HOME="$place/home" RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_ADDRESS || true
mkdir "$HOME"
port=26399

join() {  # whether a second node joins a head that was begun with defaults; $1: environment of the second node
    ray start --head --port=$port --num-cpus=1 --include-dashboard=false >"$place/head.log" 2>&1
    if env $1 timeout 120 ray start --address=127.0.0.1:$port --num-cpus=1 >"$place/join.log" 2>&1; then echo joins; else echo fails; fi
    ray stop --force >/dev/null 2>&1 || true
}

echo "ray $(python -c 'import ray; print(ray.__version__)')"
fresh=$(join "A=1"); echo "fresh home: the second node $fresh"
python -c "import ray; ray.init(address='local', num_cpus=1, log_to_driver=False); ray.shutdown()" >/dev/null 2>&1
ls "$HOME/.ray"
after=$(join "A=1"); echo "after a local ray.init(): the second node $after"
grep -o "AuthenticationError.*RAY_AUTH_MODE is currently '[a-z]*'" "$place/join.log" | head -1 || true
token=$(join "RAY_AUTH_MODE=token"); echo "with RAY_AUTH_MODE=token for it: the second node $token"
[[ "$fresh $after $token" == "joins fails joins" ]] || { echo "the finding no longer holds"; exit 1; }
echo "still so"
