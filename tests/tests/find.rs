//! Finding documents: filters, order, full-text search, plain SQL, results that stay up to date.

use std::time::Duration;

use motet::{ChangeKind, Filter, Order, Query, Replica, Schema, field};
use motet_tests::{TestRelay, device, sync};
use serde_json::{Value, json};

fn songs(dir: &std::path::Path) -> Replica {
    let replica = Replica::open(dir.join("songs.db")).unwrap();
    let schema = Schema::new().text("songs", "lyrics").index("songs", ["category", "title"]);
    replica.apply_schema(&schema).unwrap();
    for (id, title, category, year, lyrics) in [
        ("1", "Hiʻilawe", json!("hula"), json!(1902), "Kūmaka ka ʻikena iā Hiʻilawe"),
        ("2", "Aloha ʻOe", json!("hula"), json!(1878), "Haʻaheo ka ua i nā pali\nAloha ʻoe, aloha ʻoe"),
        ("3", "Kaulana Nā Pua", json!("mele"), json!(1893), "Kaulana nā pua aʻo Hawaiʻi"),
        ("4", "ʻŌpae Ē", json!(null), json!(19.5), "ʻŌpae ē, ua hele mai au"),
    ] {
        let song = json!({ "title": title, "category": category, "year": year, "lyrics": lyrics,
            "tags": [category, "kahiko"], "meta": { "tempo": year }, "sung": id == "2" });
        replica.documents("songs").upsert(id, &song).unwrap();
    }
    replica
}

fn ids(replica: &Replica, query: &Query) -> Vec<String> {
    replica.documents("songs").find(query).unwrap().into_iter().map(|song| song.id).collect()
}

#[test]
fn filters_order_and_pages() {
    let dir = tempfile::tempdir().unwrap();
    let replica = songs(dir.path());
    let of = |filter: Filter| ids(&replica, &Query::new().filter(filter));
    assert_eq!(of(field("category").eq("hula")), ["1", "2"]);
    assert_eq!(of(field("category").ne("hula")), ["3", "4"]);
    assert_eq!(of(field("category").eq(Value::Null)), ["4"]);
    assert_eq!(of(field("missing").eq(Value::Null)).len(), 4);
    assert_eq!(of(field("year").lt(1893)), ["2", "4"]);
    assert_eq!(of(field("year").ge(19.5)).len(), 4);
    assert_eq!(of(field("meta.tempo").gt(1900)), ["1"]);
    assert_eq!(of(field("sung").eq(true)), ["2"]);
    assert_eq!(of(field("tags").contains("hula")), ["1", "2"]);
    assert_eq!(of(field("title").starts_with("ʻŌ")), ["4"]);
    assert_eq!(of(field("category").is_in(["mele", "pop"])), ["3"]);
    assert_eq!(of(Filter::Any(vec![field("year").gt(1900), field("sung").eq(true)])), ["1", "2"]);
    assert_eq!(of(Filter::Not(Box::new(field("category").eq("hula")))), ["3", "4"]);
    let newest = Query::new().order("year", Order::Descending).order_by("title");
    assert_eq!(ids(&replica, &newest), ["1", "3", "2", "4"]);
    assert_eq!(ids(&replica, &newest.clone().limit(2).offset(1)), ["3", "2"]);
    assert_eq!(replica.documents("songs").count(&field("category").eq("hula")).unwrap(), 2);
    replica.documents("songs").delete("1").unwrap();
    assert_eq!(of(field("category").eq("hula")), ["2"]);
    for bad in [field("").eq(1), field("a\"b").eq(1), field("a").eq(json!([1]))] {
        let error = replica.documents("songs").find(&Query::new().filter(bad)).unwrap_err();
        assert_eq!(error.code(), "query-invalid");
    }
}

