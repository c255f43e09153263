#!/usr/bin/env bash
# Admission webhooks that run as a pod behind a Service, with the real kubectl. The server is the
# one of tests/servers (SERVERS names it; default: the release build beside SKIFF): its paths are
# its behaviours, and it tells which reviews came.
. "$(dirname "$0")/lib.sh"
command -v kubectl >/dev/null || {
    echo "kubectl is missing: webhooks were not tried"
    exit 0
}
need_servers
k() { kubectl --request-timeout=30s "$@"; }

cat >"$work/audit.yaml" <<'EOF2'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  namespaces: [guarded]
  resources: [{group: "", resources: [configmaps]}]
- level: None
EOF2
ok "up with an audit log" "$SKIFF" -p "$profile" up --extra-config "apiserver.audit-policy-file=$work/audit.yaml" \
    --extra-config "apiserver.audit-log-path=$work/audit.log"
servers_image servers.local/servers:1 "$work/servers.tar"
ok "image load" "$SKIFF" -p "$profile" image load "$work/servers.tar"
"$SERVERS" certificates admission.hooks.svc "$work/tls"

# The server: a Deployment that is Ready when it answers, in a namespace of its own.
ok "namespace of the server" k create namespace hooks
ok "its certificate" k -n hooks create secret generic tls --from-file="$work/tls"
ok "namespace that is guarded" k create namespace guarded
ok "and labelled so" k label namespace guarded hooked=yes
serve_pods hooks admission
ok "the server runs" k -n hooks rollout status deployment admission --timeout=60s

# configure mutating|validating NAME: makes the configuration, webhooks on standard input as a
# YAML list.
configure() {
    printf 'apiVersion: admissionregistration.k8s.io/v1\nkind: %sWebhookConfiguration\nmetadata: {name: %s}\nwebhooks:\n%s\n' \
        "${1^}" "$2" "$(cat)" | kubectl apply -f - >"$work/out" 2>&1 || {
        cat "$work/out" >&2
        broken "configure $2"
    }
}
# client PATH: how the API server reaches a behaviour, and what every webhook must say.
client() {
    printf 'clientConfig: {caBundle: %s, service: {namespace: hooks, name: admission, path: /%s}}, sideEffects: None, admissionReviewVersions: [v1]' \
        "$(base64 -w0 "$work/tls/ca.crt")" "$1"
}
guarded='namespaceSelector: {matchLabels: {hooked: "yes"}}'
maps='{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}'
unconfigure() { k delete mutatingwebhookconfiguration,validatingwebhookconfiguration --all >/dev/null; }
forget() { k delete --raw /api/v1/namespaces/hooks/services/https:admission:443/proxy/calls >/dev/null; }
calls() { k get --raw /api/v1/namespaces/hooks/services/https:admission:443/proxy/calls; }
# map NAME [KEY=VALUE of annotations...]: a ConfigMap in the guarded namespace, as YAML.
map() {
    local name=$1
    shift
    kubectl create configmap "$name" -n guarded --from-literal=a=b --dry-run=client -o yaml
    [ $# = 0 ] || echo "  annotations: {$(printf '"%s", ' "$@" | sed 's/=/": "/g; s/, $//')}"
}
make() { map "$@" | kubectl create -f -; }
order() { k -n guarded get configmap "$1" -o 'jsonpath={.metadata.annotations.admission\.example\.com/order}'; }

# Mutating, in the order of configurations and webhooks; then validating, which sees the result.
configure mutating m1-first <<YAML
- {name: first.example.com, rules: [$maps], $guarded, $(client order/first)}
YAML
configure mutating m2-then <<YAML
- {name: b.example.com, rules: [$maps], $guarded, $(client order/b)}
- {name: a.example.com, rules: [$maps], $guarded, $(client order/a)}
- {name: label.example.com, rules: [$maps], $guarded, $(client label/added)}
YAML
configure validating v <<YAML
- {name: look.example.com, rules: [$maps], $guarded, $(client allow)}
YAML
ok "a write that is mutated" make ordered
says "in their order" '^first\.b\.a\.$' order ordered
says "the label is there" '^yes$' k -n guarded get configmap ordered -o 'jsonpath={.metadata.labels.added}'
says "validating came last and saw it" '^allow CREATE /v1/configmaps ordered .*"admission.example.com/order":"first.b.a."' \
    sh -c "kubectl get --raw /api/v1/namespaces/hooks/services/https:admission:443/proxy/calls | tail -n 1"
says "who asked came along" '"userInfo":\{.*"username":"kubernetes-admin"' calls
says "and the namespace, the kind and the options" \
    '"kind":\{"group":"","kind":"ConfigMap","version":"v1"\},"name":"ordered","namespace":"guarded".*"fieldManager":"kubectl-create"' calls
ok "another namespace" k create configmap elsewhere --from-literal=a=b
says "is none of its business" '^\[\]$' k get configmap elsewhere -o 'jsonpath=[{.metadata.labels}]'
says "annotations of the audit log tell who changed it" \
    '"mutation.webhook.admission.k8s.io/round_0_index_0":"\{\\"configuration\\":\\"m1-first\\",\\"webhook\\":\\"first.example.com\\",\\"mutated\\":true\}"' \
    cat "$work/audit.log"
unconfigure

# Reinvocation: asked again when somebody changed the object after it, once.
configure mutating m1 <<YAML
- {name: again.example.com, reinvocationPolicy: IfNeeded, rules: [$maps], $guarded, $(client order/again)}
- {name: once.example.com, reinvocationPolicy: Never, rules: [$maps], $guarded, $(client order/once)}
YAML
ok "a write with reinvocation" make reinvoked
says "asked again, once" '^again\.once\.again\.$' order reinvoked
unconfigure

# A container is added to a pod, before defaults: the pod runs with both.
configure mutating m <<YAML
- {name: sidecar.example.com, rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}], $guarded, $(client sidecar)}
YAML
ok "a pod" k -n guarded run box --image=servers.local/servers:1 --image-pull-policy=Never -- sleep 3600
says "has a container more, with its defaults" '^box sidecar /dev/termination-log$' \
    k -n guarded get pod box -o 'jsonpath={.spec.containers[*].name} {.spec.containers[1].terminationMessagePath}'
