//! Aggregation: APIServices, and the servers of others behind them.
//!
//! One task ([`worker`]) follows the APIService objects, says in their status whether they can be
//! reached, keeps the discovery and OpenAPI documents of those that can, and registers our own
//! groups and those of custom resources ([`register`]). Requests only look into the table that it
//! swaps. Behaviour and words are those of upstream's `kube-aggregator`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use parking_lot::Mutex;
use skiff_kinds::Registry;
use skiff_object::{Tree, json};

use crate::errors::{ApiError, ApiResult};
use crate::outbound::{Address, Credentials, Target, Trust};
use crate::server::ApiServer;
use crate::{meta, resource_metrics};

pub(crate) mod check;
pub(crate) mod documents;
pub(crate) mod pass;
pub(crate) mod register;
pub(crate) mod worker;

use documents::Documents;

/// The group of APIService objects.
pub(crate) const GROUP: &str = "apiregistration.k8s.io";
/// Their plural.
pub(crate) const PLURAL: &str = "apiservices";

/// How the server aggregates others.
#[derive(Clone, Default)]
pub struct Settings {
    /// The certificate chain and key, PEM, by which aggregated servers know this one: the
    /// front-proxy client (`--proxy-client-cert-file`, `--proxy-client-key-file`).
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether this server answers `metrics.k8s.io` itself, as long as nobody else does.
    pub resource_metrics: bool,
}

/// What a server knows of aggregation.
#[derive(Default)]
pub(crate) struct Aggregator {
    table: ArcSwap<Table>,
    /// What remote servers say of themselves, by the APIService's name.
    documents: Mutex<BTreeMap<String, Arc<Documents>>>,
}

/// The APIServices as they are now.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// The remote ones, by group and version.
    remotes: BTreeMap<(String, String), Arc<Service>>,
}

/// One APIService.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) group: String,
    pub(crate) version: String,
    group_priority: i64,
    version_priority: i64,
    /// Whether its status says that it can be reached.
    pub(crate) available: bool,
    /// Who else serves it; `None` for this server.
    pub(crate) remote: Option<Remote>,
}

/// A Service that serves an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: Target,
}

impl Service {
    /// An APIService as it is stored.
    fn read(object: &Tree, settings: &Settings) -> Self {
        let conditions = object.list_at(&["status", "conditions"]).iter();
        let available = conditions.filter(|one| one.str_at(&["type"]) == "Available");
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            group: object.str_at(&["spec", "group"]).to_owned(),
            version: object.str_at(&["spec", "version"]).to_owned(),
            group_priority: object.int_at(&["spec", "groupPriorityMinimum"]).unwrap_or(0),
            version_priority: object.int_at(&["spec", "versionPriority"]).unwrap_or(0),
            available: available.map(|one| one.str_at(&["status"])).next_back() == Some("True"),
            remote: Remote::read(object, settings),
        }
    }

    /// `/apis/GROUP/VERSION`, or `/api/VERSION`.
    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }
}

impl Remote {
    fn read(object: &Tree, settings: &Settings) -> Option<Self> {
        let service = object.at(&["spec", "service"]).filter(|service| matches!(service, Tree::Map(_)))?;
        let (namespace, name) = (service.str_at(&["namespace"]).to_owned(), service.str_at(&["name"]).to_owned());
        let port = service.int_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let bundle = object.str_at(&["spec", "caBundle"]);
        let trust = if object.bool_at(&["spec", "insecureSkipTLSVerify"]) == Some(true) {
            Trust::Anybody
        } else if bundle.is_empty() {
            Trust::System
        } else {
            Trust::Authorities(base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default())
        };
        let address = Address::Service { namespace: namespace.clone(), name: name.clone(), port, path: String::new() };
        let credentials = Credentials { certificate: settings.client_certificate.clone(), ..Credentials::default() };
        Some(Self { namespace, name, port, target: Target { trust, credentials, ..Target::new(address) } })
    }
}

impl Table {
    /// The remote server of a group and version, if it has one.
    fn remote(&self, group: &str, version: &str) -> Option<&Arc<Service>> {
        if self.remotes.is_empty() {
            return None;
        }
        self.remotes.get(&(group.to_owned(), version.to_owned()))
    }
}

impl Aggregator {
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// What the server behind an APIService said last.
    pub(crate) fn documents(&self, name: &str) -> Option<Arc<Documents>> {
        self.documents.lock().get(name).cloned()
    }

    /// Whether an APIService is there and this server itself stands behind it.
    pub(crate) fn is_local(&self, name: &str) -> bool {
        self.table.load().services.get(name).is_some_and(|service| service.remote.is_none())
    }

