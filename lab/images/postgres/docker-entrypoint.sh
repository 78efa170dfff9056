#!/bin/sh
# First start with an empty data folder: create the cluster, its user and database, then run the init files.
set -eu

from_file() { # from_file VARIABLE DEFAULT: the value of VARIABLE, or the content of the file VARIABLE_FILE names
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$file" ]; then value=$(cat "$file"); fi
    printf '%s' "${value:-$2}"
}

initialise() {
    user=$(from_file POSTGRES_USER postgres)
    database=$(from_file POSTGRES_DB "$user")
    password=$(from_file POSTGRES_PASSWORD '')
    if [ -z "$password" ]; then
        echo 'POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE is required to create a database' >&2
        exit 1
    fi
    # initdb wants a name for its user: on Kubernetes its number is one the image does not know.
    if ! getent passwd "$(id -u)" > /dev/null; then
        for library in /usr/lib/*/libnss_wrapper.so; do export LD_PRELOAD="$library"; done
        NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=$(mktemp)
        export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
        echo "postgres:x:$(id -u):$(id -g)::$PGDATA:/bin/false" > "$NSS_WRAPPER_PASSWD"
        echo "postgres:x:$(id -g):" > "$NSS_WRAPPER_GROUP"
    fi
    password_file=$(mktemp)
    printf '%s\n' "$password" > "$password_file"
    # shellcheck disable=SC2086
    initdb --username="$user" --pwfile="$password_file" --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    rm -f "$password_file"
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
    if [ "$database" != postgres ]; then createdb --username="$user" "$database"; fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sql) psql -v ON_ERROR_STOP=1 --username="$user" --dbname="$database" -f "$file" ;;
            *.sh) . "$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
}

if [ "${1:-}" = postgres ]; then
    [ -s "$PGDATA/PG_VERSION" ] || initialise
    set -- "$@" -c "listen_addresses=*"
fi
exec "$@"