ok "and runs" k -n guarded wait pod/box --for=condition=Ready --timeout=60s
unconfigure

# Denial: message, code, every operation; deletes by the old object.
configure validating rules <<YAML
- name: rules.example.com
  rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]
  $guarded
$(client rules | sed 's/, \(sideEffects\|admission\)/\n\1/g' | sed 's/^/  /')
YAML
refuses "denied" '^Error from server: error when creating "STDIN": admission webhook "rules.example.com" denied the request: not today$' \
    make no admission.example.com/deny="not today"
for what in certificate key; do
    kubectl config view --raw --minify -o "jsonpath={.users[0].user.client-$what-data}" | base64 -d >"$work/admin-$what"
done
map no admission.example.com/deny=tea admission.example.com/code=418 >"$work/no.yaml"
says "with its code" '^ *"code": 418$|^\}418$' \
    curl -ksS --cert "$work/admin-certificate" --key "$work/admin-key" -H 'content-type: application/yaml' -w '%{http_code}' \
    --data-binary "@$work/no.yaml" "$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')/api/v1/namespaces/guarded/configmaps"
ok "allowed" make yes
refuses "an update is denied" 'denied the request: later' k -n guarded annotate configmap yes admission.example.com/deny=later
refuses "so is an apply" 'denied the request: never' sh -c "$(declare -f map); map yes admission.example.com/deny=never | kubectl apply --server-side --force-conflicts -f -"
unconfigure
ok "an object that forbids its deletion" k -n guarded annotate configmap yes admission.example.com/deny=keep
forget
configure validating rules <<YAML
- {name: rules.example.com, rules: [{operations: [DELETE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}], $guarded, $(client rules)}
YAML
refuses "its deletion is denied" 'denied the request: keep' k -n guarded delete configmap yes
says "by the old object" '^rules DELETE /v1/configmaps yes .*"object":null,"oldObject":\{' calls
refuses "a deletion of all finds it too" 'denied the request: keep' \
    k delete --raw '/api/v1/namespaces/guarded/configmaps?fieldSelector=metadata.name%3Dyes'
ok "and it is there" k -n guarded get configmap yes
unconfigure

# Warnings and audit annotations.
configure validating warn <<YAML
- {name: warn.example.com, rules: [$maps], $guarded, $(client warn)}
YAML
says "warnings are shown" '^Warning: and this the second$' make warned
says "its annotation is in the audit log" '"warn.example.com/looked-at":"warned"' cat "$work/audit.log"
unconfigure

# Selectors and conditions.
configure validating selected <<YAML
- {name: labelled.example.com, objectSelector: {matchLabels: {check: me}}, rules: [$maps], $guarded, $(client deny)}
- {name: named.example.com, matchConditions: [{name: named, expression: "request.name == 'bad'"}], rules: [$maps], $guarded, $(client deny)}
YAML
ok "neither selects" make plain
refuses "the object's labels do" '"labelled.example.com" denied' k -n guarded label configmap plain check=me
refuses "the condition does" '"named.example.com" denied' make bad
configure validating selected <<YAML
- {name: broken.example.com, failurePolicy: Fail, matchConditions: [{name: broken, expression: "object.data.none == 'x'"}], rules: [$maps], $guarded, $(client allow)}
YAML
refuses "a condition that cannot be told" 'evaluation error|no such key' make unclear
unconfigure

# Dry run: told to webhooks, and nothing is kept.
configure mutating dry <<YAML
- {name: dry.example.com, rules: [$maps], $guarded, $(client label/dry | sed 's/sideEffects: None/sideEffects: NoneOnDryRun/')}
YAML
forget
says "dry run is mutated" 'dry: "yes"' sh -c "$(declare -f map); map dry | kubectl create --dry-run=server -o yaml -f -"
says "the webhook knew" '^label/dry CREATE .*"dryRun":true' calls
refuses "and nothing was kept" 'NotFound' k -n guarded get configmap dry
refuses "side effects must be known" 'sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"' \
    sh -c "kubectl get mutatingwebhookconfiguration dry -o yaml | sed 's/sideEffects: .*/sideEffects: Some/' | kubectl replace -f -"
unconfigure

# Through another version: the webhook gets the one it asked for.
scaler='{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"NAME","namespace":"guarded"},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"a","apiVersion":"apps/v1"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":70}}}]}}'
old='rules: [{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v1], resources: [horizontalpodautoscalers]}]'
configure validating equivalent <<YAML
- {name: equivalent.example.com, $old, $guarded, $(client allow)}
- {name: exact.example.com, matchPolicy: Exact, $old, $guarded, $(client deny)}
YAML
forget
ok "an autoscaler in v2" sh -c "echo '${scaler/NAME/two}' | kubectl create -f -"
says "is seen in v1" '^allow CREATE autoscaling/v1/horizontalpodautoscalers two .*"requestResource":\{[^}]*"version":"v2"' calls
says "converted" '"targetCPUUtilizationPercentage":70' calls
unconfigure

# Subresources.
configure validating sub <<YAML
- {name: exec.example.com, rules: [{operations: [CONNECT], apiGroups: [""], apiVersions: [v1], resources: [pods/exec, pods/attach]}], $guarded, $(client deny)}
- {name: scale.example.com, rules: [{operations: [UPDATE], apiGroups: [apps], apiVersions: [v1], resources: ["*/scale"]}], $guarded, $(client deny)}
- {name: status.example.com, rules: [{operations: [UPDATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments/status]}], $guarded, $(client allow)}
- {name: evict.example.com, rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods/eviction]}], $guarded, $(client deny)}
YAML
forget
refuses "exec" 'admission webhook "exec.example.com" denied the request: this webhook denies all requests' \
    k -n guarded exec box -c box -- true
