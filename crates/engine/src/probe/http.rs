//! `http`: requests a URL.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::Method;
use toprope_model::target::Pattern;
use toprope_model::{Comparison, KindSpec, Node, Problems, fields};

use super::expect::{Expect, JsonPath};
use super::params::{self, Params, exactly_one};
use super::secret::Secret;
use super::template::{Fill, Template};
use super::tls::Tls;
use super::web::{Auth, MAX_BODY, Options, Reply, Web, WebUrl};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

fields! {
    /// Parameters of `http`.
    struct Http {
        /// The URL to GET.
        get: Option<WebUrl>,
        /// The URL to ask for its HEAD, instead of `get`.
        head: Option<WebUrl>,
        /// The URL to POST to, instead of `get`. In it and in `body`, `{n}` is the number of the sample, from 0, and
        /// `{run}` the id of the run.
        post: Option<WebUrl>,
        /// The URL to PUT to, instead of `get`.
        put: Option<WebUrl>,
        /// The URL to PATCH, instead of `get`.
        patch: Option<WebUrl>,
        /// The URL to DELETE, instead of `get`.
        delete: Option<WebUrl>,
        /// The body to send. Sent as `application/json` if it begins with `{` or `[` and no header says otherwise.
        body: Option<Template>,
        /// Headers to send.
        headers: BTreeMap<String, String>,
        /// Headers to send whose values are secrets, each by reference.
        secret_headers: BTreeMap<String, Secret>,
        /// Who asks: `{bearer: {env: TOKEN}}` or `{basic: {user: me, password: {file: PATH}}}`.
        auth: Option<Auth>,
        /// The status that the answer must have. If neither this nor `statuses` is given, any below 400 will do.
        status: Option<u16>,
        /// The statuses of which the answer must have one.
        statuses: Vec<u16>,
        /// What the body must be, or what `json` finds in it: a comparison or a range. Its number is then the
        /// sample's value, instead of the latency.
        value: Option<Comparison>,
        /// What the body, or what `json` finds in it, may be: one of these.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in the body, or in what `json` finds in it.
        matches: Option<Pattern>,
        /// Where in a JSON body to look (RFC 9535). Something must be there; if it is a number, it is the sample's
        /// value, instead of the latency.
        json: Option<JsonPath>,
        /// How many redirects to follow. If it is 0, a redirect is an answer like any other.
        follow: u32 = "0",
        /// Use a connection again. If not, each sample makes a new one, as a new client would.
        keepalive: bool = "false",
        /// How to speak TLS.
        tls: Option<Tls>,
        /// The URL at which an acknowledged write can be found again, for `loses`: with `{n}`, or with `{id}`, which is
        /// what `json` found in the answer to the write. 2xx is found, 404 and 410 are lost.
        find: Option<WebUrl>,
        /// What the answer to `find` must contain for the write to be found, for instance `order-{n}`.
        find_contains: Option<Template>,
    }
}

const METHODS: [(&str, Method); 6] = [
    ("get", Method::GET),
    ("head", Method::HEAD),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("patch", Method::PATCH),
    ("delete", Method::DELETE),
];

impl Http {
    fn target(&self) -> Option<(Method, &WebUrl)> {
        let urls = [&self.get, &self.head, &self.post, &self.put, &self.patch, &self.delete];
        METHODS.iter().zip(urls).find_map(|((_, method), url)| Some((method.clone(), url.as_ref()?)))
    }

    fn expect(&self) -> Expect {
        Expect {
            value: self.value.clone(),
            in_: self.in_.clone(),
            matches: self.matches.clone(),
            json: self.json.clone(),
        }
    }
}

