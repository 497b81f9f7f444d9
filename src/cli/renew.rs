//! The process that spends a refresh token: see [`apart`](crate::account::apart).

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::account::apart::{Answer, Order, Told};
use crate::cli::environment::Environment;
use crate::cli::setup::Setup;
use crate::error::{Kind, Report};
use crate::log;

/// An order holds one token.
const LARGEST_ORDER: u64 = 256 * 1024;

/// Reads an order from standard input, carries it out and answers on standard output.
///
/// # Errors
///
/// It was not begun: nothing was spent.
pub fn run(environment: &Environment) -> Result<(), Report> {
    // It ends by itself within the issuer's time limit; ended by a signal it could lose the sign-in.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .context("could not set a signal aside")
            .map_err(|error| Report::new(Kind::Internal, error))?;
    }
    let mut order = Vec::new();
    io::stdin()
        .take(LARGEST_ORDER)
        .read_to_end(&mut order)
        .context("could not read the order")
        .map_err(|error| Report::new(Kind::Usage, error))?;
    let order: Order = serde_json::from_slice(&order)
        .map_err(|_| Report::new(Kind::Usage, anyhow::anyhow!("this word is for ccx itself")))?;
    let setup = Setup::new(environment)?;
    let _log = log::start(&setup.places.state, environment.text("CCX_LOG"))
        .context("could not open the log")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not prepare to ask the issuer")
        .map_err(|error| Report::new(Kind::Internal, error))?;
    let broker = setup.broker()?;
    let renewed = runtime.block_on(broker.renew_account(&order.account, order.refused.as_ref()));
    let answer = match renewed {
        Ok(_) => Answer::Renewed,
        Err((error, unsaved)) => Answer::Failed {
            error: Told {
                mend: error.mend().into_owned(),
                is_transient: error.is_transient(),
                what: format!("{:#}", anyhow::Error::new(error)),
            },
            unsaved,
        },
    };
    let mut out = io::stdout().lock();
    // Whoever asked may be gone; the tokens are on disk.
    let _ = serde_json::to_writer(&mut out, &answer)
        .map_err(io::Error::from)
        .and_then(|()| out.flush());
    Ok(())
}
