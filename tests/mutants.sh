#!/usr/bin/env bash
# Shows that the suite can fail: each patch in tests/mutants breaks one promise, and the chaos suite must see it.
#
# Why it exists: a suite that stays green whatever is broken proves nothing. A patch opens with what it breaks; then
#   Chaos: NAME=VALUE ...   the size and the schedule at which it is seen (the same is run on the program as it is), or
#   Chaos: no               it is too rare a thing for chaos to meet; then the tests of `It` must see it
#   It: FILTER              integration tests that turn red too
#   Unit: FILTER            unit tests that turn red too
#
# Runs with bash 3.2 and later (macOS has 3.2).
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
target=${CARGO_TARGET_DIR:-$repository/target}
work=$target/mutants
cargo=${CARGO:-cargo}
chaos=chaos::every_event_ends_exactly_once_under_faults

usage() {
    cat <<'TEXT'
usage: tests/mutants.sh [NAME...]   those patches of tests/mutants, without .patch; all of them when none is named

Exit code 0 when every mutant turned the suite red, and the program as it is did not.
environment:
  ONLY=a,b            the same as naming them
  MORE=no             leave out the unit and integration tests that turn red too (those of It need
                      KAFKA_BOOTSTRAP_SERVERS: tests/broker.sh run -- tests/mutants.sh)
  CHAOS=no            leave the chaos suite out: only the tests of Unit and It
  CONTROL=no          do not run the program as it is first (for where that has just been done)
  EVENTS, SEED, ...   of the chaos suite, for all of them; what a patch asks for comes before it
What the runs say is kept in target/mutants/NAME.*.log
TEXT
}

say() { printf '%s\n' "mutants: $*"; }
fail() {
    say "$@" >&2
    exit 1
}

header() { sed -n "/^diff /q; s/^$2: *//p" "tests/mutants/$1.patch"; }

# Runs the suite on a program; what the suite says goes to a file.
suite() {
    local program=$1 log=$2 settings=$3
    # The settings are words: split them.
    env $settings POSTRIDER_BIN="$program" "$work/it" --exact "$chaos" --nocapture >"$log" 2>&1 </dev/null
}

# The suite itself is built from the tree as it is, and is kept aside: the mutants are built into the same folder, which
# spares building everything that they depend on.
build_suite() {
    local built
    renew
    built=$("$cargo" test --locked --features failpoints --test it --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -n 1) || fail "the suite does not build"
    [ -n "$built" ] || fail "cargo told of no test binary"
    mkdir -p "$work"
    cp "$built" "$work/it"
    cp "$target/debug/postrider" "$work/as-it-is"
}

plant() {
    local name=$1
    rm -rf "$work/tree"
    mkdir -p "$work/tree"
    # Every file gets the present for its time: cargo goes by that, and the last mutant's change must not stay in.
    renew
    git ls-files -z | tar --null -T - -cf - | tar -xmf - -C "$work/tree"
    patch -p1 -s -d "$work/tree" --no-backup-if-mismatch <"tests/mutants/$name.patch" ||
        fail "$name does not apply; make the patch anew"
    (cd "$work/tree" && CARGO_TARGET_DIR=$target "$cargo" build --locked --quiet --features failpoints --bin postrider) \
        >"$work/$name.build.log" 2>&1 || {
        tail -n 30 "$work/$name.build.log" >&2
        fail "$name does not build"
    }
    cp "$target/debug/postrider" "$work/$name"
}

# The lines in which the suite says what broke.
what_broke() {
    grep -A 1 -iE 'invariant|panicked at' "$1" | grep -v '^--' | head -n "${2:-4}" | cut -c 1-200 | sed 's/^/    /' || true
}

# Whether tests of the mutated tree turn red: $2 is `unit` or `it`, $3 the filter.
turns_red() {
    local name=$1 kind=$2 filter=$3 log=$work/$1.$2.log which=--lib
    [ "$kind" = unit ] || which="--test it"
    # Two words: split them.
    if (cd "$work/tree" && CARGO_TARGET_DIR=$target "$cargo" test --locked --quiet --features failpoints $which "$filter") \
        >"$log" 2>&1 </dev/null; then
        say "$name: THE TESTS STAY GREEN ($kind $filter)"
        return 1
    fi
    grep -q '^test result: FAILED' "$log" || fail "$name: the tests did not come to their end; see $log"
    say "$name: red: $(sed -n 's/^    \([a-z_]*::[a-z0-9_:]*\)$/\1/p' "$log" | sort -u | tr '\n' ' ')"
    what_broke "$log" 2
}

# To cargo the tree of a mutant and this one are the same package, and what it notes of one it believes of the other:
# without this it would take what was built of a mutant for what is here.
renew() { rm -rf "$target"/debug/.fingerprint/postrider-*; }

# Brings back the program that the last mutant's build replaced.
restore() {
    renew
    [ ! -e "$work/as-it-is" ] || cp "$work/as-it-is" "$target/debug/postrider"
}

case "${1:-}" in
    help | -h | --help)
        usage
        exit 0
        ;;
esac
names=$*
[ -n "$names" ] || names=$(printf '%s' "${ONLY:-}" | tr ',' ' ')
[ -n "$names" ] || names=$(cd tests/mutants && printf '%s ' *.patch | sed 's/\.patch / /g')
for name in $names; do
    [ -e "tests/mutants/$name.patch" ] || fail "there is no tests/mutants/$name.patch"
done

build_suite
trap restore EXIT
[ "${CHAOS:-yes}" = no ] || "$work/it" --list --exact "$chaos" | grep ': test$' >/dev/null || fail "the suite has no test $chaos"
green=
proved=
for name in $names; do
    settings=$(header "$name" Chaos)
    [ "${CHAOS:-yes}" != no ] || settings=no
    # A suite that is red already would prove nothing.
    if [ "$settings" != no ] && [ "${CONTROL:-yes}" != no ] && [ "${proved#*"[$settings]"}" = "$proved" ]; then
        say "the program as it is, ${settings:-usual size}"
        suite "$work/as-it-is" "$work/as-it-is.log" "$settings" || {
            what_broke "$work/as-it-is.log" >&2
            fail "the suite is red without any mutant; see $work/as-it-is.log"
        }
        proved="$proved[$settings]"
    fi
    plant "$name"
    if [ "$settings" != no ]; then
        started=$(date +%s)
        log=$work/$name.chaos.log
        if suite "$work/$name" "$log" "$settings"; then
            say "$name: THE SUITE STAYS GREEN"
            green="$green $name"
        elif ! grep -q '^seed .*: broken: ' "$log"; then
            # Red for another reason, such as a broker that did not start, proves nothing.
            fail "$name: the suite did not come to its end; see $log"
        else
            say "$name: red after $(($(date +%s) - started)) s"
            what_broke "$log"
        fi
    fi
    for kind in Unit It; do
        filter=$(header "$name" "$kind")
        [ -n "$filter" ] || continue
        [ "${MORE:-yes}" != no ] || [ "$settings$kind" = noIt ] || continue
        kind=$(printf '%s' "$kind" | tr UI ui)
        turns_red "$name" "$kind" "$filter" || green="$green $name($kind)"
    done
done
[ -z "$green" ] || fail "not seen:$green"
say "all of them were seen:" $names
