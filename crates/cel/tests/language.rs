//! The language and its libraries, one expression a row.

use std::sync::Arc;

use expect_test::{Expect, expect};
use skiff_cel::{DeclType, Env, PER_CALL_LIMIT, Type, Value, Vars};
use skiff_object::{Tree, json};

fn object() -> Tree {
    json::decode_untyped(
        br#"{"metadata":{"name":"web","labels":{"app":"x"}},
             "spec":{"replicas":3,"ratio":0.5,"ports":[{"name":"a","port":80},{"name":"b","port":443}],"none":null}}"#,
    )
    .unwrap()
}

/// What each expression gives, or why it does not compile or run.
fn check(sources: &[&str], expected: Expect) {
    let env = Env::kubernetes().variable("object", Type::Dyn).mutation();
    let object = object();
    let mut out = String::new();
    for source in sources {
        let result = match env.compile(source) {
            Err(error) => error.to_string(),
            Ok(program) => {
                let vars = Vars::new().with("object", Value::dynamic(&object));
                let outcome = program.eval(&vars, None, PER_CALL_LIMIT);
                match outcome.value {
                    Err(error) => format!("{source} !! {error}"),
                    Ok(value) => match value.to_tree() {
                        Ok(tree) => format!("{source} => {}", String::from_utf8(json::encode_untyped(&tree)).unwrap()),
                        Err(_) => format!("{source} => {value}"),
                    },
                }
            }
        };
        out.push_str(&result);
        out.push('\n');
    }
    expected.assert_eq(&out);
}

