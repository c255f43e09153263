#!/usr/bin/env bash
# The tour: what a person does with kubectl in the first hour, with the real kubectl.
. "$(dirname "$0")/lib.sh"
command -v kubectl >/dev/null || {
    echo "kubectl is missing: the tour was not taken"
    exit 0
}
k() { kubectl --request-timeout=30s "$@"; }

ok "up" "$SKIFF" -p "$profile" up --demo
id=$(cluster_id "$profile")
says "the context is merged" "^skiff-$profile$" kubectl config current-context
says "the kubeconfig is private" '^600$' stat -c %a "$KUBECONFIG"
node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
address=$(kubectl get node "$node" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}')

# The kubelet asks the API server who shows a token and what they may: no stranger, no certificate of another
# authority than the API server's own, and of accounts only those with a right to that part of the node.
for what in certificate key; do
    kubectl config view --raw --minify -o "jsonpath={.users[0].user.client-$what-data}" | base64 -d >"$work/admin-$what"
done
refuses "the kubelet refuses strangers" '401' curl -kfsS --max-time 10 "https://$address:10250/pods"
refuses "the kubelet refuses users of the cluster" 'alert|certificate|reset|SSL|TLS' \
    curl -ksS --max-time 10 --cert "$work/admin-certificate" --key "$work/admin-key" "https://$address:10250/pods"
scraper=$(kubectl create token default --duration=10m)
scrape() { curl -kfsS --max-time 10 -H "Authorization: Bearer $scraper" "https://$address:10250/$1"; }
kubectl create clusterrole scraper --verb=get --resource=nodes/metrics >/dev/null
kubectl create clusterrolebinding scraper --clusterrole=scraper --serviceaccount=default:default >/dev/null
# The kubelet remembers a refusal for half a minute.
until_true "the account has its right" kubectl auth can-i get nodes --subresource=metrics --as=system:serviceaccount:default:default
says "the kubelet shows its metrics to an account with that right" '^kubelet_|^# TYPE' scrape metrics
refuses "the kubelet shows it nothing else" '403' scrape pods
kubectl delete clusterrole,clusterrolebinding scraper >/dev/null

# The demo, from outside and by name from another pod.
says "the demo answers on its node port" 'Hello from Skiff' curl -fsS --max-time 10 "http://$address:30080/"
busybox_image box.local/box:1 "$work/box1.tar"
busybox_image box.local/box:2 "$work/box2.tar"
says "image load" 'box.local/box:1' "$SKIFF" -p "$profile" image load "$work/box1.tar"
says "image load from standard input" 'box.local/box:2' sh -c "'$SKIFF' -p $profile image load - <'$work/box2.tar'"
says "image ls" 'box.local/box' "$SKIFF" -p "$profile" image ls
says "the demo answers by its DNS name from another pod" 'Hello from Skiff' \
    kubectl run probe --rm -i --restart=Never --image=box.local/box:1 -- wget -qO- http://demo.default.svc.cluster.local/
says "and by its short name" 'Hello from Skiff' \
    kubectl run probe --rm -i --restart=Never --image=box.local/box:1 -- wget -qO- http://demo/

# Deployments.
ok "create deployment" k create deployment web --image=box.local/box:1 --port=8080 -- \
    sh -c 'mkdir -p /tmp/www; (cat /etc/image; hostname) >/tmp/www/index.html; echo serving; httpd -f -p 8080 -h /tmp/www & trap "exit 0" TERM; wait'
ok "rollout status" k rollout status deployment/web --timeout=60s
ok "expose" k expose deployment web --port=80 --target-port=8080
ok "scale up" k scale deployment web --replicas=10
ok "wait for ten" k wait deployment/web --for=jsonpath='{.status.readyReplicas}'=10 --timeout=90s
ok "scale down" k scale deployment web --replicas=2
until_true "two remain" sh -c '[ "$(kubectl get pods -l app=web --no-headers | wc -l)" = 2 ]'
says "the service answers" 'box.local/box:1' \
    kubectl run probe --rm -i --restart=Never --image=box.local/box:1 -- wget -qO- http://web/
ok "set image" k set image deployment/web box=box.local/box:2
says "watch the rollout" 'successfully rolled out' k rollout status deployment/web --timeout=90s
says "history" '^2 ' k rollout history deployment/web
until_true "only the new image remains" sh -c '! kubectl get pods -l app=web -o jsonpath="{.items[*].spec.containers[0].image}" | grep -q box:1'
says "the new image answers" 'box.local/box:2' \
    kubectl run probe --rm -i --restart=Never --image=box.local/box:1 -- wget -qO- http://web/
