//! Counts tokens beside the proxy's thread: few at a time, with a tokenizer that is loaded when it is wanted and let go
//! of when it is not.
//!
//! A count takes a millisecond for each 15 kB that were not counted before; the proxy's one thread has streams to serve
//! meanwhile. A client that has gone stops its count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::translate::count::{self, Counter, Known};
use crate::translate::shrink::{self, Weigher as _};
use crate::translate::tokenizer::Tokenizer;
use crate::wire::json::ParseError;
use crate::wire::messages::Request;

/// How many counts run at once, at most: more would only take turns.
const MOST_AT_ONCE: usize = 4;

/// How long the tokenizer's 20 MB are kept after a count. The client counts in bursts.
const KEPT: Duration = Duration::from_secs(120);

/// Why there is no count.
#[derive(Debug)]
pub enum NoCount {
    /// The body is no request.
    Parse(ParseError),
    /// Counting was given up, or has failed.
    Stopped,
}

/// Who counts. One for each proxy.
#[derive(Debug)]
pub struct Counting {
    loaded: Mutex<Loaded>,
    known: Mutex<Known>,
    room: Semaphore,
}

#[derive(Debug)]
struct Loaded {
    tokenizer: Option<Arc<Tokenizer>>,
    used: Instant,
    /// Whether a task waits for the tokenizer to fall idle.
    is_watched: bool,
}

/// Tells a count to stop once nobody waits for it.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Default for Counting {
    fn default() -> Self {
        let threads = available_parallelism().map_or(1, |threads| threads.get().min(MOST_AT_ONCE));
        Self {
            loaded: Mutex::new(Loaded {
                tokenizer: None,
                used: Instant::now(),
                is_watched: false,
            }),
            known: Mutex::default(),
            room: Semaphore::new(threads),
        }
    }
}

impl Counting {
    /// Returns the input tokens of the request in `body`.
    pub async fn count(self: &Arc<Self>, body: Bytes) -> Result<u64, NoCount> {
        let this = Arc::clone(self);
        let counted = self.aside(move |may_go_on| {
            let request = Request::parse(&body).map_err(NoCount::Parse)?;
            let tokenizer = this.tokenizer();
            count::input_tokens(&request, &tokenizer, &this.known, may_go_on)
                .ok_or(NoCount::Stopped)
        });
        counted.await.unwrap_or(Err(NoCount::Stopped))
    }

    /// Does `work` on another thread, as soon as there is room. It is told whether somebody still waits for it. `None`: it
    /// has failed.
    pub async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.room.acquire().await;
        let is_over = Arc::new(AtomicBool::new(false));
        let _waiting = Waiting(Arc::clone(&is_over));
        let done =
            tokio::task::spawn_blocking(move || work(&|| !is_over.load(Ordering::Relaxed))).await;
        drop(permit);
        self.watch();
        done.ok()
    }

    /// Shortens `request`: `target` gets the tokens that it has and says how many it may have. Returns those, and how many
    /// it has then. `None` without a target, or if `may_go_on` says no. Takes time: not for the proxy's thread.
    pub fn shorten(
        &self,
        request: &mut Request<'_>,
        target: impl FnOnce(u64) -> Option<u64>,
        may_go_on: impl FnMut() -> bool,
    ) -> Option<(u64, u64)> {
        let tokenizer = self.tokenizer();
        let mut counter = Counter::new(&tokenizer, &self.known, may_go_on);
        let target = target(counter.request(request))?;
        let tokens = shrink::shorten(request, target, &mut counter);
        (!counter.is_stopped()).then_some((target, tokens))
    }

    /// Returns the tokenizer, loaded by the first who wants it. Blocks for a tenth of a second then.
    fn tokenizer(&self) -> Arc<Tokenizer> {
        let mut loaded = self.loaded();
        loaded.used = Instant::now();
        let tokenizer = &mut loaded.tokenizer;
        Arc::clone(tokenizer.get_or_insert_with(|| Arc::new(Tokenizer::new())))
    }

    /// Sees to it that the tokenizer is let go of.
    fn watch(self: &Arc<Self>) {
        let mut loaded = self.loaded();
        if loaded.tokenizer.is_some() && !loaded.is_watched {
            loaded.is_watched = true;
            // It ends by itself, with the tokenizer or with the proxy.
            tokio::spawn(wait_until_idle(Arc::downgrade(self)));
        }
    }

    /// Lets go of the tokenizer if it was not used for [`KEPT`] at `now`; says when to look again otherwise.
    fn release(&self, now: Instant) -> Option<Instant> {
        let mut loaded = self.loaded();
        let due = loaded.used + KEPT;
        if now < due {
            return Some(due);
        }
        loaded.tokenizer = None;
        loaded.is_watched = false;
        None
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        // What a panic could leave half done is a tokenizer that is missing.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_until_idle(counting: Weak<Counting>) {
    let mut due = Instant::now() + KEPT;
    loop {
        tokio::time::sleep_until(due).await;
        let Some(counting) = counting.upgrade() else {
            return;
        };
        match counting.release(Instant::now()) {
            Some(later) => due = later,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Bytes {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#).into()
    }

    #[tokio::test]
    async fn the_tokenizer_is_loaded_for_a_count_and_let_go_of_after_a_pause() {
        let counting = Arc::new(Counting::default());
        assert!(counting.loaded().tokenizer.is_none());
        let tokens = counting.count(body("hello world")).await;
        assert!(matches!(tokens, Ok(6)), "{tokens:?}");
        let used = counting.loaded().used;
        assert!(counting.loaded().is_watched);
        assert_eq!(
            counting.release(used + KEPT / 2),
            Some(used + KEPT),
            "it is kept meanwhile"
        );
        assert!(counting.loaded().tokenizer.is_some());
        assert_eq!(counting.release(used + KEPT), None);
        assert!(counting.loaded().tokenizer.is_none());
        let tokens = counting.count(body("hello world")).await;
        assert!(matches!(tokens, Ok(6)), "{tokens:?}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_told() {
        let counting = Arc::new(Counting::default());
        let told = counting.count(Bytes::from_static(b"{}")).await;
        assert!(matches!(told, Err(NoCount::Parse(_))), "{told:?}");
    }

    #[tokio::test]
    async fn a_count_that_nobody_waits_for_stops_and_makes_room() {
        let counting = Arc::new(Counting::default());
        let long = body(&"word ".repeat(400_000));
        for _ in 0..2 * MOST_AT_ONCE {
            let count = Box::pin(counting.count(long.clone()));
            // Polled once, so that it has begun; then its client goes.
            tokio::select! {
                biased;
                _ = count => {}
                () = tokio::task::yield_now() => {}
            }
        }
        let tokens = counting.count(body("hello world")).await;
        assert!(matches!(tokens, Ok(6)), "{tokens:?}");
    }
}
