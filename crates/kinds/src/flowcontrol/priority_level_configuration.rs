//! `prioritylevelconfigurations` in `flowcontrol.apiserver.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

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
}
