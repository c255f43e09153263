#!/usr/bin/env bash
# Conversion of a custom resource by a webhook that runs as a pod behind a Service, with the real
# kubectl: `size` of v1 is `capacity` in v2. The server is the one of tests/servers (SERVERS names
# it; default: the release build beside SKIFF).
. "$(dirname "$0")/lib.sh"
command -v kubectl >/dev/null || {
    echo "kubectl is missing: conversion was not tried"
    exit 0
}
need_servers
k() { kubectl --request-timeout=30s "$@"; }

ok "up" "$SKIFF" -p "$profile" up
servers_image servers.local/servers:1 "$work/servers.tar"
ok "image load" "$SKIFF" -p "$profile" image load "$work/servers.tar"
ok "namespace of the servers" k create namespace hooks
"$SERVERS" certificates '*.hooks.svc' "$work/tls"
"$SERVERS" certificates '*.hooks.svc' "$work/other"
ok "their certificate" k -n hooks create secret generic tls --from-file="$work/tls"
serve_pods hooks conversion
serve_pods hooks admission
ok "the server runs" k -n hooks rollout status deployment conversion --timeout=60s
ok "and the one for admission" k -n hooks rollout status deployment admission --timeout=60s

# define STORED [PATH]: the definition, both versions served, converted by a behaviour of the server.
define() {
    local stored=$1 path=${2:-convert}
    flag() { [ "$1" = "$stored" ] && echo true || echo false; }
    kubectl apply --server-side --force-conflicts -f - <<YAML
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tanks.brew.example.com}
spec:
  group: brew.example.com
  scope: Namespaced
  names: {plural: tanks, singular: tank, kind: Tank, listKind: TankList}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {caBundle: $(base64 -w0 "$work/tls/ca.crt"), service: {namespace: hooks, name: conversion, path: /$path}}
  versions:
  - name: v1
    served: true
    storage: $(flag v1)
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.used}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, maximum: 100}}}, status: {type: object, properties: {used: {type: integer}}}}}}
  - name: v2
    served: true
    storage: $(flag v2)
    subresources: {status: {}, scale: {specReplicasPath: .spec.capacity, statusReplicasPath: .status.used}}
    additionalPrinterColumns: [{name: Capacity, type: integer, jsonPath: .spec.capacity}]
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {capacity: {type: integer, maximum: 100}}}, status: {type: object, properties: {used: {type: integer}}}}}}
YAML
}
one() { printf '{"apiVersion":"brew.example.com/v1","kind":"Tank","metadata":{"name":"%s"},"spec":{"size":%s}}' "$1" "$2"; }
two() { printf '{"apiVersion":"brew.example.com/v2","kind":"Tank","metadata":{"name":"%s"},"spec":{"capacity":%s}}' "$1" "$2"; }
v1=tanks.v1.brew.example.com
v2=tanks.v2.brew.example.com

ok "the definition" define v1
ok "is established" k wait crd/tanks.brew.example.com --for=condition=Established --timeout=30s
until_true "and served" k get "$v2"

# Each version reads what the other wrote.
ok "create in v1" sh -c "echo '$(one a 5)' | kubectl create -f -"
says "read in v2" '^brew.example.com/v2 5 $' k get "$v2" a -o 'jsonpath={.apiVersion} {.spec.capacity} {.spec.size}'
ok "create in v2" sh -c "echo '$(two b 7)' | kubectl create -f -"
says "read in v1" '^brew.example.com/v1 7 $' k get "$v1" b -o 'jsonpath={.apiVersion} {.spec.size} {.spec.capacity}'
says "list in v1" '^a +5.b +7.$' sh -c "kubectl get $v1 --no-headers | tr '\n' '.'"
says "list in v2" 'NAME +CAPACITY' k get "$v2"
says "list in v2 has all" '^5 7$' k get "$v2" -o 'jsonpath={.items[*].spec.capacity}'
says "the preferred version is the newer" '^brew.example.com/v2$' k get tank a -o 'jsonpath={.apiVersion}'
refuses "each version has its schema" 'unknown field "spec.size"' sh -c "echo '$(one c 1)' | sed s@example.com/v1@example.com/v2@ | kubectl create -f -"
refuses "and its rules" 'spec.capacity: Invalid value: 200: spec.capacity in body should be less than or equal to 100' \
    k patch "$v2" a --type=merge -p '{"spec":{"capacity":200}}'
ok "patch in v2 of what v1 made" k patch "$v2" a --type=merge -p '{"spec":{"capacity":6}}'
says "is seen in v1" '^6$' k get "$v1" a -o 'jsonpath={.spec.size}'
ok "status in v2" k patch "$v2" a --subresource=status --type=merge -p '{"status":{"used":3}}'
says "is seen in v1" '^3$' k get "$v1" a -o 'jsonpath={.status.used}'
ok "scale" k scale "$v2" a --replicas=9
says "is seen in v1" '^9$' k get "$v1" a -o 'jsonpath={.spec.size}'

