//! One exchange, whatever its API: the attempts of a request that is translated, and its answer, streamed or whole.

use std::time::Duration;

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use crate::ledger::Outcome;
use crate::proxy::attempts::Attempts;
use crate::proxy::body::Body;
use crate::proxy::entry::OpenEntry;
use crate::proxy::pipe::{self, Facts, Pipe};
use crate::proxy::reply::Reply;
use crate::proxy::service::json;
use crate::sse::Decoder;
use crate::translate::stream::{Setup, Step};
use crate::translate::voice::{Gathered, Tongue};
use crate::upstream::answer::Answer;
use crate::upstream::failure::Failure;
use crate::upstream::limits::{self, Limits};

/// An answer that is there, or has begun.
#[derive(Debug)]
pub enum Run {
    /// All of it, as JSON.
    Whole(Vec<u8>),
    /// Its beginning.
    Stream(Box<(pipe::Begun, Option<Attempts>, Facts)>),
}

/// Makes the response, and closes the entry of what has failed.
///
/// # Errors
///
/// Those of `answered`.
pub fn respond(
    answered: Result<Run, Reply>,
    mut entry: OpenEntry,
) -> Result<Response<Body>, Reply> {
    match answered {
        Ok(Run::Whole(body)) => {
            if let Some(tape) = entry.tape() {
                tape.told(&body);
            }
            Ok(json(body))
        }
        Ok(Run::Stream(begun)) => {
            let (begun, attempts, facts) = *begun;
            Ok(stream(Pipe::new(begun, attempts, facts, entry)))
        }
        Err(reply) => {
            let outcome = Outcome::Failed {
                status: reply.status,
                message: reply.message.clone(),
            };
            entry.finish(outcome, None);
            if let Some(tape) = entry.tape() {
                tape.told(reply.message.as_bytes());
            }
            Err(reply)
        }
    }
}

/// Asks upstream until an answer is there, or has begun.
///
/// # Errors
///
/// What the client is told instead of an answer.
pub async fn run(
    mut attempts: Attempts,
    tongue: Tongue,
    prepared: Prepared,
    entry: &mut OpenEntry,
) -> Result<Run, Reply> {
    if !prepared.is_stream {
        let class = attempts.whose.class;
        let answer = whole(&mut attempts, &tongue, &prepared, entry);
        let answer = match class.deadline() {
            None => answer.await,
            Some(after) => match tokio::time::timeout(after, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Late { after }),
            },
        };
        return answer
            .map(Run::Whole)
            .map_err(|failure| told(&failure, &attempts, &prepared));
    }
    let begun = pipe::begin(
        &mut attempts,
        &tongue,
        &prepared.setup,
        &prepared.facts,
        entry,
    );
    match begun.await {
        Ok(begun) => Ok(Run::Stream(Box::new((
            begun,
            Some(attempts),
            prepared.facts,
        )))),
        Err(failure) => Err(told(&failure, &attempts, &prepared)),
    }
}

/// The reply to a request that upstream did not answer.
fn told(failure: &Failure, attempts: &Attempts, prepared: &Prepared) -> Reply {
    let facts = Facts {
        outlook: attempts.outlook.clone(),
        ..prepared.facts.clone()
    };
    facts.reply(failure, attempts.sent)
}

/// What is known of a request once it was translated.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Whether the answer is a stream.
    pub is_stream: bool,
    /// What the answer's form depends on.
    pub setup: Setup,
    /// What the table of replies has to know.
    pub facts: Facts,
}

fn stream(pipe: Pipe) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::new(pipe)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Gathers a whole answer: nothing was sent to the client, so every failure may be tried again.
async fn whole(
    attempts: &mut Attempts,
    tongue: &Tongue,
    prepared: &Prepared,
    entry: &mut OpenEntry,
) -> Result<Vec<u8>, Failure> {
    loop {
        let answer = attempts.open_for(entry).await?;
        let mut fold = tongue.gathered(Setup {
            origin: attempts.origin.clone(),
            ..prepared.setup.clone()
        });
        let failure = match gather(answer, &mut fold, entry).await {
            Ok(()) => {
                prepared.facts.answered();
                return Ok(fold.into_body());
            }
            Err(failure) => failure,
        };
        match attempts.recover(failure).await {
            Ok(()) => {}
            Err(Failure::Empty) if prepared.facts.may_end_empty => {
                fold.end_empty();
                entry.finish(Outcome::Done, fold.usage());
                return Ok(fold.into_body());
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Gathers an answer.
///
/// # Errors
///
/// It did not come to its end.
pub async fn gather(
    mut answer: Answer,
    fold: &mut Gathered,
    entry: &mut OpenEntry,
) -> Result<(), Failure> {
    let mut decoder = Decoder::default();
    let idle = pipe::UPSTREAM_IDLE;
    loop {
        let chunk = match tokio::time::timeout(idle, answer.chunk()).await {
            Err(_) => return Err(Failure::Stalled { idle }),
            Ok(None) => return Err(Failure::Cut),
            Ok(Some(chunk)) => chunk?,
        };
        decoder.feed(&chunk).map_err(|_| Failure::TooLong)?;
        while let Some(frame) = decoder.next_frame() {
            if frame.event == limits::EVENT
                && let Some(limits) = Limits::from_event(frame.data)
            {
                entry.note_limits(&limits);
            }
            match fold.feed(frame) {
                Step::Continue => {}
                step @ (Step::Finished | Step::Cut) => {
                    let usage = fold.usage();
                    entry.note(|entry, age: Duration| {
                        entry.first_content = Some(age);
                        entry.is_estimate = fold.is_estimate();
                    });
                    entry.finish(Outcome::Done, usage);
                    if step == Step::Finished {
                        tokio::spawn(answer.drain());
                    }
                    return Ok(());
                }
                Step::Failed(failure) => return Err(Failure::from_stream(&failure)),
            }
        }
    }
}
