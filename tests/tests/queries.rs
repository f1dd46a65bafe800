//! Queries: every comparison against a model in plain Rust; names, views, indexes; documents of another shape.

use std::cmp::Ordering;

use motet::{Comparison, Filter, Query, Replica, Schema, field};
use motet_tests::random::{Random, seed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn replica(dir: &tempfile::TempDir) -> Replica {
    Replica::open(dir.path().join("a.db")).unwrap()
}

fn found(replica: &Replica, filter: Filter) -> Vec<String> {
    let found = replica.documents("t").find(&Query::new().filter(filter)).unwrap();
    found.into_iter().map(|record| record.id).collect()
}

fn numbered(replica: &Replica, values: &[Value]) {
    for (n, value) in values.iter().enumerate() {
        replica.documents("t").upsert(&n.to_string(), &json!({ "v": value })).unwrap();
    }
}

/// What serde makes of a value stands in documents, so that is what is looked for.
#[test]
fn conditions_take_what_serde_takes() {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Stage {
        InProgress,
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    numbered(
        &replica,
        &[json!("in-progress"), json!({ "bpm": 0.1_f32 }), json!(null), json!([1, "in-progress"])],
    );
    let v = || motet::field("v");
    assert_eq!(found(&replica, v().eq(Stage::InProgress)), ["0"]);
    assert_eq!(found(&replica, motet::field("v.bpm").eq(0.1_f32)), ["1"]);
    assert_eq!(found(&replica, v().eq(None::<String>)), ["2"]);
    assert_eq!(found(&replica, v().contains(Stage::InProgress)), ["3"]);
    assert_eq!(found(&replica, v().is_in([Some("in-progress"), None])), ["0", "2"]);
    assert_eq!(found(&replica, v().eq(json!("in-progress"))), ["0"]);
    // What is no JSON is no null: that would find what has no such field.
    let no_json = std::collections::BTreeMap::from([(vec![1], 1)]);
    let invalid = [
        v().eq(f64::NAN),
        v().ne(f32::INFINITY),
        v().is_in([1.0, f64::NAN]),
        v().lt(&no_json),
        v().contains(no_json),
    ];
    for filter in invalid {
        for filter in [filter.clone(), Filter::Not(Box::new(filter))] {
            let error = replica.documents("t").find(&Query::new().filter(filter)).unwrap_err();
            assert!(error.to_string().contains("\"v\""), "{error}");
        }
    }
}

#[test]
fn values_compare_with_values_of_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    numbered(
        &replica,
        &[
            json!(1),
            json!(true),
            json!(false),
            json!(0),
            json!("1"),
            json!(["1"]),
            json!(null),
            json!("[\"1\"]"),
        ],
    );
    let of = |filter| found(&replica, filter);
    assert_eq!(of(field("v").eq(true)), ["1"]);
    assert_eq!(of(field("v").eq(1)), ["0"]);
    assert_eq!(of(field("v").eq(false)), ["2"]);
    assert_eq!(of(field("v").eq("[\"1\"]")), ["7"]);
    assert_eq!(of(field("v").is_in([Value::Null])), ["6"]);
    assert_eq!(of(field("v").is_in([json!(null), json!("1"), json!(true)])), ["1", "4", "6"]);
    assert_eq!(of(field("v").is_in(Vec::<Value>::new())), [""; 0]);
    assert_eq!(of(field("v").gt(0)), ["0"]);
    assert_eq!(of(field("v").ge("")), ["4", "7"]);
    assert_eq!(of(field("v").starts_with("[")), ["7"]);
    assert_eq!(of(field("v").starts_with("")), ["4", "7"]);
    assert_eq!(of(field("v").contains("1")), ["5"]);
    assert_eq!(of(field("v").ne(Value::Null)).len(), 7);
    assert_eq!(of(field("v").lt(Value::Null)), [""; 0]);
}

#[test]
fn whole_numbers_compare_to_the_last_digit() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    let numbers = [
        json!(i64::MAX),
        json!(9_223_372_036_854_775_808_u64),
        json!(9_223_372_036_854_775_809_u64),
        json!(u64::MAX - 1),
        json!(u64::MAX),
        json!(9_007_199_254_740_993_i64),
        json!(9_007_199_254_740_992_i64),
    ];
    numbered(&replica, &numbers);
    for (n, number) in numbers.iter().enumerate() {
        assert_eq!(found(&replica, field("v").eq(number.clone())), [n.to_string()], "{number}");
        assert_eq!(found(&replica, field("v").is_in([number.clone()])), [n.to_string()], "{number}");
    }
    assert_eq!(found(&replica, field("v").gt(9_223_372_036_854_775_808_u64)), ["2", "3", "4"]);
    assert_eq!(found(&replica, field("v").lt(9_223_372_036_854_775_808_u64)), ["0", "5", "6"]);
    assert_eq!(found(&replica, field("v").ge(u64::MAX)), ["4"]);
    assert_eq!(found(&replica, field("v").gt(9_007_199_254_740_992.0)), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(found(&replica, field("v").le(9_007_199_254_740_992.5)), ["6"]);
    assert_eq!(found(&replica, field("v").eq(9_223_372_036_854_775_808.0)), ["1"]);
    assert_eq!(found(&replica, field("v").lt(18_446_744_073_709_551_616.0)).len(), 7);
}

/// Values that are near each other and of all kinds.
fn value(random: &mut Random) -> Value {
    const WHOLE: [i128; 12] = [
        0,
        1,
        -1,
        2,
        i64::MIN as i128,
        i64::MAX as i128,
        i64::MAX as i128 + 1,
        i64::MAX as i128 + 2,
        u64::MAX as i128,
        u64::MAX as i128 - 1,
        9_007_199_254_740_992,
        9_007_199_254_740_993,
    ];
    match random.below(12) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2..6 => {
            let n = WHOLE[random.below(12) as usize];
            i64::try_from(n).map_or_else(|_| json!(n as u64), |n| json!(n))
        }
        6..8 => {
            let n = WHOLE[random.below(12) as usize] as f64;
            json!(n + [0.0, 0.5, -0.25][random.below(3) as usize])
        }
        8..10 => json!(
            ["", "a", "ab", "b", "1", "\u{10ffff}", "a\u{10ffff}", "true", "[1]"][random.below(9) as usize]
        ),
        10 => json!({ "w": value(random) }),
        _ => Value::Array((0..random.below(3)).map(|_| value(random)).collect()),
    }
}

