//! Where a device is, and what the others hear of it.

use tokio::time::Instant;

use super::Running;
use crate::limits;

impl Running {
    /// Tells the others where the device is, at once or when that may be told again; what it says meanwhile takes the place of it.
    pub(super) fn tell_when_due(&mut self) {
        if self.tell_at.is_some() {
            return;
        }
        let (since, count) = &mut self.places;
        if since.elapsed() >= limits::PLACES_COUNTED_OVER {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count > limits::PLACES {
            self.tell_at = Some(*since + limits::PLACES_COUNTED_OVER);
            return;
        }
        let listeners = self.log.as_ref().map_or(0, |log| self.relay.hub.listeners(log));
        let wait = self.admitted.request.account.charge_place(listeners, &self.relay.limits());
        if wait.is_zero() {
            return self.tell();
        }
        self.tell_at = Some(Instant::now() + wait);
    }

    pub(super) fn tell(&mut self) {
        self.tell_at = None;
        match &self.place {
            Some(_) => self.present(),
            None => self.withdraw(),
        }
    }

    /// When the silence of a device that is somewhere has to be looked at.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        let silence = self.relay.present_silence;
        let silence = if self.probed { silence } else { silence.mul_f64(limits::PROBED_AFTER) };
        self.is_present.then(|| self.heard + silence)
    }

    /// A device that is somewhere was silent: it is asked whether it is there, and then it is not.
    pub(super) fn take_silence(&mut self) {
        if !std::mem::replace(&mut self.probed, true) {
            return self.session.probe(self.heard.elapsed().as_millis() as u64);
        }
        tracing::debug!(session = self.id, "its device is silent, and nowhere for the others");
        self.withdraw();
    }

    /// The device is there; if the others were told otherwise, they hear of it.
    pub(super) fn note_heard(&mut self) {
        (self.heard, self.probed) = (Instant::now(), false);
        if !self.is_present && self.place.is_some() {
            self.present();
        }
    }

    pub(super) fn present(&mut self) {
        if let (Some(log), Some(place)) = (&self.log, &self.place) {
            self.is_present = true;
            self.relay.hub.present(log, self.id, place.clone());
        }
    }

    pub(super) fn withdraw(&mut self) {
        self.is_present = false;
        if let Some(log) = &self.log {
            self.relay.hub.withdraw(log, self.id);
        }
    }
}
