#!/usr/bin/env bash
# Builds librdkafka's own test runner from the source that the rdkafka-sys crate carries, once, in the cache folder, and prints the
# folder that it runs in. Needs a C and a C++ compiler and make; two minutes.
set -euo pipefail

VERSION=4.10.0+2.12.1
CACHE=${SABIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir}
HOME_DIR=$CACHE/librdkafka-${VERSION#*+}

[ -x "$HOME_DIR/tests/test-runner" ] && { echo "$HOME_DIR/tests"; exit 0; }

fetch=$CACHE/librdkafka-fetch
mkdir -p "$fetch/src"
cat >"$fetch/Cargo.toml" <<TOML
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[dependencies]
rdkafka-sys = { version = "=$VERSION", default-features = false }
[workspace]
TOML
touch "$fetch/src/lib.rs"
crate=$(cd "$fetch" && cargo metadata --quiet --format-version 1 |
  python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "rdkafka-sys"))')

rm -rf "$HOME_DIR" "$HOME_DIR.part"
cp -r "${crate%/*}/librdkafka" "$HOME_DIR.part"
cd "$HOME_DIR.part"
{
  # without what a bare machine has no headers for
  ./configure --disable-curl --disable-gssapi --disable-zstd --disable-ssl
  make -j"$(nproc)" libs
  make -j"$(nproc)" -C tests build
} >"$CACHE/librdkafka-build.log" 2>&1 || { tail -20 "$CACHE/librdkafka-build.log" >&2; exit 1; }
mv "$HOME_DIR.part" "$HOME_DIR"
echo "$HOME_DIR/tests"
