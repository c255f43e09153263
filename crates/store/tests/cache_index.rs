//! What the watch cache finds by its index is what looking at every item finds.

use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_store::cache::{Cache, Change, Field, Filter, Scope, Snapshot, Wanted};
use skiff_store::memory::MemoryStore;
use skiff_store::{Entry, Expect, Store};

/// Enough for a cache to be indexed.
const ITEMS: usize = 2_500;

/// A value is `label=value,label=value;field`.
fn labels(entry: &Entry, tell: &mut dyn FnMut(&str, &str)) {
    let text = std::str::from_utf8(&entry.value).unwrap();
    let labels = text.split(';').next().unwrap_or("");
    labels.split(',').filter_map(|label| label.split_once('=')).for_each(|(key, value)| tell(key, value));
}

fn field(entry: &Entry) -> String {
    std::str::from_utf8(&entry.value).unwrap().split_once(';').map_or("", |(_, field)| field).to_owned()
}

fn the_field() -> Field<Entry> {
    Field { name: "field".into(), value: Arc::new(field) }
}

/// A condition, as it is asked and as it is checked.
#[derive(Clone, Debug)]
enum Ask {
    Label(&'static str, Vec<String>),
    Has(&'static str),
    Field(String),
}

impl Ask {
    fn wanted(&self) -> Wanted<Entry> {
        match self.clone() {
            Self::Label(key, values) => Wanted::Label { key: key.into(), values },
            Self::Has(key) => Wanted::HasLabel(key.into()),
            Self::Field(value) => Wanted::Field { field: the_field(), value },
        }
    }

    fn holds(&self, entry: &Entry) -> bool {
        let mut holds = false;
        match self {
            Self::Label(key, values) => {
                labels(entry, &mut |name, value| holds |= name == *key && values.iter().any(|one| one == value));
            }
            Self::Has(key) => labels(entry, &mut |name, _| holds |= name == *key),
            Self::Field(value) => holds = field(entry) == *value,
        }
        holds
    }
}

struct Fixture {
    store: Arc<MemoryStore>,
    cache: Cache<Entry>,
}

impl Fixture {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Clock::system()));
        let tasks = Tasks::new("test", Shutdown::new());
        let cache = Cache::with_labels(store.clone(), "pods/".into(), Entry::clone, labels, Clock::system(), &tasks);
        let fixture = Self { store, cache };
        for number in 0..ITEMS {
            fixture.put(number, &format!("app={},own={number};{}", number % 100, number % 37)).await;
        }
        fixture
    }

    async fn put(&self, number: usize, value: &str) {
        let key = format!("pods/{number:05}");
        self.store.put(key.into(), value.to_owned().into(), Expect::Any, None).await.unwrap();
    }

    /// Waits until the cache answers from an index that has the field too.
    async fn indexed(&self) {
        let snapshot = self.cache.current().await.unwrap();
        let rare = [Wanted::Field { field: the_field(), value: "nobody".into() }];
        while self.cache.candidates(&snapshot, &rare).is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// How many items fulfil all conditions, by the index and by looking at each.
    fn check(&self, snapshot: &Snapshot<Entry>, asks: &[Ask]) -> usize {
        let holds = |entry: &Entry| asks.iter().all(|ask| ask.holds(entry));
        let items = snapshot.range(b"", None);
        let expected: Vec<_> = items.filter(|(_, entry)| holds(entry)).map(|(key, _)| key.clone()).collect();
        let wanted: Vec<_> = asks.iter().map(Ask::wanted).collect();
        if let Some(mut keys) = self.cache.candidates(snapshot, &wanted) {
            assert!(keys.is_sorted());
            keys.retain(|key| snapshot.get(key).is_some_and(|entry| holds(entry)));
            assert_eq!(keys, expected, "{asks:?}");
        }
        expected.len()
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let number = || (0..120_usize).prop_map(|number| number.to_string());
    let one = prop_oneof![
        number().prop_map(|value| Ask::Label("app", vec![value])),
        proptest::collection::vec(number(), 0..4).prop_map(|values| Ask::Label("app", values)),
        number().prop_map(|value| Ask::Label("own", vec![value])),
        Just(Ask::Has("app")),
        Just(Ask::Has("new")),
        number().prop_map(Ask::Field),
    ];
    proptest::collection::vec(one, 1..4)
}

/// What is written to which item; nothing to delete it.
fn writes() -> impl Strategy<Value = Vec<(usize, Option<String>)>> {
    let value = (0..120_usize, 0..3_usize, 0..40_usize).prop_map(|(app, new, field)| match new {
        0 => format!("app={app};{field}"),
        1 => format!("app={app},new={field};{field}"),
        _ => format!("own={app}"),
    });
    let value = prop_oneof![3 => value.prop_map(Some), 1 => Just(None)];
    proptest::collection::vec((0..ITEMS + 50, value), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_look_at_every_item_finds(
        rounds in proptest::collection::vec((writes(), asks(), any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            fixture.indexed().await;
            let mut kept = vec![fixture.cache.current().await.unwrap()];
            for (writes, asks, keep) in rounds {
                for (number, value) in writes {
                    match value {
                        Some(value) => fixture.put(number, &value).await,
                        None => drop(fixture.store.delete(format!("pods/{number:05}").into(), Expect::Any).await),
                    }
                }
                let now = fixture.cache.current().await.unwrap();
                for snapshot in kept.iter().chain([&now]) {
                    fixture.check(snapshot, &asks);
                }
                if keep {
                    kept.push(fixture.cache.at(now.revision() - 1).await.unwrap());
                }
            }
        });
    }
}

#[tokio::test]
async fn an_index_answers_what_few_items_fulfil_and_leaves_the_rest() {
    let fixture = Fixture::new().await;
    fixture.indexed().await;
    let snapshot = fixture.cache.current().await.unwrap();
    let found = |ask: &Ask| fixture.cache.candidates(&snapshot, &[ask.wanted()]).map(|keys| keys.len());
    assert_eq!(found(&Ask::Label("app", vec!["7".into()])), Some(25));
    assert_eq!(found(&Ask::Label("app", vec!["7".into(), "8".into(), "none".into()])), Some(50));
    assert_eq!(found(&Ask::Label("app", vec!["none".into()])), Some(0));
    assert_eq!(found(&Ask::Has("none")), Some(0));
    assert_eq!(found(&Ask::Has("app")), None, "that is nearly everything");
    assert_eq!(fixture.check(&snapshot, &[Ask::Label("app", vec!["7".into()]), Ask::Field("7".into())]), 1);
}

#[tokio::test]
async fn a_small_cache_is_not_indexed() {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let tasks = Tasks::new("test", Shutdown::new());
    let cache = Cache::with_labels(store.clone(), "pods/".into(), Entry::clone, labels, Clock::system(), &tasks);
    store.put("pods/a".into(), "app=a".into(), Expect::Any, None).await.unwrap();
    let snapshot = cache.current().await.unwrap();
    assert_eq!(cache.candidates(&snapshot, &[Wanted::HasLabel("none".into())]), None);
}

#[tokio::test]
async fn watchers_of_a_term_hear_of_items_that_get_and_lose_it() {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let tasks = Tasks::new("test", Shutdown::new());
    let cache = Cache::with_labels(store.clone(), "pods/".into(), Entry::clone, labels, Clock::system(), &tasks);
    let put = async |key: &'static str, value: &'static str| {
        store.put(key.into(), value.into(), Expect::Any, None).await.unwrap();
    };
    let open = async |ask: Ask| {
        let wanted = ask.wanted();
        let wants = move |change: &Change<Entry>| {
            ask.holds(&change.current) || change.previous.as_ref().is_some_and(|item| ask.holds(item))
        };
        let after = cache.current().await.unwrap().revision();
        cache.watch_filtered(Scope::prefix(b"pods/"), after, Some(Filter::new(wants, Some(wanted)))).await.unwrap()
    };
    let mut by_label = open(Ask::Label("app", vec!["a".into()])).await;
    let mut by_either = open(Ask::Label("app", vec!["a".into(), "b".into()])).await;
    let mut by_field = open(Ask::Field("x".into())).await;
    // Another of the same field goes, and this one goes on.
    drop(open(Ask::Field("x".into())).await);
    put("pods/1", "app=a").await;
    put("pods/2", "app=c;x").await;
    put("pods/1", "app=b").await;
    put("pods/3", "app=c;y").await;
    put("pods/2", "app=c;y").await;
    put("pods/1", "app=c").await;
    cache.current().await.unwrap();
    let mut values = Vec::new();
    for watcher in [&mut by_label, &mut by_either, &mut by_field] {
        let mut seen = Vec::new();
        while let Some(change) = watcher.try_next() {
            seen.push(String::from_utf8_lossy(&change.current.value).into_owned());
        }
        values.push(seen.join(" "));
    }
    assert_eq!(values, ["app=a app=b", "app=a app=b app=c", "app=c;x app=c;y"]);
}