/// The order of two values of one kind; `None` if they do not compare.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.chars().cmp(b.chars())),
        (Value::Number(a), Value::Number(b)) => Some(match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(a), None) => whole_and_real(a, b.as_f64()?),
            (None, Some(b)) => whole_and_real(b, a.as_f64()?).reverse(),
            (None, None) => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        }),
        _ => None,
    }
}

/// All reals here are small enough for their whole part to be an `i128`.
fn whole_and_real(whole: i128, real: f64) -> Ordering {
    whole.cmp(&(real.floor() as i128)).then(if real.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Less
    })
}

fn equal(a: Option<&Value>, b: &Value) -> bool {
    match a {
        None | Some(Value::Null) => b.is_null(),
        Some(a) => order(a, b) == Some(Ordering::Equal),
    }
}

/// What a filter means, told again.
fn holds(filter: &Filter, document: &Value) -> bool {
    let of =
        |name: &String| document.pointer(&format!("/{}", name.replace('.', "/"))).filter(|v| !v.is_null());
    match filter {
        Filter::All(all) => all.iter().all(|filter| holds(filter, document)),
        Filter::Any(any) => any.iter().any(|filter| holds(filter, document)),
        Filter::Not(filter) => !holds(filter, document),
        Filter::Compare(name, Comparison::Eq, value) => equal(of(name), value),
        Filter::Compare(name, Comparison::Ne, value) => !equal(of(name), value),
        Filter::Compare(name, comparison, value) => {
            let Some(order) = of(name).and_then(|there| order(there, value)) else { return false };
            match comparison {
                Comparison::Lt => order.is_lt(),
                Comparison::Le => order.is_le(),
                Comparison::Gt => order.is_gt(),
                _ => order.is_ge(),
            }
        }
        Filter::In(name, values) => values.iter().any(|value| equal(of(name), value)),
        Filter::Contains(name, value) => of(name)
            .and_then(Value::as_array)
            .is_some_and(|items| items.iter().any(|item| equal(Some(item), value))),
        Filter::StartsWith(name, prefix) => {
            of(name).and_then(Value::as_str).is_some_and(|text| text.starts_with(prefix.as_str()))
        }
        _ => unreachable!(),
    }
}

