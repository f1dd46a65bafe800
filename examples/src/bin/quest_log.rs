//! Goals and tasks on two devices: validation, tags, points that add up, and a choice that is the user's.
//!
//! `cargo run -p motet-examples --bin quest_log [URL-OF-AN-EMPTY-RELAY]`

use motet::{Declare, DocumentState, Resolution, WriteError, json};
use motet_examples::{Outcome, Stage, check};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Declare)]
#[motet(collection = "goals")]
struct Goal {
    #[motet(min_len = 2, max_len = 80)]
    title: String,
    /// Concurrent deadlines are for the user to choose among.
    #[motet(ask)]
    deadline: Option<String>,
    #[motet(counter)]
    experience: i64,
}

#[derive(Debug, Serialize, Deserialize, Declare)]
#[motet(collection = "tasks", index("goal", "title"))]
struct Task {
    #[motet(min_len = 2)]
    title: String,
    goal: String,
    #[motet(min = 1, max = 5)]
    priority: u8,
    #[motet(set)]
    tags: Vec<String>,
    done: bool,
}

fn main() -> Outcome {
    let stage = Stage::new()?;
    let (phone, web) = (stage.device("phone")?, stage.device("web")?);
    for device in [&phone, &web] {
        device.declare::<Goal>()?;
        device.declare::<Task>()?;
    }

    // A goal and its first task, together or not at all.
    let (goal, task) = phone.transaction(|tx| {
        tx.set_message("a new quest")?;
        let goal = tx.collection("goals").insert(&Goal {
            title: "Dance Hiʻilawe".into(),
            deadline: None,
            experience: 0,
        })?;
        let tags = vec!["hula".into()];
        let task = Task { title: "Learn verse 1".into(), goal: goal.clone(), priority: 3, tags, done: false };
        let task = tx.collection("tasks").insert(&task)?;
        Ok((goal, task))
    })?;
    let refused = phone.documents("tasks").patch(&task, &json!({ "priority": 9 }));
    if let Err(error) = &refused {
        println!("refused: {error}");
    }
    check(matches!(refused, Err(WriteError::Rule { .. })), "a priority beyond its range is refused")?;
    stage.sync(&[&phone, &web])?;

    // Both devices work on it offline.
    for (device, points, deadline, tag) in
        [(&phone, 10, "2026-05-01", "kahiko"), (&web, 5, "2026-06-01", "ʻauana")]
    {
        device.transaction(|tx| {
            tx.documents("goals").increment(&goal, "experience", points)?;
            tx.documents("goals").patch(&goal, &json!({ "deadline": deadline }))?;
            tx.documents("tasks").add_to_set(&task, "tags", &[json!(tag)])
        })?;
    }
    stage.sync(&[&phone, &web, &phone])?;

    let goals = phone.collection::<Goal>("goals");
    let shown = goals.get(&goal)?.ok_or("it was just made")?;
    let tags = phone.collection::<Task>("tasks").get(&task)?.ok_or("it was just made")?.value.tags;
    check(shown.experience == 15, "the points of both devices add up")?;
    check(tags.len() == 3, &format!("the tags of both are there: {tags:?}"))?;
    let goal_here = goals.document(&goal);
    let status = goal_here.status()?.ok_or("it was just made")?;
    check(status.state == DocumentState::Conflict, "two deadlines are for the user to choose among")?;
    for conflict in goal_here.conflicts()? {
        println!("which deadline? {} or {}", conflict.winner, conflict.loser);
    }
    goal_here.resolve("/deadline", Resolution::Value(json!("2026-06-01")))?;
    stage.sync(&[&phone, &web])?;
    let chosen = web.collection::<Goal>("goals").get(&goal)?.ok_or("it is there")?;
    check(
        chosen.deadline.as_deref() == Some("2026-06-01"),
        "what was chosen is on the other device as well",
    )?;
    check(web.counts()?.conflicts == 0, "and no question is open")
}
