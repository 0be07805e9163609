#!/bin/sh
# Starts PostgreSQL as process 1; makes the database cluster first where there is none.
#
# Settings, as in the well-known image: POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE (needed for a new cluster),
# POSTGRES_USER (postgres), POSTGRES_DB (the user's name), PGDATA.
set -eu

case "${1:-postgres}" in
    postgres) [ $# -eq 0 ] || shift ;;
    -*) ;;              # options for postgres
    *) exec "$@" ;;     # another program, such as pg_dump
esac

# PostgreSQL refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" postgres "$@"
fi

fail() {
    echo "entrypoint: $1" >&2
    exit 1
}

password() {
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        [ -z "${POSTGRES_PASSWORD:-}" ] || fail "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, not both"
        cat "$POSTGRES_PASSWORD_FILE"
    else
        printf '%s' "${POSTGRES_PASSWORD:-}"
    fi
}

# Makes the cluster in $1.
initialize() {
    secret=$(password)
    [ -n "$secret" ] || fail "the new database cluster needs a password: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
    printf '%s\n' "$secret" | initdb --pgdata="$1" --username="$user" --pwfile=/dev/stdin \
        --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256
    printf '\nhost all all all scram-sha-256\nhost replication all all scram-sha-256\n' >> "$1/pg_hba.conf"
    printf "\nlisten_addresses = '*'\n" >> "$1/postgresql.conf"
    if [ "$database" != postgres ]; then
        # In single-user mode nobody else can be connected. A quote in an identifier is written twice.
        quoted=$(printf '%s' "$database" | sed 's/"/""/g')
        echo "CREATE DATABASE \"$quoted\"" | postgres --single -D "$1" -j -c exit_on_error=true postgres > /dev/null
    fi
}

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A start that is killed in the middle leaves no half-made cluster: it gets its name when it is whole.
    unfinished="$PGDATA.unfinished"
    rm -rf "$unfinished"
    mkdir -p "$(dirname "$PGDATA")"
    initialize "$unfinished"
    [ ! -d "$PGDATA" ] || rmdir "$PGDATA" || fail "$PGDATA is neither a database cluster nor an empty folder below a volume"
    mv "$unfinished" "$PGDATA"
    sync
fi
# A volume that is mounted with an fsGroup comes back writable for the group, which PostgreSQL refuses.
chmod 0700 "$PGDATA"
unset POSTGRES_PASSWORD
exec postgres "$@"