fn scalar(random: &mut Random) -> Value {
    loop {
        let value = value(random);
        if !value.is_array() && !value.is_object() {
            return value;
        }
    }
}

fn filter(random: &mut Random, depth: u64) -> Filter {
    let name = ["v", "w", "o.v", "o.w", "missing"][random.below(5) as usize];
    match random.below(if depth == 0 { 9 } else { 12 }) {
        0..2 => field(name).eq(scalar(random)),
        2 => field(name).ne(scalar(random)),
        3 => field(name).lt(scalar(random)),
        4 => field(name).le(scalar(random)),
        5 => field(name).gt(scalar(random)),
        6 => field(name).ge(scalar(random)),
        7 => field(name).contains(scalar(random)),
        8 if random.below(2) == 0 => {
            field(name).starts_with(["", "a", "a\u{10ffff}", "\u{10ffff}", "["][random.below(5) as usize])
        }
        8 => field(name).is_in((0..random.below(4)).map(|_| scalar(random)).collect::<Vec<_>>()),
        9 => Filter::Not(Box::new(filter(random, depth - 1))),
        10 => Filter::Any((0..random.below(3)).map(|_| filter(random, depth - 1)).collect()),
        _ => Filter::All((0..random.below(3)).map(|_| filter(random, depth - 1)).collect()),
    }
}

#[test]
fn a_filter_means_what_a_model_says_with_indexes_and_without() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    let documents: Vec<(String, Value)> = (0..150)
        .map(|n| {
            let (v, w) = (value(&mut random), value(&mut random));
            let inner = json!({ "v": value(&mut random), "w": value(&mut random) });
            (format!("{n:03}"), json!({ "v": v, "w": w, "o": inner }))
        })
        .collect();
    let written = documents.clone();
    replica
        .transaction(move |tx| {
            written.iter().try_for_each(|(id, value)| tx.documents("t").upsert(id, value).map(drop))
        })
        .unwrap();
    for round in 0..600 {
        if round == 300 {
            replica.apply_schema(&Schema::new().index("t", ["v", "w"]).index("t", ["o.v"])).unwrap();
        }
        let filter = filter(&mut random, 2);
        let wanted: Vec<&String> =
            documents.iter().filter(|(_, document)| holds(&filter, document)).map(|(id, _)| id).collect();
        assert_eq!(
            found(&replica, filter.clone()),
            wanted.into_iter().cloned().collect::<Vec<_>>(),
            "{filter:?}"
        );
        assert_eq!(replica.documents("t").count(&filter).unwrap(), found(&replica, filter).len() as u64);
    }
}

/// Numbers whose neighbours a floating point number cannot tell apart.
fn near_a_power(random: &mut Random) -> Value {
    let power = [53, 62, 63, 64, 10][random.below(5) as usize];
    // Around 2^63 floating point numbers are 1,024 and 2,048 apart.
    let step = [1, 2, 511, 512, 513, 1_023, 1_024, 1_025, 2_048][random.below(9) as usize];
    let sign = if random.below(2) == 0 { 1_i128 } else { -1 };
    let n = (1_i128 << power) + sign * step + sign * random.below(3) as i128;
    match (random.below(4), i64::try_from(n), u64::try_from(n)) {
        (0, ..) => json!(n as f64 + if power < 53 { 0.5 } else { 0.0 }),
        (1, ..) => json!(-(n as f64)),
        (2, Ok(n), _) => json!(n.wrapping_neg()),
        (_, Ok(n), _) => json!(n),
        (.., Ok(n)) => json!(n),
        _ => json!(n as f64),
    }
}

