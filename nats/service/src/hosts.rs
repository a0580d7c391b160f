//! To which names a listener answers. A web page can give its own name the address of this machine (DNS rebinding),
//! and then speaks to what listens here as if it were of the same site; the name in `Host` is what gives it away.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::{Code, Problem};

/// The names that a listener answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any: callers say who they are, and no page has their token.
    Any,
    /// No tokens are asked for: these, `localhost`, and addresses of this machine. What others reach answers to
    /// any address, and to names without a dot, too, which cannot be registered.
    Local(Vec<String>),
}

/// The rule of one listener.
pub(crate) struct Rule {
    pub(crate) hosts: Hosts,
    pub(crate) is_loopback: bool,
}

impl Rule {
    fn answers_to(&self, host: &str) -> bool {
        let Hosts::Local(names) = &self.hosts else { return true };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return !self.is_loopback || address.to_canonical().is_loopback();
        }
        let is_local = host == "localhost" || host.ends_with(".localhost");
        let is_private = !self.is_loopback && !host.contains('.');
        is_local || is_private || names.iter().any(|name| name.eq_ignore_ascii_case(&host))
    }
}

/// The one name that a call is for; `None` where it may lack (HTTP/1.0).
fn host(request: &Request) -> Result<Option<Authority>, Problem> {
    let told = host_field(request.headers())?;
    if told.is_none() && request.version() == Version::HTTP_11 {
        return Err(Problem::malformed("the header field host is missing"));
    }
    // In the request line it goes before the field (RFC 9112 §3.2.2), and by HTTP/2 both are the same.
    match (request.uri().authority(), told) {
        (Some(named), Some(told)) if request.version() >= Version::HTTP_2 && *named != told => {
            Err(Problem::malformed(":authority and the header field host differ"))
        }
        (Some(named), _) => Ok(Some(named.clone())),
        (None, told) => Ok(told),
    }
}

fn host_field(headers: &HeaderMap) -> Result<Option<Authority>, Problem> {
    let mut lines = headers.get_all(header::HOST).into_iter();
    let (Some(first), second) = (lines.next(), lines.next()) else { return Ok(None) };
    if second.is_some() {
        return Err(Problem::malformed("the header field host is given twice"));
    }
    let text = first.to_str().unwrap_or_default();
    let authority = text.parse::<Authority>().ok().filter(|_| !text.contains('@'));
    authority.map(Some).ok_or_else(|| Problem::malformed("the header field host does not read"))
}

pub(crate) async fn check(State(rule): State<Arc<Rule>>, request: Request, next: Next) -> Response {
    match host(&request) {
        Ok(Some(host)) if !rule.answers_to(host.host()) => {
            metrics::counter!("twelve_refused_total", "why" => "host").increment(1);
            let detail = "callers are not asked who they are here, so only names of this machine are answered; \
                          --host-names adds others";
            Problem::new(Code::HostUnknown, detail).into_response()
        }
        Ok(_) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_only_names_of_this_machine_are_answered() {
        let named = Hosts::Local(vec!["shop.example".into()]);
        let rule = |hosts: &Hosts, is_loopback| Rule { hosts: hosts.clone(), is_loopback };
        let (here, open) = (rule(&named, true), rule(&named, false));
        for host in
            ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "shop.example"]
        {
            assert!(here.answers_to(host) && open.answers_to(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost.com", ""]
        {
            assert!(!here.answers_to(host), "{host}");
        }
        for host in ["command-svc", "192.0.2.7", "[2001:db8::1]", "0.0.0.0"] {
            assert!(!here.answers_to(host) && open.answers_to(host), "{host}");
        }
        assert!(!open.answers_to("evil.example"));
        assert!(rule(&Hosts::Any, false).answers_to("evil.example"));
    }
}
