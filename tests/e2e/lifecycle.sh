#!/usr/bin/env bash
# Clusters come and go: two side by side, stopped and started, deleted in whatever state they are.
# Nothing of a deleted cluster is left on the machine, and the user's kubeconfig is as it was.
. "$(dirname "$0")/lib.sh"

a=$profile
b=$profile-b
more=("$b")

skiff() {
    local name=$1
    shift
    "$SKIFF" -p "$name" "$@"
}
answers() { curl -fsS --max-time 5 "http://10.89.$(index "$1").2:30080/"; }
index() { sed -n 's/.*"index": *\([0-9]*\).*/\1/p' "/var/lib/skiff/$1/profile.json"; }
server() { cat "/run/skiff/$1/server.pid"; }

# kill_part PROFILE server|shims: kills the server, or the server and the shims.
kill_part() {
    local id pid
    id=$(cluster_id "$1")
    kill -9 "$(server "$1")" # first: it would replace its shims
    [ "$2" = shims ] || return 0
    for pid in $(processes "$1" "$id"); do
        grep -qs "skiff-$id" "/proc/$pid/cgroup" || kill -9 "$pid" 2>/dev/null || true
    done
}

# runs_nothing NAME PROFILE: of a stopped cluster only its folders are there.
runs_nothing() {
    remains "$2" "$(cluster_id "$2")" | { grep -v '^folder ' || true; } >"$work/remains"
    [ ! -s "$work/remains" ] || {
        sed 's/^/    /' "$work/remains" >&2
        fail "$1: the above still runs"
    }
    passed=$((passed + 1))
    echo "ok: $1"
}

cat >"$KUBECONFIG" <<'EOF'
apiVersion: v1
kind: Config
clusters:
- cluster:
    server: https://prod.example
  name: prod
contexts:
- context:
    cluster: prod
    namespace: team
    user: me
  name: prod
current-context: prod
preferences: {}
users:
- name: me
  user:
    token: secret
EOF
# The order of keys and quotes may change; what it says may not.
said() { kubectl config view --raw -o json 2>/dev/null || sort "$KUBECONFIG"; }
said >"$work/kubeconfig-before"

# Two clusters side by side.
ok "up a" skiff "$a" up --demo
ok "up b" skiff "$b" up --demo
id_a=$(cluster_id "$a")
id_b=$(cluster_id "$b")
says "a answers" 'Hello from Skiff' answers "$a"
says "b answers" 'Hello from Skiff' answers "$b"
says "both are listed" "^$b +running" skiff "$a" status
ok "up of a running cluster changes nothing" skiff "$a" up
ok "delete a" skiff "$a" delete
leaves_nothing "nothing is left of a" "$a" "$id_a"
says "b still answers" 'Hello from Skiff' answers "$b"

# Stopped and started again, also after the server was killed.
ok "down b" skiff "$b" down
runs_nothing "a stopped cluster runs nothing" "$b"
says "down of a stopped cluster" 'does not run' skiff "$b" down
ok "up b again" skiff "$b" up
until_true "its demo answers again" answers "$b"
kill_part "$b" server
ok "down with a dead server" skiff "$b" down
runs_nothing "nothing runs on" "$b"
ok "up b after that" skiff "$b" up
until_true "its demo answers after that" answers "$b"
ok "down b once more" skiff "$b" down
ok "delete a stopped cluster" skiff "$b" delete
leaves_nothing "nothing is left of b" "$b" "$id_b"
said >"$work/kubeconfig-after"
ok "the kubeconfig is as it was" diff "$work/kubeconfig-before" "$work/kubeconfig-after"

# A kubeconfig that was made for the cluster goes with it.
rm "$KUBECONFIG"
for part in server shims; do
    ok "up" skiff "$a" up --demo
    id_a=$(cluster_id "$a")
    kill_part "$a" $part
    ok "delete with dead $part" skiff "$a" delete
    leaves_nothing "nothing is left with dead $part" "$a" "$id_a"
    ok "nor a kubeconfig" test ! -e "$KUBECONFIG"
done

# interrupted DELAY: kills the server so many seconds after `up` began.
interrupted() {
    skiff "$a" up --demo >"$work/up" 2>&1 &
    local up=$!
    until [ -s "/run/skiff/$a/server.pid" ] && kill -0 "$(server "$a")" 2>/dev/null; do
        kill -0 $up 2>/dev/null || fail "up ended early: $(cat "$work/up")"
    done
    sleep "$1"
    kill -9 "$(server "$a")" 2>/dev/null || true
    kill -9 $up 2>/dev/null || true
    wait $up 2>/dev/null || true
}
for delay in 0 0.05 0.15 0.3 0.5 0.7 0.9; do
    interrupted $delay
    id_a=$(cluster_id "$a")
    ok "delete after $delay s of a start" skiff "$a" delete
    leaves_nothing "nothing is left after $delay s" "$a" "$id_a"
done
for delay in 0 0.1 0.4; do
    interrupted $delay
    ok "up after a start was killed after $delay s" skiff "$a" up --demo
    says "its demo answers" 'Hello from Skiff' answers "$a"
    id_a=$(cluster_id "$a")
    ok "delete it" skiff "$a" delete
    leaves_nothing "nothing is left of it" "$a" "$id_a"
done

# Deleted while it is being started.
skiff "$a" up --no-kubeconfig >"$work/up" 2>&1 &
up=$!
until [ -s "/run/skiff/$a/server.pid" ]; do kill -0 $up 2>/dev/null || fail "up ended early"; done
id_a=$(cluster_id "$a")
ok "delete during a start" skiff "$a" delete
wait $up || true
leaves_nothing "nothing is left of the start" "$a" "$id_a"
verdict
