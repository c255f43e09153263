#!/usr/bin/env bash
# Public operators' CustomResourceDefinitions against an API server of our own: every folder given is one bundle of
# manifests. Each is applied server-side and client-side, waited for, applied again unchanged, explained, tried with
# an object that is wrong and one that is empty, and deleted. Nothing is fetched here.
#
#   tests/bundles.sh FOLDER...
#
# KUBECTL names the client, SERVE the server (default: the example of skiff-api, built in debug).

set -uo pipefail

[ $# -gt 0 ] || { echo "usage: $0 FOLDER..." >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KUBECTL=${KUBECTL:-kubectl}
port=${PORT:-7643}
work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig
failed=0

if [ -z "${SERVE:-}" ]; then
    (cd "$root" && cargo build -q -p skiff-api --example serve) || exit 1
    SERVE=$(find "$root/target" -path '*/debug/examples/serve' -type f | head -n 1)
fi
"$SERVE" "127.0.0.1:$port" "$KUBECONFIG" >"$work/serve.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$work"' EXIT
for _ in $(seq 100); do
    [ -s "$KUBECONFIG" ] && "$KUBECTL" get --raw /readyz >/dev/null 2>&1 && break
    sleep 0.1
done

# step NAME COMMAND...: the command succeeds, or the bundle fails and says why.
step() {
    local name=$1
    shift
    if ! "$@" >"$work/out" 2>&1; then
        echo "FAIL $bundle: $name" >&2
        grep -v 'unchanged\|serverside-applied\|condition met\|created' "$work/out" | cut -c1-1500 | head -n 20 >&2
        failed=$((failed + 1))
        return 1
    fi
}

# A second apply changes nothing.
unchanged() {
    local before after
    before=$(versions)
    "$KUBECTL" apply "$@" || return 1
    after=$(versions)
    [ "$before" = "$after" ] || { echo "changed:"; diff <(echo "$before") <(echo "$after"); return 1; }
}

versions() {
    "$KUBECTL" get crd -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}'
}

names() {
    "$KUBECTL" get crd -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}'
}

# Explains every kind that is served, in every version.
explain() {
    local version resource
    while read -r version resource; do
        "$KUBECTL" explain "$resource" --api-version "$version" || return 1
    done < <(served)
}

# `group/version plural` of every served version.
served() {
    "$KUBECTL" get crd -o go-template='{{range .items}}{{$c := .}}{{range .spec.versions}}{{if .served}}{{$c.spec.group}}/{{.name}} {{$c.spec.names.plural}}{{"\n"}}{{end}}{{end}}{{end}}'
}

# `group/version Kind scope` of every served version.
kinds() {
    "$KUBECTL" get crd -o go-template='{{range .items}}{{$c := .}}{{range .spec.versions}}{{if .served}}{{$c.spec.group}}/{{.name}} {{$c.spec.names.kind}}{{"\n"}}{{end}}{{end}}{{end}}'
}

# An object whose spec is text is refused with a field error, unless the schema lets anything pass; an object with
# nothing in it is answered with 201 or with field errors. Nothing else may happen.
objects() {
    local version kind out
    while read -r version kind; do
        for body in 'spec: text' ''; do
            out=$(printf 'apiVersion: %s\nkind: %s\nmetadata: {name: probe}\n%s\n' "$version" "$kind" "$body" |
                "$KUBECTL" create --validate=false -n default -f - 2>&1)
            case $out in
            *created*) "$KUBECTL" delete "$(echo "$out" | cut -d' ' -f1 | tail -n 1)" -n default >/dev/null 2>&1 ;;
            *'is invalid:'*) ;;
            *)
                echo "$version $kind ($body): $out"
                return 1
                ;;
            esac
        done
    done < <(kinds)
}

gone() {
    [ -z "$(names)" ] || { echo "left: $(names)"; return 1; }
}

for folder in "$@"; do
    bundle=$(basename "$folder")
    for way in --server-side --server-side=false; do
        large=
        # Client-side apply keeps a copy of the object in an annotation, which may not have more than 256 KiB: larger
        # definitions are refused, by upstream too.
        if [ "$way" = --server-side ]; then
            step "apply $way" "$KUBECTL" apply "$way" -f "$folder" || continue
        else
            "$KUBECTL" apply "$way" -f "$folder" >"$work/out" 2>&1
            grep -q 'Too long: may not be more than 262144 bytes' "$work/out" && large=yes
            if grep -v 'Too long: may not be more than 262144 bytes' "$work/out" | grep -q 'rror'; then
                step "apply $way" cat "$work/out" /nonexistent || continue
            fi
        fi
        step "established after $way" "$KUBECTL" wait --for=condition=Established --timeout=30s crd --all
        [ -n "$large" ] || step "apply again $way" unchanged "$way" -f "$folder"
        step "explain after $way" explain
        step "objects after $way" objects
        # shellcheck disable=SC2046 # names without spaces
        step "delete after $way" "$KUBECTL" delete crd $(names) --timeout=60s
        step "gone after $way" gone
    done
    echo "$bundle: $(grep -l 'kind: CustomResourceDefinition' "$folder"/* | wc -l) files"
done
echo "$failed failed"
[ "$failed" = 0 ]
