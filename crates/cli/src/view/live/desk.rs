//! Asking somebody to do something by hand, inside the live view.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use toprope_engine::host::Person;

use crate::view::person::{Asker, unanswered};

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub what: String,
    /// When it is too late.
    pub until: Instant,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Request {
    /// Answers it.
    pub fn answer(self, answer: Result<(), String>) {
        // Whoever asked may have given up meanwhile.
        let _ = self.answer.send(answer);
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_over(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Takes questions to the live view; to the plain terminal, if there is no live view after all.
#[derive(Debug)]
pub struct Desk {
    requests: mpsc::UnboundedSender<Request>,
    otherwise: Option<Asker>,
}

impl Desk {
    /// A desk, and where its questions arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        (Self { requests, otherwise: Asker::new() }, receiver)
    }
}

impl Person for Desk {
    fn ask(&self, what: &str, deadline: Duration) -> BoxFuture<'_, Result<(), String>> {
        let what = what.to_owned();
        async move {
            let (answer, answered) = oneshot::channel();
            let until = Instant::now() + deadline;
            if self.requests.send(Request { what: what.clone(), until, answer }).is_ok()
                && let Ok(answer) =
                    tokio::time::timeout(deadline, answered).await.unwrap_or_else(|_| Ok(Err(unanswered(deadline))))
            {
                return answer;
            }
            // The view is gone, and its screen with it.
            match &self.otherwise {
                Some(asker) => asker.ask(&what, until.saturating_duration_since(Instant::now())).await,
                None => Err("nobody is here to do it".into()),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_comes_back_to_who_asked() {
        let (desk, mut requests) = Desk::new();
        let (answer, ()) = tokio::join!(desk.ask("pull the plug", Duration::from_secs(60)), async {
            let request = requests.recv().await.unwrap();
            assert_eq!(request.what, "pull the plug");
            request.answer(Err("it is welded".into()));
        });
        assert_eq!(answer, Err("it is welded".into()));
    }

    #[tokio::test]
    async fn a_question_is_over_when_nobody_waits_for_it() {
        let (desk, mut requests) = Desk::new();
        let answer = desk.ask("pull the plug", Duration::from_millis(20)).await;
        assert_eq!(answer.unwrap_err(), "nobody said within 20ms that it was done");
        assert!(requests.recv().await.unwrap().is_over());
    }

    #[tokio::test]
    async fn without_a_view_it_asks_otherwise() {
        let (mut desk, requests) = Desk::new();
        desk.otherwise = None;
        drop(requests);
        assert!(desk.ask("pull the plug", Duration::from_secs(60)).await.is_err());
    }
}
