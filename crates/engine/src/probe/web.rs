//! HTTP as probes speak it: one client per probe, made once; answers read within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url, redirect};
use toprope_model::{FromNode, Node, Problems, Type, fields, text_type};

use super::blame::failed;
use super::params::exactly_one;
use super::secret::{Revealed, Secret, redact};
use super::template::{Fill, Template};
use super::tls::{self, Tls};
use super::{Answer, Context, ProbeError};

/// The most that is read of an answer's body. What comes after it is not read, and the connection is closed.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A URL of HTTP, which may hold placeholders.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WebUrl {
    pub(super) template: Template,
    /// Parsed, where it is the same in every sample.
    fixed: Option<Url>,
}

impl std::str::FromStr for WebUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let template = Template::from(text);
        let url = parse(&template.fill(Fill { run: "run", n: "0" }))?;
        let fixed = template.is_constant().then_some(url);
        Ok(Self { template, fixed })
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| match e.to_string() {
        why if why.contains("without a base") => "it must begin with http:// or https://".to_owned(),
        why => why,
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("it begins with {}:, not with http:// or https://", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password, which would be shown: give them under `auth`".into());
    }
    Ok(url)
}

impl WebUrl {
    /// The URL of one sample.
    ///
    /// # Errors
    /// What makes it no URL with this fill.
    pub(super) fn fill(&self, fill: Fill<'_>) -> Result<Url, String> {
        match &self.fixed {
            Some(url) => Ok(url.clone()),
            None => parse(&self.template.fill(fill)),
        }
    }

    /// A path below it, as for an API whose root this is.
    pub(super) fn below(&self, path: &str) -> Option<Url> {
        let mut url = self.fixed.clone()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
        Some(url)
    }
}

impl std::fmt::Display for WebUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.template.fmt(f)
    }
}

text_type!(WebUrl, "a URL", "http://127.0.0.1:8080/health");

fields! {
    /// A user and a password.
    struct Basic {
        /// The user.
        user: String,
        /// The password, by reference.
        password: Secret,
    }
}

fields! {
    /// Who asks; one of these.
    struct AuthFields {
        /// A user and a password (RFC 7617).
        basic: Option<Basic>,
        /// A token (RFC 6750), by reference.
        bearer: Option<Secret>,
    }
}

/// Credentials of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Auth(AuthFields);

impl FromNode for Auth {
    fn ty() -> Type {
        AuthFields::ty()
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let before = problems.count();
        let fields = AuthFields::from_node(node, problems)?;
        exactly_one(node, &["basic", "bearer"], problems);
        (problems.count() == before).then_some(Self(fields))
    }
}

/// How a client is made.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    /// Headers of every request.
    pub(super) headers: BTreeMap<String, String>,
    /// Headers whose values are secrets.
    pub(super) secret_headers: BTreeMap<String, Secret>,
    /// Who asks.
    pub(super) auth: Option<&'a Auth>,
    /// How to speak TLS.
    pub(super) tls: Option<&'a Tls>,
    /// How many redirects to follow.
    pub(super) follow: u32,
    /// Whether connections are used again.
    pub(super) keepalive: bool,
}

/// A client with what goes into each of its requests.
#[derive(Debug)]
pub(super) struct Web {
    client: reqwest::Client,
    headers: HeaderMap,
    secrets: Vec<Revealed>,
    server_name: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// Whether the body went on beyond [`MAX_BODY`].
    pub(super) cut: bool,
}

