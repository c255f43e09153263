//! Label and field selectors, against a naive evaluation.
//!
//! The first byte chooses which; the rest is the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_object::selector::label::Operator;
use skiff_object::selector::{field, label};
use skiff_object::{Tree, json};

const LABELS: [&[(&str, &str)]; 4] = [
    &[],
    &[("a", "b"), ("app", "web"), ("x/y", "")],
    &[("a", "1"), ("n", "5"), ("app", "db"), ("tier", "front")],
    &[("a", "-1"), ("n", "+5"), ("x", "01"), ("y", "9223372036854775808")],
];

fuzz_target!(|data: &[u8]| {
    let [which, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match which % 3 {
        0 => labels(text),
        1 => fields(text),
        _ => object(text),
    }
});

fn labels(text: &str) {
    let Ok(selector) = label::Selector::parse(text) else { return };
    let printed = selector.to_string();
    let again = label::Selector::parse(&printed).unwrap_or_else(|error| panic!("printed {printed:?}: {error}"));
    assert_eq!(selector, again, "printed {printed:?}");
    matched(&selector);
}

fn object(text: &str) {
    let Ok(tree) = json::decode_untyped(text.as_bytes()) else { return };
    let Ok(selector) = label::Selector::from_object(Some(&tree)) else { return };
    matched(&selector);
    let printed = selector.to_string();
    if let Ok(again) = label::Selector::parse(&printed) {
        for labels in LABELS {
            let get = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            assert_eq!(selector.matches(get), again.matches(get) && tree.as_map().is_some(), "printed {printed:?}");
        }
    }
    let set = tree.get("matchLabels");
    if let Some(Tree::Map(map)) = set
        && map.values().all(|value| value.as_str().is_some())
    {
        assert!(label::Selector::from_set(set).matches_labels(set), "a set selects itself");
    }
}

fn matched(selector: &label::Selector) {
    for labels in LABELS {
        let get = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let wanted = selector.requirements().iter().all(|requirement| {
            let label = get(&requirement.key);
            let among = label.is_some_and(|label| requirement.values.iter().any(|value| value == label));
            let number = |text: &str| text.parse::<i64>().ok();
            let bound = requirement.values.first().and_then(|value| number(value));
            match requirement.operator {
                Operator::Equals | Operator::DoubleEquals | Operator::In => among,
                Operator::NotEquals | Operator::NotIn => !among,
                Operator::Exists => label.is_some(),
                Operator::DoesNotExist => label.is_none(),
                Operator::GreaterThan => label.and_then(number) > bound && bound.is_some(),
                Operator::LessThan => label.and_then(number).is_some() && label.and_then(number) < bound,
            }
        });
        if selector.is_everything() || !selector.requirements().is_empty() {
            assert_eq!(selector.matches(get), wanted, "{selector} of {labels:?}");
        }
    }
}

fn fields(text: &str) {
    let Ok(selector) = field::Selector::parse(text) else { return };
    let printed = selector.to_string();
    let again = field::Selector::parse(&printed).unwrap_or_else(|error| panic!("printed {printed:?}: {error}"));
    let sorted = |selector: &field::Selector| {
        let mut terms = selector.terms().to_vec();
        terms.sort();
        terms
    };
    assert_eq!(sorted(&selector), sorted(&again), "printed {printed:?}");
    for term in selector.terms() {
        assert_eq!(field::Selector::equals(&*term.field, &*term.value).required(&term.field), Some(&*term.value));
    }
    let get = |_: &str| Some("a");
    let wanted = selector.terms().iter().all(|term| (term.value == "a") != term.negated);
    assert_eq!(selector.matches(get), wanted, "{printed}");
}
