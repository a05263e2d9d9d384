//! A fault held by a process of its own, which a test can look at from outside, and kill.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use toprope_model::step::Effect;

use super::{eventually, host, known_effect, params, planned};

/// Named so that the test below is the only one of its name.
const TEST: &str = "testing::injector::holds_a_fault_until_told";
const FAULT: &str = "TOPROPE_TEST_FAULT";
const PARAMETERS: &str = "TOPROPE_TEST_PARAMETERS";

/// The process. The pipe from it is kept, because the test harness in there prints to its end.
pub(crate) struct Injector(Child, Lines<BufReader<ChildStdout>>);

impl Injector {
    /// Starts it and waits until its effect is known. `command` makes the command from the text that runs the program.
    pub(crate) fn start(fault: &str, parameters: &Value, command: impl FnOnce(&str) -> Command) -> (Self, Effect) {
        let program = std::env::current_exe().expect("a program has a file");
        let mut command = command(&format!("{} --exact {TEST} --ignored --nocapture", program.display()));
        command.env(FAULT, fault).env(PARAMETERS, parameters.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it is installed");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut injector = Self(child, lines);
        let effect = injector.1.find_map(|line| Some(line.ok()?.strip_prefix("EFFECT ")?.to_owned()));
        let effect = serde_json::from_str(&effect.expect("the injector tells its effect")).expect("what was written");
        (injector, effect)
    }

    /// As [`Injector::start`], as a plain child.
    pub(crate) fn child(fault: &str, parameters: &Value) -> (Self, Effect) {
        Self::start(fault, parameters, |program| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec {program}")]);
            shell
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("our own child");
        self.0.wait().expect("our own child");
    }

    /// Has it release the fault.
    pub(crate) fn release(mut self) -> ExitStatus {
        drop(self.0.stdin.take());
        self.0.wait().expect("our own child")
    }

    /// Waits until something else ends it.
    pub(crate) fn ended(mut self) -> ExitStatus {
        eventually("the injector has ended", || self.0.try_wait().expect("our own child").is_some());
        self.0.wait().expect("our own child")
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test: what [`Injector::start`] runs. Holds the fault until its standard input ends.
#[tokio::test]
#[ignore = "other tests run it as a process of its own"]
async fn holds_a_fault_until_told() {
    let (Ok(fault), Ok(parameters)) = (std::env::var(FAULT), std::env::var(PARAMETERS)) else {
        return eprintln!("SKIPPED {TEST}: it was not started by a test");
    };
    let fault = crate::FAULTS.get(&fault).expect("it is in the table");
    let wanted = params(serde_json::from_str(&parameters).expect("JSON"));
    let (_, step) = planned(fault, &wanted, &host()).await;
    let mut injection = fault.apply(&step, &wanted, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    let effect = known_effect(injection.as_mut()).await;
    println!("EFFECT {}", serde_json::to_string(&effect).expect("plain data"));
    std::io::stdout().flush().expect("a pipe");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
}
