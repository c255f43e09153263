//! What a request says besides its body: path, query, `Accept` and `Content-Type`, a line each, behind a byte that
//! chooses the method.
#![no_main]

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use skiff_api::negotiate::{self, Format, Offer, Projection};
use skiff_api::request::options::{DeleteOptions, ListOptions, WriteOptions, is_watch};
use skiff_api::request::{RequestInfo, percent_decode};

const METHODS: [Method; 6] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

fuzz_target!(|data: &[u8]| {
    let [method, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or("");
    let (path, query, accept, content_type) = (line(), line(), line(), line());
    resource(&METHODS[usize::from(*method) % METHODS.len()], path, query);
    options(query);
    negotiated(query, accept, content_type);
});

fn resource(method: &Method, path: &str, query: &str) {
    let info = RequestInfo::parse(method, path, query);
    assert_eq!(info.path, path);
    if !info.is_resource {
        assert!(info.resource.is_empty() && info.name.is_empty() && info.parts.is_empty());
        return;
    }
    assert!(matches!(&*info.prefix, "api" | "apis"));
    // Authorization sees what the verbs see, and nothing that is not in the path or the query.
    let said = format!("{}\n{}", percent_decode(path), percent_decode(query));
    let whole = path.trim_matches('/').split('/').map(percent_decode).collect::<Vec<_>>();
    for part in [&info.namespace, &info.resource, &info.subresource, &info.group, &info.version] {
        assert!(part.is_empty() || whole.iter().any(|segment| segment == part), "{part:?} of {said:?}");
    }
    assert_eq!(info.parts.first().map_or("", |part| part), info.resource);
    if info.path_names_object() {
        assert_eq!(info.parts[1], info.name);
    }
    if info.verb == "watch" || info.verb == "list" {
        assert!(!info.path_names_object() || info.verb == "watch", "{info:?}");
    }
}

fn options(query: &str) {
    if let Ok(options) = ListOptions::parse(query) {
        if options.watch {
            assert!(is_watch(query), "a watch for the verb is one for authorization");
        }
        if options.validate().is_ok() && !options.resource_version_match.is_empty() {
            assert!(options.continue_token.is_empty());
        }
        if let Ok(Some(version)) = options.version() {
            assert_eq!(options.resource_version.trim_start_matches(['+', '0']).parse::<u64>().unwrap_or(0), version);
        }
    }
    if let Ok(options) = WriteOptions::parse(query, "CreateOptions") {
        assert!(options.field_manager.len() <= 128 && !options.field_manager.contains('\n'));
        assert_eq!(options.to_tree("CreateOptions").str_at(&["fieldManager"]), options.field_manager);
    }
    if let Ok(options) = DeleteOptions::parse(query) {
        assert_eq!(options.to_tree().int_at(&["gracePeriodSeconds"]), options.grace_period_seconds);
    }
}

fn negotiated(query: &str, accept: &str, content_type: &str) {
    let mut headers = HeaderMap::new();
    for (name, value) in [(ACCEPT, accept), (CONTENT_TYPE, content_type)] {
        let Ok(value) = HeaderValue::from_str(value) else { return };
        headers.insert(name, value);
    }
    for offer in [Offer::RESOURCE, Offer::CUSTOM, Offer::PLAIN] {
        if let Ok(form) = negotiate::accept(&headers, query, offer) {
            assert!(offer.protobuf || form.format != Format::Protobuf, "{accept:?}");
            assert!(offer.projections || form.projection == Projection::Object, "{accept:?}");
            assert!(form.content_type().starts_with("application/"));
        }
        if let Ok(format) = negotiate::content_type(&headers, offer) {
            assert!(offer.protobuf || format != Format::Protobuf, "{content_type:?}");
        }
    }
    let strategic = negotiate::patch_type(&headers, true).is_ok();
    assert!(strategic || negotiate::patch_type(&headers, false).is_err(), "{content_type:?}");
}