ok "undo" k rollout undo deployment/web
says "undo rolled out" 'successfully rolled out' k rollout status deployment/web --timeout=90s
says "undone" 'box:1' k get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'
ok "restart" k rollout restart deployment/web
says "restart rolled out" 'successfully rolled out' k rollout status deployment/web --timeout=90s

# Apply, both ways.
cat >"$work/app.yaml" <<'EOF'
apiVersion: v1
kind: ConfigMap
metadata:
  name: app
data:
  one: "1"
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: box
        image: box.local/box:1
        command: [sleep, "3600"]
EOF
says "apply" 'deployment.apps/app created' k apply -f "$work/app.yaml"
says "apply again" 'deployment.apps/app unchanged' k apply -f "$work/app.yaml"
sed 's/replicas: 1/replicas: 2/' "$work/app.yaml" >"$work/app2.yaml"
refuses "diff" 'replicas: 2' k diff -f "$work/app2.yaml"
says "apply a change" 'deployment.apps/app configured' k apply -f "$work/app2.yaml"
says "server-side apply by a first manager" 'serverside-applied' \
    k apply --server-side --field-manager=one --force-conflicts -f "$work/app.yaml"
refuses "server-side apply by a second manager conflicts" 'conflict with "one": \.spec\.replicas' \
    k apply --server-side --field-manager=two -f "$work/app2.yaml"
says "forced" 'serverside-applied' k apply --server-side --field-manager=two --force-conflicts -f "$work/app2.yaml"
says "managers are recorded" 'two' k get deployment app -o yaml --show-managed-fields
refuses "strict validation" 'unknown field "spec.replica"' sh -c "sed 's/replicas/replica/' '$work/app.yaml' | kubectl apply -f -"

# Reading.
says "get -o wide" 'SELECTOR' k get deployment app -o wide
says "get pods" 'READY +STATUS +RESTARTS +AGE' k get pods
says "get -o yaml" '^kind: Deployment' k get deployment app -o yaml
says "get -o jsonpath" '^app$' k get deployment app -o jsonpath='{.metadata.name}'
says "get --sort-by" app k get deployments --sort-by=.metadata.name
says "explain" 'FIELD: replicas' k explain deployment.spec.replicas
says "explain describes" '[a-z]{3,} [a-z]{2,} [a-z]{2,}' sh -c 'kubectl explain deployment.spec.replicas | sed -n "/DESCRIPTION/,\$p"'
says "describe deployment" 'RollingUpdateStrategy' k describe deployment app
says "describe pod" 'Successfully assigned' k describe pod -l app=web
says "describe node" 'Allocatable' k describe node "$node"
says "api-resources" 'deployments +deploy +apps/v1' k api-resources
says "api-versions" '^apps/v1$' k api-versions
says "cluster-info" 'control plane' k cluster-info
says "version" 'v1\.36' k version
says "can-i" '^yes$' k auth can-i create deployments
refuses "can-i of nobody" '^no$' k auth can-i create deployments --as=nobody
refuses "impersonated list" 'User "nobody" cannot list resource "pods" in API group "" in the namespace "default"' k get pods --as=nobody
says "whoami" 'kubernetes-admin' k auth whoami
says "events" 'Scheduled|Created|Started' k get events
says "top-level raw" 'ok' k get --raw /readyz

# Inside a container.
ok "a pod to work in" k run work --image=box.local/box:1 --restart=Always -- sh -c 'echo started; trap "exit 3" TERM; while :; do sleep 1; done'
ok "it is ready" k wait pod/work --for=condition=Ready --timeout=60s
says "exec" '^hello$' k exec work -- echo hello
says "exec -i" '^from outside$' sh -c 'echo "from outside" | kubectl exec -i work -- cat'
refuses "exec gives the exit code" 'exit code 7' k exec work -- sh -c 'exit 7'
says "exec -it" '/dev/pts/|dev' script -qec "kubectl exec -it work -- tty" /dev/null
echo "to be copied" >"$work/copy"
ok "cp into" k cp "$work/copy" work:/tmp/copy
ok "cp out of" k cp work:/tmp/copy "$work/copied"
says "cp kept the content" 'to be copied' cat "$work/copied"
says "logs" '^started$' k logs work
kubectl logs -f work >"$work/follow" 2>&1 &
follower=$!
ok "end the container" k exec work -- kill -TERM 1
until_true "it is restarted" sh -c '[ "$(kubectl get pod work -o jsonpath="{.status.containerStatuses[0].restartCount}")" = 1 ]'
says "logs --previous" '^started$' k logs work --previous
wait $follower || fail "logs -f did not end with its container"
says "logs -f" '^started$' cat "$work/follow"

