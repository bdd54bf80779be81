#!/usr/bin/env bash
# Asks the interface of the page what docs/openapi.json describes, and what it forbids, for a bounded time.
#   tests/ui/api.sh VAULT [SECONDS]      needs schemathesis (PyPI) as `st`, python3 and curl; the report is printed
# Whoever asks is let in: that nobody else is, is in tests/ui.rs.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "$1")
home=$(mktemp -d)
export HOME=$home VAULT_PASSWORD="only for this test" VAULT_REPO=$home/store VAULT_STATE_DIR=$home/state VAULT_CONFIG=$home/vault.toml
cd "$home"
mkdir Documents
touch vault.toml
echo one >Documents/a.txt
"$program" init --quiet >/dev/null
"$program" snapshot Documents --quiet
"$program" ui --no-open >out 2>err &
server=$!
trap 'kill -INT $server 2>/dev/null || :; wait $server || :; rm -rf "$home"' EXIT
until grep -q http out; do sleep 0.2; done
address=$(grep -o 'http://[^ ]*' out | head -1)
origin=${address%%/#*}
curl -s -D head -o /dev/null -H 'Content-Type: application/json' -d "{\"token\":\"${address##*token=}\"}" "$origin/api/v1/session"
cookie=$(sed -n 's/^set-cookie: \([^;]*\).*/\1/Ip' head)
python3 - "$project/docs/openapi.json" >api.json <<'END'
import json, sys
api = json.load(open(sys.argv[1]))
del api["security"], api["components"]["securitySchemes"]
print(json.dumps(api))
END
st run api.json --url "$origin" -H "Cookie: $cookie" --exclude-path-regex '/(leave|events|session)$' --max-time "${2:-60}" --seed 1 \
    --phases coverage,fuzzing -n 60 --continue-on-failure --request-timeout 20 --no-color
