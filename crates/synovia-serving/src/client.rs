//! Who asks, and what they may.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::error::Refusal;
use crate::tls::PeerCertificate;
use crate::trace::Begun;

/// What a client may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// All but what changes the server.
    Predict,
    /// Load models and take them out of service, too.
    Admin,
}

/// Somebody who shows a token.
#[derive(Clone)]
pub struct Client {
    name: Arc<str>,
    role: Role,
    shows: Shows,
}

/// What a client is known by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// The SHA-256 of a token.
    Token([u8; 32]),
    /// That of a certificate.
    Certificate([u8; 32]),
}

/// Before the digest of a certificate in the file of clients.
const CERTIFICATE: &str = "sha256:";

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Client {
    /// Who shows this as `Authorization: Bearer …`. The name is for the audit log.
    pub fn new(name: &str, role: Role, token: &str) -> Self {
        Self { name: name.into(), role, shows: Shows::Token(Sha256::digest(token).into()) }
    }

    /// Who shows a certificate of this SHA-256, in hexadecimal digits; colons between them are left out.
    fn by_certificate(name: &str, role: Role, digest: &str) -> Option<Self> {
        let digest = hex::decode(digest.replace(':', "")).ok()?.try_into().ok()?;
        Some(Self { name: name.into(), role, shows: Shows::Certificate(digest) })
    }

    /// Clients of a file: a line each of a token, a name and `predict` or `admin`, apart by spaces; `#` begins a remark. A token
    /// alone is an admin's by the name of `client`. In the place of a token `sha256:` and the digest of a client's certificate stand
    /// for that.
    ///
    /// # Errors
    /// The first line that is none, by its number: a line holds a token.
    pub fn read(text: &str) -> Result<Vec<Self>, String> {
        let mut clients: Vec<Self> = Vec::new();
        for (k, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let role = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [_] | [_, _] | [_, _, "admin"] => Role::Admin,
                [_, _, "predict"] => Role::Predict,
                _ => return Err(format!("line {} is not a token, a name, and `predict` or `admin`", k + 1)),
            };
            let name = words.get(1).unwrap_or(&"client");
            let client = match words[0].strip_prefix(CERTIFICATE) {
                None => Self::new(name, role, words[0]),
                Some(digest) => {
                    let wrong = || format!("line {} has no 64 hexadecimal digits behind `{CERTIFICATE}`", k + 1);
                    Self::by_certificate(name, role, digest).ok_or_else(wrong)?
                }
            };
            if clients.iter().any(|known| known.shows == client.shows) {
                return Err(format!("line {} has a token that another line has", k + 1));
            }
            clients.push(client);
        }
        if clients.is_empty() { Err("no line has a token".to_owned()) } else { Ok(clients) }
    }
}

/// What a request shows of who sends it.
pub(crate) struct Shown<'a> {
    pub authorization: Option<&'a [u8]>,
    pub certificate: Option<&'a PeerCertificate>,
}

impl<'a> Shown<'a> {
    pub(crate) fn by(headers: &'a HeaderMap, extensions: &'a Extensions) -> Self {
        Self { authorization: headers.get(AUTHORIZATION).map(HeaderValue::as_bytes), certificate: extensions.get() }
    }
}

/// How often clients may ask: as many requests a second, and as many at once (the generic cell rate algorithm of ITU-T I.371, a client
/// each).
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<Arc<str>, Instant>>);

impl Rates {
    /// Takes a request of a client's, or says when the next may come.
    pub(crate) fn take(&self, client: &Arc<str>, per_second: u32, now: Instant) -> Result<(), Refusal> {
        let (apart, at_once) = (Duration::from_secs(1) / per_second, Duration::from_secs(1));
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Names are those that the operator gave: there are not many.
        let due = due.entry(Arc::clone(client)).or_insert(now);
        let next = (*due).max(now) + apart;
        let early = next.saturating_duration_since(now + at_once);
        if early > Duration::ZERO {
            return Err(Refusal::TooOften { seconds: early.as_secs() + 1 });
        }
        *due = next;
        Ok(())
    }
}

/// Who asks: a client's name, or `anyone` where nobody has to show a token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub name: Arc<str>,
    pub protocol: &'static str,
    /// Of the request, where it is traced.
    pub span: Option<Begun>,
}

/// The token in `Authorization: Bearer TOKEN`, or as the password of `Basic`, which is what browsers ask their users for.
fn token_in(authorization: &[u8]) -> Option<Vec<u8>> {
    let end = authorization.iter().position(|&b| b == b' ')?;
    let (scheme, rest) = (&authorization[..end], &authorization[end + 1..]);
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    let text = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest).ok())??;
    let colon = text.iter().position(|&b| b == b':')?;
    Some(text[colon + 1..].to_vec())
}

/// The client that `Authorization` shows the token of. Digests are compared, so that the time it takes tells nothing of a token.
pub(crate) fn caller(clients: &[Client], shown: &Shown<'_>, needs: Role, protocol: &'static str) -> Result<Caller, Refusal> {
    if clients.is_empty() {
        return Ok(Caller { name: "anyone".into(), protocol, span: None });
    }
    // Who shows a token is who that says, or nobody.
    let shows = match shown.authorization {
        Some(authorization) => token_in(authorization).map(|token| Shows::Token(Sha256::digest(token).into())),
        None => shown.certificate.map(|PeerCertificate(digest)| Shows::Certificate(*digest)),
    };
    let client = clients.iter().find(|client| Some(client.shows) == shows).ok_or(Refusal::Unauthorized)?;
    if client.role < needs { Err(Refusal::Forbidden) } else { Ok(Caller { name: Arc::clone(&client.name), protocol, span: None }) }
}
