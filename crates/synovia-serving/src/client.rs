//! Who asks, and what they may.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::Refusal;

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
    token: [u8; 32],
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Client {
    /// Who shows this as `Authorization: Bearer …`. The name is for the audit log.
    pub fn new(name: &str, role: Role, token: &str) -> Self {
        Self { name: name.into(), role, token: Sha256::digest(token).into() }
    }

    /// Clients of a file: a line each of a token, a name and `predict` or `admin`, apart by spaces; `#` begins a remark. A token
    /// alone is an admin's by the name of `client`.
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
            let client = Self::new(words.get(1).unwrap_or(&"client"), role, words[0]);
            if clients.iter().any(|known| known.token == client.token) {
                return Err(format!("line {} has a token that another line has", k + 1));
            }
            clients.push(client);
        }
        if clients.is_empty() { Err("no line has a token".to_owned()) } else { Ok(clients) }
    }
}

/// Who asks: a client's name, or `anyone` where nobody has to show a token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub name: Arc<str>,
    pub protocol: &'static str,
}

/// The client that `Authorization` shows the token of. Digests are compared, so that the time it takes tells nothing of a token.
pub(crate) fn caller(clients: &[Client], authorization: Option<&[u8]>, needs: Role, protocol: &'static str) -> Result<Caller, Refusal> {
    if clients.is_empty() {
        return Ok(Caller { name: "anyone".into(), protocol });
    }
    let shown = authorization.and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| <[u8; 32]>::from(Sha256::digest(token)))
    });
    let client = clients.iter().find(|client| Some(client.token) == shown).ok_or(Refusal::Unauthorized)?;
    if client.role < needs { Err(Refusal::Forbidden) } else { Ok(Caller { name: Arc::clone(&client.name), protocol }) }
}
