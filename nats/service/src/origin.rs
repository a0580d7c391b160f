//! Where a call comes from, and which calls are counted together where there are no tokens.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// Bits of an IPv6 address that tell one subscriber from another: the rest is theirs to choose (RFC 6177).
const IPV6_SUBSCRIBER_BITS: u32 = 64;
const IPV6_BITS: u32 = 128;

/// Where a call comes from: the last address that a proxy which is believed put before its own.
///
/// Only `X-Forwarded-For` is read. Who forwards writes one of it and `Forwarded` (RFC 7239), hands on the other as the
/// caller sent it, and nothing tells which; the gateway's configuration here writes the former.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let told = headers.get_all(FORWARDED_FOR).into_iter().flat_map(|value| {
        // A line that is no text tells nothing, and ends what is believed, as any other that does not read.
        value.to_str().unwrap_or("unknown").split(',').collect::<Vec<_>>()
    });
    let told: Vec<&str> = told.collect();
    let mut from = peer;
    for hop in told.into_iter().rev() {
        // What a proxy does not tell (`unknown`, `_hidden`) comes from that proxy, as far as we know.
        let Some(address) = is_trusted(&from).then(|| hop_address(hop)).flatten() else { break };
        from = address;
    }
    from
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn hop_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = || text.parse::<IpAddr>().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let with_scope = || text.parse::<SocketAddrV6>().ok().map(|address| IpAddr::from(*address.ip()));
    let address = bare().or_else(bracketed).or_else(with_port).or_else(with_scope)?;
    Some(address.to_canonical())
}

/// What stands for an address when calls are counted: of IPv6, the subscriber's whole network.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::MAX << (IPV6_BITS - IPV6_SUBSCRIBER_BITS);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn from(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        counted(address(peer.parse().unwrap(), &headers, &trusted)).to_string()
    }

    #[test]
    fn only_a_proxy_that_is_trusted_says_where_a_call_comes_from() {
        let ours = ["10.0.0.0/8"];
        assert_eq!(from("203.0.113.9", &["10.9.9.9"], &[]), "203.0.113.9");
        assert_eq!(from("10.0.0.2", &["198.51.100.7"], &ours), "198.51.100.7");
        assert_eq!(from("10.0.0.2", &["1.1.1.1, 198.51.100.7"], &ours), "198.51.100.7", "what a caller adds");
        assert_eq!(from("10.0.0.2", &["198.51.100.7, 10.0.0.3"], &ours), "198.51.100.7", "two proxies");
        assert_eq!(from("10.0.0.2", &["1.1.1.1", "198.51.100.7"], &ours), "198.51.100.7", "two lines");
        assert_eq!(from("10.0.0.2", &["nonsense"], &ours), "10.0.0.2");
        assert_eq!(
            from("::ffff:10.0.0.2", &["198.51.100.7"], &ours),
            "198.51.100.7",
            "a dual-stack listener"
        );
    }

    #[test]
    fn an_address_is_known_with_a_port_and_without_and_beside_what_is_no_address() {
        let ours = ["10.0.0.0/8"];
        for told in ["198.51.100.7:50123", "198.51.100.7", " \"198.51.100.7:1\"", "[::ffff:198.51.100.7]:443"]
        {
            assert_eq!(from("10.0.0.2", &[told], &ours), "198.51.100.7", "{told}");
        }
        for told in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:50123", "\"[2001:db8::7]:1\""] {
            assert_eq!(from("10.0.0.2", &[told], &ours), "2001:db8::", "{told}");
        }
        for told in ["unknown, 198.51.100.7", "_hidden, 198.51.100.7", ", 198.51.100.7", "x, 198.51.100.7"] {
            assert_eq!(from("10.0.0.2", &[told], &ours), "198.51.100.7", "{told}");
        }
        for told in ["198.51.100.7, unknown", "198.51.100.7, _hidden"] {
            assert_eq!(
                from("10.0.0.2", &[told], &ours),
                "10.0.0.2",
                "{told}: the caller may have written it"
            );
        }
    }

    #[test]
    fn all_addresses_of_one_subscriber_are_one_caller() {
        assert_eq!(from("2001:db8:1:2:3:4:5:6", &[], &[]), from("2001:db8:1:2::1", &[], &[]));
        assert_ne!(from("2001:db8:1:2::1", &[], &[]), from("2001:db8:1:3::1", &[], &[]));
    }
}