    /// The remote server that a path belongs to.
    pub(crate) fn serving(&self, path: &str) -> Option<Arc<Service>> {
        let table = self.table.load();
        if table.remotes.is_empty() {
            return None;
        }
        let mut parts = path.trim_start_matches('/').splitn(4, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("apis"), Some(group), Some(version)) => table.remote(group, version).cloned(),
            _ => None,
        }
    }

    /// The remote server of a group and version, if it has one.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<Arc<Service>> {
        self.table.load().remote(group, version).cloned()
    }

    /// Reads the APIServices anew.
    async fn reload(&self, server: &ApiServer) -> ApiResult<Arc<Table>> {
        let mut table = Table::default();
        for item in server.collection(GROUP, PLURAL).list("").await? {
            let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            let service = Arc::new(Service::read(&object, &server.config.aggregation));
            if service.remote.is_some() {
                table.remotes.insert((service.group.clone(), service.version.clone()), Arc::clone(&service));
            }
            table.services.insert(service.name.clone(), service);
        }
        let table = Arc::new(table);
        self.table.store(Arc::clone(&table));
        Ok(table)
    }
}

/// A group as discovery shows it.
pub(crate) struct Group {
    pub(crate) name: String,
    /// The preferred one first.
    pub(crate) versions: Vec<Version>,
}

/// A version of a [`Group`].
pub(crate) struct Version {
    pub(crate) name: String,
    /// Who serves it, unless this server does.
    pub(crate) remote: Option<Arc<Service>>,
}

/// This server's own groups, in the order of discovery.
pub(crate) fn own_groups(registry: &Registry) -> Vec<Group> {
    let version = |name: &str| Version { name: name.to_owned(), remote: None };
    let groups = registry.groups().into_iter();
    groups
        .map(|(name, versions)| Group { name: name.to_owned(), versions: versions.into_iter().map(version).collect() })
        .collect()
}

/// Every group, whoever serves it, in the order of discovery.
pub(crate) fn groups(server: &ApiServer) -> Vec<Group> {
    let table = server.aggregator.table();
    let mut groups = own_groups(&server.registry());
    if resource_metrics::is_served(server) {
        let version = Version { name: resource_metrics::VERSION.to_owned(), remote: None };
        table.put_in_place(&mut groups, Group { name: resource_metrics::GROUP.to_owned(), versions: vec![version] });
    }
    for service in table.remotes.values() {
        let version = Version { name: service.version.clone(), remote: Some(Arc::clone(service)) };
        match groups.iter_mut().find(|group| group.name == service.group) {
            Some(group) => group.take_in(version, &table),
            None => {
                let group = Group { name: service.group.clone(), versions: vec![version] };
                table.put_in_place(&mut groups, group);
            }
        }
    }
    groups
}

impl Table {
    /// Where a group stands: the highest priority first, then by name.
    fn rank<'a>(&self, group: &'a str) -> (Reverse<i64>, &'a str) {
        let of_group = self.services.values().filter(|service| service.group == group);
        let priority = of_group.map(|service| service.group_priority).max();
        (Reverse(priority.unwrap_or_else(|| register::priority(group, "").0)), group)
    }

    fn put_in_place(&self, groups: &mut Vec<Group>, group: Group) {
        let rank = self.rank(&group.name);
        let at = groups.iter().position(|one| self.rank(&one.name) > rank).unwrap_or(groups.len());
        groups.insert(at, group);
    }

    fn version_rank(&self, group: &str, version: &str) -> (Reverse<i64>, Reverse<(u8, u32, u32)>) {
        let service = self.services.values().find(|one| one.group == group && one.version == version);
        let priority = service.map_or_else(|| register::priority(group, version).1, |one| one.version_priority);
        (Reverse(priority), Reverse(stability(version)))
    }
}

impl Group {
    fn take_in(&mut self, version: Version, table: &Table) {
        match self.versions.iter_mut().find(|one| one.name == version.name) {
            Some(own) => *own = version,
            None => {
                self.versions.push(version);
                let name = self.name.clone();
                self.versions.sort_by_key(|one| table.version_rank(&name, &one.name));
            }
        }
    }
}

/// `v2` over `v1` over `v1beta2` over `v1alpha1` over anything else.
fn stability(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let minor = |text: &str| text.parse().unwrap_or(0);
    match &rest[digits..] {
        "" => (3, major, 0),
        stage if stage.starts_with("beta") => (2, major, minor(&stage[4..])),
        stage if stage.starts_with("alpha") => (1, major, minor(&stage[5..])),
        _ => (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut versions = ["v1alpha1", "v10", "x", "v2", "v1beta2", "v1beta10", "v1"];
        versions.sort_by_key(|version| Reverse(stability(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "x"]);
    }
}
