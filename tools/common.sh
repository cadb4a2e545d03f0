#!/bin/sh
# Shared by the scripts in this directory. POSIX sh, sourced from the checkout's root.

say() { printf '%s\n' "$*"; }

# fail MESSAGE ADVICE: one clear error, what to do next, and the end.
fail() {
    printf 'error: %s\n%s\n' "$1" "$2" >&2
    exit 2
}

as_root() { [ "$(id -u)" -eq 0 ]; }

on_debian() { as_root && command -v apt-get >/dev/null 2>&1; }

# apt_install PACKAGE...: quietly; the package lists are fetched only where they are too old.
apt_install() {
    say "installing $* (apt-get)"
    log=$(mktemp)
    if ! apt_quietly install "$@" >"$log" 2>&1; then
        apt_quietly update >>"$log" 2>&1 || true
        if ! apt_quietly install "$@" >>"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            return 1
        fi
    fi
    rm -f "$log"
}

apt_quietly() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
        --no-install-recommends "$@" </dev/null
}

# find_python: prints a Python of at least 3.11, or fails.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        "$candidate" -c 'import sys
sys.version_info >= (3, 11) or sys.exit(1)
print(sys.executable)' 2>/dev/null && return
    done
    fail "expected Python 3.11 or newer on PATH, found none" \
        "install it (Debian and Ubuntu: apt-get install python3 python3-venv) and run make again"
}