# Port-forward.
kubectl port-forward service/demo 0:80 >"$work/forward" 2>&1 &
forward=$!
until_true "port-forward listens" grep -q 'Forwarding from 127.0.0.1' "$work/forward"
port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' "$work/forward" | head -n 1)
for _ in 1 2 3; do
    says "port-forward carries" 'Hello from Skiff' curl -fsS --max-time 10 "http://127.0.0.1:$port/"
done
kill $forward
wait $forward 2>/dev/null || true
says "run --rm -it" 'inside' script -qec "kubectl run once --rm -it --restart=Never --image=box.local/box:1 -- echo inside" /dev/null
says "attach" 'typed' sh -c 'echo typed | kubectl run attached --rm -i --restart=Never --image=box.local/box:1 -- cat'

# Jobs.
ok "create job" k create job sum --image=box.local/box:1 -- sh -c 'echo $((40 + 2))'
ok "wait for the job" k wait job/sum --for=condition=Complete --timeout=60s
says "its log" '^42$' k logs job/sum
ok "a job that fails" k create job broken --image=box.local/box:1 -- false
ok "with no retries" k patch job broken --type=merge -p '{"spec":{"backoffLimit":0}}'

# Changing.
ok "label" k label deployment app tier=front
says "label selector" 'app' k get deployments -l tier=front -o name
refuses "label without overwrite" 'already has a value' k label deployment app tier=back
ok "annotate" k annotate deployment app note='a note'
ok "strategic patch" k patch deployment app -p '{"spec":{"template":{"spec":{"containers":[{"name":"box","env":[{"name":"A","value":"1"}]}]}}}}'
says "it merged by name" 'box.local/box:1 A' k get deployment app -o jsonpath='{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[0].name}'
ok "merge patch" k patch deployment app --type=merge -p '{"metadata":{"annotations":{"note":null}}}'
ok "json patch" k patch deployment app --type=json -p '[{"op":"replace","path":"/spec/replicas","value":1}]'
refuses "a json patch whose test fails" 'test' k patch deployment app --type=json -p '[{"op":"test","path":"/spec/replicas","value":9}]'
says "get --watch" 'web' sh -c "timeout 3 kubectl get pods --watch || true"
ok "replace" sh -c 'kubectl get configmap app -o yaml | sed "s/one: \"1\"/one: \"2\"/" | kubectl replace -f -'
ok "create secret" k create secret generic keys --from-literal=a=b
ok "create configmap" k create configmap settings --from-literal=a=b
ok "create namespace" k create namespace other
ok "something in it" k -n other create configmap inside --from-literal=a=b
ok "delete namespace" k delete namespace other --timeout=60s

# Nodes.
says "get nodes" 'Ready +' k get nodes
says "system components are pods" 'kube-apiserver' k get pods -n kube-system
says "with real logs" '.' k logs -n kube-system "kube-apiserver-$node" --tail=5
ok "cordon" k cordon "$node"
says "cordoned" 'SchedulingDisabled' k get nodes
ok "drain" k drain "$node" --ignore-daemonsets --delete-emptydir-data --force --timeout=90s
ok "uncordon" k uncordon "$node"
says "what was drained comes back" 'successfully rolled out' k rollout status deployment/web --timeout=90s

# Deleting.
ok "delete in the foreground" k delete deployment app --cascade=foreground --timeout=60s
until_true "its pods are gone" sh -c '[ -z "$(kubectl get pods -l app=app -o name)" ]'
ok "delete and orphan" k delete deployment web --cascade=orphan
says "the replica sets stay" 'web-' k get replicasets -l app=web -o name
ok "delete in the background" k delete replicasets -l app=web
until_true "and take their pods along" sh -c '[ -z "$(kubectl get pods -l app=web -o name)" ]'
ok "delete now" k delete pod work --now --ignore-not-found --timeout=60s

# The end.
ok "status" "$SKIFF" -p "$profile" status
ok "down" "$SKIFF" -p "$profile" down
ok "up again" "$SKIFF" -p "$profile" up
says "the data is there" 'demo' k get deployment demo -o name
until_true "and so is the demo" curl -fsS --max-time 5 "http://$address:30080/"
ok "delete" "$SKIFF" -p "$profile" delete
leaves_nothing "nothing is left" "$profile" "$id"
refuses "the context is gone" 'current-context is not set' kubectl config current-context
verdict
