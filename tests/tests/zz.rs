use motet::{Replica, json};
use motet_tests::{TestRelay, device, sync};
fn lyrics(r: &Replica, id: &str) -> String { r.documents("pieces").get(id).unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned() }
#[test]
fn table() {
    let cases: Vec<Vec<String>> = serde_json::from_str(&std::fs::read_to_string("/tmp/h1/cases.json").unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let url = relay.url();
    let n = cases.iter().map(|c| c.len() - 1).max().unwrap();
    let all: Vec<Replica> = (0..n).map(|i| device(dir.path(), &format!("d{i}"))).collect();
    for (i, c) in cases.iter().enumerate() { all[0].documents("pieces").put(&i.to_string(), &json!({"lyrics": c[0]})).unwrap(); }
    for d in &all { sync(d, &url); }
    for (i, c) in cases.iter().enumerate() { for (k, v) in c[1..].iter().enumerate() {
        all[k].documents("pieces").set(&i.to_string(), &json!({"lyrics": v})).unwrap(); } }
    for _ in 0..3 { for d in &all { sync(d, &url); } }
    let mut more = 0;
    loop { let mut any = 0; for d in &all { let s = sync(d, &url); any += s.sent + s.received; } if any == 0 { break } more += 1; assert!(more < 10); }
    for (i, c) in cases.iter().enumerate() {
        let id = i.to_string();
        println!("--- {i}: {:?}", c[0]);
        for v in &c[1..] { println!("      -> {v:?}"); }
        let t = lyrics(&all[0], &id);
        println!("   MERGED {t:?}");
        for d in &all[1..] { if lyrics(d, &id) != t { println!("   DIFFERS {:?}", lyrics(d, &id)); } }
        let j = |d: &Replica| { let mut v: Vec<_> = d.conflicts("pieces", &id).unwrap().into_iter().map(|c| (c.settled, c.winner.to_string(), c.loser.to_string(), c.loser_id)).collect(); v.sort(); v };
        let j0 = j(&all[0]);
        for r in &j0 { println!("   {} {} {}", if r.0 {"info"} else {"OPEN"}, r.1, r.2); }
        for d in &all[1..] { if j(d) != j0 { println!("   JOURNAL DIFFERS"); for r in j(d) { println!("     {} {} {}", if r.0 {"info"} else {"OPEN"}, r.1, r.2); } } }
    }
    for d in &all { let p = d.verify().unwrap().problems; if !p.is_empty() { println!("VERIFY {p:?}"); } }
    println!("extra rounds {more}");
}
