#!/usr/bin/env bash
# The tools that check dashboards and deployments, and that fuzz, fetched into target/tools; prints the path of the one that is asked for.
# usage: tests/tools.sh promtool | prometheus | helm | python | cargo-fuzz
# A tool on the PATH is taken as it is. It never skips: where a tool cannot be had it says what to install and fails.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$repository/target/tools
helm_version=v3.18.4
cargo_fuzz_version=0.13.2

say() { printf 'tools.sh: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Debian's package, unpacked without being installed.
from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "there is no $1; install Prometheus (https://prometheus.io/download/, Debian: apt-get install prometheus)"
    say "fetching Debian's package prometheus"
    mkdir -p "$tools/download"
    (cd "$tools/download" && rm -f prometheus_*.deb && apt-get download -q prometheus >&2 &&
        dpkg-deb -x prometheus_*.deb "$tools/prometheus") || fail "apt-get download prometheus did not work; is apt's list up to date (apt-get update)?"
}

from_go() {
    command -v go >/dev/null || fail "there is no $1 and no go to build it with; install $1 ($2)"
    say "building $1 $3 (once)"
    GOBIN=$tools/bin go install "$2@$3" >&2 || fail "go install $2@$3 did not work"
}

case ${1:-} in
    promtool | prometheus)
        if command -v "$1" >/dev/null; then command -v "$1" && exit; fi
        [ -x "$tools/prometheus/usr/bin/$1" ] || from_debian "$1"
        echo "$tools/prometheus/usr/bin/$1"
        ;;
    helm)
        if command -v helm >/dev/null; then command -v helm && exit; fi
        [ -x "$tools/bin/helm" ] || from_go helm helm.sh/helm/v3/cmd/helm "$helm_version"
        echo "$tools/bin/helm"
        ;;
    python)
        # With what the checks and pictures need.
        if [ ! -x "$tools/python/bin/python" ]; then
            say "making a Python environment (once)"
            python3 -m venv "$tools/python" >&2 || fail "python3 -m venv did not work; install Python 3.9 or later with venv"
        fi
        [ -e "$tools/python/ready" ] || {
            "$tools/python/bin/pip" install -q -r "$repository/tests/deploy/requirements.txt" >&2 || fail "pip install did not work"
            touch "$tools/python/ready"
        }
        echo "$tools/python/bin/python"
        ;;
    cargo-fuzz)
        if command -v cargo-fuzz >/dev/null; then command -v cargo-fuzz && exit; fi
        [ -x "$tools/bin/cargo-fuzz" ] || {
            say "building cargo-fuzz $cargo_fuzz_version (once)"
            cargo install --quiet --locked --root "$tools" "cargo-fuzz@$cargo_fuzz_version" >&2 || fail "cargo install cargo-fuzz did not work"
        }
        echo "$tools/bin/cargo-fuzz"
        ;;
    *) fail "usage: tests/tools.sh promtool | prometheus | helm | python | cargo-fuzz" ;;
esac
