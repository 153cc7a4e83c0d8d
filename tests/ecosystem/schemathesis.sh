#!/bin/sh
# Requests made from /openapi.json by schemathesis, valid ones and not: every answer is one that is described.
. "$(dirname "$0")/lib.sh"
venv schemathesis==4.32.5
serve "$CHECKPOINT" --max-request-tokens 2000 # what would take long is refused
# Not checked: that every valid body is accepted (an id may be above the vocabulary, a model unknown, 0 tokens without
# echo), nor that each other one is refused (what a client may send of any kind is taken, a header that means nothing too).
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks=$checks,response_schema_conformance,unsupported_method
cd "$work" # it leaves files where it runs
"${python%python}schemathesis" run "$url/openapi.json" --max-examples "${EXAMPLES:-300}" --seed 1 --workers 4 \
    --checks "$checks" --request-timeout 90 --suppress-health-check all >"$work/report" || {
    cat "$work/report"
    exit 1
}
tail -n 12 "$work/report"
cases=$(sed -n 's/.*[^0-9]\([0-9][0-9]*\) generated.*/\1/p' "$work/report" | tail -n 1)
[ "${cases:-0}" -ge 3000 ] || { echo "only ${cases:-0} requests were made" >&2; exit 1; }
stop
echo "schemathesis: all as described"
