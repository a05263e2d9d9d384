#!/bin/sh
# Installs programs that are missing, with the system's package manager, and says so.
#
#   packages.sh must|may PROGRAM=PACKAGE[,PACKAGE]…
#
# Looks for each PROGRAM (also where servers' programs are) and does nothing else where all are there. `must` fails when one cannot be
# had, `may` says which and goes on. Installs as root only: no password is asked for, no sudo is called.
#
# A server that is installed here is for tests, which start their own on their own ports: it is neither started nor
# enabled, and PostgreSQL gets no cluster. One that was there before is not touched.
set -eu
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done

need=$1
shift

missing= packages=
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || {
        missing="$missing ${pair%%=*}"
        packages="$packages $(echo "${pair#*=}" | tr , ' ')"
    }
done
[ -n "$missing" ] || exit 0

# Says what cannot be had, and ends as `need` says.
without() {
    echo "missing:$missing ($1)" >&2
    if [ "$need" = must ]; then
        echo "install:$packages" >&2
        exit 1
    fi
    echo "going on without: what needs them says so and is skipped" >&2
    exit 0
}

command -v apt-get >/dev/null || without "there is no apt-get here to install them with"
[ "$(id -u)" = 0 ] || without "as root: apt-get install$packages"

echo "missing:$missing; installing with apt-get:$packages"
export DEBIAN_FRONTEND=noninteractive

# What was put in the way of servers, and is taken back in any case.
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf
ours= saved=
restore() {
    if [ -n "$ours" ]; then rm -f "$policy"; fi
    if [ -n "$saved" ]; then mv "$saved" "$clusters"; fi
}
trap restore EXIT
trap 'exit 1' HUP INT TERM

install() {
    apt-get install --quiet=2 --yes --no-install-recommends --option Dpkg::Use-Pty=0 "$@" </dev/null
}

# Debian asks this file before it starts a server: 101 is no.
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    ours=yes
fi

apt-get update --quiet=2 || without "apt-get update failed"
case " $packages " in
*" postgresql "*)
    install postgresql-common || without "apt-get could not install them"
    saved=$(mktemp)
    cp -p "$clusters" "$saved"
    echo 'create_main_cluster = false' >>"$clusters"
    ;;
esac
# The list is of words.
# shellcheck disable=SC2086
install $packages || without "apt-get could not install them"

# An enabled server would start with the machine.
for package in $packages; do
    case $package in nginx | redis-server | postgresql | pgbouncer) update-rc.d "$package" disable ;; esac
done
