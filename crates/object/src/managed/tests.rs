use super::*;
use crate::patch::testing::{json, schema, tree};
use crate::tree::Key;
use proptest::prelude::*;

/// Writes as `manager` at second `second`; the object is a `Thing` of the test schema.
struct World {
    schema: Schema,
    reset: FieldSet,
    live: Option<Tree>,
}

impl World {
    fn new() -> Self {
        Self { schema: schema(), reset: FieldSet::new(), live: None }
    }

    fn request<'a>(&'a self, manager: &'a str, second: i64) -> Request<'a> {
        Request {
            schema: &self.schema,
            ty: self.schema.find("Thing").unwrap(),
            api_version: "v1",
            kind: "Thing",
            subresource: "",
            reset: &self.reset,
            versions: &versions::OnePath,
            manager,
            now: Time { seconds: second, nanos: 0 },
        }
    }

    fn update(&mut self, manager: &str, second: i64, object: &str) {
        let mut new = json(object);
        let live = self.live.clone();
        update(&self.request(manager, second), live.as_ref(), &mut new).expect("one version");
        if let Some(old) = &live {
            keep_times(&mut new, old);
        }
        new.set(&["metadata", "uid"], "u");
        self.live = Some(new);
    }

    fn apply(&mut self, manager: &str, second: i64, config: &str, force: bool) -> Result<(), ApplyError> {
        let live = self.live.clone();
        let new = apply(&self.request(manager, second), live.as_ref(), &json(&thing(config)), force)?;
        self.live = Some(new);
        Ok(())
    }

    fn body(&self) -> Tree {
        let mut live = self.live.clone().unwrap();
        for key in ["metadata", "apiVersion", "kind"] {
            live.as_map_mut().unwrap().remove(key);
        }
        live
    }

    fn owners(&self) -> Vec<String> {
        let live = self.live.as_ref().unwrap();
        let entries = live.list_at(&["metadata", "managedFields"]);
        entries
            .iter()
            .map(|entry| {
                let paths = FieldSet::decode(entry.get("fieldsV1").unwrap()).unwrap().paths().join(" ");
                let time = entry.str_at(&["time"]).trim_start_matches("1970-01-01T00:00:").trim_end_matches('Z');
                format!("{} {} {time}: {paths}", entry.str_at(&["manager"]), entry.str_at(&["operation"]))
            })
            .collect()
    }
}

