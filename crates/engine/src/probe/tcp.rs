//! `tcp`: connects to a port, and talks if asked to.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use toprope_model::target::{Endpoint, Pattern};
use toprope_model::{Comparison, KindSpec, Node, Problems, fields};

use super::blame::failed;
use super::expect::{Expect, Found, JsonPath};
use super::params::{self, Params};
use super::template::{Fill, Template};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 << 10;

fields! {
    /// Parameters of `tcp`.
    struct Tcp {
        /// The host and port to connect to.
        connect: Endpoint,
        /// What to send once connected; `{n}` is the number of the sample, `{run}` the id of the run.
        send: Option<Template>,
        /// What the answer must be, or what `json` finds in it: a comparison or a range. Its number is then the
        /// sample's value, instead of the latency.
        value: Option<Comparison>,
        /// What the answer, or what `json` finds in it, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in the answer, or in what `json` finds in it.
        matches: Option<Pattern>,
        /// Where in a JSON answer to look (RFC 9535). If a number is there, it is the sample's value.
        json: Option<JsonPath>,
    }
}

impl Params for Tcp {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        if self.connect.host.is_none() || self.connect.port.is_none() {
            let span = node.get("connect").map_or(node.span, |n| n.span);
            problems
                .add(span, "a host and a port are needed", "one of them is missing")
                .help("for instance 127.0.0.1:5432");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "tcp",
    summary: "Connects to a TCP port, sends something if asked to, and judges what comes back.",
    docs: "\
Each sample is a new connection, which is closed at its end. The value of a sample is its latency in milliseconds: the
time to connect or, if an answer is expected, until the answer was there.

If something is expected of the answer, it is read until it is as expected, until the other side closes, or until 64 KiB
have come; without any such expectation nothing is read.

**Bad**: a refused, unreachable or broken connection, a name that does not resolve, another answer. **No evidence**: this
host is out of ports, files or memory.

```yaml
- tcp: {connect: 127.0.0.1:6379, send: \"PING\\r\\n\", matches: PONG}
```",
    example: "\
- tcp:
    connect: 127.0.0.1:5432
    max: < 100ms
",
    fields: Tcp::fields,
    check: params::check::<Tcp>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let Tcp { connect, send, value, in_, matches, json } = params::read(params)?;
        let (Some(host), Some(port)) = (connect.host, connect.port) else {
            return Err(ProbeError::new("a host and a port are needed"));
        };
        let expect = Expect { value, in_, matches, json };
        Ok(Box::new(TcpProbe { host, port, send, expect, run: context.run.clone() }))
    }
}

struct TcpProbe {
    host: String,
    port: u16,
    send: Option<Template>,
    expect: Expect,
    run: String,
}

impl TcpProbe {
    async fn ask(&self, number: u64) -> Result<Found, Answer> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let mut stream = connected.map_err(|e| failed("cannot connect", &e))?;
        if let Some(send) = &self.send {
            let text = send.fill(Fill { run: &self.run, n: &number.to_string() });
            stream.write_all(text.as_bytes()).await.map_err(|e| failed("cannot send", &e))?;
        }
        if self.expect.is_empty() {
            return Ok(Found::default());
        }
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let n = stream.read(&mut chunk).await.map_err(|e| failed("the answer broke off", &e))?;
            answer.extend_from_slice(&chunk[..n]);
            let found = self.expect.judge("the answer", &String::from_utf8_lossy(&answer));
            if found.bad.is_none() || n == 0 || answer.len() >= MAX_ANSWER {
                return Ok(found);
            }
        }
    }
}

impl Probe for TcpProbe {
    fn asks(&self) -> String {
        let to = Endpoint { host: Some(self.host.clone()), port: Some(self.port) };
        format!("TCP {to}")
    }

    fn tolerates(&self) -> String {
        self.expect.describe("answer").join(", ")
    }

    fn unit(&self) -> &'static str {
        if self.expect.reads_value() { "" } else { "ms" }
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            match self.ask(moment.number).await {
                Ok(found) => Answer { bad: found.bad, value: found.value, ..Answer::good() },
                Err(failed) => failed,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::{ask, ask_at, gives_up_in_time, moment, nobody, probe, problems, serve};

    #[tokio::test]
    async fn a_port_that_accepts_is_good_and_one_that_does_not_is_bad() {
        let open = serve(|_| async {}).await;
        assert_eq!(ask(&probe(&Kind, &format!("connect: '{open}'"))).await, Answer::good());
        let closed = ask(&probe(&Kind, &format!("connect: '{}'", nobody()))).await;
        assert_eq!(
            closed,
            Answer { unanswered: true, ..Answer::bad("cannot connect: connection refused (os error 111)") }
        );
        let nowhere = ask(&probe(&Kind, "connect: no-such-host.invalid:1")).await;
        assert!(!nowhere.broken && nowhere.bad.unwrap().contains("lookup"));
    }

    #[tokio::test]
    async fn an_answer_is_read_as_far_as_needed() {
        let echo = serve(|mut stream: TcpStream| async move {
            let mut text = [0; 100];
            while let Ok(n @ 1..) = stream.read(&mut text).await {
                // In two parts, and the connection stays open.
                drop(stream.write_all(&text[..1]).await);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                drop(stream.write_all(&text[1..n]).await);
            }
        })
        .await;
        let talk = probe(&Kind, &format!("{{connect: '{echo}', send: '[{{n}}]', matches: '\\[7\\]'}}"));
        assert_eq!(ask_at(&talk, moment(7)).await, Answer::good());
        let number = probe(&Kind, &format!("{{connect: '{echo}', send: '[{{n}}]', json: '$[0]', value: '> 5'}}"));
        assert_eq!(ask_at(&number, moment(7)).await, Answer { value: Some(7.0), ..Answer::good() });
        gives_up_in_time(&probe(&Kind, &format!("{{connect: '{echo}', send: hello, matches: bye}}"))).await;
    }

    #[tokio::test]
    async fn garbage_without_end_is_read_up_to_a_bound() {
        let garbage =
            serve(|mut stream: TcpStream| async move { while stream.write_all(&[0xff; 65536]).await.is_ok() {} }).await;
        let answer = ask(&probe(&Kind, &format!("{{connect: '{garbage}', matches: PONG}}"))).await;
        assert!(answer.bad.unwrap().len() < 600, "what is shown of it is short");
        let hangs_up = serve(|_| async {}).await;
        let answer = ask(&probe(&Kind, &format!("{{connect: '{hangs_up}', matches: PONG}}"))).await;
        assert_eq!(answer.bad.unwrap(), "the answer is empty, which does not match /PONG/");
    }

    #[test]
    fn an_address_must_be_whole() {
        assert!(problems(&Kind, "connect: ':80'").contains("a host and a port are needed"));
        assert!(problems(&Kind, "connect: localhost").contains("a host and a port are needed"));
        assert_eq!(probe(&Kind, "connect: '[::1]:80'").asks(), "TCP [::1]:80");
    }
}
