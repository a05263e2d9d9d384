//! Where traffic goes: what `to` means on this host, now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use toprope_engine::fault::FaultError;
use toprope_engine::host::Host;
use toprope_model::target::Endpoint;
use toprope_os::address::Cidr;

/// The word for every address.
const ANYWHERE: &str = "anywhere";

/// Addresses, and at most one port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Destination {
    /// As the user wrote it.
    said: String,
    /// Never empty; for every address both `0.0.0.0/0` and `::/0`.
    pub(crate) networks: Vec<Cidr>,
    pub(crate) port: Option<u16>,
    /// The host name that was looked up.
    #[serde(default)]
    name: Option<String>,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

impl Destination {
    /// Looks up what has a name: a service of the topology first, then a host.
    pub(crate) async fn resolve(to: &Endpoint, host: &Host) -> Result<Self, FaultError> {
        let said = to.to_string();
        let Some(name) = to.host.as_deref() else {
            return Ok(Self { said, networks: everywhere(), port: to.port, name: None });
        };
        if name == ANYWHERE {
            return Ok(Self { said, networks: everywhere(), port: to.port, name: None });
        }
        if let Ok(network) = name.parse() {
            return Ok(Self { said, networks: vec![network], port: to.port, name: None });
        }
        if let Some(service) = host.services.iter().find(|s| s.name == name) {
            let Some(address) = &service.address else {
                return Err(FaultError::new(format!("the topology does not say where service `{name}` listens"))
                    .help("give the service an `address` in the topology, or write an address here"));
            };
            let of_service = address.parse::<Endpoint>().map_err(|e| {
                FaultError::new(format!("the address of service `{name}`, {address}, cannot be read: {e}"))
            })?;
            let networks = match of_service.host.as_deref() {
                Some(host) => addresses(host).await?,
                None => everywhere(),
            };
            let name = of_service.host.filter(|host| host.parse::<IpAddr>().is_err());
            return Ok(Self { said, networks, port: to.port.or(of_service.port), name });
        }
        Ok(Self { said, networks: addresses(name).await?, port: to.port, name: Some(name.to_owned()) })
    }

    /// The host name that was looked up, unless it is the loopback's, which has always the same addresses.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.is_loopback())
    }

    /// What a user should know of a name: which addresses stand for it, and for how long.
    pub(crate) fn looked_up(&self) -> Option<String> {
        let name = self.name()?;
        let addresses: Vec<String> = self.networks.iter().map(Cidr::to_string).collect();
        Some(format!(
            "`{name}` is {} now: it is looked up once more when the fault begins, and an address that it gets later is not \
             reached",
            addresses.join(", ")
        ))
    }

    /// The one address and port to connect to, where that is what was written.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        let first = self.networks.first().filter(|n| is_address(n))?;
        Some(SocketAddr::new(first.address(), self.port?))
    }

    /// Whether traffic within this host is meant: a port is named, or an address, or the loopback network. Where any
    /// address of a wider network will do, what a host's own programs say to each other is left alone.
    pub(crate) fn means_loopback(&self) -> bool {
        self.port.is_some() || self.networks.iter().all(|n| is_address(n) || is_loopback(n))
    }

    /// Whether both ends of the traffic are on this host's loopback interface.
    pub(crate) fn is_loopback(&self) -> bool {
        self.networks.iter().all(is_loopback)
    }
}

fn everywhere() -> Vec<Cidr> {
    let all = |address: IpAddr| Cidr::new(address, 0).expect("no prefix is shorter");
    vec![all(Ipv4Addr::UNSPECIFIED.into()), all(Ipv6Addr::UNSPECIFIED.into())]
}

/// Whether this is one address and not many.
pub(crate) fn is_address(network: &Cidr) -> bool {
    network.prefix() == if network.address().is_ipv4() { 32 } else { 128 }
}

/// Whether every address of a network is one of the loopback interface.
fn is_loopback(network: &Cidr) -> bool {
    match network.address() {
        IpAddr::V4(address) => address.is_loopback() && network.prefix() >= 8,
        IpAddr::V6(address) => address.is_loopback() && network.prefix() == 128,
    }
}

