#!/usr/bin/env bash
# Runs a command beside `moto`, a server of S3 that is not ours, with an empty bucket; its address is in STRONGROOM_TEST_S3, and its
# keys are where the AWS tools look for them.
#
#   .ci/moto.sh COMMAND…
#
# The Python environment lies in the target folder and is made once.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
venv="${CARGO_TARGET_DIR:-$root/target}/moto"
version='5.1.*'

if [ ! -x "$venv/bin/moto_server" ]; then
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    # Not all that its extra `server` asks for: the rest serves other services of AWS, and takes three times as long.
    "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "moto[s3]==$version" flask flask-cors
fi

log="$(mktemp)"
port="$(mktemp)"
# One request at a time: by itself it looks and then puts, and on a machine that has much to do several puts of one name win.
"$venv/bin/python" - "$port" >"$log" 2>&1 <<'PY' &
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def in_turn(environ, start_response):
    with turn:
        return list(moto(environ, start_response))


# A port that is free, held from then on.
server = make_server("127.0.0.1", 0, in_turn, threaded=True)
with open(sys.argv[1], "w") as told:
    print(server.port, file=told)
server.serve_forever()
PY
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$log" "$port"' EXIT

for _ in $(seq 300); do
    endpoint="http://127.0.0.1:$(cat "$port")"
    if python3 - "$endpoint/bucket" 2>/dev/null <<'PY'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="PUT"), timeout=5)
PY
    then
        started=yes
        break
    fi
    if ! kill -0 "$server" 2>/dev/null; then
        break
    fi
    sleep 0.1
done
if [ -z "${started:-}" ]; then
    echo "moto did not start:" >&2
    cat "$log" >&2
    exit 1
fi

export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
export STRONGROOM_TEST_S3="s3://bucket?endpoint=$endpoint"
"$@"
