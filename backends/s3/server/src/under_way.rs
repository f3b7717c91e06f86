//! How many requests are under way at once.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};

/// The count, and the most that it was.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<(usize, usize)>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, (usize, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, until what is answered is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Counted {
        let mut counts = self.lock();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        Counted(self.clone())
    }

    /// The most since the last call; from now on what is under way now is the most.
    pub(crate) fn take_most(&self) -> usize {
        let mut counts = self.lock();
        let most = counts.1;
        counts.1 = counts.0;
        most
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Counted(Arc<UnderWay>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().0 -= 1;
    }
}

impl Counted {
    /// Counted until the last of so many bytes is handed on. Not a moment longer: who has it may have sent the next request before
    /// this side goes on.
    pub(crate) fn until_sent(self, body: UnsyncBoxBody<Bytes, io::Error>, bytes: u64) -> Sending {
        Sending { body, left: bytes, counted: (bytes > 0).then_some(self) }
    }
}

/// The body of an answer, counted until it has gone out.
#[derive(Debug)]
pub(crate) struct Sending {
    body: UnsyncBoxBody<Bytes, io::Error>,
    left: u64,
    counted: Option<Counted>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left = self.left.saturating_sub(bytes);
        }
        if self.left == 0 || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.counted = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_at_once_is_counted_anew_from_what_is_under_way() {
        let under_way = Arc::<UnderWay>::default();
        let (first, second) = (under_way.begin(), under_way.begin());
        drop(first);
        assert_eq!(under_way.take_most(), 2);
        assert_eq!(under_way.take_most(), 1);
        drop(second);
        under_way.take_most();
        assert_eq!(under_way.take_most(), 0);
    }
}