#[test]
fn operators_and_numbers() {
    check(
        &[
            "1 + 2 * 3 - 4 / 2",
            "-9223372036854775808",
            "9223372036854775807 + 1",
            "1 / 0",
            "5 % 0",
            "1u - 2u",
            "1 == 1.0",
            "1 < 2u && 2u < 2.5",
            "'a' + 'b' == 'ab'",
            "[1, 2] + [3]",
            "true ? 1 : 2",
            "false && 1 / 0 > 0",
            "1 / 0 > 0 || true",
            "'x' in ['x', 'y']",
            "'k' in {'k': 1}",
            "{'a': 1}.b",
            "[1][3]",
            "!true",
            "--1",
            "0x1F + 017",
            "1e3",
            "b'\\x41\\102' == b'AB'",
            "r'\\n'.size()",
            "'\\u00e9'.size()",
        ],
        expect![[r#"
            1 + 2 * 3 - 4 / 2 => 5
            -9223372036854775808 => -9223372036854775808
            9223372036854775807 + 1 !! integer overflow
            1 / 0 !! division by zero
            5 % 0 !! modulus by zero
            1u - 2u !! unsigned integer overflow
            ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'
             | 1 == 1.0
             | ..^
            1 < 2u && 2u < 2.5 => true
            'a' + 'b' == 'ab' => true
            [1, 2] + [3] => [1,2,3]
            true ? 1 : 2 => 1
            false && 1 / 0 > 0 => false
            1 / 0 > 0 || true => true
            'x' in ['x', 'y'] => true
            'k' in {'k': 1} => true
            {'a': 1}.b !! no such key: b
            [1][3] !! index out of bounds: 3
            !true => false
            --1 => 1
            0x1F + 017 => 48
            1e3 => 1000
            b'\x41\102' == b'AB' => true
            r'\n'.size() => 2
            '\u00e9'.size() => 1
        "#]],
    );
}

#[test]
fn objects_and_macros() {
    check(
        &[
            "object.spec.replicas <= 5",
            "has(object.spec.replicas) && !has(object.spec.paused)",
            "object.spec.paused",
            "object.spec.ports.all(p, p.port > 0)",
            "object.spec.ports.exists(p, p.name == 'b')",
            "object.spec.ports.exists_one(p, p.port == 80)",
            "object.spec.ports.map(p, p.name)",
            "object.spec.ports.map(p, p.port > 100, p.name)",
            "object.spec.ports.filter(p, p.port > 100).size()",
            "object.metadata.labels.all(k, v, k == 'app' && v == 'x')",
            "object.spec.ports.transformList(i, p, i)",
            "object.spec.ports.transformMap(i, p, p.name)",
            "{'a': 1, 'b': 2}.transformMapEntry(k, v, {v: k})",
            "object.?spec.?paused.orValue(true)",
            "object.spec.?replicas.optMap(r, r + 1).value()",
            "object.spec[?'nothing'].hasValue()",
            "[1, ?optional.none(), 3]",
            "optional.of(1).or(optional.none()).value()",
            "[3, 1, 2].sort() == [1, 2, 3]",
            "['b', 'aa'].sortBy(s, s.size())",
            "type(object.spec.ratio) == double",
            "object.spec.none == null",
        ],
        expect![[r#"
            object.spec.replicas <= 5 => true
            has(object.spec.replicas) && !has(object.spec.paused) => true
            object.spec.paused !! no such key: paused
            object.spec.ports.all(p, p.port > 0) => true
            object.spec.ports.exists(p, p.name == 'b') => true
            object.spec.ports.exists_one(p, p.port == 80) => true
            object.spec.ports.map(p, p.name) => ["a","b"]
            object.spec.ports.map(p, p.port > 100, p.name) => ["b"]
            object.spec.ports.filter(p, p.port > 100).size() => 1
            object.metadata.labels.all(k, v, k == 'app' && v == 'x') => true
            object.spec.ports.transformList(i, p, i) => [0,1]
            object.spec.ports.transformMap(i, p, p.name) => map
            {'a': 1, 'b': 2}.transformMapEntry(k, v, {v: k}) => map
            object.?spec.?paused.orValue(true) => true
            object.spec.?replicas.optMap(r, r + 1).value() => 4
            object.spec[?'nothing'].hasValue() => false
            [1, ?optional.none(), 3] => [1,3]
            optional.of(1).or(optional.none()).value() => 1
            [3, 1, 2].sort() == [1, 2, 3] => true
            ['b', 'aa'].sortBy(s, s.size()) => ["b","aa"]
            type(object.spec.ratio) == double => true
            object.spec.none == null => true
        "#]],
    );
}

#[test]
fn libraries() {
    check(
        &[
            "'abc'.charAt(1) + 'a,b'.split(',')[1] + ' x '.trim() + 'ABC'.lowerAscii()",
            "'hello'.substring(1, 3) + 'hello'.replace('l', 'L', 1)",
            "'tacocat'.indexOf('c') + 'tacocat'.lastIndexOf('c')",
            "['a', 'b'].join('-')",
            "'%s is %d and %.2f %x'.format([dyn('a'), dyn(1), dyn(1.5), dyn(255)])",
            "'abc123'.find('[0-9]+') + 'a1b2'.findAll('[0-9]').join()",
            "'abc'.matches('^a.c$')",
            "[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [1, 5].max() == 5",
            "[1].filter(x, x > 1).max()",
            "sets.contains([1, 2], [1]) && sets.intersects([1], [1]) && sets.equivalent([1, 1], [1])",
            "url('https://example.com:80/a?b=c').getPort()",
            "url('https://example.com:80/a?b=c').getQuery()",
            "url('../')",
            "isURL('/a')",
            "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('50k').asInteger() == 50000",
            "quantity('x')",
            "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6",
            "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
            "ip('nothing')",
            "string(cidr('10.1.0.0/8').masked())",
            "format.dns1123Label().validate('A').value()[0]",
            "format.named('uuid').hasValue()",
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2",
            "semver('1.2')",
            "timestamp('2023-01-02T03:04:05Z').getFullYear()",
            "timestamp('2023-01-02T03:04:05Z').getHours('+01:30')",
            "timestamp('2023-01-02T03:04:05Z') + duration('1h') > timestamp('2023-01-02T03:04:05Z')",
            "duration('1h30m').getMinutes()",
            "string(duration('90s')) + string(1.0) + string(1e22) + string(timestamp(0))",
            "int('x')",
            "jsonpatch.escapeKey('a/b~c')",
            "Object{spec: Object.spec{replicas: 3}}",
            "[JSONPatch{op: 'add', path: '/a', value: 1}]",
        ],
        expect![[r#"
            'abc'.charAt(1) + 'a,b'.split(',')[1] + ' x '.trim() + 'ABC'.lowerAscii() => "bbxabc"
            'hello'.substring(1, 3) + 'hello'.replace('l', 'L', 1) => "elheLlo"
            'tacocat'.indexOf('c') + 'tacocat'.lastIndexOf('c') => 6
            ['a', 'b'].join('-') => "a-b"
            '%s is %d and %.2f %x'.format([dyn('a'), dyn(1), dyn(1.5), dyn(255)]) => "a is 1 and 1.50 ff"
            'abc123'.find('[0-9]+') + 'a1b2'.findAll('[0-9]').join() => "12312"
            'abc'.matches('^a.c$') => true
            [1, 2, 3].isSorted() && [1, 2].sum() == 3 && [1, 5].max() == 5 => true
            [1].filter(x, x > 1).max() !! max called on empty list
            sets.contains([1, 2], [1]) && sets.intersects([1], [1]) && sets.equivalent([1, 1], [1]) => true
            url('https://example.com:80/a?b=c').getPort() => "80"
            url('https://example.com:80/a?b=c').getQuery() => {"b":["c"]}
            url('../') !! URL parse error during conversion from string: parse "../": invalid URI for request
            isURL('/a') => true
            quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('50k').asInteger() == 50000 => true
            quantity('x') !! quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 => true
            cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') => true
            ip('nothing') !! IP Address "nothing" parse error during conversion from string: ParseAddr("nothing"): unable to parse IP
            string(cidr('10.1.0.0/8').masked()) => "10.0.0.0/8"
            format.dns1123Label().validate('A').value()[0] => "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            format.named('uuid').hasValue() => true
            semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2 => true
            semver('1.2') !! No Major.Minor.Patch elements found
            timestamp('2023-01-02T03:04:05Z').getFullYear() => 2023
            timestamp('2023-01-02T03:04:05Z').getHours('+01:30') => 4
            timestamp('2023-01-02T03:04:05Z') + duration('1h') > timestamp('2023-01-02T03:04:05Z') => true
            duration('1h30m').getMinutes() => 90
            string(duration('90s')) + string(1.0) + string(1e22) + string(timestamp(0)) => "90s11e+221970-01-01T00:00:00Z"
            int('x') !! strconv.ParseInt: parsing "x": invalid syntax
            jsonpatch.escapeKey('a/b~c') => "a~1b~0c"
            Object{spec: Object.spec{replicas: 3}} => {"spec":{"replicas":3}}
            [JSONPatch{op: 'add', path: '/a', value: 1}] => [{"op":"add","path":"/a","value":1}]
        "#]],
    );
}

#[test]
fn errors_before_it_runs() {
    check(
        &[
            "x",
            "1 +",
            "1 + 'a'",
            "(1",
            "foo(1)",
            "object.foo(1)",
            "[1, 'a']",
            "1 ? 2 : 3",
            "'a'.matches('(')",
            "duration('x')",
            "package",
            "[1].map(1, 2)",
            "has(object)",
            "1 2",
            "a.b.c && 'é' + 1",
            "#",
        ],
        expect![[r#"
            ERROR: <input>:1:1: undeclared reference to 'x' (in container '')
             | x
             | ^
            ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
             | 1 +
             | ...^
            ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'
             | 1 + 'a'
             | ..^
            ERROR: <input>:1:3: Syntax error: mismatched input '<EOF>' expecting ')'
             | (1
             | ..^
            ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')
             | foo(1)
             | ...^
            ERROR: <input>:1:11: undeclared reference to 'foo' (in container '')
             | object.foo(1)
             | ..........^
            ERROR: <input>:1:5: expected type 'int' but found 'string'
             | [1, 'a']
             | ....^
            ERROR: <input>:1:3: found no matching overload for '_?_:_' applied to '(int, int, int)'
             | 1 ? 2 : 3
             | ..^
            ERROR: <input>:1:13: invalid matches argument
             | 'a'.matches('(')
             | ............^
            ERROR: <input>:1:10: invalid duration argument
             | duration('x')
             | .........^
            ERROR: <input>:1:1: reserved identifier: package
             | package
             | ^
            ERROR: <input>:1:9: argument is not an identifier
             | [1].map(1, 2)
             | ........^
            ERROR: <input>:1:5: invalid argument to has() macro
             | has(object)
             | ....^
            ERROR: <input>:1:3: Syntax error: mismatched input '2' expecting <EOF>
             | 1 2
             | ..^
            ERROR: <input>:1:1: undeclared reference to 'a' (in container '')
             | a.b.c && 'é' + 1
             | ^
            ERROR: <input>:1:14: found no matching overload for '_+_' applied to '(string, int)'
             | a.b.c && 'é' + 1
             | ..........．..^
            ERROR: <input>:1:1: Syntax error: token recognition error at: '#'
             | #
             | ^
            ERROR: <input>:1:2: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
             | #
             | .^
        "#]],
    );
}

const SCHEMA: &str = r#"{"type":"object","required":["name"],"properties":{
    "name":{"type":"string","maxLength":10},
    "count":{"type":"integer"},
    "a-b":{"type":"string"},
    "namespace":{"type":"string"},
    "when":{"type":"string","format":"date-time"},
    "size":{"x-kubernetes-int-or-string":true},
    "tags":{"type":"array","maxItems":5,"x-kubernetes-list-type":"set","items":{"type":"string","maxLength":3}},
    "rows":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],
            "items":{"type":"object","properties":{"k":{"type":"string"},"v":{"type":"integer"}}}},
    "by":{"type":"object","additionalProperties":{"type":"integer"}},
    "any":{"x-kubernetes-preserve-unknown-fields":true}}}"#;

#[test]
fn schemas_give_types_and_bounds() {
    let schema = json::decode_untyped(SCHEMA.as_bytes()).unwrap();
    let decl = Arc::new(DeclType::of_schema(&schema, "selfType", false).unwrap());
    let env = Env::kubernetes().declare("self", &decl).declare("oldSelf", &decl);
    let new = json::decode_untyped(
        br#"{"name":"n","count":1,"a-b":"x","namespace":"y","when":"2023-01-02T03:04:05Z","size":"5%",
             "tags":["a","b"],"rows":[{"k":"1","v":1},{"k":"2","v":2}],"by":{"x":1},"any":{"z":1}}"#,
    )
    .unwrap();
    let old =
        json::decode_untyped(br#"{"name":"n","tags":["b","a"],"rows":[{"k":"2","v":2},{"k":"1","v":1}],"by":{"x":1}}"#)
            .unwrap();
    let mut out = String::new();
    for source in [
        "self.name.startsWith('n')",
        "self.name == oldSelf.name",
        "self.tags == oldSelf.tags",
        "self.rows == oldSelf.rows",
        "self.rows + [{'k': '1', 'v': 9}] == self.rows",
        "self.a__dash__b + self.__namespace__",
        "self.when > timestamp('2022-01-01T00:00:00Z')",
        "type(self.size) == string",
        "self.tags.all(t, t.size() < 3)",
        "self.by.all(k, self.by[k] > 0)",
        "self.any == oldSelf.any",
        "self.missing",
        "self.count > 'a'",
        "has(oldSelf.count)",
        "oldSelf.count",
        "self.rows.all(r, self.rows.all(s, r.v + s.v > 0))",
    ] {
        let line = match env.compile(source) {
            Err(error) => error.to_string(),
            Ok(program) => {
                let vars = Vars::new()
                    .with("self", Value::typed(&new, &decl).unwrap())
                    .with("oldSelf", Value::typed(&old, &decl).unwrap());
                let outcome = program.eval(&vars, None, PER_CALL_LIMIT);
                let cost = program.cost();
                let value = outcome.value.map_or_else(|error| error.to_string(), |value| value.to_string());
                format!("{source} => {value}, cost {} of {}..{}", outcome.cost, cost.min, cost.max)
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    expect![[r#"
        self.name.startsWith('n') => true, cost 3 of 3..3
        self.name == oldSelf.name => true, cost 5 of 5..8
        self.tags == oldSelf.tags => true, cost 5 of 5..5
        self.rows == oldSelf.rows => true, cost 5 of 5..104862
        ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(list(selfType.rows.@idx), list(map(string, !error!)))'
         | self.rows + [{'k': '1', 'v': 9}] == self.rows
         | ..........^
        ERROR: <input>:1:30: expected type 'string' but found 'int'
         | self.rows + [{'k': '1', 'v': 9}] == self.rows
         | .............................^
        self.a__dash__b + self.__namespace__ => xy, cost 5 of 4..629150
        self.when > timestamp('2022-01-01T00:00:00Z') => true, cost 3 of 4..4
        type(self.size) == string => true, cost 4 of 4..4
        self.tags.all(t, t.size() < 3) => true, cost 15 of 3..33
        self.by.all(k, self.by[k] > 0) => true, cost 10 of 3..3595115
        ERROR: <input>:1:5: undefined field 'any'
         | self.any == oldSelf.any
         | ....^
        ERROR: <input>:1:20: undefined field 'any'
         | self.any == oldSelf.any
         | ...................^
        ERROR: <input>:1:5: undefined field 'missing'
         | self.missing
         | ....^
        ERROR: <input>:1:12: found no matching overload for '_>_' applied to '(int, string)'
         | self.count > 'a'
         | ...........^
        has(oldSelf.count) => false, cost 1 of 1..1
        oldSelf.count => no such key: count, cost 1 of 2..2
        self.rows.all(r, self.rows.all(s, r.v + s.v > 0)) => true, cost 51 of 3..9895592067078
    "#]].assert_eq(&out);
}