#[test]
fn a_declared_index_serves_the_query_it_was_declared_for() {
    let dir = tempfile::tempdir().unwrap();
    let _replica = songs(dir.path());
    let conn = rusqlite::Connection::open(dir.path().join("songs.db")).unwrap();
    let sql = "EXPLAIN QUERY PLAN SELECT p.json FROM projection p WHERE p.collection = 'songs' AND p.deleted = 0
               AND json_extract(p.json, '$.\"category\"') = ? ORDER BY json_extract(p.json, '$.\"title\"'), p.name LIMIT 50";
    let mut explain = conn.prepare(sql).unwrap();
    let plan: Vec<String> =
        explain.query_map(["hula"], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(plan.iter().any(|step| step.contains("index:songs:category,title")), "{plan:?}");
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
}

#[test]
fn words_are_found_however_they_are_typed() {
    let dir = tempfile::tempdir().unwrap();
    let replica = songs(dir.path());
    let found = |typed: &str| -> Vec<String> {
        let hits = replica.documents("songs").search(typed, 10).unwrap();
        hits.into_iter().map(|hit| hit.record.id).collect()
    };
    for typed in ["hiilawe", "Hiʻilawe", "HI'ILAWE", "hi‘ilawē", "\"ikena ia hiʻilawe\""] {
        assert_eq!(found(typed), ["1"], "{typed}");
    }
    assert_eq!(found("alohā"), ["2"]);
    assert_eq!(found("pua haw*"), ["3"]);
    assert!(found("pua aloha").is_empty() && found("").is_empty() && found("\" ( ' AND").is_empty());
    let hit = &replica.documents("songs").search("aloha", 1).unwrap()[0];
    let snippet = hit.snippet.as_ref().unwrap();
    assert_eq!(snippet.field, "lyrics");
    assert!(snippet.matches.iter().all(|range| &snippet.text[range.clone()].to_lowercase() == "aloha"));
    // A search sees every edit that was made before it, and nothing that is gone.
    replica.documents("songs").document("3").splice_text("lyrics", 0, 0, "Pūpūkani ").unwrap();
    assert_eq!(found("pupukani"), ["3"]);
    replica.documents("songs").delete("3").unwrap();
    assert!(found("pupukani").is_empty());
    replica.documents("songs").document("3").restore().unwrap();
    assert_eq!(found("pupukani"), ["3"]);
}

#[test]
fn another_program_reads_a_collection_with_plain_sql() {
    let dir = tempfile::tempdir().unwrap();
    let replica = songs(dir.path());
    replica.apply_schema(&Schema::new().field("songs", "title", motet::FieldKind::Register)).unwrap();
    replica.documents("undeclared").upsert("x", &json!({ "n": 1 })).unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("songs.db")).unwrap();
    let sql = "SELECT title FROM collection_songs WHERE lyrics LIKE '%pali%'";
    assert_eq!(conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "Aloha ʻOe");
    let sql = "SELECT json ->> 'n' FROM collection_undeclared WHERE id = 'x'";
    assert_eq!(conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn a_live_query_wakes_for_what_concerns_it_and_for_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let replica = songs(dir.path());
    let collection = replica.documents("songs");
    let mut hula =
        collection.live(Query::new().filter(field("category").eq("hula")).order_by("title")).unwrap();
    assert_eq!(hula.results().len(), 2);
    collection.patch("3", &json!({ "title": "not of its category" })).unwrap();
    replica.documents("other").upsert("1", &json!({ "category": "hula" })).unwrap();
    let mut nothing = Box::pin(hula.next());
    let idle = std::task::Waker::noop();
    assert!(nothing.as_mut().poll(&mut std::task::Context::from_waker(idle)).is_pending());
    drop(nothing);
    collection.patch("3", &json!({ "category": "hula" })).unwrap();
    assert_eq!(hula.wait().unwrap().len(), 3);
    collection.delete("1").unwrap();
    assert_eq!(hula.wait().unwrap().len(), 2);
    // What another device writes wakes it as well.
    let other = Replica::open(dir.path().join("b.db")).unwrap();
    other.documents("songs").upsert("9", &json!({ "title": "A", "category": "hula" })).unwrap();
    sync(&other, &relay.url());
    let waiting = std::thread::spawn(move || hula.wait().unwrap()[0].id.clone());
    std::thread::sleep(Duration::from_millis(20));
    sync(&replica, &relay.url());
    assert_eq!(waiting.join().unwrap(), "9");
}

#[test]
fn events_say_what_changed_by_whom_and_with_what() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) =
        (songs(dir.path()), Replica::builder(dir.path().join("b.db")).device_name("b").open().unwrap());
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let mut events = b.events();
    a.transaction(|tx| {
        tx.documents("songs").patch("1", &json!({ "title": "new", "year": 2000 }))?;
        tx.documents("songs").patch("2", &json!({ "sung": false }))?;
        Ok(())
    })
    .unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").patch("1", &json!({ "title": "newer" })).unwrap();
    let (first, second, own) = (next(&mut events), next(&mut events), next(&mut events));
    let mut fields = first.fields.clone();
    fields.sort();
    assert_eq!(
        (fields, first.device, first.remote),
        (vec!["title".into(), "year".into()], Some(a.device_id()), true)
    );
    assert_eq!(second.fields, ["sung"]);
    assert_eq!(first.transaction, second.transaction);
    assert_eq!((own.fields, own.device, own.remote), (vec!["title".into()], Some(b.device_id()), false));
    assert!(own.transaction > first.transaction);
}

fn next(events: &mut motet::Events) -> motet::Event {
    events.try_next().unwrap().unwrap()
}

#[test]
fn live_queries_and_listeners_hear_of_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let here = device(dir.path(), "a");
    let pieces = here.documents("pieces");
    pieces.upsert("old", &json!({ "title": "Kaulana Nā Pua", "category": "mele" })).unwrap();
    let mut live = pieces.live(Query::new().filter(field("category").eq("hula"))).unwrap();
    let mut events = here.events();

    // A replica of its own on the same file is what another process has.
    let there = Replica::open(dir.path().join("a.db")).unwrap();
    let mark = here.latest_change().unwrap();
    there.documents("pieces").upsert("new", &json!({ "title": "Ka Ua Loku", "category": "hula" })).unwrap();
    assert_eq!(live.wait().unwrap()[0].id, "new");
    there.documents("pieces").patch("old", &json!({ "category": "hula" })).unwrap();
    assert_eq!(live.wait().unwrap().len(), 2);
    let heard: Vec<_> = (0..2).map(|_| events.wait().unwrap().unwrap()).map(|e| (e.id, e.kind)).collect();
    assert_eq!(heard, [("new".into(), ChangeKind::Created), ("old".into(), ChangeKind::Updated)]);
    let changed: Vec<_> = here.changed_after(mark, 10).unwrap();
    assert_eq!(changed.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["new", "old"]);
    assert_eq!(here.changed_after(changed[0].seq, 10).unwrap(), changed[1..]);
    assert_eq!(here.changed_after(changed[1].seq, 10).unwrap(), []);
}
