//! Sends a request for a summary again that was refused for its length, shorter each time.
//!
//! Invisible to the client: nothing of an answer has been passed on. Other requests are not shortened; the client is
//! told to compact.

use crate::proxy::attempts::Attempts;
use crate::proxy::class::RequestClass;
use crate::translate::shrink;
use crate::upstream::failure::Failure;

impl Attempts {
    /// Takes in that the request did not fit, and shortens it if it asks for a summary.
    ///
    /// # Errors
    ///
    /// It is no such request, or cannot be made short enough.
    pub(super) async fn shorten(&mut self, failure: Failure) -> Result<(), Failure> {
        let Failure::ContextTooLong { limit, tokens } = failure else {
            return Err(failure);
        };
        let shortened = self.shortened;
        self.shortened += 1;
        if shortened == 0 {
            self.service.lessons.overflowed(
                &self.credentials.account,
                &self.whose.model,
                self.window.listed,
                limit,
                tokens.unwrap_or(self.tokens),
            );
        }
        if !self.is_compaction() {
            return Err(failure);
        }
        let Some(original) = &self.original else {
            return Err(failure);
        };
        let window = limit.unwrap_or(self.window.usable);
        let still_too_long = || Failure::StillTooLong { window };
        let service = self.service.clone();
        let (copy, credentials) = (original.clone(), self.credentials.clone());
        let work = move |may_go_on: &dyn Fn() -> bool| {
            let target = |weight| shrink::target(window, weight, shortened);
            copy.shortened(&service, &credentials, target, may_go_on)
        };
        let counting = self.service.counting.clone();
        let Some(done) = counting.aside(work).await.flatten() else {
            return Err(still_too_long());
        };
        tracing::info!(
            window,
            target = done.target,
            tokens = done.tokens,
            attempt = shortened + 1,
            "a conversation that is too long to be summed up is shortened"
        );
        if done.tokens > window {
            return Err(still_too_long());
        }
        if let Some(original) = &mut self.original {
            original.shortened_to = Some(done.target);
        }
        self.take_over(done.again);
        Ok(())
    }

    fn is_compaction(&self) -> bool {
        self.whose.class == RequestClass::Compaction
    }
}
