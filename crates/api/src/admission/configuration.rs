//! `--admission-control-config-file`: what single plugins are told, as `AdmissionConfiguration` of
//! `apiserver.config.k8s.io/v1` has it, inline or in files of their own.

use std::path::Path;

use skiff_object::{Tree, yaml};

use super::pod_security::policy::{Level, Policy, Rules, Version};
use super::resource_quota::limited;
use super::{Settings, event_rate_limit, image_policy, pod_node_selector, pod_security, webhook};

const GROUP: &str = "apiserver.config.k8s.io/";

/// Reads the file's text into `settings`. Paths in it are looked for from `folder`.
///
/// # Errors
/// A sentence that says which plugin's part is no good and why.
pub fn read(settings: &mut Settings, text: &[u8], folder: &Path) -> Result<(), String> {
    let tree = yaml::decode_untyped(text).map_err(|error| error.to_string())?;
    expect(&tree, &[GROUP], "AdmissionConfiguration")?;
    for plugin in tree.list_at(&["plugins"]) {
        let name = plugin.str_at(&["name"]);
        let (config, folder) = part(plugin, folder).map_err(|why| format!("plugin {name:?}: {why}"))?;
        if let Some(config) = config {
            apply(settings, name, &config, &folder).map_err(|why| format!("plugin {name:?}: {why}"))?;
        }
    }
    Ok(())
}

/// The configuration of one plugin and where its own paths start.
fn part(plugin: &Tree, folder: &Path) -> Result<(Option<Tree>, std::path::PathBuf), String> {
    let inline = plugin.get("configuration").filter(|config| !config.is_null());
    let path = plugin.str_at(&["path"]);
    if let Some(config) = inline {
        return Ok((Some(config.clone()), folder.to_owned()));
    }
    if path.is_empty() {
        return Ok((None, folder.to_owned()));
    }
    let path = folder.join(path);
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let config = yaml::decode_untyped(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((Some(config), path.parent().unwrap_or(folder).to_owned()))
}

fn apply(settings: &mut Settings, name: &str, config: &Tree, folder: &Path) -> Result<(), String> {
    match name {
        "PodSecurity" => {
            expect(config, &["pod-security.admission.config.k8s.io/"], "PodSecurityConfiguration")?;
            settings.pod_security = pod_security_of(config)?;
        }
        "ResourceQuota" => {
            expect(config, &[GROUP, "resourcequota.admission.k8s.io/"], "ResourceQuotaConfiguration").or_else(
                |why| expect(config, &["resourcequota.admission.k8s.io/"], "Configuration").map_err(|_| why),
            )?;
            settings.limited_resources = limited::read(config)?;
        }
        "EventRateLimit" => {
            expect(config, &["eventratelimit.admission.k8s.io/"], "Configuration")?;
            settings.event_rate_limit = event_rate_limit::Settings::read(config)?;
        }
        "PodNodeSelector" => {
            let selectors = config.get("podNodeSelectorPluginConfig").unwrap_or(&Tree::Null);
            settings.pod_node_selector = pod_node_selector::Settings::read(selectors)?;
        }
        "ImagePolicyWebhook" => settings.image_policy = Some(image_policy::Settings::read(config, folder)?),
        "ValidatingAdmissionWebhook" | "MutatingAdmissionWebhook" => {
            expect(config, &[GROUP, "apiserver.k8s.io/"], "WebhookAdmissionConfiguration")
                .or_else(|why| expect(config, &["apiserver.k8s.io/"], "WebhookAdmission").map_err(|_| why))?;
            let file = config.str_at(&["kubeConfigFile"]);
            if !file.is_empty() {
                let users = webhook::users::Users::read(&folder.join(file))?;
                // Upstream has a file for each of the two; who calls is the same either way.
                settings.webhook_users.extend(users);
            }
        }
        other => return Err(format!("{other} takes no configuration from this server")),
    }
    Ok(())
}

fn expect(config: &Tree, groups: &[&str], kind: &str) -> Result<(), String> {
    let (found, found_kind) = (config.str_at(&["apiVersion"]), config.str_at(&["kind"]));
    let version = groups.iter().find_map(|group| found.strip_prefix(group));
    if found_kind == kind && matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
        return Ok(());
    }
    Err(format!("no kind {found_kind:?} is registered for version {found:?}"))
}

fn pod_security_of(config: &Tree) -> Result<pod_security::Settings, String> {
    let rules = |mode: &str| {
        let text = |field: String| config.str_at(&["defaults", &field]).to_owned();
        let (level, version) = (text(mode.to_owned()), text(format!("{mode}-version")));
        let level = match level.as_str() {
            "" => Level::default(),
            level => Level::parse(level).ok_or_else(|| {
                format!("defaults.{mode}: Invalid value: {level:?}: must be one of privileged, baseline, restricted")
            })?,
        };
        let version = match version.as_str() {
            "" => Version::default(),
            version => Version::parse(version).ok_or_else(|| {
                format!("defaults.{mode}-version: Invalid value: {version:?}: must be \"latest\" or \"v1.x\"")
            })?,
        };
        Ok::<_, String>(Rules { level, version })
    };
    let texts = |field: &str| {
        config.list_at(&["exemptions", field]).iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    Ok(pod_security::Settings {
        defaults: Policy { enforce: rules("enforce")?, audit: rules("audit")?, warn: rules("warn")? },
        exempt_usernames: texts("usernames"),
        exempt_namespaces: texts("namespaces"),
        exempt_runtime_classes: texts("runtimeClasses"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(plugins: &str) -> Result<Settings, String> {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
        let mut settings = Settings::default();
        read(&mut settings, text.as_bytes(), Path::new("/nowhere")).map(|()| settings)
    }

    #[test]
    fn plugins_are_told_what_the_file_says() {
        let read = settings(
            "- name: PodSecurity\n  configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: \
             PodSecurityConfiguration, defaults: {enforce: baseline, enforce-version: v1.30}, exemptions: {namespaces: \
             [kube-system]}}\n- name: EventRateLimit\n  configuration: {apiVersion: \
             eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Server, qps: 1, burst: 2}]}\n",
        )
        .unwrap();
        assert_eq!(read.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(read.pod_security.exempt_namespaces, ["kube-system"]);
        assert!(read.event_rate_limit.check().is_ok());
    }

    #[test]
    fn what_is_wrong_names_its_plugin() {
        let error = |plugins: &str| settings(plugins).unwrap_err();
        assert_eq!(
            error("- name: PodSecurity\n  configuration: {apiVersion: v1, kind: Pod}\n"),
            "plugin \"PodSecurity\": no kind \"Pod\" is registered for version \"v1\""
        );
        assert!(
            error("- name: EventRateLimit\n  path: none.yaml\n")
                .starts_with("plugin \"EventRateLimit\": /nowhere/none.yaml: ")
        );
        assert_eq!(
            error("- name: LimitRanger\n  configuration: {}\n"),
            "plugin \"LimitRanger\": LimitRanger takes no configuration from this server"
        );
    }
}