# Apply, by one manager in both versions.
ok "server-side apply in v1" sh -c "echo '$(one applied 1)' | kubectl apply --server-side --field-manager=one -f -"
refuses "another manager in v2 conflicts, in the words of v1" 'conflict with "one": .spec.size$' \
    sh -c "echo '$(two applied 2)' | kubectl apply --server-side --field-manager=two -f -"
ok "the same manager in v2 does not" sh -c "echo '$(two applied 3)' | kubectl apply --server-side --field-manager=one -f -"
says "and owns the field in v2 alone" '^one brew.example.com/v2 $' k get "$v2" applied --show-managed-fields \
    -o 'jsonpath={range .metadata.managedFields[*]}{.manager} {.apiVersion} {end}'
ok "it goes" k delete "$v1" applied

# An admission webhook for v1 sees what is written in v2, converted.
kubectl create -f - >"$work/out" 2>&1 <<YAML || broken "configure: $(cat "$work/out")"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: tanks}
webhooks:
- name: tanks.example.com
  clientConfig: {caBundle: $(base64 -w0 "$work/tls/ca.crt"), service: {namespace: hooks, name: admission, path: /rules}}
  rules: [{operations: [CREATE, UPDATE], apiGroups: [brew.example.com], apiVersions: [v1], resources: [tanks]}]
  sideEffects: None
  admissionReviewVersions: [v1]
YAML
ok "a write in v2" k patch "$v2" b --type=merge -p '{"spec":{"capacity":8}}'
says "is reviewed in v1, old and new" \
    '^rules UPDATE brew.example.com/v1/tanks b .*"object":.*"size":8.*"oldObject":.*"size":7.*"requestKind":[^}]*"version":"v2"' \
    k get --raw /api/v1/namespaces/hooks/services/https:admission:443/proxy/calls
refuses "and denied" '"tanks.example.com" denied the request: no more' k annotate "$v2" b admission.example.com/deny='no more'
ok "the old value" k patch "$v2" b --type=merge -p '{"spec":{"capacity":7}}'
ok "the webhook goes" k delete validatingwebhookconfiguration tanks

# Watches at both versions see one change, each in its own words.
watch() { # VERSION FILE
    kubectl get --raw "/apis/brew.example.com/$1/namespaces/default/tanks?watch=true&timeoutSeconds=20" >"$2" 2>&1 &
    watchers+=($!)
}
watchers=()
watch v1 "$work/watch1"
watch v2 "$work/watch2"
until_true "v1 is watched" grep -q '"name":"b"' "$work/watch1"
until_true "v2 is watched" grep -q '"name":"b"' "$work/watch2"
ok "create while watched" sh -c "echo '$(one watched 11)' | kubectl create -f -"
ok "change while watched" k patch "$v2" watched --type=merge -p '{"spec":{"capacity":12}}'
ok "delete while watched" k delete "$v1" watched
for event in ADDED:11 MODIFIED:12 DELETED:12; do
    until_true "${event%:*} in v1" grep -Eq "\"type\":\"${event%:*}\".*brew.example.com/v1\".*\"name\":\"watched\".*\"size\":${event#*:}" "$work/watch1"
    until_true "${event%:*} in v2" grep -Eq "\"type\":\"${event%:*}\".*brew.example.com/v2\".*\"name\":\"watched\".*\"capacity\":${event#*:}" "$work/watch2"
done
kill "${watchers[@]}" 2>/dev/null || true

# Storage: from v1 to v2.
says "one version is stored" '^\["v1"\]$' k get crd tanks.brew.example.com -o 'jsonpath={.status.storedVersions}'
ok "v2 is the storage version" define v2
until_true "both may be stored" sh -c '[ "$(kubectl get crd tanks.brew.example.com -o "jsonpath={.status.storedVersions}")" = "[\"v1\",\"v2\"]" ]'
ok "create in the new one" sh -c "echo '$(two new 20)' | kubectl create -f -"
says "a mixed list in v1" '^9 7 20$' k get "$v1" -o 'jsonpath={.items[*].spec.size}'
says "a mixed list in v2" '^9 7 20$' k get "$v2" -o 'jsonpath={.items[*].spec.capacity}'
refuses "a stored version cannot be dropped" 'v1 was previously a storage version, and must remain in spec.versions' \
    k patch crd tanks.brew.example.com --type=json -p '[{"op":"remove","path":"/spec/versions/0"}]'