#[test]
fn numbers_compare_and_are_ordered_exactly() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    // Ties are ordered by id.
    let mut numbers: Vec<(String, Value)> =
        (0..400).map(|n| (format!("{n:03}"), near_a_power(&mut random))).collect();
    for (at, edge) in
        [json!(u64::MAX), json!(18_446_744_073_709_551_616.0), json!(1_u64 << 63)].iter().enumerate()
    {
        numbers[at].1 = edge.clone();
    }
    let written = numbers.clone();
    let put = move |tx: &mut motet::Transaction<'_>| {
        written
            .iter()
            .try_for_each(|(id, v)| tx.documents("t").upsert(id, &json!({ "v": v, "c": "c" })).map(drop))
    };
    replica.transaction(put).unwrap();
    let model = |descending: bool| {
        let mut model = numbers.clone();
        model.sort_by(|a, b| {
            let order = order(&a.1, &b.1).unwrap();
            if descending { order.reverse() } else { order }.then(a.0.cmp(&b.0))
        });
        model
    };
    for indexed in [false, true] {
        if indexed {
            replica.apply_schema(&Schema::new().index("t", ["v"]).index("t", ["c", "v"])).unwrap();
        }
        for (descending, by) in [(false, motet::Order::Ascending), (true, motet::Order::Descending)] {
            let model = model(descending);
            for filtered in [false, true] {
                let query = Query::new().order("v", by);
                let query = if filtered { query.filter(field("c").eq("c")) } else { query };
                let found = |query: &Query| -> Vec<(String, Value)> {
                    let found = replica.documents("t").find(query).unwrap();
                    found.into_iter().map(|record| (record.id.clone(), record["v"].clone())).collect()
                };
                assert_eq!(found(&query), model, "descending: {descending}, indexed: {indexed}");
                let start = random.below(300);
                assert_eq!(found(&query.limit(7).offset(start)), model[start as usize..][..7]);
            }
        }
        for _ in 0..300 {
            let (bound, pick) = (near_a_power(&mut random), random.below(6));
            let comparison = [
                Comparison::Eq,
                Comparison::Ne,
                Comparison::Lt,
                Comparison::Le,
                Comparison::Gt,
                Comparison::Ge,
            ][pick as usize];
            let filter = Filter::Compare("v".into(), comparison, bound);
            let wanted: Vec<&String> = numbers
                .iter()
                .filter(|(_, v)| holds(&filter, &json!({ "v": v })))
                .map(|(id, _)| id)
                .collect();
            assert_eq!(
                found(&replica, filter.clone()),
                wanted.into_iter().cloned().collect::<Vec<_>>(),
                "{filter:?}"
            );
        }
    }
}

#[test]
fn a_field_whose_name_has_a_dot_can_be_queried() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    replica.apply_schema(&Schema::new().index("t", ["a.b"])).unwrap();
    let t = replica.documents("t");
    t.upsert("flat", &json!({ "a.b": 1 })).unwrap();
    t.upsert("nested", &json!({ "a": { "b": 1 } })).unwrap();
    t.upsert("both", &json!({ "a.b": 2, "a": { "b": 1 } })).unwrap();
    t.upsert("deep", &json!({ "m": { "a.b": 1 }, "tags.all": ["x"] })).unwrap();
    assert_eq!(found(&replica, field("a.b").eq(1)), ["flat", "nested"]);
    assert_eq!(found(&replica, field("a\\.b").eq(1)), ["flat"]);
    assert_eq!(found(&replica, field("m.a\\.b").eq(1)), ["deep"]);
    assert_eq!(found(&replica, field("tags.all").contains("x")), ["deep"]);
    let ordered = t.find(&Query::new().filter(field("a.b").ne(Value::Null)).order_by("a.b")).unwrap();
    assert_eq!(ordered.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["flat", "nested", "both"]);
}

#[test]
fn a_query_has_no_limit_that_nobody_set() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    let many: Vec<Value> = (0..1_200).map(|n| json!({ "id": format!("{n}") })).collect();
    replica.transaction(move |tx| tx.documents("t").upsert_many(&many).map(drop)).unwrap();
    assert_eq!(replica.documents("t").find(&Query::new()).unwrap().len(), 1_200);
    assert_eq!(replica.documents("t").list().unwrap().len(), 1_200);
    assert_eq!(replica.documents("t").find(&Query::new().offset(1_000)).unwrap().len(), 200);
}

