//! What servers behind this one need to know about who comes in: the ConfigMap
//! `extension-apiserver-authentication` in `kube-system`.

use skiff_object::{Tree, json};

use super::settings::Settings;

/// The ConfigMap.
pub const NAME: &str = "extension-apiserver-authentication";
/// Its namespace.
pub const NAMESPACE: &str = "kube-system";

/// The ConfigMap as it should be; `None` when no certificate means anything.
pub fn config_map(settings: &Settings) -> Option<Tree> {
    let mut map = Tree::map();
    map.set(&["apiVersion"], "v1");
    map.set(&["kind"], "ConfigMap");
    map.set(&["metadata", "name"], NAME);
    map.set(&["metadata", "namespace"], NAMESPACE);
    if !settings.client_ca.is_empty() {
        map.set(&["data", "client-ca-file"], settings.client_ca.as_str());
    }
    if let Some(proxies) = &settings.request_header {
        let list = |items: &[String]| {
            let items = items.iter().map(|item| Tree::from(item.as_str())).collect();
            String::from_utf8(json::encode_untyped(&Tree::List(items))).unwrap_or_default()
        };
        map.set(&["data", "requestheader-client-ca-file"], proxies.client_ca.as_str());
        map.set(&["data", "requestheader-allowed-names"], list(&proxies.allowed_names));
        map.set(&["data", "requestheader-username-headers"], list(&proxies.username_headers));
        map.set(&["data", "requestheader-uid-headers"], list(&proxies.uid_headers));
        map.set(&["data", "requestheader-group-headers"], list(&proxies.group_headers));
        map.set(&["data", "requestheader-extra-headers-prefix"], list(&proxies.extra_header_prefixes));
    }
    map.get("data").is_some().then_some(map)
}
