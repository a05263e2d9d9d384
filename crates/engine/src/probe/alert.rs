//! `alert`: whether an alert fires, or stays silent.

mod notice;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::Url;
use toprope_model::{Dur, KindSpec, Node, Problems, fields, text_type};

use self::notice::{Notice, Wanted};
use self::webhook::{Inbox, Webhook};
use super::instrument::Instrument;
use super::params::{self, Params, exactly_one};
use super::prometheus::constant;
use super::secret::Secret;
use super::tls::Tls;
use super::web::{Auth, Options, WebUrl};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen(SocketAddr);

impl std::str::FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "write an address of this host and a port")
    }
}

text_type!(Listen, "an address to listen on", "127.0.0.1:9099");

fields! {
    /// What it means that an alert fires.
    struct Fires {
        /// How long after the first injection at most.
        within: Dur,
    }
}

fields! {
    /// Parameters of `alert`.
    struct Alert {
        /// The name of the alert (its label `alertname`).
        alert: String,
        /// Labels that the alert must have besides.
        labels: BTreeMap<String, String>,
        /// Where an Alertmanager is that is asked for the alerts it has.
        alertmanager: Option<WebUrl>,
        /// Where to listen for notifications instead, as a webhook receiver, on any path.
        listen: Option<Listen>,
        /// The alert must fire, so long after the first injection.
        fires: Option<Fires>,
        /// The alert must not fire.
        silent: Option<bool>,
        /// Headers to send to the Alertmanager.
        headers: BTreeMap<String, String>,
        /// Headers to send to it whose values are secrets, each by reference.
        secret_headers: BTreeMap<String, Secret>,
        /// Who asks it: `{bearer: {env: TOKEN}}` or `{basic: {user: me, password: {file: PATH}}}`.
        auth: Option<Auth>,
        /// How to speak TLS to it.
        tls: Option<Tls>,
    }
}

impl Params for Alert {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        exactly_one(node, &["alertmanager", "listen"], problems);
        exactly_one(node, &["fires", "silent"], problems);
        if let Some(url) = &self.alertmanager {
            constant(url, node, "alertmanager", problems);
        }
        if self.silent == Some(false) {
            let span = node.get("silent").map_or(node.span, |n| n.span);
            problems.add(span, "an alert that must not be silent fires", "write `fires: {within: 2m}`");
        }
        if self.listen.is_some()
            && let Some(sent) = ["headers", "secret-headers", "auth", "tls"].iter().find_map(|key| node.get(key))
        {
            problems.add(sent.span, "nothing is sent to whoever sends notifications", "only with `alertmanager`");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "alert",
    summary: "Watches whether an alert fires after the injection, or stays silent.",
    docs: "\
With `alertmanager`, each sample asks its API (v2) for the alert; one that is silenced or inhibited does not fire, because
nobody is told. With `listen`, Toprope is a webhook receiver on any path of that address, and several probes may share one;
it takes what Alertmanager and Grafana send, and from others JSON objects (or a list of them) with the alert's name under
`alertname`, `alert`, `name` or `title`, its labels under `labels`, and `resolved`, `ok` or the like under `status` or
`state` when it is over. Who can reach the address can send notifications: listen on a loopback address unless the sender is
elsewhere.

**`fires: {within: 2m}`**: until the first injection the alert must be silent, and an alert that fires already is bad. Then
it has that time, in which the probe says nothing; once it has fired, samples are good, also after it is resolved. If it has
not fired in time, they are bad. The run goes on until that time is over, also if the method is shorter. The value of a
sample is 1 while the alert fires, else 0.

**`silent: true`**: each sample is bad while the alert fires, or if it was notified since the sample before.

An Alertmanager that cannot be asked is **no evidence**: it is an instrument, not the system.

```yaml
- alert: {alert: HighErrorRate, labels: {service: checkout}, alertmanager: http://127.0.0.1:9093, fires: {within: 2m}}
- alert: {alert: NodeDown, listen: 127.0.0.1:9099, silent: true}
```",
    example: "\
- alert:
    alert: HighErrorRate
    alertmanager: http://127.0.0.1:9093
    fires: {within: 2m}
",
    fields: Alert::fields,
    check: params::check::<Alert>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Alert = params::read(params)?;
        let wanted = Wanted { name: params.alert, labels: params.labels };
        let source = match (&params.alertmanager, params.listen) {
            (Some(url), _) => {
                let options = Options {
                    headers: params.headers,
                    secret_headers: params.secret_headers,
                    auth: params.auth.as_ref(),
                    tls: params.tls.as_ref(),
                    keepalive: true,
                    follow: 0,
                };
                let instrument = Box::new(Instrument::new("the Alertmanager", url, &options, context)?);
                let asked = url.below("api/v2/alerts").ok_or_else(|| ProbeError::new("the URL takes no path"))?;
                Source::Alertmanager { instrument, asked: wanted.query(asked), shown: url.to_string() }
            }
            (None, Some(Listen(address))) => {
                Source::Webhook { address, inbox: Arc::new(Inbox::new(wanted.clone())), open: OnceLock::new() }
            }
            (None, None) => return Err(ProbeError::new("`alertmanager` or `listen` is missing")),
        };
        let fires = params.fires.map(|fires| fires.within.0);
        Ok(Box::new(AlertProbe { wanted, source, fires, fired: AtomicBool::new(false) }))
    }
}