impl Params for Http {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        exactly_one(node, &METHODS.map(|(key, _)| key), problems);
        let mut wrong = |key: &str, message: &str, label: &str| {
            let span = node.get(key).map_or(node.span, |n| n.span);
            problems.add(span, message, label);
        };
        let reads = self.get.is_some() || self.head.is_some();
        if self.status.is_some() && !self.statuses.is_empty() {
            wrong("statuses", "`status` and `statuses` exclude each other", "only one of them");
        }
        // RFC 9110, section 15: three digits, and the first says what it means.
        let no_status = |status: u16| !(100..600).contains(&status);
        if self.status.is_some_and(no_status) {
            wrong("status", "there is no such status: they are from 100 to 599", "no answer has it");
        }
        if self.statuses.iter().copied().any(no_status) {
            wrong("statuses", "there is no such status: they are from 100 to 599", "no answer has one of these");
        }
        if self.body.is_some() && reads {
            wrong("body", "a body is sent with post, put, patch or delete", "not with this method");
        }
        if self.head.is_some() && !self.expect().is_empty() {
            wrong("head", "the answer to HEAD has no body", "use get to judge the body");
        }
        let takes_id = |url: &Option<WebUrl>| url.as_ref().is_some_and(|url| url.template.takes_id());
        if self.target().is_some_and(|(_, url)| url.template.takes_id())
            || self.body.as_ref().is_some_and(Template::takes_id)
        {
            wrong("find", "`{id}` is known only after the write", "it stands in `find` alone");
        }
        match &self.find {
            Some(_) if reads => wrong(
                "find",
                "`find` looks for what was written, and this writes nothing",
                "only with post, put, patch or delete",
            ),
            Some(find) => {
                let names =
                    find.template.names_write() || self.find_contains.as_ref().is_some_and(Template::names_write);
                if !names {
                    wrong(
                        "find",
                        "`find` is the same for every write",
                        "neither {n} nor {id} is in it or in `find-contains`",
                    );
                }
                if takes_id(&self.find) && self.json.is_none() {
                    wrong("find", "`{id}` is what `json` finds in the answer to the write", "`json` is missing");
                }
            }
            None if self.find_contains.is_some() => {
                wrong("find-contains", "`find` is missing", "it says where to look")
            }
            None => {}
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "http",
    summary: "Requests a URL over HTTP or HTTPS and judges status, body and latency.",
    docs: "\
Each sample is one request on a new connection (name lookup, TCP and TLS included), as a new client would make it;
`keepalive: true` uses connections again. The value of a sample is its latency in milliseconds, from the start to the
end of the body, unless `value` or `json` reads a number out of the body. Proxies named in the environment are not used.

**Good** is a status as asked for (any below 400 if none is) and a body that is as asked for. Redirects are not followed
unless `follow` says how many; with secrets they are followed to the same host only. Of a body, the first MiB is read and
judged; the rest is not waited for.

**Bad**, and so evidence about the system: a name that does not resolve, a refused or broken connection, a certificate
that does not hold, an answer that is not HTTP, too many redirects. **No evidence**: this host is out of ports, files or
memory. A certificate or secret of ours that cannot be read is told before the run.

```yaml
- http:
    post: https://10.0.0.7/orders
    body: '{\"item\": \"{run}-{n}\"}'
    auth: {bearer: {env: SHOP_TOKEN}}
    tls: {ca: ca.pem, server-name: shop.internal}
    statuses: [200, 201]
    find: https://10.0.0.7/orders/{run}-{n}
    loses: 0
```

A sample of `post`, `put`, `patch` or `delete` that was good is an acknowledged write. With `find`, each one is looked for
after the recovery: 2xx is found (if `find-contains` is in the body, where that is given), 404 and 410 are lost, any other
answer means that nobody can tell.",
    example: "\
- http:
    get: http://127.0.0.1:8080/checkout
    status: 200
    p99: < 300ms
",
    fields: Http::fields,
    check: params::check::<Http>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Http = params::read(params)?;
        let expect = params.expect();
        let (method, url) = params.target().expect("exactly one was checked to be there");
        let url = url.clone();
        let options = Options {
            headers: params.headers,
            secret_headers: params.secret_headers,
            auth: params.auth.as_ref(),
            tls: params.tls.as_ref(),
            follow: params.follow,
            keepalive: params.keepalive,
        };
        let web = Web::new(&url, &options, context)?;
        let statuses = params.status.into_iter().chain(params.statuses).collect();
        let find = params.find.map(|url| Find { url, contains: params.find_contains });
        Ok(Box::new(HttpProbe {
            web,
            method,
            url,
            body: params.body,
            statuses,
            expect,
            find,
            run: context.run.clone(),
        }))
    }
}

