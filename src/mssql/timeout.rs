//! A timeout that costs nothing while the future is ready at once.

use std::{future::Future, task::Poll, time::Duration};

/// Polls the future once before it starts a timer: a row whose packet has already arrived needs
/// none.
pub(in crate::mssql) async fn with_lazy_timeout<F: Future>(
    limit: Duration,
    future: F,
) -> std::result::Result<F::Output, tokio::time::error::Elapsed> {
    let mut future = std::pin::pin!(future);
    match std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => tokio::time::timeout(limit, future).await,
    }
}
