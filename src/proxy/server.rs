//! Accepts connections on a listener and answers their requests until told to stop.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fault;
use crate::proxy::service::{Service, answer};

/// Pause after a failed accept: out of descriptors, most likely, and those come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until `stop` says how long requests in flight may go on, and lets them end for so long. A
/// later word counts from when it comes: whoever asks a second time does not want to wait.
///
/// Who calls it owns the reason to stop; a closed `stop` means at once. When it returns no connection is left.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stop: UnboundedReceiver<Duration>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let drain = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            drain = stop.recv() => break drain.unwrap_or_default(),
            // Finished connections are reaped as they end, so that the set stays small.
            Some(_) = connections.join_next() => continue,
        };
        fault::point("proxy");
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(why = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it a short event waits for the acknowledgement of the one before: 40 ms.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(answer(service, request).await) }
            }),
        );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(why = %error, "a connection ended early");
            }
        });
    };
    drop(listener);
    // Whoever does not end in time is cut: dropping the set aborts its tasks.
    let mut drained = pin!(graceful.shutdown());
    let mut end = Instant::now() + drain;
    loop {
        tokio::select! {
            () = &mut drained => break,
            () = tokio::time::sleep_until(end) => break,
            Some(drain) = stop.recv() => end = end.min(Instant::now() + drain),
        }
    }
}
