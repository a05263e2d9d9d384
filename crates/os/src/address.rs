//! Ranges of IP addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// An address, or all that share its first bits (CIDR notation, RFC 4632 and RFC 4291). Reads and writes as
/// `10.0.0.0/8`, and as the bare address when it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// All addresses whose first `prefix` bits are those of `address`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let width = width(address);
        if prefix > width {
            let why = format!("has {prefix} bits, and an address of its kind has {width}");
            return Err(Error::invalid(format!("the prefix of {address}/{prefix}"), why));
        }
        let address = match address {
            IpAddr::V4(a) => IpAddr::V4((a.to_bits() & mask(u32::MAX.into(), prefix, 32) as u32).into()),
            IpAddr::V6(a) => IpAddr::V6((a.to_bits() & mask(u128::MAX, prefix, 128)).into()),
        };
        Ok(Self { address, prefix })
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of the first bits are shared.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address lies within. An IPv4 address that is mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address.to_canonical(), self.prefix).is_ok_and(|range| range == *self)
    }

    /// The bits that are compared, in network order.
    pub(crate) fn mask(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(_) => (mask(u32::MAX.into(), self.prefix, 32) as u32).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask(u128::MAX, self.prefix, 128).to_be_bytes().to_vec(),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(all: u128, prefix: u8, width: u8) -> u128 {
    // Shifting out every bit overflows: no bit is compared then.
    all.checked_shl(u32::from(width - prefix)).unwrap_or(0) & all
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: width(address) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let no_address =
            || Error::invalid(format!("{text:?}"), "is neither an IP address nor a range such as 10.0.0.0/8");
        match text.split_once('/') {
            None => Ok(text.parse::<IpAddr>().map_err(|_| no_address())?.into()),
            Some((address, prefix)) => {
                let address = address.parse().map_err(|_| no_address())?;
                Self::new(address, prefix.parse().map_err(|_| no_address())?)
            }
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a range")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ranges_read_and_write_alike_and_lose_bits_beyond_the_prefix() {
        for (text, written) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "127.0.0.1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1"),
        ] {
            assert_eq!(cidr(text).to_string(), written);
        }
    }

    #[test]
    fn what_lies_within_is_contained() {
        assert!(cidr("10.0.0.0/8").contains(ip("10.255.0.1")) && !cidr("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(cidr("0.0.0.0/0").contains(ip("8.8.8.8")) && !cidr("0.0.0.0/0").contains(ip("::1")));
        assert!(cidr("::/0").contains(ip("::1")));
        assert!(cidr("127.0.0.1").contains(ip("::ffff:127.0.0.1")));
    }

    #[test]
    fn masks_are_in_network_order() {
        assert_eq!(cidr("10.0.0.0/9").mask(), [255, 128, 0, 0]);
        assert_eq!(cidr("::/0").mask(), [0; 16]);
        assert_eq!(cidr("::1").mask(), [255; 16]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "localhost", "10.0.0.0/", "10.0.0.0/-1", "10/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
