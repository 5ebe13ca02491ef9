//! URIs by their characters.

/// Whether a text is a URI (`absolute`), or a URI reference.
///
/// # Source
/// RFC 3986 appendix A, without the inner syntax of IP literals.
pub(super) fn is_uri(text: &str, absolute: bool) -> bool {
    let (rest, scheme) = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (rest, true),
        _ => (text, false),
    };
    if !scheme {
        let first = text.split(['/', '?', '#']).next().unwrap_or_default();
        if absolute || first.contains(':') {
            return false;
        }
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
            if !is_authority(authority) {
                return false;
            }
            path
        }
        None => rest,
    };
    is_made_of(path, b":@/") && is_made_of(query, b":@/?") && is_made_of(fragment, b":@/?")
}

fn is_scheme(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    let (host, port) = if let Some(inner) = host.strip_prefix('[') {
        let Some((literal, port)) = inner.split_once(']') else { return false };
        let Some(port) = port.strip_prefix(':').or_else(|| port.is_empty().then_some("")) else { return false };
        if literal.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("", port)
    } else {
        host.rsplit_once(':').unwrap_or((host, ""))
    };
    is_made_of(user, b":") && is_made_of(host, b"") && port.bytes().all(|b| b.is_ascii_digit())
}

/// Unreserved characters, sub-delimiters, percent triples and `also`.
fn is_made_of(text: &str, also: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => bytes.next().is_some_and(|b| b.is_ascii_hexdigit()) && bytes.next().is_some_and(|b| b.is_ascii_hexdigit()),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) || also.contains(&byte),
        };
        if !fine {
            return false;
        }
    }
    true
}