says "the webhook saw the command" '^deny CONNECT /v1/pods/exec box .*"command":\["true"\].*"kind":"PodExecOptions"' calls
refuses "attach" '"exec.example.com" denied' k -n guarded attach box -c box
ok "a deployment" k -n guarded create deployment web --image=servers.local/servers:1 --replicas=0 -- sleep 3600
refuses "scale" '"scale.example.com" denied' k -n guarded scale deployment web --replicas=1
says "as a Scale" '^deny UPDATE apps/v1/deployments/scale web .*"kind":"Scale".*"replicas":1' calls
ok "status" k -n guarded patch deployment web --subresource=status --type=merge -p '{"status":{"observedGeneration":7}}'
says "with old and new" '^allow UPDATE apps/v1/deployments/status web .*"observedGeneration":7' calls
refuses "eviction" '"evict.example.com" denied' k drain "$(kubectl get nodes -o 'jsonpath={.items[0].metadata.name}')" \
    --pod-selector=run=box --force --delete-emptydir-data --timeout=5s
ok "uncordon" k uncordon "$(kubectl get nodes -o 'jsonpath={.items[0].metadata.name}')"
says "as an Eviction" '^deny CREATE /v1/pods/eviction box .*"kind":"Eviction"' calls
unconfigure

# What a webhook can do wrong.
wrong() {
    configure "$1" wrong <<YAML
- {name: wrong.example.com, timeoutSeconds: ${4:-5}, failurePolicy: ${3:-Fail}, rules: [$maps], $guarded, $(client "$2")}
YAML
}
internal='Error from server \(InternalError\): error when creating "STDIN": Internal error occurred: failed calling webhook "wrong.example.com": '
url='"https://admission.hooks.svc:443'
wrong validating slow/4 Fail 1
began=$(date +%s%N)
refuses "too slow" "${internal}failed to call webhook: Post $url/slow/4\?timeout=1s\": context deadline exceeded" make slow
[ $((($(date +%s%N) - began) / 1000000)) -lt 3500 ] || broken "the timeout of one second was not kept"
wrong validating slow/4 Ignore 1
ok "too slow, and ignored" make slow
wrong validating slow/1 Fail 5
ok "slow enough" make slow-enough
wrong validating error
refuses "500" "${internal}failed to call webhook: an error on the server \(\"the webhook is out of order\"\) has prevented the request from succeeding" make error
wrong validating garbage
refuses "garbage" "${internal}" make garbage
wrong validating other-uid
refuses "another question's answer" "${internal}received invalid webhook response: expected response.uid=\".*\", got \"another\"" make uid
wrong validating label/a
refuses "a patch where none may be" "validating webhook may not return response.patch" make patch
unconfigure
wrong mutating bad-patch
refuses "a patch that cannot be applied" 'Internal error occurred: .*remove|nonexistent|bad-patch|missing' make patch
wrong mutating bad-patch Ignore
refuses "whatever the policy" 'Internal error occurred' make patch
unconfigure
says "what failed open is in the audit log" 'failed-open.validating.webhook.admission.k8s.io/round_0_index_0' cat "$work/audit.log"

