#!/usr/bin/env bash
# Brings the Python clients of AMQP and kombu's source package, which has its tests, once, into the cache folder, and prints the folder:
# `python` is the interpreter's, `kombu` the source's.
set -euo pipefail

CACHE=${SABIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir}
HOME_DIR=$CACHE/amqp-python
HERE=$(cd "$(dirname "$0")" && pwd)
KOMBU=$(sed -n 's/^kombu==//p' "$HERE/requirements.txt")

wanted() { cat "$HERE/requirements.txt" "$HERE/install.sh" | sha256sum; }

if [ "$(cat "$HOME_DIR/.installed" 2>/dev/null)" != "$(wanted)" ]; then
  rm -rf "$HOME_DIR"
  mkdir -p "$HOME_DIR"
  {
    python3 -m venv "$HOME_DIR/python"
    pip=("$HOME_DIR/python/bin/pip" --disable-pip-version-check)
    "${pip[@]}" install -q -r "$HERE/requirements.txt"
    "${pip[@]}" download -q --no-deps --no-binary kombu -d "$HOME_DIR" "kombu==$KOMBU"
    tar -xzf "$HOME_DIR/kombu-$KOMBU.tar.gz" -C "$HOME_DIR"
    mv "$HOME_DIR/kombu-$KOMBU" "$HOME_DIR/kombu"
    rm "$HOME_DIR/kombu-$KOMBU.tar.gz"
  } >&2
  wanted >"$HOME_DIR/.installed"
fi
echo "$HOME_DIR"