/// A body with what every configuration has.
fn thing(body: &str) -> String {
    body.replacen('{', r#"{"apiVersion":"v1","kind":"Thing","metadata":{"name":"x"},"#, 1).replace(",}", "}")
}

#[test]
fn a_create_owns_what_it_sets() {
    let mut world = World::new();
    world.update(
        "kubectl-create",
        1,
        &thing(r#"{"replicas":1,"items":[{"name":"a","n":1,"ports":[{"port":80}]}],"selector":{"a":"b"}}"#),
    );
    assert_eq!(
        world.owners(),
        [concat!(
            r#"kubectl-create Update 01: .items .replicas .selector .items[name="a"] .items[name="a"].n .items[name="a"].name "#,
            r#".items[name="a"].ports .items[name="a"].ports[port=80,protocol="TCP"] "#,
            r#".items[name="a"].ports[port=80,protocol="TCP"].port"#
        )]
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut world = World::new();
    world.update("one", 1, &thing(r#"{"replicas":1,"labels":{"a":"1","b":"2"}}"#));
    world.update("two", 2, &thing(r#"{"replicas":2,"labels":{"a":"1","c":"3"}}"#));
    assert_eq!(world.owners(), ["one Update 01: .labels .labels.a", "two Update 02: .replicas .labels.c"]);
    // Nothing changes: neither owners nor times.
    let before = world.live.clone();
    world.update("two", 3, &thing(r#"{"replicas":2,"labels":{"a":"1","c":"3"}}"#));
    assert_eq!(
        world.live.as_ref().unwrap().at(&["metadata", "managedFields"]),
        before.unwrap().at(&["metadata", "managedFields"])
    );
}

#[test]
fn a_conflict_names_the_owner_and_force_takes_over() {
    let mut world = World::new();
    world.update("kubectl-client-side-apply", 1, &thing(r#"{"replicas":1}"#));
    let error = world.apply("me", 2, r#"{"replicas":2}"#, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .replicas"#
    );
    let ApplyError::Conflict(conflicts) = error else { panic!("not a conflict") };
    assert_eq!(
        conflicts.causes(),
        json(
            r#"[{"reason":"FieldManagerConflict","message":"conflict with \"kubectl-client-side-apply\" using v1","field":".replicas"}]"#
        )
    );
    world.apply("me", 3, r#"{"replicas":2}"#, true).unwrap();
    assert_eq!(world.owners(), ["me Apply 03: .replicas"]);
}

#[test]
fn several_conflicts_are_grouped_by_owner() {
    let mut world = World::new();
    world.apply("a", 1, r#"{"replicas":1,"labels":{"x":"1"}}"#, false).unwrap();
    world.apply("b", 2, r#"{"selector":{"x":"1"}}"#, false).unwrap();
    let error = world.apply("c", 3, r#"{"replicas":2,"labels":{"x":"2"},"selector":{}}"#, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .replicas\n- .labels.x\nconflicts with \"b\":\n- .selector"
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_others_own_it() {
    let mut world = World::new();
    world
        .apply("me", 1, r#"{"replicas":1,"labels":{"a":"1","b":"2"},"items":[{"name":"x","n":1},{"name":"y"}]}"#, false)
        .unwrap();
    world.apply("other", 2, r#"{"labels":{"b":"2"}}"#, false).unwrap();
    world.apply("me", 3, r#"{"items":[{"name":"y"}]}"#, false).unwrap();
    assert_eq!(world.body(), json(r#"{"labels":{"b":"2"},"items":[{"name":"y"}]}"#));
    assert_eq!(
        world.owners(),
        ["other Apply: .labels.b", r#"me Apply 03: .items[name="y"] .items[name="y"].name"#]
            .map(|line| line.replace("Apply:", "Apply :"))
    );
}

#[test]
fn two_appliers_own_a_list_together() {
    let mut world = World::new();
    world.apply("a", 1, r#"{"items":[{"name":"one","n":1}],"finalizers":["x"]}"#, false).unwrap();
    world
        .apply("b", 2, r#"{"items":[{"name":"two"},{"name":"one","labels":{"l":"1"}}],"finalizers":["y"]}"#, false)
        .unwrap();
    assert_eq!(
        world.body(),
        json(r#"{"items":[{"name":"two"},{"name":"one","n":1,"labels":{"l":"1"}}],"finalizers":["x","y"]}"#)
    );
    world.apply("a", 3, r#"{"items":[]}"#, false).unwrap();
    assert_eq!(
        world.body(),
        json(r#"{"items":[{"name":"two"},{"name":"one","labels":{"l":"1"}}],"finalizers":["y"]}"#)
    );
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let last = r#"{\"apiVersion\":\"v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"replicas\":1}"#;
    let object = format!(
        r#"{{"apiVersion":"v1","kind":"Thing","metadata":{{"name":"x","annotations":{{"{LAST_APPLIED}":"{last}"}}}},"replicas":1}}"#
    );
    let mut world = World::new();
    world.update("kubectl-client-side-apply", 1, &object);
    assert!(world.apply("somebody", 2, r#"{"replicas":2}"#, false).is_err());
    world.apply("kubectl", 2, r#"{"replicas":2}"#, false).unwrap();
    let live = world.live.as_ref().unwrap();
    assert_eq!(live.int_at(&["replicas"]), Some(2));
    assert_eq!(
        live.str_at(&["metadata", "annotations", LAST_APPLIED]),
        "{\"apiVersion\":\"v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"replicas\":2}\n"
    );
}

#[test]
fn what_cannot_be_applied_says_why() {
    let mut world = World::new();
    for (config, want) in [
        (r#"{"x":1}"#, "failed to create typed patch object (/x; v1, Kind=Thing): .x: field not declared in schema"),
        (
            r#"{"items":[{"name":"a","labels":{"b":8}}]}"#,
            r#"failed to create typed patch object (/x; v1, Kind=Thing): .items[name="a"].labels.b: expected string, got &value.valueUnstructured{Value:8}"#,
        ),
        (
            r#"{"items":[{"n":1}]}"#,
            concat!(
                "failed to create typed patch object (/x; v1, Kind=Thing): .items: element 0: associative list with keys has ",
                r#"an element that omits all key fields ["name"] (and doesn't have default values for any key fields)"#
            ),
        ),
        (
            r#"{"replicas":"a","labels":[]}"#,
            concat!(
                "failed to create typed patch object (/x; v1, Kind=Thing): errors:\n  .labels: expected map, got &{[]}\n  ",
                ".replicas: expected numeric (int or float), got string"
            ),
        ),
    ] {
        assert_eq!(world.apply("me", 1, config, false).unwrap_err().to_string(), want);
    }
}

#[test]
fn entries_can_be_reset_and_stay_so() {
    let mut world = World::new();
    world.update("one", 1, &thing(r#"{"replicas":1}"#));
    let mut new = world.live.clone().unwrap();
    new.set(&["metadata", "managedFields"], Tree::List(vec![Tree::map()]));
    let live = world.live.clone();
    update(&world.request("two", 2), live.as_ref(), &mut new).expect("one version");
    assert_eq!(new.at(&["metadata", "managedFields"]), None);
    world.live = Some(new);
    world.update("three", 3, &thing(r#"{"replicas":3}"#));
    assert_eq!(world.owners(), Vec::<String>::new());
    world.apply("me", 4, r#"{"labels":{"a":"1"}}"#, false).unwrap();
    assert_eq!(world.owners(), ["me Apply 04: .labels.a", "before-first-apply Update 04: .replicas"]);
}

#[test]
fn the_oldest_of_many_updaters_are_merged() {
    let mut world = World::new();
    let mut labels = String::new();
    for n in 0..14 {
        labels.push_str(&format!(r#"{}"l{n:02}":"1""#, if n > 0 { "," } else { "" }));
        world.update(&format!("m{n:02}"), n + 1, &thing(&format!(r#"{{"labels":{{{labels}}}}}"#)));
    }
    let owners = world.owners();
    assert_eq!(owners.len(), 10, "{owners:?}");
    assert_eq!(
        owners[0],
        "ancient-changes Update 05: .labels .labels.l00 .labels.l01 .labels.l02 .labels.l03 .labels.l04"
    );
}

#[test]
fn objects_as_deep_as_allowed_fit_the_stack() {
    let mut deep = Tree::Int(1);
    for _ in 0..crate::patch::DEPTH_MAX - 2 {
        deep = Tree::Map([(Key::from("a"), deep)].into_iter().collect());
    }
    let world = World::new();
    let mut config = json(&thing("{}"));
    config.as_map_mut().unwrap().insert("any", deep.clone());
    let live = apply(&world.request("me", 1), None, &config, false).unwrap();
    let mut new = live.clone();
    new.as_map_mut().unwrap().insert("any", Tree::map());
    update(&world.request("two", 2), Some(&live), &mut new).expect("one version");
    assert_eq!(apply(&world.request("me", 3), Some(&live), &json(&thing("{}")), false).unwrap().get("any"), None);
    config.as_map_mut().unwrap().insert("any", Tree::List(vec![Tree::List(vec![Tree::List(vec![deep])])]));
    let error = apply(&world.request("me", 1), None, &config, false).unwrap_err();
    assert_eq!(error.to_string(), "failed to create typed patch object (/x; v1, Kind=Thing): exceeded max depth");
}

#[test]
fn a_null_in_a_list_stays_there() {
    let mut world = World::new();
    for second in [1, 2] {
        world.apply("me", second, r#"{"plain":[null,{"name":null}],"any":[null]}"#, false).unwrap();
        assert_eq!(world.body(), json(r#"{"plain":[null,{"name":null}],"any":[null]}"#));
    }
}

#[test]
fn reset_fields_are_nobodys() {
    let mut world = World::new();
    world.reset = FieldSet::of_fields(&[&["labels"]]);
    world.update("one", 1, &thing(r#"{"replicas":1,"labels":{"a":"1"}}"#));
    assert_eq!(world.owners(), ["one Update 01: .replicas"]);
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(a in tree(), b in tree()) {
        let mut world = World::new();
        // An explicit null is applied each time anew, upstream as well.
        let config = |mut any: Tree| {
            drop_nulls(&mut any);
            if any.is_null() {
                any = Tree::map();
            }
            let mut config = json(&thing("{}"));
            config.as_map_mut().unwrap().insert("any", any);
            config
        };
        let first = apply(&world.request("me", 1), None, &config(a), false).unwrap();
        let second = apply(&world.request("me", 2), Some(&first), &config(b.clone()), false).unwrap();
        let third = apply(&world.request("me", 3), Some(&second), &config(b), false).unwrap();
        prop_assert_eq!(&third, &second);
        world.live = Some(third);
    }

    #[test]
    fn what_nobody_applies_is_gone(names in prop::collection::btree_set("[a-e]", 0..5), kept in prop::collection::btree_set("[a-e]", 0..5)) {
        let mut world = World::new();
        let config = |names: &std::collections::BTreeSet<String>| {
            let items: Vec<String> = names.iter().map(|name| format!(r#"{{"name":"{name}","n":1}}"#)).collect();
            format!(r#"{{"items":[{}]}}"#, items.join(","))
        };
        world.apply("me", 1, &config(&names), false).unwrap();
        world.apply("me", 2, &config(&kept), false).unwrap();
        let left: Vec<String> =
            world.body().list_at(&["items"]).iter().map(|item| item.str_at(&["name"]).to_owned()).collect();
        prop_assert_eq!(left, kept.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn comparing_an_object_with_itself_finds_nothing(any in tree(), labels in prop::collection::btree_map("[a-c]", "[a-c]", 0..3)) {
        let schema = schema();
        let typed = typed::Typed::new(&schema, schema.find("Thing").unwrap());
        let mut object = Tree::map();
        let labels = labels.into_iter().map(|(key, value)| (Key::from(key), value.into())).collect();
        object.set(&["any"], any);
        object.set(&["labels"], Tree::Map(labels));
        prop_assert!(typed.compare(&object, &object).is_same());
        let nothing = typed.compare(&Tree::map(), &object);
        prop_assert!(nothing.removed.is_empty() && nothing.modified.is_empty());
    }

    #[test]
    fn no_object_panics(a in tree(), b in tree()) {
        let world = World::new();
        let typed = typed::Typed::new(&world.schema, world.schema.find("Thing").unwrap());
        let wrap = |tree: &Tree, key: &'static str| Tree::Map([(Key::from(key), tree.clone())].into_iter().collect());
        for key in ["items", "finalizers", "labels", "selector", "plain", "any", "strategy", "metadata"] {
            let (a, b) = (wrap(&a, key), wrap(&b, key));
            let comparison = typed.compare(&a, &b);
            let set = typed.field_set(&b).union(&comparison.added);
            let _ = typed.remove(&a, &set);
            let _ = typed.merge(&a, &b);
            let mut new = b.clone();
            update(&world.request("me", 1), Some(&a), &mut new).expect("one version");
        }
    }
}
