#!/bin/sh
# Fuzzes for SECONDS each of the TARGETs (all of fuzz/fuzz_targets if none is named): shell/fuzz.sh SECONDS [TARGET…]
#
# The targets are laid out for cargo-fuzz, which is not needed: a stable compiler puts the counters that libFuzzer
# looks at into the code. There is no address sanitizer: ccx has no unsafe code. Beyond a Rust toolchain it needs a C++
# compiler, for libFuzzer itself. What is found is kept below fuzz/artifacts; the corpus in the repository is not changed.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target?}
shift
[ $# -gt 0 ] || set -- $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# The versions that ccx is built with, and what the targets need beside them.
cp Cargo.lock fuzz/Cargo.lock
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
CARGO_TARGET_DIR=$target cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" --bins

# A look of some seconds looks at the same inputs each time; a long run at others.
seed=0
[ "$seconds" -ge 60 ] || seed=1

for name; do
    mkdir -p "fuzz/artifacts/$name" "$target/corpus/$name"
    also=
    [ "$name" = stream ] && also=tests/fixtures/codex/sse
    printf "%s: " "$name"
    # New inputs go to the first directory, below target/.
    if "$target/$host/release/$name" "$target/corpus/$name" "fuzz/corpus/$name" $also -dict=fuzz/json.dict \
        -artifact_prefix="fuzz/artifacts/$name/" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096 \
        -max_len=16384 -seed="$seed" -print_final_stats=1 >"$target/$name.log" 2>&1
    then
        sed -n 's/^stat::number_of_executed_units: *//p' "$target/$name.log" | tr '\n' ' '
        echo "executions, nothing found"
    else
        tail -40 "$target/$name.log"
        exit 1
    fi
done