struct HttpProbe {
    web: Web,
    method: Method,
    url: WebUrl,
    body: Option<Template>,
    /// Empty for any below 400.
    statuses: Vec<u16>,
    expect: Expect,
    find: Option<Find>,
    run: String,
}

/// Where a write is looked for.
struct Find {
    url: WebUrl,
    contains: Option<Template>,
}

impl HttpProbe {
    async fn ask(&self, number: u64) -> Result<Answer, Answer> {
        let number = number.to_string();
        let fill = Fill { run: &self.run, n: &number };
        let url = self.url.fill(fill).map_err(|e| Answer::broken(format!("{} is no URL: {e}", self.url)))?;
        let body = self.body.as_ref().map(|body| body.fill(fill).into_owned());
        let reply = self.web.send(self.method.clone(), url, body).await?;
        Ok(self.web.redact(self.judge(&reply, number)))
    }

    fn judge(&self, reply: &Reply, number: String) -> Answer {
        let status = reply.status.as_u16();
        let tolerated = if self.statuses.is_empty() { status < 400 } else { self.statuses.contains(&status) };
        if !tolerated {
            return Answer::bad(format!("status {status}, not {}", self.statuses_in_words()));
        }
        if self.expect.is_empty() {
            return Answer { wrote: self.find.is_some().then_some(number), ..Answer::good() };
        }
        if reply.cut && self.expect.json.is_some() {
            return Answer::bad(format!("the body is longer than {MAX_BODY} bytes, too long to be read as JSON"));
        }
        let found = self.expect.judge("the body", &reply.body);
        let wrote = match &self.find {
            Some(find) if found.bad.is_none() => {
                if find.url.template.takes_id() {
                    found.picked
                } else {
                    Some(number)
                }
            }
            _ => None,
        };
        Answer { bad: found.bad, value: found.value, wrote, ..Answer::good() }
    }

    fn statuses_in_words(&self) -> String {
        match self.statuses.as_slice() {
            [] => "one below 400".into(),
            [one] => one.to_string(),
            many => format!("one of {}", many.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
        }
    }

    async fn look_for(&self, written: &str) -> Result<bool, ProbeError> {
        let find = self.find.as_ref().ok_or_else(|| ProbeError::new("`find` is missing: it says where to look"))?;
        let fill = Fill { run: &self.run, n: written };
        let url = find.url.fill(fill).map_err(|e| ProbeError(format!("{} is no URL: {e}", find.url)))?;
        let reply = self.web.send(Method::GET, url, None).await;
        let reply = reply.map_err(|answer| ProbeError(answer.bad.unwrap_or_default()))?;
        match reply.status.as_u16() {
            200..=299 => Ok(find.contains.as_ref().is_none_or(|text| reply.body.contains(text.fill(fill).as_ref()))),
            404 | 410 => Ok(false),
            status => {
                Err(ProbeError(format!("status {status} says neither that the write is there nor that it is lost")))
            }
        }
    }
}

impl Probe for HttpProbe {
    fn asks(&self) -> String {
        format!("{} {}", self.method, self.url)
    }

    fn tolerates(&self) -> String {
        let status = match self.statuses.as_slice() {
            [] => "status below 400".into(),
            _ => format!("status {}", self.statuses_in_words()),
        };
        std::iter::once(status).chain(self.expect.describe("body")).collect::<Vec<_>>().join(", ")
    }

    fn unit(&self) -> &'static str {
        if self.expect.reads_value() { "" } else { "ms" }
    }

    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.ask(moment.number).await.unwrap_or_else(|failed| failed) })
    }

    fn find(self: Arc<Self>, written: String) -> BoxFuture<'static, Result<bool, ProbeError>> {
        Box::pin(async move { self.look_for(&written).await })
    }

    fn can_find(&self) -> bool {
        self.find.is_some()
    }
}

#[cfg(test)]
mod tests;
