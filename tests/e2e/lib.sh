# Shared by the end-to-end scripts: a cluster of their own, a busybox image, and checks that say
# what they expected. Sourced, never run.
#
# SKIFF names the binary (default: the release build). The cluster is removed at the end, and
# whatever it left on the machine then is an error. Other clusters may run meanwhile.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SKIFF=${SKIFF:-$root/target/$(rustc -vV | sed -n 's/^host: //p')/release/skiff}
work=$(mktemp -d)
profile=e2e-$(basename "$0" .sh)-$$
more=() # further profiles of the script
background=() # processes of the script that its clusters need, killed after them
export KUBECONFIG=$work/kubeconfig
passed=0
failed=0

# What cannot go on without.
fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# A check that did not hold: the others go on and the script fails at its end.
broken() {
    echo "FAIL: $*" >&2
    failed=$((failed + 1))
}

# The closing line; the script's last command.
verdict() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# ok NAME COMMAND...: the command succeeds.
ok() {
    local name=$1
    shift
    if ! "$@" >"$work/out" 2>&1; then
        sed 's/^/    /' "$work/out" >&2
        broken "$name: $*"
        return 0
    fi
    passed=$((passed + 1))
    echo "ok: $name"
}

# says NAME PATTERN COMMAND...: the command succeeds and prints the pattern (extended regex).
says() {
    local name=$1 pattern=$2
    shift 2
    if ! "$@" >"$work/out" 2>&1; then
        sed 's/^/    /' "$work/out" >&2
        broken "$name: $*"
        return 0
    fi
    grep -Eq -- "$pattern" "$work/out" || {
        sed 's/^/    /' "$work/out" >&2
        broken "$name: the output of '$*' lacks /$pattern/"
        return 0
    }
    passed=$((passed + 1))
    echo "ok: $name"
}

# refuses NAME PATTERN COMMAND...: the command fails and prints the pattern.
refuses() {
    local name=$1 pattern=$2
    shift 2
    if "$@" >"$work/out" 2>&1; then
        sed 's/^/    /' "$work/out" >&2
        broken "$name: '$*' succeeded"
        return 0
    fi
    grep -Eq -- "$pattern" "$work/out" || {
        sed 's/^/    /' "$work/out" >&2
        broken "$name: the error of '$*' lacks /$pattern/"
        return 0
    }
    passed=$((passed + 1))
    echo "ok: $name"
}

# until_true NAME COMMAND...: the command succeeds within 30 seconds.
until_true() {
    local name=$1 deadline=$((SECONDS + 30))
    shift
    until "$@" >"$work/out" 2>&1; do
        [ $SECONDS -lt $deadline ] || {
            sed 's/^/    /' "$work/out" >&2
            broken "$name: not within 30 s: $*"
            return 0
        }
        sleep 0.1
    done
    passed=$((passed + 1))
    echo "ok: $name"
}

