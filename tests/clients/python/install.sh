#!/usr/bin/env bash
# Brings kafka-python's integration tests, once, into the cache folder, and prints the folder that they run in: its source package as the
# registry has it, our stand-in for the two files of its tests that are not packed, and an interpreter with what they import.
set -euo pipefail

VERSION=3.0.12
CACHE=${SABIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir}
HOME_DIR=$CACHE/kafka-python-$VERSION
HERE=$(cd "$(dirname "$0")" && pwd)

wanted() { cat "$HERE/requirements.txt" "$HERE"/stand-in/*.py "$HERE/install.sh" | sha256sum; }

if [ "$(cat "$HOME_DIR/.installed" 2>/dev/null)" != "$(wanted)" ]; then
  rm -rf "$HOME_DIR"
  mkdir -p "$HOME_DIR"
  {
    python3 -m venv "$HOME_DIR/python"
    pip=("$HOME_DIR/python/bin/pip" --disable-pip-version-check)
    "${pip[@]}" install -q -r "$HERE/requirements.txt"
    "${pip[@]}" download -q --no-deps --no-binary kafka-python -d "$HOME_DIR" "kafka-python==$VERSION"
    tar -xzf "$HOME_DIR/kafka_python-$VERSION.tar.gz" -C "$HOME_DIR"
    mv "$HOME_DIR/kafka_python-$VERSION" "$HOME_DIR/suite"
    cp "$HERE"/stand-in/*.py "$HOME_DIR/suite/test/"
  } >&2
  wanted >"$HOME_DIR/.installed"
fi
echo "$HOME_DIR"
