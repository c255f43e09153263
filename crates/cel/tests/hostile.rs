//! Input that means harm: nothing panics, nothing overflows the stack, everything ends.

use proptest::prelude::*;
use skiff_cel::{Env, EvalError, PER_CALL_LIMIT, Type, Value, Vars};
use skiff_object::{Tree, json};

fn object() -> Tree {
    json::decode_untyped(br#"{"a":[1,2,3],"b":{"c":"d","e":null},"f":1.5,"g":true,"h":"some text"}"#).unwrap()
}

fn run(source: &str) -> Result<String, String> {
    let env = Env::kubernetes().variable("object", Type::Dyn).mutation();
    let program = env.compile(source).map_err(|error| error.to_string())?;
    let object = object();
    let vars = Vars::new().with("object", Value::dynamic(&object));
    let outcome = program.eval(&vars, None, PER_CALL_LIMIT);
    assert!(outcome.cost <= PER_CALL_LIMIT || matches!(outcome.value, Err(EvalError::CostExceeded)));
    outcome.value.map(|value| value.to_string()).map_err(|error| error.to_string())
}

/// Runs on the stack a request has: the server's workers have 2 MiB.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn deep_expressions_are_refused_or_fit_the_stack() {
    on_a_small_stack(|| {
        for depth in [10, 60, 110, 119, 120, 130, 300, 5_000, 50_000] {
            for (open, inner, close) in [
                ("(", "1", ")"),
                ("[", "", "]"),
                ("{'a':", "1", "}"),
                ("-", "1", ""),
                ("!", "true", ""),
                ("1 + ", "1", ""),
                ("", "1", " + 1"),
                ("true ? ", "1", " : 1"),
                ("true ? 1 : ", "1", ""),
                ("[1].map(x, ", "x", ")"),
                ("[1].all(x, ", "true", ")"),
                ("optional.of(", "1", ")"),
                ("optional.of(1).optMap(x, ", "x", ")"),
                ("", "object", ".b"),
                ("", "object", "[0]"),
                ("", "object", ".?b"),
                ("size(", "'a'", ")"),
                ("", "'a'", ".trim()"),
                ("Object{a: ", "Object{}", "}"),
            ] {
                let source = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
                if let Err(error) = run(&source)
                    && depth > 300
                    && !matches!(open, "-" | "!")
                {
                    assert!(
                        ["recursion limit exceeded", "size exceeds limit", "Syntax error"]
                            .iter()
                            .any(|why| error.contains(why)),
                        "{depth} {open}: {}",
                        &error[..error.len().min(200)]
                    );
                }
            }
        }
    });
}

#[test]
fn long_chains_of_conditions_are_no_deep_expression() {
    on_a_small_stack(|| {
        assert_eq!(run(&vec!["true"; 5_000].join(" && ")), Ok("true".to_owned()));
        assert_eq!(run(&vec!["object.g"; 5_000].join(" || ")), Ok("true".to_owned()));
    });
}

#[test]
fn what_costs_too_much_ends() {
    let ten = "[0,1,2,3,4,5,6,7,8,9]";
    let nested = (0..12).fold("true".to_owned(), |inner, level| format!("{ten}.all(x{level}, {inner})"));
    for source in [
        nested.as_str(),
        "lists.range(1000000000).size() > 0",
        "lists.range(2000000).distinct().size() > 0",
        "lists.range(100000).map(x, lists.range(100000)).size() > 0",
        "'a'.replace('', 'b'.replace('', lists.range(100000).map(x, 'xxxxxxxxxxxxxxxxxxxx').join())).size() > 0",
        "object.h.matches('(' + lists.range(50000).map(x, 'a?').join() + ')*b') || true",
    ] {
        let ended = run(source);
        assert!(
            ended == Err("operation cancelled: actual cost limit exceeded".to_owned()) || ended.is_ok() || {
                ended.as_ref().is_err_and(|error| error.contains("regex"))
            },
            "{source}: {ended:?}"
        );
    }
}

#[test]
fn types_that_double_at_every_step_are_refused() {
    let chain: String = (0..100).map(|step| format!(".map(x{step}, {{x{step}: x{step}}})")).collect();
    let error = run(&format!("[1]{chain}.size() > 0")).unwrap_err();
    assert!(error.contains("too complex") || error.contains("recursion limit"), "{error}");
    let short: String = (0..20).map(|step| format!(".map(x{step}, {{'a': [x{step}], 'b': [x{step}]}})")).collect();
    assert!(run(&format!("[1]{short}.size() > 0")).is_ok());
}

/// Pieces an expression may be made of, in no good order.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "object",
        ".",
        "a",
        "b",
        "h",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "?",
        ":",
        ",",
        "+",
        "-",
        "*",
        "/",
        "%",
        "<",
        "==",
        "&&",
        "||",
        "!",
        "in",
        "1",
        "0x7fffffffffffffff",
        "9223372036854775807",
        "1u",
        "1e308",
        "'x'",
        "b'y'",
        "r\"z\"",
        "true",
        "null",
        "has",
        "all",
        "map",
        "exists_one",
        "filter",
        "x",
        "size",
        "string",
        "int",
        "duration('1s')",
        "timestamp(0)",
        "optMap",
        "sort",
        "join",
        "split",
        "format",
        "'%d'",
        "substring",
        "'\\u00e9'",
        " ",
        "\n",
        "//",
        "\"\"\"",
        "é",
        "\\",
        "`",
        "Object",
        "type",
        "dyn",
        "quantity('1')",
        "ip('::1')",
        "cidr('::/0')",
        "transformMap",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_soup_of_tokens_panics(pieces in prop::collection::vec(piece(), 0..40), spaced: bool) {
        let _ = run(&pieces.join(if spaced { " " } else { "" }));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = run(&text);
    }

    #[test]
    fn no_argument_panics(
        text in "\\PC{0,12}", other in "\\PC{0,4}", number: i64, second: i64, function in prop::sample::select(vec![
            "{t}.charAt({n})", "{t}.substring({n})", "{t}.substring({n}, {m})", "{t}.indexOf({o}, {n})",
            "{t}.lastIndexOf({o}, {n})", "{t}.lastIndexOf({o})", "{t}.split({o}, {n})", "{t}.split({o})",
            "{t}.replace({o}, {t}, {n})", "{t}.format([{n}])", "{n} + {m}", "{n} * {m}", "{n} / {m}", "{n} % {m}",
            "-({n})", "timestamp({n})", "timestamp({t})", "duration({t})", "url({t})", "quantity({t})", "ip({t})",
            "cidr({t})", "semver({t}, true)", "[1, 2][{n}]", "[1, 2].slice({n}, {m})", "{t}.findAll({o}, {n})",
            "timestamp(0).getHours({t})", "int({t})", "double({t})", "uint({n})", "int(double({n}))",
            "strings.quote({t})", "format.uuid().validate({t})", "format.uri().validate({t})", "lists.range({n})",
            "timestamp(0) + duration('1ns') * 1", "duration(string({n}) + 'h')", "isURL({t})", "[[1]].flatten({n})",
        ])
    ) {
        let quoted = |text: &str| format!("{:?}", text.replace(|c: char| c.is_control() || c == '\\', ""));
        let source = function
            .replace("{t}", &quoted(&text))
            .replace("{o}", &quoted(&other))
            .replace("{n}", &format!("({number})"))
            .replace("{m}", &format!("({second})"));
        let _ = run(&source);
    }
}