# busybox_image NAME FILE: a docker archive with Debian's static busybox, made without any tool
# but tar.
busybox_image() {
    local name=$1 file=$2 box=$work/image
    command -v busybox >/dev/null || fail "busybox is missing; install it with: apt-get install -y busybox-static"
    rm -rf "$box"
    mkdir -p "$box/root/bin" "$box/root/etc" "$box/root/tmp" "$box/root/root"
    chmod 1777 "$box/root/tmp"
    cp "$(command -v busybox)" "$box/root/bin/busybox"
    local applet
    for applet in $("$box/root/bin/busybox" --list); do
        [ -e "$box/root/bin/$applet" ] || ln -s busybox "$box/root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$box/root/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' >"$box/root/etc/group"
    # Names differ from image to image so that `set image` has something to roll out to.
    echo "$name" >"$box/root/etc/image"
    tar -C "$box/root" --owner=0 --group=0 --numeric-owner -cf "$box/layer.tar" .
    local layer config
    layer=$(sha256sum "$box/layer.tar" | cut -d' ' -f1)
    cat >"$box/config.json" <<EOF
{"architecture":"$(dpkg --print-architecture)","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
EOF
    config=$(sha256sum "$box/config.json" | cut -d' ' -f1)
    mv "$box/config.json" "$box/$config.json"
    cat >"$box/manifest.json" <<EOF
[{"Config":"$config.json","RepoTags":["$name"],"Layers":["layer.tar"]}]
EOF
    tar -C "$box" -cf "$file" manifest.json "$config.json" layer.tar
}

# need_servers: the binary of tests/servers, which SERVERS may name.
need_servers() {
    SERVERS=${SERVERS:-$(dirname "$SKIFF")/skiff-test-servers}
    [ -x "$SERVERS" ] || fail "$SERVERS is missing; build it with: cargo build --release -p skiff-test-servers"
}

# servers_image NAME FILE: busybox, the servers and the libraries they are linked to.
servers_image() {
    local library
    busybox_image "$1" "$2"
    cp "$SERVERS" "$work/image/root/bin/servers"
    for library in $(ldd "$SERVERS" | grep -oE '/[^ ]+'); do
        mkdir -p "$work/image/root$(dirname "$library")"
        cp -L "$library" "$work/image/root$library"
    done
    local layer config box=$work/image
    rm "$box"/*.json "$box/layer.tar"
    tar -C "$box/root" --owner=0 --group=0 --numeric-owner -cf "$box/layer.tar" .
    layer=$(sha256sum "$box/layer.tar" | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(dpkg --print-architecture)" "$layer" >"$box/config.json"
    config=$(sha256sum "$box/config.json" | cut -d' ' -f1)
    mv "$box/config.json" "$box/$config.json"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$1" >"$box/manifest.json"
    tar -C "$box" -cf "$2" manifest.json "$config.json" layer.tar
}

# serve_pods NAMESPACE SUBCOMMAND: a Deployment and a Service of that name, port 443, over a server
# of tests/servers with the certificate in the Secret tls.
serve_pods() {
    kubectl apply -f - >"$work/out" 2>&1 <<YAML || broken "apply $2: $(cat "$work/out")"
apiVersion: apps/v1
kind: Deployment
metadata: {name: $2, namespace: $1}
spec:
  selector: {matchLabels: {app: $2}}
  template:
    metadata: {labels: {app: $2}}
    spec:
      containers:
        - name: server
          image: servers.local/servers:1
          imagePullPolicy: Never
          command: [servers, $2, /tls, "8443"]
          ports: [{name: https, containerPort: 8443}]
          readinessProbe: {httpGet: {scheme: HTTPS, port: https, path: /readyz}, periodSeconds: 1}
          volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: tls}}]
---
apiVersion: v1
kind: Service
metadata: {name: $2, namespace: $1}
spec:
  selector: {app: $2}
  ports: [{port: 443, targetPort: https}]
YAML
}

# cluster_id PROFILE: the six digits that are in every name the cluster gives to kernel objects.
cluster_id() {
    sed -n 's/.*"clusterId": *"\([0-9a-f]*\)".*/\1/p' "/var/lib/skiff/$1/profile.json"
}

# remains PROFILE ID: what this machine has of the cluster, one thing per line. Other clusters and
# other people's processes do not count.
remains() {
    local profile=$1 id=$2 pid
    { ip -o link 2>/dev/null | grep -oE "sk$id[^ :@]*" || true; } | sed 's/^/link /'
    if command -v nft >/dev/null; then
        { nft list tables 2>/dev/null | grep -F "skiff-$id" || true; } | sed 's/^/rules /'
    fi
    { grep -E " /(run|var/lib)/skiff/$profile(/| )" /proc/self/mounts || true; } | cut -d' ' -f2 | sed 's/^/mount /'
    { find /sys/fs/cgroup -maxdepth 2 -type d -name "skiff-$id" 2>/dev/null || true; } | sed 's/^/cgroup /'
    { find "/run/skiff/$profile" "/var/lib/skiff/$profile" -maxdepth 0 2>/dev/null || true; } | sed 's/^/folder /'
    for pid in $(processes "$profile" "$id"); do
        echo "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    done
}

# processes PROFILE ID: the server, shims, pause processes and containers of the cluster. Zombies
# are none: they last until their parent looks.
processes() {
    local profile=$1 id=$2 folder pid
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [ "$pid" != $$ ] || continue
        # Its cgroup, or a command line that names the profile as ours do.
        if grep -qs "/skiff-$id\(/\|\$\)" "$folder/cgroup" ||
            tr '\0' ' ' 2>/dev/null <"$folder/cmdline" |
            grep -qE -e "^skiff-shim /var/lib/skiff/$profile/" -e "^[^ ]*skiff --profile $profile server"; then
            grep -qs '^State:.*Z' "$folder/status" || echo "$pid"
        fi
    done 2>/dev/null
}

# leaves_nothing NAME PROFILE ID: nothing of the cluster is on this machine.
leaves_nothing() {
    remains "$2" "$3" >"$work/remains"
    [ ! -s "$work/remains" ] || {
        sed 's/^/    /' "$work/remains" >&2
        fail "$1: the above is left of cluster $2 ($3)"
    }
    passed=$((passed + 1))
    echo "ok: $1"
}

finish() {
    local code=$?
    if [ $code -ne 0 ]; then
        echo "--- the last lines of the components' logs" >&2
        "$SKIFF" -p "$profile" logs --tail 15 >&2 2>/dev/null || true
    fi
    local name
    for name in "$profile" ${more[@]+"${more[@]}"}; do
        "$SKIFF" -p "$name" delete >/dev/null 2>&1 || true
    done
    kill -9 ${background[@]+"${background[@]}"} 2>/dev/null || true
    rm -rf "$work"
    exit $code
}
trap finish EXIT
