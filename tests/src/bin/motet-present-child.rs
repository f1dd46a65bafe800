//! A device that says where it is, and stays there until it is killed or stopped.

use motet::{Place, Relay, Replica};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, db, url] = &args[..] else { panic!("usage: motet-present-child DB URL") };
    let replica = Replica::builder(db).device_name("child").open().unwrap();
    replica.connect(Relay::new(url)).unwrap();
    replica.set_presence(Some(&Place::document("pieces", "song"))).unwrap();
    loop {
        std::thread::park();
    }
}
