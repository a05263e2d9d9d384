//! The five services: their names, and where they listen.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::Error;

/// The gateway's port when nobody says otherwise; the others follow it.
pub const DEFAULT_BASE_PORT: u16 = 8080;

/// One of the shop's five services, in the order of their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// What customers talk to: the product page and the checkout.
    Gateway,
    /// The products and their prices.
    Catalog,
    /// The orders.
    Cart,
    /// The charges.
    Payments,
    /// What others bought with a product.
    Recommendations,
}

impl Service {
    /// All five.
    pub const ALL: [Service; 5] =
        [Service::Gateway, Service::Catalog, Service::Cart, Service::Payments, Service::Recommendations];

    /// The name on the command line, in metrics and in the topology.
    pub fn name(self) -> &'static str {
        match self {
            Service::Gateway => "gateway",
            Service::Catalog => "catalog",
            Service::Cart => "cart",
            Service::Payments => "payments",
            Service::Recommendations => "recommendations",
        }
    }

    /// The name its process has in `/proc/PID/comm`. The kernel keeps 15 bytes of a name, so the longest service goes
    /// by a shorter name rather than by one that the kernel cut.
    pub fn process_name(self) -> &'static str {
        match self {
            Service::Gateway => "shop-gateway",
            Service::Catalog => "shop-catalog",
            Service::Cart => "shop-cart",
            Service::Payments => "shop-payments",
            Service::Recommendations => "shop-recommend",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where each service is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses([SocketAddr; 5]);

impl Addresses {
    /// The address of one service.
    pub fn of(&self, service: Service) -> SocketAddr {
        self.0[service as usize]
    }

    /// The same addresses with one service found elsewhere, for instance behind a proxy's listener.
    #[must_use]
    pub fn with(mut self, service: Service, address: SocketAddr) -> Self {
        self.0[service as usize] = address;
        self
    }
}

/// Each service's address on loopback: the gateway at `base`, then catalog, cart, payments and recommendations, so that
/// several shops can run on one machine.
///
/// # Errors
///
/// [`Error::Ports`] when five ports from `base` on do not exist.
pub fn ports(base: u16) -> Result<Addresses, Error> {
    if base == 0 || base > u16::MAX - (Service::ALL.len() as u16 - 1) {
        return Err(Error::Ports { base });
    }
    Ok(Addresses(Service::ALL.map(|service| SocketAddr::from((Ipv4Addr::LOCALHOST, base + service as u16)))))
}

/// A base port whose five ports are free now, below the range from which the kernel takes the ports of outgoing
/// connections. Nothing reserves them: whoever starts a shop there must still expect [`Error::Exited`].
///
/// # Errors
///
/// [`Error::NoFreePorts`] when all of the range is taken.
pub fn free_base_port() -> Result<u16, Error> {
    const FIRST: u32 = 20_000;
    const SHOPS: u32 = 2_000;
    const PORTS_PER_SHOP: u32 = 5;
    // Processes that search at the same time (tests) start at different places.
    let start = std::process::id();
    (0..SHOPS)
        .map(|n| (FIRST + start.wrapping_mul(7).wrapping_add(n) % SHOPS * PORTS_PER_SHOP) as u16)
        .find(|&base| {
            ports(base).is_ok_and(|at| Service::ALL.iter().all(|&service| TcpListener::bind(at.of(service)).is_ok()))
        })
        .ok_or(Error::NoFreePorts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_base() {
        let at = ports(9000).unwrap();
        assert_eq!(at.of(Service::Gateway).to_string(), "127.0.0.1:9000");
        assert_eq!(at.of(Service::Recommendations).to_string(), "127.0.0.1:9004");
        let proxied = at.with(Service::Payments, "127.0.0.1:1".parse().unwrap());
        assert_eq!(proxied.of(Service::Payments).port(), 1);
        assert_eq!(proxied.of(Service::Cart), at.of(Service::Cart));
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert!(ports(65_531).is_ok());
        assert!(matches!(ports(65_532), Err(Error::Ports { base: 65_532 })));
        assert!(matches!(ports(0), Err(Error::Ports { base: 0 })));
    }

    #[test]
    fn process_names_fit_the_kernels_15_bytes() {
        for service in Service::ALL {
            assert!(service.process_name().len() <= 15, "{service}");
        }
    }

    #[test]
    fn free_base_port_skips_a_taken_port() {
        let base = free_base_port().unwrap();
        let _taken = TcpListener::bind(ports(base).unwrap().of(Service::Payments)).unwrap();
        assert_ne!(free_base_port().unwrap(), base);
    }

    #[test]
    fn the_topology_is_a_valid_manifest_of_the_shop_at_its_default_ports() {
        use toprope_model::topology::Topology;
        use toprope_model::{Sources, parse};
        let manifest = parse(&mut Sources::default(), "topology.yaml", crate::TOPOLOGY).unwrap();
        let spec = Topology::read(&manifest).unwrap().spec;
        assert_eq!(spec.services.len(), Service::ALL.len());
        let at = ports(DEFAULT_BASE_PORT).unwrap();
        for service in Service::ALL {
            let told = &spec.services[service.name()];
            let address = at.of(service);
            assert_eq!(told.address.as_ref().unwrap().to_string(), address.to_string());
            assert_eq!(told.process.as_deref(), Some(service.process_name()));
            assert_eq!(told.health, Some(format!("http://{address}/health")));
            assert_eq!(told.metrics, Some(format!("http://{address}/metrics")));
        }
        assert_eq!(spec.services["gateway"].depends_on.len(), 4);
    }
}
