//! `prioritylevelconfigurations` in `flowcontrol.apiserver.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// How many requests of a level run at once.
pub(crate) struct PriorityLevelConfiguration(pub(crate) Facts);

impl Kind for PriorityLevelConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        if spec.str_at(&["type"]) == "Exempt" {
            let exempt = fill::within(spec, "exempt");
            fill::absent(exempt, "nominalConcurrencyShares", 0);
            fill::absent(exempt, "lendablePercent", 0);
        }
        fill::each(spec, &["limited"], |limited| {
            fill::absent(limited, "nominalConcurrencyShares", 30);
            fill::absent(limited, "lendablePercent", 0);
            fill::each(limited, &["limitResponse", "queuing"], |queuing| {
                fill::number(queuing, "queues", 64);
                fill::number(queuing, "handSize", 8);
                fill::number(queuing, "queueLengthLimit", 50);
            });
        });
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let value = |path: &[&str]| {
            object.at(path).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| "<none>".into())
        };
        let queue = |field: &str| value(&["spec", "limited", "limitResponse", "queuing", field]);
        let section = if object.str_at(&["spec", "type"]) == "Exempt" { "exempt" } else { "limited" };
        vec![
            cells::name(object),
            cells::text(object, &["spec", "type"]),
            value(&["spec", section, "nominalConcurrencyShares"]),
            queue("queues"),
            queue("handSize"),
            queue("queueLengthLimit"),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Type", "string", "Whether it is limited."),
    Column::new("NominalConcurrencyShares", "string", "Its share of the seats."),
    Column::new("Queues", "string", "How many queues there are."),
    Column::new("HandSize", "string", "How many queues a flow is dealt."),
    Column::new("QueueLengthLimit", "string", "How many requests wait in a queue."),
    cells::AGE,
];
