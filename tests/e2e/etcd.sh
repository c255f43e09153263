#!/usr/bin/env bash
# etcd, with the real kubectl and etcdctl: the embedded store as an etcd, a real etcd with TLS as
# the store, and two servers that share it.
. "$(dirname "$0")/lib.sh"
for tool in kubectl etcd etcdctl openssl; do
    command -v $tool >/dev/null || {
        echo "$tool is missing: etcd was not tried"
        exit 0
    }
done
export ETCDCTL_API=3
k() { kubectl --request-timeout=30s "$@"; }

# The embedded store answers as an etcd, to root alone.
ok "up" "$SKIFF" -p "$profile" up
socket=/run/skiff/$profile/etcd.sock
e() { etcdctl --endpoints="unix://$socket" "$@"; }
says "the socket is root's" '^600 root srw-------$' stat -c '%a %U %A' "$socket"
ok "keys" e get /registry --prefix --keys-only
sed '/^$/d' "$work/out" >"$work/keys"
ok "all lie where upstream has them" sh -c "! grep -v '^/registry/' $work/keys"
ok "and no cluster's name is in them" sh -c "! grep -F $(cluster_id "$profile") $work/keys"
for key in /registry/services/specs/default/kubernetes /registry/services/endpoints/default/kubernetes \
    "/registry/minions/$profile" /registry/namespaces/kube-system \
    /registry/clusterroles/cluster-admin /registry/apiregistration.k8s.io/apiservices/v1.apps \
    /registry/ipaddresses/10.96.0.1 "/registry/leases/kube-node-lease/$profile"; do
    ok "$key" grep -x "$key" "$work/keys"
done
ok "a ConfigMap" k create configmap seen --from-literal=a=b
says "etcdctl reads it" '"data":\{"a":"b"\}' e get /registry/configmaps/default/seen --print-value-only
e watch /registry/configmaps/default/ --prefix >"$work/watched" &
watching=$!
until_true "etcdctl watches it" sh -c "kubectl annotate configmap seen at=\$(date +%N) --overwrite && grep -q '^PUT\$' $work/watched"
kill $watching
kubectl get configmap -w --output-watch-events -o name >"$work/watched" &
watching=$!
until_true "kubectl watches" grep -q configmap/seen "$work/watched"
e get /registry/configmaps/default/seen --print-value-only | sed 's/"seen"/"put"/;s/"uid":"[^"]*"/"uid":"1b1c6f0e-3c56-4a55-8f37-0d8f6a1f5a10"/' |
    e put /registry/configmaps/default/put >"$work/out"
until_true "what etcdctl puts, kubectl sees" grep -q configmap/put "$work/watched"
says "and reads" '^b$' k get configmap put -o 'jsonpath={.data.a}'
says "etcdctl deletes it" '^1$' e del /registry/configmaps/default/put
refuses "it is gone" 'NotFound' k get configmap put
kill $watching
lease=$(e lease grant 2 | grep -oE '[0-9a-f]{16}')
says "a key with a lease" '^OK$' e put /other/leased 1 --lease="$lease"
until_true "ends with it" sh -c "[ -z \"\$(etcdctl --endpoints=unix://$socket get /other/leased)\" ]"
says "status" '3\.6\.0\+skiff' e endpoint status
says "health" 'is healthy' e endpoint health
ok "snapshot save" e snapshot save "$work/snapshot.db"
says "snapshot status" '^[0-9a-f]+, [0-9]+, [0-9]+, ' etcdctl snapshot status "$work/snapshot.db" -w simple

# A real etcd, which goes on with that snapshot, behind TLS.
mkdir "$work/tls" && (
    cd "$work/tls"
    for authority in ca other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $authority.key -out $authority.crt \
            -subj "/CN=$authority" -days 2
    done
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >ext
    for name in server client; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj "/CN=$name"
        openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $name.crt -days 2 -extfile ext
    done
) >/dev/null 2>&1 || fail "certificates"
# Ports of this script alone, as its process id is.
port=$((20000 + $$ % 10000))
client=https://127.0.0.1:$port peer=http://127.0.0.1:$((port + 10000))
ok "snapshot restore" etcdctl snapshot restore "$work/snapshot.db" --data-dir "$work/data" --name one \
    --initial-cluster "one=$peer" --initial-advertise-peer-urls "$peer"
start_etcd() {
    etcd --name one --data-dir "$work/data" --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" \
        --cert-file "$work/tls/server.crt" --key-file "$work/tls/server.key" --client-cert-auth \
        --trusted-ca-file "$work/tls/ca.crt" >>"$work/etcd.log" 2>&1 &
    etcd=$!
    background=("$etcd")
}
start_etcd
e() { etcdctl --endpoints="$client" --cacert="$work/tls/ca.crt" --cert="$work/tls/client.crt" --key="$work/tls/client.key" "$@"; }
until_true "a real etcd goes on with the snapshot" e get /registry/configmaps/default/seen --keys-only
says "with every key" "^$(wc -l <"$work/keys")\$" sh -c "etcdctl --endpoints=$client --cacert=$work/tls/ca.crt \
    --cert=$work/tls/client.crt --key=$work/tls/client.key get /registry --prefix --keys-only | grep -cFxf $work/keys"
ok "its cluster is not needed any more" "$SKIFF" -p "$profile" delete
ok "begin with nothing" e del "" --prefix

