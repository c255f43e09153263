//! Short requests are answered by the task of their connection.
//!
//! HTTP/2 makes a task of every request, and a task wakes another thread to take it: for a read of one object that
//! costs more than the read. So every request is polled once where it arrived, and becomes a task of its own only if
//! it is not done then. What may take long says so first and leaves at once ([`leave`]): it must not hold up the other
//! requests of the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{Method, Request};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

/// Polls a future once before it makes a task of it.
#[derive(Clone, Copy)]
pub(super) struct Inline;

impl<F> Executor<F> for Inline
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future: Pin<Box<F>> = Box::pin(future);
        // Nobody is woken by this poll; who is not done is polled again as a task, which has a waker.
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            TokioExecutor::new().execute(future);
        }
    }
}

/// Goes on in a task of its own.
pub(super) async fn leave() {
    let mut is_first = true;
    poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether this is a read of one object: by its shape, `/api/v1/namespaces/x/pods/y` and its like.
pub(super) fn is_short<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let parts = path.bytes().filter(|byte| *byte == b'/').count();
    let is_object = if path.starts_with("/api/") {
        parts == 4 || parts == 6
    } else {
        path.starts_with("/apis/") && (parts == 5 || parts == 7)
    };
    *request.method() == Method::GET && request.uri().query().is_none() && is_object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_one_object_are_short() {
        let is = |method: Method, uri: &str| is_short(&Request::builder().method(method).uri(uri).body(()).unwrap());
        for uri in [
            "/api/v1/nodes/n",
            "/api/v1/namespaces/x/pods/y",
            "/apis/apps/v1/namespaces/x/deployments/y",
            "/apis/storage.k8s.io/v1/storageclasses/y",
        ] {
            assert!(is(Method::GET, uri), "{uri}");
            assert!(!is(Method::PUT, uri), "{uri}");
        }
        for uri in [
            "/api/v1/pods",
            "/api/v1/namespaces/x/pods",
            "/api/v1/namespaces/x/pods/y/log",
            "/api/v1/namespaces/x/pods/y?watch=1",
            "/apis/apps/v1/namespaces/x/deployments",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/namespaces/x/deployments/y/scale",
            "/metrics",
        ] {
            assert!(!is(Method::GET, uri), "{uri}");
        }
    }

    #[tokio::test]
    async fn what_leaves_is_finished_by_a_task() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        Inline.execute(async move {
            leave().await;
            sender.send(()).unwrap();
        });
        receiver.await.unwrap();
    }
}