impl Web {
    /// A client for requests to this URL's host. Connects to nothing yet.
    ///
    /// # Errors
    /// A secret or a file that cannot be read, a header that is none.
    pub(super) fn new(url: &WebUrl, options: &Options<'_>, context: &Context) -> Result<Self, ProbeError> {
        let (headers, secrets) = headers(options, context)?;
        let url = url.fill(Fill { run: &context.run, n: "0" }).map_err(ProbeError)?;
        let mut tls = if url.scheme() == "https" || options.follow > 0 || options.tls.is_some() {
            tls::config(options.tls, context)?
        } else {
            tls::unused()
        };
        tls.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        let server_name = options.tls.and_then(|tls| tls.server_name.clone());
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("toprope/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirects(options.follow, !secrets.is_empty()))
            .tls_backend_preconfigured(tls);
        if !options.keepalive {
            // A connection lives for one sample, whose timeout ends it: what keeps a long one alive is five system calls
            // for nothing, each time.
            let none = None::<std::time::Duration>;
            builder = builder.pool_max_idle_per_host(0).tcp_keepalive(none).tcp_keepalive_interval(none);
            builder = builder.tcp_keepalive_retries(None::<u32>).tcp_user_timeout(none);
        }
        if let Some(name) = &server_name {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            builder = builder.dns_resolver(Arc::new(Elsewhere { name: name.clone(), host }));
        }
        let client = builder.build().map_err(|e| ProbeError(format!("no HTTP client can be made: {e}")))?;
        Ok(Self { client, headers, secrets, server_name })
    }

    /// Blots out of an answer what only the other side and we know, as it may stand in the body.
    pub(super) fn redact(&self, answer: Answer) -> Answer {
        Answer { bad: answer.bad.map(|why| redact(&self.secrets, why)), ..answer }
    }

    /// Sends a request and reads what comes back.
    ///
    /// # Errors
    /// The sample's answer, if nothing comes back that is HTTP.
    pub(super) async fn send(&self, method: Method, mut url: Url, body: Option<String>) -> Result<Reply, Answer> {
        if let Some(name) = &self.server_name {
            // The name goes into TLS and into `Host`; `Elsewhere` leads the connection where the URL says.
            url.set_host(Some(name)).map_err(|e| Answer::broken(format!("{name} is no server's name: {e}")))?;
        }
        let mut request = self.client.request(method, url).headers(self.headers.clone());
        if let Some(body) = body {
            if !self.headers.contains_key(CONTENT_TYPE) && body.trim_start().starts_with(['{', '[']) {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|e| answer(&e))?;
        let status = response.status();
        let mut body = Vec::new();
        let mut cut = false;
        while let Some(chunk) = response.chunk().await.map_err(|e| answer(&e))? {
            let room = MAX_BODY - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if chunk.len() > room {
                cut = true;
                break;
            }
        }
        let body = String::from_utf8(body).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        Ok(Reply { status, body, cut })
    }
}

/// The answer of a sample whose request failed.
fn answer(error: &reqwest::Error) -> Answer {
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_redirect() {
        "a redirect was not followed"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "no valid answer"
    };
    failed(what, error)
}

fn headers(options: &Options<'_>, context: &Context) -> Result<(HeaderMap, Vec<Revealed>), ProbeError> {
    let mut headers = HeaderMap::new();
    let mut secrets = Vec::new();
    let mut add = |name: &str, value: &str, secret: Option<Revealed>| {
        let invalid = |what: &str| ProbeError(format!("the header {name:?} cannot be sent: its {what} is not valid"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("name"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid("value"))?;
        value.set_sensitive(secret.is_some());
        secrets.extend(secret);
        headers.insert(header, value);
        Ok(())
    };
    for (name, value) in &options.headers {
        add(name, value, None)?;
    }
    for (name, secret) in &options.secret_headers {
        let secret = secret.read(context)?;
        add(name, secret.clone().expose(), Some(secret))?;
    }
    if let Some(Auth(auth)) = options.auth {
        let (value, secret) = match (&auth.basic, &auth.bearer) {
            (Some(basic), _) => {
                let password = basic.password.read(context)?;
                (format!("Basic {}", base64(&format!("{}:{}", basic.user, password.expose()))), password)
            }
            (None, Some(token)) => {
                let token = token.read(context)?;
                (format!("Bearer {}", token.expose()), token)
            }
            (None, None) => unreachable!("credentials without any are refused when they are read"),
        };
        add(AUTHORIZATION.as_str(), &value, Some(secret))?;
    }
    Ok((headers, secrets))
}

/// Base64 by RFC 4648, section 4.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

/// Follows at most so many redirects, and takes no secret to another host.
fn redirects(most: u32, has_secrets: bool) -> redirect::Policy {
    if most == 0 {
        return redirect::Policy::none();
    }
    redirect::Policy::custom(move |attempt| {
        let from = attempt.previous().last().map(Url::origin);
        if attempt.previous().len() > most as usize {
            attempt.error(format!("there were more than {most}"))
        } else if has_secrets && from.is_some_and(|from| from != attempt.url().origin()) {
            attempt.error("it leads to another host, which would be sent the secrets")
        } else {
            attempt.follow()
        }
    })
}

/// Connects to a host when asked for another name.
struct Elsewhere {
    name: String,
    host: String,
}

impl Resolve for Elsewhere {
    fn resolve(&self, name: Name) -> Resolving {
        let host = if name.as_str() == self.name { self.host.clone() } else { name.as_str().to_owned() };
        Box::pin(async move {
            // The URL's port replaces this one.
            let found = tokio::net::lookup_host((host, 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_when_they_are_read() {
        let refused = |text: &str| text.parse::<WebUrl>().unwrap_err();
        assert!(refused("127.0.0.1:80/x").contains("begin with http://"));
        assert!(refused("ftp://x/").contains("ftp:"));
        assert!(refused("http://me:pw@x/").contains("auth"));
        assert!(refused("http://").contains("host"));
        let url: WebUrl = "http://x:1/orders/{n}?run={run}".parse().unwrap();
        assert_eq!(url.fill(Fill { run: "r", n: "7" }).unwrap().as_str(), "http://x:1/orders/7?run=r");
        for root in ["http://x:1/api", "http://x:1/api/"] {
            let url: WebUrl = root.parse().unwrap();
            assert_eq!(url.below("v2/alerts").unwrap().as_str(), "http://x:1/api/v2/alerts");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text), encoded);
        }
        // RFC 7617, section 2.
        assert_eq!(base64("Aladdin:open sesame"), "QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
