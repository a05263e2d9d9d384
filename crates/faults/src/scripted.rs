//! Faults that users script themselves: one action applies them, one tells whether they are in force, one takes them
//! back. The check has the last word on all three.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toprope_engine::fault::{Draining, FaultError, Injection};
use toprope_model::step::{Effect, Plan, Step, Undo};

use crate::targeted::{data_of, to_data};

/// What was taken back may need a moment until that shows. An undo is tried once more when it seems to have failed, and
/// both must be over before the guard loses patience.
const SHOWS_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether what was undone is gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that is done and answers yes or no. Displays as what is done.
pub(crate) trait Action:
    std::fmt::Display + Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Where and as whom it is done; as durable as the action.
    type Setting: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Does it.
    ///
    /// # Errors
    /// It could not be done, or not in time: there is no answer.
    fn act(&self, setting: &Self::Setting) -> impl Future<Output = Result<Answer, FaultError>> + Send;

    /// Where the same words mean the same, as ` in /srv`; empty where they do everywhere.
    fn place(_: &Self::Setting) -> String {
        String::new()
    }

    /// How long an action may take.
    fn timeout(setting: &Self::Setting) -> Duration;
}

/// What came of an action.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whether it went well; of a check, whether the fault is in force.
    pub(crate) yes: bool,
    /// How it went, in one line.
    pub(crate) says: String,
}

/// The three actions of a fault.
pub(crate) struct Script<A: Action> {
    pub(crate) apply: A,
    pub(crate) check: A,
    pub(crate) undo: A,
    pub(crate) setting: A::Setting,
}

/// What a step knows.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Forth<A: Action> {
    apply: A,
    back: Back<A>,
}

/// What its undo knows.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
struct Back<A: Action> {
    check: A,
    undo: A,
    setting: A::Setting,
}

/// Plans a script, unless what it does is in force already: then its undo would take away what somebody else did.
pub(crate) async fn plan<A: Action>(script: Script<A>, path: &str) -> Result<Plan, FaultError> {
    let Script { apply, check, undo, setting } = script;
    let found = check.act(&setting).await?;
    if found.yes {
        let message = format!("it is in force already: `{check}` says so ({})", found.says);
        return Err(FaultError::new(message)
            .help("take it back first, or correct `check`: it must fail while nothing is injected"));
    }
    let back = Back { check, undo, setting };
    Ok(Plan {
        path: path.into(),
        matched: 0,
        targets: vec![],
        warnings: vec![],
        steps: vec![Step {
            describe: format!("{apply}; undone by {}", back.undo),
            claims: vec![format!("what `{apply}` does{}", A::place(&back.setting))],
            undo: Undo::Restore(to_data(&back)),
            data: to_data(&Forth { apply, back }),
        }],
    })
}

/// Applies a planned script.
pub(crate) async fn apply<A: Action>(step: &Step) -> Result<Box<dyn Injection>, FaultError> {
    let Forth { apply, back } = data_of::<Forth<A>>(step)?;
    let answer = apply.act(&back.setting).await?;
    if !answer.yes {
        return Err(FaultError::new(format!("`{apply}` failed: {}", answer.says))
            .help("try it by hand, as the user and in the directory in which Toprope was started"));
    }
    Ok(Box::new(InForce(back)))
}

/// Undoes a step from whatever state it is in.
pub(crate) async fn undo<A: Action>(step: &Step) -> Result<Vec<String>, FaultError> {
    take_back(&data_of::<Forth<A>>(step)?.back).await
}

/// Takes back and sees that it is gone. An undo that fails because nothing is there to be undone has done its work:
/// that is why the check decides.
async fn take_back<A: Action>(back: &Back<A>) -> Result<Vec<String>, FaultError> {
    let Back { check, undo, setting } = back;
    let by_hand = format!("do it by hand: {undo}");
    let went = undo.act(setting).await;
    let failed = match &went {
        Ok(answer) if answer.yes => None,
        Ok(answer) => Some(answer.says.clone()),
        Err(error) => Some(error.message.clone()),
    };
    let deadline = Instant::now() + SHOWS_WITHIN.min(A::timeout(setting));
    loop {
        let seen = match check.act(setting).await {
            Ok(seen) => seen,
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => {
                let message = format!("it cannot be told whether it is undone: {}", error.message);
                return Err(FaultError::new(message).help(by_hand));
            }
        };
        match (seen.yes, &failed) {
            (false, None) => return Ok(vec![format!("`{undo}` was done, and `{check}` finds nothing in force")]),
            (false, Some(why)) => {
                return Ok(vec![format!("`{undo}` failed ({why}), and `{check}` finds nothing in force")]);
            }
            (true, Some(why)) => {
                let message = format!("`{undo}` failed ({why}), and `{check}` says that it is still in force");
                return Err(FaultError::new(message).help(by_hand));
            }
            (true, None) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            (true, None) => {
                let message =
                    format!("`{undo}` was done, and `{check}` says that it is still in force ({})", seen.says);
                return Err(FaultError::new(message).help(by_hand));
            }
        }
    }
}

/// A script in force.
struct InForce<A: Action>(Back<A>);

impl<A: Action> Injection for InForce<A> {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async {
            let answer = self.0.check.act(&self.0.setting).await?;
            let note = format!("`{}`: {}", self.0.check, answer.says);
            Ok(Effect { took: Some(answer.yes), note: Some(note), ..Effect::default() })
        }
        .boxed()
    }

    fn release(self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        async move { take_back(&self.0).await.map(|_| None) }.boxed()
    }
}
