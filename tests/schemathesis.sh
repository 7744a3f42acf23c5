#!/usr/bin/env bash
# Asks the real server, on a real broker, what its OpenAPI document allows and forbids, and demands that every answer is one
# that the document has: no 5xx, no undocumented status, no schema violation. The tool is Schemathesis (PyPI), kept in target/schemathesis.
#
# Why it exists: a document that is generated from the code can still lie about what the code does; only requests that nobody
# thought of show it.
#
# usage: tests/broker.sh run -- tests/schemathesis.sh [SECONDS]     (60; SEED=n repeats a run, ST="…" adds options of `st run`)
set -euo pipefail

version=4.32.5
seconds=${1:-60}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
tools=$repository/target/schemathesis
: "${KAFKA_BOOTSTRAP_SERVERS:?it is not set: run this with tests/broker.sh run -- tests/schemathesis.sh}"

say() { printf 'schemathesis.sh: %s\n' "$*" >&2; }

if ! "$tools/bin/st" --version 2>/dev/null | grep -qF "$version"; then
    rm -rf "$tools"
    if ! { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet "schemathesis==$version"; }; then
        say "needs Python 3.10 or later with venv (Debian, Ubuntu: apt-get install python3-venv) and the package index"
        exit 1
    fi
fi

${CARGO:-cargo} build --locked --features failpoints --quiet
binary=$repository/target/debug/postrider

folder=$(mktemp -d "${TMPDIR:-/tmp}/postrider-schemathesis.XXXXXX")
server=
cleanup() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap cleanup EXIT

prefix=schemathesis.$$.$(date +%s).
token=prt_schemathesis
sha256=$(printf %s "$token" | "$tools/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
port=$("$tools/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$folder/postrider.toml" <<TOML
kafka.bootstrap_servers = "$KAFKA_BOOTSTRAP_SERVERS"
kafka.group_id = "${prefix}postrider"
kafka.topic_prefix = "${prefix}postrider."
kafka.replication_factor = 1
kafka.dispatch_partitions = 2
kafka.delay_partitions = 1
kafka.dead_letter_partitions = 1
kafka.held_partitions = 1
intake.topics = ["${prefix}events.alerts"]
intake.start = "earliest"
web.listen = "127.0.0.1:$port"
web.telemetry_listen = "127.0.0.1:0"
web.tokens = [{ name = "schemathesis", role = "admin", sha256 = "$sha256" }]
web.max_webhooks_per_customer = 100000
secrets.key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
history.store = "sqlite:$folder/history.db"
TOML
# Source topics are their producers', and never created by the router. So one comes from a second set of our own topics, of
# which any will do.
POSTRIDER__KAFKA__TOPIC_PREFIX="${prefix}events." POSTRIDER__INTAKE__TOPICS=none "$binary" --config "$folder/postrider.toml" topics apply >/dev/null
# Without `deliver` nothing is sent to the URLs that are made up.
"$binary" --config "$folder/postrider.toml" run --stages route,release >"$folder/log" 2>&1 &
server=$!

api=http://127.0.0.1:$port/api/v1/openapi.json
for _ in $(seq 300); do
    if "$tools/bin/python" -c "import urllib.request as u; u.urlopen('$api', timeout=1)" 2>/dev/null; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; say "the server ended"; exit 1; }
    sleep 0.2
done

"$tools/bin/python" - "${api%openapi.json}webhooks/" "$token" <<'PYTHON'
import sys, urllib.request
body = b'{"id": "wh_there", "url": "https://example.com/", "event_types": ["job.*"], "secret": "generate"}'
headers = {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, headers), timeout=30)
PYTHON

code=0
# shellcheck disable=SC2086 # ST is a list of options
cd "$folder" # where the tool keeps its notes
"$tools/bin/st" --config-file "$repository/tests/schemathesis.toml" run "$api" --no-color \
    --header "Authorization: Bearer $token" \
    --max-time "$seconds" --seed "${SEED:-$RANDOM}" --generation-database none ${ST:-} || code=$?
if ! kill -0 "$server" 2>/dev/null; then
    say "the server died"
    code=1
fi
if grep -q 'panicked at' "$folder/log"; then
    grep -A3 'panicked at' "$folder/log" >&2
    say "the server panicked"
    code=1
fi
exit "$code"