# Two servers on it. The second trusts and signs as the first does.
other=$profile-b
more=("$other")
up() { # up PROFILE MORE...
    local name=$1
    shift
    "$SKIFF" -p "$name" up --extra-config "apiserver.etcd-servers=https://127.0.0.1:1,$client" \
        --extra-config "apiserver.etcd-cafile=$work/tls/ca.crt" --extra-config "apiserver.etcd-certfile=$work/tls/client.crt" \
        --extra-config "apiserver.etcd-keyfile=$work/tls/client.key" "$@"
}
ok "up on etcd, though its first endpoint is dead" up "$profile"
cp -a "/var/lib/skiff/$profile/pki" "$work/pki"
a=skiff-$profile b=skiff-$other
says "the node is Ready" ' Ready ' k --context "$a" get nodes --no-headers
says "health tells of etcd" '\[\+\]etcd ok' k --context "$a" get --raw '/readyz?verbose'
says "keys lie in etcd" "^/registry/minions/$profile\$" e get /registry/minions --prefix --keys-only
busybox_image etcd.local/busybox:1 "$work/busybox.tar"
ok "image load" "$SKIFF" -p "$profile" image load "$work/busybox.tar"
ok "a pod" k --context "$a" run web --image=etcd.local/busybox:1 --image-pull-policy=Never -- sleep 3600
ok "runs" k --context "$a" wait pod/web --for=condition=Ready --timeout=30s
uid=$(kubectl --context "$a" get pod web -o 'jsonpath={.metadata.uid}')

# etcd dies and comes back.
kill -9 $etcd
refuses "without etcd nothing is written" 'etcd|imeout|timed out|unavailable' k --context "$a" create configmap lost
refuses "and the server is not ready" 'etcd failed|\[-\]etcd' k --context "$a" get --raw '/readyz?verbose'
start_etcd
until_true "writes go on when it is back" kubectl --context "$a" create configmap kept
until_true "ready again" kubectl --context "$a" get --raw /readyz
ok "down" "$SKIFF" -p "$profile" down

refuses "another authority is refused in a line" '^[^ ].*(certificate|UnknownIssuer|authority).*$' \
    up "$profile" --extra-config "apiserver.etcd-cafile=$work/tls/other.crt"
ok "up again" up "$profile"
says "everything is there" "^$uid\$" k --context "$a" get pod web -o 'jsonpath={.metadata.uid}'
ok "and runs again" k --context "$a" wait pod/web --for=condition=Ready --timeout=30s

# The second server.
install -d -m 700 "/var/lib/skiff/$other"
cp -a "$work/pki" "/var/lib/skiff/$other/pki"
ok "a second server" up "$other"
says "two nodes" '^2$' sh -c "kubectl --context $b get nodes --no-headers | grep -c ' Ready '"
kubectl --context "$b" get configmap -w --output-watch-events -o name >"$work/watched" &
watching=$!
until_true "the other watches" grep -q configmap/kept "$work/watched"
ok "one writes" k --context "$a" create configmap written
until_true "the other sees" grep -q configmap/written "$work/watched"
kill $watching
says "and reads" written k --context "$b" get configmap written -o name
addresses() {
    kubectl --context "$1" get endpointslice -l kubernetes.io/service-name=kubernetes \
        -o 'jsonpath={range .items[*].endpoints[*]}{.addresses[0]}{"\n"}{end}' | sort
}
addresses_are() { [ "$(addresses "$1" | wc -l)" = "$2" ]; }
until_true "both stand behind the kubernetes Service" addresses_are "$a" 2
services() { # services FROM: twenty of them with node ports
    for index in $(seq 1 20); do
        printf -- '---\napiVersion: v1\nkind: Service\nmetadata: {name: s%s-%s}\nspec: {type: NodePort, ports: [{port: 80}]}\n' "$1" "$index"
    done
}
services a | kubectl --context "$a" create -f - >/dev/null &
first=$!
ok "forty Services, half at each" sh -c "$(declare -f services); services b | kubectl --context $b create -f -"
wait $first || broken "Services of the first"
says "no address twice" '^40$' sh -c "kubectl --context $a get services -o 'jsonpath={range .items[?(@.spec.type==\"NodePort\")]}{.spec.clusterIP}{\"\\n\"}{end}' | sort -u | wc -l"
says "no node port twice" '^40$' sh -c "kubectl --context $b get services -o 'jsonpath={range .items[?(@.spec.type==\"NodePort\")]}{.spec.ports[0].nodePort}{\"\\n\"}{end}' | sort -u | wc -l"

# One leads; when it is killed the other takes over.
holder() { kubectl --context "$1" -n kube-system get lease "$2" -o 'jsonpath={.spec.holderIdentity}'; }
for lease in kube-controller-manager kube-scheduler; do
    says "the first holds $lease" "^${profile}_" holder "$a" $lease
done
kill -9 "$(cat "/run/skiff/$profile/server.pid")"
SECONDS=0
leads() { [[ "$(holder "$b" "$1")" = "${other}_"* ]]; }
until_true "the other takes kube-controller-manager" leads kube-controller-manager
until_true "the other takes kube-scheduler" leads kube-scheduler
echo "    after $SECONDS s"
until_true "the dead one is not behind the kubernetes Service" addresses_are "$b" 1
echo "    after $SECONDS s"
ok "controllers and scheduler work" k --context "$b" create deployment web --image=etcd.local/busybox:1 --replicas=1
until_true "a pod is made and placed" sh -c "kubectl --context $b get pods -l app=web -o 'jsonpath={.items[*].spec.nodeName}' | grep -q ."
ok "the first comes back" up "$profile"
until_true "and stands behind the Service again" addresses_are "$b" 2
says "the other still leads" "^${other}_" holder "$a" kube-scheduler
verdict
