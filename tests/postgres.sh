#!/usr/bin/env bash
# A real PostgreSQL server for tests: one cluster in a temporary folder, reached by TCP on 127.0.0.1, user postgres, no password.
#
# Why it exists: what the history does with locks, restarts and types can only be tested on the real thing. It never skips: with no way to
# a server it says what to install and fails.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${POSTRIDER_POSTGRES_CACHE:-$repository/target/postgres}

usage() {
    cat <<'TEXT'
usage: tests/postgres.sh run -- COMMAND...  run COMMAND with DATABASE_URL set; its exit code is kept
       tests/postgres.sh start DIR          start a server that keeps everything in DIR; prints its URL
       tests/postgres.sh stop DIR           end it
       tests/postgres.sh restart DIR        start it again: same port, same data

`start` with POSTGRES_TLS=FOLDER, which holds server.pem and server.key, makes a server that takes connections by TLS only.
`run` uses the server of DATABASE_URL when that is set; its user must be allowed to create databases.
Otherwise, and always for `start`, the programs are those on the PATH, of Debian's /usr/lib/postgresql, or fetched by apt-get.
TEXT
}

say() { printf 'postgres.sh: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Sets `bin` to the folder of initdb, postgres and pg_ctl.
find_programs() {
    local folder
    for folder in "$(dirname "$(command -v pg_ctl || echo /nowhere/pg_ctl)")" /usr/lib/postgresql/*/bin \
        "$cache"/usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin; do
        if [ -x "$folder/pg_ctl" ] && [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            bin=$folder
            return
        fi
    done
    fetch || fail "the tests need a real PostgreSQL, and there is no way to one here. Set DATABASE_URL to a server that is up, or install
  it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql)"
    bin=$(echo "$cache"/usr/lib/postgresql/*/bin)
    [ -x "$bin/pg_ctl" ] || fail "the packages that apt-get fetched have no pg_ctl; install postgresql, or set DATABASE_URL"
}

# Debian's packages, unpacked without being installed.
fetch() {
    local version work
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    version=$(apt-cache search --names-only '^postgresql-[0-9]+$' | sed -E 's/^postgresql-([0-9]+).*/\1/' | sort -n | tail -1)
    [ -n "$version" ] || return 1
    say "fetching Debian's PostgreSQL $version (once)"
    mkdir -p "$cache"
    work=$(mktemp -d)
    (cd "$work" && apt-get download "postgresql-$version" libpq5 >/dev/null 2>&1) || return 1
    for package in "$work"/*.deb; do dpkg -x "$package" "$cache"; done
    rm -rf "$work"
}

# The server refuses to run as root.
as_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups \
            env HOME=/tmp LD_LIBRARY_PATH="$cache/usr/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"
    else
        "$@"
    fi
}

free_port() {
    local port try
    for ((try = 0; try < 50; try++)); do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || {
            echo "$port"
            return 0
        }
    done
    return 1
}

launch() {
    # -W and a loop of our own: pg_ctl's waiting needs libpq, and says less.
    as_user "$bin/pg_ctl" -D "$1/data" -l "$1/data/log" -w -t 30 start >"$1/pg_ctl.log" 2>&1 </dev/null || {
        cat "$1/pg_ctl.log" >&2
        tail -n 25 "$1/data/log" >&2 || true
        fail "PostgreSQL did not start (above)"
    }
}

# PostgreSQL refuses a key that others may read.
demand_tls() {
    cp "$2/server.pem" "$2/server.key" "$1/"
    chmod 600 "$1/server.key"
    [ "$(id -u)" != 0 ] || chown nobody "$1/server.pem" "$1/server.key"
    printf "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n" >>"$1/postgresql.conf"
    echo 'hostssl all all 127.0.0.1/32 trust' >"$1/pg_hba.conf"
}

start_server() {
    local folder=$1 port
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    [ ! -e "$folder/url" ] || fail "$folder holds a server already; \`restart\` starts it again"
    # The folders above may be closed to others (mktemp), so that `nobody` needs a way in.
    chmod a+rx "$folder"
    mkdir "$folder/data"
    [ "$(id -u)" != 0 ] || chown nobody "$folder/data"
    (cd / && as_user "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$folder/initdb.log" 2>&1) || {
        cat "$folder/initdb.log" >&2
        fail "initdb failed (above)"
    }
    port=$(free_port) || fail "no free port between 20000 and 32000"
    cat >>"$folder/data/postgresql.conf" <<TEXT
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
fsync = off
max_connections = 200
shared_buffers = 32MB
TEXT
    [ -z "${POSTGRES_TLS:-}" ] || demand_tls "$folder/data" "$POSTGRES_TLS"
    (cd / && launch "$folder")
    echo "postgres://postgres@127.0.0.1:$port/postgres" >"$folder/url"
}

stop_server() { (cd / && as_user "$bin/pg_ctl" -D "$1/data" -m immediate -w stop >/dev/null 2>&1) || true; }

restart_server() {
    stop_server "$1"
    (cd / && launch "$1")
}

run() {
    local code=0
    [ -z "${DATABASE_URL:-}" ] || exec "$@"
    find_programs
    folder=$(mktemp -d "${TMPDIR:-/tmp}/postrider-postgres.XXXXXX")
    trap 'stop_server "$folder"; rm -rf "$folder"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    start_server "$folder"
    DATABASE_URL=$(cat "$folder/url") "$@" || code=$?
    exit "$code"
}

case "${1:-}" in
    run)
        [ "${2:-}" = -- ] && [ $# -ge 3 ] || { usage >&2; exit 2; }
        shift 2
        run "$@"
        ;;
    start | stop | restart)
        [ $# = 2 ] && [ -n "$2" ] || { usage >&2; exit 2; }
        find_programs
        [ "$1" = start ] || [ -e "$2/url" ] || fail "there is no server in $2"
        "$1_server" "$2"
        [ "$1" != start ] || cat "$2/url"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
