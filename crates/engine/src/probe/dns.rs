//! `dns`: looks a name up.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::Protocol;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver, TokioResolver};
use toprope_model::target::{Endpoint, Pattern};
use toprope_model::{Comparison, KindSpec, Node, Problems, choice, fields};

use super::blame::failed;
use super::expect::Expect;
use super::params::{self, Params};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

choice! {
    /// What is asked about a name.
    enum Type {
        /// IPv4 addresses.
        A = "A",
        /// IPv6 addresses.
        Aaaa = "AAAA",
        /// The name that this one stands for.
        Cname = "CNAME",
        /// Mail servers.
        Mx = "MX",
        /// Name servers.
        Ns = "NS",
        /// The name of an address.
        Ptr = "PTR",
        /// The zone's start of authority.
        Soa = "SOA",
        /// Where a service is.
        Srv = "SRV",
        /// Texts.
        Txt = "TXT",
    }
}

impl Type {
    fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Ptr => RecordType::PTR,
            Self::Soa => RecordType::SOA,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }
}

fields! {
    /// Parameters of `dns`.
    struct Dns {
        /// The name to look up. The system's search domains apply, unless `server` is given or the name ends in a dot.
        lookup: String,
        /// The type of the records.
        type_: Type = "A",
        /// The name server to ask, as an address with or without a port, instead of those of `/etc/resolv.conf`.
        server: Option<Endpoint>,
        /// Ask over TCP, not over UDP.
        tcp: bool = "false",
        /// How many records there must be.
        answers: Comparison = "> 0",
        /// What each record may be: one of these. Records are written as in a zone file: `10.0.0.7`, `10 mail.test.`.
        in_: Vec<Comparison>,
        /// A regular expression that must be found in each record.
        matches: Option<Pattern>,
    }
}

impl Dns {
    /// The server's address, where one is given that is an address.
    fn server_address(&self) -> Option<Result<IpAddr, String>> {
        let host = self.server.as_ref()?.host.as_deref().unwrap_or_default();
        Some(host.parse().map_err(|_| format!("a name server is given by its address, and `{host}` is none")))
    }
}

impl Params for Dns {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        let span = |key: &str| node.get(key).map_or(node.span, |n| n.span);
        if let Some(Err(why)) = self.server_address() {
            problems.add(span("server"), why, "not an address").help("for instance 127.0.0.1:5353");
        }
        if let Err(e) = self.lookup.parse::<Name>() {
            problems.add(span("lookup"), format!("`{}` is not a name: {e}", self.lookup), "not a name");
        }
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "dns",
    summary: "Looks a name up in the DNS and judges the records and the latency.",
    docs: "\
Each sample asks anew: nothing is cached and `/etc/hosts` is not read. As resolvers do, it sends a question again that is
lost on its way, and asks over TCP for what does not fit into UDP; `localhost` and names under `invalid` are answered
without asking (RFC 6761). The value of a sample is its latency in milliseconds. The system's configuration is read once,
before the run.

**Good** is any answer with at least one record of the type; `answers` asks for another number (`answers: == 0` for a
name that must not exist), `in` and `matches` judge each record.

**Bad**: no such name, a refusal or failure of the server, a server that cannot be reached. **No evidence**: this host
is out of ports, files or memory.

```yaml
- dns: {lookup: db.internal, server: 10.0.0.2, in: [10.0.0.7, 10.0.0.8]}
```",
    example: "\
- dns:
    lookup: db.internal.
    server: 127.0.0.1:53
    p95: < 50ms
",
    fields: Dns::fields,
    check: params::check::<Dns>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Dns = params::read(params)?;
        let (config, mut options) = match params.server_address().transpose().map_err(ProbeError)? {
            Some(address) => {
                let mut server = NameServerConfig::udp_and_tcp(address);
                for connection in &mut server.connections {
                    connection.port = params.server.as_ref().and_then(|s| s.port).unwrap_or(53);
                }
                (ResolverConfig::from_parts(None, vec![], vec![server]), ResolverOpts::default())
            }
            None => read_system_conf().map_err(|e| {
                ProbeError(format!("/etc/resolv.conf cannot be used ({e}): repair it, or give `server`"))
            })?,
        };
        let (domain, search, mut servers) = config.into_parts();
        if params.tcp {
            for server in &mut servers {
                server.connections.retain(|c| c.protocol.to_protocol() == Protocol::Tcp);
            }
        }
        options.attempts = 0;
        // The time of a sample is the caller's.
        options.timeout = context.timeout;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let asker = Asker { config: ResolverConfig::from_parts(domain, search, servers), options };
        let name = params.lookup.parse().map_err(|e| ProbeError(format!("`{}` is not a name: {e}", params.lookup)))?;
        Ok(Box::new(DnsProbe {
            kept: if params.tcp { None } else { Some(asker.resolver().map_err(|e| ProbeError(e.to_string()))?) },
            asker,
            name,
            type_: params.type_,
            server: params.server,
            answers: params.answers,
            expect: Expect { in_: params.in_, matches: params.matches, ..Expect::default() },
        }))
    }
}