#[test]
fn a_filter_may_be_long_and_says_when_it_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    numbered(&replica, &[json!(1), json!("1"), json!(4_999), json!("4999"), json!(-1)]);
    let numbers = || (0..5_000).map(Value::from);
    let texts = || (0..5_000).map(|n| Value::from(n.to_string()));
    let v = || field("v");
    assert_eq!(found(&replica, v().is_in(numbers())), ["0", "2"]);
    assert_eq!(found(&replica, v().is_in(texts())), ["1", "3"]);
    assert_eq!(found(&replica, v().is_in(numbers().chain(texts()))), ["0", "1", "2", "3"]);
    assert_eq!(found(&replica, Filter::Any(numbers().map(|n| v().eq(n)).collect())), ["0", "2"]);
    assert_eq!(found(&replica, Filter::All(numbers().map(|n| v().ne(n)).collect())), ["1", "3", "4"]);
    let nested = |depth| (0..depth).fold(v().eq(1), |inner, _| Filter::Not(Box::new(inner)));
    assert_eq!(found(&replica, nested(98)), ["0"]);
    let refused = |query: Query| replica.documents("n").find(&query).unwrap_err();
    let filtered = |filter| refused(Query::new().filter(filter));
    let ordered = (0..200).fold(Query::new(), |query, n| query.order_by(&format!("f{n}")));
    for error in [
        filtered(nested(200)),
        filtered(nested(20_000)),
        filtered(v().is_in((0..20_000).map(Value::from))),
        filtered(Filter::Any((0..20_000).map(|n| v().eq(n)).collect())),
        refused(ordered),
    ] {
        assert_eq!(error.code(), "query-invalid", "{error}");
    }
}

#[test]
fn a_collection_with_very_many_fields_has_a_view() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    let names: Vec<String> = (0..2_500).map(|n| format!("f{n:04}")).collect();
    let schema = names.iter().fold(Schema::new(), |schema, name| schema.text("wide", name));
    replica.apply_schema(&schema).unwrap();
    replica.documents("wide").upsert("1", &json!({ "f0000": "first", "f2499": "last" })).unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let sql = "SELECT f0000, json_extract(json, '$.f2499') FROM collection_wide WHERE id = '1'";
    let row = conn.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    assert_eq!(row.unwrap(), ("first".into(), "last".into()));
}

#[test]
fn collections_that_differ_by_case_have_views_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    replica.apply_schema(&Schema::new().text("Songs", "title")).unwrap();
    for (collection, title) in [("Songs", "large"), ("songs", "small"), ("SONGS", "loud"), ("a^b", "roof")] {
        replica.documents(collection).upsert("1", &json!({ "title": title, "Title": "other" })).unwrap();
    }
    let declared = Schema::new().text("songs", "title").text("songs", "Title").text("songs", "ID");
    replica.apply_schema(&declared).unwrap();
    let cell = |sql: &str| replica.sql(sql).unwrap().rows[0][0].clone();
    assert_eq!(cell("SELECT title FROM \"collection_songs\""), "small");
    assert_eq!(cell("SELECT \"^Title\" FROM \"collection_songs\""), "other");
    assert_eq!(cell("SELECT id FROM \"collection_songs\""), "1");
    assert_eq!(cell("SELECT title FROM \"collection_^Songs\""), "large");
    assert_eq!(cell("SELECT json ->> 'title' FROM \"collection_^S^O^N^G^S\""), "loud");
    assert_eq!(cell("SELECT json ->> 'title' FROM \"collection_a^^b\""), "roof");
    drop(replica);
    // Known again after a restart.
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    replica.documents("sOngs").upsert("1", &json!({ "title": "odd" })).unwrap();
    let cell = |sql: &str| replica.sql(sql).unwrap().rows[0][0].clone();
    assert_eq!(cell("SELECT json ->> 'title' FROM \"collection_s^Ongs\""), "odd");
    assert_eq!(cell("SELECT title FROM \"collection_^Songs\""), "large");
}

/// Names of the declared indexes.
fn indexes(dir: &tempfile::TempDir) -> Vec<String> {
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name GLOB 'index:*' ORDER BY name";
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn indexes_of_one_collection_leave_those_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    replica.apply_schema(&Schema::new().index("a:b", ["x"]).index("a", ["y"]).index("A", ["y"])).unwrap();
    assert_eq!(indexes(&dir).len(), 3);
    // Names that differ by case, or by where a comma stands, are indexes of their own.
    replica
        .apply_schema(
            &Schema::new().index("a", ["z"]).index("a", ["Z"]).index("a", ["p,q"]).index("a", ["p", "q"]),
        )
        .unwrap();
    let names = indexes(&dir);
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("index:a:b:x:")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("index:a:y:")), "{names:?}");
}

