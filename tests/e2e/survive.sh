#!/usr/bin/env bash
# Nothing that is killed takes a container along: first the server, then every Skiff process.
. "$(dirname "$0")/lib.sh"
command -v kubectl >/dev/null || {
    echo "kubectl is missing: survival was not tested"
    exit 0
}

ok "up" "$SKIFF" -p "$profile" up --demo
id=$(cluster_id "$profile")
address=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')

# The processes of the demo's containers: what runs below the cluster's cgroup as `/skiff demo`.
containers() {
    local procs pid
    for procs in $(find /sys/fs/cgroup -path "*skiff-$id*" -name cgroup.procs 2>/dev/null); do
        cat "$procs"
    done | sort -un | while read -r pid; do
        # The start time tells a process from a later one with the same number.
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'demo serve' && awk -v p="$pid" '{print p, $22}' "/proc/$pid/stat"
    done
}
restarts() {
    kubectl get pods -l app=demo --sort-by=.metadata.name \
        -o jsonpath='{range .items[*]}{.metadata.name}={.status.containerStatuses[0].restartCount} {end}'
}
server() { cat "/run/skiff/$profile/server.pid"; }

containers >"$work/containers"
restarts >"$work/restarts"
[ "$(wc -l <"$work/containers")" = 3 ] || fail "three demo containers were expected: $(cat "$work/containers")"

kill -9 "$(server)"
says "the demo answers while the server is dead" 'Hello from Skiff' curl -fsS --max-time 5 "http://$address:30080/"
ok "up after the server was killed" "$SKIFF" -p "$profile" up
containers >"$work/containers2"
ok "the same processes" diff "$work/containers" "$work/containers2"

# Every process of the cluster but those in its cgroup: the server, then the shims.
killed=0
for pid in $(server) $(processes "$profile" "$id"); do
    grep -qs "skiff-$id" "/proc/$pid/cgroup" && continue
    kill -9 "$pid" 2>/dev/null || continue # the server comes twice
    killed=$((killed + 1))
done
[ $killed -ge 4 ] || fail "a server and three shims were expected, $killed processes were killed"
says "the demo answers while everything is dead" 'Hello from Skiff' curl -fsS --max-time 5 "http://$address:30080/"
ok "up after everything was killed" "$SKIFF" -p "$profile" up
containers >"$work/containers3"
ok "still the same processes" diff "$work/containers" "$work/containers3"
until_true "pods are Ready" sh -c "[ \"\$(kubectl get pods -l app=demo -o jsonpath='{.items[*].status.conditions[?(@.type==\"Ready\")].status}')\" = 'True True True' ]"
restarts >"$work/restarts3"
ok "restart counts unchanged" diff "$work/restarts" "$work/restarts3"
pod=$(kubectl get pods -l app=demo -o jsonpath='{.items[0].metadata.name}')
says "logs from before and after" 'serving on' kubectl logs "$pod"
curl -fsS --max-time 5 "http://$address:30080/" >/dev/null
until_true "new lines arrive" sh -c "kubectl logs -l app=demo --since=5s | grep -q 'GET /'"
says "exec still works" 'Hello from Skiff' kubectl exec "$pod" -- /skiff demo get http://127.0.0.1:8080/
ok "an adopted container can be ended" kubectl delete pod "$pod" --timeout=60s
until_true "and is replaced" sh -c '[ "$(kubectl get deployment demo -o jsonpath="{.status.readyReplicas}")" = 3 ]'

# Deleting a cluster whose server is dead, by force.
kill -9 "$(server)"
ok "delete without a server" "$SKIFF" -p "$profile" delete
leaves_nothing "nothing is left" "$profile" "$id"
verdict