before=$(k get "$v2" a -o 'jsonpath={.metadata.resourceVersion}')
ok "every object is written again" sh -c "kubectl get $v2 -o json | kubectl replace -f -"
after=$(k get "$v2" a -o 'jsonpath={.metadata.resourceVersion}')
[ "$before" != "$after" ] || broken "a write of the same object in the new storage version was no write"
ok "the old version is no longer stored" k patch crd tanks.brew.example.com --subresource=status --type=merge -p '{"status":{"storedVersions":["v2"]}}'
# Now the webhook is not asked for what is read as it is stored.
ok "the server goes" k -n hooks scale deployment conversion --replicas=0
until_true "and is gone" sh -c '[ -z "$(kubectl -n hooks get endpointslices -o "jsonpath={.items[*].endpoints[*].addresses}" -l kubernetes.io/service-name=conversion)" ]'
says "what needs no conversion is served without it" '^9 7 20$' k get "$v2" -o 'jsonpath={.items[*].spec.capacity}'
failure='^Error from server: conversion webhook for brew.example.com/v2, Kind=Tank '
refuses "what does is not" \
    "${failure}failed: Post \"https://conversion.hooks.svc:443/convert\?timeout=30s\": (no endpoints available for service \"conversion\"|dial tcp .*: connect: connection refused)$" \
    k get "$v1" a
ok "the old version is dropped" k patch crd tanks.brew.example.com --type=json -p '[{"op":"remove","path":"/spec/versions/0"}]'
until_true "and no longer served" sh -c "! kubectl get $v1"
says "v2 goes on" '^9$' k get "$v2" a -o 'jsonpath={.spec.capacity}'
ok "the server comes back" k -n hooks scale deployment conversion --replicas=1
ok "and is ready" k -n hooks rollout status deployment conversion --timeout=60s
ok "both versions again" define v2
until_true "the old version is served" k get "$v1" a

# What a conversion can do wrong, in upstream's words.
ok "an object that refuses" k annotate "$v2" b conversion.example.com/fail='not this one'
refuses "fails with the webhook's text" "${failure}failed: not this one$" k get "$v1" b
refuses "so does a list with it" "failed: not this one$" k get "$v1"
ok "others do not" k get "$v1" a
ok "it is mended" k annotate "$v2" b conversion.example.com/fail-
wrong() { # BEHAVIOUR PATTERN
    define v2 "$1" >/dev/null
    until_true "$1" sh -c "kubectl get $v1 a 2>&1 | grep -Eq '$failure$2'"
}
wrong fewer 'returned 0 objects, expected 1$'
wrong renames 'returned invalid converted object at index 0: must have the same name: a != renamed$'
wrong other-version 'returned invalid converted object at index 0: invalid groupVersion \(expected brew.example.com/v1, received brew.example.com/v2\)$'
wrong other-uid 'failed: expected response.uid=".*", got "another"$'
wrong error 'failed: an error on the server \("the webhook is out of order"\) has prevented the request from succeeding$'
refuses "a write fails too, and nothing is stored" 'conversion webhook for' sh -c "echo '$(one half 1)' | kubectl create -f -"
refuses "nothing" 'NotFound' k get "$v2" half
define v2 labels >/dev/null
until_true "labels may be changed" sh -c "[ \"\$(kubectl get $v1 a -o 'jsonpath={.metadata.labels.converted-to}')\" = v1 ]"
define v2 >/dev/null
until_true "all is well again" k get "$v1" a

# Whom to trust.
trust() { # FILE
    k patch crd tanks.brew.example.com --type=merge \
        -p "{\"spec\":{\"conversion\":{\"webhook\":{\"clientConfig\":{\"caBundle\":\"$(base64 -w0 "$1")\"}}}}}"
}
echo "no certificate" >"$work/none.crt"
refuses "a bundle that is none" 'caBundle: Invalid value: .*unable to load root certificates' trust "$work/none.crt"
ok "another authority" trust "$work/other/ca.crt"
until_true "is not that of the server" sh -c "kubectl get $v1 a 2>&1 | grep -Eq 'x509: certificate signed by unknown authority'"
cat "$work/other/ca.crt" "$work/tls/ca.crt" >"$work/both.crt"
ok "both" trust "$work/both.crt"
until_true "are enough" k get "$v1" a

# A definition whose webhook is not there: reads of what must be converted fail, the definition can go.
ok "the server is gone for good" k delete namespace hooks --timeout=60s
refuses "no Service" 'failed: Post "https://conversion.hooks.svc:443/convert\?timeout=30s": (services? "conversion" not found|.*lookup.*|.*no endpoints.*)' k get "$v1" a
ok "the definition can be deleted" k delete crd tanks.brew.example.com --timeout=60s

verdict
