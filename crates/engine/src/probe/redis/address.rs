//! Where a Redis is, and who asks it.

use std::fmt;
use std::io;
use std::sync::Arc;

use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use toprope_model::text_type;

use crate::probe::ProbeError;

/// A URL of a server as it stands in a manifest: without a password.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RedisUrl(pub(super) Address);

impl std::str::FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, credentials) = Address::parse(text)?;
        if credentials != Credentials::default() {
            return Err(
                "it holds a user or a password: give them under `user` and `password`, or the URL under `url-from`"
                    .into(),
            );
        }
        Ok(Self(address))
    }
}

text_type!(RedisUrl, "the URL of a Redis", "redis://127.0.0.1:6379");

/// Who asks.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Credentials {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Credentials {
    /// The command that logs in, where a password is needed.
    pub(super) fn login(&self) -> Option<Vec<String>> {
        let password = self.password.clone()?;
        Some(["AUTH".to_owned()].into_iter().chain(self.user.clone()).chain([password]).collect())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where a server is, and which of its databases is meant.
#[derive(Debug, Clone)]
pub(super) struct Address {
    place: Place,
    database: u32,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16, tls: bool },
    Unix(String),
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        (&self.place, self.database) == (&other.place, other.database)
    }
}

/// What commands are sent over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// Reads a URL: where the server is, and who asks. The errors do not repeat it.
    pub(super) fn parse(text: &str) -> Result<(Self, Credentials), String> {
        let url = Url::parse(text).map_err(|e| e.to_string())?;
        let decode = |text: &str| percent_decode(text).ok_or("it holds a % that is not followed by two digits");
        let some = |text: String| (!text.is_empty()).then_some(text);
        let mut credentials = Credentials {
            user: some(decode(url.username())?),
            password: url.password().map(decode).transpose()?.and_then(some),
        };
        let database = |text: &str| match text.trim_matches('/') {
            "" => Ok(0),
            number => number.parse().map_err(|_| "the database is not a number"),
        };
        let (place, database) = match url.scheme() {
            scheme @ ("redis" | "rediss") => {
                let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
                let host = host.trim_matches(['[', ']']).to_owned();
                let place = Place::Tcp { host, port: url.port().unwrap_or(6379), tls: scheme == "rediss" };
                (place, database(url.path())?)
            }
            "unix" | "redis+unix" => {
                let mut number = 0;
                for (key, value) in url.query_pairs() {
                    match key.as_ref() {
                        "db" => number = database(&value)?,
                        "user" => credentials.user = some(value.into_owned()),
                        "pass" | "password" => credentials.password = some(value.into_owned()),
                        _ => {}
                    }
                }
                (Place::Unix(decode(url.path())?), number)
            }
            _ => return Err("it begins neither with redis:// or rediss:// nor with unix://".into()),
        };
        Ok((Self { place, database, tls: None }, credentials))
    }

    /// Whether TLS is spoken there.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.place, Place::Tcp { tls: true, .. })
    }

    /// Says how to speak TLS; the certificate must be made out to the host unless a name is given.
    pub(super) fn set_tls(&mut self, config: ClientConfig, name: Option<String>) -> Result<(), ProbeError> {
        if let Place::Tcp { host, .. } = &self.place {
            let name = name.unwrap_or_else(|| host.clone());
            let server = ServerName::try_from(name.clone());
            let server = server.map_err(|e| ProbeError(format!("{name} is no server's name: {e}")))?;
            self.tls = Some((Arc::new(config), server));
        }
        Ok(())
    }

    /// The command that chooses the database, where it is not the first.
    pub(super) fn select(&self) -> Option<Vec<String>> {
        (self.database != 0).then(|| vec!["SELECT".into(), self.database.to_string()])
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = match &self.place {
            Place::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Place::Tcp { host, port, .. } => TcpStream::connect((host.as_str(), *port)).await?,
        };
        stream.set_nodelay(true)?;
        match &self.tls {
            Some((config, name)) => {
                Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?))
            }
            None => Ok(Box::new(stream)),
        }
    }
}

/// Without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                write!(f, "{scheme}://{host}:{port}/{}", self.database)
            }
            Place::Unix(path) => write!(f, "unix://{path}?db={}", self.database),
        }
    }
}

/// Percent-encoding by RFC 3986, section 2.1.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_who() {
        for (text, shown) in [
            ("redis://h", "redis://h:6379/0"),
            ("rediss://[::1]:7/3", "rediss://[::1]:7/3"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ] {
            let (address, credentials) = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(credentials.login(), None);
        }
        let (address, credentials) = Address::parse("redis://me:p%40ss@h/1").unwrap();
        assert_eq!(credentials.login().unwrap(), ["AUTH", "me", "p@ss"]);
        assert_eq!(address.select().unwrap(), ["SELECT", "1"]);
        assert!(!format!("{credentials:?} {address}").contains("p@ss"));
        let (_, on_a_socket) = Address::parse("unix:///run/x?pass=p%20w&user=me").unwrap();
        assert_eq!(on_a_socket.login().unwrap(), ["AUTH", "me", "p w"]);
        let (_, default_user) = Address::parse("redis://:pw@h").unwrap();
        assert_eq!(default_user.login().unwrap(), ["AUTH", "pw"]);
        for text in ["http://h", "redis://", "redis://h/x", "redis://a%zz@h", "h:6379"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!("redis://:pw@h".parse::<RedisUrl>().unwrap_err().contains("url-from"));
    }
}
