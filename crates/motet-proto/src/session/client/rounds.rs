//! Rounds that were asked for, and when they are complete.

use std::time::Duration;

use super::{ClientEffect, ClientSession};
use crate::planted::{Bug, is_planted};

#[derive(Debug)]
pub(super) struct Round {
    pub(super) id: u64,
    pub(super) needs_pull: u64,
    pub(super) needs_load: u64,
    /// Set once the outbox has been read to its end: pushes before this id must be settled.
    pub(super) push_barrier: Option<u32>,
    pub(super) pushes_settled: bool,
    /// Not waited for is what is held.
    pub(super) gives_up: bool,
}

impl ClientSession {
    /// Asks for a full round; answered by [`ClientEffect::RoundDone`] unless the session ends first.
    pub fn request_round(&mut self, round: u64, now: Duration) {
        self.rounds.push(Round {
            id: round,
            needs_pull: self.pulls_begun + 1,
            needs_load: self.loads_begun + 1,
            push_barrier: None,
            pushes_settled: false,
            gives_up: false,
        });
        self.want_pull = true;
        self.want_load = true;
        self.pump(now);
    }

    /// The rounds that were asked for are complete without what is held, as soon as everything else is.
    pub fn settle_without_pushes(&mut self, now: Duration) {
        self.rounds.iter_mut().for_each(|round| round.gives_up = true);
        self.settle_rounds();
        self.pump(now);
    }

    /// The outbox has grown by what this session did: no open round is done before that is sent.
    pub(super) fn load_again(&mut self) {
        self.want_load = true;
        for round in &mut self.rounds {
            round.needs_load = self.loads_begun + 1;
            round.push_barrier = None;
            round.pushes_settled = false;
            round.gives_up = false;
        }
    }

    pub(super) fn settle_rounds(&mut self) {
        if self.resetting || self.reseeding {
            return;
        }
        let oldest = self.in_flight.front().map(|sent| sent.push);
        let applied = self.pulls_applied;
        let holds_all = self.holds && self.in_flight.is_empty();
        for round in &mut self.rounds {
            round.pushes_settled |= round.gives_up && holds_all;
            round.pushes_settled |=
                round.push_barrier.is_some_and(|barrier| oldest.is_none_or(|oldest| oldest >= barrier))
                    || is_planted(Bug::RoundEndsEarly);
        }
        for round in self.rounds.extract_if(.., |r| r.pushes_settled && applied >= r.needs_pull) {
            self.effects.push_back(ClientEffect::RoundDone { round: round.id });
        }
    }
}
