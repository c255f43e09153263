//! What compiling and evaluating expressions takes: a rule of a custom resource and a policy over a pod.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use skiff_cel::{Env, PER_CALL_LIMIT, Type, Value, Vars};
use skiff_object::json;

const RULE: &str = "object.spec.replicas <= 5 && object.metadata.name.startsWith('web-')";
const POLICY: &str = "object.spec.containers.all(c, has(c.image) && c.image.startsWith('registry.example.com/') && \
                      (!has(c.resources) || quantity(c.resources.limits.memory).isLessThan(quantity('2Gi'))))";

fn bench(c: &mut Criterion) {
    let env = Env::kubernetes().variable("object", Type::Dyn);
    let containers: Vec<String> = (0..10)
        .map(|index| {
            format!(
                r#"{{"name":"c{index}","image":"registry.example.com/a:{index}",
                    "resources":{{"limits":{{"memory":"512Mi"}}}}}}"#
            )
        })
        .collect();
    let text =
        format!(r#"{{"metadata":{{"name":"web-1"}},"spec":{{"replicas":3,"containers":[{}]}}}}"#, containers.join(","));
    let object = json::decode_untyped(text.as_bytes()).expect("the object is JSON");
    for (name, source) in [("rule", RULE), ("policy", POLICY)] {
        c.bench_function(&format!("compile/{name}"), |b| b.iter(|| env.compile(black_box(source))));
        let program = env.compile(source).expect("the expression compiles");
        c.bench_function(&format!("evaluate/{name}"), |b| {
            b.iter(|| {
                let vars = Vars::new().with("object", Value::dynamic(&object));
                black_box(program.eval(&vars, None, PER_CALL_LIMIT)).cost
            });
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
