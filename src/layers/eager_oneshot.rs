use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

pin_project! {
    /// One call of a service, made at once if that is ready: what is above was always ready.
    ///
    /// As [`Oneshot`], but most services are ready, and the request then need not be kept, nor
    /// moved whenever this future is.
    #[project = CalledProj]
    pub enum EagerOneshot<S, R>
    where
        S: Service<R>,
    {
        Made { #[pin] future: S::Future },
        Failed { error: Option<S::Error> },
        // Boxed, so that no other call has to have room for a request.
        Waiting { oneshot: Pin<Box<Oneshot<S, R>>> },
    }
}

impl<S: Service<R> + Clone, R> EagerOneshot<S, R> {
    // Else the request is moved once more.
    #[inline(always)]
    pub(crate) fn new(mut service: S, request: R) -> Self {
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Made { future: service.call(request) },
            Poll::Ready(Err(error)) => Self::Failed { error: Some(error) },
            Poll::Pending => {
                // Another one waits, once it is polled: this one may have got a place in a queue,
                // where its turn would come without anybody being woken.
                let waiting = service.clone();
                drop(service);
                Self::Waiting { oneshot: Box::pin(Oneshot::new(waiting, request)) }
            }
        }
    }
}

impl<S: Service<R>, R> Future for EagerOneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CalledProj::Made { future } => future.poll(cx),
            #[allow(clippy::expect_used)]
            CalledProj::Failed { error } => Poll::Ready(Err(error.take().expect("polled after completion"))),
            CalledProj::Waiting { oneshot } => oneshot.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };
    use tower::{ServiceExt, limit::ConcurrencyLimit};

    /// Counts from the moment of the call, and not of the first poll.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicU32>);

    impl Service<u32> for Counting {
        type Response = u32;
        type Error = Infallible;
        type Future = Ready<Result<u32, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: u32) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            ready(Ok(request))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_called_at_once_and_all_else_in_its_turn() {
        let counting = Counting::default();
        let called = || counting.0.load(Ordering::Relaxed);
        let mut limited = ConcurrencyLimit::new(counting.clone(), 1);
        let first = EagerOneshot::new(limited.clone(), 1);
        assert_eq!(called(), 1);
        let permit = tokio::spawn(EagerOneshot::new(limited.clone(), 2));
        tokio::task::yield_now().await;
        assert_eq!(called(), 1, "its permit is taken");
        assert_eq!(first.await, Ok(1));
        assert_eq!(permit.await.unwrap(), Ok(2));
        // Whoever is not polled has no place in the queue either, where the turn would end with him.
        let held = limited.ready().await.unwrap().call(3);
        let unpolled = EagerOneshot::new(limited.clone(), 4);
        drop(held);
        let next = tokio::time::timeout(Duration::from_secs(1), EagerOneshot::new(limited, 5));
        assert_eq!(next.await, Ok(Ok(5)));
        assert_eq!(unpolled.await, Ok(4));
    }

    #[tokio::test]
    async fn who_cannot_be_made_ready_says_why() {
        #[derive(Clone)]
        struct Broken;

        impl Service<()> for Broken {
            type Response = ();
            type Error = &'static str;
            type Future = Ready<Result<(), &'static str>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
                Poll::Ready(Err("broken"))
            }

            fn call(&mut self, (): ()) -> Self::Future {
                unreachable!("it is not ready")
            }
        }

        assert_eq!(EagerOneshot::new(Broken, ()).await, Err("broken"));
    }
}
