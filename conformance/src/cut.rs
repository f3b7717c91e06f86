//! Futures that are dropped in the middle.

use std::pin::pin;
use std::task::Poll;

use futures_lite::future::poll_fn;

/// Polls `work` at most so often, each time it is woken, then drops it; `None` where it was dropped.
pub async fn cut<T>(polls: u64, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (pin!(work), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}