/// What a resolver is made of.
struct Asker {
    config: ResolverConfig,
    options: ResolverOpts,
}

impl Asker {
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = Resolver::builder_with_config(self.config.clone(), TokioRuntimeProvider::default());
        *builder.options_mut() = self.options.clone();
        builder.build()
    }
}

struct DnsProbe {
    asker: Asker,
    /// The resolver, where it may be used again: over TCP it would keep its connections.
    kept: Option<TokioResolver>,
    name: Name,
    type_: Type,
    server: Option<Endpoint>,
    answers: Comparison,
    expect: Expect,
}

impl DnsProbe {
    /// The records, and why there are none.
    async fn ask(&self) -> Result<(Vec<String>, &'static str), Answer> {
        let wanted = self.type_.record_type();
        let anew;
        let resolver = match &self.kept {
            Some(kept) => kept,
            None => {
                anew = self.asker.resolver().map_err(|e| failed("no resolver can be made", &e))?;
                &anew
            }
        };
        match resolver.lookup(self.name.clone(), wanted).await {
            Ok(lookup) => {
                let of_type = lookup.answers().iter().filter(|record| record.record_type() == wanted);
                Ok((of_type.map(|record| record.data.to_string()).collect(), ""))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok((vec![], " (there is no such name)")),
                ResponseCode::NoError => Ok((vec![], " (the name has none of this type)")),
                code => Err(Answer::bad(format!("the server answers: {code}"))),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Answer::bad(format!("the server answers: {code}"))),
            Err(e) => Err(failed("no answer", &e)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of records")]
    fn judge(&self, records: &[String], why_none: &str) -> Answer {
        if !self.answers.holds(records.len() as f64) {
            let count = match records.len() {
                1 => "1 record".into(),
                n => format!("{n} records"),
            };
            return Answer::bad(format!("{count}{why_none}, not {}", self.answers));
        }
        let bad = records.iter().find_map(|record| self.expect.judge("a record", record).bad);
        Answer { bad, ..Answer::good() }
    }
}

impl Probe for DnsProbe {
    fn asks(&self) -> String {
        let server = self.server.as_ref().map(|server| format!(" at {server}")).unwrap_or_default();
        format!("DNS {} {}{server}", self.type_.word(), self.name)
    }

    fn tolerates(&self) -> String {
        let count = format!("number of records {}", self.answers);
        std::iter::once(count).chain(self.expect.describe("each record")).collect::<Vec<_>>().join(", ")
    }

    fn sample(self: Arc<Self>, _moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            match self.ask().await {
                Ok((records, why_none)) => self.judge(&records, why_none),
                Err(failed) => failed,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::rdata::{A, TXT};
    use hickory_resolver::proto::rr::{RData, Record};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::probe::testing::{ask, gives_up_in_time, probe, problems, try_probe};

    fn answer(question: &[u8]) -> Vec<u8> {
        let mut message = Message::from_vec(question).unwrap().into_response();
        let query = message.queries[0].clone();
        let mut add = |data| message.answers.push(Record::from_rdata(query.name().clone(), 60, data));
        match query.name().to_string().as_str() {
            "db.test." => (7..9).for_each(|last| add(RData::A(A::new(10, 0, 0, last)))),
            "text.test." => add(RData::TXT(TXT::new(vec!["v=1".into()]))),
            "broken.test." => message.metadata.response_code = ResponseCode::ServFail,
            "none.test." => {}
            _ => message.metadata.response_code = ResponseCode::NXDomain,
        }
        message.to_vec().unwrap()
    }

    /// A name server on one port of UDP and TCP.
    async fn server() -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(at).await.unwrap();
        tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((n, from)) = udp.recv_from(&mut question).await {
                drop(udp.send_to(&answer(&question[..n]), from).await);
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let n = stream.read_u16().await.unwrap();
                let mut question = vec![0; n.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = answer(&question);
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
                // The connection closes: the next question needs another.
            }
        });
        at
    }

    #[tokio::test]
    async fn records_are_judged() {
        let at = server().await;
        let good = |yaml: &str| probe(&Kind, &format!("{{server: '{at}', {yaml}}}"));
        assert_eq!(ask(&good("lookup: db.test")).await, Answer::good());
        assert_eq!(
            ask(&good("lookup: db.test, answers: 2, in: [10.0.0.7, 10.0.0.8], matches: ^10")).await,
            Answer::good()
        );
        assert_eq!(
            ask(&good("lookup: db.test, in: [10.0.0.7]")).await.bad.unwrap(),
            "a record is `10.0.0.8`, not one of 10.0.0.7"
        );
        assert_eq!(ask(&good("lookup: db.test, answers: '> 2'")).await.bad.unwrap(), "2 records, not > 2");
        assert_eq!(ask(&good("lookup: text.test, type: TXT, matches: v=1")).await, Answer::good());
        assert_eq!(ask(&good("lookup: missing.test, answers: == 0")).await, Answer::good());
        assert_eq!(ask(&good("lookup: missing.test")).await.bad.unwrap(), "0 records (there is no such name), not > 0");
        assert_eq!(
            ask(&good("lookup: none.test")).await.bad.unwrap(),
            "0 records (the name has none of this type), not > 0"
        );
        let broken = ask(&good("lookup: broken.test")).await;
        assert!(!broken.broken && broken.bad.as_ref().unwrap().starts_with("the server answers: "), "{broken:?}");
        let tcp = good("lookup: db.test, tcp: true");
        assert_eq!((ask(&tcp).await, ask(&tcp).await), (Answer::good(), Answer::good()));
        assert_eq!(tcp.asks(), format!("DNS A db.test at {at}"));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_not_there_or_talks_garbage_is_bad() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        gives_up_in_time(&probe(&Kind, &format!("{{lookup: db.test, server: '{at}'}}"))).await;
        drop(silent);
        let gone = ask(&probe(&Kind, &format!("{{lookup: db.test, server: '{at}', tcp: true}}"))).await;
        assert!(!gone.broken && gone.bad.as_ref().unwrap().starts_with("no answer: "), "{gone:?}");
        let garbage = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = garbage.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((_, from)) = garbage.recv_from(&mut [0; 1500]).await {
                drop(garbage.send_to(b"garbage", from).await);
            }
        });
        // What is no answer to the question is passed over, as an attacker might have sent it.
        gives_up_in_time(&probe(&Kind, &format!("{{lookup: db.test, server: '{at}'}}"))).await;
    }

    #[test]
    fn names_servers_and_types_are_checked() {
        assert!(problems(&Kind, "{lookup: a..b}").contains("is not a name"));
        assert!(problems(&Kind, "{lookup: a, server: dns.test}").contains("given by its address"));
        assert!(problems(&Kind, "{lookup: a, type: AAA}").contains("unknown word `AAA`"));
        match try_probe(&Kind, "lookup: a.test", &crate::probe::testing::context()) {
            Ok(system) => assert_eq!(system.tolerates(), "number of records > 0"),
            // A bare container may have none.
            Err(why) => assert!(why.contains("/etc/resolv.conf"), "{why}"),
        }
    }
}
