#!/bin/bash
# What the official image's entry point does, for the settings that this project uses.
set -Eeuo pipefail

secret() { # secret NAME: the value of NAME, or of the file that NAME_FILE names
    local file="${1}_FILE"
    if [ -n "${!file:-}" ]; then cat -- "${!file}"; else printf '%s' "${!1:-}"; fi
}

initialise() {
    local user="${POSTGRES_USER:-postgres}" database password
    database="${POSTGRES_DB:-$user}"
    password="$(secret POSTGRES_PASSWORD)"
    if [ -z "$password" ]; then
        echo "error: the superuser needs a password: set POSTGRES_PASSWORD_FILE" >&2
        exit 1
    fi
    local arguments=()
    read -r -a arguments <<<"${POSTGRES_INITDB_ARGS:-}"
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") "${arguments[@]}"
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"

    export PGPASSWORD="$password" PGHOST=/var/run/postgresql PGUSER="$user"
    pg_ctl -D "$PGDATA" -w start -o "$(printf '%q ' "${@:2}" -c listen_addresses= -p 5432)"
    if [ "$database" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --no-psqlrc -d postgres -v database="$database" \
            <<<'CREATE DATABASE :"database";'
    fi
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
            *.sh) bash "$script" ;;
            *.sql) psql -v ON_ERROR_STOP=1 --no-psqlrc -d "$database" -f "$script" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD PGHOST PGUSER
}

if [ "${1:-}" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA"
        chmod 700 "$PGDATA"
        find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
        exec gosu postgres "$BASH_SOURCE" "$@"
    fi
    mkdir -p "$PGDATA"
    # An initialisation that was cut off left its mark, and nothing of anybody's: it starts over.
    marker="$(dirname "$PGDATA")/.$(basename "$PGDATA").initialising"
    if [ -e "$marker" ] || [ ! -s "$PGDATA/PG_VERSION" ]; then
        if [ -e "$marker" ]; then find "${PGDATA:?}" -mindepth 1 -delete; fi
        touch "$marker" 2>/dev/null || echo "note: a cut-off start cannot be told here" >&2
        initialise "$@"
        rm -f "$marker"
    fi
fi
exec "$@"