# The pod is gone.
ok "the server is scaled away" k -n hooks scale deployment admission --replicas=0
until_true "and gone" sh -c '[ -z "$(kubectl -n hooks get pods -o name)" ]'
until_true "with its endpoint" sh -c '[ -z "$(kubectl -n hooks get endpointslices -o "jsonpath={.items[*].endpoints[*].addresses}")" ]'
wrong validating allow Fail
refuses "nobody answers" "${internal}failed to call webhook: Post $url/allow\?timeout=5s\": (no endpoints available for service \"admission\"|dial tcp .*: connect: connection refused)" make nobody
wrong validating allow Ignore
ok "and that is ignored" make nobody
unconfigure
ok "the server comes back" k -n hooks scale deployment admission --replicas=1
ok "and is ready" k -n hooks rollout status deployment admission --timeout=60s

# Another authority: trusted with the old one beside it, then alone.
"$SERVERS" certificates admission.hooks.svc "$work/new"
cat "$work/tls/ca.crt" "$work/new/ca.crt" >"$work/both.crt"
trust() { # FILE: the bundle of the one webhook
    k patch validatingwebhookconfiguration wrong --type=json \
        -p "[{\"op\":\"replace\",\"path\":\"/webhooks/0/clientConfig/caBundle\",\"value\":\"$(base64 -w0 "$1")\"}]"
}
wrong validating allow
until_true "the first authority" make trusted-first
ok "both are trusted" trust "$work/both.crt"
ok "the old certificate goes on" make trusted-both
ok "the certificate is replaced" sh -c "kubectl -n hooks create secret generic tls --from-file='$work/new' --dry-run=client -o yaml | kubectl replace -f -"
ok "the server restarts" k -n hooks rollout restart deployment admission
ok "with it" k -n hooks rollout status deployment admission --timeout=60s
until_true "the new one is taken" make rotated
ok "the old authority is dropped" trust "$work/new/ca.crt"
ok "the new one alone" make rotated-alone
ok "back to the old one" trust "$work/tls/ca.crt"
refuses "which is not trusted" "${internal}failed to call webhook: Post $url/allow\?timeout=5s\": (tls: failed to verify certificate: )?x509: certificate signed by unknown authority" make distrusted
unconfigure

verdict
