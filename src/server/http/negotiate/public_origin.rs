//! Scheme and host of the URLs that negotiate gives.

use std::net::IpAddr;

use http::HeaderMap;

use crate::server::http::app::Peer;

/// Scheme and host as the client sees them. The headers of a proxy count only if the proxy is trusted.
pub fn public_origin<'a>(
    headers: &'a HeaderMap,
    peer: Peer,
    trusted: &[ipnet::IpNet],
) -> (&'static str, Option<&'a str>) {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(first);
    let host = header("host").filter(|host| is_host(host));
    if !is_trusted(peer.0.ip(), trusted) {
        return ("ws", host);
    }
    let scheme = match header("x-forwarded-proto") {
        Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => "wss",
        _ => "ws",
    };
    (scheme, header("x-forwarded-host").filter(|host| is_host(host)).or(host))
}

/// The first of a comma-separated list: the proxy nearest to the client.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

fn is_trusted(peer: IpAddr, trusted: &[ipnet::IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// Whether the text has no character that would end the host in a URL.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    const FORWARDED: [(&str, &str); 3] =
        [("host", "inner:8080"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "feed.example, inner")];

    #[test]
    fn what_a_proxy_says_is_believed_only_from_a_trusted_one() {
        let headers = headers(&FORWARDED);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let peer = |address: &str| Peer(address.parse().unwrap());
        assert_eq!(public_origin(&headers, peer("10.1.2.3:5"), &trusted), ("wss", Some("feed.example")));
        assert_eq!(public_origin(&headers, peer("[::ffff:10.1.2.3]:5"), &trusted), ("wss", Some("feed.example")));
        assert_eq!(public_origin(&headers, peer("192.0.2.1:5"), &trusted), ("ws", Some("inner:8080")));
        assert_eq!(public_origin(&headers, peer("10.1.2.3:5"), &[]), ("ws", Some("inner:8080")));
    }

    #[test]
    fn a_host_that_would_break_the_url_is_none() {
        let peer = Peer("192.0.2.1:5".parse().unwrap());
        for host in ["", "a/b", "a?b", "a b", "a@b", "a\"b"] {
            assert_eq!(public_origin(&headers(&[("host", host)]), peer, &[]).1, None, "{host}");
        }
        assert_eq!(public_origin(&headers(&[("host", "[::1]:8080")]), peer, &[]).1, Some("[::1]:8080"));
    }
}
