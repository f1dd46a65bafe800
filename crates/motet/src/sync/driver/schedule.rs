//! When to connect, and how.

use std::time::Duration;

use futures_util::future::FutureExt;
use motet_proto::message::Hello;
use motet_proto::{Message, limits as proto};
use tokio::time::Instant;

use super::{Driver, Ended, Running, until};
use crate::engine::Link;
use crate::engine::is_due;
use crate::error::SyncError;
use crate::limits;
use crate::sync::TokenRequest;
use crate::sync::agent;
#[cfg(feature = "relay")]
use crate::sync::connection::relay_error;
use crate::sync::connection::{Connection, Refused};
use crate::types::SyncMode;

impl Driver {
    /// The error comes with whether somebody was there: if not, trying again at once is of no use.
    pub(super) async fn connect(&mut self) -> Result<Connection, (SyncError, bool)> {
        self.rounds.iter_mut().for_each(|round| round.attempts += 1);
        self.documents.iter_mut().for_each(|document| document.attempts += 1);
        if let Some(connection) = self.upgraded.take() {
            return Ok(connection);
        }
        let hello = Message::Hello(Hello {
            version_min: proto::VERSION_MIN,
            version_max: proto::VERSION_MAX,
            device: self.database.shared.device,
            space: self.database.shared.space,
            agent: agent(),
            account: None,
            log: None,
        });
        let mut refused: Option<(Option<String>, String)> = None;
        let mut request = TokenRequest::default();
        loop {
            let token = self.tokens.get(request).await.map_err(|error| (error, false))?;
            let is_second = refused.is_some();
            if let Some((before, reason)) = refused.take()
                && before == token
            {
                return Err((SyncError::AuthNeeded { reason }, false));
            }
            let (traffic, hello) = (self.traffic.clone(), hello.clone());
            match self.dialer.open((token.clone(), &self.tokens), hello, traffic).await {
                Ok(connection) => return Ok(connection),
                // A provider may have a fresh one each time, and none of them good.
                Err(Refused::Unauthorized { reason, .. }) if token.is_none() || is_second => {
                    return Err((SyncError::AuthNeeded { reason }, false));
                }
                Err(Refused::Unauthorized { reason, date }) => {
                    (refused, request) = (Some((token, reason)), TokenRequest::rejected(date));
                }
                Err(Refused::Settled(error)) => return Err((error, false)),
                Err(Refused::Lost(error)) => return Err((error, true)),
                #[cfg(feature = "relay")]
                Err(Refused::TooLarge(reason)) => return Err((relay_error(&reason), false)),
            }
        }
    }

    /// How often to sync, as things are. What another process does by itself this one does only when asked.
    pub(super) fn mode(&mut self) -> SyncMode {
        let (policy, conditions) = *self.policy.borrow();
        match policy.under(conditions) {
            SyncMode::Manual => {
                self.lock.let_go();
                SyncMode::Manual
            }
            _ if !self.lock.hold() => SyncMode::Manual,
            mode => mode,
        }
    }

    /// It would sync by itself, if another process did not.
    fn would_sync(&self) -> bool {
        let (policy, conditions) = *self.policy.borrow();
        policy.under(conditions) != SyncMode::Manual
    }

    pub(super) fn compares_after(&self) -> Option<Duration> {
        let (policy, conditions) = *self.policy.borrow();
        policy.compares_after(conditions)
    }

    /// Waits until there is something to connect for. False if the replica let go.
    pub(super) async fn wait_for_turn(&mut self) -> bool {
        loop {
            let due = match self.mode() {
                _ if self.is_wanted() => return true,
                SyncMode::Live => return true,
                SyncMode::Every(pause) => match self.last_round {
                    Some(last) if last.elapsed() < pause => Some(pause.saturating_sub(last.elapsed())),
                    _ => return true,
                },
                SyncMode::Manual if self.would_sync() => Some(limits::SYNC_LOCK_POLL),
                SyncMode::Manual => None,
            };
            self.database.shared.board.set_link(Link::None);
            tokio::select! {
                () = until(due.and_then(|due| Instant::now().checked_add(due))) => {}
                command = self.commands.recv() => match command {
                    Some(command) => drop(self.take_command(command)),
                    None => return false,
                },
                Ok(()) = self.policy.changed() => {}
            }
        }
    }

    /// Whatever let no WebSocket through may let one through by now: tried beside the session, which goes on meanwhile.
    pub(super) fn try_upgrade(&self, running: &mut Running) {
        running.upgrade_at = None;
        let (dialer, tokens, traffic) = (self.dialer.clone(), self.tokens.clone(), self.traffic.clone());
        let upgrade = async move {
            let token = tokens.get(TokenRequest::default()).await.ok()?;
            dialer.upgrade(token.as_deref(), traffic).await
        };
        running.upgrading = Some(upgrade.boxed()).into();
    }

    /// With a WebSocket the session over `POST` ends, and another begins. Otherwise it is tried again, after a longer time.
    pub(super) fn take_upgrade(
        &mut self,
        running: &mut Running,
        upgraded: Option<Connection>,
    ) -> Result<(), Ended> {
        running.upgrading = None.into();
        if let Some(connection) = upgraded {
            self.upgraded = Some(connection);
            return Err(Ended::Done);
        }
        running.upgrade_after = (2 * running.upgrade_after).min(limits::UPGRADE_TRIED_AGAIN_LAST);
        running.upgrade_at = Some(Instant::now() + running.upgrade_after);
        Ok(())
    }

    /// A comparison begins with a session: if one is due, this one ends.
    pub(super) fn look_for_comparison(&self, running: &Running) -> Result<(), Ended> {
        if !running.session.is_idle() {
            return Ok(());
        }
        let last =
            self.database.readers.read(|tx| tx.compared_at(self.remote)).map_err(SyncError::Storage)?;
        match is_due(self.compares_after(), last, self.database.shared.now_ms()) {
            true => Err(Ended::Done),
            false => Ok(()),
        }
    }
}
