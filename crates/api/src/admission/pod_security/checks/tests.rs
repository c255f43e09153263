//! Each check by its words, and the versions in which they changed.

use skiff_object::{Tree, json};

use super::*;

fn found(level: Level, version: Version, metadata: &str, spec: &str) -> String {
    let parse = |text: &str| json::decode_untyped(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (metadata, spec): (Tree, Tree) = (parse(metadata), parse(spec));
    evaluate(Rules { level, version }, Pod { metadata: &metadata, spec: &spec }).details()
}

fn baseline(spec: &str) -> String {
    found(Level::Baseline, Version::Latest, "{}", spec)
}

/// A container that the restricted level has nothing against, with something more.
fn container(name: &str, more: &str) -> String {
    format!(
        r#"{{"name":"{name}","securityContext":{{"allowPrivilegeEscalation":false,"capabilities":{{"drop":["ALL"]}},
        "runAsNonRoot":true,"seccompProfile":{{"type":"RuntimeDefault"}}}}{more}}}"#
    )
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let good = format!(r#"{{"containers":[{}]}}"#, container("a", ""));
    assert_eq!(found(Level::Restricted, Version::Latest, "{}", &good), "");
    let bad = r#"{"hostNetwork":true,"containers":[{"name":"a"}]}"#;
    assert_eq!(found(Level::Privileged, Version::Latest, "{}", bad), "");
}

#[test]
fn the_restricted_level_reads_as_everybody_knows_it() {
    assert_eq!(
        found(Level::Restricted, Version::Latest, "{}", r#"{"containers":[{"name":"x"}]}"#),
        "allowPrivilegeEscalation != false (container \"x\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"x\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"x\" must set securityContext.runAsNonRoot=true), seccompProfile \
         (pod or container \"x\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn baseline_checks() {
    let rows = [
        (r#"{"hostNetwork":true,"hostIPC":true}"#, "host namespaces (hostNetwork=true, hostIPC=true)"),
        (
            r#"{"volumes":[{"name":"a","hostPath":{}},{"name":"b","emptyDir":{}},{"name":"c","hostPath":{}}]}"#,
            "hostPath volumes (volumes \"a\", \"c\")",
        ),
        (
            r#"{"containers":[{"name":"a","ports":[{"hostPort":80},{"hostPort":9090},{"hostPort":0}]}]}"#,
            "hostPort (container \"a\" uses hostPorts 80, 9090)",
        ),
        (
            r#"{"initContainers":[{"name":"i","securityContext":{"privileged":true}}],
               "containers":[{"name":"a","securityContext":{"privileged":true}}]}"#,
            "privileged (containers \"i\", \"a\" must not set securityContext.privileged=true)",
        ),
        (
            r#"{"containers":[{"name":"a","securityContext":{"capabilities":{"add":["SYS_ADMIN","CHOWN","NET_RAW"]}}}]}"#,
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            r#"{"securityContext":{"appArmorProfile":{"type":"Unconfined"}},"containers":[{"name":"a"}]}"#,
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            r#"{"containers":[{"name":"a","securityContext":{"procMount":"Unmasked"}}]}"#,
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (r#"{"hostUsers":false,"containers":[{"name":"a","securityContext":{"procMount":"Unmasked"}}]}"#, ""),
        (
            r#"{"securityContext":{"seLinuxOptions":{"type":"spc_t","user":"u"}},
               "containers":[{"name":"a","securityContext":{"seLinuxOptions":{"role":"r"}}}]}"#,
            "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; \
             user may not be set; role may not be set)",
        ),
        (
            r#"{"containers":[{"name":"a","securityContext":{"seccompProfile":{"type":"Unconfined"}}}]}"#,
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            r#"{"securityContext":{"sysctls":[{"name":"net.ipv4.tcp_rmem"},{"name":"kernel.msgmax"}]}}"#,
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            r#"{"securityContext":{"windowsOptions":{"hostProcess":true}}}"#,
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            r#"{"containers":[{"name":"a","livenessProbe":{"httpGet":{"host":"example.com"}},
               "lifecycle":{"preStop":{"tcpSocket":{"host":"10.0.0.1"}}}}]}"#,
            "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"10.0.0.1\", \"example.com\")",
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(baseline(spec), expected, "{spec}");
    }
}

#[test]
fn restricted_checks() {
    let restricted = |spec: &str| found(Level::Restricted, Version::Latest, "{}", spec);
    let with = |pod: &str| format!(r#"{{{pod}"containers":[{}]}}"#, container("a", ""));
    assert_eq!(
        restricted(&with(
            r#""volumes":[{"name":"n","nfs":{}},{"name":"h","hostPath":{}},{"name":"c","configMap":{}}],"#
        )),
        "restricted volume types (volumes \"n\", \"h\" use restricted volume types \"hostPath\", \"nfs\")"
    );
    assert_eq!(
        restricted(&with(r#""securityContext":{"runAsNonRoot":false,"runAsUser":0},"#)),
        "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set \
         runAsUser=0)"
    );
    assert_eq!(restricted(&with(r#""hostUsers":false,"securityContext":{"runAsUser":0},"#)), "");
    let adding =
        container("a", "").replace(r#""drop":["ALL"]"#, r#""drop":["KILL"],"add":["CHOWN","NET_BIND_SERVICE"]"#);
    assert_eq!(
        restricted(&format!(r#"{{"containers":[{adding}]}}"#)),
        "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \
         \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)"
    );
    assert_eq!(
        restricted(r#"{"os":{"name":"windows"},"securityContext":{"runAsNonRoot":true},"containers":[{"name":"w"}]}"#),
        ""
    );
}

#[test]
fn versions_have_the_checks_of_their_time() {
    let at = |level: Level, minor: u32, spec: &str| found(level, Version::Minor(minor), "{}", spec);
    let bare = r#"{"containers":[{"name":"x"}]}"#;
    assert_eq!(
        at(Level::Restricted, 7, bare),
        "runAsNonRoot != true (pod or container \"x\" must set securityContext.runAsNonRoot=true)"
    );
    assert!(!at(Level::Restricted, 21, bare).contains("capabilities"));
    assert!(at(Level::Restricted, 22, bare).contains("unrestricted capabilities"));
    let user = r#"{"securityContext":{"runAsUser":0}}"#;
    assert_eq!((at(Level::Restricted, 22, user).as_str(), at(Level::Restricted, 23, user).is_empty()), ("", false));
    let probe = r#"{"containers":[{"name":"a","livenessProbe":{"httpGet":{"host":"h"}}}]}"#;
    assert_eq!((at(Level::Baseline, 33, probe).is_empty(), at(Level::Baseline, 34, probe).is_empty()), (true, false));
    let reserved = r#"{"securityContext":{"sysctls":[{"name":"net.ipv4.ip_local_reserved_ports"}]}}"#;
    assert_eq!(
        (at(Level::Baseline, 26, reserved).is_empty(), at(Level::Baseline, 27, reserved).is_empty()),
        (false, true)
    );
    assert_eq!(
        found(
            Level::Baseline,
            Version::Minor(18),
            r#"{"annotations":{"seccomp.security.alpha.kubernetes.io/pod":"unconfined"}}"#,
            bare
        ),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(
        found(
            Level::Baseline,
            Version::Latest,
            r#"{"annotations":{"container.apparmor.security.beta.kubernetes.io/x":"unconfined"}}"#,
            bare
        ),
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/x=\"unconfined\"\")"
    );
}
