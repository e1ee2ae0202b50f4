#!/bin/sh
# Create .venv from the pinned requirements; with --dev, what checks and tests need too.
# A second run with nothing changed is a no-op. The stamp is written last: an interrupted run is repaired by the next.
set -eu
cd "$(dirname "$0")/.."

dev=no
case "${1-}" in
  --dev) dev=yes ;;
  "") ;;
  *) echo "usage: scripts/setup.sh [--dev]" >&2; exit 2 ;;
esac

venv=.venv
stamp=$venv/smartflow-stamp
unfinished=$venv/smartflow-unfinished
# The folder counts: a moved environment's programs still point to where it was made.
wanted="$(cat requirements.txt requirements-dev.txt | cksum) $PWD"
stamped= had_dev=no had_driver=no
if [ -f "$stamp" ]; then
  { read -r stamped; read -r had_dev; read -r had_driver; } < "$stamp" || stamped=
fi

fail() { echo "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- What is here? ---------------------------------------------------------------------------------------------------

find_python() {
  for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
    have "$candidate" || continue
    "$candidate" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null && return
  done
  found=$(python3 --version 2>/dev/null) || found="no Python"
  fail "Python 3.11 or newer is needed, here is $found. Install it so that python3 or python3.11 finds it."
}

# Why mysqlclient cannot be built; empty when it can. It has no Linux wheel.
driver_obstacle() {
  have cc || have gcc || have clang || { echo "no C compiler"; return; }
  for package in mysqlclient mariadb libmariadb perconaserverclient; do
    have pkg-config && pkg-config --exists "$package" && return
  done
  echo "no MySQL or MariaDB headers that pkg-config finds"
}

# --- Is there anything to do? ----------------------------------------------------------------------------------------

if [ "$stamped" = "$wanted" ] && [ -x "$venv/bin/python" ] && { [ $dev = no ] || [ "$had_dev" = yes ]; }; then
  # A driver that was left out is added as soon as it can be built.
  [ "$had_driver" = no ] && [ -z "$(driver_obstacle)" ] || exit 0
fi
[ "$had_dev" = yes ] && dev=yes

# --- Create ----------------------------------------------------------------------------------------------------------

python=$(find_python)
echo "Setting up $venv ($("$python" --version))"

create() {
  rm -rf "$venv"
  if have uv; then
    uv venv --quiet --no-python-downloads --python "$python" "$venv"
  else
    "$python" -m ensurepip --version >/dev/null 2>&1 || add_ensurepip
    "$python" -m venv "$venv"
  fi
}

# Debian keeps ensurepip in a package of its own.
add_ensurepip() {
  if [ "$(id -u)" = 0 ] && have apt-get; then
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install python3-venv; } </dev/null >/dev/null && return
  fi
  fail "Python cannot create environments with pip here. On Debian or Ubuntu: apt-get install python3-venv"
}

is_usable() {
  [ -x "$venv/bin/python" ] && [ ! -e "$unfinished" ] || return 1
  [ -z "$stamped" ] || [ "${stamped#* * }" = "$PWD" ] || return 1
  "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

is_usable || create
rm -f "$stamp"
: > "$unfinished"

# --- Install ---------------------------------------------------------------------------------------------------------

copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cp requirements.txt requirements-dev.txt "$copies"

without_driver() {
  awk '/^mysqlclient==/ { skip = 1; next } /^[^ ]/ { skip = 0 } !skip' requirements.txt > "$copies/requirements.txt"
  echo "MySQL driver left out ($1), SQLite works: on Debian" \
    "\`apt-get install gcc python3-dev pkg-config default-libmysqlclient-dev\`, then scripts/setup.sh again."
}

has_headers() {
  "$venv/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

driver=yes
obstacle=$(driver_obstacle)
[ -n "$obstacle" ] || has_headers || obstacle="no Python headers"
[ -z "$obstacle" ] || { driver=no; without_driver "$obstacle"; }

set -- -r "$copies/requirements.txt"
[ $dev = no ] || set -- "$@" -r "$copies/requirements-dev.txt"

# An environment that uv made has no pip.
have uv || "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null

if have uv; then
  VIRTUAL_ENV=$PWD/$venv uv pip install --quiet --require-hashes "$@"
elif "$venv/bin/uv" --version >/dev/null 2>&1 || "$venv/bin/python" -m pip install --quiet uv >/dev/null 2>&1; then
  VIRTUAL_ENV=$PWD/$venv "$venv/bin/uv" pip install --quiet --require-hashes "$@"
else
  "$venv/bin/python" -m pip install --quiet --require-hashes "$@"
fi

printf '%s\n' "$wanted" $dev $driver > "$stamp.new"
mv "$stamp.new" "$stamp"
rm -f "$unfinished"