struct AlertProbe {
    wanted: Wanted,
    source: Source,
    /// The time that it has to fire; `None` if it must be silent.
    fires: Option<Duration>,
    /// Whether it has fired since the first injection.
    fired: AtomicBool,
}

enum Source {
    /// Asked in each sample.
    Alertmanager { instrument: Box<Instrument>, asked: Url, shown: String },
    /// Tells by itself.
    Webhook { address: SocketAddr, inbox: Arc<Inbox>, open: OnceLock<Arc<Webhook>> },
}

/// What is known of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    firing: bool,
    /// Whether it fired at any time since the sample before.
    fired: bool,
}

impl AlertProbe {
    async fn status(&self) -> Result<Status, Answer> {
        match &self.source {
            Source::Alertmanager { instrument, asked, .. } => {
                let answer = instrument.ask(asked.clone()).await?;
                let alerts = answer.as_array();
                let alerts = alerts.ok_or_else(|| Answer::broken("what the Alertmanager says is no list of alerts"))?;
                let firing = alerts.iter().filter_map(Notice::read).any(|notice| self.wanted.is(&notice));
                Ok(Status { firing, fired: firing })
            }
            Source::Webhook { inbox, open, .. } => match open.get() {
                Some(_) => Ok(inbox.status()),
                None => Err(Answer::broken("notifications are not listened for: the probe was not begun")),
            },
        }
    }

    fn judge(&self, status: Status, moment: Moment) -> Answer {
        let value = Some(if status.firing { 1.0 } else { 0.0 });
        let good = Answer { value, ..Answer::good() };
        let bad = |why: String| Answer { value, ..Answer::bad(why) };
        let Some(within) = self.fires else {
            return if status.fired { bad("the alert fires".into()) } else { good };
        };
        let Some(since) = moment.since_injection else {
            // Also the beginning of another trial with the same probe.
            self.fired.store(false, Ordering::Relaxed);
            return if status.fired { bad("the alert fires before anything was injected".into()) } else { good };
        };
        if status.fired {
            self.fired.store(true, Ordering::Relaxed);
        }
        if self.fired.load(Ordering::Relaxed) {
            good
        } else if since <= within {
            Answer { silent: true, ..good }
        } else {
            bad(format!("the alert has not fired within {} of the injection", Dur(within)))
        }
    }
}

impl Probe for AlertProbe {
    fn asks(&self) -> String {
        match &self.source {
            Source::Alertmanager { shown, .. } => format!("alert {} at {shown}", self.wanted),
            Source::Webhook { address, .. } => format!("alert {} as notified to {address}", self.wanted),
        }
    }

    fn tolerates(&self) -> String {
        match self.fires {
            Some(within) => format!("fires within {} of the injection, and not before", Dur(within)),
            None => "does not fire".into(),
        }
    }

    fn unit(&self) -> &'static str {
        "firing"
    }

    fn needs_after_injection(&self) -> Option<Duration> {
        self.fires
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), ProbeError>> {
        let begun = match &self.source {
            Source::Webhook { address, inbox, open } => Webhook::on(*address).map(|webhook| {
                webhook.deliver_to(inbox);
                // A second beginning keeps the first.
                let _ = open.set(webhook);
            }),
            Source::Alertmanager { .. } => Ok(()),
        };
        Box::pin(std::future::ready(begun))
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            match self.status().await {
                Ok(status) => self.judge(status, moment),
                Err(none) => none,
            }
        })
    }
}

#[cfg(test)]
mod tests;
