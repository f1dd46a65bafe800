//! Goals and tasks on two devices: validation, tags, points that add up, and a choice that is the user's.
//!
//! `cargo run -p motet-examples --bin quest_log`

use motet::{Declare, DocumentState, Relay, Replica, Resolution, WriteError, json};
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("motet-quest-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let phone = Replica::builder(folder.join("phone.db")).device_name("phone").open()?;
    let web = Replica::builder(folder.join("web.db")).device_name("web").open()?;
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
    match phone.documents("tasks").patch(&task, &json!({ "priority": 9 })) {
        Err(error @ WriteError::Rule { .. }) => println!("refused: {error}"),
        other => println!("not refused? {other:?}"),
    }

    // `cargo run -p motet-relay` on its default address lets the two meet; without it they go on alone.
    let relay = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8787".into());
    let sync = |device: &Replica| -> Result<(), Box<dyn std::error::Error>> {
        device.connect(Relay::new(&relay))?;
        match device.sync_now() {
            Ok(summary) => println!("{:<6} {summary}", device.device_name()),
            Err(error) => println!("{:<6} {error}", device.device_name()),
        }
        device.disconnect();
        Ok(())
    };
    sync(&phone)?;
    sync(&web)?;

    // Both devices work on it offline.
    for (device, points, deadline, tag) in
        [(&phone, 10, "2026-05-01", "kahiko"), (&web, 5, "2026-06-01", "ʻauana")]
    {
        let (goal, task) = (goal.clone(), task.clone());
        let worked = device.transaction(move |tx| {
            tx.documents("goals").increment(&goal, "experience", points)?;
            tx.documents("goals").patch(&goal, &json!({ "deadline": deadline }))?;
            tx.documents("tasks").add_to_set(&task, "tags", &[json!(tag)])
        });
        if let Err(error) = worked {
            println!("{:<6} {error}", device.device_name());
        }
    }
    sync(&phone)?;
    sync(&web)?;
    sync(&phone)?;

    let goals = phone.collection::<Goal>("goals");
    let shown = goals.get(&goal)?.ok_or("it was just made")?;
    let tags = phone.collection::<Task>("tasks").get(&task)?.ok_or("it was just made")?.value.tags;
    println!("experience {} (both devices' points), tags {tags:?}", shown.experience);
    let status = phone.documents("goals").document(&goal).status()?.ok_or("it was just made")?;
    if status.state == DocumentState::Conflict {
        for conflict in phone.documents("goals").document(&goal).conflicts()? {
            println!("which deadline? {} or {}", conflict.winner, conflict.loser);
        }
        goals.document(&goal).resolve("/deadline", Resolution::Value(json!("2026-06-01")))?;
    }
    println!("deadline {:?}", goals.get(&goal)?.ok_or("it was just made")?.deadline);
    println!("files in {}", folder.display());
    Ok(())
}
