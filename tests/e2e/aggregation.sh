#!/usr/bin/env bash
# Aggregation, proxies, Service addresses and resource metrics, with the real kubectl. After the
# conformance behaviours "Aggregator" and "Proxy version v1". SERVERS names the binary of
# tests/servers (default: the release build beside SKIFF).
. "$(dirname "$0")/lib.sh"
command -v kubectl >/dev/null || {
    echo "kubectl is missing: aggregation was not tried"
    exit 0
}
need_servers
k() { kubectl --request-timeout=30s "$@"; }

ok "up" "$SKIFF" -p "$profile" up
servers_image servers.local/servers:1 "$work/servers.tar"
ok "image load" "$SKIFF" -p "$profile" image load "$work/servers.tar"
"$SERVERS" certificates api.wardle.svc "$work/tls"

# Our own APIServices.
until_true "built-in groups are available" sh -c "kubectl get apiservice v1.apps | grep -Eq 'Local +True'"

# An aggregated server as a pod.
ok "namespace" k create namespace wardle
ok "certificate" k -n wardle create secret generic tls --from-file="$work/tls"
ok "may read whom to believe" k -n kube-system create rolebinding wardle --role=extension-apiserver-authentication-reader \
    --serviceaccount=wardle:default
kubectl apply -f - >"$work/out" <<YAML || broken "apply"
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: wardle}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
        - name: api
          image: servers.local/servers:1
          imagePullPolicy: Never
          command: [servers, aggregated, /tls, "8443"]
          ports: [{name: https, containerPort: 8443}]
          volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: tls}}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: wardle}
spec:
  selector: {app: api}
  ports: [{port: 7443, targetPort: 8443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1alpha1.wardle.example.com}
spec:
  group: wardle.example.com
  version: v1alpha1
  groupPriorityMinimum: 2000
  versionPriority: 200
  caBundle: $(base64 -w0 "$work/tls/ca.crt")
  service: {namespace: wardle, name: api, port: 7443}
YAML
ok "available" k wait apiservice/v1alpha1.wardle.example.com --for=condition=Available --timeout=60s
says "discovered" 'flunders +wardle.example.com/v1alpha1 +true +Flunder' \
    k api-resources --api-group=wardle.example.com
printf '{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"one"}}' >"$work/flunder.json"
ok "create" k create --validate=false -f "$work/flunder.json"
says "the user came along" 'kubernetes-admin|admin' \
    k get flunder one -o 'jsonpath={.metadata.annotations.wardle\.example\.com/creator}'
says "list" 'one' k get flunders -A --no-headers
says "watch" 'one' sh -c "timeout 3 kubectl get flunders -w --no-headers || [ \$? = 124 ]"
refuses "not found is theirs" 'flunders.wardle.example.com "none" not found' k get flunder none
ok "delete" k delete flunder one
refuses "nobody without the front proxy's certificate" 'Unauthorized' \
    k get --raw /api/v1/namespaces/wardle/services/https:api:7443/proxy/apis/wardle.example.com/v1alpha1
ok "scale to nobody" k -n wardle scale deployment api --replicas=0
ok "not available" k wait apiservice/v1alpha1.wardle.example.com --for=condition=Available=false --timeout=60s
refuses "says so" 'service unavailable|currently unable' k get flunders
ok "delete the APIService" k delete apiservice v1alpha1.wardle.example.com
until_true "the group is gone" sh -c '! kubectl get --raw /apis/wardle.example.com'

# Proxies.
ok "web" k run web --image=servers.local/servers:1 --image-pull-policy=Never --port=8080 -- \
    sh -c 'mkdir /www; echo "<a href=/next>next</a>" >/www/index.html; exec httpd -f -p 8080 -h /www'
ok "web is ready" k wait pod/web --for=condition=Ready --timeout=60s
ok "expose" k expose pod web --port=80 --target-port=8080 --name=web
for path in pods/web pods/web:8080 pods/http:web:8080 services/web services/web:80; do
    until_true "proxy $path" sh -c \
        "kubectl get --raw /api/v1/namespaces/default/$path/proxy/ | grep -q 'href=\"/api/v1/namespaces/default/$path/proxy/next\"'"
done
node=$(kubectl get nodes -o 'jsonpath={.items[0].metadata.name}')
says "proxy of a node" '"nodeName"' k get --raw "/api/v1/nodes/$node/proxy/stats/summary"
says "the kubelet's metrics" 'container_start_time_seconds' k get --raw "/api/v1/nodes/$node/proxy/metrics/resource"
says "cAdvisor's metrics" 'container_memory_working_set_bytes' k get --raw "/api/v1/nodes/$node/proxy/metrics/cadvisor"
ok "exec" k exec web -- true

# Resource metrics.
until_true "top nodes" k top nodes
until_true "top pods" sh -c 'kubectl top pods | grep -q web'

# Service addresses.
says "the default ServiceCIDR is ready" '^True$' \
    k get servicecidr kubernetes -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
address=$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')
says "an address has its record" 'services/default/web' k get ipaddress "$address"
ok "delete the record" k delete ipaddress "$address"
until_true "it comes back" k get ipaddress "$address"
says "and that is told" 'ClusterIPNotAllocated' k get events
ok "another ServiceCIDR" sh -c "printf '{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"ServiceCIDR\",\"metadata\":{\"name\":\"more\"},\"spec\":{\"cidrs\":[\"10.201.0.0/24\"]}}' | kubectl create -f -"
ok "is ready" k wait servicecidr/more --for=condition=Ready --timeout=30s
ok "gives addresses" k create service clusterip far --tcp=80 --clusterip=10.201.0.9
ok "is deleted" k delete servicecidr more --wait=false
ok "but stays while it is in use" k wait servicecidr/more --for=condition=Ready=false --timeout=30s
ok "the Service goes" k delete service far
ok "then it goes too" k wait servicecidr/more --for=delete --timeout=60s

verdict