#[test]
fn a_name_that_is_nearly_a_declared_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    replica
        .apply_schema(&Schema::new().text("t", "lyrics").text("t", "category").text("t", "title"))
        .unwrap();
    let t = replica.documents("t");
    t.upsert("1", &json!({ "category": "hula", "titles": "a field that nobody declared", "year": 1 }))
        .unwrap();
    for query in [
        Query::new().filter(field("categroy").eq("hula")),
        Query::new().filter(Filter::Not(Box::new(field("Category").eq("hula")))),
        Query::new().order_by("categorie"),
    ] {
        let error = t.find(&query).unwrap_err();
        assert_eq!(error.code(), "query-invalid");
        assert!(error.to_string().contains("did you mean \"category\"?"), "{error}");
    }
    assert!(t.count(&field("lyric").eq("x")).is_err());
    assert!(t.live(Query::new().filter(field("lyric").eq("x"))).is_err());
    let renamed = motet::Field::from(motet::FieldKind::Text).alias("genre");
    replica.apply_schema(&Schema::new().field("t", "category", renamed)).unwrap();
    let error = t.find(&Query::new().filter(field("genre").eq("hula"))).unwrap_err();
    assert!(error.to_string().contains("is called \"category\" now"), "{error}");
    // What a document has is no error, nor what is like nothing that is declared, nor anything in a collection without declarations.
    assert_eq!(t.find(&Query::new().filter(field("titles").ne(Value::Null))).unwrap().len(), 1);
    assert_eq!(t.find(&Query::new().filter(field("subtitle").eq(1))).unwrap().len(), 0);
    assert_eq!(replica.documents("u").find(&Query::new().order_by("categroy")).unwrap().len(), 0);

    for schema in [Schema::new().index("t", ["titel"]), Schema::new().search("t", ["title", "lyrisc"])] {
        let error = replica.apply_schema(&schema).unwrap_err();
        assert_eq!(error.code(), "schema-invalid");
        assert!(error.to_string().contains("did you mean"), "{error}");
    }
    // A field without a declaration may have an index.
    replica.apply_schema(&Schema::new().index("t", ["year", "title"])).unwrap();
    let error = t.upsert("2", &json!({ "lyrics": 5 })).unwrap_err();
    assert!(error.to_string().contains("lyrics") && error.to_string().contains("a text"), "{error}");
}

#[derive(Serialize, Deserialize)]
struct Song {
    title: String,
    year: Option<i64>,
}

#[test]
fn a_document_of_another_shape_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica(&dir);
    let json = replica.documents("t");
    json.upsert("1", &json!({ "title": "Hiʻilawe", "year": 1902 })).unwrap();
    json.upsert("2", &json!({ "name": "renamed by another app" })).unwrap();
    json.upsert("3", &json!({ "title": "Aloha ʻOe", "year": "1878" })).unwrap();
    let songs = replica.collection::<Song>("t");
    let list = songs.list().unwrap();
    assert_eq!((list.len(), list[0].title.as_str()), (1, "Hiʻilawe"));
    let misfits: Vec<_> = list.misfits.iter().map(|misfit| misfit.id.as_str()).collect();
    assert_eq!(misfits, ["2", "3"]);
    assert!(list.misfits[0].reason.contains("title"), "{}", list.misfits[0].reason);
    assert!(list.misfits[1].reason.contains("1878"), "{}", list.misfits[1].reason);
    for song in songs.list().unwrap() {
        assert_eq!(song.year, Some(1902));
    }
    assert!(songs.list().unwrap().all_fit().is_err());
    let found = songs.find(&Query::new().order_by("year")).unwrap();
    assert_eq!((found.len(), found.misfits.len()), (1, 2));
    let hits = songs.search("aloha", 5).unwrap();
    assert_eq!((hits.len(), hits.misfits.len(), hits.misfits[0].id.as_str()), (0, 1, "3"));
    let mut seen = 0;
    assert_eq!(songs.for_each(|_| seen += 1).unwrap().len(), 2);
    assert_eq!(seen, 1);
    assert!(songs.get("2").is_err());
    // A live query tells of one that becomes a misfit, and of one that is none any more.
    let mut live = songs.live(Query::new()).unwrap();
    assert_eq!((live.results().len(), live.results().misfits.len()), (1, 2));
    json.upsert("2", &json!({ "title": "named" })).unwrap();
    assert_eq!(live.wait().unwrap().len(), 2);
    json.upsert("1", &json!({ "year": "1902" })).unwrap();
    let now = live.wait().unwrap();
    assert_eq!((now.len(), now.misfits.len()), (1, 2));
}
