//! `services` in `v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// A stable address for a set of pods.
pub(crate) struct Service(pub(crate) Facts);

impl Kind for Service {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::text(spec, "sessionAffinity", "None");
        match spec.str_at(&["sessionAffinity"]) {
            "None" => {
                spec.unset(&["sessionAffinityConfig"]);
            }
            "ClientIP" => {
                let config = fill::within(fill::within(spec, "sessionAffinityConfig"), "clientIP");
                fill::absent(config, "timeoutSeconds", CLIENT_IP_TIMEOUT_SECONDS);
            }
            _ => {}
        }
        fill::text(spec, "type", "ClusterIP");
        for port in fill::items(spec, &["ports"]) {
            fill::text(port, "protocol", "TCP");
            let unset = match port.get("targetPort") {
                None | Some(Tree::Null | Tree::Int(0)) => true,
                Some(Tree::Str(name)) => name.is_empty(),
                Some(_) => false,
            };
            if unset && let Some(number) = port.int_at(&["port"]) {
                fill::put(port, "targetPort", number);
            }
        }
        let ty = spec.str_at(&["type"]).to_owned();
        let external = !spec.list_at(&["externalIPs"]).is_empty();
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer") || (ty == "ClusterIP" && external) {
            fill::text(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            fill::absent(spec, "internalTrafficPolicy", "Cluster");
        }
        if ty == "LoadBalancer" {
            fill::absent(spec, "allocateLoadBalancerNodePorts", true);
            for ingress in fill::items(object, &["status", "loadBalancer", "ingress"]) {
                if !ingress.str_at(&["ip"]).is_empty() {
                    fill::absent(ingress, "ipMode", "VIP");
                }
            }
        }
    }
}

/// How long a client stays with its endpoint.
const CLIENT_IP_TIMEOUT_SECONDS: i64 = 10_800;
