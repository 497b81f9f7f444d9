//! Signing in on another device: shows a code, and asks until it was typed there.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::qr;
use super::talk::Talk;
use crate::account::record::Record;
use crate::oauth::device::{Answer, Device, DeviceError, LIFETIME, SLOWER, Started};
use crate::oauth::exchange::{Exchange, Tokens};
use crate::oauth::issuer::Issuer;
use crate::secret::Secret;

/// Rows of the screen that the words beside the picture take.
const ROWS_OF_WORDS: usize = 7;

/// How often the countdown moves.
const TICK: Duration = Duration::from_secs(1);

/// How often an exchange that may pass is tried; there is nobody to ask whether to.
const ATTEMPTS: u32 = 4;

/// Signs in.
pub(super) async fn run(
    issuer: Issuer,
    talk: &mut Talk,
    keep: &impl Fn(Tokens) -> Result<Record, Failure>,
) -> Result<Record, Failure> {
    let device = Device::of(issuer.clone());
    let started = device.start().await.map_err(Failure::Device)?;
    introduce(talk, &device.page(), &started);
    let (code, verifier) = wait(&device, talk, started).await?;
    let exchange = Exchange::of(issuer);
    let home = device.redirect_uri();
    let (mut pause, mut attempts) = (TICK, 1);
    loop {
        let redeemed = exchange.redeem(&code, &verifier, &home).await;
        match redeemed.map_err(Failure::from) {
            Ok(tokens) => return keep(tokens),
            Err(failure) if attempts < ATTEMPTS && failure.is_transient() => {
                talk.say(&format!("{failure}; trying again"));
                sleep(pause).await;
                pause *= 2;
                attempts += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// A code and its verifier.
type Granted = (Secret<String>, Secret<String>);

async fn wait(device: &Device, talk: &mut Talk, started: Started) -> Result<Granted, Failure> {
    let end = Instant::now() + LIFETIME;
    let mut interval = started.interval;
    let mut is_troubled = false;
    loop {
        let next = Instant::now() + interval;
        while Instant::now() < next {
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Failure::Device(DeviceError::Expired));
            }
            talk.show(&countdown(left));
            sleep(TICK.min(next - now)).await;
        }
        match device.ask(&started).await {
            Ok(Answer::Granted { code, verifier }) => return Ok((code, verifier)),
            Ok(Answer::Pending) => is_troubled = false,
            Ok(Answer::SlowDown) => interval += SLOWER,
            Err(error) if error.is_transient() => {
                // Once for each time of trouble: it may last.
                if !std::mem::replace(&mut is_troubled, true) {
                    talk.say(&format!("{error}; still trying"));
                }
            }
            Err(error) => return Err(Failure::Device(error)),
        }
    }
}

fn introduce(talk: &mut Talk, page: &str, started: &Started) {
    let (rows, columns) = talk.picture_size.unwrap_or_default();
    let picture = qr::picture(page, (rows.saturating_sub(ROWS_OF_WORDS), columns));
    if let Some(picture) = picture {
        talk.say(picture.trim_end());
    }
    talk.say(&format!(
        "To sign in to ChatGPT, open this address on any device and type the code:\n\n  {page}\n  {}\n\n\
         The code is good for 15 minutes. Give it to nobody.",
        started.user_code
    ));
}

fn countdown(left: Duration) -> String {
    let seconds = left.as_secs();
    format!("Waiting, {}:{:02} left", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_in_minutes_and_seconds() {
        for (seconds, words) in [(899, "14:59"), (60, "1:00"), (9, "0:09"), (0, "0:00")] {
            let shown = countdown(Duration::from_secs(seconds));
            assert_eq!(shown, format!("Waiting, {words} left"));
        }
    }
}
