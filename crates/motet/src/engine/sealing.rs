//! The app's sealer, which may fail in every way that code can: whatever it does, it ends as an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use motet_proto::envelope::{
    About, OpenError, SEALER_BYTES, SUITE_PLAIN, SUITES_OF_APPS, SealError, Sealer, opened_len,
};
use motet_proto::limits;

/// A sealer whose panics are errors, and which keeps to its limits.
pub(crate) struct Guarded<S>(pub(crate) S);

impl<S: Sealer> Sealer for Guarded<S> {
    /// Of one that panics, a suite that nobody has.
    fn suite(&self) -> u8 {
        caught(|| self.0.suite()).unwrap_or(u8::MAX)
    }

    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = |reason: String| Err(SealError(reason));
        let suite = self.suite();
        if suite != SUITE_PLAIN && suite < SUITES_OF_APPS {
            return refused(format!("suite {suite} is none of those that apps may use"));
        }
        let sealed = caught(|| self.0.seal(about, plain));
        let sealed = sealed.unwrap_or_else(|| refused("the app's sealer panicked".into()))?;
        if sealed.is_empty() || sealed.len() > plain.len() + SEALER_BYTES {
            return refused(format!("the app's sealer makes {} bytes of {}", sealed.len(), plain.len()));
        }
        Ok(sealed)
    }

    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let refused = |reason: &str| Err(OpenError::Sealed(reason.to_owned()));
        let opened = caught(|| self.0.open(about, suite, sealed));
        let opened = opened.unwrap_or_else(|| refused("the app's sealer panicked over it"))?;
        match opened.len() <= limits::PAYLOAD_INFLATED_BYTES {
            true => Ok(opened),
            false => Err(OpenError::TooLarge),
        }
    }

    fn opened_len(&self, suite: u8, sealed: &[u8]) -> usize {
        let opened = caught(|| self.0.opened_len(suite, sealed));
        opened.unwrap_or_else(|| opened_len(suite, sealed)).min(limits::PAYLOAD_INFLATED_BYTES)
    }
}

fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
