#!/bin/sh
# Runs every check: format, lints, unit and integration tests, the tests with the real Claude Code, a little fuzzing.
# Beyond a Rust toolchain and npm it needs Claude Code, which it installs below target/, and Chromium and a C++
# compiler, which it installs with apt-get if it runs as root; otherwise it says so and fails.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "Claude Code, as pinned in src/cli/client.rs"
version=$(sed -n 's/^pub const VERSION: &str = "\(.*\)";$/\1/p' src/cli/client.rs)
[ -n "$version" ] || { echo "no pinned version found" >&2; exit 1; }
root="$PWD/target/claude-code/$version"
find_client() {
    # npm may be told not to run install scripts; the platform's package holds the same binary.
    for path in "$root"/node_modules/.bin/claude "$root"/node_modules/@anthropic-ai/claude-code-*/claude; do
        if [ "$("$path" --version 2>/dev/null)" = "$version (Claude Code)" ]; then
            echo "$path"
            return 0
        fi
    done
    return 1
}
if ! find_client >/dev/null; then
    mkdir -p "$root"
    npm install --no-audit --no-fund --loglevel=error --prefix "$root" "@anthropic-ai/claude-code@$version"
fi
CCX_TEST_CLAUDE=$(find_client) || { echo "Claude Code $version cannot be run" >&2; exit 1; }
export CCX_TEST_CLAUDE
echo "$CCX_TEST_CLAUDE"

step "Chromium"
find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if ! find_chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null
fi
CCX_TEST_CHROMIUM=$(find_chromium) || { echo "install Chromium: a test signs in with it" >&2; exit 1; }
export CCX_TEST_CHROMIUM
echo "$CCX_TEST_CHROMIUM"

step "A C++ compiler"
if ! command -v c++ >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y --no-install-recommends g++ >/dev/null
fi
command -v c++ || { echo "install a C++ compiler: the fuzzer is written in it" >&2; exit 1; }

step "cargo fmt"
cargo fmt --check

step "cargo clippy"
cargo clippy --locked --all-targets --features real-client,browser -- -D warnings

step "cargo test"
cargo test --locked

step "cargo test, with the real Claude Code"
cargo test --locked --features real-client --test 'claude_*' -- --test-threads=1

step "cargo test, with a real Chromium"
cargo test --locked --features browser --test login_chromium

# Long enough to see that the targets work and hold for what is easily found; a long run is `shell/fuzz.sh 600`.
step "fuzzing, a few seconds for each target"
sh shell/fuzz.sh 7
