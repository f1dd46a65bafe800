//! Invariant D at every single call of the disk: the power is cut after each of them, with all, none, some or torn parts of what
//! was not synced; and each of them fails once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use motet_tests::random::Random;
use motet_tests::simulation::disk::{Call, Disk, Fault, Left};
use motet_tests::simulation::script::{Promises, inspect_device, inspect_relay, play};

#[test]
fn a_power_cut_after_any_call_of_the_device_loses_nothing_that_was_promised() {
    let (calls, promises) = recorded(true);
    cut_everywhere("device", &calls, |name, disk, at, left| check_device(name, disk, &promises, at, left));
}

#[test]
fn a_power_cut_after_any_call_of_the_relay_loses_nothing_that_was_acknowledged() {
    let (calls, promises) = recorded(false);
    cut_everywhere("relay", &calls, |name, disk, at, left| {
        let told = format!("after call {at}, of the unsynced there is {left:?}");
        let held: BTreeSet<_> =
            inspect_relay(name, disk).unwrap_or_else(|e| panic!("{told}: {e}")).into_iter().collect();
        let due = promises.acknowledged.iter().filter(|(calls, _)| *calls <= at as u64);
        due.for_each(|(_, id)| assert!(held.contains(id), "{told}: {id} is lost"));
    });
}

#[test]
fn a_call_that_fails_once_loses_nothing_and_stops_nothing() {
    let clean = Disk::default();
    play("faults-clean", &clean, &Disk::default());
    let count = clean.calls() as usize;
    let both = [Fault::Io, Fault::Full];
    on_all_cores(2 * count, |n| {
        if !is_played(n / 2) {
            return;
        }
        let (at, fault) = (n / 2 + 1, both[n % 2]);
        let (disk, relay) = (Disk::default(), Disk::default());
        disk.fail_at(at as u64, fault);
        let name = format!("fault-{n:06}");
        let mut promises = play(&name, &disk, &relay);
        promises.saved.iter_mut().for_each(|(calls, ..)| *calls = 0);
        // What is on the disk now, and what would be after a power cut.
        let told = |left| format!("{fault:?} at call {at}, then {left:?}");
        check_device(&name, &disk.as_written(), &promises, 0, told(Left::All));
        for left in [Left::None, Left::Torn] {
            let mut random = Random(n as u64);
            check_device(&name, &disk.after_power_cut(left, &mut random), &promises, 0, told(left));
        }
    });
}

#[test]
fn a_call_of_the_relay_that_fails_once_loses_nothing() {
    let clean = Disk::default();
    play("relay-clean", &Disk::default(), &clean);
    let count = clean.calls() as usize;
    on_all_cores(2 * count, |n| {
        if !is_played(n / 2) {
            return;
        }
        let (at, fault) = (n / 2 + 1, [Fault::Io, Fault::Full][n % 2]);
        let relay = Disk::default();
        relay.fail_at(at as u64, fault);
        let name = format!("relay-fault-{n:06}");
        let promises = play(&name, &Disk::default(), &relay);
        for left in Left::EVERY {
            let disk = relay.after_power_cut(left, &mut Random(n as u64));
            let told = format!("{fault:?} at call {at}, then {left:?}");
            let held: BTreeSet<_> =
                inspect_relay(&name, &disk).unwrap_or_else(|e| panic!("{told}: {e}")).into_iter().collect();
            promises
                .acknowledged
                .iter()
                .for_each(|(_, id)| assert!(held.contains(id), "{told}: {id} is lost"));
        }
    });
}

/// The calls of the life on one of its two disks.
fn recorded(device: bool) -> (Vec<Call>, Promises) {
    let disk = Disk::default();
    disk.record();
    let other = Disk::default();
    let (a, b) = if device { (&disk, &other) } else { (&other, &disk) };
    let promises = play(if device { "record-device" } else { "record-relay" }, a, b);
    let calls = disk.recorded();
    assert!(calls.len() > 80, "the life must have written something: {} calls", calls.len());
    assert!(promises.saved.len() > 8 && promises.acknowledged.len() > 8, "{promises:?}");
    (calls, promises)
}

/// Whether a call is one of those that are tried: all, or of a quick run each tenth.
fn is_played(call: usize) -> bool {
    !motet_tests::random::is_quick() || call.is_multiple_of(10)
}

/// Cuts the power after each call, in every way there is.
fn cut_everywhere(what: &str, calls: &[Call], check: impl Fn(&str, &Disk, usize, Left) + Sync) {
    let ways = Left::EVERY.len();
    // Each thread takes a stretch of its own and plays what lies before it once.
    let stretches = 8;
    let stretch = calls.len().div_ceil(stretches);
    on_all_cores(stretches, |n| {
        let disk = Disk::default();
        calls[..(n * stretch).min(calls.len())].iter().for_each(|call| disk.replay(call));
        for at in n * stretch..((n + 1) * stretch).min(calls.len() + 1) {
            for (way, left) in Left::EVERY.into_iter().enumerate().filter(|_| is_played(at)) {
                let mut random = Random((at * ways + way) as u64);
                check(&format!("{what}-cut-{n}"), &disk.after_power_cut(left, &mut random), at, left);
            }
            if let Some(call) = calls.get(at) {
                disk.replay(call);
            }
        }
    });
    println!("{} calls, {} power cuts", calls.len(), calls.len() * ways);
}

fn check_device(name: &str, disk: &Disk, promises: &Promises, at: usize, told: impl std::fmt::Debug) {
    let told = format!("after call {at}, {told:?}");
    let shown = inspect_device(name, disk).unwrap_or_else(|e| panic!("{told}: {e}"));
    let mut due: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut deleted = BTreeSet::new();
    for (calls, id, mark) in &promises.saved {
        if *calls <= at as u64 {
            match mark {
                Some(mark) => due.entry(id).or_default().push(mark),
                None => _ = deleted.insert(id.as_str()),
            }
        } else if mark.is_none() {
            // A delete that was under way may have been kept.
            due.remove(id.as_str());
        }
    }
    for (id, marks) in due {
        if deleted.contains(id) {
            assert!(!shown.contains_key(id), "{told}: {id} is back");
            continue;
        }
        let there = shown.get(id).unwrap_or_else(|| panic!("{told}: {id} is lost"));
        marks
            .iter()
            .for_each(|mark| assert!(there.contains(*mark), "{told}: {mark} of {id} is lost: {there}"));
    }
}

fn on_all_cores(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let run = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            work(n);
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(run)));
}
