//! Faults that ask somebody else: a program, an API, a person.

use std::path::PathBuf;

use super::super::sandbox::{Inside, WORK};
use super::{Mechanism, Scenario, Stage, never, nothing, peer, wait_until};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "command",
        variant: "",
        mechanism: Mechanism::JournalProgram,
        stage: command,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "http",
        variant: "",
        mechanism: Mechanism::JournalRequest,
        stage: http,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "manual",
        variant: "",
        mechanism: Mechanism::JournalPerson,
        stage: manual,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
];

fn flag() -> PathBuf {
    PathBuf::from(WORK).join("flag")
}

fn command(_: &Inside) -> Result<Stage, String> {
    let flag = flag().display().to_string();
    let method =
        format!("command: {{apply: [touch, {flag}], check: [test, -e, {flag}], undo: [rm, -f, {flag}], for: {{for}}}}");
    Ok(Stage::new(method, vec![], || self::flag().exists()))
}

fn http(_: &Inside) -> Result<Stage, String> {
    let served = peer(&["flag", "127.0.0.1:7003", &flag().display().to_string()])?;
    wait_until("the service listens", || std::net::TcpStream::connect("127.0.0.1:7003").is_ok())?;
    let url = "http://127.0.0.1:7003/";
    let method = format!(
        "http: {{apply: {{put: '{url}', body: 'on', status: 200}}, check: {{get: '{url}', matches: ^on$}}, \
         undo: {{delete: '{url}', status: 200}}, for: {{for}}}}"
    );
    Ok(Stage::new(method, vec![served], || flag().exists()))
}

/// A person is at the terminal, and does what they are asked for.
fn manual(_: &Inside) -> Result<Stage, String> {
    let method = "manual: {do: Make the flag, undo: Remove the flag, deadline: 5s, for: {for}}";
    let stage = Stage::new(method, vec![], || flag().exists());
    Ok(Stage { person: true, ..stage })
}
