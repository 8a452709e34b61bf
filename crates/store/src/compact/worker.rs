//! The thread of a rewrite.
//!
//! Steps of one rewrite are done one after the other by the same thread, whatever thread asks for them:
//! what a step lets go of is used by the next, where threads of a pool would each keep a share.

use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use crate::error::Error;

type Step = Box<dyn FnOnce() + Send>;

/// A thread that does one step after the other, until it is dropped.
pub(super) struct Worker {
    steps: mpsc::Sender<Step>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system has none to give.
    pub(super) fn start() -> Result<Self, Error> {
        let (steps, wanted) = mpsc::channel::<Step>();
        let run = move || wanted.into_iter().for_each(|step| step());
        let thread = thread::Builder::new().name("tidelog-merge".to_owned()).spawn(run);
        match thread {
            Ok(_) => Ok(Self { steps }),
            Err(error) => {
                let reason = error.to_string();
                Err(Error::Thread { purpose: "merging files", reason })
            }
        }
    }

    /// Does a step. If nobody waits for it any more it is done all the same.
    ///
    /// # Errors
    /// [`Error::Closed`] if it, or one before, panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let step = move || drop(done.send(step()));
        self.steps.send(Box::new(step)).map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_done_in_order_by_one_thread_and_a_panic_is_told() {
        let worker = Worker::start().unwrap();
        let first = worker.run(|| thread::current().id()).await.unwrap();
        assert_eq!(worker.run(|| thread::current().id()).await.unwrap(), first);
        assert_ne!(first, thread::current().id());
        let panicked = worker.run(|| panic!("a step fails")).await;
        assert!(matches!(panicked, Err(Error::Closed)));
        assert!(matches!(worker.run(|| 1).await, Err(Error::Closed)));
    }
}