pub(super) async fn addresses(host: &str) -> Result<Vec<Cidr>, FaultError> {
    let unknown = |why: String| {
        FaultError::new(format!("the host name `{host}` cannot be resolved: {why}"))
            .help("check the name (`getent hosts NAME`), or write an address")
    };
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| unknown(e.to_string()))?;
    let mut networks: Vec<Cidr> = found.map(|address| address.ip().into()).collect();
    networks.sort_unstable();
    networks.dedup();
    if networks.is_empty() { Err(unknown("it has no address".into())) } else { Ok(networks) }
}

#[cfg(test)]
mod tests {
    use toprope_engine::host::ServiceFacts;

    use super::*;
    use crate::testing::host;

    async fn resolved(to: &str, host: &Host) -> Destination {
        Destination::resolve(&to.parse().unwrap(), host).await.unwrap_or_else(|e| panic!("{e}"))
    }

    fn networks(destination: &Destination) -> Vec<String> {
        destination.networks.iter().map(Cidr::to_string).collect()
    }

    #[tokio::test]
    async fn addresses_networks_ports_and_words_are_read() {
        for (to, expected, port, loopback) in [
            ("127.0.0.1:5432", &["127.0.0.1"][..], Some(5432), true),
            ("[::1]:80", &["::1"], Some(80), true),
            ("::1", &["::1"], None, true),
            ("127.0.0.0/8", &["127.0.0.0/8"], None, true),
            ("10.0.0.0/8", &["10.0.0.0/8"], None, false),
            ("10.0.0.0/8:443", &["10.0.0.0/8"], Some(443), true),
            (":5432", &["0.0.0.0/0", "::/0"], Some(5432), true),
            ("anywhere", &["0.0.0.0/0", "::/0"], None, false),
            ("64.0.0.0/2", &["64.0.0.0/2"], None, false),
            ("10.0.0.7", &["10.0.0.7"], None, true),
        ] {
            let found = resolved(to, &host()).await;
            assert_eq!(
                (networks(&found), found.port, found.means_loopback()),
                (expected.iter().map(|n| (*n).to_owned()).collect(), port, loopback)
            );
            assert_eq!(found.to_string(), to);
        }
    }

    #[tokio::test]
    async fn only_an_address_and_a_port_are_one_socket() {
        assert_eq!(resolved("127.0.0.1:80", &host()).await.socket(), Some("127.0.0.1:80".parse().unwrap()));
        for several in ["127.0.0.1", ":80", "10.0.0.0/8:80"] {
            assert_eq!(resolved(several, &host()).await.socket(), None, "{several}");
        }
    }

    #[tokio::test]
    async fn services_are_found_by_name() {
        let service = |name: &str, address: Option<&str>| ServiceFacts {
            name: name.into(),
            process: None,
            command_line: None,
            unit: None,
            address: address.map(Into::into),
        };
        let services = vec![service("payments", Some("127.0.0.1:7004")), service("mail", None)];
        let host = Host { services, ..host() };
        let found = resolved("payments", &host).await;
        assert_eq!((networks(&found), found.port), (vec!["127.0.0.1".to_owned()], Some(7004)));
        let e = Destination::resolve(&"mail".parse().unwrap(), &host).await.unwrap_err();
        assert!(e.message.contains("does not say where service `mail` listens") && e.help.is_some(), "{e}");
    }

    #[test]
    fn what_a_name_stands_for_is_told() {
        let of = |name: Option<&str>, networks: &[&str]| Destination {
            said: "x".into(),
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            port: Some(80),
            name: name.map(Into::into),
        };
        let told = of(Some("db.internal"), &["10.0.0.7", "10.0.0.8"]).looked_up().expect("a name");
        assert!(told.starts_with("`db.internal` is 10.0.0.7, 10.0.0.8 now"), "{told}");
        assert_eq!(of(None, &["10.0.0.7"]).looked_up(), None);
        assert_eq!(of(Some("localhost"), &["127.0.0.1", "::1"]).looked_up(), None);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_refused() {
        let e = Destination::resolve(&"no-such-host.invalid:80".parse().unwrap(), &host()).await.unwrap_err();
        assert!(e.message.contains("`no-such-host.invalid` cannot be resolved"), "{e}");
        assert!(networks(&resolved("localhost:80", &host()).await).contains(&"127.0.0.1".to_owned()));
    }
}
