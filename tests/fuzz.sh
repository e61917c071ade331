#!/usr/bin/env bash
# Fuzzes what reads bytes from strangers and from disks, with cargo-fuzz on a nightly toolchain: fuzz.sh [SECONDS A TARGET]
#
# The same targets run bounded on stable among Rust's tests. A find is kept below the folder's artifacts/; to see it again:
# cargo +nightly fuzz run --fuzz-dir FOLDER TARGET ARTIFACT.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

seconds=${1:-30}
failed=0

# result CASE OUTCOME SECONDS REASON
result() {
  local shown=ok
  [ "$2" = pass ] || { shown=FAIL failed=1; }
  printf '%-4s  fuzz/%s (%s s)%s\n' "$shown" "$1" "$3" "${4:+: $4}"
  [ -z "${TEST_RESULTS:-}" ] || printf 'fuzz\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$TEST_RESULTS"
}

for folder in crates/*/fuzz protocols/*/fuzz; do
  part=${folder%/fuzz}
  # what a later build does not need is left where this one's is: outside the clone
  export CARGO_TARGET_DIR=${SABIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir}/fuzz/${part##*/}
  for target in "$folder"/fuzz_targets/*.rs; do
    target=$(basename "$target" .rs) name=${part##*/}-$(basename "$target" .rs) SECONDS=0
    output=$(cargo +nightly fuzz run --fuzz-dir "$folder" "$target" -- -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=2048 -malloc_limit_mb=256 2>&1)
    code=$?
    echo "$output" | tail -n 60
    runs=$(echo "$output" | sed -nE 's/^Done ([0-9]+) runs.*/\1/p')
    if [ $code != 0 ]; then
      result "$name" fail "$SECONDS" "ended with $code: $(echo "$output" | grep -m1 -A1 -E 'panicked at|^error|ERROR:' | tr '\n' ' ' | cut -c1-300)"
    elif [ "${runs:-0}" -lt 1000 ]; then
      result "$name" fail "$SECONDS" "only ${runs:-0} runs"
    else
      result "$name" pass "$SECONDS" ""
    fi
  done
done
exit $failed
