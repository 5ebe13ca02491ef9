//! Which addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks that are not the public internet, with what they are.
///
/// # Source
/// IANA special-purpose address registries (RFC 6890), NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380).
const CLOSED_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Whether an address is on the public internet. Of IPv6 only global unicast is; forms that carry an IPv4 address are refused
/// whole (`::ffff:…`, NAT64, 6to4, Teredo), as are documentation and ORCHID.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !CLOSED_V4.iter().any(|(network, bits)| holds_v4(*network, *bits, v4)),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_special = (first == 0x2001 && second < 0x0200) || first == 0x2002 || (first == 0x2001 && second == 0x0db8) || first == 0x3fff;
    is_global && !is_special
}

fn holds_v4(network: Ipv4Addr, bits: u8, address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

fn holds_v6(network: Ipv6Addr, bits: u8, address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    u128::from(network) & mask == u128::from(address) & mask
}

/// What an operator permits beside the public internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// `host:port`, by name or address.
    Host(String, u16),
    /// `10.1.0.0/16` or `fd00::/8`.
    Network(IpAddr, u8),
}

impl Allowed {
    /// Reads `host:port` or `address/bits`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((address, bits)) = text.split_once('/') {
            let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            return (bits <= most).then_some(Self::Network(address, bits));
        }
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        (!host.is_empty()).then_some(())?;
        Some(Self::Host(host, port.parse().ok()?))
    }

    pub(crate) fn has_host(&self, name: &str, at: u16) -> bool {
        matches!(self, Self::Host(host, port) if host.eq_ignore_ascii_case(name) && *port == at)
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Network(IpAddr::V4(network), bits), IpAddr::V4(address)) => holds_v4(*network, *bits, address),
            (Self::Network(IpAddr::V6(network), bits), IpAddr::V6(address)) => holds_v6(*network, *bits, address),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowed, is_public};

    #[test]
    fn only_the_public_internet_is_public() {
        let closed = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 \
            192.0.2.1 192.168.1.1 198.18.0.1 198.19.255.255 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:8.8.8.8 \
            ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 fc00::1 \
            fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1";
        for text in closed.split_whitespace() {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
        for text in
            "8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 198.20.0.1 223.255.255.255 2606:4700::1111 2a00::1".split(' ')
        {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn reads_what_is_allowed() {
        let local = Allowed::parse("10.1.0.0/16").expect("a network");
        assert!(local.has_address("10.1.255.1".parse().expect("an address")));
        assert!(!local.has_address("10.2.0.1".parse().expect("an address")));
        let all = Allowed::parse("::/0").expect("a network");
        assert!(all.has_address("::1".parse().expect("an address")) && !all.has_address("127.0.0.1".parse().expect("an address")));
        assert!(
            Allowed::parse("Jenkins.local:8080")
                .is_some_and(|host| host.has_host("jenkins.LOCAL", 8080) && !host.has_host("jenkins.local", 80))
        );
        assert_eq!(Allowed::parse("[::1]:80"), Some(Allowed::Host("::1".to_owned(), 80)));
        for text in ["", "host", ":80", "host:", "host:99999", "10.0.0.0/33", "x/8"] {
            assert_eq!(Allowed::parse(text), None, "{text}");
        }
    }
}
